"""Long sequences in little memory: the forward pass of each segment is computed anew when its backward is due.

What backward needs of a step, its gates and cells, takes five times the room of its output. Here only the state before
each segment is kept: a segment of `every` steps is run again on the way back, so that the room for the gates is that of
one segment, for one forward pass more (Chen et al. 2016, "Training deep nets with sublinear memory cost").
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from gatewise.errors import ArgumentError
from gatewise.nn.call import Call, Three
from gatewise.nn.operators import lstm
from gatewise.nn.turned import cuts_of, turned

_training = torch.ops.gatewise.lstm_training.default
_backward = torch.ops.gatewise.lstm_backward.default


@torch.compiler.disable  # type: ignore[untyped-decorator]
def segmented_lstm(every: int, *arguments: Any) -> Three:
    """Run all layers as `gatewise.nn.operators.lstm` does, to the same bits, and differentiate once.

    Parameters
    ----------
    every
        Steps of a segment.
    *arguments
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
    x, h_0, c_0, weights, num_layers, bidirectional, batch_first, lengths, reset, batch_sizes = call = Call(*arguments)
    directions, taken = call.directions, None
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
            c = x.new_zeros(x.size(1), own[0].size(0) // 4) if c_0 is None else c_0[number]
            cut = cuts_of(reset, taken, direction)
            cut = None if cut is None else turned(cut[:, :, None], direction, lengths)[:, :, 0]
            output, h_n, c_n = _Segments.apply(  # type: ignore[no-untyped-call]
                every, lengths, cut, turned(x, direction, lengths), h, c, *own
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
        lengths: Tensor | None,
        reset: Tensor | None,
        x: Tensor,
        h: Tensor,
        c: Tensor,
        *weights: Tensor,
    ) -> Three:
        output = x.new_empty(*x.shape[:2], h.size(1))
        h, c = h[None], c[None]
        begun = []
        for first in range(0, len(x), every):
            begun += [h, c]
            some = slice(first, first + every)
            output[some], h, c = lstm(x[some], h, c, list(weights), *_walk(some, lengths, reset))
        ctx.save_for_backward(lengths, reset, x, *weights, *begun)
        ctx.every, ctx.weights = every, len(weights)
        return output, h[0], c[0]

    @staticmethod
    def backward(ctx: Any, d_output: Tensor, d_h: Tensor, d_c: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            raise ArgumentError(
                f"checkpoint_every is {ctx.every}, and gradients of gradients (create_graph) need every step kept: "
                "make the LSTM with checkpoint_every=0"
            )
        lengths, reset, x, *rest = ctx.saved_tensors
        weights, begun = rest[: ctx.weights], rest[ctx.weights :]
        wanted = list(ctx.needs_input_grad[3:])
        d_x = torch.zeros_like(x) if wanted[0] else None
        # Sums over segments; of bfloat16 in float32, or each of them would be rounded.
        narrow = x.dtype == torch.bfloat16
        sums = [torch.zeros_like(w, dtype=torch.float32 if narrow else None) for w in weights]
        d_h, d_c = d_h[None].contiguous(), d_c[None].contiguous()
        for number in reversed(range(len(begun) // 2)):
            h, c = begun[2 * number : 2 * number + 2]
            some = slice(number * ctx.every, (number + 1) * ctx.every)
            walk = _walk(some, lengths, reset)
            out, _, _, kept = _training(x[some], h, c, weights, *walk)
            found = _backward(d_output[some], d_h, d_c, x[some], h, c, weights, out, kept, *walk, [True] * len(wanted))
            d_x_some, d_h, d_c, *d_weights = found
            if d_x is not None:
                d_x[some] = d_x_some
            for total, d_weight in zip(sums, d_weights, strict=True):
                total += d_weight
        d_weights = [total.to(w.dtype) for total, w in zip(sums, weights, strict=True)]
        return None, None, None, d_x, d_h[0], d_c[0], *d_weights


def _walk(some: slice, lengths: Tensor | None, reset: Tensor | None) -> tuple[Any, ...]:
    """The operators' last arguments for some steps: one layer, one direction, time first, lengths and resets there."""
    if lengths is not None:
        lengths = (lengths - some.start).clamp(0, some.stop - some.start)
    return 1, False, False, lengths, None if reset is None else reset[some], None
