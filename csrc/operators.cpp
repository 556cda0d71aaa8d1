// The LSTM as torch operators: all layers and directions in one call, differentiated in C++.
//
//   gatewise::lstm            the values alone, and what the modules call; autograd sends it to the next two
//   gatewise::lstm_training   the values and what backward needs
//   gatewise::lstm_backward   the gradients
//   gatewise::lstm_activations  the gates and cells, read out of what backward needs
//
// With network.hpp, masks.cpp and stream.cpp all that knows torch's C++. A training step of a small network takes a tenth
// of a millisecond, and a Python autograd.Function alone takes most of that: this is why it is worth compiling against torch.
//
// The weights are one list: weight_ih, weight_hh, then bias_ih and bias_hh where there are biases, then weight_hr where
// h is projected, then those of a changed cell, of layer 0 forward, then of layer 0 reverse if bidirectional, then of
// layer 1, and so on, as torch orders them. What is changed is said by bits, rates and masks: network.hpp.
#include <ATen/LegacyBatchedTensorImpl.h>
#include <ATen/PythonTorchFunctionTLS.h>
#include <ATen/autocast_mode.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <c10/core/impl/TorchDispatchModeTLS.h>
#include <torch/csrc/Exceptions.h>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/functions/utils.h>
#include <torch/csrc/autograd/python_variable.h>
#include <torch/csrc/autograd/saved_variable.h>
#include <torch/library.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "masks.hpp"
#include "network.hpp"
#include "stream.hpp"

namespace {

using namespace gatewise::of_torch;
using Saved = torch::autograd::SavedVariable;
using Three = std::tuple<Tensor, Tensor, Tensor>;
using ThreeAndKept = std::tuple<Tensor, Tensor, Tensor, std::vector<Tensor>>;

// ------------------------------------------------------------------------------------------------- memory

// Memory to compute in, one piece a thread, kept from call to call and grown as needed; given back after many calls in
// a row that need less than a quarter of it.
void* scratch(int64_t bytes) {
  struct Free {
    void operator()(void* memory) const { std::free(memory); }
  };
  constexpr int64_t kSmall = 1 << 20;
  constexpr int kMany = 64;
  thread_local std::unique_ptr<void, Free> memory;
  thread_local int64_t size = 0;
  thread_local int too_large = 0;
  too_large = size > kSmall && bytes < size / 4 ? too_large + 1 : 0;
  if (size < bytes || too_large > kMany) {
    too_large = 0;
    memory.reset();
    size = (bytes + 63) / 64 * 64;
    memory.reset(std::aligned_alloc(64, size));
    if (!memory) {
      size = 0;
      TORCH_CHECK_WITH(OutOfMemoryError, false, "no memory for ", bytes, " bytes of scratch");
    }
  }
  return memory.get();
}

// What forward keeps for backward is as large as all activations together, and every training step takes as much again.
// Memory fresh from the system costs more than filling it, so what backward has used is kept for the next step: never
// more than was in use at one time, of late.
class Pool {
 public:
  static Tensor take(int64_t count, at::ScalarType type) {
    const int64_t bytes = count * static_cast<int64_t>(at::elementSize(type));
    if (bytes < kWorthwhile) {
      all().idle();
      return new_tensor({count}, type);
    }
    const size_t size = rounded(bytes);
    void* memory = all().reuse(size);
    if (!memory) memory = std::aligned_alloc(64, size);
    if (!memory) {
      all().drop();
      memory = std::aligned_alloc(64, size);
    }
    if (!memory) all().forget(size);
    TORCH_CHECK_WITH(OutOfMemoryError, memory, "no memory for ", size, " bytes of activations");
    return at::from_blob(memory, {count}, [size](void* used) { all().give_back(used, size); }, type);
  }

 private:
  static constexpr int64_t kWorthwhile = 32 * 1024;

  // Never destroyed: tensors may outlive everything else.
  static Pool& all() {
    static Pool* const pool = new Pool;
    return *pool;
  }

  // To the next of four sizes between powers of two, so that sequences of nearly the same length share memory. Pages
  // that are never touched take none.
  static size_t rounded(int64_t bytes) {
    size_t step = 64;
    while (8 * step <= static_cast<size_t>(bytes)) step *= 2;
    return (static_cast<size_t>(bytes) + step - 1) / step * step;
  }

  void* reuse(size_t size) {
    const std::lock_guard<std::mutex> lock(mutex_);
    idle_ = 0;
    in_use_ += size;
    most_of_step_ = std::max(most_of_step_, in_use_);
    most_ = std::max(most_, in_use_);
    const auto found = free_.find(size);
    if (found == free_.end()) {
      shrink(most_ - std::min(most_, in_use_));
      return nullptr;
    }
    void* memory = found->second;
    free_.erase(found);
    held_ -= size;
    return memory;
  }

  void give_back(void* memory, size_t size) {
    const std::lock_guard<std::mutex> lock(mutex_);
    in_use_ -= size;
    free_.emplace(size, memory);
    held_ += size;
    if (in_use_ == 0) end_step();
    shrink(most_ - std::min(most_, in_use_));
  }

  // After a step of long sequences, some dozens of short ones bring it down.
  void end_step() {
    most_ = std::max(most_of_step_, most_ - most_ / 8);
    most_of_step_ = 0;
  }

  // Of calls too small for the pool many in a row do so too.
  void idle() {
    constexpr int kMany = 64;
    const std::lock_guard<std::mutex> lock(mutex_);
    if (held_ == 0 || in_use_ > 0 || ++idle_ < kMany) return;
    end_step();
    shrink(most_);
  }

  void forget(size_t size) {
    const std::lock_guard<std::mutex> lock(mutex_);
    in_use_ -= size;
  }

  void drop() {
    const std::lock_guard<std::mutex> lock(mutex_);
    shrink(0);
  }

  void shrink(size_t most) {
    while (held_ > most) {
      const auto first = free_.begin();
      held_ -= first->first;
      std::free(first->second);
      free_.erase(first);
    }
  }

  std::mutex mutex_;
  std::multimap<size_t, void*> free_;
  size_t held_ = 0, in_use_ = 0, most_of_step_ = 0, most_ = 0;
  int idle_ = 0;
};

// Autograd has zeros that are no numbers in memory, and a conjugate's imaginary part is numbers whose sign is turned when
// they are read.
bool is_in_memory(const Tensor& x) { return !x._is_zerotensor() && !x.is_neg(); }
Tensor in_memory(const Tensor& x) {
  return x._is_zerotensor() ? at::zeros(x.sizes(), x.options()) : x.resolve_neg();
}

// The core reads numbers of the last axis side by side; any strides of the others will do.
Tensor rows_contiguous(const Tensor& x) {
  return (x.stride(-1) == 1 || x.size(-1) == 1) && is_in_memory(x) ? x : in_memory(x).contiguous();
}

// Tensors of one shape side by side, along the last axis, and a contiguous one cut into `count` such tensors. (By torch's
// operations a small network's step would wait for them, and autograd would copy the views once more.)
Tensor joined(TensorList parts) {
  const Tensor& first = parts[0];
  for (const Tensor& part : parts)
    TORCH_CHECK(part.sizes() == first.sizes() && part.scalar_type() == first.scalar_type() && part.dim() > 0,
                "the cells' states have shapes ", first.sizes(), " and ", part.sizes(), " of ", first.scalar_type(), " and ",
                part.scalar_type(), ", needed the same of all");
  const int64_t count = static_cast<int64_t>(parts.size()), rows = first.numel() / std::max<int64_t>(1, first.size(-1));
  const size_t bytes = first.size(-1) * first.element_size();
  c10::SmallVector<int64_t, 3> sizes(first.sizes());
  sizes.back() *= count;
  const Tensor whole = new_tensor(sizes, first.scalar_type());
  for (int64_t j = 0; j < count; ++j) {
    const Tensor part = in_memory(parts[j]).contiguous();
    for (int64_t row = 0; row < rows; ++row)
      std::memcpy(static_cast<char*>(whole.mutable_data_ptr()) + (row * count + j) * bytes,
                  static_cast<const char*>(part.const_data_ptr()) + row * bytes, bytes);
  }
  return whole;
}

std::vector<Tensor> parted(const Tensor& whole, int64_t count) {
  c10::SmallVector<int64_t, 3> sizes(whole.sizes());
  sizes.back() /= count;
  const size_t bytes = sizes.back() * whole.element_size();
  std::vector<Tensor> parts;
  for (int64_t j = 0; j < count; ++j) {
    const Tensor part = parts.emplace_back(new_tensor(sizes, whole.scalar_type()));
    for (int64_t row = 0; row < whole.numel() / std::max<int64_t>(1, whole.size(-1)); ++row)
      std::memcpy(static_cast<char*>(part.mutable_data_ptr()) + row * bytes,
                  static_cast<const char*>(whole.const_data_ptr()) + (row * count + j) * bytes, bytes);
  }
  return parts;
}

// States (L·D, B, ·) with their batch rows in another order: row b is the one numbered order[b]. Where there is no order,
// or no state, or one that the operator will refuse, it stays as it is. (What was saved of an order for backward may have
// been written over, by way of NumPy or a hook.)
OptionalTensor in_order(const OptionalTensor& x, const Tensor& order) {
  if (!is(x) || !order.defined() || x->dim() != 3 || x->size(1) != order.size(0)) return x;
  const Tensor from = in_memory(*x).contiguous(), to = new_tensor(x->sizes(), x->scalar_type());
  const Tensor indices = order.contiguous();
  const int64_t rows = x->size(0), B = x->size(1);
  const size_t bytes = x->size(2) * x->element_size();
  const int64_t* of = indices.const_data_ptr<int64_t>();
  TORCH_CHECK_INDEX(std::all_of(of, of + B, [&](int64_t b) { return 0 <= b && b < B; }),
                    "the packed sequences' indices go out of the ", B, " sequences: they were written over since forward");
  for (int64_t row = 0; row < rows; ++row)
    for (int64_t b = 0; b < B; ++b)
      std::memcpy(static_cast<char*>(to.mutable_data_ptr()) + (row * B + b) * bytes,
                  static_cast<const char*>(from.const_data_ptr()) + (row * B + of[b]) * bytes, bytes);
  return to;
}

OptionalTensor contiguous(const OptionalTensor& x) {
  return is(x) ? OptionalTensor(in_memory(*x).contiguous()) : std::nullopt;
}

// The weights, contiguous; `copies` keeps those that had to be copied for it.
TensorList contiguous(TensorList weights, std::vector<Tensor>& copies) {
  const auto is_ready = [](const Tensor& w) { return w.is_contiguous() && is_in_memory(w); };
  if (std::all_of(weights.begin(), weights.end(), is_ready)) return weights;
  for (const Tensor& weight : weights) copies.push_back(in_memory(weight).contiguous());
  return copies;
}

// The numbers of x by those of a layer and direction's mask, each product rounded once; `to` may be x.
template <class Number>
void multiply(const Tensor& x, const Tensor& masks, int64_t number, const Tensor& to) {
  using Torch_s = InTorch<Number>;
  using Real = gatewise::Sum<Number>;
  const int64_t count = x.numel();
  const Torch_s* from = x.const_data_ptr<Torch_s>();
  const Real* mask = masks.const_data_ptr<Real>() + number * count;
  Torch_s* product = to.mutable_data_ptr<Torch_s>();
  for (int64_t n = 0; n < count; ++n) product[n] = static_cast<Torch_s>(static_cast<Real>(from[n]) * mask[n]);
}

// The weights, with those of weight_hh that are dropped as zeros, and the others scaled (7.15).
template <class Number>
std::vector<Tensor> dropped(const Network& net, TensorList weights) {
  std::vector<Tensor> all(weights.begin(), weights.end());
  for (int64_t number = 0; number < net.layers * net.directions; ++number) {
    Tensor& weight_hh = all[number * net.per_direction + net.place[kWeightHH]];
    const Tensor product = new_tensor(weight_hh.sizes(), weight_hh.scalar_type());
    multiply<Number>(weight_hh, net.masks[kDropped], number, product);
    weight_hh = product;
  }
  return all;
}

// What forward keeps is laid out as its instruction set has it. Behind it stands which one that was.
constexpr int64_t kMark = 8;  // numbers, of two bytes or more

int32_t mark_of_kernels() {
  int count;
  const gatewise::Kernels* const* all = gatewise::all_kernels(&count);
  return static_cast<int32_t>(std::find(all, all + count, &gatewise::kernels()) - all);
}

char* mark_in(const Tensor& kept) {
  return static_cast<char*>(kept.mutable_data_ptr()) + (kept.numel() - kMark) * kept.element_size();
}

void mark(const Tensor& kept) {
  const int32_t own = mark_of_kernels();
  std::memcpy(mark_in(kept), &own, sizeof own);
}

void check_kept(const Tensor& kept, int64_t needed) {
  TORCH_CHECK(kept.is_contiguous() && kept.numel() >= needed + kMark, "kept has ", kept.numel(), " numbers, needed the ",
              needed + kMark, " of this call, side by side");
  int count;
  int32_t found;
  std::memcpy(&found, mark_in(kept), sizeof found);
  const gatewise::Kernels* const* all = gatewise::all_kernels(&count);
  TORCH_CHECK(0 <= found && found < count, "kept is not what gatewise::lstm_training has kept");
  TORCH_CHECK(found == mark_of_kernels(), "this LSTM's forward ran by the instruction set ", all[found]->name,
              ", and what it has kept would be read by ", gatewise::kernels().name,
              ": use one for both (gatewise.kernels.using)");
}

// The cells, which are sums, stand among other numbers.
template <class Number>
gatewise::Sum<Number>* cells(const Tensor& gates, int64_t offset) {
  return reinterpret_cast<gatewise::Sum<Number>*>(data<Number>(gates, offset));
}

// Where the first step of the first row stands, and how far apart steps and rows are.
template <class Number>
struct Sequence {
  Number* at;
  int64_t step, row;
};

// A tensor of sequences, from `offset` on along its last axis.
template <class Number>
Sequence<Number> sequence(const Network& net, const Tensor& x, bool batch_first, int64_t offset = 0) {
  if (!x.defined()) return {nullptr, 0, 0};
  if (net.packed) return {data<Number>(x, offset), 0, x.stride(0)};
  return {data<Number>(x, offset), x.stride(batch_first ? 1 : 0), x.stride(batch_first ? 0 : 1)};
}

// A weight of one layer and direction, of which the first has the number `first`; null where there is none.
template <class Number>
const Number* weight_of(const Network& net, TensorList weights, int64_t first, Kind kind) {
  return net.has(kind) ? data<const Number>(weights[first + net.place[kind]]) : nullptr;
}

// What a changed cell of a layer and direction computes with besides.
template <class Number>
gatewise::Varied<Number> varied(const Network& net, TensorList weights, int64_t number) {
  if (net.cell.is_plain()) return {};
  using Real = gatewise::Sum<Number>;
  const auto weight = [&](Kind kind) { return weight_of<Number>(net, weights, number * net.per_direction, kind); };
  const auto mask = [&](MaskKind kind, int64_t size) -> const Real* {
    const Tensor& x = net.masks[kind];
    return x.defined() ? x.const_data_ptr<Real>() + number * size : nullptr;
  };
  return {
      .weight_ch = weight(kWeightCH),
      .gain_ih = weight(kGainIH),
      .gain_hh = weight(kGainHH),
      .gain_c = weight(kGainC),
      .bias_c = weight(kBiasC),
      .zoneout_h = mask(kZoneoutH, net.T * net.B * net.P),
      .zoneout_c = mask(kZoneoutC, net.T * net.B * net.H),
      .candidate = mask(kCandidate, net.T * net.B * net.H),
      .hidden = mask(kHidden, net.B * net.P),
  };
}

// ------------------------------------------------------------------------------------------------ forward

// `kept` receives the outputs of all layers but the last, then the gates and cells of each layer and direction.
template <class Number>
Three forward(const Network& net, const Tensor& input, const OptionalTensor& initial_h, const OptionalTensor& initial_c,
              TensorList given_weights, std::vector<Tensor>* kept) {
  const at::ScalarType type = input.scalar_type();
  const bool training = kept != nullptr;
  const OptionalTensor h_0 = contiguous(initial_h), c_0 = contiguous(initial_c);
  std::vector<Tensor> copies, masked;
  TensorList weights = contiguous(given_weights, copies);
  if (net.drops_weights) weights = masked = dropped<Number>(net, weights);
  const int64_t rows = net.layers * net.directions;
  const Tensor h_n = new_tensor({rows, net.B, net.P}, type), c_n = new_tensor({rows, net.B, net.states()}, type);
  std::vector<Tensor> gates_kept;
  Tensor x = rows_contiguous(input), gates;
  for (int64_t layer = 0; layer < net.layers; ++layer) {
    const gatewise::Sizes sizes = net.sizes(layer);
    const gatewise::Plan plan = core<Number>().plan(sizes, training);
    // Room for T steps of each row, whatever the lengths: a compiler knows no sum of lengths, and what is not touched
    // costs nothing.
    gatewise::Sizes longest = sizes;
    if (!net.packed) longest.steps = net.T * net.B;
    const gatewise::Plan most = core<Number>().plan(longest, training);
    const int64_t room = most.gates + most.cells + most.unprojected + most.normalized;
    const bool out_batch_first = net.output_batch_first(layer);
    const Tensor output = net.new_sequence(out_batch_first, net.directions * net.P, type);
    for (int64_t direction = 0; direction < net.directions; ++direction) {
      const int64_t number = layer * net.directions + direction, first = number * net.per_direction;
      const int64_t of_h = number * net.B * net.P, of_c = number * net.B * net.states();
      if (training || !gates.defined() || gates.numel() < room)
        gates = Pool::take(training ? room + kMark : room, type);
      if (training) {
        mark(gates);
        gates_kept.push_back(gates);
      }
      if (net.B == 0) continue;
      const auto from = sequence<const Number>(net, x, net.input_batch_first(layer));
      const auto to = sequence<Number>(net, output, out_batch_first, direction * net.P);
      const auto weight = [&](Kind kind) { return weight_of<Number>(net, weights, first, kind); };
      core<Number>().forward({
          .sizes = sizes,
          .walk = net.walk(direction),
          .training = training,
          .x = from.at,
          .x_step = from.step,
          .x_row = from.row,
          .h_0 = data<Number>(h_0, of_h),
          .c_0 = data<Number>(c_0, of_c),
          .weight_ih = weight(kWeightIH),
          .weight_hh = weight(kWeightHH),
          .bias_ih = weight(kBiasIH),
          .bias_hh = weight(kBiasHH),
          .weight_hr = weight(kWeightHR),
          .h = to.at,
          .h_step = to.step,
          .h_row = to.row,
          .h_n = data<Number>(h_n, of_h),
          .c_n = data<Number>(c_n, of_c),
          .gates = data<Number>(gates),
          .cells = cells<Number>(gates, plan.gates),
          .unprojected = data<Number>(gates, plan.gates + plan.cells),
          .scratch = scratch(plan.forward_scratch * sizeof(Number)),
          .varied = varied<Number>(net, weights, number),
          .normalized = plan.normalized ? data<Number>(gates, plan.gates + plan.cells + plan.unprojected) : nullptr,
      });
    }
    x = output;
    if (training && layer < net.layers - 1) kept->push_back(output);
  }
  if (training) kept->insert(kept->end(), gates_kept.begin(), gates_kept.end());
  return {x, h_n, c_n};
}

Three forward_of_any_number(const Tensor& input, const OptionalTensor& h_0, const OptionalTensor& c_0,
                            TensorList weights, const Options& options, std::vector<Tensor>* kept) {
  Network net(input, weights, options);
  net.read_masks(options.masks, input);
  net.check_state("h_0", h_0, net.P, input);
  net.check_state("c_0", c_0, net.states(), input);
  return with_number(input.scalar_type(), [&](auto number) {
    return forward<decltype(number)>(net, input, h_0, c_0, weights, kept);
  });
}

Three lstm(const Tensor& input, const OptionalTensor& h_0, const OptionalTensor& c_0, TensorList weights,
           int64_t num_layers, bool bidirectional, bool batch_first, const OptionalTensor& lengths,
           const OptionalTensor& reset, const OptionalTensor& batch_sizes, int64_t cell, double zoneout_h,
           double zoneout_c, TensorList masks) {
  const Options options = {num_layers, bidirectional, batch_first, lengths,   reset,
                           batch_sizes, cell,         zoneout_h,   zoneout_c, masks};
  return forward_of_any_number(input, h_0, c_0, weights, options, nullptr);
}

ThreeAndKept lstm_training(const Tensor& input, const OptionalTensor& h_0, const OptionalTensor& c_0,
                           TensorList weights, int64_t num_layers, bool bidirectional, bool batch_first,
                           const OptionalTensor& lengths, const OptionalTensor& reset,
                           const OptionalTensor& batch_sizes, int64_t cell, double zoneout_h, double zoneout_c,
                           TensorList masks) {
  const Options options = {num_layers, bidirectional, batch_first, lengths,   reset,
                           batch_sizes, cell,         zoneout_h,   zoneout_c, masks};
  std::vector<Tensor> kept;
  auto [output, h_n, c_n] = forward_of_any_number(input, h_0, c_0, weights, options, &kept);
  return {output, h_n, c_n, kept};
}

// -------------------------------------------------------------------------------------------- activations

// i, f, g, o and c of one layer and direction, (5, T, B, H), from what lstm_training has kept of it; past a sequence's
// length they are not a number. Those of bfloat16 are float32, in which the cells are kept.
template <class Number>
Tensor activations(const Network& net, const Tensor& kept, int64_t number) {
  const gatewise::Sizes sizes = net.sizes(number / net.directions);
  const gatewise::Plan plan = core<Number>().plan(sizes, true);
  check_kept(kept, plan.gates + plan.cells);
  constexpr at::ScalarType type = std::is_same_v<Number, double> ? at::kDouble : at::kFloat;
  const Tensor all = new_tensor({5, net.T, net.B, net.H}, type);
  if (!net.length.empty()) all.fill_(std::numeric_limits<double>::quiet_NaN());
  if (net.B == 0) return all;
  gatewise::ActivationsCall<Number> call = {
      .sizes = sizes,
      .walk = net.walk(number % net.directions),
      .gates = data<const Number>(kept),
      .cells = cells<Number>(kept, plan.gates),
      .to = {},
  };
  for (int n = 0; n < 5; ++n) call.to[n] = data<gatewise::Sum<Number>>(all, n * net.T * net.B * net.H);
  core<Number>().activations(call);
  return all;
}

Tensor lstm_activations(const Tensor& input, TensorList weights, const Tensor& kept, int64_t number, int64_t num_layers,
                        bool bidirectional, bool batch_first, const OptionalTensor& lengths,
                        const OptionalTensor& batch_sizes, int64_t cell, double zoneout_h, double zoneout_c) {
  const Network net(input, weights, {num_layers, bidirectional, batch_first, lengths, std::nullopt, batch_sizes, cell,
                                     zoneout_h, zoneout_c});
  TORCH_CHECK(0 <= number && number < net.layers * net.directions, "number is ", number, ", needed one below ",
              net.layers * net.directions);
  Network::check_numbers("kept", kept, input);
  return with_number(input.scalar_type(), [&](auto n) { return activations<decltype(n)>(net, kept, number); });
}

// ----------------------------------------------------------------------------------------------- backward

// Gradients of input, h_0, c_0 and each weight, those that are not wanted undefined.
template <class Number>
std::vector<Tensor> backward(const Network& net, const OptionalTensor& from_output, const OptionalTensor& from_h_n,
                             const OptionalTensor& from_c_n, const Tensor& input, const OptionalTensor& initial_h,
                             const OptionalTensor& initial_c, TensorList given_weights, const Tensor& output,
                             TensorList kept, at::ArrayRef<bool> wanted) {
  const at::ScalarType type = input.scalar_type();
  std::vector<Tensor> d(3 + given_weights.size());
  if (net.B == 0) {  // nothing to sum
    const auto zeros = [&](size_t j, const Tensor& of) {
      if (wanted[j] && of.defined()) d[j] = at::zeros(of.sizes(), of.options());
    };
    zeros(0, input);
    zeros(1, initial_h.value_or(Tensor()));
    if (wanted[2] && is(initial_c)) d[2] = at::zeros({net.layers * net.directions, 0, net.states()}, input.options());
    for (size_t j = 0; j < given_weights.size(); ++j) zeros(3 + j, given_weights[j]);
    return d;
  }
  const OptionalTensor h_0 = contiguous(initial_h), d_h_n = contiguous(from_h_n), d_c_n = contiguous(from_c_n);
  std::vector<Tensor> copies, masked;
  TensorList weights = contiguous(given_weights, copies);
  if (net.drops_weights) weights = masked = dropped<Number>(net, weights);
  for (size_t j = 0; j < weights.size(); ++j)
    if (wanted[3 + j]) d[3 + j] = new_tensor(weights[j].sizes(), type);
  if (wanted[1] && is(initial_h)) d[1] = new_tensor(initial_h->sizes(), type);
  if (wanted[2] && is(initial_c)) d[2] = new_tensor({net.layers * net.directions, net.B, net.states()}, type);
  // Below the first layer of which anything is wanted there is nothing to do.
  const int64_t per_layer = net.directions * net.per_direction;
  int64_t last_layer = 0;
  if (!wanted[0] && !d[1].defined() && !d[2].defined())
    while (last_layer < net.layers - 1 && std::none_of(&wanted[3 + last_layer * per_layer],
                                                       &wanted[3 + last_layer * per_layer] + per_layer,
                                                       [](bool want) { return want; }))
      ++last_layer;

  Tensor d_output = is(from_output) ? rows_contiguous(*from_output) : Tensor();
  for (int64_t layer = net.layers - 1; layer >= last_layer; --layer) {
    const Tensor x = rows_contiguous(layer ? kept[layer - 1] : input);
    const Tensor h = rows_contiguous(layer == net.layers - 1 ? output : kept[layer]);
    const bool in_batch_first = net.input_batch_first(layer), out_batch_first = net.output_batch_first(layer);
    const gatewise::Sizes sizes = net.sizes(layer);
    const gatewise::Plan plan = core<Number>().plan(sizes, true);
    Tensor d_x;
    if (layer > last_layer || wanted[0]) d_x = net.new_sequence(in_batch_first, net.input_size(layer), type);
    for (int64_t direction = 0; direction < net.directions; ++direction) {
      const int64_t number = layer * net.directions + direction, first = number * net.per_direction;
      const int64_t of_h = number * net.B * net.P, of_c = number * net.B * net.states(), offset = direction * net.P;
      const Tensor& gates = kept[net.layers - 1 + number];
      check_kept(gates, plan.gates + plan.cells + plan.unprojected + plan.normalized);
      const auto from_x = sequence<const Number>(net, x, in_batch_first);
      const auto from_h = sequence<const Number>(net, h, out_batch_first, offset);
      const auto from_d_h = sequence<const Number>(net, d_output, out_batch_first, offset);
      const auto to_d_x = sequence<Number>(net, d_x, in_batch_first);
      // Both biases have the same gradient, and each gets memory of its own: both may keep it as .grad.
      Tensor* const biases = net.bias ? &d[3 + first + net.place[kBiasIH]] : nullptr;
      const Tensor d_bias = !biases ? Tensor() : biases[0].defined() ? biases[0] : biases[1];
      const auto weight = [&](Kind kind) { return weight_of<Number>(net, weights, first, kind); };
      const auto d_weight = [&](Kind kind) {
        return net.has(kind) ? data<Number>(d[3 + first + net.place[kind]]) : nullptr;
      };
      core<Number>().backward({
          .sizes = sizes,
          .walk = net.walk(direction),
          .x = from_x.at,
          .x_step = from_x.step,
          .x_row = from_x.row,
          .h_0 = data<Number>(h_0, of_h),
          .weight_ih = weight(kWeightIH),
          .weight_hh = weight(kWeightHH),
          .weight_hr = weight(kWeightHR),
          .h = from_h.at,
          .h_step = from_h.step,
          .h_row = from_h.row,
          .cells = cells<Number>(gates, plan.gates),
          .unprojected = data<const Number>(gates, plan.gates + plan.cells),
          .gates = data<const Number>(gates),
          .d_h = from_d_h.at,
          .d_h_step = from_d_h.step,
          .d_h_row = from_d_h.row,
          .d_h_n = data<Number>(d_h_n, of_h),
          .d_c_n = data<Number>(d_c_n, of_c),
          .d_x = to_d_x.at,
          .d_x_step = to_d_x.step,
          .d_x_row = to_d_x.row,
          .add_to_d_x = direction == 1,
          .d_h_0 = data<Number>(d[1], of_h),
          .d_c_0 = data<Number>(d[2], of_c),
          .d_weight_ih = d_weight(kWeightIH),
          .d_weight_hh = d_weight(kWeightHH),
          .d_bias = data<Number>(d_bias),
          .d_weight_hr = d_weight(kWeightHR),
          .scratch = scratch(plan.backward_scratch * sizeof(Number)),
          .varied = varied<Number>(net, weights, number),
          .normalized = data<const Number>(gates, plan.gates + plan.cells + plan.unprojected),
          .d_varied = {.weight_ch = d_weight(kWeightCH),
                       .gain_ih = d_weight(kGainIH),
                       .gain_hh = d_weight(kGainHH),
                       .gain_c = d_weight(kGainC),
                       .bias_c = d_weight(kBiasC)},
      });
      const Tensor& d_weight_hh = d[3 + first + net.place[kWeightHH]];
      if (net.drops_weights && d_weight_hh.defined())
        multiply<Number>(d_weight_hh, net.masks[kDropped], number, d_weight_hh);  // (7.16)
      if (biases && biases[0].defined() && biases[1].defined())
        std::memcpy(data<Number>(biases[1]), data<Number>(biases[0]), biases[0].nbytes());
    }
    d_output = d_x;
  }
  if (wanted[0]) d[0] = d_output;
  return d;
}

std::vector<Tensor> backward_of_any_number(const OptionalTensor& d_output, const OptionalTensor& d_h_n,
                                           const OptionalTensor& d_c_n, const Tensor& input, const OptionalTensor& h_0,
                                           const OptionalTensor& c_0, TensorList weights, const Tensor& output,
                                           TensorList kept, const Options& options, at::ArrayRef<bool> wanted) {
  Network net(input, weights, options);
  net.read_masks(options.masks, input);
  const int64_t needed = net.layers - 1 + net.layers * net.directions;
  TORCH_CHECK(static_cast<int64_t>(kept.size()) == needed, "kept are ", kept.size(), " tensors, needed ", needed);
  return with_number(input.scalar_type(), [&](auto number) {
    return backward<decltype(number)>(net, d_output, d_h_n, d_c_n, input, h_0, c_0, weights, output, kept, wanted);
  });
}

// Changes none of its arguments, as compilers expect of an operator. What is not wanted comes back without elements.
std::vector<Tensor> lstm_backward(const OptionalTensor& d_output, const OptionalTensor& d_h_n,
                                  const OptionalTensor& d_c_n, const Tensor& input, const OptionalTensor& h_0,
                                  const OptionalTensor& c_0, TensorList weights, const Tensor& output, TensorList kept,
                                  int64_t num_layers, bool bidirectional, bool batch_first,
                                  const OptionalTensor& lengths, const OptionalTensor& reset,
                                  const OptionalTensor& batch_sizes, int64_t cell, double zoneout_h, double zoneout_c,
                                  TensorList masks, const c10::List<bool>& wanted) {
  const Options options = {num_layers, bidirectional, batch_first, lengths,   reset,
                           batch_sizes, cell,         zoneout_h,   zoneout_c, masks};
  const c10::SmallVector<bool, 16> flags(wanted.begin(), wanted.end());
  const at::ArrayRef<bool> asked(flags.data(), flags.size());
  std::vector<Tensor> d = backward_of_any_number(d_output, d_h_n, d_c_n, input, h_0, c_0, weights, output, kept,
                                                 options, asked);
  for (Tensor& gradient : d)
    if (!gradient.defined()) gradient = at::empty({0}, input.options());
  return d;
}

// ----------------------------------------------------------------------------------------------- autograd

template <class Signature>
c10::TypedOperatorHandle<Signature> operator_named(const char* name) {
  return c10::Dispatcher::singleton().findSchemaOrThrow(name, "").typed<Signature>();
}

// The operator with what backward needs, below autograd.
ThreeAndKept call_training(const Tensor& input, const OptionalTensor& h_0, const OptionalTensor& c_0,
                           TensorList weights, const Options& o) {
  static const auto op = operator_named<decltype(lstm_training)>("gatewise::lstm_training");
  at::AutoDispatchBelowADInplaceOrView below;
  return op.call(input, h_0, c_0, weights, o.num_layers, o.bidirectional, o.batch_first, o.lengths, o.reset,
                 o.batch_sizes, o.cell, o.zoneout_h, o.zoneout_c, o.masks);
}

// torch.autograd.grad(is_grads_batched=True) goes backward once with several gradients of the results, as tensors of a
// kind of its own: one() is called for each of them.
template <class One>
std::vector<Tensor> for_each_of_batched(const std::vector<Tensor>& d, const One& one) {
  std::vector<const at::BatchedTensorImpl*> batched;
  int64_t level = 0, count = 0;
  for (const Tensor& x : d) {
    batched.push_back(x.defined() && at::isBatchedTensor(x) ? at::maybeGetBatchedImpl(x) : nullptr);
    if (!batched.back()) continue;
    TORCH_CHECK_NOT_IMPLEMENTED(batched.back()->bdims().size() == 1,
                                "gatewise::lstm goes backward for one axis of several gradients, not for axes of axes");
    const at::BatchDim& axis = batched.back()->bdims()[0];
    level = axis.level();
    count = batched.back()->value().size(axis.dim());
  }
  std::vector<std::vector<Tensor>> found;
  for (int64_t n = 0; n < count; ++n) {
    std::vector<Tensor> given;
    for (size_t j = 0; j < d.size(); ++j)
      given.push_back(batched[j] ? batched[j]->value().select(batched[j]->bdims()[0].dim(), n) : d[j]);
    const std::vector<Tensor> gradients = one(given);
    found.resize(gradients.size());
    for (size_t j = 0; j < gradients.size(); ++j)
      if (gradients[j].defined()) found[j].push_back(gradients[j]);
  }
  std::vector<Tensor> together;
  for (const std::vector<Tensor>& parts : found)
    together.push_back(parts.empty() ? Tensor() : at::makeBatched(at::stack(parts), {{level, 0}}));
  return together;
}

// In which order packed sequences stand, by their numbers in the caller's, in which the states are, and the way back;
// undefined: in the caller's own.
struct Order {
  Tensor sorted, unsorted;
};

// A node of autograd's graph. (torch::autograd::Function would write it for us, and take ten times as long about it:
// it keeps everything in dictionaries.) Its edges are those of input, h_0, c_0 and each weight.
struct LSTMBackward : torch::autograd::Node {
  Saved input, h_0, c_0, output, lengths, reset, batch_sizes, sorted, unsorted;
  std::vector<Saved> others;  // n_0 and m_0 of an sLSTM whose states came, and go, one by one: edges behind that of c_0
  std::vector<Saved> weights, kept, masks;
  int64_t num_layers, cell;
  double zoneout_h, zoneout_c;
  bool bidirectional, batch_first;

  std::string name() const override { return "LSTMBackward"; }

  void release_variables() override {
    const std::lock_guard<std::mutex> lock(mutex_);
    for (Saved* saved : {&input, &h_0, &c_0, &output, &lengths, &reset, &batch_sizes, &sorted, &unsorted})
      saved->reset_data();
    for (std::vector<Saved>* saved : {&others, &weights, &kept, &masks}) saved->clear();
    released_ = true;
  }

  torch::autograd::variable_list apply(torch::autograd::variable_list&& d) override {
    const std::lock_guard<std::mutex> lock(mutex_);
    TORCH_CHECK(!released_, torch::autograd::ERR_BACKWARD_TWICE);
    const auto optional = [](const Saved& saved) {
      Tensor x = saved.unpack();
      return x.defined() ? OptionalTensor(std::move(x)) : std::nullopt;
    };
    const Tensor x = input.unpack(), y = output.unpack(getptr());
    const Order order = {sorted.unpack(), unsorted.unpack()};
    OptionalTensor h = optional(h_0);
    OptionalTensor c = optional(c_0);
    c10::SmallVector<Tensor, 8> w, k, m;
    for (const Saved& saved : weights) w.push_back(saved.unpack());
    for (const Saved& saved : kept) k.push_back(saved.unpack());
    for (const Saved& saved : masks) m.push_back(saved.unpack());
    const Options options = {
        num_layers, bidirectional, batch_first, contiguous(optional(lengths)), optional(reset),
        contiguous(optional(batch_sizes)), cell, zoneout_h, zoneout_c, m};
    // Of states that came one by one the core knows one tensor, whose gradient is asked for if any of theirs is.
    const size_t more = others.size();
    c10::SmallVector<bool, 16> wanted(3 + w.size());
    for (size_t j = 0; j < wanted.size(); ++j) wanted[j] = task_should_compute_output(j < 3 ? j : j + more);
    for (size_t j = 0; j < more; ++j) wanted[2] = wanted[2] || task_should_compute_output(3 + j);
    const at::ArrayRef<bool> asked(wanted.data(), wanted.size());
    std::vector<Tensor> cells;
    if (more > 0) {
      cells.push_back(*c);
      for (const Saved& saved : others) cells.push_back(saved.unpack());
      d[2] = together({d.begin() + 2, d.end()}, cells);
      d.resize(3);
    }
    const auto one_by_one = [&](std::vector<Tensor>&& gradients, const auto& apart) {
      if (more == 0) return std::move(gradients);
      std::vector<Tensor> parts(more + 1);
      if (gradients[2].defined()) parts = apart(gradients[2], static_cast<int64_t>(parts.size()));
      gradients.erase(gradients.begin() + 2);
      gradients.insert(gradients.begin() + 2, parts.begin(), parts.end());
      return std::move(gradients);
    };

    const auto views = [](const Tensor& x, int64_t count) { return x.chunk(count, -1); };

    const auto given = [](const Tensor& x) { return x.defined() ? OptionalTensor(x) : std::nullopt; };
    const auto at_once = [&](const std::vector<Tensor>& d) {
      const auto sorted = [&](const OptionalTensor& state) { return in_order(state, order.sorted); };
      std::vector<Tensor> gradients = backward_of_any_number(given(d[0]), sorted(given(d[1])), sorted(given(d[2])), x,
                                                             sorted(h), sorted(c), w, y, k, options, asked);
      for (const size_t j : {1, 2}) gradients[j] = in_order(given(gradients[j]), order.unsorted).value_or(Tensor());
      return gradients;
    };
    const auto is_batched = [](const Tensor& x) { return x.defined() && at::isBatchedTensor(x); };
    const auto is_mapped = [](const Tensor& x) {
      return x.defined() && x.key_set().has(c10::DispatchKey::FuncTorchBatched);
    };
    if (std::any_of(d.begin(), d.end(), is_batched)) {
      TORCH_CHECK_NOT_IMPLEMENTED(!at::GradMode::is_enabled(),
                                  "gatewise::lstm goes backward for several gradients at once (is_grads_batched, "
                                  "vectorize) without a graph of its own, and create_graph asks for one: take one "
                                  "gradient after another, or torch.func");
      return one_by_one(for_each_of_batched(d, at_once), views);
    }
    if (at::GradMode::is_enabled() || c10::impl::TorchDispatchModeTLS::any_modes_set() || !x.is_cpu() ||
        k.back().key_set().has(c10::DispatchKey::Python) || std::any_of(d.begin(), d.end(), is_mapped)) {
      static const auto op = operator_named<decltype(lstm_backward)>("gatewise::lstm_backward");
      if (more > 0) c = at::cat(cells, -1);
      const auto selected = [](const OptionalTensor& state, const Tensor& indices) {
        return is(state) && indices.defined() ? OptionalTensor(state->index_select(1, indices)) : state;
      };
      const OptionalTensor d_h_n = selected(given(d[1]), order.sorted), d_c_n = selected(given(d[2]), order.sorted);
      h = selected(h, order.sorted);
      c = selected(c, order.sorted);
      c10::List<bool> flags;
      for (const bool want : wanted) flags.push_back(want);
      std::vector<Tensor> gradients =
          op.call(given(d[0]), d_h_n, d_c_n, x, h, c, w, y, k, num_layers, bidirectional, batch_first, options.lengths,
                  options.reset, options.batch_sizes, cell, zoneout_h, zoneout_c, m, flags);
      for (size_t j = 0; j < gradients.size(); ++j)
        if (!wanted[j]) gradients[j] = Tensor();
      for (const size_t j : {1, 2})
        gradients[j] = selected(given(gradients[j]), order.unsorted).value_or(Tensor());
      return one_by_one(std::move(gradients), views);
    }
    return one_by_one(at_once(d), parted);
  }

 private:
  // The gradients of states one by one as that of one tensor; undefined if all of them are.
  static Tensor together(std::vector<Tensor> d, const std::vector<Tensor>& of) {
    if (std::none_of(d.begin(), d.end(), [](const Tensor& x) { return x.defined(); })) return Tensor();
    for (size_t j = 0; j < d.size(); ++j)
      if (!d[j].defined()) d[j] = at::zeros(of[j].sizes(), of[j].options());
    return at::cat(d, -1);
  }

  bool released_ = false;
};

// The values and what backward needs of them, and a node for their gradients. `others` are the states of an sLSTM behind
// c_0, where they are given one by one; then c_n is all of them, and without a gradient: see state_by_state. Where there
// is an order, h_0, c_0, h_n and c_n are in the caller's.
ThreeAndKept call_differentiably(const Tensor& input, const OptionalTensor& h_0, const OptionalTensor& c_0,
                                 TensorList weights, const Options& options, TensorList others = {},
                                 std::vector<Tensor>* c_n_one_by_one = nullptr, const Order& order = {}) {
  OptionalTensor cells = in_order(c_0, order.sorted);
  if (!others.empty()) {
    std::vector<Tensor> all = {*c_0};
    all.insert(all.end(), others.begin(), others.end());
    cells = joined(all);
  }
  auto [output, h_n, c_n, kept] = call_training(input, in_order(h_0, order.sorted), cells, weights, options);
  h_n = *in_order(h_n, order.unsorted);
  c_n = *in_order(c_n, order.unsorted);
  const auto node = c10::make_intrusive<LSTMBackward>();
  const auto or_none = [](const OptionalTensor& x) { return x.value_or(Tensor()); };
  node->set_next_edges(torch::autograd::collect_next_edges(input, or_none(h_0), or_none(c_0), others, weights));
  torch::autograd::set_history(output, node);
  torch::autograd::set_history(h_n, node);
  if (others.empty()) {
    torch::autograd::set_history(c_n, node);
  } else {
    *c_n_one_by_one = parted(c_n, static_cast<int64_t>(others.size() + 1));
    for (Tensor& state : *c_n_one_by_one) torch::autograd::set_history(state, node);
    for (const Tensor& state : others) node->others.emplace_back(state, false);
  }
  node->input = Saved(input, false);
  node->h_0 = Saved(or_none(h_0), false);
  node->c_0 = Saved(or_none(c_0), false);
  node->output = Saved(output, true);
  node->lengths = Saved(or_none(options.lengths), false);
  node->reset = Saved(or_none(options.reset), false);
  node->batch_sizes = Saved(or_none(options.batch_sizes), false);
  node->sorted = Saved(order.sorted, false);
  node->unsorted = Saved(order.unsorted, false);
  for (const Tensor& weight : weights) node->weights.emplace_back(weight, false);
  for (const Tensor& x : kept) node->kept.emplace_back(x, false);
  for (const Tensor& mask : options.masks) node->masks.emplace_back(mask, false);
  node->num_layers = options.num_layers;
  node->cell = options.cell;
  node->zoneout_h = options.zoneout_h;
  node->zoneout_c = options.zoneout_c;
  node->bidirectional = options.bidirectional;
  node->batch_first = options.batch_first;
  return {output, h_n, c_n, kept};
}

// Whether autograd must know of a call.
bool is_differentiable(const Tensor& input, const OptionalTensor& h_0, const OptionalTensor& c_0, TensorList weights) {
  const auto has_tangent = [](const OptionalTensor& x) { return is(x) && x->_fw_grad(0).defined(); };
  TORCH_CHECK_NOT_IMPLEMENTED(!has_tangent(input) && !has_tangent(h_0) && !has_tangent(c_0) &&
                                  std::none_of(weights.begin(), weights.end(), has_tangent),
                              "gatewise::lstm has no forward-mode derivative: call the module outside torch.compile "
                              "and torch.export, where it goes through torch's operations");
  const auto differentiable = [](const OptionalTensor& x) { return is(x) && x->requires_grad(); };
  return at::GradMode::is_enabled() &&
         (input.requires_grad() || differentiable(h_0) || differentiable(c_0) ||
          std::any_of(weights.begin(), weights.end(), [](const Tensor& w) { return w.requires_grad(); }));
}

Three lstm_autograd(const Tensor& input, const OptionalTensor& h_0, const OptionalTensor& c_0, TensorList weights,
                    int64_t num_layers, bool bidirectional, bool batch_first, const OptionalTensor& lengths,
                    const OptionalTensor& reset, const OptionalTensor& batch_sizes, int64_t cell, double zoneout_h,
                    double zoneout_c, TensorList masks) {
  if (is_differentiable(input, h_0, c_0, weights)) {
    const Options options = {num_layers, bidirectional, batch_first, lengths,   reset,
                             batch_sizes, cell,         zoneout_h,   zoneout_c, masks};
    auto [output, h_n, c_n, kept] = call_differentiably(input, h_0, c_0, weights, options);
    return {output, h_n, c_n};
  }
  static const auto op = operator_named<decltype(lstm)>("gatewise::lstm");
  at::AutoDispatchBelowADInplaceOrView below;
  return op.call(input, h_0, c_0, weights, num_layers, bidirectional, batch_first, lengths, reset, batch_sizes, cell,
                 zoneout_h, zoneout_c, masks);
}

// An sLSTM whose states come, and go, one by one: h_n, and c_n, n_n and m_n. (Put together and taken apart by torch's
// operations they would take as long as a third of a small network's training step.)
std::tuple<Tensor, Tensor, std::vector<Tensor>> state_by_state(const Tensor& input, const OptionalTensor& h_0,
                                                               TensorList cells, TensorList weights,
                                                               const Options& options) {
  const bool differentiable =
      is_differentiable(input, h_0, cells[0], weights) ||
      (at::GradMode::is_enabled() &&
       std::any_of(cells.begin(), cells.end(), [](const Tensor& state) { return state.requires_grad(); }));
  if (differentiable) {
    std::vector<Tensor> last;
    auto [output, h_n, all, kept] =
        call_differentiably(input, h_0, cells[0], weights, options, cells.slice(1), &last);
    return {output, h_n, last};
  }
  static const auto op = operator_named<decltype(lstm)>("gatewise::lstm");
  const auto [output, h_n, all] =
      op.call(input, h_0, joined(cells), weights, options.num_layers, options.bidirectional, options.batch_first,
              options.lengths, options.reset, options.batch_sizes, options.cell, options.zoneout_h, options.zoneout_c,
              options.masks);
  return {output, h_n, parted(all, static_cast<int64_t>(cells.size()))};
}

ThreeAndKept lstm_training_autograd(const Tensor& input, const OptionalTensor& h_0, const OptionalTensor& c_0,
                                    TensorList weights, int64_t num_layers, bool bidirectional, bool batch_first,
                                    const OptionalTensor& lengths, const OptionalTensor& reset,
                                    const OptionalTensor& batch_sizes, int64_t cell, double zoneout_h, double zoneout_c,
                                    TensorList masks) {
  const Options options = {num_layers, bidirectional, batch_first, lengths,   reset,
                           batch_sizes, cell,         zoneout_h,   zoneout_c, masks};
  return is_differentiable(input, h_0, c_0, weights) ? call_differentiably(input, h_0, c_0, weights, options)
                                                     : call_training(input, h_0, c_0, weights, options);
}

}  // namespace

TORCH_LIBRARY(gatewise, m) {
  m.def(
      "lstm(Tensor input, Tensor? h_0, Tensor? c_0, Tensor[] weights, int num_layers, bool bidirectional, "
      "bool batch_first, Tensor? lengths, Tensor? reset, Tensor? batch_sizes, int cell, float zoneout_h, "
      "float zoneout_c, Tensor[] masks) "
      "-> (Tensor output, Tensor h_n, Tensor c_n)");
  m.def(
      "lstm_training(Tensor input, Tensor? h_0, Tensor? c_0, Tensor[] weights, int num_layers, bool bidirectional, "
      "bool batch_first, Tensor? lengths, Tensor? reset, Tensor? batch_sizes, int cell, float zoneout_h, "
      "float zoneout_c, Tensor[] masks) "
      "-> (Tensor output, Tensor h_n, Tensor c_n, Tensor[] kept)");
  m.def(
      "lstm_backward(Tensor? d_output, Tensor? d_h_n, Tensor? d_c_n, Tensor input, Tensor? h_0, Tensor? c_0, "
      "Tensor[] weights, Tensor output, Tensor[] kept, int num_layers, bool bidirectional, bool batch_first, "
      "Tensor? lengths, Tensor? reset, Tensor? batch_sizes, int cell, float zoneout_h, float zoneout_c, "
      "Tensor[] masks, bool[] wanted) -> Tensor[]");
  m.def(
      "lstm_activations(Tensor input, Tensor[] weights, Tensor kept, int number, int num_layers, bool bidirectional, "
      "bool batch_first, Tensor? lengths, Tensor? batch_sizes, int cell, float zoneout_h, float zoneout_c) -> Tensor");
}

TORCH_LIBRARY_IMPL(gatewise, CPU, m) {
  m.impl("lstm", lstm);
  m.impl("lstm_training", lstm_training);
  m.impl("lstm_backward", lstm_backward);
  m.impl("lstm_activations", lstm_activations);
}

TORCH_LIBRARY_IMPL(gatewise, Autograd, m) {
  m.impl("lstm", lstm_autograd);
  m.impl("lstm_training", lstm_training_autograd);
}

// ------------------------------------------------------------------------------------------ the short way in

namespace {

// The common call has tensors of numbers that the core has code for, on the CPU, no autocast, no transform of torch.func,
// nobody who overrides torch's functions. (A tensor of shapes alone would have torch send the call to where shapes are
// computed.)
bool is_common(PyObject* x) { return THPVariable_CheckExact(x) && THPVariable_Unpack(x).is_cpu(); }
bool is_common_or_none(PyObject* x) { return x == Py_None || is_common(x); }

bool is_common_call(PyObject* input, int64_t axes) {
  if (!is_common(input) || at::impl::torch_function_mode_enabled()) return false;
  const Tensor x = THPVariable_Unpack(input);
  return x.dim() == axes && is_served(x.scalar_type()) && !at::autocast::is_autocast_enabled(at::kCPU) &&
         !c10::impl::tls_local_dispatch_key_set().included_.has(c10::DispatchKey::FuncTorchDynamicLayerFrontMode);
}

// Who traces, or stands between torch and its operators, would see nothing of what is done beside the operators.
bool is_watched() {
  return c10::impl::TorchDispatchModeTLS::any_modes_set() ||
         c10::impl::tls_local_dispatch_key_set().included_.has(c10::DispatchKey::Tracer);
}

using FewTensors = c10::SmallVector<Tensor, 8>;

// The tensors of a list or tuple, if all of them are common.
bool take(PyObject* sequence, FewTensors& to) {
  for (Py_ssize_t j = 0; j < PySequence_Fast_GET_SIZE(sequence); ++j) {
    PyObject* const x = PySequence_Fast_GET_ITEM(sequence, j);
    if (!is_common(x)) return false;
    to.push_back(THPVariable_Unpack(x));
  }
  return true;
}

OptionalTensor optional(PyObject* x) { return x == Py_None ? std::nullopt : OptionalTensor(THPVariable_Unpack(x)); }

// (output, (h_n, c_n))
PyObject* in_python(Three&& results) {
  return Py_BuildValue("(N(NN))", THPVariable_Wrap(std::move(std::get<0>(results))),
                       THPVariable_Wrap(std::move(std::get<1>(results))),
                       THPVariable_Wrap(std::move(std::get<2>(results))));
}

// plain_lstm(input, h_0, c_0, weights, num_layers, bidirectional, batch_first) -> (output, (h_n, c_n)), with cell,
// zoneout_h, zoneout_c and masks behind these for a changed cell, or None where the call is not the common one. Of an sLSTM
// c_0 may be the tuple (c_0, n_0, m_0), and then its last states are as many. torch's own way from Python to an operator
// takes longer than a small network.
PyObject* plain_lstm(PyObject*, PyObject* const* args, Py_ssize_t count) {
  HANDLE_TH_ERRORS
  const bool changed = count == 11;
  TORCH_CHECK_TYPE((count == 7 || changed) && PyList_CheckExact(args[3]) && (!changed || PyList_CheckExact(args[10])),
                   "plain_lstm takes 7 or 11 arguments, the fourth and the last of 11 lists");
  const bool one_by_one = PyTuple_CheckExact(args[2]) && PyTuple_GET_SIZE(args[2]) > 1;
  if (!is_common_call(args[0], 3) || !is_common_or_none(args[1]) || !(one_by_one || is_common_or_none(args[2])) ||
      (one_by_one && is_watched()))
    Py_RETURN_NONE;
  const Tensor input = THPVariable_Unpack(args[0]);
  FewTensors weights, masks, cells;
  if (!take(args[3], weights) || (changed && !take(args[10], masks)) || (one_by_one && !take(args[2], cells)))
    Py_RETURN_NONE;
  const OptionalTensor h_0 = optional(args[1]), c_0 = one_by_one ? cells[0] : optional(args[2]);
  const int64_t num_layers = PyLong_AsLongLong(args[4]), cell = changed ? PyLong_AsLongLong(args[7]) : 0;
  const double zoneout_h = changed ? PyFloat_AsDouble(args[8]) : 0, zoneout_c = changed ? PyFloat_AsDouble(args[9]) : 0;
  if (PyErr_Occurred()) return nullptr;
  static const auto op = operator_named<decltype(lstm)>("gatewise::lstm");
  Three results;
  if (one_by_one) {
    std::vector<Tensor> last;
    {
      const pybind11::gil_scoped_release others_may_run;
      const Options options = {num_layers,   args[5] == Py_True, args[6] == Py_True, std::nullopt, std::nullopt,
                               std::nullopt, cell,               zoneout_h,          zoneout_c,    masks};
      std::tie(std::get<0>(results), std::get<1>(results), last) = state_by_state(input, h_0, cells, weights, options);
    }
    PyObject* const states = PyTuple_New(static_cast<Py_ssize_t>(1 + last.size()));
    if (!states) return nullptr;
    PyTuple_SET_ITEM(states, 0, THPVariable_Wrap(std::move(std::get<1>(results))));
    for (size_t j = 0; j < last.size(); ++j)
      PyTuple_SET_ITEM(states, static_cast<Py_ssize_t>(1 + j), THPVariable_Wrap(std::move(last[j])));
    return Py_BuildValue("(NN)", THPVariable_Wrap(std::move(std::get<0>(results))), states);
  }
  {
    const pybind11::gil_scoped_release others_may_run;
    results = op.call(input, h_0, c_0, weights, num_layers, args[5] == Py_True, args[6] == Py_True, std::nullopt,
                      std::nullopt, std::nullopt, cell, zoneout_h, zoneout_c, masks);
  }
  return in_python(std::move(results));
  END_HANDLE_TH_ERRORS
}

// Whether the two are each other's inverse; or both are none.
bool is_order(PyObject* sorted, PyObject* unsorted, int64_t B) {
  if (sorted == Py_None || unsorted == Py_None) return sorted == unsorted;
  if (!is_common(sorted) || !is_common(unsorted)) return false;
  const Tensor &to = THPVariable_Unpack(sorted), &from = THPVariable_Unpack(unsorted);
  for (const Tensor& x : {to, from})
    if (x.dim() != 1 || x.scalar_type() != at::kLong || !x.is_contiguous() || x.size(0) != B) return false;
  const int64_t *of = to.const_data_ptr<int64_t>(), *back = from.const_data_ptr<int64_t>();
  for (int64_t b = 0; b < B; ++b)
    if (of[b] < 0 || of[b] >= B || back[of[b]] != b) return false;
  return true;
}

// packed_lstm(data, batch_sizes, sorted_indices, unsorted_indices, h_0, c_0, weights, num_layers, bidirectional) ->
// (output, (h_n, c_n)) of packed sequences, whose states are in the caller's order, or None as above. (Put in order by
// torch's operations, and in autograd's graph, states would take longer than a small network does.)
PyObject* packed_lstm(PyObject*, PyObject* const* args, Py_ssize_t count) {
  HANDLE_TH_ERRORS
  TORCH_CHECK_TYPE(count == 9 && PyList_CheckExact(args[6]), "packed_lstm takes 9 arguments, the seventh a list");
  FewTensors weights;
  if (!is_common_call(args[0], 2) || !is_common(args[1]) || !is_common_or_none(args[4]) ||
      !is_common_or_none(args[5]) || is_watched() || !take(args[6], weights))
    Py_RETURN_NONE;
  const Tensor input = THPVariable_Unpack(args[0]), batch_sizes = THPVariable_Unpack(args[1]);
  const OptionalTensor h_0 = optional(args[4]), c_0 = optional(args[5]);
  const bool sized = batch_sizes.dim() == 1 && batch_sizes.scalar_type() == at::kLong && batch_sizes.numel() > 0;
  if (!sized || !is_order(args[2], args[3], batch_sizes.const_data_ptr<int64_t>()[0])) Py_RETURN_NONE;
  const Order order = {optional(args[2]).value_or(Tensor()), optional(args[3]).value_or(Tensor())};
  const int64_t num_layers = PyLong_AsLongLong(args[7]);
  if (PyErr_Occurred()) return nullptr;
  const Options options = {num_layers, args[8] == Py_True, false, std::nullopt, std::nullopt, batch_sizes, 0, 0, 0, {}};
  static const auto op = operator_named<decltype(lstm)>("gatewise::lstm");
  Three results;
  {
    const pybind11::gil_scoped_release others_may_run;
    if (is_differentiable(input, h_0, c_0, weights)) {
      auto [output, h_n, c_n, kept] = call_differentiably(input, h_0, c_0, weights, options, {}, nullptr, order);
      results = {output, h_n, c_n};
    } else {
      const auto [output, h_n, c_n] =
          op.call(input, in_order(h_0, order.sorted), in_order(c_0, order.sorted), weights, num_layers,
                  options.bidirectional, false, std::nullopt, std::nullopt, batch_sizes, 0, 0, 0, options.masks);
      results = {output, *in_order(h_n, order.unsorted), *in_order(c_n, order.unsorted)};
    }
  }
  return in_python(std::move(results));
  END_HANDLE_TH_ERRORS
}

PyCFunction fast(PyObject* (*function)(PyObject*, PyObject* const*, Py_ssize_t)) {
  return reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(function));
}

PyMethodDef methods[] = {
    {"plain_lstm", fast(plain_lstm), METH_FASTCALL, nullptr},
    {"packed_lstm", fast(packed_lstm), METH_FASTCALL, nullptr},
    {"new_mask", fast(gatewise::of_torch::new_mask), METH_FASTCALL, nullptr},
    {"new_stream", fast(gatewise::of_torch::new_stream), METH_FASTCALL, nullptr},
    {"stream_step", fast(gatewise::of_torch::stream_step), METH_FASTCALL, nullptr},
    {"stream_state", gatewise::of_torch::stream_state, METH_O, nullptr},
    {nullptr, nullptr, 0, nullptr}};
PyModuleDef module_of = {PyModuleDef_HEAD_INIT, "_operators", nullptr, -1, methods, nullptr, nullptr, nullptr, nullptr};

}  // namespace

PyMODINIT_FUNC PyInit__operators() { return PyModule_Create(&module_of); }
