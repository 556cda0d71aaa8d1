"""The random masks of a training call, drawn by torch's generator: the same seed draws the same, eager or compiled."""

from __future__ import annotations

import torch
from torch import Tensor

from gatewise import _operators  # noqa: F401  (it has the operator)
from gatewise.reference.variant import Mask


def _draw(mask: Tensor, probability: float, value: float) -> None:
    """Fill a mask with a value with a probability and with 0 otherwise, on any device but the CPU."""
    mask.bernoulli_(probability).mul_(value)


# An operator for all devices: for bernoulli_ itself a compiler puts a generator of its own in the place of torch's. That of
# the CPU is in csrc/masks.cpp.
torch.library.impl("gatewise::draw", "default", _draw)
torch.library.register_fake("gatewise::draw", lambda mask, probability, value: None)


def draw_masks(masks: dict[str, Mask], like: Tensor) -> dict[str, Tensor]:
    """Draw masks, one after another.

    Parameters
    ----------
    masks
        As `Variant.masks` tells them.
    like
        A tensor of the device and dtype that they shall be of; of numbers of 16 bits they are float32.

    Examples
    --------
    >>> draw_masks({"hidden": Mask((1, 20, 50), 0.5, False)}, torch.zeros(()))["hidden"].unique()
    tensor([0., 2.])
    """
    dtype = torch.float64 if like.dtype == torch.float64 else torch.float32
    drawn = {}
    for name, (shape, rate, is_kept) in masks.items():
        mask = torch.empty(shape, dtype=dtype, device=like.device)
        torch.ops.gatewise.draw(mask, *((rate, 1.0) if is_kept else (1 - rate, 1 / (1 - rate))))
        drawn[name] = mask
    return drawn
