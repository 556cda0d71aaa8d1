"""The LSTM in torch's own operations: slower than the kernels, on any device, and differentiable in any way.

The same equations, layer after layer and step after step, for whatever the kernels have no code for: `step` has the
cell, of which nothing is known here. Numbers of 16 bits are computed with in float32.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from gatewise.nn.call import Three
from gatewise.nn.dropped import drop_weights
from gatewise.nn.step import from_input, step
from gatewise.nn.turned import cuts_of
from gatewise.reference.variant import PLAIN, Variant


def in_float32(
    function: Callable[..., Three], x: Tensor, h_0: Tensor | None, c_0: Tensor | None, weights: Sequence[Tensor]
) -> Three:
    """Compute in float32 and round the results to the dtype of the input.

    Parameters
    ----------
    function
        What computes output, h_n and c_n from the other arguments, each of which it gets as float32.
    x, h_0, c_0, weights
        Tensors of one dtype, or None.

    Examples
    --------
    >>> x = torch.ones(2, dtype=torch.bfloat16)
    >>> in_float32(lambda x, *_: (x / 3, x, x), x, None, None, [])[0]
    tensor([0.3340, 0.3340], dtype=torch.bfloat16)
    """
    dtype = x.dtype
    with torch.autocast(x.device.type, enabled=False):  # or it would cast products back
        wide = [None if state is None else state.float() for state in (h_0, c_0)]
        output, h_n, c_n = function(x.float(), *wide, [weight.float() for weight in weights])
    return output.to(dtype), h_n.to(dtype), c_n.to(dtype)


def composite_lstm(
    input: Tensor,
    h_0: Tensor | None,
    c_0: Tensor | None,
    weights: Sequence[Tensor],
    num_layers: int,
    bidirectional: bool,
    batch_first: bool,
    lengths: Tensor | None,
    reset: Tensor | None,
    batch_sizes: Tensor | None,
    *,
    variant: Variant = PLAIN,
    masks: Mapping[str, Tensor] | None = None,
    recorded: list[tuple[Tensor, Tensor]] | None = None,
) -> Three:
    """Run all layers of an LSTM, as `gatewise.nn.operators.lstm` does.

    Parameters
    ----------
    input
        (T, B, I), or (B, T, I) if `batch_first`, or (sum of `batch_sizes`, I) where these are given.
    h_0, c_0
        The initial states, (L·D, B, P) and (L·D, B, H); None: zeros. P is the width of h: H, or what weight_hr makes
        of it. Of an sLSTM c_0 is c, n and m, (L·D, B, 3H), and so is c_n.
    weights
        weight_ih, weight_hh, then bias_ih and bias_hh where there are biases, then weight_hr where h is projected, of
        layer 0 forward, then of layer 0 reverse if `bidirectional`, then of layer 1, and so on.
    num_layers, bidirectional
        L, and whether D is 2.
    batch_first
        Whether input, output and reset are (B, T, ·). The states are (L·D, B, ·) either way.
    lengths
        (B,): the steps of each sequence; None: T for all.
    reset
        (T, B), or (B, T) if `batch_first`, bool: where no state is handed on from step t - 1 to t; None: nowhere.
    batch_sizes
        (T,): how many sequences take each step, of packed sequences as torch packs them.
    variant
        The cell. What its parameters are, of each layer and direction and in which order, `Variant.shapes` tells.
    masks
        The masks of a training call, as `Variant.masks` tells them; without that of weight_hh where `weights` have it
        in them; None: evaluation.
    recorded
        A list that receives, for each layer and direction, h as (T, B, P) and i, f, g, o and c as (5, T, B, H), which
        past a sequence's length are not a number; None: nothing is recorded.

    Returns
    -------
    output : Tensor
        h of the last layer, (T, B, D·P), or as `input` is laid out; zero past a sequence's length.
    h_n, c_n : Tensor
        The final states, (L·D, B, P) and (L·D, B, H).

    Examples
    --------
    >>> weights = [torch.zeros(12, 4), torch.zeros(12, 3)]
    >>> composite_lstm(torch.zeros(5, 2, 4), None, None, weights, 1, False, False, None, None, None)[0].shape
    torch.Size([5, 2, 3])
    """
    directions = 2 if bidirectional else 1
    per_direction = len(weights) // (num_layers * directions)
    weights, masks = drop_weights(weights, masks or {})
    x = input
    taken = None
    if batch_sizes is not None:
        rows = torch.arange(int(batch_sizes[0]))
        taken = (rows < batch_sizes[:, None]).to(x.device)  # (T, B)
        places = (batch_sizes.cumsum(0) - batch_sizes)[:, None] + rows
        x = x[torch.where(taken, places.to(x.device), 0)]
    elif batch_first:
        x = x.transpose(0, 1)
        reset = None if reset is None else reset.transpose(0, 1)
    if lengths is not None:
        taken = torch.arange(x.size(0), device=x.device)[:, None] < lengths.to(x.device)
    if taken is not None:
        x = torch.where(taken[:, :, None], x, 0)  # or the gradient of what is not a number there would be none either
    finals: list[tuple[Tensor, Tensor]] = []
    for layer in range(num_layers):
        outputs = []
        for direction in range(directions):
            number = layer * directions + direction
            own = variant.named(weights[number * per_direction : (number + 1) * per_direction])
            H, P = own["weight_hh"].size(0) // len(variant.gates), own["weight_hh"].size(1)
            h = x.new_zeros(x.size(1), P) if h_0 is None else h_0[number]
            c = x.new_zeros(x.size(1), H * (len(variant.states) - 1)) if c_0 is None else c_0[number]
            steps: list[Tensor] | None = None if recorded is None else []
            of_cell = {name: mask[number] for name, mask in masks.items()}
            cuts = cuts_of(reset, taken, direction)
            h, c, output = _direction(variant, x, h, c, own, of_cell, taken, cuts, direction == 1, steps)
            outputs.append(output)
            if recorded is not None and steps is not None:
                recorded.append((output, torch.stack(steps[::-1] if direction == 1 else steps, dim=1)))
            finals.append((h, c))
        x = torch.cat(outputs, dim=-1) if bidirectional else outputs[0]
    h_n, c_n = torch.stack([h for h, _ in finals]), torch.stack([c for _, c in finals])
    if batch_sizes is not None and taken is not None:
        return x[taken], h_n, c_n
    return x.transpose(0, 1) if batch_first else x, h_n, c_n


def _direction(
    variant: Variant,
    x: Tensor,
    h: Tensor,
    c: Tensor,
    own: Mapping[str, Tensor],
    masks: Mapping[str, Tensor],
    taken: Tensor | None,
    cuts: Tensor | None,
    reverse: bool,
    steps: list[Tensor] | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """One layer in one direction: the state after its last step, and every h, (T, B, P).

    `steps` receives i, f, g, o and c of each step as it is taken.
    """
    from_x = from_input(own, x).unbind(0)  # (to the gradient of each from_x[t] torch would give zeros for all steps)
    outputs: list[Tensor] = []
    times = range(x.size(0))
    for t in reversed(times) if reverse else times:
        h_prev, c_prev = h, c
        if cuts is not None:
            h_prev, c_prev = (torch.where(cuts[t, :, None], 0, state) for state in (h, c))  # (1.15)
        # (That of h alone has no axis of time.)
        at_t = {name: mask if name == "hidden" else mask[t] for name, mask in masks.items()}
        new = step(variant, from_x[t], h_prev, c_prev, own, at_t)
        if steps is not None:
            gates = torch.stack([new.i, new.f, new.g, new.o, new.c[:, : new.i.size(-1)]])
            steps.append(gates if taken is None else torch.where(taken[t, :, None], gates, torch.nan))
        if taken is None:
            h, c = new.h, new.c
            outputs.append(h)
        else:
            now = taken[t, :, None]
            h, c = torch.where(now, new.h, h), torch.where(now, new.c, c)  # (1.14)
            outputs.append(torch.where(now, new.h, 0))
    return h, c, torch.stack(outputs[::-1] if reverse else outputs)
