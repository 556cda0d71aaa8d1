// Picks the instruction set once, the best one that this machine has, and notices a fork.
#include <omp.h>
#include <pthread.h>

#include "kernels.hpp"

namespace gatewise {

// CMakeLists.txt says which ones are compiled in; baseline always is, but for the sanitizers.
#if defined(GATEWISE_HAS_avx512bf16)
namespace avx512bf16 {
extern const Kernels table;
}
#endif
#if defined(GATEWISE_HAS_avx512)
namespace avx512 {
extern const Kernels table;
}
#endif
#if defined(GATEWISE_HAS_avx2)
namespace avx2 {
extern const Kernels table;
}
#endif
#if defined(GATEWISE_HAS_baseline)
namespace baseline {
extern const Kernels table;
}
#endif

const Kernels* const* all_kernels(int* count) {
  static const Kernels* const all[] = {
#if defined(GATEWISE_HAS_avx512bf16)
      &avx512bf16::table,
#endif
#if defined(GATEWISE_HAS_avx512)
      &avx512::table,
#endif
#if defined(GATEWISE_HAS_avx2)
      &avx2::table,
#endif
#if defined(GATEWISE_HAS_baseline)
      &baseline::table,
#endif
  };
  *count = sizeof all / sizeof *all;
  return all;
}

namespace {

const Kernels* best() {
  int count;
  const Kernels* const* all = all_kernels(&count);
  int j = 0;
  while (!all[j]->supported()) ++j;  // the last one, baseline, always is
  return all[j];
}

const Kernels* chosen = nullptr;

bool child_of_fork = false;
[[maybe_unused]] const int registered = pthread_atfork(nullptr, nullptr, [] { child_of_fork = true; });

}  // namespace

bool forked() { return child_of_fork; }

double fork_join(int64_t threads, int64_t repeats) {
  const double start = omp_get_wtime();
  for (int64_t j = 0; j < repeats; ++j) {
#pragma omp parallel num_threads(threads)
    asm volatile("");  // or the compiler leaves the region out
  }
  return (omp_get_wtime() - start) / static_cast<double>(repeats);
}

const Kernels& kernels() {
  if (!chosen) chosen = best();
  return *chosen;
}

void use_kernels(const Kernels* other) { chosen = other; }

}  // namespace gatewise
