// The loop over time, forward and backward, and the weight gradients. Compiled once per instruction set.
//
// Threads share the work of a step by batch rows, by hidden units, or both: each owns a region of rows x units, and
// of it the gates, the cell state and the output. By rows alone they never wait for one another; by units they meet
// after every step, because a step needs the whole h of the step before.
#include "kernels.hpp"
#include "layout.hpp"
#include "matmul.hpp"
#include "pack.hpp"
#include "parallel.hpp"
#include "step.hpp"

namespace gatewise::GATEWISE_ISA {
namespace {

// A thread's rows, its hidden units (vectors of them, or panels), and its panels of h.
struct Region {
  Range rows, units, h;
};

Region region_of(const Split& split, const Steps& steps, int64_t units, int64_t h_panels, int thread) {
  const int64_t of_units = thread % split.unit_parts;
  return {steps.part_of_rows(split.row_parts, thread / split.unit_parts), part(units, split.unit_parts, of_units),
          part(h_panels, split.unit_parts, of_units)};
}

// ------------------------------------------------------------------------------------------------ forward

template <class Real>
struct Forward {
  const ForwardCall<Real>& call;
  const Layout<Real> layout;
  const Steps steps;
  const ForwardScratch<Real> scratch;
  const bool single;  // a single step, whose threads share units: see panel()

  const Real* x(int64_t t, int64_t b) const { return call.x + steps.place(t, b, call.x_step, call.x_row); }
  Real* h(int64_t t, int64_t b) const { return call.h + steps.place(t, b, call.h_step, call.h_row); }
  const Real* initial_h(int64_t b) const {
    return call.h_0 ? call.h_0 + steps.row_of(b) * layout.P : scratch.zeros;
  }
  const Real* h_before(int64_t t, int64_t b) const {
    if (steps.is_reset(t, b)) return scratch.zeros;
    return t > 0 ? h(t - 1, b) : initial_h(b);
  }
  // The cells of a row after its first t steps: those before all of time, then those after each step. Inference keeps
  // one slot for all of them.
  Real* c(int64_t t, int64_t b) const {
    const int64_t slot = call.training && t > 0 ? layout.B + steps.before_step(t - 1) + b : b;
    return call.cells + slot * layout.padded;
  }
  const Real* c_before(int64_t t, int64_t b) const { return steps.is_reset(t, b) ? scratch.zeros : c(t, b); }
  // o tanh(c) of a row, where it is not yet h.
  Real* unprojected(int64_t t, int64_t b) const {
    return call.unprojected + (call.training ? steps.before_step(t) + b : b) * layout.padded;
  }
  // The gates of a row; inference keeps those of the current chunk of steps.
  Real* gates(int64_t t, int64_t chunk, int64_t b) const {
    const int64_t row = steps.before_step(t) - (call.training ? 0 : steps.before_step(chunk)) + b;
    return call.gates + row * layout.gates_row;
  }

  void pack(int thread, int threads) const {
    const Range units = part(layout.units, threads, thread);
    if (!single) {
      pack_gates(call.weight_ih, layout.I, layout, units, scratch.weight_ih + panel_at(units.first, layout.I));
      pack_gates(call.weight_hh, layout.P, layout, units, scratch.weight_hh + panel_at(units.first, layout.P));
    }
    if (layout.projected) {
      const Panels panels(layout.P, kLanes<Real>);
      pack_transposed(panels, call.weight_hr, layout.P, layout.H, part(panels.count, threads, thread),
                      scratch.weight_hr);
    }
    fill_zeros(scratch.zeros, units);
    for (int64_t u = units.first; u < units.last; ++u)
      for (int gate = 0; gate < 4; ++gate) {
        const int64_t at = gate * layout.H + u * kLanes<Real>;
        Real* to = scratch.bias + (u * 4 + gate) * kLanes<Real>;
        Vec<Real> bias = {};
        if (call.bias_ih)
          bias = load_first(call.bias_ih + at, layout.units_in(u)) + load_first(call.bias_hh + at, layout.units_in(u));
        store(to, bias);
      }
  }

  static int64_t panel_at(int64_t u, int64_t width) { return u * 4 * kLanes<Real> * width; }

  // The packed weights of a vector of units. A single step reads each of them once: they are packed just before, into
  // memory that stays in the cache (that of the first of the thread's units).
  const Real* panel(const Real* weights, int64_t width, Range units, int64_t u, Real* packed) const {
    if (!single) return packed + panel_at(u, width);
    pack_gates(weights, width, layout, {u, u + 1}, packed + panel_at(units.first, width));
    return packed + panel_at(units.first, width);
  }

  // The input's part of (1.1) for the steps of a chunk: it needs no h, so all of them are one product.
  void project_input(Range chunk, Range rows, Range units) const {
    const Real* from[kMostRows];
    Real* to[kMostRows];
    int64_t count = 0;
    for (int64_t t = chunk.first; t < chunk.last; ++t)
      for (int64_t b = rows.first; b < steps.active_of(rows, t).last; ++b, ++count) {
        from[count] = x(t, b);
        to[count] = gates(t, chunk.first, b);
      }
    for (int64_t u = units.first; u < units.last; ++u) {
      const Real* weights = panel(call.weight_ih, layout.I, units, u, scratch.weight_ih);
      const int64_t at = u * 4 * kLanes<Real>;
      int64_t k = 0;
      do {
        const int64_t depth = smaller(kBlock<Real>, layout.I - k);
        const Real* block = weights + k * 4 * kLanes<Real>;
        panel_product<Real, 4>(
            count, from, k, 1, block, depth, block + depth * 4 * kLanes<Real>,
            [&](int64_t row, Vec<Real>(&sum)[4]) {
              const Real* start = k == 0 ? scratch.bias + at : to[row] + at;
              for (int n = 0; n < 4; ++n) sum[n] = load(start + n * kLanes<Real>);
            },
            [&]<int M>(int64_t row, const Vec<Real>(&sum)[M][4]) {
              for (int m = 0; m < M; ++m)
                for (int n = 0; n < 4; ++n) store(to[row + m] + at + n * kLanes<Real>, sum[m][n]);
            });
        k += depth;
      } while (k < layout.I);
    }
  }

  // The hidden state's part of (1.1), then the step, before anything but the gates is stored.
  void advance(int64_t t, int64_t chunk, Range rows, Range units) const {
    const Real *from[kMostStepRows], *c_from[kMostStepRows];
    Real *a[kMostStepRows], *c_to[kMostStepRows], *h_to[kMostStepRows];
    const int64_t count = rows.last - rows.first;
    for (int64_t row = 0; row < count; ++row) {
      const int64_t b = rows.first + row;
      from[row] = h_before(t, b);
      c_from[row] = c_before(t, b);
      a[row] = gates(t, chunk, b);
      c_to[row] = c(t + 1, b);
      h_to[row] = layout.projected ? unprojected(t, b) : h(t, b);
    }
    for (int64_t u = units.first; u < units.last; ++u) {
      const Real* weights = panel(call.weight_hh, layout.P, units, u, scratch.weight_hh);
      const int64_t at = u * 4 * kLanes<Real>, unit = u * kLanes<Real>;
      const auto first = [&](int64_t row, Vec<Real>(&sum)[4]) {
        for (int n = 0; n < 4; ++n) sum[n] = load(a[row] + at + n * kLanes<Real>);
      };
      // After the last unit's weights the next step begins with the first unit's.
      const Real* next = scratch.weight_hh + panel_at(u + 1 < units.last ? u + 1 : units.first, layout.P);
      int64_t k = 0;
      for (; layout.P - k > kBlock<Real>; k += kBlock<Real>) {
        const Real* block = weights + k * 4 * kLanes<Real>;
        panel_product<Real, 4>(count, from, k, 1, block, kBlock<Real>, block + kBlock<Real> * 4 * kLanes<Real>, first,
                               [&]<int M>(int64_t row, const Vec<Real>(&sum)[M][4]) {
                                 for (int m = 0; m < M; ++m)
                                   for (int n = 0; n < 4; ++n) store(a[row + m] + at + n * kLanes<Real>, sum[m][n]);
                               });
      }
      panel_product<Real, 4>(count, from, k, 1, weights + k * 4 * kLanes<Real>, layout.P - k, next, first,
                             [&]<int M>(int64_t row, const Vec<Real>(&sum)[M][4]) {
                               Gates<Real> gate[M];
                               Vec<Real> c_prev[M], c_next[M], h_next[M];
                               for (int m = 0; m < M; ++m) {
                                 gate[m] = {sum[m][0], sum[m][1], sum[m][2], sum[m][3]};
                                 c_prev[m] = load(c_from[row + m] + unit);
                               }
                               step<Real, M>(gate, c_prev, c_next, h_next);
                               for (int m = 0; m < M; ++m) {
                                 if (call.training) store_gates<Real>(a[row + m] + at, gate[m]);
                                 store(c_to[row + m] + unit, c_next[m]);
                                 // What the padding adds is zero, and its own array has room for it.
                                 store_first(h_to[row + m] + unit, h_next[m],
                                             layout.projected ? kLanes<Real> : layout.units_in(u));
                               }
                             });
    }
  }

  // (1.17)
  void project(int64_t t, Range rows, Range which) const {
    const Real* from[kMostStepRows];
    Real* to[kMostStepRows];
    const int64_t count = rows.last - rows.first;
    for (int64_t row = 0; row < count; ++row) {
      from[row] = unprojected(t, rows.first + row);
      to[row] = h(t, rows.first + row);
    }
    const Panels panels(layout.P, kLanes<Real>);
    for (int64_t p = which.first; p < which.last; ++p)
      with_width(panels.vectors(p), [&](auto width) {
        constexpr int N = decltype(width)::value;
        const int64_t column = p * kPanelVectors * kLanes<Real>;
        for (int64_t k = 0; k < layout.H; k += kBackwardBlock<Real>) {
          const int64_t depth = smaller(kBackwardBlock<Real>, layout.H - k);
          const Real* block = scratch.weight_hr + column * layout.H + k * N * kLanes<Real>;
          panel_product<Real, N>(
              count, from, k, 1, block, depth, block + depth * N * kLanes<Real>,
              [&](int64_t row, Vec<Real>(&sum)[N]) {
                for (int n = 0; n < N; ++n) {
                  const int64_t at = column + n * kLanes<Real>;
                  sum[n] = k > 0 ? load_first(to[row] + at, layout.P - at) : Vec<Real>{};
                }
              },
              [&]<int M>(int64_t row, const Vec<Real>(&sum)[M][N]) {
                for (int m = 0; m < M; ++m)
                  for (int n = 0; n < N; ++n) {
                    const int64_t at = column + n * kLanes<Real>;
                    store_first(to[row + m] + at, sum[m][n], layout.P - at);
                  }
              });
        }
      });
  }

  void run(const Region& region, bool meet) const {
    for (const Range rows : RowBlocks{region.rows, kMostStepRows}) {
      const auto for_units = [&](const auto& body) {
        for (int64_t b = rows.first; b < rows.last; ++b)
          for (int64_t u = region.units.first; u < region.units.last; ++u)
            body(b, u * kLanes<Real>, steps.row_of(b) * layout.H + u * kLanes<Real>, layout.units_in(u));
      };
      for_units([&](int64_t b, int64_t unit, int64_t at, int64_t n) {
        store(c(0, b) + unit, call.c_0 ? load_first(call.c_0 + at, n) : Vec<Real>{});
      });
      for (int64_t chunk = 0; chunk < layout.T; chunk += layout.chunk_steps) {
        const Range of_chunk = {chunk, smaller(chunk + layout.chunk_steps, layout.T)};
        project_input(of_chunk, rows, region.units);
        for (int64_t t = of_chunk.first; t < of_chunk.last; ++t) {
          advance(t, chunk, steps.active_of(rows, t), region.units);
          if (meet) barrier();
          if (layout.projected) {
            project(t, steps.active_of(rows, t), region.h);
            if (meet) barrier();
          }
        }
      }
      for_units([&](int64_t b, int64_t unit, int64_t at, int64_t n) {
        store_first(call.c_n + at, load(c(steps.length_of(b), b) + unit), n);
      });
      const Panels panels(layout.P, kLanes<Real>);
      const int64_t first = panels.first(region.h.first) * kLanes<Real>;
      const int64_t last = smaller(panels.first(region.h.last) * kLanes<Real>, layout.P);
      for (int64_t b = rows.first; b < rows.last; ++b) {
        const int64_t length = steps.length_of(b);
        const Real* last_h = length > 0 ? h(length - 1, b) : initial_h(b);
        if (first < last)
          std::memcpy(call.h_n + steps.row_of(b) * layout.P + first, last_h + first, (last - first) * sizeof(Real));
      }
    }
  }
};

template <class Real>
void forward(const ForwardCall<Real>& call) {
  const Layout<Real> layout(call.sizes);
  in_parallel(useful_threads(layout, call.sizes.threads), [&](int thread, int threads) {
    const Split split = split_between(threads, layout);
    const Forward<Real> f{call, layout, Steps(call.walk, call.sizes), ForwardScratch<Real>(layout, call.scratch),
                          layout.T == 1 && split.row_parts == 1};
    f.pack(thread, threads);
    barrier();
    f.run(region_of(split, f.steps, layout.units, Panels(layout.P, kLanes<Real>).count, thread), split.unit_parts > 1);
  });
}

// ----------------------------------------------------------------------------------------------- backward

template <class Real>
struct Backward {
  const BackwardCall<Real>& call;
  const Layout<Real> layout;
  const Steps steps;
  const BackwardScratch<Real> scratch;

  const Real* x(int64_t t, int64_t b) const { return call.x + steps.place(t, b, call.x_step, call.x_row); }
  // Null where it is zero.
  const Real* h_before(int64_t t, int64_t b) const {
    if (steps.is_reset(t, b)) return nullptr;
    if (t > 0) return call.h + steps.place(t - 1, b, call.h_step, call.h_row);
    return call.h_0 ? call.h_0 + steps.row_of(b) * layout.P : nullptr;
  }
  const Real* c(int64_t t, int64_t b) const {
    return call.cells + (t > 0 ? layout.B + steps.before_step(t - 1) + b : b) * layout.padded;
  }
  const Real* c_before(int64_t t, int64_t b) const { return steps.is_reset(t, b) ? scratch.zeros : c(t, b); }
  int64_t gates_at(int64_t t, int64_t b) const { return (steps.before_step(t) + b) * layout.gates_row; }
  const Real* gates(int64_t t, int64_t b) const { return call.gates + gates_at(t, b); }
  Real* d_a(int64_t t, int64_t b) const { return call.d_a + gates_at(t, b); }
  Real* d_x(int64_t t, int64_t b) const { return call.d_x + steps.place(t, b, call.d_x_step, call.d_x_row); }
  const Real* d_h(int64_t t, int64_t b) const { return call.d_h + steps.place(t, b, call.d_h_step, call.d_h_row); }
  // Where h is projected: what is projected, and all of d_h.
  const Real* unprojected(int64_t t, int64_t b) const {
    return call.unprojected + (steps.before_step(t) + b) * layout.padded;
  }
  Real* whole_d_h(int64_t t, int64_t b) const { return scratch.d_h_all + (steps.before_step(t) + b) * layout.padded_h; }

  void pack(int thread, int threads) const {
    const auto gate_rows = [&](const Real* weights, int64_t width) {
      return [this, weights, width, m = int64_t{0}]() mutable -> const Real* {
        const int64_t row = layout.torch_row(m++);
        return row < 0 ? nullptr : weights + row * width;
      };
    };
    const Panels of_h(layout.P, kLanes<Real>), input(layout.I, kLanes<Real>), hidden(layout.H, kLanes<Real>);
    fill_zeros(scratch.zeros, part(4 * layout.units, threads, thread));
    if (layout.T > 1 || call.d_h_0)
      pack_panels<Real>(of_h, layout.P, part(of_h.count, threads, thread), layout.gates,
                        gate_rows(call.weight_hh, layout.P), scratch.weight_hh);
    if (layout.projected)
      pack_panels<Real>(
          hidden, layout.H, part(hidden.count, threads, thread), layout.P,
          [row = call.weight_hr, H = layout.H]() mutable {
            const Real* from = row;
            row += H;
            return from;
          },
          scratch.weight_hr);
    if (call.d_x)
      pack_panels<Real>(input, layout.I, part(input.count, threads, thread), layout.gates,
                        gate_rows(call.weight_ih, layout.I), scratch.weight_ih);
  }

  // d_h of (2.1) for the units of a panel: what the output and, by way of d_a of step t + 1, the next step send back.
  // `take(b, u, d_h)` gets it for rows b, b + 1, … and the vectors of units u, u + 1, …; `next` is t + 1.
  template <int N, class First, class Done>
  GATEWISE_INLINE void hidden_gradient(int64_t next, Range rows, int64_t panel, const First& first_d_h,
                                       const Done& take) const {
    const Real* from[kMostStepRows];
    const int64_t count = rows.last - rows.first, still_active = steps.active_at(next);
    const int64_t depth = still_active > rows.first ? layout.gates : 0;
    for (int64_t b = rows.first; b < rows.last; ++b)
      from[b - rows.first] = b < still_active && !steps.is_reset(next, b) ? d_a(next, b) : scratch.zeros;
    const int64_t u = panel * kPanelVectors;
    const Real* weights = scratch.weight_hh + u * kLanes<Real> * layout.gates;
    const auto partial = [&](int64_t row) {
      return scratch.d_h + (rows.first + row) * layout.padded + u * kLanes<Real>;
    };
    int64_t k = 0;
    const auto first = [&](int64_t row, Vec<Real>(&sum)[N]) {
      for (int n = 0; n < N; ++n)
        sum[n] = k == 0 ? first_d_h(rows.first + row, u + n) : load(partial(row) + n * kLanes<Real>);
    };
    for (; depth - k > kBackwardBlock<Real>; k += kBackwardBlock<Real>) {
      const Real* block = weights + k * N * kLanes<Real>;
      panel_product<Real, N>(count, from, k, 1, block, kBackwardBlock<Real>,
                             block + kBackwardBlock<Real> * N * kLanes<Real>, first,
                             [&]<int M>(int64_t row, const Vec<Real>(&sum)[M][N]) {
                               for (int m = 0; m < M; ++m)
                                 for (int n = 0; n < N; ++n) store(partial(row + m) + n * kLanes<Real>, sum[m][n]);
                             });
    }
    panel_product<Real, N>(count, from, k, 1, weights + k * N * kLanes<Real>, depth - k,
                           weights + layout.gates * N * kLanes<Real>, first,
                           [&]<int M>(int64_t row, const Vec<Real>(&sum)[M][N]) { take(rows.first + row, u, sum); });
  }

  Vec<Real> final_d_h(int64_t b, int64_t u) const {
    const int64_t at = u * kLanes<Real>;
    return call.d_h_n ? load_first(call.d_h_n + steps.row_of(b) * layout.P + at, layout.P - at) : Vec<Real>{};
  }

  // (2.2) to (2.11) for rows b, b + 1, … and vectors of units u, u + 1, … of step t.
  template <int M, int N>
  GATEWISE_INLINE void cell_backward(int64_t t, int64_t first_b, int64_t first_u, const Vec<Real> (&d_h)[M][N]) const {
    Vec<Real> tanh_c[N][M];
    for (int n = 0; n < N; ++n) {
      each<M>([&](int m) { tanh_c[n][m] = load(c(t + 1, first_b + m) + (first_u + n) * kLanes<Real>); });
      tanh<Real, M>(tanh_c[n]);
    }
#pragma GCC unroll 1
    for (int m = 0; m < M; ++m)
#pragma GCC unroll 1
      for (int n = 0; n < N; ++n) {
        const int64_t b = first_b + m, unit = (first_u + n) * kLanes<Real>;
        Real* d_c = scratch.d_c + b * layout.padded + unit;
        Gates<Real> gate = load_gates(gates(t, b) + 4 * unit);
        const Vec<Real> d_c_prev =
            step_backward<Real>(gate, load(c_before(t, b) + unit), tanh_c[n][m], d_h[m][n], load(d_c));
        store(d_c, steps.is_reset(t, b) ? Vec<Real>{} : d_c_prev);
        // Infinity times a weight of the padding is not a number, and must not reach the other units.
        const int64_t units = layout.units_in(first_u + n);
        store_gates<Real>(d_a(t, b) + 4 * unit, units < kLanes<Real> ? keep_first<Real>(gate, units) : gate);
      }
  }

  // d_h of step t for a panel of h. Where h is its own, the step's gradient follows at once.
  template <int N>
  void retreat(int64_t t, Range rows, int64_t panel) const {
    hidden_gradient<N>(
        t + 1, rows, panel,
        [&](int64_t b, int64_t u) {
          Vec<Real> d_h = {};
          if (call.d_h) d_h = load_first(this->d_h(t, b) + u * kLanes<Real>, layout.P - u * kLanes<Real>);
          return t == steps.length_of(b) - 1 ? d_h + final_d_h(b, u) : d_h;
        },
        [&]<int M>(int64_t b, int64_t u, const Vec<Real>(&d_h)[M][N]) {
          if (!layout.projected) return cell_backward<M, N>(t, b, u, d_h);
          for (int m = 0; m < M; ++m)
            for (int n = 0; n < N; ++n) store(whole_d_h(t, b + m) + (u + n) * kLanes<Real>, d_h[m][n]);
        });
  }

  // The gradient of what is projected (2.13), for the units of a panel, and the step's.
  template <int N>
  void unproject(int64_t t, Range rows, int64_t panel) const {
    const Real* from[kMostStepRows];
    for (int64_t b = rows.first; b < rows.last; ++b) from[b - rows.first] = whole_d_h(t, b);
    const int64_t u = panel * kPanelVectors;
    const Real* weights = scratch.weight_hr + u * kLanes<Real> * layout.P;
    panel_product<Real, N>(
        rows.last - rows.first, from, 0, 1, weights, layout.P, weights + layout.P * N * kLanes<Real>,
        [](int64_t, Vec<Real>(&sum)[N]) {
          for (int n = 0; n < N; ++n) sum[n] = Vec<Real>{};
        },
        [&]<int M>(int64_t row, const Vec<Real>(&d_h)[M][N]) { cell_backward<M, N>(t, rows.first + row, u, d_h); });
  }

  // (3.6)
  template <int N>
  void initial_hidden_gradient(Range rows, int64_t panel) const {
    hidden_gradient<N>(
        0, rows, panel,
        [&](int64_t b, int64_t u) { return steps.length_of(b) == 0 ? final_d_h(b, u) : Vec<Real>{}; },
        [&]<int M>(int64_t b, int64_t u, const Vec<Real>(&d_h)[M][N]) {
          for (int m = 0; m < M; ++m)
            for (int n = 0; n < N; ++n)
              store_first(call.d_h_0 + steps.row_of(b + m) * layout.P + (u + n) * kLanes<Real>, d_h[m][n],
                          layout.P - (u + n) * kLanes<Real>);
        });
  }

  void run(const Region& region, bool meet) const {
    const Panels panels(layout.H, kLanes<Real>), of_h(layout.P, kLanes<Real>);
    for (const Range rows : RowBlocks{region.rows, kMostStepRows}) {
      const auto for_units = [&](const auto& body) {
        for (int64_t b = rows.first; b < rows.last; ++b)
          for (int64_t u = panels.first(region.units.first); u < panels.first(region.units.last); ++u)
            body(steps.row_of(b) * layout.H + u * kLanes<Real>, scratch.d_c + b * layout.padded + u * kLanes<Real>,
                 layout.units_in(u));
      };
      for_units([&](int64_t at, Real* d_c, int64_t n) {
        store(d_c, call.d_c_n ? load_first(call.d_c_n + at, n) : Vec<Real>{});
      });
      for (int64_t t = layout.T - 1; t >= 0; --t) {
        const Range active = steps.active_of(rows, t);
        for (int64_t p = region.h.first; p < region.h.last; ++p)
          with_width(of_h.vectors(p), [&](auto n) { retreat<decltype(n)::value>(t, active, p); });
        if (meet) barrier();
        if (layout.projected) {
          for (int64_t p = region.units.first; p < region.units.last; ++p)
            with_width(panels.vectors(p), [&](auto n) { unproject<decltype(n)::value>(t, active, p); });
          if (meet) barrier();
        }
      }
      if (call.d_h_0)
        for (int64_t p = region.h.first; p < region.h.last; ++p)
          with_width(of_h.vectors(p), [&](auto n) { initial_hidden_gradient<decltype(n)::value>(rows, p); });
      if (call.d_c_0)
        for_units([&](int64_t at, Real* d_c, int64_t n) { store_first(call.d_c_0 + at, load(d_c), n); });  // (3.7)
    }
  }

  // (3.2) for some steps of some rows, and some panels of the input.
  void input_gradient(Range times, Range rows, Range panels) const {
    const Real* from[kMostStepRows];
    Real* to[kMostStepRows];
    int64_t count = 0;
    for (int64_t t = times.first; t < times.last; ++t)
      for (int64_t b = rows.first; b < steps.active_of(rows, t).last; ++b) {
        from[count] = d_a(t, b);
        to[count] = d_x(t, b);
        if (++count == kMostStepRows) {
          input_gradient_of(count, from, to, panels);
          count = 0;
        }
      }
    input_gradient_of(count, from, to, panels);
  }

  void input_gradient_of(int64_t count, const Real* const* from, Real* const* to, Range panels) const {
    const Panels input(layout.I, kLanes<Real>);
    for (int64_t k = 0; k < layout.gates; k += kBackwardBlock<Real>)
      for (int64_t p = panels.first; p < panels.last; ++p)
        with_width(input.vectors(p), [&](auto width) {
          constexpr int N = decltype(width)::value;
          const int64_t column = p * kPanelVectors * kLanes<Real>;
          const Real* block = scratch.weight_ih + column * layout.gates + k * N * kLanes<Real>;
          panel_product<Real, N>(
              count, from, k, 1, block, smaller(kBackwardBlock<Real>, layout.gates - k),
              block + layout.gates * N * kLanes<Real>,
              [&](int64_t row, Vec<Real>(&sum)[N]) {
                for (int n = 0; n < N; ++n)
                  sum[n] = k > 0 || call.add_to_d_x
                               ? load_first(to[row] + column + n * kLanes<Real>, layout.I - column - n * kLanes<Real>)
                               : Vec<Real>{};
              },
              [&]<int M>(int64_t row, const Vec<Real>(&sum)[M][N]) {
                for (int m = 0; m < M; ++m)
                  for (int n = 0; n < N; ++n)
                    store_first(to[row + m] + column + n * kLanes<Real>, sum[m][n],
                                layout.I - column - n * kLanes<Real>);
              });
        });
  }

  // Some rows of a gradient of weights: which they are (-1: none, padding), and where the numbers of a block of steps
  // stand whose products with what was read make them: that of step k at `at[row][k * step]`.
  struct WeightRows {
    int64_t count, step;
    int64_t row[kMostStepRows];
    const Real* at[kMostStepRows];
  };

  // From row to row of d_a is a large stride: where it comes to half a page or more, a copy in the order in which the
  // products read pays for itself.
  WeightRows gate_rows_of(const Real* d_a, int64_t depth, Range m) const {
    WeightRows rows;
    rows.count = m.last - m.first;
    for (int64_t r = 0; r < rows.count; ++r) rows.row[r] = layout.torch_row(m.first + r);
    if (layout.gates_row * sizeof(Real) < 2048) {
      rows.step = layout.gates_row;
      for (int64_t r = 0; r < rows.count; ++r) rows.at[r] = d_a + m.first + r;
      return rows;
    }
    constexpr int64_t lanes = kLanes<Real>;
    rows.step = lanes;
    Real* to = scratch.columns + m.first * depth;
    for (int64_t k = 0; k < depth; ++k)
      for (int64_t r = 0; r < rows.count; r += lanes)
        store(to + r * depth + k * lanes, load(d_a + k * layout.gates_row + m.first + r));
    for (int64_t r = 0; r < rows.count; ++r) rows.at[r] = to + r / lanes * lanes * depth + r % lanes;
    return rows;
  }

  WeightRows projection_rows_of(const Real* d_h, Range p) const {
    WeightRows rows;
    rows.count = p.last - p.first;
    rows.step = layout.padded_h;
    for (int64_t r = 0; r < rows.count; ++r) {
      rows.row[r] = p.first + r < layout.P ? p.first + r : -1;
      rows.at[r] = d_h + p.first + r;
    }
    return rows;
  }

  // One block of (3.3), (3.4) or (3.10): rows of d_weight += their products with the packed rows.
  void weight_gradient(const WeightRows& rows, int64_t depth, int64_t width, const Real* packed, Real* d_weight,
                       bool add) const {
    const Panels panels(width, kLanes<Real>);
    Real* to[kMostStepRows];
    for (int64_t r = 0; r < rows.count; ++r) to[r] = rows.row[r] < 0 ? nullptr : d_weight + rows.row[r] * width;
    for (int64_t p = 0; p < panels.count; ++p)
      with_width(panels.vectors(p), [&](auto n_vectors) {
        constexpr int N = decltype(n_vectors)::value;
        const int64_t column = p * kPanelVectors * kLanes<Real>;
        panel_product<Real, N>(
            rows.count, rows.at, 0, rows.step, packed + column * depth, depth,
            packed + (column + N * kLanes<Real>) * depth,
            [&](int64_t row, Vec<Real>(&sum)[N]) {
              for (int n = 0; n < N; ++n) sum[n] = Vec<Real>{};
              if (add && to[row]) __builtin_prefetch(to[row] + column);
            },
            [&]<int M>(int64_t row, const Vec<Real>(&sum)[M][N]) {
              for (int m = 0; m < M; ++m)
                for (int n = 0; n < N && to[row + m]; ++n) {
                  const int64_t at = column + n * kLanes<Real>, rest = width - at;
                  const Vec<Real> before = add ? load_first(to[row + m] + at, rest) : Vec<Real>{};
                  store_first(to[row + m] + at, before + sum[m][n], rest);
                }
            });
      });
  }

  // (3.5)
  void bias_gradient(const Real* d_a, int64_t depth, Range m, bool add) const {
    for (int64_t at = m.first; at < m.last; at += kLanes<Real>) {
      const int64_t row = layout.torch_row(at), n = layout.units_in(at / (4 * kLanes<Real>));
      Vec<Real> sum = add ? load_first(call.d_bias + row, n) : Vec<Real>{};
      for (int64_t r = 0; r < depth; ++r) sum += load(d_a + r * layout.gates_row + at);
      store_first(call.d_bias + row, sum, n);
    }
  }

  // (3.3), (3.4), (3.5), (3.10), a chunk of steps of all rows after another; threads share the gates, and the rows of
  // weight_hr.
  void parameter_gradients(int thread, int threads) const {
    const Panels input(layout.I, kLanes<Real>), of_h(layout.P, kLanes<Real>), hidden(layout.H, kLanes<Real>);
    const Range vectors = part(layout.gates / kLanes<Real>, threads, thread);
    const Range projected = part(layout.padded_h / kLanes<Real>, threads, thread);
    const Range m = {vectors.first * kLanes<Real>, vectors.last * kLanes<Real>};
    for (int64_t first = 0; first < larger(1, layout.steps); first += kGradientRows) {
      const int64_t depth = smaller(kGradientRows, layout.steps - first);
      const auto pack = [&](const Panels& panels, int64_t columns, const auto& row, Real* packed) {
        Cursor at(steps, first);
        pack_panels<Real>(
            panels, columns, part(panels.count, threads, thread), depth,
            [&] {
              const Real* from = row(at.t, at.b);
              at.next();
              return from;
            },
            packed);
      };
      if (call.d_weight_ih) pack(input, layout.I, [&](int64_t t, int64_t b) { return x(t, b); }, scratch.rows_ih);
      if (call.d_weight_hh)
        pack(of_h, layout.P, [&](int64_t t, int64_t b) { return h_before(t, b); }, scratch.rows_hh);
      if (call.d_weight_hr)
        pack(hidden, layout.H, [&](int64_t t, int64_t b) { return unprojected(t, b); }, scratch.rows_hr);
      barrier();
      const Real* d_a = call.d_a + first * layout.gates_row;
      for (const Range some : RowBlocks{vectors, kMostStepRows / kLanes<Real>}) {
        const WeightRows rows = gate_rows_of(d_a, depth, {some.first * kLanes<Real>, some.last * kLanes<Real>});
        if (call.d_weight_ih) weight_gradient(rows, depth, layout.I, scratch.rows_ih, call.d_weight_ih, first > 0);
        if (call.d_weight_hh) weight_gradient(rows, depth, layout.P, scratch.rows_hh, call.d_weight_hh, first > 0);
      }
      if (call.d_weight_hr)
        for (const Range some : RowBlocks{projected, kMostStepRows / kLanes<Real>}) {
          const Range p = {some.first * kLanes<Real>, some.last * kLanes<Real>};
          weight_gradient(projection_rows_of(scratch.d_h_all + first * layout.padded_h, p), depth, layout.H,
                          scratch.rows_hr, call.d_weight_hr, first > 0);
        }
      if (call.d_bias) bias_gradient(d_a, depth, m, first > 0);
      barrier();
    }
  }
};

template <class Real>
void backward(const BackwardCall<Real>& call) {
  const Layout<Real> layout(call.sizes);
  const Backward<Real> b{call, layout, Steps(call.walk, call.sizes), BackwardScratch<Real>(layout, call.scratch)};
  in_parallel(useful_threads(layout, call.sizes.threads), [&](int thread, int threads) {
    const Split split = split_between(threads, layout);
    b.pack(thread, threads);
    barrier();
    const Region region = region_of(split, b.steps, Panels(layout.H, kLanes<Real>).count,
                                    Panels(layout.P, kLanes<Real>).count, thread);
    b.run(region, split.unit_parts > 1);
    // By rows a thread has all gates of its own rows, still in its cache; by units it needs the others' of its steps,
    // or of its part of the input if there is but one step.
    const int64_t panels = Panels(layout.I, kLanes<Real>).count;
    // (By units they have met after each step; by rows they meet again before a thread reads what is another's.)
    if (call.d_x) {
      if (split.unit_parts == 1) b.input_gradient({0, layout.T}, region.rows, {0, panels});
      else if (layout.T == 1) b.input_gradient({0, 1}, {0, layout.B}, part(panels, threads, thread));
      else b.input_gradient(b.steps.part_of_time(threads, thread), {0, layout.B}, {0, panels});
    }
    if (call.d_weight_ih || call.d_weight_hh || call.d_bias || call.d_weight_hr) b.parameter_gradients(thread, threads);
  });
}

// --------------------------------------------------------------------------------------------------------

template <class Real>
Plan plan(const Sizes& sizes, bool training) {
  const Layout<Real> layout(sizes);
  const int64_t chunk = smaller(layout.chunk_steps * layout.B, layout.steps);
  return {
      .gates = (training ? layout.steps : chunk) * layout.gates_row,
      .cells = (layout.B + (training ? layout.steps : 0)) * layout.padded,
      .unprojected = layout.projected ? (training ? layout.steps : layout.B) * layout.padded : 0,
      .forward_scratch = ForwardScratch<Real>(layout, nullptr).size,
      .backward_scratch = BackwardScratch<Real>(layout, nullptr).size,
  };
}

template <class Real, void (*function)(Vec<Real> (&)[1])>
void map(const Real* x, Real* y, int64_t n) {
  for (int64_t j = 0; j < n; j += kLanes<Real>) {
    Vec<Real> v[] = {load_first(x + j, n - j)};
    function(v);
    store_first(y + j, v[0], n - j);
  }
}

bool supported() {
#if defined(__AVX512F__)
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
         __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("fma");
#elif defined(__AVX2__)
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#else
  return true;
#endif
}

}  // namespace

#define GATEWISE_STRING_(x) #x
#define GATEWISE_STRING(x) GATEWISE_STRING_(x)

extern const Kernels table;
const Kernels table = {GATEWISE_STRING(GATEWISE_ISA),
                       supported,
                       plan<float>,
                       plan<double>,
                       forward<float>,
                       forward<double>,
                       backward<float>,
                       backward<double>,
                       map<float, sigmoid<float, 1>>,
                       map<double, sigmoid<double, 1>>,
                       map<float, tanh<float, 1>>,
                       map<double, tanh<double, 1>>};

}  // namespace gatewise::GATEWISE_ISA
