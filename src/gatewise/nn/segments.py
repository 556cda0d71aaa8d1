"""Long sequences in little memory: the forward pass of each segment is computed anew when its backward is due.

What backward needs of a step, its gates and cells, takes five times the room of its output. Here only the state before
each segment is kept: a segment of `every` steps is run again on the way back, so that the room for the gates is that of
one segment, for one forward pass more (Chen et al. 2016, "Training deep nets with sublinear memory cost").
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from gatewise.errors import ArgumentError
from gatewise.nn.call import Three
from gatewise.nn.turned import cuts_of, turned
from gatewise.reference.code import coded
from gatewise.reference.variant import PLAIN, WITHOUT_TIME, Variant

_inference = torch.ops.gatewise.lstm.default
_training = torch.ops.gatewise.lstm_training.default
_backward = torch.ops.gatewise.lstm_backward.default


@torch.compiler.disable  # type: ignore[untyped-decorator]
def segmented_lstm(
    every: int, *arguments: Any, variant: Variant = PLAIN, masks: Mapping[str, Tensor] | None = None
) -> Three:
    """Run all layers as `gatewise.nn.operators.lstm` does, to the same bits, and differentiate once.

    Parameters
    ----------
    every
        Steps of a segment.
    *arguments, variant, masks
        As there. Packed sequences are padded on the way.

    Returns
    -------
    output, h_n, c_n
        As there.

    Examples
    --------
    >>> weights = [torch.zeros(12, 4), torch.zeros(12, 3)]
    >>> segmented_lstm(2, torch.zeros(5, 2, 4), None, None, weights, 1, False, False, None, None, None)[0].shape
    torch.Size([5, 2, 3])
    """
    x, h_0, c_0, weights, num_layers, bidirectional, batch_first, lengths, reset, batch_sizes = arguments
    directions, taken = 2 if bidirectional else 1, None
    states = len(variant.states) - 1
    per_direction = len(weights) // (num_layers * directions)
    if batch_sizes is not None:
        packed = torch.arange(int(batch_sizes[0])) < batch_sizes[:, None]  # (T, B)
        lengths = packed.sum(0)
        x = x.new_zeros(*packed.shape, x.size(-1)).masked_scatter(packed[:, :, None], x)
    elif batch_first:
        x = x.transpose(0, 1)
        reset = None if reset is None else reset.transpose(0, 1)
    if lengths is not None:
        taken = torch.arange(len(x))[:, None] < lengths  # (T, B)
    finals: list[tuple[Tensor, Tensor]] = []
    for layer in range(num_layers):
        outputs = []
        for direction in range(directions):
            number = layer * directions + direction
            own = weights[number * per_direction : (number + 1) * per_direction]
            h = x.new_zeros(x.size(1), own[1].size(1)) if h_0 is None else h_0[number]
            H = own[0].size(0) // len(variant.gates)
            c = x.new_zeros(x.size(1), states * H) if c_0 is None else c_0[number]
            # A mask of a step goes with that step of the input, whichever way it is read.
            of_cell = {
                name: mask[number] if name in WITHOUT_TIME else turned(mask[number], direction, lengths)
                for name, mask in (masks or {}).items()
            }
            cut = cuts_of(reset, taken, direction)
            cut = None if cut is None else turned(cut[:, :, None], direction, lengths)[:, :, 0]
            tensors = (turned(x, direction, lengths), h, c, *of_cell.values(), *own)
            output, h_n, c_n = _Segments.apply(  # type: ignore[no-untyped-call]
                every, variant, tuple(of_cell), lengths, cut, *tensors
            )
            outputs.append(turned(output, direction, lengths))
            finals.append((h_n, c_n))
        x = torch.cat(outputs, dim=-1) if bidirectional else outputs[0]
    h_n, c_n = torch.stack([h for h, _ in finals]), torch.stack([c for _, c in finals])
    if batch_sizes is not None:
        return x[taken], h_n, c_n
    return x.transpose(0, 1) if batch_first else x, h_n, c_n


class _Segments(torch.autograd.Function):
    """One layer in one direction, by segments of time."""

    @staticmethod
    def forward(
        ctx: Any,
        every: int,
        variant: Variant,
        names: tuple[str, ...],
        lengths: Tensor | None,
        reset: Tensor | None,
        x: Tensor,
        h: Tensor,
        c: Tensor,
        *masks_and_weights: Tensor,
    ) -> Three:
        masks, weights = masks_and_weights[: len(names)], masks_and_weights[len(names) :]
        output = x.new_empty(*x.shape[:2], h.size(1))
        h, c = h[None], c[None]
        begun = []
        for first in range(0, len(x), every):
            begun += [h, c]
            some = slice(first, first + every)
            rest = _rest(some, lengths, reset, variant, dict(zip(names, masks, strict=True)))
            output[some], h, c = _inference(x[some], h, c, list(weights), *rest)
        ctx.save_for_backward(lengths, reset, x, *masks, *weights, *begun)
        ctx.every, ctx.variant, ctx.names, ctx.weights = every, variant, names, len(weights)
        return output, h[0], c[0]

    @staticmethod
    def backward(ctx: Any, d_output: Tensor, d_h: Tensor, d_c: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            raise ArgumentError(
                f"checkpoint_every is {ctx.every}, and gradients of gradients (create_graph) need every step kept: "
                "make the LSTM with checkpoint_every=0"
            )
        lengths, reset, x, *others = ctx.saved_tensors
        masks, others = dict(zip(ctx.names, others, strict=False)), others[len(ctx.names) :]
        weights, begun = others[: ctx.weights], others[ctx.weights :]
        d_x = torch.zeros_like(x) if ctx.needs_input_grad[5] else None
        # Sums over segments; of bfloat16 in float32, or each of them would be rounded.
        narrow = x.dtype == torch.bfloat16
        sums = [torch.zeros_like(w, dtype=torch.float32 if narrow else None) for w in weights]
        d_h, d_c = d_h[None].contiguous(), d_c[None].contiguous()
        for number in reversed(range(len(begun) // 2)):
            h, c = begun[2 * number : 2 * number + 2]
            some = slice(number * ctx.every, (number + 1) * ctx.every)
            rest = _rest(some, lengths, reset, ctx.variant, masks)
            out, _, _, kept = _training(x[some], h, c, weights, *rest)
            wanted = [True] * (3 + ctx.weights)
            found = _backward(d_output[some], d_h, d_c, x[some], h, c, weights, out, kept, *rest, wanted)
            d_x_some, d_h, d_c, *d_weights = found
            if d_x is not None:
                d_x[some] = d_x_some
            for total, d_weight in zip(sums, d_weights, strict=True):
                total += d_weight
        d_weights = [total.to(w.dtype) for total, w in zip(sums, weights, strict=True)]
        return *[None] * 5, d_x, d_h[0], d_c[0], *[None] * len(masks), *d_weights


def _rest(
    some: slice, lengths: Tensor | None, reset: Tensor | None, variant: Variant, masks: Mapping[str, Tensor]
) -> tuple[Any, ...]:
    """The operators' last arguments for some steps: one layer, one direction, time first; what is for them alone."""
    if lengths is not None:
        lengths = (lengths - some.start).clamp(0, some.stop - some.start)
    of_steps = {name: (mask if name in WITHOUT_TIME else mask[some])[None] for name, mask in masks.items()}
    code, given = coded(variant, of_steps)
    return 1, False, False, lengths, None if reset is None else reset[some], None, *code, given
