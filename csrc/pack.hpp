// Operands of the products, rearranged so that a tile reads them one after another.
#pragma once

#include "layout.hpp"

namespace gatewise::GATEWISE_ISA {

// The first n of as many rows as a vector has lanes, (n, width), a vector of them for each k, `step` numbers apart.
// Lanes without a row are zero.
template <class Real>
GATEWISE_INLINE void pack_vector(const Real* from, int64_t width, int64_t n, int64_t step, Real* to) {
  constexpr int64_t lanes = kLanes<Real>;
  if (n < lanes || width < lanes) {
    for (int64_t k = 0; k < width; ++k)
      for (int64_t lane = 0; lane < lanes; ++lane) to[k * step + lane] = lane < n ? from[lane * width + k] : Real(0);
    return;
  }
  for (int64_t k = 0; k < width; k += lanes) {
    const int64_t first = smaller(k, width - lanes);  // the last columns together with some done before
    Vec<Real> column[lanes];
    load_columns(from + first, width, column);
#pragma GCC unroll 16
    for (int64_t j = 0; j < lanes; ++j) store(to + (first + j) * step, column[j]);
  }
}

// Weights (4H, width), rows i, f, g, o, of some vectors of units, for the products that make gates:
// [vector of units][k][gate][unit in it].
template <class Real>
void pack_gates(const Real* weights, int64_t width, const Layout<Real>& layout, Range units, Real* packed) {
  constexpr int64_t lanes = kLanes<Real>;
  for (int64_t u = units.first; u < units.last; ++u)
    for (int64_t gate = 0; gate < 4; ++gate)
      pack_vector(weights + (gate * layout.H + u * lanes) * width, width, layout.units_in(u), 4 * lanes,
                  packed + ((u - units.first) * 4 * width + gate) * lanes);
}

// The rows that row() points to, one after another (null: a row of zeros), cut into panels of columns:
// [panel][row][column in it].
template <class Real, class Row>
void pack_panels(const Panels& panels, int64_t columns, Range which, int64_t rows, Row row, Real* packed) {
  constexpr int64_t lanes = kLanes<Real>, panel = kPanelVectors * lanes;
  const int64_t whole = smaller(which.last, panels.count - 1);
  for (int64_t r = 0; r < rows; ++r) {
    const Real* from = row();
    if (!from) {
      for (int64_t p = which.first; p < which.last; ++p)
        for (int64_t n = 0; n < panels.vectors(p); ++n)
          store(packed + p * panel * rows + (r * panels.vectors(p) + n) * lanes, Vec<Real>{});
      continue;
    }
    int64_t p = which.first;
    for (; p < whole; ++p)
      for (int64_t n = 0; n < kPanelVectors; ++n)
        store(packed + (p * rows + r) * panel + n * lanes, load(from + p * panel + n * lanes));
    for (; p < which.last; ++p) {
      const int64_t vectors = panels.vectors(p);
      for (int64_t n = 0; n < vectors; ++n) {
        const int64_t column = p * panel + n * lanes;
        store(packed + p * panel * rows + (r * vectors + n) * lanes, load_first(from + column, columns - column));
      }
    }
  }
}

// Weights (rows, width) transposed into panels of columns, one for each row: [panel][k][column in it].
template <class Real>
void pack_transposed(const Panels& panels, const Real* weights, int64_t rows, int64_t width, Range which,
                     Real* packed) {
  constexpr int64_t lanes = kLanes<Real>;
  for (int64_t p = which.first; p < which.last; ++p)
    for (int64_t n = 0; n < panels.vectors(p); ++n) {
      const int64_t row = (p * kPanelVectors + n) * lanes, step = panels.vectors(p) * lanes;
      pack_vector(weights + row * width, width, smaller(lanes, rows - row), step,
                  packed + p * kPanelVectors * lanes * width + n * lanes);
    }
}

// The row of zeros that stands for a state that is none.
template <class Real>
void fill_zeros(Real* zeros, Range units) {
  for (int64_t u = units.first; u < units.last; ++u) store(zeros + u * kLanes<Real>, Vec<Real>{});
}

}  // namespace gatewise::GATEWISE_ISA
