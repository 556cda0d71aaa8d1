// Operands of the products, rearranged so that a tile reads them one after another.
#pragma once

#include "layout.hpp"

namespace gatewise::GATEWISE_ISA {

// The first n of as many rows as a vector has lanes, (n, width), a vector of them for each group of k, `step` numbers
// apart. Lanes without a row are zero, and so is what the last group lacks.
template <class Number>
GATEWISE_INLINE void pack_vector(const Number* from, int64_t width, int64_t n, int64_t step, Number* to) {
  constexpr int64_t lanes = kLanes<Number>, group = kGroup<Number>;
  const int64_t groups = width / group;
  const auto one_by_one = [&](int64_t k) {
    for (int64_t lane = 0; lane < lanes; ++lane)
      to[k / group * step + lane * group + k % group] = lane < n && k < width ? from[lane * width + k] : Number{};
  };
  if (n < lanes || groups < lanes) {
    for (int64_t k = 0; k < whole_groups<Number>(width); ++k) one_by_one(k);
    return;
  }
  for (int64_t k = 0; k < groups; k += lanes) {
    const int64_t first = smaller(k, groups - lanes);  // the last columns together with some done before
    Vec<Number> column[lanes];
    load_columns(from + first * group, width, column);
#pragma GCC unroll 16
    for (int64_t j = 0; j < lanes; ++j) store_groups(to + (first + j) * step, column[j]);
  }
  for (int64_t k = groups * group; k < whole_groups<Number>(width); ++k) one_by_one(k);
}

// Weights (4H, width), rows i, f, g, o, of some vectors of units, for the products that make gates:
// [vector of units][group of k][gate][unit in it]. A gate without rows has zeros.
template <class Number>
void pack_gates(const Number* weights, int64_t width, const Layout<Number>& layout, Range units, Number* packed) {
  constexpr int64_t lanes = kLanes<Number>, group = kGroup<Number>;
  for (int64_t u = units.first; u < units.last; ++u) {
    const int64_t room = layout.width_of(u), step = 4 * room * group;
    Number* to = packed + (u - units.first) * 4 * lanes * whole_groups<Number>(width);
    for (int64_t gate = 0; gate < 4; ++gate) {
      const int64_t block = layout.block_of(gate), units = block < 0 ? 0 : layout.units_in(u);
      const Number* from = weights + (larger(0, block) * layout.H + u * lanes) * width;
      if (room == lanes) {
        pack_vector(from, width, units, step, to + gate * room * group);
        continue;
      }
      for (int64_t unit = 0; unit < room; ++unit)
        for (int64_t k = 0; k < whole_groups<Number>(width); ++k)
          to[k / group * step + (gate * room + unit) * group + k % group] =
              unit < units && k < width ? from[unit * width + k] : Number{};
    }
  }
}

// The rows that row() points to, one after another (null: a row of zeros), cut into panels of columns:
// [panel][group of rows][column in it]. `which` of all rows, from one group's beginning to another's, or to the end, and
// `which_panels` of all panels.
template <class Number, class Row>
void pack_panels(int64_t columns, Range which_panels, Range which, int64_t rows, Row row, Number* packed) {
  constexpr int64_t lanes = kLanes<Number>, group = kGroup<Number>, panel = kPanelVectors * lanes;
  const Panels panels(columns, lanes);
  const int64_t whole = smaller(which_panels.last, panels.count - 1), depth = whole_groups<Number>(rows);
  for (int64_t r = which.first; r < which.last; r += group) {
    const Number* from[group];
    bool none = true;
    for (int64_t j = 0; j < group; ++j) {
      from[j] = r + j < rows ? row() : nullptr;
      none = none && !from[j];
    }
    if (none) {
      for (int64_t p = which_panels.first; p < which_panels.last; ++p)
        for (int64_t n = 0; n < panels.vectors(p); ++n)
          store_groups(packed + p * panel * depth + (r * panels.vectors(p) + n * group) * lanes, Vec<Number>{});
      continue;
    }
    const auto read = [&](int64_t column, const auto& load_at) {
      return groups_of<Number>(
          [&](int j) { return group == 1 || from[j] ? load_at(from[j] + column) : Vec<Number>{}; });
    };
    int64_t p = which_panels.first;
    for (; p < whole; ++p)
      for (int64_t n = 0; n < kPanelVectors; ++n)
        store_groups(packed + (p * depth + r) * panel + n * group * lanes,
                     read(p * panel + n * lanes, [](const Number* at) { return load(at); }));
    for (; p < which_panels.last; ++p) {
      const int64_t vectors = panels.vectors(p);
      for (int64_t n = 0; n < vectors; ++n) {
        const int64_t column = p * panel + n * lanes;
        store_groups(packed + p * panel * depth + (r * vectors + n * group) * lanes,
                     read(column, [&](const Number* at) { return load_first(at, columns - column); }));
      }
    }
  }
}

// Weights (rows, width) transposed into panels of columns, one for each row: [panel][group of k][column in it].
template <class Number>
void pack_transposed(const Panels& panels, const Number* weights, int64_t rows, int64_t width, Range which,
                     Number* packed) {
  constexpr int64_t lanes = kLanes<Number>, group = kGroup<Number>;
  for (int64_t p = which.first; p < which.last; ++p)
    for (int64_t n = 0; n < panels.vectors(p); ++n) {
      const int64_t row = (p * kPanelVectors + n) * lanes, step = panels.vectors(p) * lanes * group;
      pack_vector(weights + row * width, width, smaller(lanes, rows - row), step,
                  packed + p * kPanelVectors * lanes * whole_groups<Number>(width) + n * lanes * group);
    }
}

// Rows of zeros that stand for a state that is none, or for d_a.
template <class Number>
void fill_zeros(Number* zeros, Range vectors) {
  for (int64_t u = vectors.first; u < vectors.last; ++u) store(zeros + u * kLanes<Number>, Vec<Number>{});
}

}  // namespace gatewise::GATEWISE_ISA
