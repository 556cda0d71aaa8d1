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

// A thread's rows and vectors of hidden units.
struct Region {
  Range rows, units;
};

Region region_of(const Split& split, int64_t B, int64_t units, int thread) {
  return {part(B, split.row_parts, thread / split.unit_parts), part(units, split.unit_parts, thread % split.unit_parts)};
}

// ------------------------------------------------------------------------------------------------ forward

template <class Real>
struct Forward {
  const ForwardCall<Real>& call;
  const Layout<Real> layout;
  const ForwardScratch<Real> scratch;

  const Real* x(int64_t t, int64_t b) const { return call.x + t * call.x_step + b * call.x_row; }
  Real* h(int64_t t, int64_t b) const { return call.h + t * call.h_step + b * call.h_row; }
  const Real* h_before(int64_t t, int64_t b) const {
    if (t > 0) return h(t - 1, b);
    return call.h_0 ? call.h_0 + b * layout.H : scratch.zeros;
  }
  // The cells of a row before step t; inference keeps one slot for all of time.
  Real* c_before(int64_t t, int64_t b) const {
    return call.cells + ((call.training ? t * layout.B : 0) + b) * layout.padded;
  }
  // The gates of a row; inference keeps those of the current chunk of steps.
  Real* gates(int64_t t, int64_t chunk, int64_t b) const {
    return call.gates + ((call.training ? t : t - chunk) * layout.B + b) * layout.gates_row;
  }

  void pack(int thread, int threads) const {
    const Range units = part(layout.units, threads, thread);
    pack_gates(call.weight_ih, layout.I, layout, units, scratch.weight_ih);
    pack_gates(call.weight_hh, layout.H, layout, units, scratch.weight_hh);
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

  // The input's part of (1.1) for the steps of a chunk: it needs no h, so all of them are one product.
  void project_input(Range steps, Range rows, Range units) const {
    const Real* from[kMostRows];
    Real* to[kMostRows];
    int64_t count = 0;
    for (int64_t t = steps.first; t < steps.last; ++t)
      for (int64_t b = rows.first; b < rows.last; ++b, ++count) {
        from[count] = x(t, b);
        to[count] = gates(t, steps.first, b);
      }
    for (int64_t u = units.first; u < units.last; ++u) {
      const Real* weights = scratch.weight_ih + u * 4 * kLanes<Real> * layout.I;
      const int64_t at = u * 4 * kLanes<Real>;
      int64_t k = 0;
      do {
        const int64_t depth = smaller(kBlock<Real>, layout.I - k);
        panel_product<Real, 4>(
            count, from, k, 1, weights + k * 4 * kLanes<Real>, depth,
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
    const Real* from[kMostRows];
    Real* a[kMostRows];
    for (int64_t b = rows.first; b < rows.last; ++b) {
      from[b - rows.first] = h_before(t, b);
      a[b - rows.first] = gates(t, chunk, b);
    }
    const int64_t count = rows.last - rows.first;
    for (int64_t u = units.first; u < units.last; ++u) {
      const Real* weights = scratch.weight_hh + u * 4 * kLanes<Real> * layout.H;
      const int64_t at = u * 4 * kLanes<Real>, unit = u * kLanes<Real>;
      const auto first = [&](int64_t row, Vec<Real>(&sum)[4]) {
        for (int n = 0; n < 4; ++n) sum[n] = load(a[row] + at + n * kLanes<Real>);
      };
      int64_t k = 0;
      for (; layout.H - k > kBlock<Real>; k += kBlock<Real>)
        panel_product<Real, 4>(count, from, k, 1, weights + k * 4 * kLanes<Real>, kBlock<Real>, first,
                               [&]<int M>(int64_t row, const Vec<Real>(&sum)[M][4]) {
                                 for (int m = 0; m < M; ++m)
                                   for (int n = 0; n < 4; ++n) store(a[row + m] + at + n * kLanes<Real>, sum[m][n]);
                               });
      panel_product<Real, 4>(count, from, k, 1, weights + k * 4 * kLanes<Real>, layout.H - k, first,
                             [&]<int M>(int64_t row, const Vec<Real>(&sum)[M][4]) {
                               const int64_t b = rows.first + row;
                               Gates<Real> gate[M];
                               Vec<Real> c_prev[M], c[M], next_h[M];
                               for (int m = 0; m < M; ++m) {
                                 gate[m] = {sum[m][0], sum[m][1], sum[m][2], sum[m][3]};
                                 c_prev[m] = load(c_before(t, b + m) + unit);
                               }
                               step<Real, M>(gate, c_prev, c, next_h);
                               for (int m = 0; m < M; ++m) {
                                 if (call.training) store_gates<Real>(a[row + m] + at, gate[m]);
                                 store(c_before(t + 1, b + m) + unit, c[m]);
                                 store_first(h(t, b + m) + unit, next_h[m], layout.units_in(u));
                               }
                             });
    }
  }

  void run(const Region& region, bool meet) const {
    for (const Range rows : RowBlocks{region.rows, kMostStepRows}) {
      for (int64_t b = rows.first; b < rows.last; ++b)
        for (int64_t u = region.units.first; u < region.units.last; ++u)
          store(c_before(0, b) + u * kLanes<Real>,
                call.c_0 ? load_first(call.c_0 + b * layout.H + u * kLanes<Real>, layout.units_in(u)) : Vec<Real>{});
      for (int64_t chunk = 0; chunk < layout.T; chunk += layout.chunk_steps) {
        const Range steps = {chunk, smaller(chunk + layout.chunk_steps, layout.T)};
        project_input(steps, rows, region.units);
        for (int64_t t = steps.first; t < steps.last; ++t) {
          advance(t, chunk, rows, region.units);
          if (meet) barrier();
        }
      }
      for (int64_t b = rows.first; b < rows.last; ++b)
        for (int64_t u = region.units.first; u < region.units.last; ++u) {
          const int64_t n = layout.units_in(u), unit = u * kLanes<Real>;
          store_first(call.h_n + b * layout.H + unit, load_first(h(layout.T - 1, b) + unit, n), n);
          store_first(call.c_n + b * layout.H + unit, load(c_before(layout.T, b) + unit), n);
        }
    }
  }
};

template <class Real>
void forward(const ForwardCall<Real>& call) {
  const Layout<Real> layout(call.sizes);
  const Forward<Real> f{call, layout, ForwardScratch<Real>(layout, call.scratch)};
  in_parallel(useful_threads(layout, call.sizes.threads), [&](int thread, int threads) {
    const Split split = split_between(threads, layout);
    f.pack(thread, threads);
    barrier();
    f.run(region_of(split, layout.B, layout.units, thread), split.unit_parts > 1);
  });
}

// ----------------------------------------------------------------------------------------------- backward

template <class Real>
struct Backward {
  const BackwardCall<Real>& call;
  const Layout<Real> layout;
  const BackwardScratch<Real> scratch;

  const Real* x(int64_t t, int64_t b) const { return call.x + t * call.x_step + b * call.x_row; }
  const Real* h_before(int64_t t, int64_t b) const {
    if (t > 0) return call.h + (t - 1) * call.h_step + b * call.h_row;
    return call.h_0 ? call.h_0 + b * layout.H : scratch.zeros;
  }
  const Real* c_before(int64_t t, int64_t b) const { return call.cells + (t * layout.B + b) * layout.padded; }
  const Real* gates(int64_t t, int64_t b) const { return call.gates + (t * layout.B + b) * layout.gates_row; }
  Real* d_a(int64_t t, int64_t b) const { return call.d_a + (t * layout.B + b) * layout.gates_row; }
  Real* d_x(int64_t t, int64_t b) const { return call.d_x + t * call.d_x_step + b * call.d_x_row; }

  void pack(int thread, int threads) const {
    const auto gate_rows = [&](const Real* weights, int64_t width) {
      return [this, weights, width](int64_t m) -> const Real* {
        const int64_t row = layout.torch_row(m);
        return row < 0 ? nullptr : weights + row * width;
      };
    };
    const Panels hidden(layout.H, kLanes<Real>), input(layout.I, kLanes<Real>);
    fill_zeros(scratch.zeros, part(layout.units, threads, thread));
    pack_panels<Real>(hidden, layout.H, part(hidden.count, threads, thread), layout.gates, gate_rows(call.weight_hh, layout.H),
                   scratch.weight_hh);
    if (call.d_x)
      pack_panels<Real>(input, layout.I, part(input.count, threads, thread), layout.gates, gate_rows(call.weight_ih, layout.I),
                     scratch.weight_ih);
  }

  // d_h of (2.1) for the units of a panel: what the output and, by way of d_a of step t + 1, the next step send back.
  // `take(b, u, d_h)` gets it for rows b, b + 1, … and the vectors of units u, u + 1, …; `next` is the step whose d_a is multiplied, T for none.
  template <int N, class First, class Done>
  GATEWISE_INLINE void hidden_gradient(int64_t next, Range rows, int64_t panel, const First& first_d_h,
                                       const Done& take) const {
    const Real* from[kMostRows];
    const int64_t depth = next < layout.T ? layout.gates : 0, count = rows.last - rows.first;
    for (int64_t b = rows.first; b < rows.last; ++b) from[b - rows.first] = d_a(smaller(next, layout.T - 1), b);
    const int64_t u = panel * kPanelVectors;
    const Real* weights = scratch.weight_hh + u * kLanes<Real> * layout.gates;
    const auto partial = [&](int64_t row) { return scratch.d_h + (rows.first + row) * layout.padded + u * kLanes<Real>; };
    int64_t k = 0;
    const auto first = [&](int64_t row, Vec<Real>(&sum)[N]) {
      for (int n = 0; n < N; ++n) sum[n] = k == 0 ? first_d_h(rows.first + row, u + n) : load(partial(row) + n * kLanes<Real>);
    };
    for (; depth - k > kBackwardBlock<Real>; k += kBackwardBlock<Real>)
      panel_product<Real, N>(count, from, k, 1, weights + k * N * kLanes<Real>, kBackwardBlock<Real>, first,
                          [&]<int M>(int64_t row, const Vec<Real>(&sum)[M][N]) {
                            for (int m = 0; m < M; ++m)
                              for (int n = 0; n < N; ++n) store(partial(row + m) + n * kLanes<Real>, sum[m][n]);
                          });
    panel_product<Real, N>(count, from, k, 1, weights + k * N * kLanes<Real>, depth - k, first,
                        [&]<int M>(int64_t row, const Vec<Real>(&sum)[M][N]) { take(rows.first + row, u, sum); });
  }

  // Step t for the units of a panel.
  template <int N>
  void retreat(int64_t t, Range rows, int64_t panel) const {
    hidden_gradient<N>(
        t + 1, rows, panel,
        [&](int64_t b, int64_t u) {
          Vec<Real> d_h = {};
          if (call.d_h) d_h = load_first(call.d_h + t * call.d_h_step + b * call.d_h_row + u * kLanes<Real>, layout.units_in(u));
          if (call.d_h_n && t == layout.T - 1)
            d_h += load_first(call.d_h_n + b * layout.H + u * kLanes<Real>, layout.units_in(u));
          return d_h;
        },
        [&]<int M>(int64_t first_b, int64_t first_u, const Vec<Real>(&d_h)[M][N]) {
          Vec<Real> tanh_c[N][M];
          for (int n = 0; n < N; ++n) {
            each<M>([&](int m) { tanh_c[n][m] = load(c_before(t + 1, first_b + m) + (first_u + n) * kLanes<Real>); });
            tanh<Real, M>(tanh_c[n]);
          }
#pragma GCC unroll 1
          for (int m = 0; m < M; ++m)
#pragma GCC unroll 1
            for (int n = 0; n < N; ++n) {
              const int64_t b = first_b + m, unit = (first_u + n) * kLanes<Real>;
              Real* d_c = scratch.d_c + b * layout.padded + unit;
              Gates<Real> gate = load_gates(gates(t, b) + 4 * unit);
              store(d_c, step_backward<Real>(gate, load(c_before(t, b) + unit), tanh_c[n][m], d_h[m][n], load(d_c)));
              store_gates<Real>(d_a(t, b) + 4 * unit, gate);
            }
        });
  }

  // (3.6)
  template <int N>
  void initial_hidden_gradient(Range rows, int64_t panel) const {
    hidden_gradient<N>(
        0, rows, panel, [](int64_t, int64_t) { return Vec<Real>{}; },
        [&]<int M>(int64_t b, int64_t u, const Vec<Real>(&d_h)[M][N]) {
          for (int m = 0; m < M; ++m)
            for (int n = 0; n < N; ++n)
              store_first(call.d_h_0 + (b + m) * layout.H + (u + n) * kLanes<Real>, d_h[m][n], layout.units_in(u + n));
        });
  }

  void run(const Region& region, bool meet) const {
    const Panels panels(layout.H, kLanes<Real>);
    for (const Range rows : RowBlocks{region.rows, kMostStepRows}) {
      const auto for_units = [&](const auto& body) {
        for (int64_t b = rows.first; b < rows.last; ++b)
          for (int64_t u = region.units.first * kPanelVectors;
               u < smaller(region.units.last * kPanelVectors, layout.units); ++u)
            body(b * layout.H + u * kLanes<Real>, scratch.d_c + b * layout.padded + u * kLanes<Real>, layout.units_in(u));
      };
      for_units([&](int64_t at, Real* d_c, int64_t n) {
        store(d_c, call.d_c_n ? load_first(call.d_c_n + at, n) : Vec<Real>{});
      });
      for (int64_t t = layout.T - 1; t >= 0; --t) {
        for (int64_t p = region.units.first; p < region.units.last; ++p)
          with_width(panels.vectors(p), [&](auto n) { retreat<decltype(n)::value>(t, rows, p); });
        if (meet) barrier();
      }
      if (call.d_h_0)
        for (int64_t p = region.units.first; p < region.units.last; ++p)
          with_width(panels.vectors(p), [&](auto n) { initial_hidden_gradient<decltype(n)::value>(rows, p); });
      if (call.d_c_0)
        for_units([&](int64_t at, Real* d_c, int64_t n) { store_first(call.d_c_0 + at, load(d_c), n); });  // (3.7)
    }
  }

  // (3.2) for some steps of some rows.
  void input_gradient(Range steps, Range rows_of_step) const {
    const Panels panels(layout.I, kLanes<Real>);
    const int64_t width = rows_of_step.last - rows_of_step.first;
    const Real* from[kMostRows];
    Real* to[kMostRows];
    for (const Range rows : RowBlocks{{0, (steps.last - steps.first) * width}, kMostStepRows}) {
      int64_t t = steps.first + rows.first / width, b = rows_of_step.first + rows.first % width;
      for (int64_t r = rows.first; r < rows.last; ++r) {
        from[r - rows.first] = d_a(t, b);
        to[r - rows.first] = d_x(t, b);
        if (++b == rows_of_step.last) b = rows_of_step.first, ++t;
      }
      for (int64_t k = 0; k < layout.gates; k += kBackwardBlock<Real>)
        for (int64_t p = 0; p < panels.count; ++p)
          with_width(panels.vectors(p), [&](auto width) {
            constexpr int N = decltype(width)::value;
            const int64_t column = p * kPanelVectors * kLanes<Real>;
            panel_product<Real, N>(
                rows.last - rows.first, from, k, 1, scratch.weight_ih + column * layout.gates + k * N * kLanes<Real>,
                smaller(kBackwardBlock<Real>, layout.gates - k),
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
  }

  // One block of (3.3) or (3.4): d_weight's rows m (in the order of gates) += d_a' of them times the packed rows.
  void weight_gradient(const Real* d_a, int64_t depth, Range m, int64_t width, const Real* packed, Real* d_weight,
                       bool add) const {
    const Panels panels(width, kLanes<Real>);
    const Real* from[kMostRows];
    Real* to[kMostRows];
    for (const Range rows : RowBlocks{m, kMostStepRows}) {
      for (int64_t r = rows.first; r < rows.last; ++r) {
        const int64_t row = layout.torch_row(r);
        from[r - rows.first] = d_a + r;
        to[r - rows.first] = row < 0 ? nullptr : d_weight + row * width;
      }
      for (int64_t p = 0; p < panels.count; ++p)
        with_width(panels.vectors(p), [&](auto n_vectors) {
          constexpr int N = decltype(n_vectors)::value;
          const int64_t column = p * kPanelVectors * kLanes<Real>;
          panel_product<Real, N>(
              rows.last - rows.first, from, 0, layout.gates_row, packed + column * depth, depth,
              [&](int64_t row, Vec<Real>(&sum)[N]) {
                for (int n = 0; n < N; ++n)
                  sum[n] = add && to[row]
                               ? load_first(to[row] + column + n * kLanes<Real>, width - column - n * kLanes<Real>)
                               : Vec<Real>{};
              },
              [&]<int M>(int64_t row, const Vec<Real>(&sum)[M][N]) {
                for (int m = 0; m < M; ++m)
                  for (int n = 0; n < N && to[row + m]; ++n)
                    store_first(to[row + m] + column + n * kLanes<Real>, sum[m][n],
                                width - column - n * kLanes<Real>);
              });
        });
    }
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

  // (3.3), (3.4), (3.5), a chunk of rows of T * B after another; threads share the gates.
  void parameter_gradients(int thread, int threads) const {
    const Panels input(layout.I, kLanes<Real>), hidden(layout.H, kLanes<Real>);
    const Range vectors = part(layout.gates / kLanes<Real>, threads, thread);
    const Range m = {vectors.first * kLanes<Real>, vectors.last * kLanes<Real>};
    const int64_t all = layout.T * layout.B;
    for (int64_t first = 0; first < all; first += kGradientRows) {
      const int64_t depth = smaller(kGradientRows, all - first);
      if (call.d_weight_ih)
        pack_panels<Real>(input, layout.I, part(input.count, threads, thread), depth,
                       [&](int64_t r) { return x((first + r) / layout.B, (first + r) % layout.B); }, scratch.rows_ih);
      if (call.d_weight_hh)
        pack_panels<Real>(hidden, layout.H, part(hidden.count, threads, thread), depth,
                       [&](int64_t r) { return h_before((first + r) / layout.B, (first + r) % layout.B); },
                       scratch.rows_hh);
      barrier();
      const Real* d_a = call.d_a + first * layout.gates_row;
      if (call.d_weight_ih) weight_gradient(d_a, depth, m, layout.I, scratch.rows_ih, call.d_weight_ih, first > 0);
      if (call.d_weight_hh) weight_gradient(d_a, depth, m, layout.H, scratch.rows_hh, call.d_weight_hh, first > 0);
      if (call.d_bias) bias_gradient(d_a, depth, m, first > 0);
      barrier();
    }
  }
};

template <class Real>
void backward(const BackwardCall<Real>& call) {
  const Layout<Real> layout(call.sizes);
  const Backward<Real> b{call, layout, BackwardScratch<Real>(layout, call.scratch)};
  in_parallel(useful_threads(layout, call.sizes.threads), [&](int thread, int threads) {
    const Split split = split_between(threads, layout);
    b.pack(thread, threads);
    barrier();
    b.run(region_of(split, layout.B, Panels(layout.H, kLanes<Real>).count, thread), split.unit_parts > 1);
    // By rows a thread has all gates of its own rows, still in its cache; by units it needs the others' of its steps.
    const Range all_steps = {0, layout.T}, all_rows = {0, layout.B};
    if (call.d_x && split.unit_parts == 1) b.input_gradient(all_steps, part(layout.B, split.row_parts, thread));
    barrier();
    if (call.d_x && split.unit_parts > 1) b.input_gradient(part(layout.T, threads, thread), all_rows);
    if (call.d_weight_ih || call.d_weight_hh || call.d_bias) b.parameter_gradients(thread, threads);
  });
}

// --------------------------------------------------------------------------------------------------------

template <class Real>
Plan plan(const Sizes& sizes, bool training) {
  const Layout<Real> layout(sizes);
  return {(training ? layout.T : smaller(layout.chunk_steps, layout.T)) * layout.B * layout.gates_row,
          (training ? layout.T + 1 : 1) * layout.B * layout.padded, ForwardScratch<Real>(layout, nullptr).size,
          BackwardScratch<Real>(layout, nullptr).size};
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
