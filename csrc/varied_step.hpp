// A changed cell: its step and the step's gradient, for one vector of hidden units of one row. Equation numbers are those
// of docs/equations.md; reference/variants.py and reference/slstm.py are the same in NumPy.
//
// Which changes a cell has is asked at each step: they are the same ones for all of a call, and what is asked is always
// answered the same way.
#pragma once

#include "step.hpp"

namespace gatewise::GATEWISE_ISA {

// p of (7.5) and (7.6); zero without peepholes.
template <class Real>
struct Peepholes {
  Vec<Real> i, f, o;
};

// Gates' pre-activations through σ, (7.1) or (7.2), in place.
template <class Real, int N>
GATEWISE_INLINE void activate(GateActivation activation, Vec<Real> (&a)[N]) {
  const Vec<Real> zero = {}, one = broadcast(Real(1));
  if (activation == GateActivation::hardsigmoid)
    each<N>([&](int j) { a[j] = at_most(one, at_least(zero, a[j] / Real(6) + Real(0.5))); });  // (7.1)
  else if (activation == GateActivation::step)
    each<N>([&](int j) { a[j] = a[j] > zero ? one : zero; });                                  // (7.2)
  else
    sigmoid<Real, N>(a);
}

// s' of a gate, which follows from its value.
template <class Real>
GATEWISE_INLINE Vec<Real> slope(GateActivation activation, Vec<Real> s) {
  const Vec<Real> zero = {}, one = broadcast(Real(1));
  if (activation == GateActivation::hardsigmoid)
    return (s > zero) & (s < one) ? broadcast(Real(1) / Real(6)) : zero;  // (7.1)
  if (activation == GateActivation::step) return one;                     // (7.3)
  return s * (one - s);
}

// The candidate, or the cell on its way to h: tanh, or as it is (7.4); and the slope.
template <class Real>
GATEWISE_INLINE Vec<Real> squash(bool is_linear, Vec<Real> a) {
  if (is_linear) return a;
  Vec<Real> y[] = {a};
  tanh<Real, 1>(y);
  return y[0];
}

template <class Real>
GATEWISE_INLINE Vec<Real> squash_slope(bool is_linear, Vec<Real> y) {
  const Vec<Real> one = broadcast(Real(1));
  return is_linear ? one : fma(-y, y, one);
}

// (7.17), and the part of (7.18) that stays behind is that with zero for what is new.
template <class Real>
GATEWISE_INLINE Vec<Real> zoned(Vec<Real> z, Vec<Real> before, Vec<Real> now) {
  return fma(z, before, now - z * now);
}

// c̃ of (7.11), from activated gates.
template <class Real>
GATEWISE_INLINE Vec<Real> new_cell(const Gates<Real>& a, Vec<Real> c_prev, Vec<Real> kept_g) {
  return fma(a.f, c_prev, a.i * (kept_g * a.g));
}

// Activates the gates in place; returns c̃.
template <class Real>
GATEWISE_INLINE Vec<Real> varied_step(const Cell& cell, Gates<Real>& a, Vec<Real> c_prev, const Peepholes<Real>& p,
                                      Vec<Real> kept_g) {
  a.g = squash<Real>(cell.linear_candidate, a.g);                    // (1.4)
  if (cell.peephole) {
    Vec<Real> gate[] = {fma(p.i, c_prev, a.i), fma(p.f, c_prev, a.f)};
    activate<Real, 2>(cell.gate, gate);                              // (7.5)
    a.i = gate[0];
    a.f = cell.coupled ? Real(1) - a.i : gate[1];                    // (7.9)
    const Vec<Real> c = new_cell(a, c_prev, kept_g);                 // (7.11)
    Vec<Real> last[] = {fma(p.o, c, a.o)};
    activate<Real, 1>(cell.gate, last);                              // (7.6)
    a.o = last[0];
    return c;
  }
  Vec<Real> gate[] = {a.i, a.f, a.o};
  activate<Real, 3>(cell.gate, gate);                                // (1.2), (1.3), (1.5)
  a = {gate[0], cell.coupled ? Real(1) - gate[0] : gate[1], a.g, gate[2]};
  return new_cell(a, c_prev, kept_g);
}

// Turns the activated gates into d_a in place. d_a_o and `d_c`, by c̃, have what comes by way of h; returns what goes on
// to c_prev.
template <class Real>
GATEWISE_INLINE Vec<Real> varied_step_backward(const Cell& cell, Gates<Real>& a, Vec<Real> c_prev,
                                               const Peepholes<Real>& p, Vec<Real> kept_g, Vec<Real> d_a_o,
                                               Vec<Real> d_c) {
  d_c = fma(p.o, d_a_o, d_c);                                        // (7.7)
  const Vec<Real> d_f = d_c * c_prev;                                // (2.5)
  Vec<Real> d_i = d_c * (kept_g * a.g);                              // (7.12)
  if (cell.coupled) d_i -= d_f;                                      // (7.10)
  Vec<Real> d_c_prev = d_c * a.f;                                    // (2.7)
  const Vec<Real> d_g = d_c * (a.i * kept_g);                        // (7.12)
  a.i = d_i * slope<Real>(cell.gate, a.i);                           // (7.3)
  a.f = cell.coupled ? Vec<Real>{} : d_f * slope<Real>(cell.gate, a.f);
  a.g = d_g * squash_slope<Real>(cell.linear_candidate, a.g);
  a.o = d_a_o;
  if (cell.peephole) d_c_prev = fma(p.i, a.i, fma(p.f, a.f, d_c_prev));  // (7.7)
  return d_c_prev;
}

// The state of an sLSTM beside h; and what (7.32) multiplies with, which is kept beside it.
template <class Real>
struct SCells {
  Vec<Real> c, n, m, slope_f;
};

// Activates the gates in place, stabilized; returns the new state.
template <class Real>
GATEWISE_INLINE SCells<Real> slstm_step(const Cell& cell, Gates<Real>& a, const SCells<Real>& before,
                                        Vec<Real> kept_g) {
  const Vec<Real> zero = {};
  SCells<Real> now;
  Vec<Real> log_f = a.f;
  now.slope_f = broadcast(Real(1));
  if (cell.gate != GateActivation::exponential) {
    log_f = log_sigmoid<Real>(a.f);                                  // (7.24)
    Vec<Real> opposite[] = {-a.f};
    sigmoid<Real, 1>(opposite);
    now.slope_f = opposite[0];                                       // (7.32)
  }
  const auto begun = before.n != zero;
  const Vec<Real> kept = begun ? log_f + before.m : a.i;
  now.m = at_least(a.i, kept);                                       // (7.25)
  Vec<Real> weight[] = {a.i - now.m, kept - now.m};
  exp_of_negative<Real, 2>(weight);                                  // (7.26)
  Vec<Real> o[] = {a.o};
  sigmoid<Real, 1>(o);                                               // (1.5)
  a = {weight[0], begun ? weight[1] : zero, squash<Real>(cell.linear_candidate, a.g), o[0]};
  now.c = new_cell(a, before.c, kept_g);                             // (7.27)
  now.n = fma(a.f, before.n, a.i);                                   // (7.27)
  return now;
}

// Turns the activated gates into d_a and what reached c, n and m into what goes on to those before the step, both in
// place. `d_h` is by o c / n.
template <class Real>
GATEWISE_INLINE void slstm_step_backward(const Cell& cell, Gates<Real>& a, const SCells<Real>& before,
                                         const SCells<Real>& now, Vec<Real> kept_g, Vec<Real> d_h, SCells<Real>& d) {
  const Vec<Real> one = broadcast(Real(1)), shown = now.c / now.n;
  const Vec<Real> d_o = d_h * shown, d_c = d.c + d_h * (a.o / now.n);          // (7.29)
  const Vec<Real> d_n = d.n - d_h * (a.o / now.n) * shown;                     // (7.29)
  const Vec<Real> d_log_i = fma(d_c, kept_g * a.g, d_n) * a.i;                 // (7.30)
  const Vec<Real> d_log_f = fma(d_c, before.c, d_n * before.n) * a.f;          // (7.30)
  const Vec<Real> d_g = d_c * (a.i * kept_g);                                  // (7.30)
  const Vec<Real> rest = d.m - d_log_i - d_log_f;
  const auto is_kept = a.f == one;  // e^0: log f + m is the larger one
  d.c = d_c * a.f;                                                             // (7.30)
  d.n = d_n * a.f;                                                             // (7.30)
  d.m = is_kept ? d_log_f + rest : d_log_f;                                    // (7.31)
  a.i = is_kept ? d_log_i : d_log_i + rest;                                    // (7.31)
  a.f = d.m * now.slope_f;                                                     // (7.32)
  a.g = d_g * squash_slope<Real>(cell.linear_candidate, a.g);
  a.o = d_o * (a.o * (one - a.o));                                             // (2.11)
}

}  // namespace gatewise::GATEWISE_ISA
