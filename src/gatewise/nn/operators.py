"""torch's view of the kernels: the operators of csrc/operators.cpp, and what torch must know of them.

`lstm` runs all layers of a network and is differentiable; its gradient is an operator of its own, which is
differentiable again by way of `composite_lstm`. Their schemas stand in csrc/operators.cpp.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from gatewise import kernels
from gatewise.errors import KernelError
from gatewise.nn.composite import composite_lstm


def _same_release(built_for: str, found: str) -> bool:
    """Whether C++ compiled against one torch may run beside another: where the first two numbers are the same."""
    return built_for.split(".")[:2] == found.split(".")[:2]


if not _same_release(kernels.TORCH_VERSION, torch.__version__):
    raise KernelError(
        f"gatewise was compiled against torch {kernels.TORCH_VERSION} and finds torch {torch.__version__}: install it "
        "again (pip install --no-build-isolation --force-reinstall --no-deps gatewise)"
    )
torch.ops.load_library(kernels.operators_library())  # type: ignore[no-untyped-call]

lstm: Callable[..., tuple[Tensor, Tensor, Tensor]] = torch.ops.gatewise.lstm.default


def _sizes(input: Tensor, batch_first: bool) -> tuple[int, int]:
    """Return T and B."""
    return (input.size(1), input.size(0)) if batch_first else (input.size(0), input.size(1))


def _lstm_shapes(
    input: Tensor,
    h_0: Tensor | None,
    c_0: Tensor | None,
    weights: Sequence[Tensor],
    num_layers: int,
    bidirectional: bool,
    batch_first: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    (T, B), H, directions = _sizes(input, batch_first), weights[1].size(1), 2 if bidirectional else 1
    output = input.new_empty((B, T, directions * H) if batch_first else (T, B, directions * H))
    h_n = input.new_empty((num_layers * directions, B, H))
    return output, h_n, torch.empty_like(h_n)


def _lstm_training_shapes(
    input: Tensor,
    h_0: Tensor | None,
    c_0: Tensor | None,
    weights: Sequence[Tensor],
    num_layers: int,
    bidirectional: bool,
    batch_first: bool,
) -> tuple[Tensor, Tensor, Tensor, list[Tensor]]:
    results = _lstm_shapes(input, h_0, c_0, weights, num_layers, bidirectional, batch_first)
    (T, B), H, directions = _sizes(input, batch_first), weights[1].size(1), 2 if bidirectional else 1
    row = kernels.kept_numbers(input.element_size(), int(H))  # a compiled call holds for one number of hidden units
    between = [input.new_empty((T, B, directions * H)) for _ in range(num_layers - 1)]
    gates = [input.new_empty(T * B * row.gates + (T + 1) * B * row.cells) for _ in range(num_layers * directions)]
    return *results, [*between, *gates]


def _lstm_backward_shapes(
    d_output: Tensor | None,
    d_h_n: Tensor | None,
    d_c_n: Tensor | None,
    input: Tensor,
    h_0: Tensor | None,
    c_0: Tensor | None,
    weights: Sequence[Tensor],
    output: Tensor,
    kept: Sequence[Tensor],
    num_layers: int,
    bidirectional: bool,
    batch_first: bool,
    wanted: Sequence[bool],
) -> list[Tensor]:
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
    d_output, d_h_n, d_c_n, input, h_0, c_0, weights, _, kept, *network, wanted = inputs
    ctx.save_for_backward(d_output, d_h_n, d_c_n, input, h_0, c_0, *weights)
    ctx.kept, ctx.network, ctx.wanted = len(kept), network, list(wanted)


def _second_derivatives(ctx: Any, d: Sequence[Tensor | None]) -> tuple[Any, ...]:
    """Differentiate the gradients of the composite.

    The gradients are a function of the results' gradients, the inputs and the weights: what forward kept is computed
    anew from these, so it gets no gradient of its own.
    """
    num_layers, bidirectional, batch_first = ctx.network
    with torch.enable_grad():
        given: list[Any] = [
            # An alias, so that a tensor that is given twice gets two gradients.
            None if t is None else t.view_as(t) if t.requires_grad else t.detach().requires_grad_()
            for t in ctx.saved_tensors
        ]
        d_results, inputs = given[:3], given[3:]
        input, h_0, c_0, *weights = inputs
        results = composite_lstm(input, h_0, c_0, weights, num_layers, bidirectional, batch_first)
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
    return *second[:6], second[6:], None, [None] * ctx.kept, None, None, None, None


torch.library.register_autograd(
    "gatewise::lstm_backward", _second_derivatives, setup_context=_keep_for_second_derivatives
)
