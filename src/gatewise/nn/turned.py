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


def cuts_of(reset: Tensor | None, taken: Tensor | None, direction: int) -> Tensor | None:
    """Where a direction is handed no state, (T, B) by the step that reads it (equation 1.15).

    Parameters
    ----------
    reset
        (T, B), bool: where a new sequence begins; None: nowhere.
    taken
        (T, B), bool: the steps that each sequence has; None: all.
    direction
        0 forward, 1 reverse: there the step before reads what the cut is between.

    Examples
    --------
    >>> cuts_of(torch.tensor([[False], [True], [False]]), None, 1).flatten()
    tensor([ True, False, False])
    """
    if reset is None or direction == 0:
        return reset
    if taken is not None:
        reset = reset & taken  # what comes from beyond the end is the initial state
    return torch.cat([reset[1:], torch.zeros_like(reset[:1])])
