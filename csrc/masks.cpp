// Random masks: gatewise::draw makes a tensor that is a value where a number of its own comes out below a probability, and
// 0 elsewhere.
//
// torch's own bernoulli_ takes 10 ns a number, which at small sizes is much of the step that the mask is for. So torch's
// generator draws one seed for a mask, and SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number
// generators", OOPSLA 2014, figure 17) makes its numbers of that: two of 32 bits at a time, in order, on one thread.
#include "masks.hpp"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/EmptyTensor.h>
#include <torch/csrc/Exceptions.h>
#include <torch/csrc/autograd/python_variable.h>
#include <torch/library.h>

#include <mutex>

namespace gatewise::of_torch {
namespace {

uint64_t mixed(uint64_t z) {
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

template <class Number>
void fill(Number* mask, int64_t count, uint64_t seed, uint64_t below, Number value) {
  constexpr uint64_t kGolden = 0x9e3779b97f4a7c15u, kLower = 0xffffffffu;
  const Number of[] = {0, value};  // looked up: of branches the processor would foresee but half
  const auto chosen = [&](uint64_t bits) { return of[bits < below]; };
  int64_t n = 0;
  for (; n + 1 < count; n += 2) {
    const uint64_t bits = mixed(seed += kGolden);
    mask[n] = chosen(bits & kLower);
    mask[n + 1] = chosen(bits >> 32);
  }
  if (n < count) mask[n] = chosen(mixed(seed + kGolden) & kLower);
}

at::Tensor draw_mask(at::IntArrayRef shape, bool is_double, double probability, double value) {
  TORCH_CHECK(0 <= probability && probability <= 1, "probability is ", probability, ", needed from 0 to 1");
  const at::Tensor mask = at::detail::empty_cpu(shape, is_double ? at::kDouble : at::kFloat, false, std::nullopt);
  at::Generator torch_s = at::detail::getDefaultCPUGenerator();
  uint64_t seed;
  {
    const std::lock_guard<std::mutex> lock(torch_s.mutex());
    seed = at::check_generator<at::CPUGeneratorImpl>(torch_s)->random64();
  }
  const uint64_t below = static_cast<uint64_t>(probability * 0x1p32);
  if (is_double) fill(mask.mutable_data_ptr<double>(), mask.numel(), seed, below, value);
  else fill(mask.mutable_data_ptr<float>(), mask.numel(), seed, below, static_cast<float>(value));
  return mask;
}

at::Tensor draw(const at::Tensor& like, at::IntArrayRef shape, double probability, double value) {
  return draw_mask(shape, like.scalar_type() == at::kDouble, probability, value);
}

}  // namespace

PyObject* new_mask(PyObject*, PyObject* const* args, Py_ssize_t count) {
  HANDLE_TH_ERRORS
  TORCH_CHECK_TYPE(count == 4 && PyTuple_CheckExact(args[0]), "new_mask takes 4 arguments, the first of them a tuple");
  c10::SmallVector<int64_t, 4> shape;
  for (Py_ssize_t j = 0; j < PyTuple_GET_SIZE(args[0]); ++j)
    shape.push_back(PyLong_AsLongLong(PyTuple_GET_ITEM(args[0], j)));
  const double probability = PyFloat_AsDouble(args[2]), value = PyFloat_AsDouble(args[3]);
  if (PyErr_Occurred()) return nullptr;
  return THPVariable_Wrap(draw_mask(shape, args[1] == Py_True, probability, value));
  END_HANDLE_TH_ERRORS
}

}  // namespace gatewise::of_torch

// What is computed anew on the way back must have the same masks again: by the tag compilers know that a generator has to
// be set back for it.
TORCH_LIBRARY_FRAGMENT(gatewise, m) {
  m.def("draw(Tensor like, SymInt[] shape, float probability, float value) -> Tensor",
        {at::Tag::nondeterministic_seeded});
}

TORCH_LIBRARY_IMPL(gatewise, CPU, m) { m.impl("draw", gatewise::of_torch::draw); }
