// The core for NumPy, and the only C++ that knows Python. Arrays come as addresses; gatewise.kernels checks them.
#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>

#include <string>

#include "kernels.hpp"

namespace nb = nanobind;

namespace {

using gatewise::BackwardCall;
using gatewise::ForwardCall;
using gatewise::Kernels;
using gatewise::Sizes;
using gatewise::Varied;
using gatewise::Walk;

template <class Number>
Number* address(uintptr_t a) {
  return reinterpret_cast<Number*>(a);
}

// What both directions of a call have in common, in the order in which gatewise.kernels gives it.
struct Common {
  int64_t T, B, I, H, P, steps, threads;
  bool reversed;
  uintptr_t length, order, active, before, reset;  // as in Walk; reset (T, B) contiguous
  int64_t cell;                                    // as Cell::of_bits has it, and the rates
  double zoneout_h, zoneout_c;

  Sizes sizes() const {
    return {T, B, I, H, P, steps, threads, gatewise::Cell::of_bits(cell, zoneout_h, zoneout_c)};
  }
  Walk walk() const {
    return {reversed, address<const int64_t>(length), address<const int64_t>(order), address<const int64_t>(active),
            address<const int64_t>(before), false, address<const bool>(reset), B, 1};
  }
};

// What a changed cell computes with besides, in the order of Varied.
struct Besides {
  uintptr_t weight_ch, gain_ih, gain_hh, gain_c, bias_c, zoneout_h, zoneout_c, candidate, hidden;

  template <class Number>
  Varied<Number> of() const {
    using Real = const gatewise::Sum<Number>;
    return {address<const Number>(weight_ch), address<const Number>(gain_ih), address<const Number>(gain_hh),
            address<const Number>(gain_c),    address<const Number>(bias_c),  address<Real>(zoneout_h),
            address<Real>(zoneout_c),         address<Real>(candidate),       address<Real>(hidden)};
  }
};

template <class Number>
void forward(const Common& common, const Besides& besides, bool training, uintptr_t x, uintptr_t h_0, uintptr_t c_0,
             uintptr_t weight_ih, uintptr_t weight_hh, uintptr_t bias_ih, uintptr_t bias_hh, uintptr_t weight_hr,
             uintptr_t h, uintptr_t h_n, uintptr_t c_n, uintptr_t gates, uintptr_t cells, uintptr_t unprojected,
             uintptr_t normalized, uintptr_t scratch) {
  const int64_t B = common.B, I = common.I, P = common.P;
  const ForwardCall<Number> call = {
      .sizes = common.sizes(),
      .walk = common.walk(),
      .training = training,
      .x = address<const Number>(x),
      .x_step = B * I,
      .x_row = I,
      .h_0 = address<const Number>(h_0),
      .c_0 = address<const Number>(c_0),
      .weight_ih = address<const Number>(weight_ih),
      .weight_hh = address<const Number>(weight_hh),
      .bias_ih = address<const Number>(bias_ih),
      .bias_hh = address<const Number>(bias_hh),
      .weight_hr = address<const Number>(weight_hr),
      .h = address<Number>(h),
      .h_step = B * P,
      .h_row = P,
      .h_n = address<Number>(h_n),
      .c_n = address<Number>(c_n),
      .gates = address<Number>(gates),
      .cells = address<gatewise::Sum<Number>>(cells),
      .unprojected = address<Number>(unprojected),
      .scratch = address<void>(scratch),
      .varied = besides.of<Number>(),
      .normalized = address<Number>(normalized),
  };
  const nb::gil_scoped_release released;
  gatewise::kernels().of<Number>().forward(call);
}

template <class Number>
void backward(const Common& common, const Besides& besides, uintptr_t x, uintptr_t h_0, uintptr_t weight_ih,
              uintptr_t weight_hh, uintptr_t weight_hr, uintptr_t h, uintptr_t cells, uintptr_t unprojected,
              uintptr_t normalized, uintptr_t gates, uintptr_t d_h, uintptr_t d_h_n, uintptr_t d_c_n, uintptr_t d_x,
              uintptr_t d_h_0, uintptr_t d_c_0, uintptr_t d_weight_ih, uintptr_t d_weight_hh, uintptr_t d_bias,
              uintptr_t d_weight_hr, uintptr_t d_weight_ch, uintptr_t d_gain_ih, uintptr_t d_gain_hh,
              uintptr_t d_gain_c, uintptr_t d_bias_c, uintptr_t scratch) {
  const int64_t B = common.B, I = common.I, P = common.P;
  const BackwardCall<Number> call = {
      .sizes = common.sizes(),
      .walk = common.walk(),
      .x = address<const Number>(x),
      .x_step = B * I,
      .x_row = I,
      .h_0 = address<const Number>(h_0),
      .weight_ih = address<const Number>(weight_ih),
      .weight_hh = address<const Number>(weight_hh),
      .weight_hr = address<const Number>(weight_hr),
      .h = address<const Number>(h),
      .h_step = B * P,
      .h_row = P,
      .cells = address<const gatewise::Sum<Number>>(cells),
      .unprojected = address<const Number>(unprojected),
      .gates = address<const Number>(gates),
      .d_h = address<const Number>(d_h),
      .d_h_step = B * P,
      .d_h_row = P,
      .d_h_n = address<const Number>(d_h_n),
      .d_c_n = address<const Number>(d_c_n),
      .d_x = address<Number>(d_x),
      .d_x_step = B * I,
      .d_x_row = I,
      .add_to_d_x = false,
      .d_h_0 = address<Number>(d_h_0),
      .d_c_0 = address<Number>(d_c_0),
      .d_weight_ih = address<Number>(d_weight_ih),
      .d_weight_hh = address<Number>(d_weight_hh),
      .d_bias = address<Number>(d_bias),
      .d_weight_hr = address<Number>(d_weight_hr),
      .scratch = address<void>(scratch),
      .varied = besides.of<Number>(),
      .normalized = address<const Number>(normalized),
      .d_varied = {address<Number>(d_weight_ch), address<Number>(d_gain_ih), address<Number>(d_gain_hh),
                   address<Number>(d_gain_c), address<Number>(d_bias_c)},
  };
  const nb::gil_scoped_release released;
  gatewise::kernels().of<Number>().backward(call);
}

template <class Number>
void activations(const Common& common, uintptr_t gates, uintptr_t cells, uintptr_t i, uintptr_t f, uintptr_t g,
                 uintptr_t o, uintptr_t c) {
  using Real = gatewise::Sum<Number>;
  const gatewise::ActivationsCall<Number> call = {
      .sizes = common.sizes(),
      .walk = common.walk(),
      .gates = address<const Number>(gates),
      .cells = address<const Real>(cells),
      .to = {address<Real>(i), address<Real>(f), address<Real>(g), address<Real>(o), address<Real>(c)},
  };
  const nb::gil_scoped_release released;
  gatewise::kernels().of<Number>().activations(call);
}

// (numbers of gates, cells, what is projected, what is normalized, forward scratch, backward scratch)
nb::tuple plan(int itemsize, int64_t T, int64_t B, int64_t I, int64_t H, int64_t P, int64_t steps, bool training,
               int64_t cell, double zoneout_h, double zoneout_c) {
  const Sizes sizes = {T, B, I, H, P, steps, 1, gatewise::Cell::of_bits(cell, zoneout_h, zoneout_c)};
  const Kernels& k = gatewise::kernels();
  const gatewise::Plan p = itemsize == 2   ? k.for_bfloat16.plan(sizes, training)
                           : itemsize == 4 ? k.for_float.plan(sizes, training)
                                           : k.for_double.plan(sizes, training);
  return nb::make_tuple(p.gates, p.cells, p.unprojected, p.normalized, p.forward_scratch, p.backward_scratch);
}

// ((name, supported), …), the best first
nb::tuple instruction_sets() {
  int count;
  const Kernels* const* all = gatewise::all_kernels(&count);
  nb::list names;
  for (int j = 0; j < count; ++j) names.append(nb::make_tuple(all[j]->name, all[j]->supported()));
  return nb::tuple(names);
}

// Whether there is such an instruction set; the caller has made sure that the machine has it.
bool use(const std::string& name) {
  int count;
  const Kernels* const* all = gatewise::all_kernels(&count);
  for (int j = 0; j < count; ++j)
    if (name == all[j]->name) {
      gatewise::use_kernels(all[j]);
      return true;
    }
  return false;
}

}  // namespace

NB_MODULE(_core, m) {
  m.attr("torch_version") = GATEWISE_TORCH_VERSION;
  nb::class_<Common>(m, "Common")
      .def(nb::init<int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, bool, uintptr_t, uintptr_t,
                    uintptr_t, uintptr_t, uintptr_t, int64_t, double, double>());
  nb::class_<Besides>(m, "Besides")
      .def(nb::init<uintptr_t, uintptr_t, uintptr_t, uintptr_t, uintptr_t, uintptr_t, uintptr_t, uintptr_t,
                    uintptr_t>());
  m.def("forward_bfloat16", forward<gatewise::bfloat16>);
  m.def("forward_float32", forward<float>);
  m.def("forward_float64", forward<double>);
  m.def("backward_bfloat16", backward<gatewise::bfloat16>);
  m.def("backward_float32", backward<float>);
  m.def("backward_float64", backward<double>);
  m.def("activations_bfloat16", activations<gatewise::bfloat16>);
  m.def("activations_float32", activations<float>);
  m.def("activations_float64", activations<double>);
  m.def("plan", plan);
  m.def("instruction_sets", instruction_sets);
  m.def("instruction_set", [] { return gatewise::kernels().name; });
  m.def("use", use);
  m.def("forked", gatewise::forked);
  m.def("fork_join", gatewise::fork_join, nb::call_guard<nb::gil_scoped_release>());
  m.def("sigmoid_float32", [](uintptr_t x, uintptr_t y, int64_t n) {
    gatewise::kernels().sigmoid_float(address<const float>(x), address<float>(y), n);
  });
  m.def("sigmoid_float64", [](uintptr_t x, uintptr_t y, int64_t n) {
    gatewise::kernels().sigmoid_double(address<const double>(x), address<double>(y), n);
  });
  m.def("tanh_float32", [](uintptr_t x, uintptr_t y, int64_t n) {
    gatewise::kernels().tanh_float(address<const float>(x), address<float>(y), n);
  });
  m.def("tanh_float64", [](uintptr_t x, uintptr_t y, int64_t n) {
    gatewise::kernels().tanh_double(address<const double>(x), address<double>(y), n);
  });
  m.def("exp_of_negative_float32", [](uintptr_t x, uintptr_t y, int64_t n) {
    gatewise::kernels().exp_of_negative_float(address<const float>(x), address<float>(y), n);
  });
  m.def("exp_of_negative_float64", [](uintptr_t x, uintptr_t y, int64_t n) {
    gatewise::kernels().exp_of_negative_double(address<const double>(x), address<double>(y), n);
  });
  m.def("log_sigmoid_float32", [](uintptr_t x, uintptr_t y, int64_t n) {
    gatewise::kernels().log_sigmoid_float(address<const float>(x), address<float>(y), n);
  });
  m.def("log_sigmoid_float64", [](uintptr_t x, uintptr_t y, int64_t n) {
    gatewise::kernels().log_sigmoid_double(address<const double>(x), address<double>(y), n);
  });
  m.def("to_bfloat16", [](uintptr_t x, uintptr_t y, int64_t n) {
    gatewise::kernels().to_bfloat16(address<const float>(x), address<gatewise::bfloat16>(y), n);
  });
  m.def("from_bfloat16", [](uintptr_t x, uintptr_t y, int64_t n) {
    gatewise::kernels().from_bfloat16(address<const gatewise::bfloat16>(x), address<float>(y), n);
  });
}
