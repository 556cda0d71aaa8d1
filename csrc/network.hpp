// A call of an LSTM as torch has it: the tensors' sizes and checks, and the way from a tensor to the core's pointers.
#pragma once

#include <ATen/EmptyTensor.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <cstring>
#include <numeric>
#include <optional>
#include <string>
#include <vector>

#include "kernels.hpp"

namespace gatewise::of_torch {

using at::Tensor;
using at::TensorList;
using OptionalTensor = std::optional<Tensor>;

inline bool is(const OptionalTensor& x) { return x.has_value() && x->defined(); }

// Whether the core has code for numbers of a type.
inline bool is_served(at::ScalarType type) { return type == at::kFloat || type == at::kDouble || type == at::kBFloat16; }

// body(Number{}) for the numbers of a type that is served.
template <class Body>
auto with_number(at::ScalarType type, const Body& body) {
  if (type == at::kFloat) return body(float{});
  if (type == at::kDouble) return body(double{});
  return body(gatewise::bfloat16{});
}

// As at::empty, without the way through the dispatcher, which takes as long as a step of a small network.
inline Tensor new_tensor(at::IntArrayRef sizes, at::ScalarType type) {
  return at::detail::empty_cpu(sizes, type, false, std::nullopt);
}

// What a call is about besides its tensors of numbers.
struct Options {
  int64_t num_layers;
  bool bidirectional, batch_first;
  OptionalTensor lengths;      // (B) int64: the steps of each row
  OptionalTensor reset;        // (T, B) bool, or (B, T) if batch_first: no state is handed on from step t - 1 to t
  OptionalTensor batch_sizes;  // (T) int64, not growing: sequences are packed, (sum of batch_sizes, ·), as in torch
  int64_t cell = 0;            // as gatewise::Cell::of_bits has it, and the rates
  double zoneout_h = 0, zoneout_c = 0;
  TensorList masks = {};       // those that there are of zoneout_h, zoneout_c, candidate and hidden, each (L·D, ·) as
                               // in gatewise::Varied, and of weight_hh, each (L·D, 4H, P); with zoneout both that have a
                               // rate or, in evaluation, none
};

// The weights of one layer and direction, in their order.
enum Kind : int8_t {
  kWeightIH, kWeightHH, kBiasIH, kBiasHH, kWeightHR, kWeightCH, kGainIH, kGainHH, kGainC, kBiasC, kKinds
};
constexpr const char* kKindNames[kKinds] = {"weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr",
                                            "weight_ch", "gain_ih",   "gain_hh", "gain_c",  "bias_c"};

// The masks of one call, in their order.
enum MaskKind : int8_t { kZoneoutH, kZoneoutC, kCandidate, kHidden, kDropped, kMasks };
constexpr const char* kMaskNames[kMasks] = {"zoneout_h", "zoneout_c", "candidate", "hidden", "weight_hh"};
// The bit behind those that gatewise::Cell has: whether weight_hh has a mask, which the core never sees.
constexpr int64_t kDropsWeights = 1 << 10;

// How many operands a call has, how large they are, and which steps its rows take.
struct Network {
  int64_t layers, directions;
  gatewise::Cell cell;
  bool drops_weights;
  int64_t per_direction = 0;  // weights of a layer's direction
  int8_t place[kKinds];       // where each kind stands among them; -1: there is none
  bool bias = false, projected = false;
  bool batch_first, packed;
  int64_t T, B, I, H, P;
  int64_t steps;              // of all rows
  std::vector<int64_t> length, order, active, before;  // as in gatewise::Walk; empty where all rows take T steps
  Tensor reset;
  Tensor masks[kMasks];       // contiguous; undefined: there is none

  Network(const Tensor& input, TensorList weights, const Options& options)
      : layers(options.num_layers), directions(options.bidirectional ? 2 : 1),
        cell(gatewise::Cell::of_bits(options.cell, options.zoneout_h, options.zoneout_c)),
        drops_weights((options.cell & kDropsWeights) != 0),
        batch_first(options.batch_first), packed(is(options.batch_sizes)) {
    TORCH_CHECK(layers > 0, "num_layers is ", layers, ", needed at least 1");
    if (options.cell != 0 || options.zoneout_h != 0 || options.zoneout_c != 0) check_cell(options);
    place_weights(static_cast<int64_t>(weights.size()));
    if (packed) {
      read_batch_sizes(input, options);
    } else {
      TORCH_CHECK(input.dim() == 3, "input has shape ", input.sizes(), ", needed three axes: time, batch and input");
      T = input.size(batch_first ? 1 : 0);
      B = input.size(batch_first ? 0 : 1);
      TORCH_CHECK(T > 0, "input has shape ", input.sizes(), ", needed at least one step");
      steps = T * B;
      if (is(options.lengths)) read_lengths(*options.lengths);
    }
    if (is(options.reset)) read_reset(*options.reset);
    I = input.size(-1);
    H = weights[0].dim() == 2 ? weights[0].size(0) / cell.gates() : 0;
    P = weights[1].dim() == 2 ? weights[1].size(1) : 0;
    TORCH_CHECK(projected ? P < H : P == H, "weight_hh_l0 has shape ", weights[1].sizes(), " and weight_ih_l0 ",
                weights[0].sizes(), ", needed ", rows_and("H"), ", or with weight_hr ", rows_and("P"),
                " with P less than H, and ", rows_and("I"));
    check(weights, input);
  }

  int64_t input_size(int64_t layer) const { return layer ? directions * P : I; }
  int64_t states() const { return cell.states() * H; }  // numbers of c, or of c, n and m, of a row
  bool has(Kind kind) const { return place[kind] >= 0; }
  std::string rows_and(const char* axis) const { return "[" + std::to_string(cell.gates()) + "H, " + axis + "]"; }

  // The core does not ask whether changes go together.
  static void check_cell(const Options& options) {
    const gatewise::Cell cell = gatewise::Cell::of_bits(options.cell, options.zoneout_h, options.zoneout_c);
    const auto is_rate = [](double rate) { return 0 <= rate && rate < 1; };
    TORCH_CHECK(0 <= options.cell && options.cell < 1 << 11, "cell is ", options.cell, ", needed from 0 to 2047");
    TORCH_CHECK(is_rate(cell.zoneout_h) && is_rate(cell.zoneout_c), "zoneout is ", cell.zoneout_h, " and ",
                cell.zoneout_c, ", needed rates from 0 to below 1");
    const bool exponential = cell.gate == gatewise::GateActivation::exponential;
    const bool others = cell.peephole || cell.coupled || cell.layer_norm || cell.linear_cell || cell.zoneout_h != 0 ||
                        cell.zoneout_c != 0 || (cell.gate != gatewise::GateActivation::sigmoid && !exponential);
    TORCH_CHECK(cell.slstm ? !others : !exponential, "cell is ", options.cell,
                ", whose changes do not go together: see gatewise.reference.variant");
  }

  // torch's own come first, those of a changed cell behind them: gatewise.reference.variant has the order.
  void place_weights(int64_t count) {
    per_direction = count / (layers * directions);
    const int64_t own = per_direction - cell.peephole - (cell.layer_norm ? 3 : 0), biases = cell.layer_norm ? 3 : 2;
    bias = own >= 2 + biases;
    projected = own == 3 + (bias ? biases : 0);
    TORCH_CHECK((own == 2 || own == 3 || own == 2 + biases || own == 3 + biases) &&
                    count == per_direction * layers * directions,
                "there are ", count, " weights, needed ", 2 + cell.peephole + (cell.layer_norm ? 3 : 0), ", ",
                biases == 2 ? "two" : "three", " more with biases and one more with a projection, for each of ", layers,
                " layers and ", directions, " directions");
    int8_t next = 0;
    const auto put = [&](Kind kind, bool there) { place[kind] = there ? next++ : -1; };
    put(kWeightIH, true);
    put(kWeightHH, true);
    put(kBiasIH, bias);
    put(kBiasHH, bias);
    put(kWeightHR, projected);
    put(kWeightCH, cell.peephole);
    put(kGainIH, cell.layer_norm);
    put(kGainHH, cell.layer_norm);
    put(kGainC, cell.layer_norm);
    put(kBiasC, cell.layer_norm && bias);
  }

  void read_batch_sizes(const Tensor& input, const Options& options) {
    const Tensor& sizes = *options.batch_sizes;
    TORCH_CHECK(!is(options.lengths) && !is(options.reset), "lengths and reset are for sequences that are not packed");
    TORCH_CHECK(input.dim() == 2, "input has shape ", input.sizes(), ", needed two axes where it is packed");
    check_integers("batch_sizes", sizes);
    TORCH_CHECK(sizes.size(0) > 0, "batch_sizes is empty, needed at least one step");
    const int64_t* size = sizes.const_data_ptr<int64_t>();
    T = sizes.size(0);
    B = size[0];
    active.assign(size, size + T);
    for (int64_t t = 0; t < T; ++t)
      TORCH_CHECK(active[t] > 0 && (t == 0 || active[t] <= active[t - 1]),
                  "batch_sizes must be positive and never grow");
    sum_up();
    TORCH_CHECK(input.size(0) == steps, "input has shape ", input.sizes(), ", needed ", steps,
                " rows, the sum of batch_sizes");
    order.resize(B);
    std::iota(order.begin(), order.end(), 0);
    length.assign(B, 0);
    for (int64_t b = 0; b < B; ++b)
      while (length[b] < T && active[length[b]] > b) ++length[b];
  }

  void read_lengths(const Tensor& lengths) {
    check_integers("lengths", lengths);
    TORCH_CHECK(lengths.size(0) == B, "lengths has shape ", lengths.sizes(), ", needed [", B, "]");
    const int64_t* given = lengths.const_data_ptr<int64_t>();
    TORCH_CHECK(std::all_of(given, given + B, [&](int64_t n) { return 0 <= n && n <= T; }),
                "lengths must be from 0 to ", T);
    order.resize(B);
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return given[a] > given[b]; });
    for (const int64_t row : order) length.push_back(given[row]);
    active.assign(T, 0);
    for (const int64_t n : length)
      if (n > 0) ++active[n - 1];
    for (int64_t t = T - 2; t >= 0; --t) active[t] += active[t + 1];
    sum_up();
  }

  void sum_up() {
    before.assign(T + 1, 0);
    std::partial_sum(active.begin(), active.end(), before.begin() + 1);
    steps = before[T];
  }

  void read_reset(const Tensor& mask) {
    const int64_t needed[2] = {batch_first ? B : T, batch_first ? T : B};
    TORCH_CHECK(mask.sizes() == at::IntArrayRef(needed, 2), "reset has shape ", mask.sizes(), ", needed ",
                at::IntArrayRef(needed, 2));
    TORCH_CHECK(mask.scalar_type() == at::kBool && mask.is_cpu() && mask.layout() == at::kStrided,
                "reset must be a strided bool tensor on the cpu");
    reset = mask;
  }

  static void check_integers(const char* name, const Tensor& x) {
    TORCH_CHECK(x.dim() == 1 && x.scalar_type() == at::kLong && x.is_cpu() && x.is_contiguous(), name,
                " must be a contiguous int64 tensor of one axis on the cpu");
  }

  gatewise::Sizes sizes(int64_t layer) const {
    return {T, B, input_size(layer), H, P, steps, at::get_num_threads(), cell};
  }

  gatewise::Walk walk(int64_t direction) const {
    const auto table = [](const std::vector<int64_t>& x) { return x.empty() ? nullptr : x.data(); };
    const bool cut = reset.defined();
    return {direction == 1, table(length), table(order), table(active), table(before), packed,
            cut ? reset.const_data_ptr<bool>() : nullptr, cut ? reset.stride(batch_first ? 1 : 0) : 0,
            cut ? reset.stride(batch_first ? 0 : 1) : 0};
  }

  // The core reads as far as these sizes say: nothing may be smaller.
  void check(TensorList weights, const Tensor& input) const {
    const int64_t rows = cell.gates() * H;
    const auto shape_of = [&](int kind, int64_t layer) -> c10::SmallVector<int64_t, 2> {
      switch (kind) {
        case kWeightIH: return {rows, input_size(layer)};
        case kWeightHH: return {rows, P};
        case kWeightHR: return {P, H};
        case kWeightCH: return {rows - H};  // the candidate has none
        case kGainC: case kBiasC: return {H};
        default: return {rows};
      }
    };
    int8_t kinds[kKinds];
    for (int8_t kind = 0; kind < kKinds; ++kind)
      if (place[kind] >= 0) kinds[place[kind]] = kind;
    check_numbers("input", input, input);
    for (size_t j = 0; j < weights.size(); ++j) {
      const int64_t number = static_cast<int64_t>(j) / per_direction;
      const int8_t kind = kinds[static_cast<int64_t>(j) % per_direction];
      const auto needed = shape_of(kind, number / directions);
      const at::IntArrayRef shape(needed);
      const auto name = [&] {
        return std::string(kKindNames[kind]) + "_l" + std::to_string(number / directions) +
               (number % directions ? "_reverse" : "");
      };
      TORCH_CHECK(weights[j].sizes() == shape, name(), " has shape ", weights[j].sizes(), ", needed ", shape);
      if (weights[j].scalar_type() != input.scalar_type() || !weights[j].is_cpu() ||
          weights[j].layout() != at::kStrided)
        check_numbers(name(), weights[j], input);
    }
  }

  static void check_numbers(const std::string& name, const Tensor& x, const Tensor& input) {
    TORCH_CHECK(x.is_cpu() && x.layout() == at::kStrided, name, " is on ", x.device(), " with layout ", x.layout(),
                ", needed a strided tensor on the cpu");
    TORCH_CHECK(is_served(x.scalar_type()), name, " is ", x.scalar_type(), ", needed float32, float64 or bfloat16");
    TORCH_CHECK(x.scalar_type() == input.scalar_type(), name, " is ", x.scalar_type(), " and the input ",
                input.scalar_type(), ": convert one of them");
  }

  // Of a call that computes: what has been computed is read without them.
  void read_masks(TensorList given, const Tensor& input) {
    if (cell.is_plain() && !drops_weights && given.empty()) return;
    const bool dropped[kMasks] = {cell.zoneout_h != 0, cell.zoneout_c != 0, cell.drops_candidate, cell.drops_hidden,
                                  drops_weights};
    const size_t zoned = dropped[kZoneoutH] + dropped[kZoneoutC];
    const size_t drops = dropped[kCandidate] + dropped[kHidden] + dropped[kDropped];
    TORCH_CHECK(given.size() == drops || given.size() == zoned + drops, "there are ", given.size(), " masks, needed ",
                zoned + drops, " for this cell",
                zoned == 0 ? std::string() : ", or " + std::to_string(drops) + " in evaluation");
    const bool are_zoned = given.size() != drops;
    const at::ScalarType type = input.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
    size_t next = 0;
    for (int kind = 0; kind < kMasks; ++kind) {
      if (!dropped[kind] || (kind <= kZoneoutC && !are_zoned)) continue;
      const Tensor& mask = given[next++];
      const int64_t cells = layers * directions, width = kind == kZoneoutC || kind == kCandidate ? H : P;
      const auto shape = [&]() -> c10::SmallVector<int64_t, 4> {
        if (kind == kHidden) return {cells, B, width};
        if (kind == kDropped) return {cells, cell.gates() * H, width};
        return {cells, T, B, width};
      }();
      const std::string rows = kind == kHidden ? "B" : kind == kDropped ? std::to_string(cell.gates()) + "H" : "T, B";
      TORCH_CHECK(mask.sizes() == at::IntArrayRef(shape), kMaskNames[kind], " has shape ", mask.sizes(),
                  ", needed [L·D, ", rows, width == H ? ", H" : ", P", "] = ", at::IntArrayRef(shape));
      TORCH_CHECK(mask.scalar_type() == type && mask.is_cpu() && mask.layout() == at::kStrided, kMaskNames[kind],
                  " is ", mask.scalar_type(), " on ", mask.device(), ", needed a strided ", type, " tensor on the cpu");
      masks[kind] = mask.contiguous();
    }
  }

  void check_state(const char* name, const OptionalTensor& state, int64_t width, const Tensor& input) const {
    if (!is(state)) return;
    const int64_t needed[3] = {layers * directions, B, width};
    TORCH_CHECK(state->sizes() == at::IntArrayRef(needed, 3), name, " has shape ", state->sizes(), ", needed ",
                at::IntArrayRef(needed, 3));
    check_numbers(name, *state, input);
  }

  // Layers speak (T, B, ·) to one another: the order in which torch draws dropout's masks.
  bool output_batch_first(int64_t layer) const { return batch_first && layer == layers - 1; }
  bool input_batch_first(int64_t layer) const { return batch_first && layer == 0; }
  Tensor new_sequence(bool batch_first, int64_t width, at::ScalarType type) const {
    if (packed) return new_tensor({steps, width}, type);
    const Tensor x = batch_first ? new_tensor({B, T, width}, type) : new_tensor({T, B, width}, type);
    if (!length.empty()) zero_past_ends(x, batch_first);
    return x;
  }

  // Of a contiguous tensor.
  void zero_past_ends(const Tensor& x, bool batch_first) const {
    const size_t row = x.size(2) * x.element_size();
    char* start = static_cast<char*>(x.mutable_data_ptr());
    for (int64_t b = 0; b < B; ++b)
      for (int64_t t = length[b]; t < T; ++t)
        std::memset(start + (batch_first ? order[b] * T + t : t * B + order[b]) * row, 0, row);
  }
};

// What torch calls the core's numbers.
template <class Number>
using InTorch = std::conditional_t<std::is_same_v<Number, gatewise::bfloat16>, at::BFloat16, Number>;

template <class Number>
Number* data(const Tensor& x, int64_t offset = 0) {
  using Plain = std::remove_const_t<Number>;
  return x.defined() ? reinterpret_cast<Plain*>(x.mutable_data_ptr<InTorch<Plain>>()) + offset : nullptr;
}

template <class Number>
const Number* data(const OptionalTensor& x, int64_t offset = 0) {
  return is(x) ? reinterpret_cast<const Number*>(x->const_data_ptr<InTorch<Number>>()) + offset : nullptr;
}

template <class Number>
const gatewise::KernelsFor<Number>& core() {
  return gatewise::kernels().of<Number>();
}

}  // namespace gatewise::of_torch
