// What the forward pass of a changed cell does otherwise: its step, its masks, and layer normalization.
//
// With layer normalization a number needs all others of its row: the products of a step are stored, and the step is taken
// row by row afterwards. Threads that share units share the rows of that part, and meet before and after it.
#pragma once

#include "forward.hpp"
#include "varied.hpp"
#include "varied_step.hpp"

namespace gatewise::GATEWISE_ISA {
namespace {

template <class Number>
struct VariedForward {
  using Real = Sum<Number>;

  const Forward<Number>& f;

  const Layout<Number>& layout() const { return f.layout; }
  const Cell& cell() const { return f.layout.cell; }
  const Varied<Number>& own() const { return f.call.varied; }

  void pack(Range units) const {
    pack_varied(layout(), own(), units, f.scratch.varied);
    if (!cell().layer_norm) return;
    for (int64_t u = units.first; u < units.last; ++u)
      for (int64_t at = layout().gates_at(u); at < layout().gates_at(u + 1); at += kLanes<Number>)
        store(f.scratch.start + at, Vec<Number>{});
  }

  // Before the first step: the h that the gates see of h_0.
  void begin(Range rows, Range panels) const {
    if (!cell().drops_hidden || !f.call.h_0) return;
    const Panels of_h(layout().P, kLanes<Number>);
    for (int64_t b = rows.first; b < rows.last; ++b)
      for (int64_t v = of_h.first(panels.first); v < of_h.first(panels.last); ++v) {
        const int64_t at = v * kLanes<Number>, n = layout().P - at;
        store(f.seen(0, b) + at, load_first(f.initial_h(b) + at, n) * load_first(mask_of_h(b) + at, n));
      }
  }

  const Real* mask_of_h(int64_t b) const { return own().hidden + f.steps.row_of(b) * layout().P; }

  // h_t, from `at` on, of what the step or the projection made of it.
  GATEWISE_INLINE void give(int64_t t, int64_t b, int64_t at, Vec<Number> h) const {
    const int64_t n = layout().P - at;
    if (cell().zoneout_h > 0) {
      const Vec<Number> z = zone<Number>(own().zoneout_h, cell().zoneout_h, f.steps.number(t, b) * layout().P + at, n);
      h = zoned<Real>(z, load_first(f.h_before(t, b) + at, n), h);  // (7.17)
    }
    store_first(f.h(t, b) + at, h, n);
    if (cell().drops_hidden) store(f.seen(t + 1, b) + at, keep_first<Real>(h, n) * load_first(mask_of_h(b) + at, n));
  }

  // The same of some rows and `vectors` vectors, stored one after another.
  GATEWISE_APART void give(int64_t t, int64_t first_b, int count, int64_t at, int vectors, const Real* h) const {
    for (int m = 0; m < count; ++m)
      for (int n = 0; n < vectors; ++n, h += kLanes<Number>) give(t, first_b + m, at + n * kLanes<Number>, load(h));
  }

  // What a step does with the sums of some rows and of a vector of units, whose gates are N vectors.
  template <int N>
  GATEWISE_APART void take(const typename Forward<Number>::StepRows& rows, int64_t row, int count, int64_t u,
                           const Real* sums) const {
    const int64_t t = rows.t, at = layout().gates_at(u);
    for (int64_t b = rows.first + row; b < rows.first + row + count; ++b, sums += N * kLanes<Number>) {
      if (cell().layer_norm) {
        for (int n = 0; n < N; ++n) store(products(b) + at + n * kLanes<Number>, load(sums + n * kLanes<Number>));
        continue;
      }
      Gates<Real> gate = load_gates(sums, N * kLanes<Number> / 4);
      const Vec<Number> h = cell().slstm ? take_slstm(t, b, u, gate) : take_lstm(t, b, u, gate);
      if (f.call.training) store_gates(f.gates(t, b) + at, gate, layout().width_of(u));
      if (layout().projected) store(f.unprojected(t, b) + u * kLanes<Number>, h);
      else give(t, b, u * kLanes<Number>, h);
    }
  }

  GATEWISE_INLINE Vec<Number> take_lstm(int64_t t, int64_t b, int64_t u, Gates<Real>& gate) const {
    const Vec<Number> c = take_cell(t, b, u, gate);
    return gate.o * squash<Real>(cell().linear_cell, c);  // (1.7), (7.4)
  }

  // The step up to c̃, which is returned, and what is stored of it.
  GATEWISE_INLINE Vec<Number> take_cell(int64_t t, int64_t b, int64_t u, Gates<Real>& gate) const {
    const int64_t unit = u * kLanes<Number>, n = layout().units_in(u), place = f.steps.number(t, b) * layout().H + unit;
    const Vec<Number> c_prev = load(f.c_before(t, b) + unit);
    const Vec<Number> c = varied_step<Real>(cell(), gate, c_prev, peepholes_of(f.scratch.varied, u),
                                            kept_candidate<Number>(own(), place, n));
    Real* const handed_on = f.c(t + 1, b) + unit;
    store(handed_on, c);
    if (cell().zoneout_c > 0) {
      store(handed_on, zoned<Real>(zone<Number>(own().zoneout_c, cell().zoneout_c, place, n), c_prev, c));  // (7.17)
      store(handed_on + layout().padded, c);
    }
    return c;
  }

  GATEWISE_INLINE Vec<Number> take_slstm(int64_t t, int64_t b, int64_t u, Gates<Real>& gate) const {
    const int64_t unit = u * kLanes<Number>, place = f.steps.number(t, b) * layout().H + unit;
    const SCells<Real> now =
        slstm_step<Real>(cell(), gate, load_cells<Number>(f.c_before(t, b) + unit, layout().padded),
                         kept_candidate<Number>(own(), place, layout().units_in(u)));
    store_cells<Number>(f.c(t + 1, b) + unit, layout().padded, now);
    return gate.o * (now.c / now.n);  // (7.28)
  }

  // ------------------------------------------------------------------------------- with layer normalization

  Real* products(int64_t b) const { return f.scratch.products + b * layout().gates_row; }

  // The input's term of (7.20), and the biases, in place of the products of a chunk of steps. Threads that share units share
  // the steps here.
  void normalize_input(Range chunk, Range rows, const Team& team, bool by_units) const {
    if (by_units) team.meet();
    const Range own = own_part(chunk, team, by_units);
    for (int64_t t = own.first; t < own.last; ++t)
      by_groups(f.steps.active_of(rows, t),
                [&](auto count, int64_t b) { normalize_input_of<decltype(count)::value>(t, chunk.first, b); });
    if (by_units) team.meet();
  }

  template <int R>
  void normalize_input_of(int64_t t, int64_t chunk, int64_t b) const {
    const Normalized<Number> kept(layout(), f.call.normalized);
    const int64_t step = f.steps.before_step(t) + b;
    Real inverse[R];
    normalize_gates<Number, R>(layout(), f.scratch.varied, f.sums(t, chunk, b), f.scratch.varied.gain_ih,
                               f.scratch.bias, 0, f.call.training ? kept.n_ih + step * layout().gates_row : nullptr,
                               inverse);
    if (f.call.training)
      for (int r = 0; r < R; ++r) kept.scales[step + r].inverse_ih = inverse[r];
  }

  // A step whose products stand ready. Threads that share units share its rows here.
  void take_normalized(int64_t t, int64_t chunk, Range rows, const Team& team, bool by_units) const {
    by_groups(own_part(rows, team, by_units),
              [&](auto count, int64_t b) { take_normalized_of<decltype(count)::value>(t, chunk, b); });
  }

  template <int R>
  GATEWISE_APART void take_normalized_of(int64_t t, int64_t chunk, int64_t b) const {
    const Normalized<Number> kept(layout(), f.call.normalized);
    const VariedScratch<Number>& varied = f.scratch.varied;
    const int64_t step = f.steps.before_step(t) + b;
    const auto c_of = [&](int64_t r, int64_t u) {
      return f.scratch.rows + 2 * (b + r) * layout().padded + u * kLanes<Number>;
    };
    Real inverse_hh[R], mean[R], inverse[R];
    normalize_gates<Number, R>(layout(), varied, products(b), varied.gain_hh, f.sums(t, chunk, b), layout().gates_row,
                               f.call.training ? kept.n_hh + step * layout().gates_row : nullptr, inverse_hh);  // (7.20)
    for (int64_t u = 0; u < layout().units; ++u)
      for (int64_t r = 0; r < R; ++r) {
        const int64_t at = layout().gates_at(u), width = layout().width_of(u);
        Gates<Real> gate = load_gates(products(b + r) + at, width);
        store(c_of(r, u), take_cell(t, b + r, u, gate));
        store(c_of(r, u) + layout().padded, gate.o);
        if (f.call.training) store_gates(f.gates(t, b + r) + at, gate, width);
      }
    mean_and_inverse<Number, R>(
        layout().units, layout().H, [&](int64_t r, int64_t u) { return load(c_of(r, u)); },
        [&](int64_t r, int64_t u, Real mean) { return keep_first<Real>(load(c_of(r, u)) - mean, layout().units_in(u)); },
        mean, inverse);
    for (int64_t u = 0; u < layout().units; ++u)
      for (int64_t r = 0; r < R; ++r) {
        const int64_t unit = u * kLanes<Number>;
        const Vec<Number> n = keep_first<Real>((load(c_of(r, u)) - mean[r]) * inverse[r], layout().units_in(u));
        const Vec<Number> shown = fma(load(varied.gain_c + unit), n, load(varied.bias_c + unit));
        const Vec<Number> h = load(c_of(r, u) + layout().padded) * squash<Real>(cell().linear_cell, shown);  // (7.21)
        if (layout().projected) store(f.unprojected(t, b + r) + unit, h);
        else give(t, b + r, unit, h);
      }
    if (f.call.training)
      for (int r = 0; r < R; ++r)
        kept.scales[step + r] = {kept.scales[step + r].inverse_ih, inverse_hh[r], mean[r], inverse[r]};
  }
};

}  // namespace
}  // namespace gatewise::GATEWISE_ISA
