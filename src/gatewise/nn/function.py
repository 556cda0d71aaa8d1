"""The kernels as one differentiable torch function over all layers and directions.

Everything here is on the path of every training step, and a small step takes less than 100 µs: tensors go to the core
as addresses, one `autograd.Function` covers all layers, and whatever a caller can check once is not checked again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from gatewise import kernels


class Stack(NamedTuple):
    """What an LSTM is made of, besides its weights.

    The weights come as one flat sequence: weight_ih, weight_hh and, with `bias`, bias_ih and bias_hh of layer 0
    forward, then of layer 0 reverse if `directions` is 2, then of layer 1, and so on, as torch orders them.
    """

    num_layers: int
    directions: int
    bias: bool
    batch_first: bool


class Kept(NamedTuple):
    """What one layer's forward pass in one direction leaves for backward, in the core's own layout."""

    gates: Tensor
    cells: Tensor


class Run(NamedTuple):
    """A forward pass: the results, each layer's output and what is kept per layer and direction."""

    output: Tensor
    h_n: Tensor
    c_n: Tensor
    layer_outputs: list[Tensor]
    kept: list[Kept]


class _Axes(NamedTuple):
    """How far apart steps, rows and the first step of a direction stand in a tensor of sequences."""

    address: int
    step: int
    row: int


def _sequence(x: Tensor, batch_first: bool, reverse: bool, offset: int = 0) -> _Axes:
    time, row = (1, 0) if batch_first else (0, 1)
    step, itemsize = x.stride(time), x.element_size()
    address = x.data_ptr() + offset * itemsize
    if reverse:
        return _Axes(address + (x.size(time) - 1) * step * itemsize, -step, x.stride(row))
    return _Axes(address, step, x.stride(row))


def _rows_contiguous(x: Tensor) -> Tensor:
    """Return x with its last axis contiguous, as the core reads it; any order of the others will do."""
    return x if x.stride(-1) == 1 or x.size(-1) == 1 else x.contiguous()


def _addresses(weights: Sequence[Tensor], bias: bool) -> tuple[int, int, int, int]:
    if bias:
        return (weights[0].data_ptr(), weights[1].data_ptr(), weights[2].data_ptr(), weights[3].data_ptr())
    return (weights[0].data_ptr(), weights[1].data_ptr(), 0, 0)


def run_forward(
    x: Tensor, h_0: Tensor, c_0: Tensor, stack: Stack, weights: Sequence[Tensor], training: bool
) -> Run:
    """Run all layers.

    Parameters
    ----------
    x
        The input, (T, B, I), or (B, T, I) if `stack.batch_first`.
    h_0, c_0
        The initial states, (L·D, B, H), contiguous.
    stack, weights
        The network; every weight is contiguous.
    training
        Keep what the backward pass needs.
    """
    num_layers, directions, bias, batch_first = stack
    batch, T = (x.size(0), x.size(1)) if batch_first else (x.size(1), x.size(0))
    H = weights[1].size(1)
    call = kernels.forward_function[x.element_size()]
    threads = torch.get_num_threads()
    h_n, c_n = torch.empty_like(h_0), torch.empty_like(c_0)
    state_bytes = batch * H * x.element_size()
    per_direction = 4 if bias else 2
    layer_outputs: list[Tensor] = []
    kept: list[Kept] = []
    for layer in range(num_layers):
        I = x.size(2)
        plan = kernels.plan(x.element_size(), T, batch, I, H, training)
        scratch = x.new_empty(plan.forward_scratch)
        # Between layers (T, B, ·): what dropout draws its mask over, in torch's order.
        in_batch_first = batch_first and layer == 0
        out_batch_first = batch_first and layer == num_layers - 1
        output = x.new_empty((batch, T, directions * H) if out_batch_first else (T, batch, directions * H))
        for direction in range(directions):
            number = layer * directions + direction
            if training or not kept:
                kept.append(Kept(x.new_empty(plan.gates), x.new_empty(plan.cells)))
            gates, cells = kept[-1]
            call(
                *(T, batch, I, H, threads, training),
                *_sequence(x, in_batch_first, direction == 1),
                *(h_0.data_ptr() + number * state_bytes, c_0.data_ptr() + number * state_bytes),
                *_addresses(weights[number * per_direction : (number + 1) * per_direction], bias),
                *_sequence(output, out_batch_first, direction == 1, direction * H),
                *(h_n.data_ptr() + number * state_bytes, c_n.data_ptr() + number * state_bytes),
                *(gates.data_ptr(), cells.data_ptr(), scratch.data_ptr()),
            )
        if not training:
            kept.clear()
        layer_outputs.append(output)
        x = output
    return Run(output, h_n, c_n, layer_outputs, kept)


class _LSTMFunction(torch.autograd.Function):
    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, x: Tensor, h_0: Tensor, c_0: Tensor, stack: Stack, *weights: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        run = run_forward(x, h_0, c_0, stack, weights, training=True)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x, h_0, c_0, *run.layer_outputs, *weights)
        ctx.stack, ctx.kept = stack, run.kept
        return run.output, run.h_n, run.c_n

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(
        ctx: Any, d_output: Tensor | None, d_h_n: Tensor | None, d_c_n: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        stack: Stack = ctx.stack
        num_layers, directions, bias, batch_first = stack
        saved = ctx.saved_tensors
        first_x, h_0, c_0 = saved[:3]
        layer_outputs, weights = saved[3 : 3 + num_layers], saved[3 + num_layers :]
        # Backward turns the gates into their gradients in place. Where the graph is retained and goes backward a
        # second time, they are computed anew.
        kept: list[Kept] | None = ctx.kept
        ctx.kept = None
        if kept is None:
            kept = run_forward(first_x, h_0, c_0, stack, weights, training=True).kept

        batch, T = (first_x.size(0), first_x.size(1)) if batch_first else (first_x.size(1), first_x.size(0))
        H = weights[1].size(1)
        itemsize = first_x.element_size()
        call = kernels.backward_function[itemsize]
        threads = torch.get_num_threads()
        state_bytes = batch * H * itemsize
        per_direction = 4 if bias else 2
        wanted = ctx.needs_input_grad
        d_h_0 = torch.empty_like(h_0) if wanted[1] else None
        d_c_0 = torch.empty_like(c_0) if wanted[2] else None
        d_weights: list[Tensor | None] = [None] * len(weights)
        d_h_n = None if d_h_n is None else d_h_n.contiguous()
        d_c_n = None if d_c_n is None else d_c_n.contiguous()
        d_out = None if d_output is None else _rows_contiguous(d_output)

        def at(states: Tensor | None, number: int) -> int:
            return 0 if states is None else states.data_ptr() + number * state_bytes

        def gradient_of(index: int) -> int:
            if not wanted[4 + index]:
                return 0
            grad = d_weights[index] = torch.empty_like(weights[index])
            return grad.data_ptr()

        for layer in reversed(range(num_layers)):
            x, output = (layer_outputs[layer - 1] if layer else first_x), layer_outputs[layer]
            in_batch_first = batch_first and layer == 0
            out_batch_first = batch_first and layer == num_layers - 1
            d_x = torch.empty_like(x, memory_format=torch.contiguous_format) if layer or wanted[0] else None
            I = x.size(2)
            scratch = x.new_empty(kernels.plan(itemsize, T, batch, I, H, True).backward_scratch)
            for direction in range(directions):
                reverse, number = direction == 1, layer * directions + direction
                first = number * per_direction
                d_ih, d_hh = gradient_of(first), gradient_of(first + 1)
                d_bias = 0
                if bias and (wanted[4 + first + 2] or wanted[4 + first + 3]):
                    bias_grad = torch.empty_like(weights[first + 2])
                    d_bias = bias_grad.data_ptr()
                call(
                    *(T, batch, I, H, threads),
                    *_sequence(x, in_batch_first, reverse),
                    at(h_0, number),
                    *_addresses(weights[first : first + 2], False)[:2],
                    *_sequence(output, out_batch_first, reverse, direction * H),
                    *(kept[number].cells.data_ptr(), kept[number].gates.data_ptr()),
                    *((0, 0, 0) if d_out is None else _sequence(d_out, out_batch_first, reverse, direction * H)),
                    *(at(d_h_n, number), at(d_c_n, number)),
                    *((0, 0, 0) if d_x is None else _sequence(d_x, in_batch_first, reverse)),
                    reverse,
                    *(at(d_h_0, number), at(d_c_0, number), d_ih, d_hh, d_bias, scratch.data_ptr()),
                )
                if d_bias:
                    # Two tensors: both biases may keep theirs as .grad, which must not share memory.
                    d_weights[first + 2] = bias_grad
                    d_weights[first + 3] = bias_grad.clone()
            d_out = d_x
        return (d_out, d_h_0, d_c_0, None, *d_weights)


def lstm_function(
    x: Tensor, h_0: Tensor, c_0: Tensor, stack: Stack, weights: Sequence[Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    """Run all layers of an LSTM on the kernels, differentiable once.

    Shapes must fit (the modules check them), all tensors be on the CPU and of one dtype, float32 or float64.

    Parameters
    ----------
    x
        The input, (T, B, I), or (B, T, I) if `stack.batch_first`; any strides.
    h_0, c_0
        The initial states, (L·D, B, H).
    stack, weights
        The network.

    Returns
    -------
    output : Tensor
        h of the last layer, (T, B, D·H), or (B, T, D·H) if `stack.batch_first`.
    h_n, c_n : Tensor
        The final states, (L·D, B, H).

    Examples
    --------
    >>> zeros = torch.zeros
    >>> states = zeros(1, 2, 3), zeros(1, 2, 3)
    >>> stack = Stack(num_layers=1, directions=1, bias=False, batch_first=False)
    >>> lstm_function(zeros(5, 2, 4), *states, stack, [zeros(12, 4), zeros(12, 3)])[0].shape
    torch.Size([5, 2, 3])
    """
    x = _rows_contiguous(x)
    h_0, c_0 = h_0.contiguous(), c_0.contiguous()
    weights = [weight.contiguous() for weight in weights]
    if torch.is_grad_enabled() and any(t.requires_grad for t in (x, h_0, c_0, *weights)):
        output, h_n, c_n = _LSTMFunction.apply(x, h_0, c_0, stack, *weights)  # type: ignore[no-untyped-call]
        return output, h_n, c_n
    run = run_forward(x, h_0, c_0, stack, weights, training=False)
    return run.output, run.h_n, run.c_n
