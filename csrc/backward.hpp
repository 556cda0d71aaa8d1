// Backward over time, a chunk of steps after another: d_a step by step, then what is made of it, the gradients of the input
// and of the parameters.
#pragma once

#include "layout.hpp"
#include "matmul.hpp"
#include "pack.hpp"
#include "parallel.hpp"
#include "step.hpp"

namespace gatewise::GATEWISE_ISA {
namespace {

template <class Number>
struct VariedBackward;  // varied_backward.hpp: what a changed cell does otherwise

template <class Number>
struct Backward {
  using Real = Sum<Number>;

  const BackwardCall<Number>& call;
  const Layout<Number> layout;
  const Steps steps;
  const BackwardScratch<Number> scratch;
  const int64_t number;  // of the group of rows
  const Group group;

  Backward(const BackwardCall<Number>& call, const Layout<Number>& layout, const BackwardScratch<Number>& scratch,
           int64_t number)
      : call(call), layout(layout), steps(call.walk, call.sizes), scratch(scratch), number(number),
        group(group_of(number)) {}

  Group group_of(int64_t number) const {
    if (layout.groups == 1) return Group::all(steps);
    const int64_t* before = scratch.before + number * (layout.T + 1);
    return {steps.part_of_rows({0, layout.B}, layout.groups, number), steps.length ? before : nullptr};
  }

  const Number* x(int64_t t, int64_t b) const { return call.x + steps.place(t, b, call.x_step, call.x_row); }
  // Null where it is zero.
  const Number* h_before(int64_t t, int64_t b) const {
    if (steps.is_reset(t, b)) return nullptr;
    if (t > 0) return call.h + steps.place(t - 1, b, call.h_step, call.h_row);
    return call.h_0 ? call.h_0 + steps.row_of(b) * layout.P : nullptr;
  }
  const Real* c(int64_t t, int64_t b) const {
    return call.cells + (t > 0 ? layout.B + steps.before_step(t - 1) + b : b) * layout.cells_row;
  }
  const Real* c_before(int64_t t, int64_t b) const { return steps.is_reset(t, b) ? scratch.zero_cells : c(t, b); }
  const Number* gates(int64_t t, int64_t b) const { return call.gates + (steps.before_step(t) + b) * layout.gates_row; }
  Number* d_x(int64_t t, int64_t b) const { return call.d_x + steps.place(t, b, call.d_x_step, call.d_x_row); }
  const Number* d_h(int64_t t, int64_t b) const { return call.d_h + steps.place(t, b, call.d_h_step, call.d_h_row); }
  // Where h is projected: what is projected, and all of d_h.
  const Number* unprojected(int64_t t, int64_t b) const {
    return call.unprojected + (steps.before_step(t) + b) * layout.padded;
  }
  Number* whole_d_h(int64_t t, int64_t b) const { return scratch.d_h_all + (steps.before_step(t) + b) * layout.padded_h; }

  // A chunk of steps. Time is taken in these, the last one first: of each first d_a, then all that is made of d_a, while
  // it stands in the cache.
  struct Chunk {
    Range times;
    int64_t before, depth;  // steps of the group's rows before it, and in it
    bool first, last;       // of those taken
  };

  Chunk chunk(int64_t j) const {
    const Range times = part(layout.T, layout.back_chunks, j);
    const int64_t before = group.before_step(times.first);
    return {times, before, group.before_step(times.last) - before, j + 1 == layout.back_chunks, j == 0};
  }

  // d_a of a chunk's steps, and of the one after them; and, among as many of another array, where a step's stands.
  Number* d_a(const Chunk& chunk, int64_t t, int64_t b) const {
    if (t == chunk.times.last) return scratch.d_a_next + b * layout.gates_row;
    return of_chunk(scratch.d_a, chunk, t, b);
  }
  Number* of_chunk(Number* d, const Chunk& chunk, int64_t t, int64_t b) const {
    return of_group(d) + place(chunk, t, b) * layout.gates_row;
  }
  int64_t place(const Chunk& chunk, int64_t t, int64_t b) const {
    return group.before_step(t) - chunk.before + b - group.rows.first;
  }
  // Where the first of them stands.
  Number* of_group(Number* d) const { return d + layout.back_steps * group.rows.first * layout.gates_row; }

  // `own`: the team packs for the group alone. `by_units`: and its threads share the units of each step, each of which
  // then packs the panels that it will read; of the input's, which they share by steps, where there is but one step.
  void pack(const Team& team, bool own, bool by_units) const {
    const auto pack_weights = [&](const Number* weights, int64_t width, bool by_panels, Number* packed) {
      const int64_t panels = Panels(width, kLanes<Number>).count;
      const Range all = {0, whole_groups<Number>(layout.gates)};
      const Range gates = by_panels ? all : part_in_groups<Number>(layout.gates, team.threads, team.thread);
      pack_panels<Number>(
          width, by_panels ? part(panels, team.threads, team.thread) : Range{0, panels}, gates, layout.gates,
          [this, weights, width, m = gates.first]() mutable -> const Number* {
            const int64_t row = layout.torch_row(m++);
            return row < 0 ? nullptr : weights + row * width;
          },
          packed);
    };
    if (layout.groups > 1 && steps.length && team.thread == 0)
      for (int64_t g = 0; g < layout.groups; ++g)
        if (!own || g == number) Group::count_before(steps, group_of(g).rows, scratch.before + g * (layout.T + 1));
    fill_zeros(scratch.zeros, part(layout.gates / kLanes<Number>, team.threads, team.thread));
    fill_zeros(scratch.zero_cells, part(layout.cells_row / kLanes<Number>, team.threads, team.thread));
    if (layout.changed) VariedBackward<Number>{*this}.pack(part(layout.units, team.threads, team.thread));
    if (layout.T > 1 || call.d_h_0) pack_weights(call.weight_hh, layout.P, by_units, scratch.weight_hh);
    if (call.d_x) pack_weights(call.weight_ih, layout.I, by_units && layout.T == 1, scratch.weight_ih);
    if (layout.projected) {
      const Range rows = part_in_groups<Number>(layout.P, team.threads, team.thread);
      pack_panels<Number>(
          layout.H, {0, Panels(layout.H, kLanes<Number>).count}, rows, layout.P,
          [row = call.weight_hr + rows.first * layout.H, H = layout.H]() mutable {
            const Number* from = row;
            row += H;
            return from;
          },
          scratch.weight_hr);
    }
  }

  Vec<Number> final_d_h(int64_t b, int64_t u) const {
    const int64_t at = u * kLanes<Number>;
    return call.d_h_n ? load_first(call.d_h_n + steps.row_of(b) * layout.P + at, layout.P - at) : Vec<Number>{};
  }

  // What the results send to h_t.
  Vec<Number> given_d_h(int64_t t, int64_t b, int64_t u) const {
    const int64_t at = u * kLanes<Number>;
    Vec<Number> d = call.d_h && t >= 0 ? load_first(d_h(t, b) + at, layout.P - at) : Vec<Number>{};
    if (t == steps.length_of(b) - 1) d += final_d_h(b, u);
    return d;
  }

  // (2.2) to (2.11) for rows b, b + 1, … and vectors of units u, u + 1, … of step t.
  template <int M, int N>
  GATEWISE_INLINE void cell_backward(const Chunk& chunk, int64_t t, int64_t first_b, int64_t first_u,
                                     const Vec<Number> (&d_h)[M][N]) const {
    Vec<Number> tanh_c[N][M];
    for (int n = 0; n < N; ++n) {
      each<M>([&](int m) { tanh_c[n][m] = load(c(t + 1, first_b + m) + (first_u + n) * kLanes<Number>); });
      tanh<Real, M>(tanh_c[n]);
    }
#pragma GCC unroll 1
    for (int m = 0; m < M; ++m)
#pragma GCC unroll 1
      for (int n = 0; n < N; ++n) {
        const int64_t b = first_b + m, u = first_u + n, unit = u * kLanes<Number>;
        const int64_t at = layout.gates_at(u), width = layout.width_of(u), units = layout.units_in(u);
        Real* d_c = scratch.d_c + b * layout.padded + unit;
        Gates<Real> gate = load_gates(gates(t, b) + at, width);
        const Vec<Number> d_c_prev =
            step_backward<Real>(gate, load(c_before(t, b) + unit), tanh_c[n][m], d_h[m][n], load(d_c));
        store(d_c, steps.is_reset(t, b) ? Vec<Number>{} : d_c_prev);
        // Infinity times a weight of the padding is not a number, and must not reach the other units.
        store_gates(d_a(chunk, t, b) + at, units < width ? keep_first<Real>(gate, units) : gate, width);
      }
  }

  // What cell_backward will read of a row has been in memory since forward: it is on its way while the product computes.
  // (To the second-level cache: so many lines at once would keep the weights out of the first.) And so is what the next
  // step's product begins with.
  template <int N>
  GATEWISE_INLINE void fetch_cell(int64_t t, int64_t b, int64_t u) const {
    const auto fetch = [](const auto* from, int64_t numbers) {
      for (int64_t n = 0; n < numbers; n += 64 / static_cast<int64_t>(sizeof *from))
        __builtin_prefetch(from + n, 0, kSecondLevel);
    };
    fetch(gates(t, b) + layout.gates_at(u), 4 * N * kLanes<Number>);
    fetch(c_before(t, b) + u * kLanes<Number>, N * kLanes<Number>);
    if (call.d_h && t > 0) fetch(d_h(t - 1, b) + u * kLanes<Number>, N * kLanes<Number>);
  }

  // d_h of (2.1) for the units of a panel: what the output and, by way of d_a of step t + 1, the next step send back.
  // Where h is its own, the step's gradient follows at once. Before all steps, where t is -1, it is d_h_0 (3.6).
  template <int N>
  GATEWISE_APART void retreat(const Chunk& chunk, int64_t t, Range rows, int64_t panel) const {
    const Number* from[kMostStepRows];
    const int64_t count = rows.last - rows.first, next = t + 1, still_active = steps.active_at(next);
    const int64_t depth = still_active > rows.first ? layout.gates : 0;
    for (int64_t b = rows.first; b < rows.last; ++b)
      from[b - rows.first] = b < still_active && !steps.is_reset(next, b) ? d_a(chunk, next, b) : scratch.zeros;
    const int64_t u = panel * kPanelVectors;
    const Number* weights = scratch.weight_hh + u * kLanes<Number> * layout.gates;
    blocked_product<Number, N>(
        count, from, weights, depth, kBackwardBlock<Number>, weights + layout.gates * N * kLanes<Number>,
        [&](int64_t row, Vec<Number>(&sum)[N]) {
          const int64_t b = rows.first + row;
          if (t >= 0) fetch_cell<N>(t, b, u);
          for (int n = 0; n < N; ++n) sum[n] = layout.cell.drops_hidden ? Vec<Number>{} : given_d_h(t, b, u + n);
        },
        [&]<int M>(int64_t row, const Vec<Number>(&sum)[M][N]) {
          const int64_t b = rows.first + row;
          if (layout.changed) {
            const Stored<Number, M, N> sums(sum);
            return VariedBackward<Number>{*this}.retreat(chunk, t, b, M, u, N, sums.at);
          }
          if (t >= 0 && !layout.projected) return cell_backward<M, N>(chunk, t, b, u, sum);
          for (int m = 0; m < M; ++m)
            for (int n = 0; n < N; ++n) {
              const int64_t at = (u + n) * kLanes<Number>;
              if (t >= 0) store(whole_d_h(t, b + m) + at, sum[m][n]);
              else store_first(call.d_h_0 + steps.row_of(b + m) * layout.P + at, sum[m][n], layout.P - at);
            }
        });
  }

  // The gradient of what is projected (2.13), for the units of a panel, and the step's.
  template <int N>
  GATEWISE_APART void unproject(const Chunk& chunk, int64_t t, Range rows, int64_t panel) const {
    const Number* from[kMostStepRows];
    for (int64_t b = rows.first; b < rows.last; ++b) from[b - rows.first] = whole_d_h(t, b);
    const int64_t u = panel * kPanelVectors;
    const int64_t depth = whole_groups<Number>(layout.P);
    const Number* weights = scratch.weight_hr + u * kLanes<Number> * depth;
    blocked_product<Number, N>(
        rows.last - rows.first, from, weights, layout.P, kBackwardBlock<Number>, weights + depth * N * kLanes<Number>,
        [](int64_t, Vec<Number>(&sum)[N]) {
          for (int n = 0; n < N; ++n) sum[n] = Vec<Number>{};
        },
        [&]<int M>(int64_t row, const Vec<Number>(&d_h)[M][N]) {
          if (!layout.changed) return cell_backward<M, N>(chunk, t, rows.first + row, u, d_h);
          const Stored<Number, M, N> sums(d_h);
          VariedBackward<Number>{*this}.step(chunk, t, rows.first + row, M, u, N, sums.at);
        });
  }

  // body(place among a caller's cells, d_c, how many) for a region's vectors of units.
  template <class Body>
  void for_units(const Region& region, const Body& body) const {
    const Panels panels(layout.H, kLanes<Number>);
    const int64_t states = layout.cell.states();
    for (int64_t b = region.rows.first; b < region.rows.last; ++b)
      for (int64_t state = 0; state < states; ++state)
        for (int64_t u = panels.first(region.units.first); u < panels.first(region.units.last); ++u)
          body((steps.row_of(b) * states + state) * layout.H + u * kLanes<Number>,
               scratch.d_c + b * layout.cells_row + state * layout.padded + u * kLanes<Number>, layout.units_in(u));
  }

  void begin(const Region& region) const {
    for_units(region, [&](int64_t at, Real* d_c, int64_t n) {
      store(d_c, call.d_c_n ? load_first(call.d_c_n + at, n) : Vec<Number>{});
    });
    if (layout.changed) VariedBackward<Number>{*this}.begin(region);
  }

  // d_a of a chunk's steps. `by_units`: the threads of the team share the units of each step.
  void run(const Chunk& chunk, const Region& region, const Team& team, bool by_units) const {
    const Panels panels(layout.H, kLanes<Number>), of_h(layout.P, kLanes<Number>);
    for (const Range rows : RowBlocks{region.rows, kMostStepRows})
      for (int64_t t = chunk.times.last - 1; t >= chunk.times.first; --t) {
        const Range active = steps.active_of(rows, t);
        for (int64_t p = region.h.first; p < region.h.last; ++p)
          with_width(of_h.vectors(p), [&](auto n) { retreat<decltype(n)::value>(chunk, t, active, p); });
        if (by_units) team.meet();
        if (layout.projected) {
          for (int64_t p = region.units.first; p < region.units.last; ++p)
            with_width(panels.vectors(p), [&](auto n) { unproject<decltype(n)::value>(chunk, t, active, p); });
          if (by_units) team.meet();
        }
        if (layout.cell.layer_norm) {
          VariedBackward<Number>{*this}.step_normalized(chunk, t, active, team, by_units);
          if (by_units) team.meet();
        }
      }
  }

  // Keeps d_a of a chunk's first step for the chunk before it.
  void hand_on(const Chunk& chunk, const Region& region) const {
    const Panels panels(layout.H, kLanes<Number>);
    const int64_t first = layout.gates_at(panels.first(region.units.first));
    const int64_t last = layout.gates_at(panels.first(region.units.last));
    const Range active = steps.active_of(region.rows, chunk.times.first);
    for (int64_t b = active.first; b < active.last; ++b)
      std::memcpy(scratch.d_a_next + b * layout.gates_row + first, d_a(chunk, chunk.times.first, b) + first,
                  (last - first) * sizeof(Number));
  }

  void end(const Chunk& chunk, const Region& region) const {
    const Panels of_h(layout.P, kLanes<Number>);
    if (call.d_h_0)
      for (const Range rows : RowBlocks{region.rows, kMostStepRows})
        for (int64_t p = region.h.first; p < region.h.last; ++p)
          with_width(of_h.vectors(p), [&](auto n) { retreat<decltype(n)::value>(chunk, -1, rows, p); });
    if (call.d_c_0)
      for_units(region, [&](int64_t at, Real* d_c, int64_t n) { store_first(call.d_c_0 + at, load(d_c), n); });  // (3.7)
  }

  // (3.2) for some steps of some rows, and some panels of the input.
  void input_gradient(const Chunk& chunk, Range times, Range rows, Range panels) const {
    const Number* from[kMostStepRows];
    Number* to[kMostStepRows];
    int64_t count = 0;
    for (int64_t t = times.first; t < times.last; ++t)
      for (int64_t b = rows.first; b < steps.active_of(rows, t).last; ++b) {
        from[count] = of_chunk(scratch.d_a_ih, chunk, t, b);
        to[count] = d_x(t, b);
        if (++count == kMostStepRows) {
          input_gradient_of(count, from, to, panels);
          count = 0;
        }
      }
    input_gradient_of(count, from, to, panels);
  }

  GATEWISE_APART void input_gradient_of(int64_t count, const Number* const* from, Number* const* to,
                                        Range panels) const {
    const Panels input(layout.I, kLanes<Number>);
    for (int64_t p = panels.first; p < panels.last; ++p)
      with_width(input.vectors(p), [&](auto width) {
        constexpr int N = decltype(width)::value;
        const int64_t column = p * kPanelVectors * kLanes<Number>;
        const auto rest = [&](int n) { return layout.I - column - n * kLanes<Number>; };
        const Number* weights = scratch.weight_ih + column * layout.gates;
        blocked_product<Number, N>(
            count, from, weights, layout.gates, kBackwardBlock<Number>, weights + layout.gates * N * kLanes<Number>,
            [&](int64_t row, Vec<Number>(&sum)[N]) {
              for (int n = 0; n < N; ++n)
                sum[n] = call.add_to_d_x ? load_first(to[row] + column + n * kLanes<Number>, rest(n)) : Vec<Number>{};
            },
            [&]<int M>(int64_t row, const Vec<Number>(&sum)[M][N]) {
              for (int m = 0; m < M; ++m)
                for (int n = 0; n < N; ++n) store_first(to[row + m] + column + n * kLanes<Number>, sum[m][n], rest(n));
            });
      });
  }

  // Packed and copied steps of the group's rows.
  Number* rows_ih() const { return scratch.rows_ih + number * scratch.depth * layout.padded_x; }
  Number* rows_hh() const { return scratch.rows_hh + number * scratch.depth * layout.padded_h; }
  Number* columns() const { return scratch.columns + number * scratch.depth * layout.gates; }

  // Some rows of a gradient of weights: which they are, and where the numbers of a block of steps stand whose products
  // with what was read make them: those of the k-th group of steps at `at[row][k * step]`.
  struct WeightRows {
    int64_t count, step;
    int64_t row[kMostStepRows];
    const Number* at[kMostStepRows];
  };

  // The columns of an array of which a row is a step, `stride` numbers from the next. Where from step to step it is
  // half a page or more, a copy in the order in which the products read pays for itself; groups of steps need one.
  // row(column) says to which row of the gradient a column belongs, -1 to none; take(column, sums) is given the sums of
  // the columns from one on.
  template <class Row, class Take>
  WeightRows columns_of(const Number* array, int64_t stride, int64_t depth, Range which, Number* copy, const Row& row,
                        const Take& take) const {
    constexpr int64_t lanes = kLanes<Number>, group = kGroup<Number>;
    const bool copied = group > 1 || stride * sizeof(Number) >= 2048;
    const int64_t groups = whole_groups<Number>(depth);
    WeightRows rows;
    rows.count = 0;
    rows.step = copied ? lanes * group : stride;
    const Number* from = array + which.first;
    Number* to = copy + which.first * groups;
    const int64_t count = which.last - which.first;
    for (int64_t r = 0; r < count; r += kPanelVectors * lanes)
      with_width(static_cast<int>(smaller(kPanelVectors, (count - r) / lanes)), [&](auto width) {
        constexpr int N = decltype(width)::value;
        Vec<Number> sum[N] = {};
        for (int64_t k = 0; k < groups; k += group)
          for (int n = 0; n < N; ++n) {
            const Vec<Number> numbers = groups_of<Number>([&](int j) {
              const Vec<Number> v = k + j < depth ? load(from + (k + j) * stride + r + n * lanes) : Vec<Number>{};
              sum[n] += v;
              return v;
            });
            if (copied) store_groups(to + (r + n * lanes) * groups + k * lanes, numbers);
          }
        for (int n = 0; n < N; ++n) take(which.first + r + n * lanes, sum[n]);
      });
    for (int64_t r = 0; r < count; ++r) {
      rows.row[rows.count] = row(which.first + r);
      rows.at[rows.count] = copied ? to + r / lanes * lanes * groups + r % lanes * group : from + r;
      rows.count += rows.row[rows.count] >= 0;
    }
    return rows;
  }

  // A block of steps, of the group's rows together: how many, and whether it is the first one of those taken, and the last
  // one before the sums are whole.
  struct Block {
    int64_t depth;
    bool first, last;
  };

  // A gradient that is a sum over all blocks of steps. Until the last one it stands with the results, or, where these
  // are rounded, in an array of its own; and so does that of a second group, until it is joined with the first one's.
  struct Gradient {
    Number* result;
    Real* sums;

    Vec<Number> before(const Block& block, int64_t at, int64_t n) const {
      return block.first ? Vec<Number>{} : load_first(sums + at, n);
    }
    void take(const Block& block, int64_t at, int64_t n, Vec<Number> sum) const {
      if (kRounds<Number> && !block.last) store_first(sums + at, sum, n);
      else store_first(result + at, sum, n);
    }
  };

  int64_t weight_rows() const { return layout.cell.gates() * layout.H; }
  // The group's own; `size`: its numbers.
  Gradient gradient(Number* result, Real* sums, int64_t size) const {
    if constexpr (kRounds<Number>) return {result, sums + number * size};
    else return number == 0 ? Gradient{result, result} : Gradient{sums, sums};
  }
  Gradient d_weight_ih() const { return gradient(call.d_weight_ih, scratch.sums_ih, weight_rows() * layout.I); }
  Gradient d_weight_hh() const { return gradient(call.d_weight_hh, scratch.sums_hh, weight_rows() * layout.P); }
  Gradient d_bias() const { return gradient(call.d_bias, scratch.sums_bias, weight_rows()); }

  // The sums of both groups, each thread some of them.
  void join(const Team& team) const {
    const auto add = [&](Number* result, const Real* sums, int64_t size) {
      if (!result) return;
      const Range own = part((size + kLanes<Number> - 1) / kLanes<Number>, team.threads, team.thread);
      for (int64_t v = own.first; v < own.last; ++v) {
        const int64_t at = v * kLanes<Number>, n = size - at;
        const Vec<Number> first = kRounds<Number> ? load_first(sums + at, n) : load_first(result + at, n);
        const Vec<Number> second = load_first(sums + (kRounds<Number> ? size : 0) + at, n);
        store_first(result + at, first + second, n);
      }
    };
    add(call.d_weight_ih, scratch.sums_ih, weight_rows() * layout.I);
    add(call.d_weight_hh, scratch.sums_hh, weight_rows() * layout.P);
    if (!layout.cell.layer_norm) add(call.d_bias, scratch.sums_bias, weight_rows());
    if (layout.changed) VariedBackward<Number>{*this}.give(part(layout.units, team.threads, team.thread));
  }

  // Of some gates; their sums are (3.5), unless layer normalization stands between.
  WeightRows gate_rows_of(const Number* d_a, const Block& block, Range m) const {
    const Gradient d_bias = this->d_bias();
    return columns_of(
        d_a, layout.gates_row, block.depth, m, columns(), [&](int64_t at) { return layout.torch_row(at); },
        [&](int64_t at, Vec<Number> sum) {
          if (!call.d_bias || layout.cell.layer_norm) return;
          const int64_t width = layout.width_of(at / (4 * kLanes<Number>));
          Real lanes[2 * kLanes<Number>] = {};  // a gate's vector may begin at the last lane
          store(lanes, sum);
          for (int64_t lane = 0; lane < kLanes<Number>; lane += width) {
            const int64_t row = layout.torch_row(at + lane), n = layout.units_in(at / (4 * kLanes<Number>));
            if (row < 0) continue;
            d_bias.take(block, row, n, d_bias.before(block, row, n) + load(lanes + lane));
          }
        });
  }

  WeightRows projection_rows_of(const Number* d_h, int64_t depth, Range p) const {
    return columns_of(
        d_h, layout.padded_h, depth, p, scratch.columns_hr, [&](int64_t at) { return at < layout.P ? at : -1; },
        [](int64_t, Vec<Number>) {});
  }

  // One block of (3.3), (3.4) or (3.10): rows of d_weight += their products with the packed rows.
  GATEWISE_APART void weight_gradient(const WeightRows& rows, const Block& block, int64_t width, const Number* packed,
                                      const Gradient& d_weight) const {
    const Panels panels(width, kLanes<Number>);
    const int64_t depth = whole_groups<Number>(block.depth);
    for (int64_t p = 0; p < panels.count; ++p)
      with_width(panels.vectors(p), [&](auto n_vectors) {
        constexpr int N = decltype(n_vectors)::value;
        const int64_t column = p * kPanelVectors * kLanes<Number>;
        panel_product<Number, N>(
            rows.count, rows.at, 0, rows.step, packed + column * depth, depth,
            packed + (column + N * kLanes<Number>) * depth,
            [&](int64_t row, Vec<Number>(&sum)[N]) {
              for (int n = 0; n < N; ++n) sum[n] = Vec<Number>{};
              if (!block.first) __builtin_prefetch(d_weight.sums + rows.row[row] * width + column);
            },
            [&]<int M>(int64_t row, const Vec<Number>(&sum)[M][N]) {
              for (int m = 0; m < M; ++m)
                for (int n = 0; n < N; ++n) {
                  const int64_t within = column + n * kLanes<Number>, rest = width - within;
                  const int64_t at = rows.row[row + m] * width + within;
                  d_weight.take(block, at, rest, d_weight.before(block, at, rest) + sum[m][n]);
                }
            });
      });
  }

  // A thread's vectors of gates. Those of the last units have fewer rows: each thread has about as many rows.
  Range vectors_of_gates(const Team& team) const {
    const int64_t all = layout.gates / kLanes<Number>;
    const auto start = [&](int64_t j) {
      return j == team.threads ? all : smaller(all, (4 * layout.H * j / team.threads + kLanes<Number> / 2) / kLanes<Number>);
    };
    return {start(team.thread), start(team.thread + 1)};
  }

  // (3.3), (3.4), (3.5), (3.10) of a chunk; threads share the gates, and the rows of weight_hr.
  void parameter_gradients(const Chunk& chunk, const Team& team) const {
    const Range vectors = vectors_of_gates(team);
    const Range projected = part(layout.padded_h / kLanes<Number>, team.threads, team.thread);
    const Gradient d_weight_hr = gradient(call.d_weight_hr, scratch.sums_hr, layout.P * layout.H);
    for (int64_t at = 0; at == 0 || at < chunk.depth; at += layout.gradient_rows) {
      const int64_t left = chunk.depth - at;
      const Block block = {smaller(layout.gradient_rows, left), chunk.first && at == 0,
                           layout.groups == 1 && chunk.last && left <= layout.gradient_rows};
      const Range own = part_in_groups<Number>(block.depth, team.threads, team.thread);
      const auto pack = [&](int64_t columns, auto row, Number* packed) {
        if (own.first == own.last) return;
        Cursor cursor(steps, group, chunk.before + at + own.first, chunk.times.first);
        pack_panels<Number>(
            columns, {0, Panels(columns, kLanes<Number>).count}, own, block.depth,
            [&] {
              const Number* from = row(cursor.t, cursor.b);
              cursor.next();
              return from;
            },
            packed);
      };
      if (call.d_weight_ih) pack(layout.I, [&](int64_t t, int64_t b) { return x(t, b); }, rows_ih());
      const int64_t first_seen = number * scratch.depth + own.first;
      const auto h_of = [&, seen = scratch.seen + first_seen * layout.padded_h](int64_t t, int64_t b) mutable {
        const Number* h = h_before(t, b);
        if (!layout.cell.drops_hidden || !h) return h;
        const Number* masked = VariedBackward<Number>{*this}.seen(h, b, seen);
        seen += layout.padded_h;
        return masked;
      };
      if (call.d_weight_hh) pack(layout.P, h_of, rows_hh());
      if (call.d_weight_hr) pack(layout.H, [&](int64_t t, int64_t b) { return unprojected(t, b); }, scratch.rows_hr);
      team.meet();
      for (const Range some : RowBlocks{vectors, kMostStepRows / kLanes<Number>}) {
        const Range gates = {some.first * kLanes<Number>, some.last * kLanes<Number>};
        const auto rows_of = [&](const Number* d_a) { return gate_rows_of(d_a + at * layout.gates_row, block, gates); };
        WeightRows rows = rows_of(of_group(scratch.d_a_ih));
        if (call.d_weight_ih) weight_gradient(rows, block, layout.I, rows_ih(), d_weight_ih());
        if (layout.cell.layer_norm) rows = rows_of(of_group(scratch.d_a));
        if (call.d_weight_hh) weight_gradient(rows, block, layout.P, rows_hh(), d_weight_hh());
      }
      if (call.d_weight_hr)
        for (const Range some : RowBlocks{projected, kMostStepRows / kLanes<Number>}) {
          const Range p = {some.first * kLanes<Number>, some.last * kLanes<Number>};
          const Number* d_h = scratch.d_h_all + (chunk.before + at) * layout.padded_h;
          weight_gradient(projection_rows_of(d_h, block.depth, p), block, layout.H, scratch.rows_hr, d_weight_hr);
        }
      team.meet();
    }
  }
};

}  // namespace
}  // namespace gatewise::GATEWISE_ISA
