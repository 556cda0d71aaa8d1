// What the backward pass of a changed cell does otherwise: its step, its masks, layer normalization, and the gradients of
// its own weights.
#pragma once

#include "backward.hpp"
#include "varied.hpp"
#include "varied_step.hpp"

namespace gatewise::GATEWISE_ISA {
namespace {

template <class Number>
struct VariedBackward {
  using Real = Sum<Number>;
  using Chunk = typename Backward<Number>::Chunk;

  const Backward<Number>& back;

  const Layout<Number>& layout() const { return back.layout; }
  const Cell& cell() const { return back.layout.cell; }
  const Varied<Number>& own() const { return back.call.varied; }
  const VariedScratch<Number>& packed() const { return back.scratch.varied; }
  const Real* mask_of_h(int64_t b) const { return own().hidden + back.steps.row_of(b) * layout().P; }
  Real* d_h_kept(int64_t b) const { return back.scratch.d_h_kept + b * layout().padded_h; }
  Real* d_c(int64_t b, int64_t u) const { return back.scratch.d_c + b * layout().cells_row + u * kLanes<Number>; }
  Number* d_a_whole(const Chunk& chunk, int64_t t, int64_t b) const {
    return back.of_chunk(back.scratch.d_a_whole, chunk, t, b);
  }

  void pack(Range units) const { pack_varied(layout(), own(), units, packed()); }

  void begin(const Region& region) const {
    if (cell().zoneout_h == 0) return;
    const Panels of_h(layout().P, kLanes<Number>);
    for (int64_t b = region.rows.first; b < region.rows.last; ++b)
      for (int64_t v = of_h.first(region.h.first); v < of_h.first(region.h.last); ++v)
        store(d_h_kept(b) + v * kLanes<Number>, Vec<Number>{});
  }

  // The h of a row that the gates have seen (7.13), at `to`.
  const Number* seen(const Number* h, int64_t b, Number* to) const {
    for (int64_t at = 0; at < layout().P; at += kLanes<Number>) {
      const int64_t n = layout().P - at;
      store(to + at, load_first(h + at, n) * load_first(mask_of_h(b) + at, n));
    }
    return to;
  }

  // From what the product has brought to h_t of some rows and vectors of units, stored one after another; and, unless h is
  // projected, the step's gradient. Before all steps, where t is -1, it is d_h_0.
  GATEWISE_APART void retreat(const Chunk& chunk, int64_t t, int64_t first_b, int rows, int64_t first_u, int vectors,
                              const Real* d_h) const {
    for (int m = 0; m < rows; ++m)
      for (int n = 0; n < vectors; ++n, d_h += kLanes<Number>) retreat(chunk, t, first_b + m, first_u + n, load(d_h));
  }

  GATEWISE_INLINE void retreat(const Chunk& chunk, int64_t t, int64_t b, int64_t u, Vec<Number> d_h) const {
    const int64_t at = u * kLanes<Number>, n = layout().P - at;
    if (cell().drops_hidden)
      d_h = fma(d_h, load_first(mask_of_h(b) + at, n), back.given_d_h(t, b, u));  // (7.14)
    if (cell().zoneout_h > 0) {
      d_h += load(d_h_kept(b) + at);                                              // (7.18)
      if (t >= 0) {
        const int64_t place = back.steps.number(t, b) * layout().P + at;
        const Vec<Number> stays = zone<Number>(own().zoneout_h, cell().zoneout_h, place, n) * d_h;
        store(d_h_kept(b) + at, back.steps.is_reset(t, b) ? Vec<Number>{} : stays);
        d_h -= stays;
      }
    }
    if (t < 0) store_first(back.call.d_h_0 + back.steps.row_of(b) * layout().P + at, d_h, n);
    else if (layout().projected) store(back.whole_d_h(t, b) + at, d_h);
    else step(chunk, t, b, u, d_h);
  }

  // Where c̃ stands in a row of cells.
  int64_t of_new_cell() const { return cell().zoneout_c > 0 ? layout().padded : 0; }

  // What a step has kept of a row and a vector of units; c is c̃ of (7.11), zoned out or not.
  struct Kept {
    Gates<Real> gate;
    Vec<Number> c_prev, kept_g, c;
  };

  GATEWISE_INLINE Kept kept(int64_t t, int64_t b, int64_t u) const {
    Kept k;
    k.gate = load_gates(back.gates(t, b) + layout().gates_at(u), layout().width_of(u));
    k.c_prev = load(back.c_before(t, b) + u * kLanes<Number>);
    k.kept_g = kept_candidate<Number>(own(), back.steps.number(t, b) * layout().H + u * kLanes<Number>,
                                      layout().units_in(u));
    k.c = load(back.c(t + 1, b) + of_new_cell() + u * kLanes<Number>);
    return k;
  }

  // From the gradients of o tanh(c), likewise.
  GATEWISE_APART void step(const Chunk& chunk, int64_t t, int64_t first_b, int rows, int64_t first_u, int vectors,
                           const Real* d_shown) const {
    for (int m = 0; m < rows; ++m)
      for (int n = 0; n < vectors; ++n, d_shown += kLanes<Number>)
        step(chunk, t, first_b + m, first_u + n, load(d_shown));
  }

  GATEWISE_INLINE void step(const Chunk& chunk, int64_t t, int64_t b, int64_t u, Vec<Number> d_shown) const {
    if (cell().layer_norm) return store(this->d_shown(chunk, t, b) + u * kLanes<Number>, d_shown);
    if (cell().slstm) return step_slstm(chunk, t, b, u, d_shown);
    const Kept k = kept(t, b, u);
    const Vec<Number> shown = squash<Real>(cell().linear_cell, k.c);
    const Vec<Number> d_a_o = d_shown * shown * slope<Real>(cell().gate, k.gate.o);               // (2.2), (7.3)
    through_cell(chunk, t, b, u, k, d_a_o, d_shown * k.gate.o * squash_slope<Real>(cell().linear_cell, shown));
  }

  // The rest of the step: `d_c_shown` is what comes to c̃ by way of h (2.3).
  GATEWISE_INLINE void through_cell(const Chunk& chunk, int64_t t, int64_t b, int64_t u, const Kept& k,
                                    Vec<Number> d_a_o, Vec<Number> d_c_shown) const {
    const int64_t units = layout().units_in(u), width = layout().width_of(u);
    Vec<Number> d = load(d_c(b, u)), stays = {};
    if (cell().zoneout_c > 0) {
      const int64_t place = back.steps.number(t, b) * layout().H + u * kLanes<Number>;
      stays = zone<Number>(own().zoneout_c, cell().zoneout_c, place, units) * d;                  // (7.18)
      d -= stays;
    }
    Gates<Real> gate = k.gate;
    const Vec<Number> d_c_prev =
        stays + varied_step_backward<Real>(cell(), gate, k.c_prev, peepholes_of(packed(), u), k.kept_g, d_a_o,
                                           d + d_c_shown);
    store(d_c(b, u), back.steps.is_reset(t, b) ? Vec<Number>{} : d_c_prev);
    store_gates(d_a_whole(chunk, t, b) + layout().gates_at(u), units < width ? keep_first<Real>(gate, units) : gate,
                width);
  }

  GATEWISE_INLINE void step_slstm(const Chunk& chunk, int64_t t, int64_t b, int64_t u, Vec<Number> d_shown) const {
    const int64_t at = layout().gates_at(u), width = layout().width_of(u), units = layout().units_in(u);
    const int64_t unit = u * kLanes<Number>, padded = layout().padded;
    Gates<Real> gate = load_gates(back.gates(t, b) + at, width);
    SCells<Real> d = load_cells<Number>(d_c(b, u), padded);
    slstm_step_backward<Real>(cell(), gate, load_cells<Number>(back.c_before(t, b) + unit, padded),
                              load_cells<Number>(back.c(t + 1, b) + unit, padded),
                              kept_candidate<Number>(own(), back.steps.number(t, b) * layout().H + unit, units),
                              d_shown, d);
    store_cells<Number>(d_c(b, u), padded, back.steps.is_reset(t, b) ? SCells<Real>{} : d);
    store_gates(d_a_whole(chunk, t, b) + at, units < width ? keep_first<Real>(gate, units) : gate, width);
  }

  // ------------------------------------------------------------------------------- with layer normalization

  // By o tanh(…) of a step, (padded); once the step is done, by what the tanh sees.
  Real* d_shown(const Chunk& chunk, int64_t t, int64_t b) const {
    return d_shown_of_group() + back.place(chunk, t, b) * layout().padded;
  }
  Real* d_shown_of_group() const {
    return back.scratch.d_shown + layout().back_steps * back.group.rows.first * layout().padded;
  }
  Normalized<Number> normalized() const { return {layout(), const_cast<Number*>(back.call.normalized)}; }

  // n of (7.19) of the cells.
  GATEWISE_INLINE Vec<Number> n_of_cells(const typename Normalized<Number>::Scales& scales, Vec<Number> c,
                                         int64_t u) const {
    return keep_first<Real>((c - scales.mean_c) * scales.inverse_c, layout().units_in(u));
  }

  // (7.22) of gain · d = d_n, given both means.
  GATEWISE_INLINE static Vec<Number> through_norm(Vec<Number> d_n, Vec<Number> n, Real mean, Real along, Real inverse) {
    return (d_n - mean - n * along) * inverse;
  }

  // Threads that share units share the rows here.
  void step_normalized(const Chunk& chunk, int64_t t, Range rows, const Team& team, bool by_units) const {
    by_groups(own_part(rows, team, by_units), [&](auto count, int64_t b) {
      through_cells<decltype(count)::value>(chunk, t, b);
      through_gates<decltype(count)::value>(chunk, t, b);
    });
  }

  // Both means of (7.22) of R rows: of d_n, and of d_n n.
  template <int R>
  struct Means {
    Vec<Number> d_n[R] = {}, products[R] = {};

    GATEWISE_INLINE void add(int r, Vec<Number> d, Vec<Number> n) {
      d_n[r] += d;
      products[r] = fma(d, n, products[r]);
    }
    GATEWISE_INLINE void give(int64_t numbers, Real (&mean)[R], Real (&along)[R]) const {
      each<R>([&](int r) {
        mean[r] = sum_of_lanes<Real>(d_n[r]) / static_cast<Real>(numbers);
        along[r] = sum_of_lanes<Real>(products[r]) / static_cast<Real>(numbers);
      });
    }
  };

  template <int R>
  GATEWISE_APART void through_cells(const Chunk& chunk, int64_t t, int64_t b) const {
    const auto* const scales = normalized().scales + back.steps.before_step(t) + b;
    const auto d_a_o = [&](int64_t r, int64_t u) {
      return back.scratch.d_a_o + (b + r) * layout().padded + u * kLanes<Number>;
    };
    Means<R> means;
    for (int64_t u = 0; u < layout().units; ++u)
      for (int r = 0; r < R; ++r) {
        const int64_t unit = u * kLanes<Number>;
        const Kept k = kept(t, b + r, u);
        const Vec<Number> n = n_of_cells(scales[r], k.c, u), gain = load(packed().gain_c + unit);
        const Vec<Number> shown =
            squash<Real>(cell().linear_cell, fma(gain, n, load(packed().bias_c + unit)));         // (7.21)
        const Vec<Number> d = load(d_shown(chunk, t, b + r) + unit);
        const Vec<Number> d_read = d * k.gate.o * squash_slope<Real>(cell().linear_cell, shown);  // (2.3)
        store(d_a_o(r, u), d * shown * slope<Real>(cell().gate, k.gate.o));                       // (2.2)
        store(d_shown(chunk, t, b + r) + unit, d_read);
        means.add(r, gain * d_read, n);
      }
    Real mean[R], along[R];
    means.give(layout().H, mean, along);
    for (int64_t u = 0; u < layout().units; ++u)
      for (int r = 0; r < R; ++r) {
        const int64_t unit = u * kLanes<Number>;
        const Kept k = kept(t, b + r, u);
        const Vec<Number> d_n = load(packed().gain_c + unit) * load(d_shown(chunk, t, b + r) + unit);
        const Vec<Number> d_c_shown =
            through_norm(d_n, n_of_cells(scales[r], k.c, u), mean[r], along[r], scales[r].inverse_c);
        through_cell(chunk, t, b + r, u, k, load(d_a_o(r, u)), keep_first<Real>(d_c_shown, layout().units_in(u)));
      }
  }

  // From d_a on to both products.
  template <int R>
  GATEWISE_APART void through_gates(const Chunk& chunk, int64_t t, int64_t b) const {
    constexpr int64_t lanes = kLanes<Number>;
    const int64_t step = back.steps.before_step(t) + b, count = layout().gates / lanes, row = layout().gates_row;
    const auto* const scales = normalized().scales + step;
    const Number* const d_a = d_a_whole(chunk, t, b);
    const auto through = [&](const Number* n, const Real* gain, auto inverse, Number* to) {
      Means<R> means;
      for (int64_t at = 0; at < count * lanes; at += lanes)
        each<R>([&](int r) { means.add(r, load(gain + at) * load(d_a + r * row + at), load(n + r * row + at)); });
      Real mean[R], along[R];
      means.give(cell().gates() * layout().H, mean, along);
      for (int64_t at = 0; at < count * lanes; at += lanes)
        each<R>([&](int r) {
          const Vec<Number> d_n = load(gain + at) * load(d_a + r * row + at);
          const Vec<Number> d = through_norm(d_n, load(n + r * row + at), mean[r], along[r], inverse(scales[r]));
          store(to + r * row + at, without_padding(layout(), packed(), at, d));
        });
    };
    const auto& kept = normalized();
    through(kept.n_hh + step * row, packed().gain_hh, [](const auto& s) { return s.inverse_hh; }, back.d_a(chunk, t, b));
    through(kept.n_ih + step * row, packed().gain_ih, [](const auto& s) { return s.inverse_ih; },
            back.of_chunk(back.scratch.d_a_ih, chunk, t, b));
  }

  // ------------------------------------------------------------------------- the gradients of its own weights

  // Of a chunk; threads share the units.
  void parameter_gradients(const Chunk& chunk, const Team& team) const {
    const VariedGradients<Number>& d = back.call.d_varied;
    const bool of_norms = cell().layer_norm && (d.gain_ih || d.gain_hh || d.gain_c || d.bias_c || back.call.d_bias);
    if (!d.weight_ch && !of_norms) return;
    team.meet();  // until all of d_a is there
    const Range units = part(layout().units, team.threads, team.thread);
    if (chunk.first) fill_sums(units);
    if (d.weight_ch) {
      Cursor at(back.steps, back.group, chunk.before, chunk.times.first);
      for (int64_t row = 0; row < chunk.depth; ++row, at.next()) add_peepholes(chunk, at.t, at.b, units);
    }
    if (of_norms) add_norms(chunk, units);
    if (chunk.last && layout().groups == 1) give(units);
  }

  // Of the group.
  const VariedScratch<Number>& sums() const { return back.scratch.sums_varied[back.number]; }

  // body(step among the chunk's, where it stands among those kept of all rows), for the group's steps of a chunk.
  template <class Body>
  GATEWISE_INLINE void for_steps(const Chunk& chunk, const Body& body) const {
    for (int64_t t = chunk.times.first, n = 0; t < chunk.times.last; ++t) {
      const Range rows = back.steps.active_of(back.group.rows, t);
      for (int64_t b = rows.first, at = back.steps.before_step(t) + b; b < rows.last; ++b) body(n++, at++);
    }
  }

  void fill_sums(Range units) const {
    const auto zeros = [](Real* to, int64_t first, int64_t last) {
      for (int64_t at = first; at < last; ++at) to[at] = 0;
    };
    const int64_t first = units.first * kLanes<Number>, last = units.last * kLanes<Number>;
    zeros(sums().peepholes, 3 * first, 3 * last);
    if (!cell().layer_norm) return;
    for (Real* of_gates : {sums().gain_ih, sums().gain_hh, sums().bias})
      zeros(of_gates, layout().gates_at(units.first), layout().gates_at(units.last));
    for (Real* of_cells : {sums().gain_c, sums().bias_c}) zeros(of_cells, first, last);
  }

  GATEWISE_APART void add_peepholes(const Chunk& chunk, int64_t t, int64_t b, Range units) const {
    for (int64_t u = units.first; u < units.last; ++u) {
      const Kept k = kept(t, b, u);
      const Gates<Real> d_a = load_gates(d_a_whole(chunk, t, b) + layout().gates_at(u), layout().width_of(u));
      const auto add = [&](int64_t gate, Vec<Number> d, Vec<Number> seen) {
        Real* to = sums().peepholes + (3 * u + gate) * kLanes<Number>;
        store(to, fma(d, seen, load(to)));                                     // (7.8)
      };
      add(0, d_a.i, k.c_prev);
      add(1, d_a.f, k.c_prev);
      add(2, d_a.o, k.c);
    }
  }

  // Vector by vector, whose sums stay in registers while all steps pass.
  GATEWISE_APART void add_norms(const Chunk& chunk, Range units) const {
    constexpr int64_t lanes = kLanes<Number>;
    const int64_t row = layout().gates_row, cells_row = layout().cells_row;
    const Number* const d_a = back.of_group(back.scratch.d_a_whole);
    const Number *const n_ih = normalized().n_ih, *const n_hh = normalized().n_hh;
    for (int64_t at = layout().gates_at(units.first); at < layout().gates_at(units.last); at += lanes) {
      Vec<Number> gain_ih = load(sums().gain_ih + at), gain_hh = load(sums().gain_hh + at), bias = load(sums().bias + at);
      for_steps(chunk, [&](int64_t n, int64_t step) {
        const Vec<Number> d = load(d_a + n * row + at);
        gain_ih += d * load(n_ih + step * row + at);                           // (7.23)
        gain_hh += d * load(n_hh + step * row + at);
        bias += d;                                                             // (3.5)
      });
      store(sums().gain_ih + at, gain_ih);
      store(sums().gain_hh + at, gain_hh);
      store(sums().bias + at, bias);
    }
    const auto* const scales = normalized().scales;
    const Real* const c = back.call.cells + layout().B * cells_row + of_new_cell();
    const Real* const d_read = d_shown_of_group();
    for (int64_t u = units.first; u < units.last; ++u) {
      const int64_t unit = u * lanes;
      Vec<Number> gain_c = load(sums().gain_c + unit), bias_c = load(sums().bias_c + unit);
      for_steps(chunk, [&](int64_t n, int64_t step) {
        const Vec<Number> d = load(d_read + n * layout().padded + unit);
        gain_c += d * n_of_cells(scales[step], load(c + step * cells_row + unit), u);
        bias_c += d;
      });
      store(sums().gain_c + unit, gain_c);
      store(sums().bias_c + unit, bias_c);
    }
  }

  // The sums of all chunks, and of all groups, to where they are wanted.
  void give(Range units) const {
    const VariedGradients<Number>& d = back.call.d_varied;
    const auto whole = [&](Real* VariedScratch<Number>::*sums, int64_t at, int64_t n) {
      const VariedScratch<Number>* const of = back.scratch.sums_varied;
      const Vec<Number> first = load_first(of[0].*sums + at, n);
      return layout().groups == 1 ? first : first + load_first(of[1].*sums + at, n);
    };
    using Sums = VariedScratch<Number>;
    for (int64_t u = units.first; u < units.last; ++u) {
      const int64_t unit = u * kLanes<Number>, n = layout().units_in(u);
      for (int64_t gate = 0, block = 0; gate < 3; ++gate) {
        if (!d.weight_ch || (cell().coupled && gate == 1)) continue;
        store_first(d.weight_ch + block++ * layout().H + unit,
                    whole(&Sums::peepholes, (3 * u + gate) * kLanes<Number>, n), n);
      }
      if (!cell().layer_norm) continue;
      for (int64_t gate = 0; gate < 4; ++gate) {
        const int64_t block = layout().block_of(gate), at = layout().gates_at(u) + gate * layout().width_of(u);
        const auto of_gate = [&](Number* to, Real* Sums::*sums) {
          if (to && block >= 0) store_first(to + block * layout().H + unit, whole(sums, at, n), n);
        };
        of_gate(d.gain_ih, &Sums::gain_ih);
        of_gate(d.gain_hh, &Sums::gain_hh);
        of_gate(back.call.d_bias, &Sums::bias);
      }
      if (d.gain_c) store_first(d.gain_c + unit, whole(&Sums::gain_c, unit, n), n);
      if (d.bias_c) store_first(d.bias_c + unit, whole(&Sums::bias_c, unit, n), n);
    }
  }
};

}  // namespace
}  // namespace gatewise::GATEWISE_ISA
