"""The weights of an LSTM, gate by gate."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from gatewise.errors import ShapeError


class Gate(NamedTuple):
    """What one gate multiplies and adds: ``a = weight_ih @ x + bias_ih + weight_hh @ h + bias_hh``.

    Attributes
    ----------
    weight_ih : Tensor
        (H, I), or (H, D·H) in the layers after the first.
    weight_hh : Tensor
        (H, H).
    bias_ih, bias_hh : Tensor or None
        (H,) each; None where the LSTM has none.
    """

    weight_ih: Tensor
    weight_hh: Tensor
    bias_ih: Tensor | None = None
    bias_hh: Tensor | None = None


class Gates(NamedTuple):
    """The input gate, the forget gate, the candidate and the output gate of one layer and direction, in torch's order.

    Attributes
    ----------
    i, f, g, o : Gate
        Their weights.
    """

    i: Gate
    f: Gate
    g: Gate
    o: Gate


def split_gates(weight_ih: Tensor, weight_hh: Tensor, bias_ih: Tensor | None, bias_hh: Tensor | None) -> Gates:
    """Take stacked weights apart into views.

    Parameters
    ----------
    weight_ih, weight_hh, bias_ih, bias_hh
        (4H, I), (4H, H), (4H,), (4H,): the rows of i, f, g and o, one after another.

    Examples
    --------
    >>> gates = split_gates(torch.arange(8.0).view(4, 2), torch.zeros(4, 1), None, None)
    >>> gates.f.weight_ih
    tensor([[2., 3.]])
    """
    blocks = [
        [None] * 4 if stacked is None else stacked.chunk(4) for stacked in (weight_ih, weight_hh, bias_ih, bias_hh)
    ]
    return Gates(*(Gate(*block) for block in zip(*blocks, strict=True)))


def stack_gates(gates: Gates) -> list[Tensor]:
    """Put the weights of four gates together: the reverse of `split_gates`.

    Returns
    -------
    list of Tensor
        weight_ih (4H, I), weight_hh (4H, H) and, where the gates have them, bias_ih and bias_hh (4H,).

    Raises
    ------
    ShapeError
        A block is not of the shape of the others.

    Examples
    --------
    >>> gate = Gate(torch.zeros(1, 2), torch.zeros(1, 1))
    >>> [tuple(weight.shape) for weight in stack_gates(Gates(gate, gate, gate, gate))]
    [(4, 2), (4, 1)]
    """
    H, I = gates.i.weight_hh.shape[0], gates.i.weight_ih.shape[-1]
    with_bias = gates.i.bias_ih is not None
    needed: dict[str, tuple[int, ...]] = {"weight_ih": (H, I), "weight_hh": (H, H)}
    if with_bias:
        needed |= {"bias_ih": (H,), "bias_hh": (H,)}
    for name, gate in zip(gates._fields, gates, strict=True):
        for kind in Gate._fields:
            block = getattr(gate, kind)
            given = None if block is None else tuple(block.shape)
            if given != needed.get(kind):
                raise ShapeError(
                    f"{kind} of gate {name} has shape {given}, needed {needed.get(kind)} as gate i has it: give all "
                    "four gates blocks of the same shapes"
                )
    return [torch.cat([getattr(gate, kind) for gate in gates]) for kind in needed]
