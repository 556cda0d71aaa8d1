// A step of a small network takes less time than torch's way from Python to an operator and back. So what other calls
// do each time is done once here: sizes are checked, memory is taken, and weights are packed again only when they have
// changed.
//
// Whether they have is asked at each step, for nothing is worse than yesterday's weights. torch counts the writes to a
// tensor. It does not count those to weight.data, through NumPy or in another process; against these a copy of what was
// packed is compared with the weights at some places, others at each step.
#include "stream.hpp"

#include <ATen/PythonTorchFunctionTLS.h>
#include <ATen/autocast_mode.h>
#include <c10/core/InferenceMode.h>
#include <torch/csrc/Exceptions.h>
#include <torch/csrc/autograd/python_variable.h>
#include <torch/csrc/utils/object_ptr.h>

#include "network.hpp"

namespace gatewise::of_torch {
namespace {

// A step of fewer products is taken by one thread: waking another costs about what it saves. (There are fewer in
// layout.hpp, for calls that pack their weights too.)
constexpr int64_t kSharedProducts = 2000000;

// What is compared of a weight at each step: as many cache lines.
constexpr int64_t kPlaces = 16, kLine = 64;

using Tensors = c10::SmallVector<Tensor, 8>;

// A tensor whose numbers stand in memory as they are, the last axis side by side.
Tensor as_it_stands(const Tensor& x) {
  if (!x.is_neg() && !x._is_zerotensor()) return x;
  return at::zeros(x.sizes(), x.options()).copy_(x);
}

struct Weight {
  Tensor tensor;         // as the module last had it
  c10::Storage storage;  // its memory, held: nothing else can come to stand at its address
  const void* at = nullptr;
  uint32_t version = 0;
  Tensor numbers;        // contiguous: a copy of what was packed, or a bias as it is
};

struct Layer {
  Tensor scratch;        // holds the packed weights
  bool packed = false;
  Plan plan;
};

class Stream {
 public:
  Stream(PyObject* module, PyObject* names, int64_t layers, int64_t batch_size, PyObject* watched)
      : module_(owned(module)), names_(owned(names)), parameters_(PyObject_GetAttrString(module, "_parameters")),
        layers_(layers), batched_(batch_size > 0), B_(batched_ ? batch_size : 1), weights_(PyTuple_GET_SIZE(names)),
        layer_(layers) {
    if (!parameters_) throw python_error();
    if (watched != Py_None) {
      hooks_before_ = owned(PyTuple_GET_ITEM(watched, 0));
      hooks_after_ = owned(PyTuple_GET_ITEM(watched, 1));
      drops_ = PyTuple_GET_ITEM(watched, 2) == Py_True;
    }
    const c10::InferenceMode off(false);  // the state is to be written to anywhere
    const Tensors weights = named_weights();
    TORCH_CHECK(weights[0].dim() == 2, "weight_ih_l0 has shape ", weights[0].sizes(), ", needed [4H, I]");
    type_ = weights[0].scalar_type();
    I_ = weights[0].size(1);
    TORCH_CHECK(is_served(type_) && weights[0].is_cpu(), "the weights are ", type_, " on ", weights[0].device(),
                ", needed float32, float64 or bfloat16 on the cpu");
    first_input_ = new_tensor({1, B_, I_}, type_);
    const Network net = checked(weights);
    H_ = net.H, P_ = net.P, bias_ = net.bias, projected_ = net.projected, per_layer_ = net.per_direction;
    const at::ScalarType sums = type_ == at::kDouble ? at::kDouble : at::kFloat;
    h_ = new_tensor({layers_, B_, P_}, type_).zero_();
    h_next_ = new_tensor({layers_, B_, P_}, type_);
    c_ = new_tensor({layers_, B_, H_}, sums).zero_();
    between_ = new_tensor({B_, P_}, type_);
  }

  const Tensor& h() const { return h_; }
  const Tensor& c() const { return c_; }

  // Undefined where the step is not taken.
  Tensor step(PyObject* given) {
    if (!THPVariable_CheckExact(given) || at::impl::torch_function_mode_enabled() || is_watched()) return {};
    const Tensor& input = THPVariable_Unpack(given);
    const int64_t row_of_b[2] = {B_, I_};
    const at::IntArrayRef shape = batched_ ? at::IntArrayRef(row_of_b, 2) : at::IntArrayRef(row_of_b + 1, 1);
    const auto included = c10::impl::tls_local_dispatch_key_set().included_;
    if (!input.is_cpu() || input.layout() != at::kStrided || input.scalar_type() != type_ || input.sizes() != shape ||
        (input.requires_grad() && at::GradMode::is_enabled()) || at::autocast::is_autocast_enabled(at::kCPU) ||
        included.has(c10::DispatchKey::FuncTorchDynamicLayerFrontMode) || included.has(c10::DispatchKey::Tracer))
      return {};
    read_weights();
    Tensor x = as_it_stands(input);
    if (I_ > 1 && x.stride(-1) != 1) x = x.contiguous();
    const Tensor h = batched_ ? new_tensor({B_, P_}, type_) : new_tensor({P_}, type_);
    with_number(type_, [&](auto number) { advance<decltype(number)>(x, h); });
    return h;
  }

 private:
  static THPObjectPtr owned(PyObject* object) {
    Py_INCREF(object);
    return THPObjectPtr(object);
  }

  // Whether the module would do more in a call than a step does.
  bool is_watched() {
    if (hooks_before_ && (PyObject_Length(hooks_before_) != 0 || PyObject_Length(hooks_after_) != 0)) return true;
    if (!drops_) return false;
    const THPObjectPtr training(PyObject_GetAttrString(module_, "training"));
    if (!training) throw python_error();
    return training.get() == Py_True;
  }

  Tensors named_weights() {
    Tensors found;
    for (size_t j = 0; j < weights_.size(); ++j) {
      PyObject* const name = PyTuple_GET_ITEM(names_.get(), j);
      PyObject* weight = PyDict_GetItemWithError(parameters_, name);
      THPObjectPtr computed;  // what is parametrized is no parameter under its own name
      if (!weight || weight == Py_None) {
        if (PyErr_Occurred()) throw python_error();
        computed = PyObject_GetAttr(module_, name);
        if (!computed) throw python_error();
        weight = computed;
      }
      TORCH_CHECK_TYPE(THPVariable_CheckExact(weight), "weight ", j, " is no plain torch.Tensor");
      found.push_back(THPVariable_Unpack(weight));
    }
    return found;
  }

  Network checked(const Tensors& weights) const {
    const Network net(first_input_, weights, {.num_layers = layers_, .bidirectional = false, .batch_first = false});
    TORCH_CHECK(!h_.defined() || (net.H == H_ && net.P == P_), "the weights are for H = ", net.H, " and P = ", net.P,
                ", and the stream began with ", H_, " and ", P_);
    return net;
  }

  bool is_bias(size_t j) const {
    const int64_t at = static_cast<int64_t>(j) % per_layer_;
    return bias_ && (at == 2 || at == 3);
  }

  void read_weights() {
    ++steps_;
    const Tensors now = named_weights();
    bool same = isa_ == &kernels();
    for (size_t j = 0; same && j < now.size(); ++j) same = is_as_before(weights_[j], now[j], is_bias(j));
    if (same) return;
    checked(now);
    if (isa_ != &kernels()) with_number(type_, [&](auto number) { plan<decltype(number)>(); });
    for (size_t j = 0; j < now.size(); ++j) {
      Weight& weight = weights_[j];
      const Tensor numbers = as_it_stands(now[j]).contiguous();
      if (is_bias(j)) {
        weight.numbers = numbers;
      } else if (!weight.numbers.defined() ||
                 std::memcmp(weight.numbers.const_data_ptr(), numbers.const_data_ptr(), numbers.nbytes()) != 0) {
        layer_[j / per_layer_].packed = false;
        weight.numbers = new_tensor(numbers.sizes(), type_);
        std::memcpy(weight.numbers.mutable_data_ptr(), numbers.const_data_ptr(), numbers.nbytes());
      }
      // What was copied to stand as it should, or is not counted, is looked at in full each time.
      const bool is_counted = numbers.is_same(now[j]) && !numbers.is_inference();
      weight.tensor = is_counted ? now[j] : Tensor();
      weight.storage = numbers.storage();
      weight.at = numbers.const_data_ptr();
      weight.version = is_counted ? now[j]._version() : 0;
    }
  }

  bool is_as_before(const Weight& weight, const Tensor& now, bool bias) const {
    if (!now.is_same(weight.tensor) || !now.is_cpu() || now.scalar_type() != type_ ||
        now.sizes() != weight.numbers.sizes() || !now.is_contiguous() || now.const_data_ptr() != weight.at)
      return false;
    if (bias) return true;  // is read at each step
    if (now._version() != weight.version) return false;
    const char *one = static_cast<const char*>(weight.at),
               *other = static_cast<const char*>(weight.numbers.const_data_ptr());
    const int64_t bytes = static_cast<int64_t>(now.nbytes()), lines = (bytes + kLine - 1) / kLine;
    const int64_t apart = (lines + kPlaces - 1) / kPlaces;
    for (int64_t line = apart ? steps_ % apart : 0; line < lines; line += apart)
      if (std::memcmp(one + line * kLine, other + line * kLine, std::min(kLine, bytes - line * kLine)) != 0) return false;
    return true;
  }

  Sizes sizes(int64_t layer) const {
    const int64_t in = layer ? P_ : I_, products = B_ * 4 * H_ * (in + P_);
    return {1, B_, in, H_, P_, B_, products < kSharedProducts ? 1 : at::get_num_threads()};
  }

  // Memory for the instruction set in use, whose own the layout of what is packed is.
  template <class Number>
  void plan() {
    int64_t room = 0;
    for (int64_t j = 0; j < layers_; ++j) {
      const Plan plan = core<Number>().plan(sizes(j), false);
      layer_[j] = {new_tensor({plan.forward_scratch}, type_), false, plan};
      room = std::max(room, plan.gates + plan.cells + plan.unprojected);
    }
    work_ = new_tensor({room}, type_);
    isa_ = &kernels();
  }

  template <class Number>
  void advance(const Tensor& input, const Tensor& output) {
    const Number* x = data<const Number>(input);
    int64_t x_row = batched_ ? input.stride(0) : I_;
    for (int64_t j = 0; j < layers_; ++j) {
      Layer& layer = layer_[j];
      const auto weight = [&](int64_t kind) { return data<const Number>(weights_[j * per_layer_ + kind].numbers); };
      Number* const h_next = data<Number>(h_next_, j * B_ * P_);
      core<Number>().forward({
          .sizes = sizes(j),
          .walk = {},
          .training = false,
          .weights = layer.packed ? Weights::kept : Weights::to_keep,
          .x = x,
          .x_step = 0,
          .x_row = x_row,
          .h_0 = data<const Number>(h_, j * B_ * P_),
          .c_0 = nullptr,
          .c = data<Sum<Number>>(c_, j * B_ * H_),
          .weight_ih = weight(0),
          .weight_hh = weight(1),
          .bias_ih = bias_ ? weight(2) : nullptr,
          .bias_hh = bias_ ? weight(3) : nullptr,
          .weight_hr = projected_ ? weight(per_layer_ - 1) : nullptr,
          .h = data<Number>(j == layers_ - 1 ? output : between_),
          .h_step = 0,
          .h_row = P_,
          .h_n = h_next,
          .c_n = nullptr,
          .gates = data<Number>(work_),
          .cells = reinterpret_cast<Sum<Number>*>(data<Number>(work_, layer.plan.gates)),
          .unprojected = data<Number>(work_, layer.plan.gates + layer.plan.cells),
          .scratch = layer.scratch.mutable_data_ptr(),
      });
      layer.packed = true;
      x = h_next;
      x_row = P_;
    }
    std::swap(h_, h_next_);
  }

  THPObjectPtr module_, names_, parameters_, hooks_before_, hooks_after_;
  bool drops_ = false;
  int64_t layers_;
  bool batched_;
  int64_t B_, I_ = 0, H_ = 0, P_ = 0, per_layer_ = 0;
  bool bias_ = false, projected_ = false;
  at::ScalarType type_ = at::kFloat;
  std::vector<Weight> weights_;
  std::vector<Layer> layer_;
  const Kernels* isa_ = nullptr;
  Tensor first_input_, h_, h_next_, c_, between_, work_;
  int64_t steps_ = 0;
};

constexpr const char* kCapsule = "gatewise.stream";

Stream* stream_of(PyObject* capsule) {
  void* const stream = PyCapsule_GetPointer(capsule, kCapsule);
  if (!stream) throw python_error();
  return static_cast<Stream*>(stream);
}

}  // namespace

PyObject* new_stream(PyObject*, PyObject* const* args, Py_ssize_t count) {
  HANDLE_TH_ERRORS
  TORCH_CHECK_TYPE(count == 5 && PyTuple_Check(args[1]) && PyTuple_GET_SIZE(args[1]) > 0,
                   "new_stream takes 5 arguments, the second of them a tuple");
  const int64_t layers = PyLong_AsLongLong(args[2]), batch_size = PyLong_AsLongLong(args[3]);
  if (PyErr_Occurred()) return nullptr;
  auto stream = std::make_unique<Stream>(args[0], args[1], layers, batch_size, args[4]);
  PyObject* const capsule = PyCapsule_New(stream.get(), kCapsule, [](PyObject* capsule) {
    delete static_cast<Stream*>(PyCapsule_GetPointer(capsule, kCapsule));
  });
  if (capsule) stream.release();
  return capsule;
  END_HANDLE_TH_ERRORS
}

PyObject* stream_step(PyObject*, PyObject* const* args, Py_ssize_t count) {
  HANDLE_TH_ERRORS
  TORCH_CHECK_TYPE(count == 2, "stream_step takes 2 arguments");
  Tensor h = stream_of(args[0])->step(args[1]);
  if (!h.defined()) Py_RETURN_NONE;
  return THPVariable_Wrap(std::move(h));
  END_HANDLE_TH_ERRORS
}

PyObject* stream_state(PyObject*, PyObject* capsule) {
  HANDLE_TH_ERRORS
  const Stream* const stream = stream_of(capsule);
  return Py_BuildValue("(NN)", THPVariable_Wrap(stream->h()), THPVariable_Wrap(stream->c()));
  END_HANDLE_TH_ERRORS
}

}  // namespace gatewise::of_torch
