"""The random masks of a training call, drawn by torch's generator: the same seed draws the same, eager or compiled."""

from __future__ import annotations

import torch
from torch import Tensor

from gatewise.reference.variant import Mask


@torch.library.custom_op("gatewise::draw", mutates_args={"mask"})
def _draw(mask: Tensor, probability: float) -> None:
    """Fill a mask with 1 with a probability and with 0 otherwise.

    What is compiled calls this operator: for bernoulli_ a compiler puts a generator of its own in the place of torch's.
    """
    mask.bernoulli_(probability)


@_draw.register_fake
def _(mask: Tensor, probability: float) -> None:
    return None


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
        probability = rate if is_kept else 1 - rate
        if torch.compiler.is_compiling():
            _draw(mask, probability)
        else:
            mask.bernoulli_(probability)
        drawn[name] = mask if is_kept else mask / (1 - rate)
    return drawn
