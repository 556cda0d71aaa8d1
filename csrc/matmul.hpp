// The register-tiled product under everything: a few rows of A times a panel of B, summed in registers.
//
// Every element of a result is one running sum over k, in ascending k, whatever the tile's shape: so a row's result
// does not depend on which rows share its tile, on the batch size or on the number of threads, bit for bit.
#pragma once

#include "vec.hpp"

namespace gatewise::GATEWISE_ISA {

// How many rows a tile may have when it is `columns` vectors wide, so that its sums, one row of B and a broadcast
// number of A stay in registers.
constexpr int tile_rows(int columns) {
  return kRegisters == 32 ? 6 : columns == 4 ? 3 : columns == 3 ? 4 : 6;
}

// Panels of B that are not the four gates are this many vectors wide. With 16 registers a last panel of one vector
// would be half as fast: the one before it takes that vector too.
constexpr int kPanelVectors = kRegisters == 32 ? 4 : 2;
constexpr bool kLastIsWider = kPanelVectors == 2;

// K is taken in blocks of this many, so that a block of the panel stays in the first-level cache while the rows pass.
template <class Real>
constexpr long kBlock = 512 / static_cast<long>(sizeof(Real));

// Memory that the next product reads, fetched into the first-level cache while this one computes: `step` bytes of it
// at each k. (Fetching never faults, whatever the address.)
struct Ahead {
  const char* at;
  long step;
};

// sum[m][n] += sum over k of a[m][k * a_step] * b[k][n]; b is packed: k after k, N vectors each.
template <class Real, int M, int N>
GATEWISE_INLINE void tile(Vec<Real> (&sum)[M][N], const Real* const* a, long a_offset, long a_step, const Real* b,
                          long K, Ahead ahead) {
  const Real* row[M];
#pragma GCC unroll 8
  for (int m = 0; m < M; ++m) row[m] = a[m] + a_offset;
  long at = 0;
  for (long k = 0; k < K; ++k) {
    __builtin_prefetch(ahead.at);
    ahead.at += ahead.step;
    // The shorter side is read first and held: with the sums it fills the registers, the longer side passes by.
    if constexpr (M > N) {
      Vec<Real> y[N];
#pragma GCC unroll 8
      for (int n = 0; n < N; ++n) y[n] = load(b + n * kLanes<Real>);
#pragma GCC unroll 8
      for (int m = 0; m < M; ++m) {
        const Vec<Real> x = broadcast(row[m][at]);
#pragma GCC unroll 8
        for (int n = 0; n < N; ++n) sum[m][n] = fma(x, y[n], sum[m][n]);
      }
    } else {
      Vec<Real> x[M];
#pragma GCC unroll 8
      for (int m = 0; m < M; ++m) x[m] = broadcast(row[m][at]);
#pragma GCC unroll 8
      for (int n = 0; n < N; ++n) {
        const Vec<Real> y = load(b + n * kLanes<Real>);
#pragma GCC unroll 8
        for (int m = 0; m < M; ++m) sum[m][n] = fma(x[m], y, sum[m][n]);
      }
    }
    at += a_step;
    b += N * kLanes<Real>;
  }
}

// One panel's product for any number of rows, in row tiles as equal in height as can be.
//   next              the panel of the product that follows, as large as b
//   first(row, sum)   sets the N sums of a row before the product
//   done(row, sums)   takes the sums of a tile's rows, from `row` on, after it
template <class Real, int N, class First, class Done>
struct PanelProduct {
  const Real* const* a;
  long a_offset, a_step;
  const Real* b;
  long K;
  const Real* next;
  const First& first;
  const Done& done;

  template <int M>
  GATEWISE_INLINE void rows(long row, Ahead ahead) const {
    Vec<Real> sum[M][N];
#pragma GCC unroll 8
    for (int m = 0; m < M; ++m) first(row + m, sum[m]);
    tile<Real, M, N>(sum, a + row, a_offset, a_step, b, K, ahead);
    done(row, sum);
  }

  GATEWISE_INLINE void operator()(long count) const {
    constexpr int most = tile_rows(N);
    constexpr long k_bytes = N * kLanes<Real> * sizeof(Real);
    const long tiles = (count + most - 1) / most;
    for (long t = 0, row = 0; t < tiles; ++t) {
      const long height = (count - row) / (tiles - t) + ((count - row) % (tiles - t) != 0);
      // Each tile fetches its share of the next panel.
      const long step = (k_bytes + tiles - 1) / tiles;
      const Ahead ahead = {reinterpret_cast<const char*>(next) + t * step * K, step};
      if (height == 1) rows<1>(row, ahead);
      if (height == 2) rows<2>(row, ahead);
      if (height == 3) rows<3>(row, ahead);
      if constexpr (most > 3)
        if (height == 4) rows<4>(row, ahead);
      if constexpr (most > 4) {
        if (height == 5) rows<5>(row, ahead);
        if (height == 6) rows<6>(row, ahead);
      }
      row += height;
    }
  }
};

template <class Real, int N, class First, class Done>
GATEWISE_INLINE void panel_product(long rows, const Real* const* a, long a_offset, long a_step, const Real* b, long K,
                                   const Real* next, const First& first, const Done& done) {
  PanelProduct<Real, N, First, Done>{a, a_offset, a_step, b, K, next, first, done}(rows);
}

}  // namespace gatewise::GATEWISE_ISA
