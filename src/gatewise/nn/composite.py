"""The LSTM in torch's own operations: slower than the kernels, and differentiable as often as one likes.

The same equations, layer after layer and step after step, for whatever the kernels have no code for.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import linear


def composite_lstm(
    input: Tensor,
    h_0: Tensor | None,
    c_0: Tensor | None,
    weights: Sequence[Tensor],
    num_layers: int,
    bidirectional: bool,
    batch_first: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Run all layers of an LSTM, as `gatewise.nn.operators.lstm` does.

    Parameters
    ----------
    input
        (T, B, I), or (B, T, I) if `batch_first`.
    h_0, c_0
        The initial states, (L·D, B, H); None: zeros.
    weights
        weight_ih, weight_hh and, where there are biases, bias_ih and bias_hh of layer 0 forward, then of layer 0
        reverse if `bidirectional`, then of layer 1, and so on.
    num_layers, bidirectional
        L, and whether D is 2.
    batch_first
        Whether input and output are (B, T, ·). The states are (L·D, B, H) either way.

    Returns
    -------
    output : Tensor
        h of the last layer, (T, B, D·H), or (B, T, D·H) if `batch_first`.
    h_n, c_n : Tensor
        The final states, (L·D, B, H).

    Examples
    --------
    >>> zeros = torch.zeros
    >>> composite_lstm(zeros(5, 2, 4), None, None, [zeros(12, 4), zeros(12, 3)], 1, False, False)[0].shape
    torch.Size([5, 2, 3])
    """
    directions = 2 if bidirectional else 1
    per_direction = len(weights) // (num_layers * directions)
    x = input.transpose(0, 1) if batch_first else input
    finals: list[tuple[Tensor, Tensor]] = []
    for layer in range(num_layers):
        outputs = []
        for direction in range(directions):
            number = layer * directions + direction
            own = weights[number * per_direction : (number + 1) * per_direction]
            zeros = x.new_zeros(x.size(1), own[1].size(1))
            h = zeros if h_0 is None else h_0[number]
            c = zeros if c_0 is None else c_0[number]
            h, c, output = _direction(x, h, c, own, reverse=direction == 1)
            outputs.append(output)
            finals.append((h, c))
        x = torch.cat(outputs, dim=-1) if bidirectional else outputs[0]
    output = x.transpose(0, 1) if batch_first else x
    return output, torch.stack([h for h, _ in finals]), torch.stack([c for _, c in finals])


def _direction(
    x: Tensor, h: Tensor, c: Tensor, weights: Sequence[Tensor], reverse: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """One layer in one direction: the state after its last step, and every h, (T, B, H)."""
    weight_ih, weight_hh, *biases = weights
    from_input = linear(x, weight_ih, biases[0] + biases[1] if biases else None)
    outputs: list[Tensor] = []
    for a_x in reversed(from_input.unbind()) if reverse else from_input.unbind():
        a_i, a_f, a_g, a_o = (a_x + linear(h, weight_hh)).chunk(4, dim=-1)  # (1.1)
        i, f, g, o = a_i.sigmoid(), a_f.sigmoid(), a_g.tanh(), a_o.sigmoid()  # (1.2) to (1.5)
        c = f * c + i * g  # (1.6)
        h = o * c.tanh()  # (1.7)
        outputs.append(h)
    return h, c, torch.stack(outputs[::-1] if reverse else outputs)
