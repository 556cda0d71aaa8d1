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

#include "kernels.hpp"

#define GATEWISE_INLINE inline __attribute__((always_inline))
// Of whatever holds tiles: merged into a larger function, they would have to share its registers.
#define GATEWISE_APART __attribute__((noinline))

namespace gatewise::GATEWISE_ISA {

// How near a line of memory is to be fetched, as __builtin_prefetch counts.
constexpr int kFirstLevel = 3, kSecondLevel = 2;

// Tells the processor that this thread looks again and again at what another one will write.
GATEWISE_INLINE void spin() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

#if defined(__AVX512F__)
constexpr int kVectorBytes = 64, kRegisters = 32;
#elif defined(__AVX2__)
constexpr int kVectorBytes = 32, kRegisters = 16;
#elif defined(__aarch64__)
constexpr int kVectorBytes = 16, kRegisters = 32;
#else
constexpr int kVectorBytes = 16, kRegisters = 16;
#endif

// Vectors of floats, of doubles, and of the integers of the same width that hold their bits and comparisons. Numbers of
// bfloat16 are computed with as floats.
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

template <>
struct VecOf<bfloat16> : VecOf<float> {};

template <class Number>
using Vec = typename VecOf<Number>::type;
template <class Number>
using Bits = typename VecOf<Number>::bits;

// How many numbers a vector holds.
template <class Number>
constexpr int kLanes = kVectorBytes / static_cast<int>(sizeof(Sum<Number>));

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

// bfloat16 in memory, widened to floats in a vector.
typedef uint16_t Halves __attribute__((vector_size(kVectorBytes / 2)));
typedef uint32_t Words __attribute__((vector_size(kVectorBytes)));

GATEWISE_INLINE Vec<float> load(const bfloat16* from) {
  Halves halves;
  std::memcpy(&halves, from, sizeof halves);
  return bits_as<Vec<float>>(__builtin_convertvector(halves, Words) << 16);
}

// To the nearest, of two equally near to the even one. A NaN stays one, which adding to its bits could change, and so
// does one whose upper half alone would be infinity. (The instruction that some machines have would make zeros of what
// is smaller than the smallest normal number.)
GATEWISE_INLINE Halves rounded(Vec<float> v) {
  const Words bits = bits_as<Words>(v), half = bits >> 16;
  const Words nearest = (bits + 0x7fff + (half & 1)) >> 16;
  return __builtin_convertvector(v == v ? nearest : half | 0x40, Halves);
}

GATEWISE_INLINE void store(bfloat16* to, Vec<float> v) {
  const Halves halves = rounded(v);
  std::memcpy(to, &halves, sizeof halves);
}

// Past the caches, for what nobody reads soon: a line that is written in one piece need not be read from memory first.
// The address is a multiple of the size.
template <class Any>
GATEWISE_INLINE void stream_bits(void* to, Any v) {
#if defined(__x86_64__)
  if constexpr (sizeof v == 64) return _mm512_stream_si512(static_cast<__m512i*>(to), bits_as<__m512i>(v));
  if constexpr (sizeof v == 32) return _mm256_stream_si256(static_cast<__m256i*>(to), bits_as<__m256i>(v));
  if constexpr (sizeof v == 16) return _mm_stream_si128(static_cast<__m128i*>(to), bits_as<__m128i>(v));
#endif
  std::memcpy(to, &v, sizeof v);
}

template <class Number>
GATEWISE_INLINE void stream(Number* to, Vec<Number> v) {
  if constexpr (std::is_same_v<Number, bfloat16>) stream_bits(to, rounded(v));
  else stream_bits(to, v);
}

// Other threads see what this one has streamed before.
GATEWISE_INLINE void end_streams() {
#if defined(__x86_64__)
  _mm_sfence();
#endif
}

// All bits of the first n lanes, and none behind them.
template <class Real>
GATEWISE_INLINE Bits<Real> first_lanes(long n) {
  Bits<Real> lane;
  for (int j = 0; j < kLanes<Real>; ++j) lane[j] = j;
  return lane < Bits<Real>{} + static_cast<std::remove_reference_t<decltype(lane[0])>>(n);
}

// The first n numbers (0 < n <= lanes), zeros behind them: nothing past them is read.
template <class Number>
GATEWISE_INLINE Vec<Number> load_first(const Number* from, long n) {
  if (n >= kLanes<Number>) return load(from);
  Number lanes[kLanes<Number>] = {};
  for (long j = 0; j < n; ++j) lanes[j] = from[j];
  return load(lanes);
}

// The first n lanes (0 < n <= lanes): nothing past them is written.
template <class Number>
GATEWISE_INLINE void store_first(Number* to, Vec<Number> v, long n) {
  if (n >= kLanes<Number>) return store(to, v);
  Number lanes[kLanes<Number>];
  store(lanes, v);
  for (long j = 0; j < n; ++j) to[j] = lanes[j];
}

#if defined(__AVX512F__)
// The same by masks: what a mask leaves out is neither read nor written.
template <class Number>
GATEWISE_INLINE uint16_t mask_of_first(long n) {
  return static_cast<uint16_t>((1u << (n < kLanes<Number> ? n : kLanes<Number>)) - 1);
}

GATEWISE_INLINE Vec<float> load_first(const float* from, long n) {
  return _mm512_maskz_loadu_ps(mask_of_first<float>(n), from);
}

GATEWISE_INLINE Vec<double> load_first(const double* from, long n) {
  return _mm512_maskz_loadu_pd(static_cast<uint8_t>(mask_of_first<double>(n)), from);
}

GATEWISE_INLINE void store_first(float* to, Vec<float> v, long n) {
  _mm512_mask_storeu_ps(to, mask_of_first<float>(n), v);
}

GATEWISE_INLINE void store_first(double* to, Vec<double> v, long n) {
  _mm512_mask_storeu_pd(to, static_cast<uint8_t>(mask_of_first<double>(n)), v);
}
#endif

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

// ---------------------------------------------------------------------------------- operands of products
//
// A product's operands are read group by group along k, and a lane holds a group: one number, or two of bfloat16, which
// are as wide as the float that their products are summed in. So a vector of groups has as many lanes as a vector of
// sums; its type is that of the sums and says nothing about what its bits mean.

template <class Number>
constexpr int kGroup = static_cast<int>(sizeof(Sum<Number>) / sizeof(Number));

// A number of k rounded up to whole groups.
template <class Number>
constexpr long whole_groups(long K) {
  return (K + kGroup<Number> - 1) / kGroup<Number> * kGroup<Number>;
}

template <class Number>
GATEWISE_INLINE Vec<Number> load_groups(const Number* from) {
  Vec<Number> v;
  std::memcpy(&v, from, sizeof v);
  return v;
}

template <class Number>
GATEWISE_INLINE void store_groups(Number* to, Vec<Number> v) {
  std::memcpy(to, &v, sizeof v);
}

// The group at an address in every lane.
template <class Number>
GATEWISE_INLINE Vec<Number> broadcast_group(const Number* from) {
  if constexpr (kGroup<Number> == 1) return broadcast(*from);
  else {
    int32_t group;
    std::memcpy(&group, from, sizeof group);
    return bits_as<Vec<Number>>(group + Bits<Number>{});
  }
}

// Groups of what number(0), and for bfloat16 number(1), give as vectors of numbers.
template <class Number, class Get>
GATEWISE_INLINE Vec<Number> groups_of(const Get& number) {
  if constexpr (kGroup<Number> == 1) return number(0);
  else return bits_as<Vec<Number>>(bits_as<Words>(number(0)) >> 16 | bits_as<Words>(number(1)));
}

// The products of two groups, number by number, added to a sum: in one go where the machine can, else the products of
// the first numbers and those of the second ones in a go each, for which `numbers_of` takes them out of their groups.
// (The machine's own dot product takes numbers, and sums, smaller than the smallest normal one as zeros.)
#if defined(__AVX512BF16__)
template <class Number>
constexpr int kGoes = 1;

template <class Number, int go>
GATEWISE_INLINE Vec<Number> numbers_of(Vec<Number> groups) {
  return groups;
}

template <class Number>
GATEWISE_INLINE Vec<Number> add_products(Vec<Number> a, Vec<Number> b, Vec<Number> sum) {
  if constexpr (kGroup<Number> == 1) return fma(a, b, sum);
  else return _mm512_dpbf16_ps(sum, bits_as<__m512bh>(a), bits_as<__m512bh>(b));
}
#else
template <class Number>
constexpr int kGoes = kGroup<Number>;

template <class Number, int go>
GATEWISE_INLINE Vec<Number> numbers_of(Vec<Number> groups) {
  if constexpr (kGroup<Number> == 1) return groups;
  else if constexpr (go == 0) return bits_as<Vec<Number>>(bits_as<Words>(groups) << 16);
  else return bits_as<Vec<Number>>(bits_as<Words>(groups) & 0xffff0000u);
}

template <class Number>
GATEWISE_INLINE Vec<Number> add_products(Vec<Number> a, Vec<Number> b, Vec<Number> sum) {
  return fma(a, b, sum);
}
#endif

// How many groups a part holds.
template <class Number>
constexpr int kPart = 16 / static_cast<int>(sizeof(Sum<Number>));

// A vector of groups whose parts stand `stride` numbers apart.
template <class Number>
GATEWISE_INLINE Vec<Number> load_parts(const Number* from, long stride) {
  typedef Sum<Number> Part __attribute__((vector_size(16)));
  constexpr int n = kPart<Number>;
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

// column[k][lane] is the k-th group from from[lane * stride] on: as many columns of as many rows as a vector has lanes.
template <class Number>
GATEWISE_INLINE void load_columns(const Number* from, long stride, Vec<Number> (&column)[kLanes<Number>]) {
  constexpr int n = kPart<Number>;
#pragma GCC unroll 8
  for (int k = 0; k < kLanes<Number>; k += n) {
    Vec<Number> row[n];  // row r of each part's n rows
#pragma GCC unroll 4
    for (int r = 0; r < n; ++r) row[r] = load_parts(from + r * stride + k * kGroup<Number>, n * stride);
    if constexpr (n == 2) {
      column[k] = lower(row[0], row[1]);
      column[k + 1] = upper(row[0], row[1]);
    } else {
      const auto twos = [](Vec<Number> x) { return bits_as<Vec<double>>(x); };
      const Vec<double> first = twos(lower(row[0], row[1])), second = twos(lower(row[2], row[3]));
      const Vec<double> third = twos(upper(row[0], row[1])), fourth = twos(upper(row[2], row[3]));
      column[k] = bits_as<Vec<Number>>(lower(first, second));
      column[k + 1] = bits_as<Vec<Number>>(upper(first, second));
      column[k + 2] = bits_as<Vec<Number>>(lower(third, fourth));
      column[k + 3] = bits_as<Vec<Number>>(upper(third, fourth));
    }
  }
}

}  // namespace gatewise::GATEWISE_ISA
