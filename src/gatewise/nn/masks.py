"""The random masks of a training call, drawn by torch's generator: the same seed draws the same, eager or compiled."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from gatewise.nn.operators import draw, new_mask
from gatewise.nn.paths import transformed
from gatewise.reference.variant import Mask, Variant


def _draw(like: Tensor, shape: Sequence[int], probability: float, value: float) -> Tensor:
    """Make a tensor that is a value with a probability and 0 otherwise, on any device but the CPU, or in a map."""
    # (Not in place: in a map over independent draws what is drawn has an axis more than what it would be drawn into.)
    zero = _undrawn(like, ()).zero_()
    return torch.where(torch.rand(shape, dtype=zero.dtype, device=like.device) < probability, value, zero)


def _undrawn(like: Tensor, shape: Sequence[int], *_: float) -> Tensor:
    dtype = torch.float64 if like.dtype == torch.float64 else torch.float32
    return torch.empty(shape, dtype=dtype, device=like.device)


# An operator for all devices: for bernoulli_ itself a compiler puts a generator of its own in the place of torch's. The
# CPU's is in csrc/masks.cpp.
torch.library.impl("gatewise::draw", "default", _draw)
torch.library.register_fake("gatewise::draw", _undrawn)


def _is_traced() -> bool:
    """Whether torch.jit.trace is under way."""
    return not torch.compiler.is_compiling() and torch._C._get_tracing_state() is not None


def _is_watched() -> bool:
    """Whether somebody follows torch's operators, who would take for a constant what none of them has made."""
    return torch.compiler.is_compiling() or _is_traced() or torch._C._len_torch_dispatch_stack() > 0


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
    mapped = transformed()
    at_once = type(like) is Tensor and like.is_cpu and not (mapped or _is_watched())
    drawn = {}
    for name, (shape, rate, is_kept) in masks.items():
        probability, value = (rate, 1.0) if is_kept else (1 - rate, 1 / (1 - rate))
        if at_once:
            drawn[name] = new_mask(shape, like.dtype == torch.float64, probability, value)
        elif mapped:  # torch.func.vmap has rules of its own for torch's own draws
            drawn[name] = _draw(like, shape, probability, value)
        elif _is_traced():
            # There sizes are tensors, and what follows from nothing, or twice from the same, is computed once: so each
            # mask is drawn like the one before.
            drawn[name] = like = draw(like, [int(length) for length in shape], probability, value)
        else:
            # A compiler does once what it finds twice of the same tensors, but for those that are nothing yet.
            drawn[name] = draw(_undrawn(like, ()), shape, probability, value)
    return drawn


def masks_of_call(
    variant: Variant, x: Tensor, weights: Sequence[Tensor], *, cells: int, time: int, batch: int
) -> dict[str, Tensor]:
    """Draw a call's masks.

    Parameters
    ----------
    variant
        The cell.
    x
        A tensor of the call's device and dtype.
    weights
        Those of all layers and directions, in their order.
    cells, time, batch
        L·D, T and B.

    Returns
    -------
    dict of str to Tensor
        As `Variant.masks` names them.

    Examples
    --------
    >>> weights = [torch.zeros(12, 4), torch.ones(12, 3)]
    >>> masks = masks_of_call(Variant(weight_dropout=0.5), weights[0], weights, cells=1, time=5, batch=2)
    >>> masks["weight_hh"].shape
    torch.Size([1, 12, 3])
    """
    rows, width = weights[1].shape
    sizes = {"cells": cells, "time": time, "batch": batch, "hidden": rows // len(variant.gates), "width": width}
    return draw_masks(variant.masks(**sizes), x)
