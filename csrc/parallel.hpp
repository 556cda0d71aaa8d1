// Threads: OpenMP, so that torch and gatewise share one pool (two would spin against each other).
//
// ThreadSanitizer does not see how OpenMP's threads wait for one another: it would call every number that one of them
// hands to another a race. What is compiled for it has threads of the standard library instead.
#pragma once

#if defined(GATEWISE_SANITIZE_THREAD)
#include <thread>
#include <vector>
#else
#include <omp.h>
#endif

#include <atomic>

#include "kernels.hpp"
#include "vec.hpp"

namespace gatewise::GATEWISE_ISA {

// Where the threads of a team wait for one another. OpenMP's own barrier takes some 260 ns for two threads, this one 80,
// and threads that share units meet at each step. Whoever waits long gives its core away, as there may be more threads
// than cores.
class Meeting {
 public:
  void arrive_and_wait(int threads) {
    const int round = round_.load(std::memory_order_relaxed);
    if (arrived_.fetch_add(1, std::memory_order_acq_rel) == threads - 1) {
      arrived_.store(0, std::memory_order_relaxed);
      round_.store(round + 1, std::memory_order_release);
      round_.notify_all();
      return;
    }
    constexpr int kLooks = 2000;  // some tens of microseconds
    for (int look = 0; look < kLooks; ++look) {
      if (round_.load(std::memory_order_acquire) != round) return;
      spin();
    }
    round_.wait(round, std::memory_order_acquire);
  }

 private:
  alignas(64) std::atomic<int> arrived_{0};
  alignas(64) std::atomic<int> round_{0};
};

// A thread and how many there are of its team.
struct Team {
  int thread, threads;
  Meeting* meeting;

  // Every thread of the team waits here for the others.
  void meet() const {
    if (threads > 1) meeting->arrive_and_wait(threads);
  }
};

// body(team) on each of `most` threads at most. One thread runs it without entering OpenMP at all.
template <class Body>
void in_parallel(int most, const Body& body) {
  if (most <= 1 || forked()) return body(Team{0, 1, nullptr});
  Meeting meeting;
#if defined(GATEWISE_SANITIZE_THREAD)
  std::vector<std::jthread> others;
  for (int thread = 1; thread < most; ++thread)
    others.emplace_back([&, thread] { body(Team{thread, most, &meeting}); });
  body(Team{0, most, &meeting});
#else
#pragma omp parallel num_threads(most)
  body(Team{omp_get_thread_num(), omp_get_num_threads(), &meeting});
#endif
}

}  // namespace gatewise::GATEWISE_ISA
