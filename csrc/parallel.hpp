// Threads: OpenMP, so that torch and gatewise share one pool (two would spin against each other).
#pragma once

#include <omp.h>

#include "kernels.hpp"
#include "vec.hpp"

namespace gatewise::GATEWISE_ISA {

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

}  // namespace gatewise::GATEWISE_ISA
