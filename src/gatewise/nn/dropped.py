"""Weights that are dropped for a call (DropConnect), by torch's operations; the kernels' operators do it themselves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor


def drop_weights(weights: Sequence[Tensor], masks: Mapping[str, Tensor]) -> tuple[list[Tensor], dict[str, Tensor]]:
    """Give the weights that a call computes with (equation 7.15), and the other masks.

    Parameters
    ----------
    weights
        Those of all layers and directions, in their order.
    masks
        The call's; where there is none of weight_hh, all weights stay.

    Examples
    --------
    >>> import torch
    >>> mask = torch.tensor([0.0, 2.0, 2.0, 0.0]).reshape(1, 4, 1)  # of one layer and direction
    >>> drop_weights([torch.zeros(4, 4), torch.ones(4, 1)], {"weight_hh": mask})[0][1].flatten()
    tensor([0., 2., 2., 0.])
    """
    weights, others = list(weights), dict(masks)
    for number, mask in enumerate(dropped := others.pop("weight_hh", ())):
        place = number * (len(weights) // len(dropped)) + 1
        weights[place] = (weights[place] * mask).to(weights[place].dtype)
    return weights, others
