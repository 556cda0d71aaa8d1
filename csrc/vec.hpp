// The vector type: as many numbers as one register of the instruction set holds.
//
// The only compiler-specific file. It uses the vector extensions that GCC (12 or newer) and Clang share, so the same
// source serves every instruction set; only the fused multiply-add is named per machine, because whether a product
// and a sum are fused must not be left to the optimiser: the same row must come out bit for bit the same from every
// tile shape, thread count and batch size. (The build turns the compiler's own contraction off.)
#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>

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

// The bits of a vector as another type of the same size.
template <class To, class From>
GATEWISE_INLINE To bits_as(From v) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  std::memcpy(&to, &v, sizeof to);
  return to;
}

// All bits of the first n lanes, and none behind them.
template <class Real>
GATEWISE_INLINE Bits<Real> first_lanes(long n) {
  Bits<Real> lane;
  for (int j = 0; j < kLanes<Real>; ++j) lane[j] = j;
  return lane < Bits<Real>{} + static_cast<std::remove_reference_t<decltype(lane[0])>>(n);
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
  return bits_as<Vec<Real>>(bits_as<Bits<Real>>(v) & first_lanes<Real>(n));
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

// Registers wider than 16 bytes shuffle cheaply only within each 16 bytes, here called a part. The lower (upper) halves
// of a's and b's parts, number by number in turn: of parts a0 a1 a2 a3 and b0 b1 b2 b3, lower is a0 b0 a1 b1.
GATEWISE_INLINE Vec<float> lower(Vec<float> a, Vec<float> b) {
#if defined(__AVX512F__)
  return _mm512_unpacklo_ps(a, b);
#elif defined(__AVX2__)
  return _mm256_unpacklo_ps(a, b);
#else
  return __builtin_shufflevector(a, b, 0, 4, 1, 5);
#endif
}

GATEWISE_INLINE Vec<float> upper(Vec<float> a, Vec<float> b) {
#if defined(__AVX512F__)
  return _mm512_unpackhi_ps(a, b);
#elif defined(__AVX2__)
  return _mm256_unpackhi_ps(a, b);
#else
  return __builtin_shufflevector(a, b, 2, 6, 3, 7);
#endif
}

GATEWISE_INLINE Vec<double> lower(Vec<double> a, Vec<double> b) {
#if defined(__AVX512F__)
  return _mm512_unpacklo_pd(a, b);
#elif defined(__AVX2__)
  return _mm256_unpacklo_pd(a, b);
#else
  return __builtin_shufflevector(a, b, 0, 2);
#endif
}

GATEWISE_INLINE Vec<double> upper(Vec<double> a, Vec<double> b) {
#if defined(__AVX512F__)
  return _mm512_unpackhi_pd(a, b);
#elif defined(__AVX2__)
  return _mm256_unpackhi_pd(a, b);
#else
  return __builtin_shufflevector(a, b, 1, 3);
#endif
}

// How many numbers a part holds.
template <class Real>
constexpr int kPart = 16 / static_cast<int>(sizeof(Real));

// A vector whose parts stand `stride` numbers apart.
template <class Real>
GATEWISE_INLINE Vec<Real> load_parts(const Real* from, long stride) {
  typedef Real Part __attribute__((vector_size(16)));
  constexpr int n = kPart<Real>;
  const auto part = [&](int j) {
    Part p;
    std::memcpy(&p, from + j * stride, sizeof p);
    return p;
  };
  const auto pair = [&](int j) {
    if constexpr (n == 4) return __builtin_shufflevector(part(j), part(j + 1), 0, 1, 2, 3, 4, 5, 6, 7);
    else return __builtin_shufflevector(part(j), part(j + 1), 0, 1, 2, 3);
  };
  if constexpr (kVectorBytes == 16) return part(0);
  else if constexpr (kVectorBytes == 32) return pair(0);
  else if constexpr (n == 4)
    return __builtin_shufflevector(pair(0), pair(2), 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  else return __builtin_shufflevector(pair(0), pair(2), 0, 1, 2, 3, 4, 5, 6, 7);
}

// column[k][lane] is from[lane * stride + k]: as many columns of as many rows as a vector has lanes.
template <class Real>
GATEWISE_INLINE void load_columns(const Real* from, long stride, Vec<Real> (&column)[kLanes<Real>]) {
  constexpr int n = kPart<Real>;
#pragma GCC unroll 8
  for (int k = 0; k < kLanes<Real>; k += n) {
    Vec<Real> row[n];  // row r of each part's n rows
#pragma GCC unroll 4
    for (int r = 0; r < n; ++r) row[r] = load_parts(from + r * stride + k, n * stride);
    if constexpr (n == 2) {
      column[k] = lower(row[0], row[1]);
      column[k + 1] = upper(row[0], row[1]);
    } else {
      const auto twos = [](Vec<Real> x) { return bits_as<Vec<double>>(x); };
      const Vec<double> first = twos(lower(row[0], row[1])), second = twos(lower(row[2], row[3]));
      const Vec<double> third = twos(upper(row[0], row[1])), fourth = twos(upper(row[2], row[3]));
      column[k] = bits_as<Vec<Real>>(lower(first, second));
      column[k + 1] = bits_as<Vec<Real>>(upper(first, second));
      column[k + 2] = bits_as<Vec<Real>>(lower(third, fourth));
      column[k + 3] = bits_as<Vec<Real>>(upper(third, fourth));
    }
  }
}

}  // namespace gatewise::GATEWISE_ISA
