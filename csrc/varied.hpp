// What both passes of a changed cell share: its own weights rearranged, its masks, and the sums over a row that layer
// normalization needs.
#pragma once

#include <cmath>
#include <utility>

#include "layout.hpp"
#include "parallel.hpp"
#include "varied_step.hpp"

namespace gatewise::GATEWISE_ISA {
namespace {

// ---------------------------------------------------------------------------------------- weights and masks

template <class Number>
void pack_varied(const Layout<Number>& layout, const Varied<Number>& own, Range units,
                 const VariedScratch<Number>& to) {
  const Cell& cell = layout.cell;
  constexpr int64_t lanes = kLanes<Number>;
  const auto of_units = [&](const Number* from, int64_t n) { return from ? load_first(from, n) : Vec<Number>{}; };
  for (int64_t u = units.first; u < units.last; ++u) {
    const int64_t n = layout.units_in(u), width = layout.width_of(u);
    for (int64_t gate = 0, block = 0; gate < 3; ++gate) {
      const bool is_there = own.weight_ch && !(cell.coupled && gate == 1);
      store(to.peepholes + (3 * u + gate) * lanes,
            of_units(is_there ? own.weight_ch + block * layout.H + u * lanes : nullptr, n));
      block += is_there;
    }
    if (!cell.layer_norm) continue;
    for (int64_t gate = 0; gate < 4; ++gate) {
      const int64_t block = layout.block_of(gate), at = layout.gates_at(u) + gate * width;
      const auto gain = [&](const Number* gains) {
        return of_units(block < 0 ? nullptr : gains + block * layout.H + u * lanes, n);
      };
      store_first(to.gain_ih + at, gain(own.gain_ih), width);
      store_first(to.gain_hh + at, gain(own.gain_hh), width);
      store_first(to.is_unit + at, block < 0 ? Vec<Number>{} : keep_first<Sum<Number>>(broadcast(Sum<Number>(1)), n), width);
    }
    store(to.gain_c + u * lanes, of_units(own.gain_c + u * lanes, n));
    store(to.bias_c + u * lanes, of_units(own.bias_c ? own.bias_c + u * lanes : nullptr, n));
  }
}

template <class Number>
GATEWISE_INLINE Peepholes<Sum<Number>> peepholes_of(const VariedScratch<Number>& varied, int64_t u) {
  const Sum<Number>* at = varied.peepholes + 3 * u * kLanes<Number>;
  return {load(at), load(at + kLanes<Number>), load(at + 2 * kLanes<Number>)};
}

// z of (7.17): a mask's n numbers, or the rate.
template <class Number>
GATEWISE_INLINE Vec<Number> zone(const Sum<Number>* mask, double rate, int64_t place, int64_t n) {
  return mask ? load_first(mask + place, n) : broadcast(static_cast<Sum<Number>>(rate));
}

// The candidate's mask (7.11), or 1.
template <class Number>
GATEWISE_INLINE Vec<Number> kept_candidate(const Varied<Number>& own, int64_t place, int64_t n) {
  return own.candidate ? load_first(own.candidate + place, n) : broadcast(Sum<Number>(1));
}

// ------------------------------------------------------------------------------------------ an sLSTM's cells

template <class Number>
GATEWISE_INLINE SCells<Sum<Number>> load_cells(const Sum<Number>* from, int64_t padded) {
  return {load(from), load(from + padded), load(from + 2 * padded), load(from + 3 * padded)};
}

template <class Number>
GATEWISE_INLINE void store_cells(Sum<Number>* to, int64_t padded, const SCells<Sum<Number>>& cells) {
  store(to, cells.c);
  store(to + padded, cells.n);
  store(to + 2 * padded, cells.m);
  store(to + 3 * padded, cells.slope_f);
}

// ----------------------------------------------------------------------------------------- sums over a row

template <class Real, int N>
using Lanes __attribute__((vector_size(N * sizeof(Real)))) = Real;

// Of all lanes, one half on the other. (By way of memory the processor would wait for each store.)
template <class Real, int N>
GATEWISE_INLINE Real sum_of(Lanes<Real, N> v) {
  if constexpr (N == 2) return v[0] + v[1];
  else
    return [&]<int... j>(std::integer_sequence<int, j...>) {
      return sum_of<Real, N / 2>(__builtin_shufflevector(v, v, j...) + __builtin_shufflevector(v, v, (j + N / 2)...));
    }(std::make_integer_sequence<int, N / 2>{});
}

template <class Real>
GATEWISE_INLINE Real sum_of_lanes(Vec<Real> v) {
  return sum_of<Real, kLanes<Real>>(v);
}

// Several rows are normalized at once: each of their sums waits for itself, and the others go on meanwhile.
constexpr int kRowsAtOnce = 4;

// body(how many rows, which is first) for rows in groups of kRowsAtOnce, and what is left one by one.
template <class Body>
GATEWISE_INLINE void by_groups(Range rows, const Body& body) {
  int64_t b = rows.first;
  for (; b + kRowsAtOnce <= rows.last; b += kRowsAtOnce) body(Constant<kRowsAtOnce>{}, b);
  for (; b < rows.last; ++b) body(Constant<1>{}, b);
}

// A thread's part of rows or steps that the threads of its team share; all of them where each has its own.
GATEWISE_INLINE Range own_part(Range all, const Team& team, bool are_shared) {
  if (!are_shared) return all;
  const Range own = part(all.last - all.first, team.threads, team.thread);
  return {all.first + own.first, all.first + own.last};
}

constexpr double kEpsilon = 1e-5;  // (7.19)

// A vector of a row of gates with zeros where no row of weights belongs to a number.
template <class Number>
GATEWISE_INLINE Vec<Number> without_padding(const Layout<Number>& layout, const VariedScratch<Number>& varied, int64_t at,
                                            Vec<Number> v) {
  return layout.gates == layout.cell.gates() * layout.H ? v : v * load(varied.is_unit + at);
}

// Of `count` vectors, `numbers` numbers in all, of each of R rows: the mean, and 1 / s of (7.19). load_at(r, v) is a vector
// of row r, deviation(r, v, mean) that less the mean, with zeros in padding.
template <class Number, int R, class Load, class Deviation>
GATEWISE_INLINE void mean_and_inverse(int64_t count, int64_t numbers, const Load& load_at, const Deviation& deviation,
                                      Sum<Number> (&mean)[R], Sum<Number> (&inverse)[R]) {
  using Real = Sum<Number>;
  Vec<Number> sum[R] = {}, squares[R] = {};
  for (int64_t v = 0; v < count; ++v) each<R>([&](int r) { sum[r] += load_at(r, v); });
  each<R>([&](int r) { mean[r] = sum_of_lanes<Real>(sum[r]) / static_cast<Real>(numbers); });
  for (int64_t v = 0; v < count; ++v)
    each<R>([&](int r) {
      const Vec<Number> d = deviation(r, v, mean[r]);
      squares[r] = fma(d, d, squares[r]);
    });
  each<R>([&](int r) {
    const Real variance = sum_of_lanes<Real>(squares[r]) / static_cast<Real>(numbers);
    inverse[r] = Real(1) / std::sqrt(variance + static_cast<Real>(kEpsilon));
  });
}

// a = gain · n + `plus` in place of R rows of products, whose rows of `plus` are plus_row apart; keeps n unless `kept` is
// null, and gives 1 / s.
template <class Number, int R>
GATEWISE_APART void normalize_gates(const Layout<Number>& layout, const VariedScratch<Number>& varied, Sum<Number>* a,
                                    const Sum<Number>* gain, const Sum<Number>* plus, int64_t plus_row, Number* kept,
                                    Sum<Number> (&inverse)[R]) {
  using Real = Sum<Number>;
  constexpr int64_t lanes = kLanes<Number>;
  const int64_t count = layout.gates / lanes, row = layout.gates_row;
  const auto load_at = [&](int64_t r, int64_t v) { return load(a + r * row + v * lanes); };
  const auto deviation = [&](int64_t r, int64_t v, Real mean) {
    return without_padding(layout, varied, v * lanes, load_at(r, v) - mean);
  };
  Real mean[R];
  mean_and_inverse<Number, R>(count, layout.cell.gates() * layout.H, load_at, deviation, mean, inverse);
  for (int64_t v = 0; v < count; ++v)
    each<R>([&](int r) {
      const Vec<Number> n = deviation(r, v, mean[r]) * inverse[r];
      if (kept) store(kept + r * row + v * lanes, n);
      store(a + r * row + v * lanes, fma(load(gain + v * lanes), n, load(plus + r * plus_row + v * lanes)));
    });
}

}  // namespace
}  // namespace gatewise::GATEWISE_ISA
