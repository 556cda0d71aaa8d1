"""The kernels as one differentiable torch function over all layers and directions.

Everything here is on the path of every training step, and a small step takes less than 100 µs: tensors go to the core
as addresses, one `autograd.Function` covers all layers, and whatever a caller can check once is not checked again.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gatewise import kernels
from gatewise.errors import DtypeError, KernelError, ShapeError


class Stack(NamedTuple):
    """What an LSTM is made of, besides its weights.

    The weights come as one flat sequence: weight_ih, weight_hh and, with `bias`, bias_ih and bias_hh of layer 0
    forward, then of layer 0 reverse if `directions` is 2, then of layer 1, and so on, as torch orders them.
    """

    num_layers: int
    directions: int
    bias: bool
    batch_first: bool


class Run(NamedTuple):
    """A forward pass: the results, each layer's output and, per layer and direction, the gates and cells kept."""

    output: Tensor
    h_n: Tensor
    c_n: Tensor
    layer_outputs: list[Tensor]
    kept: list[Tensor]


# Where the first step of the first row stands, and how far apart steps and rows stand: what the core reads of a tensor
# of sequences.
_Sequence = tuple[int, int, int]


def _sequence(x: Tensor, batch_first: bool) -> _Sequence:
    strides = x.stride()
    return (x.data_ptr(), strides[1], strides[0]) if batch_first else (x.data_ptr(), strides[0], strides[1])


def _in_direction(sequence: _Sequence, direction: int, T: int, itemsize: int, offset: int = 0) -> _Sequence:
    """Turn a sequence around for direction 1, and move it along its last axis by `offset` numbers."""
    if direction == 0:
        return sequence
    address, step, row = sequence
    return address + ((T - 1) * step + offset) * itemsize, -step, row


_ABSENT: _Sequence = (0, 0, 0)


def _address(x: Tensor | None, offset: int = 0) -> int:
    return 0 if x is None else x.data_ptr() + offset


def _rows_contiguous(x: Tensor) -> Tensor:
    """Return x with its last axis contiguous, as the core reads it; any order of the others will do."""
    x = x.resolve_neg()
    return x if x.stride(-1) == 1 or x.size(-1) == 1 else x.contiguous()


def _sizes(x: Tensor, batch_first: bool) -> tuple[int, int, int]:
    """Return T, B and I."""
    first, second, I = x.shape
    return (second, first, I) if batch_first else (first, second, I)


class _Scratch(threading.local):
    """Memory that the core computes in, one per thread and number type, kept from call to call and grown as needed."""

    def __init__(self) -> None:
        self.tensors: dict[torch.dtype, Tensor] = {}

    def address(self, count: int, dtype: torch.dtype) -> int:
        tensor = self.tensors.get(dtype)
        if tensor is None or tensor.numel() < count:
            tensor = self.tensors[dtype] = torch.empty(count, dtype=dtype, device="cpu")
        return tensor.data_ptr()


_scratch = _Scratch()


def run_forward(
    x: Tensor, h_0: Tensor | None, c_0: Tensor | None, stack: Stack, weights: Sequence[Tensor], training: bool
) -> Run:
    """Run all layers.

    Parameters
    ----------
    x
        The input, (T, B, I), or (B, T, I) if `stack.batch_first`.
    h_0, c_0
        The initial states, (L·D, B, H), contiguous. None: zeros.
    stack, weights
        The network; every weight is contiguous.
    training
        Keep what the backward pass needs.
    """
    num_layers, directions, bias, batch_first = stack
    T, batch, I = _sizes(x, batch_first)
    H, itemsize, dtype = weights[1].size(1), x.element_size(), x.dtype
    call = kernels.forward_function[itemsize]
    threads = torch.get_num_threads()
    h_n = torch.empty((num_layers * directions, batch, H), dtype=dtype, device="cpu")
    c_n = torch.empty_like(h_n)
    state_bytes = batch * H * itemsize
    # weight_ih, weight_hh, bias_ih and bias_hh of each layer and direction; 0 for no bias
    at = [weight.data_ptr() for weight in weights]
    per_direction = 4 if bias else 2
    layer_outputs: list[Tensor] = []
    kept: list[Tensor] = []
    for layer in range(num_layers):
        plan = kernels.plan(itemsize, T, batch, I, H, training)
        # Between layers (T, B, ·): what dropout draws its mask over, in torch's order.
        out_batch_first = batch_first and layer == num_layers - 1
        shape = (batch, T, directions * H) if out_batch_first else (T, batch, directions * H)
        output = torch.empty(shape, dtype=dtype, device="cpu")
        from_x, to_h = _sequence(x, batch_first and layer == 0), _sequence(output, out_batch_first)
        if batch and not (from_x[0] and to_h[0]):
            raise KernelError("a tensor has no memory behind it, as in a fake or symbolic run: use real tensors")
        scratch = _scratch.address(plan.forward_scratch, dtype)
        for direction in range(directions):
            number = layer * directions + direction
            if training or not kept:
                kept.append(torch.empty(plan.gates + plan.cells, dtype=dtype, device="cpu"))
            gates = kept[-1].data_ptr()
            first, offset = number * per_direction, number * state_bytes
            call(
                *(T, batch, I, H, threads, training),
                *_in_direction(from_x, direction, T, itemsize),
                *(_address(h_0, offset), _address(c_0, offset)),
                *(at[first], at[first + 1], at[first + 2] if bias else 0, at[first + 3] if bias else 0),
                *_in_direction(to_h, direction, T, itemsize, offset=H),
                *(_address(h_n, offset), _address(c_n, offset)),
                *(gates, gates + plan.gates * itemsize, scratch),
            )
        if not training:
            kept.clear()
        layer_outputs.append(output)
        x, I = output, directions * H
    return Run(output, h_n, c_n, layer_outputs, kept)


class _OnceOnly(torch.autograd.Function):
    """A gradient that remembers what it depends on, so that differentiating it again is an error and not zero."""

    @staticmethod
    def forward(ctx: Any, gradient: Tensor, *depends_on: Tensor) -> Tensor:
        return gradient.view_as(gradient)

    @staticmethod
    def backward(ctx: Any, *_: Tensor) -> None:
        raise KernelError(
            "a gradient of gatewise's LSTM was differentiated again, and its kernels differentiate once: use "
            "torch.nn.LSTM with the same weights where you need second derivatives"
        )


class _LSTMFunction(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, h_0: Tensor | None, c_0: Tensor | None, stack: Stack, *weights: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        run = run_forward(x, h_0, c_0, stack, weights, training=True)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x, h_0, c_0, *run.layer_outputs, *weights)
        ctx.stack, ctx.kept = stack, run.kept
        return run.output, run.h_n, run.c_n

    @staticmethod
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
        kept: list[Tensor] | None = ctx.kept
        ctx.kept = None
        if kept is None:
            kept = run_forward(first_x, h_0, c_0, stack, weights, training=True).kept

        T, batch, first_I = _sizes(first_x, batch_first)
        if batch == 0:  # nothing for the kernels to sum: every gradient is zero or empty
            inputs = (first_x, h_0, c_0, None, *weights)
            return tuple(
                torch.zeros_like(t) if want and t is not None else None
                for t, want in zip(inputs, ctx.needs_input_grad, strict=True)
            )
        H, itemsize, dtype = weights[1].size(1), first_x.element_size(), first_x.dtype
        call = kernels.backward_function[itemsize]
        threads = torch.get_num_threads()
        state_bytes = batch * H * itemsize
        per_direction = 4 if bias else 2
        wanted = ctx.needs_input_grad
        d_h_0 = torch.empty_like(h_0) if h_0 is not None and wanted[1] else None
        d_c_0 = torch.empty_like(c_0) if c_0 is not None and wanted[2] else None
        d_weights = [torch.empty_like(w) if want else None for w, want in zip(weights, wanted[4:], strict=True)]
        d_h_n = None if d_h_n is None else d_h_n.resolve_neg().contiguous()
        d_c_n = None if d_c_n is None else d_c_n.resolve_neg().contiguous()
        d_out = None if d_output is None else _rows_contiguous(d_output)
        for layer in reversed(range(num_layers)):
            x, I = (layer_outputs[layer - 1], directions * H) if layer else (first_x, first_I)
            in_batch_first = batch_first and layer == 0
            out_batch_first = batch_first and layer == num_layers - 1
            d_x = torch.empty_like(x, memory_format=torch.contiguous_format) if layer or wanted[0] else None
            plan = kernels.plan(itemsize, T, batch, I, H, True)
            scratch = _scratch.address(plan.backward_scratch, dtype)
            from_x, from_h = _sequence(x, in_batch_first), _sequence(layer_outputs[layer], out_batch_first)
            from_d_h = _ABSENT if d_out is None else _sequence(d_out, out_batch_first)
            to_d_x = _ABSENT if d_x is None else _sequence(d_x, in_batch_first)
            for direction in range(directions):
                number = layer * directions + direction
                first = number * per_direction
                d_ih, d_hh, *d_biases = d_weights[first : first + per_direction]
                d_bias = next((d for d in d_biases if d is not None), None)
                offset, gates = number * state_bytes, kept[number].data_ptr()
                call(
                    *(T, batch, I, H, threads),
                    *_in_direction(from_x, direction, T, itemsize),
                    _address(h_0, offset),
                    *(_address(weights[first]), _address(weights[first + 1])),
                    *_in_direction(from_h, direction, T, itemsize, offset=H),
                    *(gates + plan.gates * itemsize, gates),
                    *(from_d_h if d_out is None else _in_direction(from_d_h, direction, T, itemsize, offset=H)),
                    *(_address(d_h_n, offset), _address(d_c_n, offset)),
                    *(to_d_x if d_x is None else _in_direction(to_d_x, direction, T, itemsize)),
                    direction == 1,
                    *(_address(d_h_0, offset), _address(d_c_0, offset)),
                    *(_address(d_ih), _address(d_hh), _address(d_bias), scratch),
                )
                # Each bias gets a tensor of its own: both may keep theirs as .grad, which must not share memory.
                for other in d_biases:
                    if d_bias is not None and other is not None and other is not d_bias:
                        other.copy_(d_bias)
            d_out = d_x
        gradients = (d_out, d_h_0, d_c_0, None, *d_weights)
        if not torch.is_grad_enabled():
            return gradients
        return tuple(None if g is None else _OnceOnly.apply(g, *(t for t in saved if t is not None)) for g in gradients)  # type: ignore[no-untyped-call]


def check_weights(x: Tensor, stack: Stack, weights: Sequence[Tensor]) -> None:
    """Refuse weights that do not fit the input or one another: the core would read past their end.

    Raises
    ------
    DtypeError, KernelError, ShapeError
        A weight is not of the input's dtype, not on the CPU, or of another shape than the first weight implies.

    Examples
    --------
    >>> stack = Stack(num_layers=1, directions=1, bias=False, batch_first=False)
    >>> check_weights(torch.zeros(5, 2, 4), stack, [torch.zeros(12, 4), torch.zeros(12, 3)])
    """
    gates, per_direction = weights[0].size(0), 4 if stack.bias else 2
    H = gates // 4
    for number, weight in enumerate(weights):
        kind = number % per_direction
        if kind == 0:
            needed: tuple[int, ...] = (
                gates,
                x.size(2) if number < per_direction * stack.directions else stack.directions * H,
            )
        elif kind == 1:
            needed = (gates, H)
        else:
            needed = (gates,)
        if weight.shape != needed:
            raise ShapeError(f"weight number {number} has shape {tuple(weight.shape)}, needed {needed}: restore it")
        if weight.dtype != x.dtype:
            raise DtypeError(f"weight number {number} is {weight.dtype}, needed {x.dtype} as the input: convert it")
        if not weight.is_cpu:
            raise KernelError(f"weight number {number} is on {weight.device}, needed on the cpu: move it there")


# Function.apply looks through its arguments for the wrappers of functorch's transforms, a twentieth of a small step's
# time. Outside of such a transform there are none, and this is the apply behind that one.
_apply_outside_transforms = super(torch.autograd.Function, _LSTMFunction).apply


def lstm_function(
    x: Tensor, h_0: Tensor | None, c_0: Tensor | None, stack: Stack, weights: Sequence[Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    """Run all layers of an LSTM on the kernels, differentiable once.

    Shapes must fit (the modules check them), all tensors be on the CPU and of one dtype, float32 or float64.

    Parameters
    ----------
    x
        The input, (T, B, I), or (B, T, I) if `stack.batch_first`; any strides.
    h_0, c_0
        The initial states, (L·D, B, H); None: zeros.
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
    >>> stack = Stack(num_layers=1, directions=1, bias=False, batch_first=False)
    >>> lstm_function(zeros(5, 2, 4), None, None, stack, [zeros(12, 4), zeros(12, 3)])[0].shape
    torch.Size([5, 2, 3])
    """
    x = _rows_contiguous(x)
    if h_0 is not None and c_0 is not None:
        h_0, c_0 = h_0.resolve_neg().contiguous(), c_0.resolve_neg().contiguous()
    weights = [weight.contiguous() for weight in weights]
    check_weights(x, stack, weights)
    if torch.is_grad_enabled() and (
        x.requires_grad
        or any(weight.requires_grad for weight in weights)
        or (h_0 is not None and h_0.requires_grad)
        or (c_0 is not None and c_0.requires_grad)
    ):
        in_transform = torch._C._are_functorch_transforms_active()
        apply = _LSTMFunction.apply if in_transform else _apply_outside_transforms
        output, h_n, c_n = apply(x, h_0, c_0, stack, *weights)  # type: ignore[no-untyped-call]
        return output, h_n, c_n
    if torch.jit.is_tracing():  # type: ignore[attr-defined, no-untyped-call]
        raise KernelError(
            "gatewise's LSTM was called in torch.jit.trace, which cannot see its kernels: use torch.nn.LSTM there"
        )
    run = run_forward(x, h_0, c_0, stack, weights, training=False)
    return run.output, run.h_n, run.c_n
