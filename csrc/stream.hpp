// One step of an LSTM at a time, called from Python: what src/gatewise/nn/steps.py makes of it.
#pragma once

#include <Python.h>

namespace gatewise::of_torch {

// new_stream(module, names, num_layers, batch_size or 0 where there is no batch axis, watched) -> capsule.
//
// The weights are the module's attributes of these names, in the order of operators.cpp, and are looked up at each step.
// `watched` are the module's dictionaries of hooks and whether its dropout counts: a step is not taken while there are
// hooks, or while the module is training and its dropout counts. None: nothing of it is looked at.
PyObject* new_stream(PyObject*, PyObject* const* args, Py_ssize_t count);

// stream_step(capsule, x) -> h of the last layer, or None where the step was not taken: x is no plain tensor on the CPU
// of the weights' dtype and of shape (B, I), or (I,); it wants gradients; autocast or a transform is on; or as above.
PyObject* stream_step(PyObject*, PyObject* const* args, Py_ssize_t count);

// stream_state(capsule) -> (h, c), the state itself until the next step: (L, B, P), and (L, B, H) in what sums are kept
// in.
PyObject* stream_state(PyObject*, PyObject* capsule);

}  // namespace gatewise::of_torch
