// Where everything stands: padded sizes, how threads share the work, and the scratch memory's parts.
//
// Hidden units are padded to whole vectors; the padding's weights and its d_a are zero, so that it adds nothing to a
// product, and nothing of it is written to a caller's array. A row of gates is
// [vector of units][i, f, g, o][unit in it]. Where the last vector of units has but a few, their gates share vectors: all
// four stand in one where there are at most a quarter of its lanes, two by two in two where there are at most half.
#pragma once

#if defined(GATEWISE_SANITIZE_ADDRESS)
#include <sanitizer/asan_interface.h>
#endif

#include "kernels.hpp"
#include "matmul.hpp"

namespace gatewise::GATEWISE_ISA {

constexpr int64_t kMostRows = 256;      // rows of one product: bounds the pointer arrays on the stack
constexpr int64_t kCacheBytes = 512 * 1024;  // a core's second-level cache, at the least
constexpr int64_t kFarPanel = 128 * 1024;    // a panel of recurrent weights with so many bytes comes from beyond it
constexpr int64_t kBackwardRowBytes = 128 * 1024;  // backward: so many of recurrent weights ask a thread for a row
constexpr int64_t kFarGates = 4 * 1024 * 1024;  // gates of so many bytes in all go past the caches
constexpr int64_t kOwnBytes = 128 * 1024;    // backward: up to so many of weights each group packs for itself
constexpr int64_t kChunkBytes = 256 * 1024;  // the gates of a chunk of steps should stay in the second-level cache

// A call of fewer products is not shared among threads: waking the others costs about as much as 10^5. The sanitizers
// are to see threads at every size that the tests have, the smallest too.
#if defined(GATEWISE_SANITIZE_ADDRESS) || defined(GATEWISE_SANITIZE_THREAD)
constexpr int64_t kSharedProducts = 0;
#else
constexpr int64_t kSharedProducts = 100000;
#endif

// Backward panels are narrower in 16-register machines: the same bytes hold a longer block of K.
template <class Number>
constexpr int64_t kBackwardBlock = 4 * kBlock<Number> / kPanelVectors;

GATEWISE_INLINE int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
GATEWISE_INLINE int64_t larger(int64_t a, int64_t b) { return a < b ? b : a; }

struct Range {
  int64_t first, last;  // last is the first one outside
};

// The j-th of n nearly equal parts of 0 … count.
GATEWISE_INLINE Range part(int64_t count, int64_t n, int64_t j) { return {count * j / n, count * (j + 1) / n}; }

// The same in whole groups of k: the last part ends with the last group, which may reach beyond count.
template <class Number>
GATEWISE_INLINE Range part_in_groups(int64_t count, int64_t n, int64_t j) {
  const Range groups = part(whole_groups<Number>(count) / kGroup<Number>, n, j);
  return {groups.first * kGroup<Number>, groups.last * kGroup<Number>};
}

// for (Range rows : RowBlocks{all, most}): consecutive parts of at most `most`, as equal as can be.
struct RowBlocks {
  Range all;
  int64_t most;

  struct Iterator {
    Range all;
    int64_t blocks, at;
    Range operator*() const {
      const Range r = part(all.last - all.first, blocks, at);
      return {all.first + r.first, all.first + r.last};
    }
    void operator++() { ++at; }
    bool operator!=(const Iterator& other) const { return at != other.at; }
  };
  int64_t blocks() const { return (all.last - all.first + most - 1) / most; }
  Iterator begin() const { return {all, blocks(), 0}; }
  Iterator end() const { return {all, blocks(), blocks()}; }
};

struct Split {
  int64_t row_parts, unit_parts;  // their product is the number of threads; a part may be empty
};

// Columns of a matrix in panels of kPanelVectors vectors; the last one may be narrower, or wider by one.
struct Panels {
  int64_t all_vectors, count;
  Panels(int64_t columns, int64_t lanes) : all_vectors((columns + lanes - 1) / lanes) {
    count = (all_vectors + (kLastIsWider ? 0 : kPanelVectors - 1)) / kPanelVectors;
    if (count == 0 && all_vectors > 0) count = 1;
  }
  // The first vector of a panel, and the one after the last.
  int64_t first(int64_t panel) const { return panel < count ? panel * kPanelVectors : all_vectors; }
  int vectors(int64_t panel) const { return static_cast<int>(first(panel + 1) - first(panel)); }
};

// body(Constant<N>) for the N that is known only at run time.
template <class Body>
GATEWISE_INLINE void with_width(int vectors, const Body& body) {
  if (vectors == 1) return body(Constant<1>{});
  if (vectors == 2) return body(Constant<2>{});
  if (vectors == 3) return body(Constant<3>{});
  if constexpr (kPanelVectors > 2)
    if (vectors == 4) return body(Constant<4>{});
}

// body(Constant<N>) for the N vectors, 4, 2 or 1, that hold the gates of a vector of units.
template <class Body>
GATEWISE_INLINE void with_gates(int vectors, const Body& body) {
  if (vectors == 4) return body(Constant<4>{});
  if (vectors == 2) return body(Constant<2>{});
  return body(Constant<1>{});
}

// What does not depend on the threads.
template <class Number>
struct Layout {
  int64_t T, B, I, H, P;
  Cell cell;
  bool changed;         // whether the cell is another than the plain one
  bool projected;
  int64_t steps;        // of all rows together
  int64_t units;        // vectors of hidden units
  int64_t padded;       // hidden units, padded to whole vectors
  int64_t padded_h;     // numbers of h, padded to whole vectors
  int64_t padded_x;     // and of x
  int64_t cells_row;    // numbers of a row's cells: c; with zoneout c and c̃; in an sLSTM c, n, m and the slope of log f
  int64_t last_width;   // units that a gate of the last vector of units has room for
  int64_t gates;        // all of a row, whole vectors
  int64_t gates_row;    // numbers from one row of gates to the next
  int64_t copies;       // backward: of the packed weights, one for each group, or 1
  bool far_gates;       // whether training forward writes them past the caches
  int64_t chunk_steps;  // steps whose input products are taken at once
  int64_t chunk_rows;   // room for all rows in each of them
  int64_t groups;       // backward: 1, or 2 groups of rows whose gradients of the parameters are summed apart
  int64_t gradient_rows;  // steps of a group's rows in one block of those sums
  int64_t back_chunks;  // backward: parts of time, each of about gradient_rows steps of a group's rows, or of one step
  int64_t back_steps;   // steps in each of them, at most

  explicit Layout(const Sizes& s)
      : T(s.T), B(s.B), I(s.I), H(s.H), P(s.P), cell(s.cell), changed(!s.cell.is_plain()), projected(s.P != s.H),
        steps(s.steps), units((s.H + kLanes<Number> - 1) / kLanes<Number>), padded(units * kLanes<Number>),
        padded_h((s.P + kLanes<Number> - 1) / kLanes<Number> * kLanes<Number>),
        padded_x((s.I + kLanes<Number> - 1) / kLanes<Number> * kLanes<Number>),
        cells_row(padded * (s.cell.slstm ? 4 : s.cell.zoneout_c > 0 ? 2 : 1)),
        last_width(width_for(s.H - (units - 1) * kLanes<Number>)), gates(4 * (padded - kLanes<Number> + last_width)),
        // One cache line more than the gates: rows a power of two apart would all fall into the same cache sets.
        gates_row(gates + 64 / static_cast<int64_t>(sizeof(Number))) {
    far_gates = !changed && steps * gates_row * static_cast<int64_t>(sizeof(Number)) >= kFarGates;
    const int64_t rows = kChunkBytes / (gates_row * static_cast<int64_t>(sizeof(Sum<Number>)));
    chunk_steps = larger(1, smaller(larger(rows, 24), kMostRows) / larger(1, smaller(B, kMostStepRows)));
    chunk_rows = smaller(chunk_steps, T) * B;
    // Two threads then need nothing of each other's, and take no time to wait. (It goes by the sizes alone: how many
    // threads there are must not change a sum. On one thread rows that fit into a tile stay in one, and the second
    // group's sums are to take no more room than the gates.)
    const bool apart = T > 1 && B > tile_rows<Number>(kPanelVectors) && has_near_weights(B / 2, kBackwardRowBytes) &&
                       is_shared() && I + P <= steps;
    groups = apart && !projected ? 2 : 1;
    copies = !changed && 4 * H * (I + P) * static_cast<int64_t>(sizeof(Number)) <= kOwnBytes ? groups : 1;
    // Sums that come from beyond the second-level cache are read and written half as often.
    const int64_t sums = 4 * H * (I + P) * static_cast<int64_t>(sizeof(Sum<Number>));
    gradient_rows = sums >= 4 * kCacheBytes ? 1024 : 512;
    const int64_t most = larger(1, gradient_rows * groups / larger(1, B));
    back_chunks = (T + most - 1) / most;
    back_steps = (T + back_chunks - 1) / back_chunks;
  }

  // Whether the recurrent weights fit into a core's second-level cache, or a thread has the rows that make up for those
  // that do not: one for each `row_bytes`.
  bool has_near_weights(int64_t rows, int64_t row_bytes) const {
    return gates * P * static_cast<int64_t>(sizeof(Number)) <= larger(kCacheBytes, rows * row_bytes);
  }
  // A call too small to share among threads is faster on one.
  bool is_shared() const { return steps * gates * (I + P) >= kSharedProducts; }

  // A quarter of the lanes, or half of them, or all.
  static int64_t width_for(int64_t units) {
    for (int64_t vectors = 1; vectors < 4; vectors *= 2)
      if (4 * units <= vectors * kLanes<Number> && vectors * kLanes<Number> % 4 == 0) return vectors * kLanes<Number> / 4;
    return kLanes<Number>;
  }

  // Of a vector of units: how many numbers each of its gates takes, how many vectors all four, and where they begin in a
  // row of gates (of the one after the last: where the row ends).
  int64_t width_of(int64_t unit_vector) const { return unit_vector + 1 < units ? kLanes<Number> : last_width; }
  int vectors_of(int64_t unit_vector) const { return static_cast<int>(4 * width_of(unit_vector) / kLanes<Number>); }
  int64_t gates_at(int64_t unit_vector) const { return smaller(unit_vector * 4 * kLanes<Number>, gates); }

  // Whether a step's recurrent weights come from so far away that two lines of them are fetched at each k: where a panel
  // of 256 bytes at each k is long, and two tiles share the fetching. (One tile does better with the machine's own.)
  bool far_for(int64_t rows) const {
    constexpr int64_t tile = tile_rows<Number>(4);
    return rows > tile && rows <= 2 * tile && 256 * P / kGroup<Number> >= kFarPanel;
  }

  // Hidden units in a vector: fewer than its lanes in the last one.
  int64_t units_in(int64_t unit_vector) const { return smaller(kLanes<Number>, H - unit_vector * kLanes<Number>); }

  // The block of rows in torch's weights that is a gate's; -1 for a forget gate that has none.
  int64_t block_of(int64_t gate) const {
    if (!cell.coupled || gate == 0) return gate;
    return gate == 1 ? -1 : gate - 1;
  }

  // The row of torch's weights that the m-th number of a row of gates belongs to; -1 for padding, or a gate without rows.
  int64_t torch_row(int64_t m) const {
    const int64_t u = smaller(m / (4 * kLanes<Number>), units - 1), width = width_of(u), at = m - gates_at(u);
    const int64_t gate = width == kLanes<Number> ? at / kLanes<Number> : at / width;  // a division by a constant is quick
    const int64_t unit = u * kLanes<Number> + at - gate * width;
    const int64_t block = block_of(gate);
    return unit < H && block >= 0 ? block * H + unit : -1;
  }
};

template <class Number>
int useful_threads(const Layout<Number>& layout, int64_t most) {
  return layout.is_shared() ? static_cast<int>(most) : 1;
}

// How `team` threads share some rows and their units. Rows alone need no barrier and are the rule; units are shared where
// there are few rows, or where the recurrent weights outgrow one core's second-level cache and half of them is read
// faster, and in a single step, which then packs each weight where it is used. `row_bytes`: how much more of the weights
// a row of a thread makes up for.
template <class Number>
Split split_between(int64_t team, const Layout<Number>& layout, int64_t rows, int64_t row_bytes = 0) {
  const bool by_rows = layout.T > 1 && rows >= 2 * team && layout.has_near_weights(rows / team, row_bytes);
  if (by_rows || layout.units < team) return {team, 1};
  return {1, team};
}

// A Walk, with an answer where its tables are null. Rows are the core's.
struct Steps : Walk {
  int64_t T, B, all;
  Steps(const Walk& walk, const Sizes& sizes) : Walk(walk), T(sizes.T), B(sizes.B), all(sizes.steps) {}

  int64_t length_of(int64_t b) const { return length ? length[b] : T; }
  int64_t row_of(int64_t b) const { return order ? order[b] : b; }
  int64_t active_at(int64_t t) const { return t >= T ? 0 : active ? active[t] : B; }
  int64_t before_step(int64_t t) const { return before ? before[t] : t * B; }
  // The caller's step that is the t-th of a row.
  int64_t step_of(int64_t t, int64_t b) const { return reversed ? length_of(b) - 1 - t : t; }

  // The same step's number among (T, B).
  int64_t number(int64_t t, int64_t b) const { return step_of(t, b) * B + row_of(b); }

  // Where the t-th step of a row stands in a caller's array.
  int64_t place(int64_t t, int64_t b, int64_t array_step, int64_t array_row) const {
    const int64_t step = step_of(t, b);
    return packed ? (before_step(step) + b) * array_row : step * array_step + row_of(b) * array_row;
  }

  // Whether the state before the t-th step of a row is zero by a reset. A reset cuts between two steps, so that the
  // reverse direction, which comes from the step after, looks there.
  bool is_reset(int64_t t, int64_t b) const {
    if (!reset || (reversed && t == 0)) return false;
    return reset[(step_of(t, b) + reversed) * reset_step + row_of(b) * reset_row];
  }

  // The rows among these that take step t.
  Range active_of(Range rows, int64_t t) const {
    return {rows.first, larger(rows.first, smaller(rows.last, active_at(t)))};
  }

  // The j-th of n parts of some rows, with about as many steps each.
  Range part_of_rows(Range rows, int64_t n, int64_t j) const {
    if (!length) {
      const Range own = part(rows.last - rows.first, n, j);
      return {rows.first + own.first, rows.first + own.last};
    }
    int64_t all = 0;
    for (int64_t b = rows.first; b < rows.last; ++b) all += length[b];
    const auto start = [&](int64_t j) {
      int64_t b = rows.first;
      for (int64_t taken = 0; b < rows.last && taken < part(all, n, j).first; ++b) taken += length[b];
      return b;
    };
    return {start(j), j + 1 == n ? rows.last : start(j + 1)};
  }
};

// Rows that are next to one another, and how many steps they take together before each.
struct Group {
  Range rows;
  const int64_t* before;  // (T + 1); null: all of them take each step

  int64_t count() const { return rows.last - rows.first; }
  int64_t before_step(int64_t t) const { return before ? before[t] : t * count(); }

  static Group all(const Steps& steps) { return {{0, steps.B}, steps.before}; }
  static void count_before(const Steps& steps, Range rows, int64_t* before) {
    before[0] = 0;
    for (int64_t t = 0; t < steps.T; ++t) {
      const Range active = steps.active_of(rows, t);
      before[t + 1] = before[t] + active.last - active.first;
    }
  }
};

// A thread's rows, its hidden units (vectors of them, or panels), and its panels of h.
struct Region {
  Range rows, units, h;
};

inline Region region_of(const Split& split, const Steps& steps, Range rows, int64_t units, int64_t h_panels,
                        int thread) {
  const int64_t of_units = thread % split.unit_parts;
  return {steps.part_of_rows(rows, split.row_parts, thread / split.unit_parts), part(units, split.unit_parts, of_units),
          part(h_panels, split.unit_parts, of_units)};
}

// Goes through the steps of a group's rows in the order of `before`: t after t, row after row.
struct Cursor {
  const Steps& steps;
  const Group group;
  int64_t t, b;

  // At the at-th of them, which is not before the first step `from`.
  Cursor(const Steps& steps, const Group& group, int64_t at, int64_t from = 0) : steps(steps), group(group), t(from) {
    if (!group.before) t = at / group.count();
    else
      while (t + 1 < steps.T && group.before[t + 1] <= at) ++t;
    b = group.rows.first + at - group.before_step(t);
  }
  void next() {
    if (++b < steps.active_of(group.rows, t).last) return;
    b = group.rows.first;
    ++t;
  }
};

// The parts of the scratch memory; with a null start only their size counts.
//
// They are arrays like any other and yet one piece of memory, in which AddressSanitizer would see no end of one part.
// So what is compiled for it leaves bytes free between them and tells it that nobody may touch those.
struct Parts {
  void* start;
  int64_t size = 0;
  template <class T>
  T* take(int64_t n) {
    char* part = start ? static_cast<char*>(start) + size : nullptr;
    const int64_t bytes = n * static_cast<int64_t>(sizeof(T));
    size += (bytes + 63) / 64 * 64;
#if defined(GATEWISE_SANITIZE_ADDRESS)
    size += 1024;
    if (start) ASAN_POISON_MEMORY_REGION(part + bytes, static_cast<char*>(start) + size - (part + bytes));
#endif
    return reinterpret_cast<T*>(part);
  }
};

// The sums of what bfloat16 would round stand here until they are whole; other numbers' stand where they belong.
template <class Number>
constexpr bool kRounds = !std::is_same_v<Number, Sum<Number>>;

// What a changed cell has for each unit and gate, or the sums that become their gradients, laid out as units and gates are.
template <class Number>
struct VariedScratch {
  Sum<Number>* peepholes;  // [vector of units][i, f, o][unit in it]
  Sum<Number> *gain_ih, *gain_hh;
  Sum<Number>* is_unit;    // 1 where a number of a row of gates has a row of weights, else 0
  Sum<Number>* bias;       // (of the gradients)
  Sum<Number> *gain_c, *bias_c;
  VariedScratch(const Layout<Number>& layout, Parts& parts) {
    const int64_t normalized = layout.cell.layer_norm;
    peepholes = parts.take<Sum<Number>>(layout.changed ? 3 * layout.padded : 0);
    gain_ih = parts.take<Sum<Number>>(normalized * layout.gates);
    gain_hh = parts.take<Sum<Number>>(normalized * layout.gates);
    is_unit = parts.take<Sum<Number>>(normalized * layout.gates);
    bias = parts.take<Sum<Number>>(normalized * layout.gates);
    gain_c = parts.take<Sum<Number>>(normalized * layout.padded);
    bias_c = parts.take<Sum<Number>>(normalized * layout.padded);
  }
};

// What layer normalization keeps of the steps of all rows: n of (7.19) of both products, laid out as the gates, and what
// they and the cells were shifted and scaled by.
template <class Number>
struct Normalized {
  struct Scales {
    Sum<Number> inverse_ih, inverse_hh, mean_c, inverse_c;  // 1 / s of (7.19)
  };
  Number *n_ih = nullptr, *n_hh = nullptr;  // each (steps, gates_row); null where nothing is kept
  Scales* scales = nullptr;                 // (steps)
  Normalized(const Layout<Number>& layout, Number* start) {
    if (!start) return;
    n_ih = start;
    n_hh = n_ih + layout.steps * layout.gates_row;
    scales = reinterpret_cast<Scales*>(n_hh + layout.steps * layout.gates_row);
  }

  static int64_t numbers(const Layout<Number>& layout) {
    return layout.steps * (2 * layout.gates_row + static_cast<int64_t>(sizeof(Scales) / sizeof(Number)));
  }
};

template <class Number>
struct ForwardScratch {
  Number *weight_ih, *weight_hh, *weight_hr;
  Sum<Number>* bias;
  Sum<Number>* start;       // what the input's products are added to: the bias, or, to be normalized, zeros
  Sum<Number>* sums;        // of a chunk of steps, in training, where the gates are rounded or go past the caches
  Number* zeros;            // h of a state that is none
  Sum<Number>* zero_cells;  // and its c
  Number* seen;             // the masked h that the gates see, of this step and the next one: (2, B, padded_h)
  Sum<Number>* products;    // with layer normalization: W_hh h of a step, (B, gates_row)
  Sum<Number>* rows;        // and c and o: (B, 2, padded)
  VariedScratch<Number> varied;
  int64_t bytes;
  ForwardScratch(const Layout<Number>& layout, bool training, void* start)
      : ForwardScratch(layout, training, Parts{start}) {}

 private:
  ForwardScratch(const Layout<Number>& layout, bool training, Parts parts) : varied(layout, parts) {
    weight_ih = parts.take<Number>(layout.gates * whole_groups<Number>(layout.I));
    weight_hh = parts.take<Number>(layout.gates * whole_groups<Number>(layout.P));
    weight_hr = parts.take<Number>(layout.projected ? whole_groups<Number>(layout.H) * layout.padded_h : 0);
    bias = parts.take<Sum<Number>>(layout.gates);
    start = layout.cell.layer_norm ? parts.take<Sum<Number>>(layout.gates) : bias;
    const bool apart = training && (kRounds<Number> || layout.far_gates);
    sums = parts.take<Sum<Number>>(apart ? layout.chunk_rows * layout.gates_row : 0);
    zeros = parts.take<Number>(layout.padded);
    zero_cells = parts.take<Sum<Number>>(layout.cells_row);
    seen = parts.take<Number>(layout.cell.drops_hidden ? 2 * layout.B * layout.padded_h : 0);
    products = parts.take<Sum<Number>>(layout.cell.layer_norm ? layout.B * layout.gates_row : 0);
    rows = parts.take<Sum<Number>>(layout.cell.layer_norm ? 2 * layout.B * layout.padded : 0);
    bytes = parts.size;
  }
};

template <class Number>
struct BackwardScratch {
  int64_t depth;                   // steps of a block of the parameter gradients' sums, at most
  Number *weight_ih, *weight_hh;   // packed for d_x and for d_h
  Number* weight_hr;               // packed for the gradient of what is projected
  Number *rows_ih, *rows_hh;       // packed rows of x and of h before each step, of each group
  Number* rows_hr;                 // packed rows of what is projected
  Number *columns, *columns_hr;    // d_a of a block of steps, of each group, and d_h, number after number
  Number* d_a;                     // of a chunk of each group's steps, as gates; with layer normalization, by W_hh h
  Number* d_a_ih;                  // and by W_ih x; without it the same memory
  Number* d_a_whole;               // and by the sum of both; likewise
  Number* d_a_next;                // and of the step after it: (B, gates_row)
  Number* zeros;                   // a row of d_a that is none
  Sum<Number>* zero_cells;         // c of a state that is none
  Sum<Number>* d_c;                // (B, padded), in an sLSTM (B, 4, padded): what goes on to step t - 1
  Sum<Number>* d_h_kept;           // with zoneout: (B, padded_h), and what of d_h does
  Sum<Number>* d_shown;            // with layer normalization: of a chunk of steps, by h, then by what the tanh sees
  Sum<Number>* d_a_o;              // and (B, padded)
  Number* seen;                    // the masked h of a block of steps, of each group
  Number* d_h_all;                 // where h is projected: d_h of all steps, (steps, padded_h)
  // Gradients that are sums over more than a block of steps: of the second group, and of every group where they are
  // rounded.
  Sum<Number> *sums_ih, *sums_hh, *sums_hr, *sums_bias;
  int64_t* before;                 // steps of each group's rows before each step
  VariedScratch<Number> varied, sums_varied[2];  // (of each group)
  int64_t bytes;
  BackwardScratch(const Layout<Number>& layout, void* start) : BackwardScratch(layout, Parts{start}) {}

  // With the second group's own copy of what is packed, so that its threads wait for no other and fetch from no other.
  BackwardScratch of_second(const Layout<Number>& layout) const {
    BackwardScratch own = *this;
    Parts parts{copy};
    own.take_packed(layout, parts);
    return own;
  }

 private:
  char* copy;

  void take_packed(const Layout<Number>& layout, Parts& parts) {
    weight_ih = parts.take<Number>(layout.gates * layout.padded_x);
    weight_hh = parts.take<Number>(layout.gates * layout.padded_h);
    zeros = parts.take<Number>(layout.gates);
    zero_cells = parts.take<Sum<Number>>(layout.cells_row);
  }

  BackwardScratch(const Layout<Number>& layout, Parts parts)
      : varied(layout, parts), sums_varied{{layout, parts}, {layout, parts}} {
    const int64_t groups = layout.groups;
    const bool in_blocks = groups > 1 || layout.back_chunks > 1 || layout.steps > layout.gradient_rows;
    const int64_t sums = kRounds<Number> ? in_blocks * groups : groups - 1;
    const int64_t normalized = layout.cell.layer_norm, of_chunk = layout.back_steps * layout.B;
    depth = whole_groups<Number>(smaller(layout.gradient_rows, layout.steps));
    const int64_t before_packed = parts.size;
    take_packed(layout, parts);
    const int64_t packed_bytes = parts.size - before_packed;
    weight_hr = parts.take<Number>(layout.projected ? whole_groups<Number>(layout.P) * layout.padded : 0);
    rows_ih = parts.take<Number>(groups * depth * layout.padded_x);
    rows_hh = parts.take<Number>(groups * depth * layout.padded_h);
    rows_hr = parts.take<Number>(layout.projected ? depth * layout.padded : 0);
    columns = parts.take<Number>(groups * depth * layout.gates);
    columns_hr = parts.take<Number>(layout.projected ? depth * layout.padded_h : 0);
    d_a = parts.take<Number>(of_chunk * layout.gates_row);
    d_a_ih = normalized ? parts.take<Number>(of_chunk * layout.gates_row) : d_a;
    d_a_whole = normalized ? parts.take<Number>(of_chunk * layout.gates_row) : d_a;
    d_a_next = parts.take<Number>(layout.back_chunks > 1 ? layout.B * layout.gates_row : 0);
    d_c = parts.take<Sum<Number>>(layout.B * layout.cells_row);
    d_h_kept = parts.take<Sum<Number>>(layout.cell.zoneout_h > 0 ? layout.B * layout.padded_h : 0);
    d_shown = parts.take<Sum<Number>>(normalized * of_chunk * layout.padded);
    d_a_o = parts.take<Sum<Number>>(normalized * layout.B * layout.padded);
    seen = parts.take<Number>(layout.cell.drops_hidden ? groups * depth * layout.padded_h : 0);
    d_h_all = parts.take<Number>(layout.projected ? layout.steps * layout.padded_h : 0);
    sums_ih = parts.take<Sum<Number>>(sums * 4 * layout.H * layout.I);
    sums_hh = parts.take<Sum<Number>>(sums * 4 * layout.H * layout.P);
    sums_hr = parts.take<Sum<Number>>(layout.projected ? sums * layout.P * layout.H : 0);
    sums_bias = parts.take<Sum<Number>>(sums * 4 * layout.H);
    before = parts.take<int64_t>(groups > 1 ? groups * (layout.T + 1) : 0);
    copy = parts.take<char>((layout.copies - 1) * packed_bytes);
    bytes = parts.size;
  }
};

}  // namespace gatewise::GATEWISE_ISA
