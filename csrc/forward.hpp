// Forward over time: the input's products of a chunk of steps at once, then step after step the hidden state's and the cell.
#pragma once

#include "layout.hpp"
#include "matmul.hpp"
#include "pack.hpp"
#include "parallel.hpp"
#include "step.hpp"

namespace gatewise::GATEWISE_ISA {
namespace {

template <class Number>
struct VariedForward;  // varied_forward.hpp: what a changed cell does otherwise

template <class Number>
struct Forward {
  using Real = Sum<Number>;

  const ForwardCall<Number>& call;
  const Layout<Number> layout;
  const Steps steps;
  const ForwardScratch<Number> scratch;
  const bool single;  // a single step, whose threads share units and whose weights nobody keeps: see panel()

  const Number* x(int64_t t, int64_t b) const { return call.x + steps.place(t, b, call.x_step, call.x_row); }
  Number* h(int64_t t, int64_t b) const { return call.h + steps.place(t, b, call.h_step, call.h_row); }
  const Number* initial_h(int64_t b) const {
    return call.h_0 ? call.h_0 + steps.row_of(b) * layout.P : scratch.zeros;
  }
  const Number* h_before(int64_t t, int64_t b) const {
    if (steps.is_reset(t, b)) return scratch.zeros;
    return t > 0 ? h(t - 1, b) : initial_h(b);
  }
  // The masked h that the gates see (7.13) of a row's first t steps.
  Number* seen(int64_t t, int64_t b) const { return scratch.seen + (t % 2 * layout.B + b) * layout.padded_h; }
  const Number* seen_before(int64_t t, int64_t b) const {
    return steps.is_reset(t, b) || (t == 0 && !call.h_0) ? scratch.zeros : seen(t, b);
  }
  // The cells of a row after its first t steps: those before all of time, then those after each step. Inference keeps
  // one slot for all of them.
  Real* c(int64_t t, int64_t b) const {
    const int64_t slot = call.training && t > 0 ? layout.B + steps.before_step(t - 1) + b : b;
    return call.cells + slot * layout.cells_row;
  }
  const Real* c_before(int64_t t, int64_t b) const { return steps.is_reset(t, b) ? scratch.zero_cells : c(t, b); }
  // o tanh(c) of a row, where it is not yet h.
  Number* unprojected(int64_t t, int64_t b) const {
    return call.unprojected + (call.training ? steps.before_step(t) + b : b) * layout.padded;
  }
  // Whether the gates, which training keeps, go past the caches.
  bool streams() const { return call.training && layout.far_gates; }
  // The gates of a row.
  Number* gates(int64_t t, int64_t b) const { return call.gates + (steps.before_step(t) + b) * layout.gates_row; }
  // The sums that become gates: where the gates will be, if they are kept as they are and in the caches; else only those
  // of the current chunk of steps, each row's in places of its own, for a thread with other rows may be in another chunk.
  Real* sums(int64_t t, int64_t chunk, int64_t b) const {
    if constexpr (!kRounds<Number>)
      if (call.training && !layout.far_gates) return gates(t, b);
    Real* start = call.training ? scratch.sums : reinterpret_cast<Real*>(call.gates);
    return start + ((t - chunk) * layout.B + b) * layout.gates_row;
  }

  void pack(const Team& team) const {
    const Range units = part(layout.units, team.threads, team.thread);
    const bool kept = call.weights == Weights::kept;
    if (!single && !kept) {
      pack_gates(call.weight_ih, layout.I, layout, units, scratch.weight_ih + panel_at(units.first, layout.I));
      pack_gates(call.weight_hh, layout.P, layout, units, scratch.weight_hh + panel_at(units.first, layout.P));
    }
    if (layout.projected && !kept) {
      const Panels panels(layout.P, kLanes<Number>);
      pack_transposed(panels, call.weight_hr, layout.P, layout.H, part(panels.count, team.threads, team.thread),
                      scratch.weight_hr);
    }
    fill_zeros(scratch.zeros, units);
    fill_zeros(scratch.zero_cells, part(layout.cells_row / kLanes<Number>, team.threads, team.thread));
    for (int64_t u = units.first; u < units.last; ++u)
      for (int gate = 0; gate < 4; ++gate) {
        const int64_t block = layout.block_of(gate), width = layout.width_of(u);
        const int64_t at = block * layout.H + u * kLanes<Number>;
        Vec<Number> bias = {};
        if (call.bias_ih && block >= 0)
          bias = load_first(call.bias_ih + at, layout.units_in(u)) + load_first(call.bias_hh + at, layout.units_in(u));
        store_first(scratch.bias + layout.gates_at(u) + gate * width, bias, width);
      }
    if (layout.changed) VariedForward<Number>{*this}.pack(units);
  }

  static int64_t panel_at(int64_t u, int64_t width) { return u * 4 * kLanes<Number> * whole_groups<Number>(width); }

  // The packed weights of a vector of units. A single step reads each of them once: they are packed just before, into
  // memory that stays in the cache (that of the first of the thread's units).
  const Number* panel(const Number* weights, int64_t width, Range units, int64_t u, Number* packed) const {
    if (!single) return packed + panel_at(u, width);
    pack_gates(weights, width, layout, {u, u + 1}, packed + panel_at(units.first, width));
    return packed + panel_at(units.first, width);
  }

  // The input's part of (1.1) for the steps of a chunk: it needs no h, so all of them are one product.
  void project_input(Range chunk, Range rows, Range units) const {
    const Number* from[kMostRows];
    Real* to[kMostRows];
    int64_t count = 0;
    for (int64_t t = chunk.first; t < chunk.last; ++t)
      for (int64_t b = rows.first; b < steps.active_of(rows, t).last; ++b, ++count) {
        from[count] = x(t, b);
        to[count] = sums(t, chunk.first, b);
      }
    for (int64_t u = units.first; u < units.last; ++u) {
      const Number* weights = panel(call.weight_ih, layout.I, units, u, scratch.weight_ih);
      with_gates(layout.vectors_of(u), [&](auto n) { sum_input<decltype(n)::value>(count, from, to, u, weights); });
    }
  }

  // The same for one vector of units, whose gates are N vectors.
  template <int N>
  GATEWISE_APART void sum_input(int64_t count, const Number* const* from, Real* const* to, int64_t u,
                                const Number* weights) const {
    const int64_t at = layout.gates_at(u);
    int64_t k = 0;
    do {
      const int64_t depth = smaller(kBlock<Number>, layout.I - k);
      const Number* block = weights + k * N * kLanes<Number>;
      panel_product<Number, N>(
          count, from, k, kGroup<Number>, block, depth, block + depth * N * kLanes<Number>,
          [&](int64_t row, Vec<Number>(&sum)[N]) {
            const Real* start = k == 0 ? scratch.start + at : to[row] + at;
            for (int n = 0; n < N; ++n) sum[n] = load(start + n * kLanes<Number>);
          },
          [&]<int M>(int64_t row, const Vec<Number>(&sum)[M][N]) {
            for (int m = 0; m < M; ++m)
              for (int n = 0; n < N; ++n) store(to[row + m] + at + n * kLanes<Number>, sum[m][n]);
          });
      k += depth;
    } while (k < layout.I);
  }

  // Where the rows of a step find and leave what is theirs.
  struct StepRows {
    int64_t count, t, first;
    const Number* from[kMostStepRows];
    const Real *a[kMostStepRows], *c_from[kMostStepRows];
    Number *gates_to[kMostStepRows], *h_to[kMostStepRows];
    Real* c_to[kMostStepRows];
  };

  // The hidden state's part of (1.1), then the step, before anything but the gates is stored.
  void advance(int64_t t, int64_t chunk, Range rows, Range units) const {
    StepRows step_rows;
    step_rows.count = rows.last - rows.first;
    step_rows.t = t;
    step_rows.first = rows.first;
    for (int64_t row = 0; row < step_rows.count; ++row) {
      const int64_t b = rows.first + row;
      step_rows.from[row] = layout.cell.drops_hidden ? seen_before(t, b) : h_before(t, b);
      step_rows.a[row] = layout.cell.layer_norm ? scratch.start : sums(t, chunk, b);
      step_rows.c_from[row] = c_before(t, b);
      if (call.training) step_rows.gates_to[row] = gates(t, b);
      step_rows.c_to[row] = c(t + 1, b);
      step_rows.h_to[row] = layout.projected ? unprojected(t, b) : h(t, b);
    }
    const bool far = layout.far_for(step_rows.count);
    for (int64_t u = units.first; u < units.last; ++u) {
      const Number* weights = panel(call.weight_hh, layout.P, units, u, scratch.weight_hh);
      // After the last unit's weights the next step begins with the first unit's.
      const Number* next = scratch.weight_hh + panel_at(u + 1 < units.last ? u + 1 : units.first, layout.P);
      with_gates(layout.vectors_of(u), [&](auto n) {
        constexpr int N = decltype(n)::value;
        if constexpr (N * kVectorBytes == 256)
          if (far) return advance_units<N, 2>(step_rows, u, weights, next);
        advance_units<N, 1>(step_rows, u, weights, next);
      });
    }
  }

  // The same for one vector of units, whose gates are N vectors.
  template <int N, int Lines>
  GATEWISE_APART void advance_units(const StepRows& rows, int64_t u, const Number* weights, const Number* next) const {
    constexpr int width = N * kLanes<Number> / 4;
    const int64_t at = layout.gates_at(u), unit = u * kLanes<Number>;
    // What the padding adds is zero, and its own array has room for it.
    const int64_t units = layout.projected ? kLanes<Number> : layout.units_in(u);
    blocked_product<Number, N, Lines>(
        rows.count, rows.from, weights, layout.P, kBlock<Number>, next,
        [&](int64_t row, Vec<Number>(&sum)[N]) {
          for (int n = 0; n < N; ++n) sum[n] = load(rows.a[row] + at + n * kLanes<Number>);
        },
        [&]<int M>(int64_t row, const Vec<Number>(&sum)[M][N]) {
          if (layout.changed) {
            const Stored<Number, M, N> sums(sum);
            return VariedForward<Number>{*this}.template take<N>(rows, row, M, u, sums.at);
          }
          Gates<Real> gate[M];
          Vec<Number> c_prev[M], c_next[M], h_next[M];
          for (int m = 0; m < M; ++m) {
            gate[m] = gates_of<Real, N>(sum[m]);
            c_prev[m] = load(rows.c_from[row + m] + unit);
          }
          step<Real, M>(gate, c_prev, c_next, h_next);
          for (int m = 0; m < M; ++m) {
            if (streams() && width == kLanes<Number>) stream_gates(rows.gates_to[row + m] + at, gate[m]);
            else if (call.training) store_gates(rows.gates_to[row + m] + at, gate[m], width);
            store(rows.c_to[row + m] + unit, c_next[m]);
            store_first(rows.h_to[row + m] + unit, h_next[m], units);
          }
        });
  }

  // (1.17)
  GATEWISE_APART void project(int64_t t, Range rows, Range which) const {
    const Number* from[kMostStepRows];
    Number* to[kMostStepRows];
    const int64_t count = rows.last - rows.first;
    for (int64_t row = 0; row < count; ++row) {
      from[row] = unprojected(t, rows.first + row);
      to[row] = h(t, rows.first + row);
    }
    const Panels panels(layout.P, kLanes<Number>);
    for (int64_t p = which.first; p < which.last; ++p)
      with_width(panels.vectors(p), [&](auto width) {
        constexpr int N = decltype(width)::value;
        const int64_t column = p * kPanelVectors * kLanes<Number>, depth = whole_groups<Number>(layout.H);
        const Number* weights = scratch.weight_hr + column * depth;
        blocked_product<Number, N>(
            count, from, weights, layout.H, kBackwardBlock<Number>, weights + depth * N * kLanes<Number>,
            [](int64_t, Vec<Number>(&sum)[N]) {
              for (int n = 0; n < N; ++n) sum[n] = Vec<Number>{};
            },
            [&]<int M>(int64_t row, const Vec<Number>(&sum)[M][N]) {
              if (layout.changed) {
                const Stored<Number, M, N> sums(sum);
                return VariedForward<Number>{*this}.give(t, rows.first + row, M, column, N, sums.at);
              }
              for (int m = 0; m < M; ++m)
                for (int n = 0; n < N; ++n) {
                  const int64_t at = column + n * kLanes<Number>;
                  store_first(to[row + m] + at, sum[m][n], layout.P - at);
                }
            });
      });
  }

  // `by_units`: the threads of the team share the units of each step.
  void run(const Region& region, const Team& team, bool by_units) const {
    for (const Range rows : RowBlocks{region.rows, kMostStepRows}) {
      const auto for_units = [&](const auto& body) {
        const int64_t states = layout.cell.states();
        for (int64_t b = rows.first; b < rows.last; ++b)
          for (int64_t state = 0; state < states; ++state)
            for (int64_t u = region.units.first; u < region.units.last; ++u) {
              const int64_t unit = u * kLanes<Number>;
              body(b, state * layout.padded + unit, (steps.row_of(b) * states + state) * layout.H + unit,
                   layout.units_in(u));
            }
      };
      for_units([&](int64_t b, int64_t unit, int64_t at, int64_t n) {
        const Vec<Number> given = call.c_0 ? load_first(call.c_0 + at, n) : Vec<Number>{};
        store(c(0, b) + unit, call.c ? load_first(call.c + at, n) : given);
      });
      const VariedForward<Number> varied{*this};
      if (layout.changed) {
        varied.begin(rows, region.h);
        if (by_units) team.meet();
      }
      for (int64_t chunk = 0; chunk < layout.T; chunk += layout.chunk_steps) {
        const Range of_chunk = {chunk, smaller(chunk + layout.chunk_steps, layout.T)};
        project_input(of_chunk, rows, region.units);
        if (layout.cell.layer_norm) varied.normalize_input(of_chunk, rows, team, by_units);
        for (int64_t t = of_chunk.first; t < of_chunk.last; ++t) {
          advance(t, chunk, steps.active_of(rows, t), region.units);
          if (by_units) team.meet();
          if (layout.cell.layer_norm) {
            varied.take_normalized(t, chunk, steps.active_of(rows, t), team, by_units);
            if (by_units) team.meet();
          }
          if (layout.projected) {
            project(t, steps.active_of(rows, t), region.h);
            if (by_units) team.meet();
          }
        }
      }
      for_units([&](int64_t b, int64_t unit, int64_t at, int64_t n) {
        const Vec<Number> last = load(c(steps.length_of(b), b) + unit);
        if (call.c) store_first(call.c + at, last, n);
        else store_first(call.c_n + at, last, n);
      });
      if (streams()) end_streams();
      const Panels panels(layout.P, kLanes<Number>);
      const int64_t first = panels.first(region.h.first) * kLanes<Number>;
      const int64_t last = smaller(panels.first(region.h.last) * kLanes<Number>, layout.P);
      for (int64_t b = rows.first; b < rows.last; ++b) {
        const int64_t length = steps.length_of(b);
        const Number* last_h = length > 0 ? h(length - 1, b) : initial_h(b);
        if (first < last)
          std::memcpy(call.h_n + steps.row_of(b) * layout.P + first, last_h + first, (last - first) * sizeof(Number));
      }
    }
  }
};

}  // namespace
}  // namespace gatewise::GATEWISE_ISA
