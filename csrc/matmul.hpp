// The register-tiled product under everything: a few rows of A times a panel of B, summed in registers.
//
// Every element of a result is one running sum over k, in ascending k, whatever the tile's shape: so a row's result
// does not depend on which rows share its tile, on the batch size or on the number of threads, bit for bit.
//
// Packed operands and what is read of a row are groups of k (vec.hpp): a single number, or two of bfloat16.
#pragma once

#include "vec.hpp"

namespace gatewise::GATEWISE_ISA {

constexpr long kMostStepRows = 96;  // rows that go through time together

// How many rows a tile may have when it is `columns` vectors wide, so that its sums, one row of B and a broadcast
// number of A stay in registers; and a mask, where groups are multiplied in two goes.
template <class Number>
constexpr int tile_rows(int columns) {
  if (kRegisters == 32) return 6;
  return columns == 4 ? 4 - kGoes<Number> : columns == 3 ? 5 - kGoes<Number> : 6;
}

// Panels of B that are not the four gates are this many vectors wide. With 16 registers a last panel of one vector
// would be half as fast: the one before it takes that vector too.
constexpr int kPanelVectors = kRegisters == 32 ? 4 : 2;
constexpr bool kLastIsWider = kPanelVectors == 2;

// K is taken in blocks of this many. With 16 registers a tile reads so much of the panel for what it computes that a
// block has to stay in the first-level cache while the rows pass; with 32 the second-level cache is fast enough.
template <class Number>
constexpr long kBlock = (kRegisters == 32 ? 16384 : 512) / static_cast<long>(sizeof(Number));

// Memory that the next product reads, fetched while this one computes: `step` bytes of it at each group of k, of which
// the first cache line is asked for, or the first `Lines` of them. (Fetching never faults, whatever the address.) Where
// the second-level cache is fast enough to read from, it is fetched there: more lines can be on their way at a time.
struct Ahead {
  const char* at;
  long step;
};
constexpr int kAheadLevel = kRegisters == 32 ? kSecondLevel : kFirstLevel;

template <int N>
struct Constant {
  static constexpr int value = N;
};

// sum[m][n] += sum over k of a[m][k] * b[k][n]; b is packed: group of k after group, N vectors each. From group to
// group of a it is a_step numbers.
template <class Number, int M, int N, int Lines>
GATEWISE_INLINE void tile(Vec<Number> (&sum)[M][N], const Number* const* a, long a_offset, long a_step, const Number* b,
                          long K, Ahead ahead) {
  constexpr int group = kGroup<Number>, vector = kLanes<Number> * group;
  const Number* row[M];
  [[maybe_unused]] Number last[M][group] = {};
#pragma GCC unroll 8
  for (int m = 0; m < M; ++m) row[m] = a[m] + a_offset;
  long left = K / group, at = 0;
  for (bool odd = K % group != 0;; odd = false) {
    for (; left > 0; --left) {
      __builtin_prefetch(ahead.at, 0, kAheadLevel);
      if constexpr (Lines == 2) __builtin_prefetch(ahead.at + 64, 0, kAheadLevel);
      ahead.at += ahead.step;
      const auto multiply = [&](auto which) {
        constexpr int go = decltype(which)::value;
        // The shorter side is read first and held: with the sums it fills the registers, the longer side passes by.
        if constexpr (M > N) {
          Vec<Number> y[N];
#pragma GCC unroll 8
          for (int n = 0; n < N; ++n) y[n] = numbers_of<Number, go>(load_groups(b + n * vector));
#pragma GCC unroll 8
          for (int m = 0; m < M; ++m) {
            const Vec<Number> x = numbers_of<Number, go>(broadcast_group(row[m] + at));
#pragma GCC unroll 8
            for (int n = 0; n < N; ++n) sum[m][n] = add_products<Number>(x, y[n], sum[m][n]);
          }
        } else {
          Vec<Number> x[M];
#pragma GCC unroll 8
          for (int m = 0; m < M; ++m) x[m] = numbers_of<Number, go>(broadcast_group(row[m] + at));
#pragma GCC unroll 8
          for (int n = 0; n < N; ++n) {
            Vec<Number> y = numbers_of<Number, go>(load_groups(b + n * vector));
#if defined(__AVX512F__)
            // The compiler would have each of the products read it again, and reading become slower than multiplying.
            if constexpr (M > 1) asm("" : "+v"(y));
#endif
#pragma GCC unroll 8
            for (int m = 0; m < M; ++m) sum[m][n] = add_products<Number>(x[m], y, sum[m][n]);
          }
        }
      };
      multiply(Constant<0>{});
      if constexpr (kGoes<Number> == 2) {
        // What one go has read the next reads again. No register is free to keep it, and the compiler, did it know that
        // the addresses are the same ones, would keep it instead of a sum.
        asm("" : "+r"(at), "+r"(b));
        multiply(Constant<1>{});
      }
      at += a_step;
      b += N * vector;
    }
    if (!odd) return;
    // The last number of each row, and a zero instead of what stands behind it.
#pragma GCC unroll 8
    for (int m = 0; m < M; ++m) {
      last[m][0] = row[m][at];
      row[m] = last[m];
    }
    left = 1;
    at = 0;
  }
}

// The sums of a tile in memory, for a function of its own to read: what stays in registers across its call would be kept in
// memory elsewhere too.
template <class Number, int M, int N>
struct Stored {
  Sum<Number> at[M * N * kLanes<Number>];
  GATEWISE_INLINE explicit Stored(const Vec<Number> (&sum)[M][N]) {
    for (int m = 0; m < M; ++m)
      for (int n = 0; n < N; ++n) store(at + (m * N + n) * kLanes<Number>, sum[m][n]);
  }
};

// One panel's product for any number of rows, in row tiles as equal in height as can be.
//   next              the panel of the product that follows, as large as b
//   first(row, sum)   sets the N sums of a row before the product
//   done(row, sums)   takes the sums of a tile's rows, from `row` on, after it
template <class Number, int N, int Lines, class First, class Done>
struct PanelProduct {
  const Number* const* a;
  long a_offset, a_step;
  const Number* b;
  long K;
  const Number* next;
  const First& first;
  const Done& done;

  template <int M>
  GATEWISE_INLINE void rows(long row, Ahead ahead) const {
    Vec<Number> sum[M][N];
#pragma GCC unroll 8
    for (int m = 0; m < M; ++m) first(row + m, sum[m]);
    tile<Number, M, N, Lines>(sum, a + row, a_offset, a_step, b, K, ahead);
    done(row, sum);
  }

  GATEWISE_INLINE void operator()(long count) const {
    constexpr int most = tile_rows<Number>(N);
    const long tiles = (count + most - 1) / most;
    for (long t = 0, row = 0; t < tiles; ++t) {
      const long height = (count - row) / (tiles - t) + ((count - row) % (tiles - t) != 0);
      // Each tile fetches its share of the next panel.
      const long step = (N * kVectorBytes + tiles - 1) / tiles;
      const Ahead ahead = {reinterpret_cast<const char*>(next) + t * step * (K / kGroup<Number>), step};
      if (height == 1) rows<1>(row, ahead);
      if (height == 2) rows<2>(row, ahead);
      if constexpr (most > 2)
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

template <class Number, int N, int Lines = 1, class First, class Done>
GATEWISE_INLINE void panel_product(long rows, const Number* const* a, long a_offset, long a_step, const Number* b,
                                   long K, const Number* next, const First& first, const Done& done) {
  PanelProduct<Number, N, Lines, First, Done>{a, a_offset, a_step, b, K, next, first, done}(rows);
}

// The same of at most kMostStepRows rows whose numbers stand side by side, in blocks of at most `block` k, between
// which the sums wait in an array of their own.
template <class Number, int N, int Lines = 1, class First, class Done>
GATEWISE_INLINE void blocked_product(long rows, const Number* const* a, const Number* b, long K, long block,
                                     const Number* next, const First& first, const Done& done) {
  constexpr long lanes = kLanes<Number>;
  Sum<Number> waiting[kMostStepRows * N * lanes];
  long k = 0;
  do {
    const long depth = K - k < block ? K - k : block;
    const bool last = k + depth == K;
    const Number* from = b + k * N * lanes;
    panel_product<Number, N, Lines>(
        rows, a, k, kGroup<Number>, from, depth, last ? next : from + depth * N * lanes,
        [&](long row, Vec<Number>(&sum)[N]) {
          if (k == 0) return first(row, sum);
          for (int n = 0; n < N; ++n) sum[n] = load(waiting + (row * N + n) * lanes);
        },
        [&]<int M>(long row, const Vec<Number>(&sum)[M][N]) {
          if (last) return done(row, sum);
          for (int m = 0; m < M; ++m)
            for (int n = 0; n < N; ++n) store(waiting + ((row + m) * N + n) * lanes, sum[m][n]);
        });
    k += depth;
  } while (k < K);
}

}  // namespace gatewise::GATEWISE_ISA
