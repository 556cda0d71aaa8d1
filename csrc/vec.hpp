// The vector type: as many numbers as one register of the instruction set holds.
//
// The only compiler-specific file. It uses the vector extensions that GCC (12 or newer) and Clang share, so the same
// source serves every instruction set; only the fused multiply-add is named per machine, because whether a product
// and a sum are fused must not be left to the optimiser: the same row must come out bit for bit the same from every
// tile shape, thread count and batch size. (The build turns the compiler's own contraction off.)
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#ifndef GATEWISE_ISA
#error "compile with -DGATEWISE_ISA=<name>: it becomes the namespace of this instruction set's code"
#endif

#define GATEWISE_INLINE inline __attribute__((always_inline))

namespace gatewise::GATEWISE_ISA {

#if defined(__AVX512F__)
constexpr int kVectorBytes = 64, kRegisters = 32;
#elif defined(__AVX2__)
constexpr int kVectorBytes = 32, kRegisters = 16;
#elif defined(__aarch64__)
constexpr int kVectorBytes = 16, kRegisters = 32;
#else
constexpr int kVectorBytes = 16, kRegisters = 16;
#endif

// Vectors of floats, of doubles, and of the integers of the same width that hold their bits and comparisons.
// (may_alias: they are loaded from and stored to plain arrays; aligned to one number only: nothing needs more.)
template <class Real>
struct VecOf;
template <>
struct VecOf<float> {
  typedef float type __attribute__((vector_size(kVectorBytes)));
  typedef int32_t bits __attribute__((vector_size(kVectorBytes)));
};
template <>
struct VecOf<double> {
  typedef double type __attribute__((vector_size(kVectorBytes)));
  typedef int64_t bits __attribute__((vector_size(kVectorBytes)));
};

template <class Real>
using Vec = typename VecOf<Real>::type;
template <class Real>
using Bits = typename VecOf<Real>::bits;

// How many numbers a vector holds.
template <class Real>
constexpr int kLanes = kVectorBytes / static_cast<int>(sizeof(Real));

template <class Real>
GATEWISE_INLINE Vec<Real> load(const Real* from) {
  Vec<Real> v;
  std::memcpy(&v, from, sizeof v);
  return v;
}

template <class Real>
GATEWISE_INLINE void store(Real* to, Vec<Real> v) {
  std::memcpy(to, &v, sizeof v);
}

// The first n numbers (0 < n <= lanes), zeros behind them: nothing past them is read.
template <class Real>
GATEWISE_INLINE Vec<Real> load_first(const Real* from, long n) {
  if (n >= kLanes<Real>) return load(from);
  Real lanes[kLanes<Real>] = {};
  for (long j = 0; j < n; ++j) lanes[j] = from[j];
  return load(lanes);
}

// The first n lanes (0 < n <= lanes): nothing past them is written.
template <class Real>
GATEWISE_INLINE void store_first(Real* to, Vec<Real> v, long n) {
  if (n >= kLanes<Real>) return store(to, v);
  Real lanes[kLanes<Real>];
  store(lanes, v);
  for (long j = 0; j < n; ++j) to[j] = lanes[j];
}

// The first n lanes, and zeros behind them, whatever stood there.
template <class Real>
GATEWISE_INLINE Vec<Real> keep_first(Vec<Real> v, long n) {
  Real lanes[kLanes<Real>];
  store(lanes, v);
  return load_first(lanes, n);
}

// Every lane the same. (x - 0 is x for every x, -0 and NaN too; x + 0 would lose the sign of -0.)
template <class Real>
GATEWISE_INLINE Vec<Real> broadcast(Real x) {
  return x - Vec<Real>{};
}

// a * b + c, rounded once where the machine can.
GATEWISE_INLINE Vec<float> fma(Vec<float> a, Vec<float> b, Vec<float> c) {
#if defined(__AVX512F__)
  return _mm512_fmadd_ps(a, b, c);
#elif defined(__FMA__)
  return _mm256_fmadd_ps(a, b, c);
#elif defined(__aarch64__)
  return vfmaq_f32(c, a, b);
#else
  return a * b + c;
#endif
}

GATEWISE_INLINE Vec<double> fma(Vec<double> a, Vec<double> b, Vec<double> c) {
#if defined(__AVX512F__)
  return _mm512_fmadd_pd(a, b, c);
#elif defined(__FMA__)
  return _mm256_fmadd_pd(a, b, c);
#elif defined(__aarch64__)
  return vfmaq_f64(c, a, b);
#else
  return a * b + c;
#endif
}

// x, or the limit where x is below (above) it; a NaN stays. x86 has one instruction for it that returns its second
// operand for a NaN, and the compiler may not choose it by itself.
GATEWISE_INLINE Vec<float> at_least(Vec<float> limit, Vec<float> x) {
#if defined(__AVX512F__)
  return _mm512_max_ps(limit, x);
#elif defined(__AVX2__)
  return _mm256_max_ps(limit, x);
#elif defined(__x86_64__)
  return _mm_max_ps(limit, x);
#else
  return x < limit ? limit : x;
#endif
}

GATEWISE_INLINE Vec<double> at_least(Vec<double> limit, Vec<double> x) {
#if defined(__AVX512F__)
  return _mm512_max_pd(limit, x);
#elif defined(__AVX2__)
  return _mm256_max_pd(limit, x);
#elif defined(__x86_64__)
  return _mm_max_pd(limit, x);
#else
  return x < limit ? limit : x;
#endif
}

GATEWISE_INLINE Vec<float> at_most(Vec<float> limit, Vec<float> x) {
#if defined(__AVX512F__)
  return _mm512_min_ps(limit, x);
#elif defined(__AVX2__)
  return _mm256_min_ps(limit, x);
#elif defined(__x86_64__)
  return _mm_min_ps(limit, x);
#else
  return x > limit ? limit : x;
#endif
}

GATEWISE_INLINE Vec<double> at_most(Vec<double> limit, Vec<double> x) {
#if defined(__AVX512F__)
  return _mm512_min_pd(limit, x);
#elif defined(__AVX2__)
  return _mm256_min_pd(limit, x);
#elif defined(__x86_64__)
  return _mm_min_pd(limit, x);
#else
  return x > limit ? limit : x;
#endif
}

// The bits of a vector as another type of the same size.
template <class To, class From>
GATEWISE_INLINE To bits_as(From v) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  std::memcpy(&to, &v, sizeof to);
  return to;
}


// r[lane][k] becomes r[k][lane], in place. Each pass interleaves the first half of the rows with the second; after
// log2(lanes) passes every index bit of the row has changed places with one of the lane.
template <class Real>
GATEWISE_INLINE void transpose(Vec<Real> (&r)[kLanes<Real>]) {
  constexpr int n = kLanes<Real>;
  Vec<Real> next[n];
  for (int pass = 1; pass < n; pass *= 2) {
#pragma GCC unroll 16
    for (int j = 0; j < n / 2; ++j) {
      const Vec<Real> a = r[j], b = r[j + n / 2];
      if constexpr (n == 2) {
        next[2 * j] = __builtin_shufflevector(a, b, 0, 2);
        next[2 * j + 1] = __builtin_shufflevector(a, b, 1, 3);
      } else if constexpr (n == 4) {
        next[2 * j] = __builtin_shufflevector(a, b, 0, 4, 1, 5);
        next[2 * j + 1] = __builtin_shufflevector(a, b, 2, 6, 3, 7);
      } else if constexpr (n == 8) {
        next[2 * j] = __builtin_shufflevector(a, b, 0, 8, 1, 9, 2, 10, 3, 11);
        next[2 * j + 1] = __builtin_shufflevector(a, b, 4, 12, 5, 13, 6, 14, 7, 15);
      } else {
        static_assert(n == 16);
        next[2 * j] = __builtin_shufflevector(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
        next[2 * j + 1] =
            __builtin_shufflevector(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
      }
    }
#pragma GCC unroll 16
    for (int j = 0; j < n; ++j) r[j] = next[j];
  }
}

}  // namespace gatewise::GATEWISE_ISA
