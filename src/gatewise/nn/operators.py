"""torch's view of the kernels: the operators of csrc/operators.cpp, and what torch must know of them.

`lstm` runs all layers of a network and is differentiable; its gradient is an operator of its own, which is
differentiable again by way of `composite_lstm`. Their schemas stand in csrc/operators.cpp.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from gatewise import kernels
from gatewise.errors import KernelError
from gatewise.nn.call import Call, Three
from gatewise.nn.composite import composite_lstm, in_float32
from gatewise.nn.paths import NARROW_DTYPES
from gatewise.reference.code import Code, decoded
from gatewise.reference.variant import Variant


def _same_release(built_for: str, found: str) -> bool:
    """Whether C++ compiled against one torch may run beside another: where the first two numbers are the same."""
    return built_for.split(".")[:2] == found.split(".")[:2]


if not _same_release(kernels.TORCH_VERSION, torch.__version__):
    raise KernelError(
        f"gatewise was compiled against torch {kernels.TORCH_VERSION} and finds torch {torch.__version__}: install it "
        "again (pip install --no-build-isolation --force-reinstall --no-deps gatewise)"
    )
from gatewise import _operators  # noqa: E402  (it must not be loaded beside another torch)

_lstm: Callable[..., Three] = torch.ops.gatewise.lstm.default
plain_lstm, packed_lstm = _operators.plain_lstm, _operators.packed_lstm
new_mask = _operators.new_mask
draw: Callable[[Tensor, Sequence[int], float, float], Tensor] = torch.ops.gatewise.draw.default
new_stream, stream_step, stream_state = _operators.new_stream, _operators.stream_step, _operators.stream_state


def lstm(*arguments: Any, variant: Variant, masks: Mapping[str, Tensor] | None) -> Three:
    """Run all layers of an LSTM by the kernels: the operator, whose arguments are numbers and tensors.

    Parameters
    ----------
    *arguments, variant, masks
        As of `gatewise.nn.composite.composite_lstm`.

    Returns
    -------
    output, h_n, c_n
        As there.

    Examples
    --------
    >>> weights = [torch.zeros(12, 4), torch.zeros(12, 3), torch.zeros(9)]
    >>> first = torch.zeros(5, 2, 4), None, None, weights, 1, False, False, None, None, None
    >>> lstm(*first, variant=Variant(peephole=True), masks=None)[0].shape
    torch.Size([5, 2, 3])
    """
    return _lstm(*Call.of(*arguments, variant=variant, masks=masks))


_MARK = 8  # numbers behind what is kept that name the instruction set: kMark of csrc/operators.cpp


def _sizes(call: Call) -> tuple[int, int, int]:
    """H, the numbers of a state besides h, and P."""
    variant, _ = decoded(call.code, call.masks)
    H = call.weights[0].size(0) // len(variant.gates)
    return H, (len(variant.states) - 1) * H, call.weights[1].size(1)


def _check_devices(call: Call) -> None:
    """Refuse tensors of several devices: torch sends a call here if any of them is of shapes alone."""
    tensors = call.input, call.h_0, call.c_0, *call.weights, *call.masks
    devices = sorted({str(tensor.device) for tensor in tensors if tensor is not None})
    if len(devices) > 1:
        raise KernelError(f"input, states and weights are on {' and '.join(devices)}, needed on one device: move them")


def _lstm_shapes(*arguments: Any) -> Three:
    call = Call(*arguments)
    _check_devices(call)
    input, (_, states, P) = call.input, _sizes(call)
    if call.batch_sizes is not None:
        # How many sequences are packed stands in the numbers of batch_sizes, unless a state tells.
        B = call.h_0.size(1) if call.h_0 is not None else torch.library.get_ctx().new_dynamic_size()
    else:
        B = input.size(0 if call.batch_first else 1)
    output = input.new_empty((*input.shape[:-1], call.directions * P))
    rows = call.num_layers * call.directions, B
    return output, input.new_empty((*rows, P)), input.new_empty((*rows, states))


def _lstm_training_shapes(*arguments: Any) -> tuple[Tensor, Tensor, Tensor, list[Tensor]]:
    call = Call(*arguments)
    input, packed, (H, _, P) = call.input, call.batch_sizes is not None, _sizes(call)
    results = _lstm_shapes(*call)
    row = kernels.kept_numbers(input.element_size(), int(H), int(P), call.code)  # a compiled call holds for one of each
    steps = input.size(0) if packed else input.size(0) * input.size(1)
    kept = steps * (row.gates + row.unprojected + row.normalized) + (steps + results[1].size(1)) * row.cells + _MARK
    by_time = input.shape[:-1] if packed or not call.batch_first else (input.size(1), input.size(0))
    between = [input.new_empty((*by_time, call.directions * P)) for _ in range(call.num_layers - 1)]
    return *results, [*between, *(input.new_empty(kept) for _ in range(call.num_layers * call.directions))]


def _lstm_backward_shapes(*arguments: Any) -> list[Tensor]:
    _, _, _, input, h_0, c_0, weights, *_, wanted = arguments
    return [
        input.new_empty(x.shape if want and x is not None else (0,))
        for x, want in zip((input, h_0, c_0, *weights), wanted, strict=True)
    ]


for _name, _shapes in (
    ("gatewise::lstm", _lstm_shapes),
    ("gatewise::lstm_training", _lstm_training_shapes),
    ("gatewise::lstm_backward", _lstm_backward_shapes),
):
    torch.library.register_fake(_name, _shapes)


def _keep_for_second_derivatives(ctx: Any, inputs: tuple[Any, ...], output: list[Tensor]) -> None:
    *operands, weights, _, kept = inputs[:9]  # d_output, d_h_n, d_c_n, input, h_0, c_0
    *network, lengths, reset, batch_sizes = inputs[9:15]
    *code, masks, wanted = inputs[15:]
    ctx.save_for_backward(lengths, reset, batch_sizes, *masks, *operands, *weights)
    ctx.kept, ctx.masks, ctx.wanted = len(kept), len(masks), list(wanted)
    ctx.network, ctx.code = network, Code(*code)


def _second_derivatives(ctx: Any, d: Sequence[Tensor | None]) -> tuple[Any, ...]:
    """Differentiate the gradients of the composite.

    The gradients are a function of the results' gradients, the inputs and the weights: what forward kept is computed
    anew from these, so it gets no gradient of its own.
    """
    walk, masks, saved = ctx.saved_tensors[:3], ctx.saved_tensors[3:][: ctx.masks], ctx.saved_tensors[3 + ctx.masks :]
    variant, by_name = decoded(ctx.code, masks)
    with torch.enable_grad():
        given: list[Any] = [
            # An alias, so that a tensor that is given twice gets two gradients.
            None if t is None else t.view_as(t) if t.requires_grad else t.detach().requires_grad_()
            for t in saved
        ]
        d_results, inputs = given[:3], given[3:]
        input, h_0, c_0, *weights = inputs

        def composite(x: Tensor, h_0: Tensor | None, c_0: Tensor | None, weights: Sequence[Tensor]) -> Any:
            return composite_lstm(x, h_0, c_0, weights, *ctx.network, *walk, variant=variant, masks=by_name)

        narrow = input.dtype in NARROW_DTYPES
        results = (partial(in_float32, composite) if narrow else composite)(input, h_0, c_0, weights)
        pairs = [(r, d_r) for r, d_r in zip(results, d_results, strict=True) if d_r is not None]
        sought = {j: x for j, (x, want) in enumerate(zip(inputs, ctx.wanted, strict=True)) if want and x is not None}
        gradients = torch.autograd.grad(
            [r for r, _ in pairs],
            list(sought.values()),
            [d_r for _, d_r in pairs],
            create_graph=True,
            allow_unused=True,
        )
        again = [(g, d[j]) for g, j in zip(gradients, sought, strict=True) if g is not None and d[j] is not None]
        leaves = [t for t in given if t is not None]
        found = iter(
            torch.autograd.grad(
                [g for g, _ in again],
                leaves,
                [d_g for _, d_g in again],
                create_graph=torch.is_grad_enabled(),
                allow_unused=True,
            )
        )
    second = [None if t is None else next(found) for t in given]
    return *second[:6], second[6:], None, [None] * ctx.kept, *[None] * 9, [None] * ctx.masks, None


torch.library.register_autograd(
    "gatewise::lstm_backward", _second_derivatives, setup_context=_keep_for_second_derivatives
)


def _one_by_one(function: Callable[..., Any]) -> Callable[..., tuple[Any, Any]]:
    """The rule by which torch.func.vmap calls an operator: once for each entry of the mapped axes."""

    def rule(info: Any, in_dims: tuple[Any, ...], *args: Any) -> tuple[Any, Any]:
        def entry(arg: Any, dim: Any, number: int) -> Any:
            if isinstance(arg, (list, tuple)) and isinstance(dim, (list, tuple)):
                return [entry(a, d, number) for a, d in zip(arg, dim, strict=True)]
            return arg if dim is None else arg.select(dim, number)

        results = [
            function(*(entry(arg, dim, number) for arg, dim in zip(args, in_dims, strict=True)))
            for number in range(info.batch_size)
        ]
        stacked = [torch.stack(parts) for parts in zip(*results, strict=True)]
        form = type(results[0])
        return form(stacked), form(0 for _ in stacked)

    return rule


# Where a transform meets the operators themselves: a backward that is mapped over several gradients, and torch.compile
# of a map.
torch.library.register_vmap("gatewise::lstm", _one_by_one(torch.ops.gatewise.lstm.default))
torch.library.register_vmap("gatewise::lstm_backward", _one_by_one(torch.ops.gatewise.lstm_backward.default))
