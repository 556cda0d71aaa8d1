// sigmoid and tanh, each over the whole range of its type, relative error included near 0; and what an sLSTM's exponents
// need besides.
//
//   sigmoid          at most 2.5 ulp for every input (results below the smallest normal number: at most 1 of their ulp)
//   tanh             at most 2.5 ulp for every input, subnormal ones too
//   exp_of_negative  of what is not above 0, at most 1.5 ulp (results below the smallest normal number as of sigmoid)
//   log_sigmoid      at most 4 ulp for every input
//
// all for float and double; NaN gives NaN. tests/test_math.py sweeps the float range (every bound is in ulp of the
// exact result) and samples the double range. tanh(x) as 2 sigmoid(2x) - 1 would be cheaper and has no correct digit
// left near 0, where a gradient over many steps is made; so tanh goes by expm1.
#pragma once

#include "vec.hpp"

namespace gatewise::GATEWISE_ISA {

// e^x = 2^n e^r, n = round(x / ln 2), |r| <= ln 2 / 2, ln 2 in two parts so that n * ln2_high is exact.
// e^r - 1 = r + r^2 q(r); the coefficients of q interpolate it at Chebyshev nodes (relative error of e^r - 1:
// float 2.5e-8, double 6e-19).
template <class Real>
struct ExpConstants;

template <>
struct ExpConstants<float> {
  static constexpr float inverse_ln2 = 1.44269504088896340736f;
  static constexpr float ln2_high = 0.693145751953125f, ln2_low = 1.42860682030941723212e-6f;
  static constexpr float round = 12582912.0f;    // 1.5 * 2^23: added, it leaves the nearest integer in the low bits
  static constexpr float vanishes = 104.0f;      // e^-104 rounds to 0
  static constexpr float overwhelms = 40.0f;     // e^40 / (e^40 + 2) rounds to 1
  static constexpr int mantissa = 23, bias = 127;
  static constexpr int head_room = 64;           // 2^(n + 64) is normal for e^-104 and for e^40
  static constexpr float undo_head_room = 0x1p-64f;
  static constexpr float q[] = {0.00139261835877f, 0.00836317905272f, 0.0416665546172f, 0.166665769897f, 0.5f};
};

template <>
struct ExpConstants<double> {
  static constexpr double inverse_ln2 = 1.44269504088896340736;
  static constexpr double ln2_high = 0.6931471805592082091607153, ln2_low = 7.37100256516779890183404e-13;
  static constexpr double round = 6755399441055744.0;  // 1.5 * 2^52
  static constexpr double vanishes = 746.0;
  static constexpr double overwhelms = 60.0;
  static constexpr int mantissa = 52, bias = 1023;
  static constexpr int head_room = 512;
  static constexpr double undo_head_room = 0x1p-512;
  static constexpr double q[] = {2.09147553258932022e-9,   2.5105312729622101787e-8,  2.7557274718478580474e-7,
                                 2.7557255170000887438e-6, 0.0000248015873256774619,  0.00019841269875002278793,
                                 0.0013888888888883711167, 0.0083333333333333260831202, 0.041666666666666669783,
                                 0.1666666666666667103,    0.5};
};

// What follows takes N vectors at once and goes through them operation by operation: one chain of dependent operations
// is some seventy cycles long, and the machine starts a new operation every half cycle if it finds one that can start.
template <int N, class Body>
GATEWISE_INLINE void each(const Body& body) {
#pragma GCC unroll 8
  for (int j = 0; j < N; ++j) body(j);
}

// n, in the low bits of a number, and e^r - 1 of the reduction above.
template <class Real, int N>
struct Reduced {
  Vec<Real> n[N];
  Vec<Real> expm1_r[N];
};

template <class Real, int N>
GATEWISE_INLINE Reduced<Real, N> reduce(const Vec<Real> (&x)[N]) {
  using C = ExpConstants<Real>;
  Reduced<Real, N> e;
  Vec<Real> n[N], r[N], q[N];
  each<N>([&](int j) { e.n[j] = fma(x[j], broadcast(C::inverse_ln2), broadcast(C::round)); });
  each<N>([&](int j) { n[j] = e.n[j] - C::round; });
  each<N>([&](int j) { r[j] = fma(n[j], broadcast(-C::ln2_high), x[j]); });
  each<N>([&](int j) { r[j] = fma(n[j], broadcast(-C::ln2_low), r[j]); });
  each<N>([&](int j) { q[j] = fma(broadcast(C::q[0]), r[j], broadcast(C::q[1])); });
#pragma GCC unroll 16
  for (unsigned k = 2; k < sizeof C::q / sizeof(Real); ++k)
    each<N>([&](int j) { q[j] = fma(q[j], r[j], broadcast(C::q[k])); });
  each<N>([&](int j) { e.expm1_r[j] = fma(r[j] * r[j], q[j], r[j]); });
  return e;
}

// 2^(n + more), where that is a normal number. (What stands above n in its bits is shifted out.)
template <class Real>
GATEWISE_INLINE Vec<Real> power_of_two(Vec<Real> n, int more) {
  using C = ExpConstants<Real>;
  return bits_as<Vec<Real>>((bits_as<Bits<Real>>(n) + (C::bias + more)) << C::mantissa);
}

// e^x of x <= 0; in place.
template <class Real, int N>
GATEWISE_INLINE void exp_of_negative(Vec<Real> (&x)[N]) {
  using C = ExpConstants<Real>;
  each<N>([&](int j) { x[j] = at_least(broadcast(-C::vanishes), x[j]); });
  const Reduced<Real, N> e = reduce<Real, N>(x);
  // The result may be subnormal, where 2^n itself is none of the normal numbers: it is made larger by a power of two.
  each<N>([&](int j) {
    x[j] = (e.expm1_r[j] + Real(1)) * power_of_two<Real>(e.n[j], C::head_room) * C::undo_head_room;
  });
}

// log(1 + y) = 2 atanh(z) with z = y / (2 + y), and atanh(z) = z a(z^2), for 0 <= y <= 1; the coefficients of a interpolate
// it at Chebyshev nodes (relative error: float 4e-9, double 1.3e-18).
template <class Real>
struct AtanhConstants;

template <>
struct AtanhConstants<float> {
  static constexpr float a[] = {0.140788891816f, 0.139825788726f, 0.200122976154f, 0.333331608209f, 1.00000000384f};
};

template <>
struct AtanhConstants<double> {
  static constexpr double a[] = {0.085220817813906990645, 0.041622532559304102879, 0.060550843640346088273,
                                 0.066501870163373121685, 0.076933070211520038808, 0.090908704162524022551,
                                 0.11111112040373836587,  0.14285714272727057267,  0.20000000000092873734,
                                 0.33333333333333074797,  1.0};
};

// log(e^x / (1 + e^x)) = min(x, 0) - log(1 + e^-|x|)
template <class Real>
GATEWISE_INLINE Vec<Real> log_sigmoid(Vec<Real> x) {
  using C = AtanhConstants<Real>;
  const Vec<Real> below = at_most(Vec<Real>{}, x);
  Vec<Real> y[] = {below - at_least(Vec<Real>{}, x)};
  exp_of_negative<Real, 1>(y);
  const Vec<Real> z = y[0] / (y[0] + Real(2)), square = z * z;
  Vec<Real> a = broadcast(C::a[0]);
#pragma GCC unroll 16
  for (unsigned k = 1; k < sizeof C::a / sizeof(Real); ++k) a = fma(a, square, broadcast(C::a[k]));
  return fma(z * Real(-2), a, below);
}

// e^x / (1 + e^x), x held where both are finite; in place.
template <class Real, int N>
GATEWISE_INLINE void sigmoid(Vec<Real> (&x)[N]) {
  using C = ExpConstants<Real>;
  each<N>([&](int j) { x[j] = at_most(broadcast(C::overwhelms), at_least(broadcast(-C::vanishes), x[j])); });
  const Reduced<Real, N> e = reduce<Real, N>(x);
  // The result may be subnormal, where 2^n itself is none of the normal numbers: it is made larger by a power of two.
  each<N>([&](int j) {
    x[j] = (e.expm1_r[j] + Real(1)) * power_of_two<Real>(e.n[j], C::head_room) * C::undo_head_room;
  });
  each<N>([&](int j) { x[j] = x[j] / (x[j] + Real(1)); });
}

// m / (m + 2) with m = e^2x - 1, and the sign of x (which m loses for -0); in place.
template <class Real, int N>
GATEWISE_INLINE void tanh(Vec<Real> (&x)[N]) {
  using C = ExpConstants<Real>;
  Vec<Real> y[N];
  each<N>([&](int j) {
    y[j] = at_most(broadcast(C::overwhelms), at_least(broadcast(-C::overwhelms), x[j] + x[j]));
  });
  const Reduced<Real, N> e = reduce<Real, N>(y);
  each<N>([&](int j) {
    const Vec<Real> two_n = power_of_two<Real>(e.n[j], 0);
    y[j] = fma(two_n, e.expm1_r[j], two_n - Real(1));
  });
  const Bits<Real> sign = bits_as<Bits<Real>>(broadcast(Real(-0.0)));
  each<N>([&](int j) {
    x[j] = bits_as<Vec<Real>>(bits_as<Bits<Real>>(y[j] / (y[j] + Real(2))) | (bits_as<Bits<Real>>(x[j]) & sign));
  });
}

}  // namespace gatewise::GATEWISE_ISA
