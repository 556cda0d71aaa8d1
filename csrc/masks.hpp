// Random masks, made and drawn at once: torch's own way from Python to an operator takes longer than most masks.
#pragma once

#include <torch/csrc/python_headers.h>

namespace gatewise::of_torch {

// new_mask(shape, is_double, probability, value) -> a tensor on the CPU, as gatewise::draw makes it
PyObject* new_mask(PyObject*, PyObject* const* args, Py_ssize_t count);

}  // namespace gatewise::of_torch
