// Random masks: gatewise::draw makes a tensor that is a value where a number of its own comes out below a probability, and
// 0 elsewhere.
//
// torch's own bernoulli_ takes 10 ns a number, which at small sizes is much of the step that the mask is for. So torch's
// generator draws one seed for a mask, and draw.hpp makes its numbers of that, on one thread.
#include "masks.hpp"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/EmptyTensor.h>
#include <torch/csrc/Exceptions.h>
#include <torch/csrc/autograd/python_variable.h>
#include <torch/library.h>

#include <mutex>

#include "kernels.hpp"

namespace gatewise::of_torch {
namespace {

at::Tensor draw_mask(at::IntArrayRef shape, bool is_double, double probability, double value) {
  TORCH_CHECK(0 <= probability && probability <= 1, "probability is ", probability, ", needed from 0 to 1");
  const at::Tensor mask = at::detail::empty_cpu(shape, is_double ? at::kDouble : at::kFloat, false, std::nullopt);
  at::Generator torch_s = at::detail::getDefaultCPUGenerator();
  uint64_t seed;
  {
    const std::lock_guard<std::mutex> lock(torch_s.mutex());
    seed = at::check_generator<at::CPUGeneratorImpl>(torch_s)->random64();
  }
  const gatewise::Draw draw = {mask.numel(), seed, static_cast<uint64_t>(probability * 0x1p32), value};
  if (is_double) gatewise::kernels().draw_double(draw, mask.mutable_data_ptr<double>());
  else gatewise::kernels().draw_float(draw, mask.mutable_data_ptr<float>());
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
