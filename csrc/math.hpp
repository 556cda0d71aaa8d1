// sigmoid and tanh, each over the whole range of its type, relative error included near 0.
//
//   sigmoid   at most 2.5 ulp for every input (results below the smallest normal number: at most 1 of their ulp)
//   tanh      at most 2.5 ulp for every input, subnormal ones too
//
// both for float and double; NaN gives NaN. tests/test_math.py sweeps the float range (every bound is in ulp of the
// exact result) and samples the double range. tanh(x) as 2 sigmoid(2x) - 1 would be cheaper and has no correct digit
// left near 0, where a gradient over many steps is made; so tanh goes by expm1.
#pragma once

#include "vec.hpp"

namespace gatewise::GATEWISE_ISA {

// e^x = 2^n e^r, n = round(x / ln 2), |r| <= ln 2 / 2, ln 2 in two parts so that n * ln2_high is exact.
// e^r - 1 = r + r^2 q(r); the coefficients of q interpolate it at Chebyshev nodes (relative error of e^r - 1:
// float 6e-10, double 6e-19).
template <class Real>
struct ExpConstants;

template <>
struct ExpConstants<float> {
  static constexpr float inverse_ln2 = 1.44269504088896340736f;
  static constexpr float ln2_high = 0.693145751953125f, ln2_low = 1.42860682030941723212e-6f;
  static constexpr float round = 12582912.0f;     // 1.5 * 2^23: added, it leaves the nearest integer in the low bits
  static constexpr float sigmoid_limit = 104.0f;  // e^-104 rounds to 0
  static constexpr float tanh_limit = 40.0f;      // 1 - 2 e^-40 rounds to 1
  static constexpr int mantissa = 23, bias = 127;
  static constexpr float q[] = {0.00019891080464f, 0.00139337307158f, 0.00833331084465f,
                                0.0416664641974f,  0.166666666817f,   0.500000001354f};
};

template <>
struct ExpConstants<double> {
  static constexpr double inverse_ln2 = 1.44269504088896340736;
  static constexpr double ln2_high = 0.6931471805592082091607153, ln2_low = 7.37100256516779890183404e-13;
  static constexpr double round = 6755399441055744.0;  // 1.5 * 2^52
  static constexpr double sigmoid_limit = 746.0;       // e^-746 rounds to 0
  static constexpr double tanh_limit = 60.0;
  static constexpr int mantissa = 52, bias = 1023;
  static constexpr double q[] = {2.09147553258932022e-9,     2.5105312729622101787e-8,  2.7557273478718580474e-7,
                                 2.7557255170000887438e-6,   0.0000248015873256774619,  0.00019841269875002278793,
                                 0.0013888888888883711167,   0.0083333333333260831202,  0.041666666666669669783,
                                 0.1666666666666667103,      0.5};
};

// n and e^r - 1 of the reduction above.
template <class Real>
struct Reduced {
  Bits<Real> n;
  Vec<Real> expm1_r;
};

template <class Real>
GATEWISE_INLINE Reduced<Real> reduce(Vec<Real> x) {
  using C = ExpConstants<Real>;
  const Vec<Real> shifted = fma(x, broadcast(C::inverse_ln2), broadcast(C::round));
  const Vec<Real> n = shifted - C::round;
  Vec<Real> r = fma(n, broadcast(-C::ln2_high), x);
  r = fma(n, broadcast(-C::ln2_low), r);
  Vec<Real> q = broadcast(C::q[0]);
#pragma GCC unroll 16
  for (unsigned k = 1; k < sizeof C::q / sizeof(Real); ++k) q = fma(q, r, broadcast(C::q[k]));
  return {bits_as<Bits<Real>>(shifted) - bits_as<Bits<Real>>(broadcast(C::round)), fma(r * r, q, r)};
}

// 2^n for integers n that give a normal number.
template <class Real>
GATEWISE_INLINE Vec<Real> power_of_two(Bits<Real> n) {
  return bits_as<Vec<Real>>((n + ExpConstants<Real>::bias) << ExpConstants<Real>::mantissa);
}

template <class Real>
GATEWISE_INLINE Vec<Real> absolute(Vec<Real> x) {
  return bits_as<Vec<Real>>(bits_as<Bits<Real>>(x) & ~bits_as<Bits<Real>>(broadcast(Real(-0.0))));
}

// 1 / (1 + e^-x), by e^-|x| so that nothing overflows.
template <class Real>
GATEWISE_INLINE Vec<Real> sigmoid(Vec<Real> x) {
  using C = ExpConstants<Real>;
  Vec<Real> y = -absolute<Real>(x);
  y = select(y < -C::sigmoid_limit, broadcast(-C::sigmoid_limit), y);  // a NaN stays: it compares false
  const Reduced<Real> e = reduce<Real>(y);
  // 2^n in two factors: the result may be subnormal, where 2^n itself is none of the normal numbers.
  const Bits<Real> half = e.n >> 1;
  const Vec<Real> exp_y = (e.expm1_r + Real(1)) * power_of_two<Real>(half) * power_of_two<Real>(e.n - half);
  const Vec<Real> numerator = select(x < Real(0), exp_y, broadcast(Real(1)));
  return numerator / (exp_y + Real(1));
}

// -m / (m + 2) with m = e^(-2|x|) - 1, and the sign of x.
template <class Real>
GATEWISE_INLINE Vec<Real> tanh(Vec<Real> x) {
  using C = ExpConstants<Real>;
  Vec<Real> y = absolute<Real>(x) * Real(-2);
  y = select(y < -C::tanh_limit, broadcast(-C::tanh_limit), y);  // a NaN stays: it compares false
  const Reduced<Real> e = reduce<Real>(y);
  const Vec<Real> two_n = power_of_two<Real>(e.n);
  const Vec<Real> m = fma(two_n, e.expm1_r, two_n - Real(1));
  const Vec<Real> t = m / (m + Real(2));  // negative or -0: flip its sign bit where x is positive
  const Bits<Real> sign = bits_as<Bits<Real>>(broadcast(Real(-0.0)));
  return bits_as<Vec<Real>>((bits_as<Bits<Real>>(t) & ~sign) | (bits_as<Bits<Real>>(x) & sign));
}

}  // namespace gatewise::GATEWISE_ISA
