"""Sequences turned round in time."""

from __future__ import annotations

import torch
from torch import Tensor


def turned(x: Tensor, direction: int, lengths: Tensor | None) -> Tensor:
    """Turn (T, …, B, ·) round in time, each sequence from its own end, if the direction is the reverse one.

    Parameters
    ----------
    x
        (T, …, B, ·).
    direction
        0: x as it is; 1: turned round.
    lengths
        (B,): the steps of each sequence, past which the result is 0; None: all have T.

    Examples
    --------
    >>> x = torch.tensor([[1.0, 4], [2, 5], [3, 0]])[:, :, None]
    >>> turned(x, 1, torch.tensor([3, 2]))[:, :, 0]
    tensor([[3., 5.],
            [2., 4.],
            [1., 0.]])
    """
    if direction == 0:
        return x
    if lengths is None:
        return x.flip(0)
    steps = lengths.to(x.device) - 1 - torch.arange(x.size(0), device=x.device)[:, None]  # (T, B)
    shape = (steps.size(0), *[1] * (x.dim() - 3), steps.size(1), 1)
    found = x.gather(0, steps.clamp(min=0).reshape(shape).expand_as(x))
    return found.masked_fill(steps.reshape(shape) < 0, 0)
