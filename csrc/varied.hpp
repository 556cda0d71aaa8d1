// What both passes of a changed cell share: its own weights rearranged, its masks, and the sums over a row that layer
// normalization needs.
#pragma once

#include <cmath>

#include "layout.hpp"
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

// Of all lanes, in pairs of halves.
template <class Real>
GATEWISE_INLINE Real sum_of_lanes(Vec<Real> v) {
  Real lanes[kLanes<Real>];
  store(lanes, v);
#pragma GCC unroll 8
  for (int half = kLanes<Real> / 2; half > 0; half /= 2)
    for (int j = 0; j < half; ++j) lanes[j] += lanes[j + half];
  return lanes[0];
}

template <class Real>
struct MeanAndInverse {
  Real mean, inverse;  // 1 / s of (7.19)
};

constexpr double kEpsilon = 1e-5;  // (7.19)

// Of `count` vectors of a row, `numbers` numbers in all: deviation(v, mean) is those less the mean, zeros in padding.
template <class Number, class Load, class Deviation>
GATEWISE_INLINE MeanAndInverse<Sum<Number>> mean_and_inverse(int64_t count, int64_t numbers, const Load& load_at,
                                                             const Deviation& deviation) {
  using Real = Sum<Number>;
  Vec<Number> sum = {}, squares = {};
  for (int64_t v = 0; v < count; ++v) sum += load_at(v);
  const Real mean = sum_of_lanes<Real>(sum) / static_cast<Real>(numbers);
  for (int64_t v = 0; v < count; ++v) {
    const Vec<Number> d = deviation(v, mean);
    squares = fma(d, d, squares);
  }
  const Real variance = sum_of_lanes<Real>(squares) / static_cast<Real>(numbers);
  return {mean, Real(1) / std::sqrt(variance + static_cast<Real>(kEpsilon))};
}

// a = gain · n + `plus` in place of a row of products; keeps n unless `kept` is null. Returns 1 / s.
template <class Number>
GATEWISE_APART Sum<Number> normalize_gates(const Layout<Number>& layout, const VariedScratch<Number>& varied,
                                           Sum<Number>* a, const Sum<Number>* gain, const Sum<Number>* plus,
                                           Number* kept) {
  using Real = Sum<Number>;
  constexpr int64_t lanes = kLanes<Number>;
  const auto deviation = [&](int64_t v, Real mean) {
    return (load(a + v * lanes) - mean) * load(varied.is_unit + v * lanes);
  };
  const int64_t count = layout.gates / lanes;
  const auto [mean, inverse] = mean_and_inverse<Number>(
      count, layout.cell.gates() * layout.H, [&](int64_t v) { return load(a + v * lanes); }, deviation);
  for (int64_t v = 0; v < count; ++v) {
    const Vec<Number> n = deviation(v, mean) * inverse;
    if (kept) store(kept + v * lanes, n);
    store(a + v * lanes, fma(load(gain + v * lanes), n, load(plus + v * lanes)));
  }
  return inverse;
}

template <class Number>
GATEWISE_INLINE MeanAndInverse<Sum<Number>> scale_of_cells(const Layout<Number>& layout, const Sum<Number>* c) {
  using Real = Sum<Number>;
  constexpr int64_t lanes = kLanes<Number>;
  return mean_and_inverse<Number>(
      layout.units, layout.H, [&](int64_t v) { return load(c + v * lanes); },
      [&](int64_t v, Real mean) { return keep_first<Real>(load(c + v * lanes) - mean, layout.units_in(v)); });
}

}  // namespace
}  // namespace gatewise::GATEWISE_ISA
