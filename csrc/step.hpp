// The cell: one step and its gradient, for one vector of hidden units of one row. Equation numbers are those of
// docs/equations.md; reference/step.py is the same in NumPy.
#pragma once

#include "math.hpp"

namespace gatewise::GATEWISE_ISA {

// i, f, g, o: before their activation on the way into step, after it on the way out; gradients likewise.
template <class Real>
struct Gates {
  Vec<Real> i, f, g, o;
};

// The gates of as many units, n, side by side. (Whole vectors are the rule.)
template <class Number>
GATEWISE_INLINE Gates<Sum<Number>> load_gates(const Number* from, long n) {
  constexpr int all = kLanes<Number>;
  if (n == all) return {load(from), load(from + all), load(from + 2 * all), load(from + 3 * all)};
  return {load_first(from, n), load_first(from + n, n), load_first(from + 2 * n, n), load_first(from + 3 * n, n)};
}

template <class Number>
GATEWISE_INLINE void store_gates(Number* to, const Gates<Sum<Number>>& a, long n) {
  constexpr int all = kLanes<Number>;
  if (n == all) {
    store(to, a.i);
    store(to + all, a.f);
    store(to + 2 * all, a.g);
    return store(to + 3 * all, a.o);
  }
  store_first(to, a.i, n);
  store_first(to + n, a.f, n);
  store_first(to + 2 * n, a.g, n);
  store_first(to + 3 * n, a.o, n);
}

// Whole vectors past the caches.
template <class Number>
GATEWISE_INLINE void stream_gates(Number* to, const Gates<Sum<Number>>& a) {
  constexpr int all = kLanes<Number>;
  stream(to, a.i);
  stream(to + all, a.f);
  stream(to + 2 * all, a.g);
  stream(to + 3 * all, a.o);
}

// The same of sums in N vectors, which hold the gates of N / 4 as many units as a vector has lanes.
template <class Real, int N>
GATEWISE_INLINE Gates<Real> gates_of(const Vec<Real> (&sum)[N]) {
  if constexpr (N == 4) return {sum[0], sum[1], sum[2], sum[3]};
  else {
    Real lanes[N * kLanes<Real>];
    for (int n = 0; n < N; ++n) store(lanes + n * kLanes<Real>, sum[n]);
    return load_gates(lanes, N * kLanes<Real> / 4);
  }
}

// Zeros in place of what stands behind the first n units.
template <class Real>
GATEWISE_INLINE Gates<Real> keep_first(const Gates<Real>& a, long n) {
  return {keep_first<Real>(a.i, n), keep_first<Real>(a.f, n), keep_first<Real>(a.g, n), keep_first<Real>(a.o, n)};
}

// M rows at once, so that their chains of dependent operations overlap. Activates the gates in place; returns c_t and
// h_t.
template <class Real, int M>
GATEWISE_INLINE void step(Gates<Real> (&a)[M], const Vec<Real> (&c_prev)[M], Vec<Real> (&c)[M], Vec<Real> (&h)[M]) {
  Vec<Real> g[M];
  each<M>([&](int m) { g[m] = a[m].g; });
  tanh<Real, M>(g);                                        // (1.4)
#pragma GCC unroll 1
  for (int m = 0; m < M; ++m) {
    Vec<Real> gate[] = {a[m].i, a[m].f, a[m].o};
    sigmoid<Real, 3>(gate);                                // (1.2), (1.3), (1.5)
    a[m] = {gate[0], gate[1], g[m], gate[2]};
    c[m] = fma(a[m].f, c_prev[m], a[m].i * a[m].g);        // (1.6)
    h[m] = c[m];
  }
  tanh<Real, M>(h);
  each<M>([&](int m) { h[m] = a[m].o * h[m]; });           // (1.7)
}

// Turns the activated gates into d_a in place; d_c comes in as what step t + 1 sent back and is returned as what
// goes on to step t - 1.
template <class Real>
GATEWISE_INLINE Vec<Real> step_backward(Gates<Real>& a, Vec<Real> c_prev, Vec<Real> tanh_c, Vec<Real> d_h,
                                        Vec<Real> d_c) {
  const Vec<Real> one = broadcast(Real(1));
  const Vec<Real> d_o = d_h * tanh_c;                       // (2.2)
  d_c = fma(d_h * a.o, fma(-tanh_c, tanh_c, one), d_c);     // (2.3)
  const Vec<Real> d_i = d_c * a.g;                          // (2.4)
  const Vec<Real> d_f = d_c * c_prev;                       // (2.5)
  const Vec<Real> d_g = d_c * a.i;                          // (2.6)
  const Vec<Real> d_c_prev = d_c * a.f;                     // (2.7)
  a.i = d_i * (a.i * (one - a.i));                          // (2.8)
  a.f = d_f * (a.f * (one - a.f));                          // (2.9)
  a.g = d_g * fma(-a.g, a.g, one);                          // (2.10)
  a.o = d_o * (a.o * (one - a.o));                          // (2.11)
  return d_c_prev;
}

}  // namespace gatewise::GATEWISE_ISA
