// The contract between the core and its callers. The core takes pointers and sizes; it allocates nothing and checks
// nothing: whoever calls it must have done both (src/gatewise/kernels for NumPy, operators.cpp for torch).
//
// T, B, I, H as everywhere: steps, batch rows, inputs, hidden units; P is the width of h, which is H, or less where
// weight_hr projects it. Where an array has 4H rows it has 3H with coupled gates (i, g, o), and a (B, H) array of c has
// 3H columns, c, n and m, in an sLSTM. Numbers are float, double or bfloat16, named `Number` here; sums are float where
// the numbers are bfloat16, and each is rounded once, at its end. Step t of row b of a strided array stands at `array +
// t * array_step + b * array_row`; its last axis is contiguous. Arrays without strides are contiguous. No output may
// overlap another array of the call.
#pragma once

#include <cstdint>
#include <type_traits>

namespace gatewise {

// The upper half of a float's bits.
struct bfloat16 {
  uint16_t bits;
};

// What sums, and the cells from step to step, are kept in.
template <class Number>
using Sum = std::conditional_t<std::is_same_v<Number, bfloat16>, float, Number>;

// What a gate's pre-activation goes through; `exponential` is for the forget gate of an sLSTM.
enum class GateActivation { sigmoid, hardsigmoid, step, exponential };

// What is changed of the plain cell, as reference/variant.py says it; all zero: nothing.
struct Cell {
  bool slstm, peephole, coupled, layer_norm;
  GateActivation gate;
  bool linear_candidate, linear_cell;   // in place of tanh
  bool drops_candidate, drops_hidden;   // whether the call has these masks (weights come with theirs in them)
  double zoneout_h, zoneout_c;          // rates; they are taken where there is no mask

  // From one number, by which torch's operators and Python say it: the bits are in the order of the fields above, those of
  // the gates' activation the last two.
  static Cell of_bits(int64_t bits, double zoneout_h, double zoneout_c) {
    const auto bit = [&](int n) { return (bits >> n & 1) != 0; };
    return {bit(0), bit(1), bit(2), bit(3), static_cast<GateActivation>(bits >> 8 & 3), bit(4), bit(5), bit(6), bit(7),
            zoneout_h, zoneout_c};
  }
  bool is_plain() const {
    return !(slstm || peephole || coupled || layer_norm || linear_candidate || linear_cell || drops_candidate ||
             drops_hidden) && gate == GateActivation::sigmoid && zoneout_h == 0 && zoneout_c == 0;
  }
  int64_t gates() const { return coupled ? 3 : 4; }   // blocks of rows in the weights: with coupled gates i, g, o
  int64_t states() const { return slstm ? 3 : 1; }    // of H numbers each, beside h: c, or c, n and m
};

struct Sizes {
  int64_t T, B, I, H, P;
  int64_t steps;    // of all rows together: T * B where all are equally long
  int64_t threads;  // at most this many are used
  Cell cell = {};
};

// Which steps each row takes, and where they stand. All zero: T steps each, first to last.
//
// The core goes through rows of different lengths in an order of descending length: those that take step t are the
// first ones. `order` says which of the caller's rows each one is. A (B, H) array is in the caller's order.
struct Walk {
  bool reversed;           // from a row's last step to its first
  const int64_t* length;   // (B) in the core's order, each from 0 to T; null: all T, and so are the next three
  const int64_t* order;    // (B)
  const int64_t* active;   // (T): rows with more than t steps
  const int64_t* before;   // (T + 1): steps of all rows before step t, the sums of `active`
  bool packed;             // x, h and their gradients are (steps, ·): step t of a row r of the core's at before[t] + r
  const bool* reset;       // (T, B), strided: the state is not handed on from step t - 1 to t; null: it always is
  int64_t reset_step, reset_row;
};

// How many numbers of the call's type the caller allocates for each of these arrays, whatever they hold; their layout
// is the core's own and depends on the instruction set.
struct Plan {
  int64_t gates;             // training: the activated gates of all steps; inference: sums of a few steps
  int64_t cells;             // training: c of all steps and before them; inference: the current one
  int64_t unprojected;       // where h is projected, o tanh(c), training: of all steps; inference: of the current one
  int64_t normalized;        // with layer normalization, training: what it made of the products of all steps
  int64_t forward_scratch;
  int64_t backward_scratch;
};

// What a call finds of the weights. `kept`: its scratch memory is as an earlier call with `to_keep` left it, with the
// same sizes but for T and the threads; weight_ih, weight_hh and weight_hr are packed there and not read.
enum class Weights { given, to_keep, kept };

// What a changed cell computes with besides; null: it has no such thing. The masks are in the caller's steps and rows,
// whether sequences are packed or not, and contiguous.
template <class Number>
struct Varied {
  const Number* weight_ch;         // rows i, f, o: (3H); with coupled gates i, o: (2H)
  const Number* gain_ih;           // (4H), with coupled gates (3H), as gain_hh
  const Number* gain_hh;
  const Number* gain_c;            // (H), as bias_c
  const Number* bias_c;
  const Sum<Number>* zoneout_h;    // (T, B, P), 1 where h stays; null: the rate, as of c
  const Sum<Number>* zoneout_c;    // (T, B, H)
  const Sum<Number>* candidate;    // (T, B, H)
  const Sum<Number>* hidden;       // (B, P)
};

// Their gradients; null: not wanted.
template <class Number>
struct VariedGradients {
  Number *weight_ch, *gain_ih, *gain_hh, *gain_c, *bias_c;
};

template <class Number>
struct ForwardCall {
  Sizes sizes;
  Walk walk;
  bool training;             // keep gates and cells for backward
  Weights weights = Weights::given;
  const Number* x;           // (T, B, I), strided
  int64_t x_step, x_row;
  const Number* h_0;         // (B, P); null: zeros
  const Number* c_0;         // (B, H); null: zeros
  Sum<Number>* c = nullptr;  // (B, H): c before the call and after it, in place of c_0 and c_n; null: those
  const Number* weight_ih;   // (4H, I), rows i, f, g, o
  const Number* weight_hh;   // (4H, P)
  const Number* bias_ih;     // (4H) or null, as bias_hh
  const Number* bias_hh;
  const Number* weight_hr;   // (P, H); read only where P is not H, as `unprojected`
  Number* h;                 // (T, B, P), strided; output
  int64_t h_step, h_row;
  Number* h_n;               // (B, P); output
  Number* c_n;               // (B, H); output
  Number* gates;             // Plan::gates, from a multiple of 64 bytes on; output if training
  Sum<Number>* cells;        // Plan::cells; output if training
  Number* unprojected;       // Plan::unprojected; output if training
  void* scratch;             // Plan::forward_scratch
  Varied<Number> varied = {};
  Number* normalized = nullptr;  // Plan::normalized; output if training
};

template <class Number>
struct BackwardCall {
  Sizes sizes;
  Walk walk;                 // as it was in the forward call
  const Number* x;           // as they were in the forward call, from here …
  int64_t x_step, x_row;
  const Number* h_0;
  const Number* weight_ih;
  const Number* weight_hh;
  const Number* weight_hr;
  const Number* h;
  int64_t h_step, h_row;
  const Sum<Number>* cells;
  const Number* unprojected; // … to here
  const Number* gates;       // of the training forward call
  const Number* d_h;         // (T, B, P), strided; null: zero
  int64_t d_h_step, d_h_row;
  const Number* d_h_n;       // (B, P); null: zero
  const Number* d_c_n;       // (B, H); null: zero
  Number* d_x;               // (T, B, I), strided; null: not wanted
  int64_t d_x_step, d_x_row;
  bool add_to_d_x;           // add to what d_x holds (the second direction of a layer) instead of writing over it: the
                             // one sum that bfloat16 rounds twice, as two directions make two gradients
  Number* d_h_0;             // (B, P); null: not wanted
  Number* d_c_0;             // (B, H); null: not wanted
  Number* d_weight_ih;       // (4H, I); null: not wanted
  Number* d_weight_hh;       // (4H, P); null: not wanted
  Number* d_bias;            // (4H), of either bias; null: not wanted
  Number* d_weight_hr;       // (P, H); null: not wanted
  void* scratch;             // Plan::backward_scratch
  Varied<Number> varied = {};               // as in the forward call
  const Number* normalized = nullptr;       // of the training forward call
  VariedGradients<Number> d_varied = {};
};

// What a training forward call has kept, read out: nothing of the core's own layout is left.
template <class Number>
struct ActivationsCall {
  Sizes sizes;
  Walk walk;                 // as they were in the forward call, from here …
  const Number* gates;
  const Sum<Number>* cells;  // … to here
  Sum<Number>* to[5];        // i, f, g, o and c, each (T, B, H) whether packed or not; nothing is written past a row's
                             // length; output
};

// One instruction set's code for one type of number.
template <class Number>
struct KernelsFor {
  Plan (*plan)(const Sizes&, bool training);
  void (*forward)(const ForwardCall<Number>&);
  void (*backward)(const BackwardCall<Number>&);
  void (*activations)(const ActivationsCall<Number>&);
};

// A random mask: `count` numbers, each `value` where 32 random bits are below a bound, and 0 elsewhere.
struct Draw {
  int64_t count;
  uint64_t seed, below;  // below: at most 2^32
  double value;
};

// One instruction set's code.
struct Kernels {
  const char* name;
  bool (*supported)();       // does this machine have it?
  KernelsFor<float> for_float;
  KernelsFor<double> for_double;
  KernelsFor<bfloat16> for_bfloat16;
  // sigmoid, tanh and the others of csrc/math.hpp of n numbers, so that their error can be swept, and n numbers rounded and
  // widened, likewise
  void (*sigmoid_float)(const float* x, float* y, int64_t n);
  void (*sigmoid_double)(const double* x, double* y, int64_t n);
  void (*tanh_float)(const float* x, float* y, int64_t n);
  void (*tanh_double)(const double* x, double* y, int64_t n);
  void (*exp_of_negative_float)(const float* x, float* y, int64_t n);
  void (*exp_of_negative_double)(const double* x, double* y, int64_t n);
  void (*log_sigmoid_float)(const float* x, float* y, int64_t n);
  void (*log_sigmoid_double)(const double* x, double* y, int64_t n);
  void (*to_bfloat16)(const float* x, bfloat16* y, int64_t n);
  void (*from_bfloat16)(const bfloat16* x, float* y, int64_t n);
  // csrc/draw.hpp
  void (*draw_float)(const Draw& draw, float* to);
  void (*draw_double)(const Draw& draw, double* to);

  template <class Number>
  const KernelsFor<Number>& of() const {
    if constexpr (std::is_same_v<Number, float>) return for_float;
    else if constexpr (std::is_same_v<Number, double>) return for_double;
    else return for_bfloat16;
  }
};

// Whether this process is the child of a fork. It has none of its parent's threads, and OpenMP would wait for them for
// ever: there a call runs on one thread, with the same results.
bool forked();

// Seconds that it takes, on average over some repeats, to have `threads` threads begin and end together with nothing to
// do: what every call that is shared among threads costs at least.
double fork_join(int64_t threads, int64_t repeats);

// All instruction sets compiled in, the best first.
const Kernels* const* all_kernels(int* count);

// The one in use: the best that the machine supports, until another is chosen.
const Kernels& kernels();
void use_kernels(const Kernels* chosen);

}  // namespace gatewise
