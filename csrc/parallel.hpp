// Threads: OpenMP, so that torch and gatewise share one pool (two would spin against each other).
//
// ThreadSanitizer does not see how OpenMP's threads wait for one another: it would call every number that one of them
// hands to another a race. What is compiled for it has threads and barriers of the standard library instead.
#pragma once

#if defined(GATEWISE_SANITIZE_THREAD)
#include <barrier>
#include <thread>
#include <vector>
#else
#include <omp.h>
#endif

#include "kernels.hpp"
#include "vec.hpp"

namespace gatewise::GATEWISE_ISA {

#if defined(GATEWISE_SANITIZE_THREAD)

inline thread_local std::barrier<>* meeting = nullptr;  // of this thread's team; null where it has none

template <class Body>
void in_parallel(int most, const Body& body) {
  if (most <= 1 || forked()) return body(0, 1);
  std::barrier<> of_team(most);
  const auto run = [&](int thread) {
    meeting = &of_team;
    body(thread, most);
    meeting = nullptr;
  };
  std::vector<std::jthread> others;
  for (int thread = 1; thread < most; ++thread) others.emplace_back(run, thread);
  run(0);
}

GATEWISE_INLINE void barrier() {
  if (meeting) meeting->arrive_and_wait();
}

#else

// body(thread, threads) on each of `most` threads at most. One thread runs it without entering OpenMP at all.
template <class Body>
void in_parallel(int most, const Body& body) {
  if (most <= 1 || forked()) return body(0, 1);
#pragma omp parallel num_threads(most)
  body(omp_get_thread_num(), omp_get_num_threads());
}

// Every thread of the team waits here for the others.
GATEWISE_INLINE void barrier() {
#pragma omp barrier
}

#endif

}  // namespace gatewise::GATEWISE_ISA
