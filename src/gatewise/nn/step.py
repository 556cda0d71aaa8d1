"""One step of the LSTM cell and of its variants in torch's operations: `gatewise.reference.variants` once more.

The numbers in the comments are the equations of docs/equations.md.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import hardtanh, layer_norm, linear, logsigmoid

from gatewise.reference.layer_norm import EPSILON
from gatewise.reference.variant import Variant


class Step(NamedTuple):
    """The gates and the candidate after their activation, (B, H), and the state after the step; of an sLSTM c, n and m
    are one tensor (B, 3H).
    """

    i: Tensor
    f: Tensor
    g: Tensor
    o: Tensor
    c: Tensor
    h: Tensor


def _straight_through(a: Tensor) -> Tensor:
    return (a > 0).to(a.dtype) + (a - a.detach())  # (7.2), and what is added is 0 with the gradient of the identity


def _hard_sigmoid(a: Tensor) -> Tensor:
    # torch's hardsigmoid has a sixth of float32 in it even in float64, and no second derivative.
    return hardtanh(a / 6 + 0.5, 0.0, 1.0)  # (7.1)


_GATES: dict[str, Callable[[Tensor], Tensor]] = {
    "sigmoid": torch.sigmoid,
    "hardsigmoid": _hard_sigmoid,
    "step": _straight_through,
}
_SQUASHES: dict[str, Callable[[Tensor], Tensor]] = {"tanh": torch.tanh, "linear": lambda a: a}  # (7.4)


def from_input(own: Mapping[str, Tensor], x: Tensor) -> Tensor:
    """Compute the input's part of equation (1.1), with both biases, for any number of steps.

    Parameters
    ----------
    own
        The parameters of the layer and direction, by name.
    x
        (…, I).

    Examples
    --------
    >>> from_input({"weight_ih": torch.ones(4, 2)}, torch.ones(5, 3, 2)).shape
    torch.Size([5, 3, 4])
    """
    bias = own["bias_ih"] + own["bias_hh"] if "bias_ih" in own else None
    if "gain_ih" in own:
        return _normalized(linear(x, own["weight_ih"]), own["gain_ih"], bias)  # (7.20)
    return linear(x, own["weight_ih"], bias)


def from_hidden(own: Mapping[str, Tensor], h_prev: Tensor, masks: Mapping[str, Tensor]) -> Tensor:
    """Compute the hidden state's part of equation (1.1), for any number of steps.

    Parameters
    ----------
    own
        The parameters of the layer and direction, by name.
    h_prev
        (…, B, P): the hidden state before each step.
    masks
        As of `step`; that of h alone is used.

    Examples
    --------
    >>> from_hidden({"weight_hh": torch.ones(4, 1)}, torch.ones(5, 3, 1), {}).shape
    torch.Size([5, 3, 4])
    """
    seen_h = h_prev * masks["hidden"] if "hidden" in masks else h_prev  # (7.13)
    from_h = linear(seen_h, own["weight_hh"])
    return _normalized(from_h, own["gain_hh"], None) if "gain_hh" in own else from_h  # (7.20)


def shown(variant: Variant, o: Tensor, c: Tensor) -> Tensor:
    """Compute what a cell shows of itself, before any projection.

    Parameters
    ----------
    variant
        The cell.
    o
        (…, H): the output gate.
    c
        (…, H): the cell state, normalized where the variant does so; of an sLSTM c, n and m, (…, 3H).

    Examples
    --------
    >>> shown(Variant(cell_activation="linear"), torch.tensor([0.5]), torch.tensor([3.0]))
    tensor([1.5000])
    """
    if variant.cell == "slstm":
        cell, normalizer, _ = c.chunk(3, dim=-1)
        return o * cell / normalizer  # (7.28)
    return o * _SQUASHES[variant.cell_activation](c)  # (1.7), (1.16), (7.21)


def _normalized(v: Tensor, gain: Tensor, bias: Tensor | None) -> Tensor:
    return layer_norm(v, gain.shape, gain, bias, EPSILON)  # (7.19)


def step(
    variant: Variant,
    from_x: Tensor,
    h_prev: Tensor,
    c_prev: Tensor,
    own: Mapping[str, Tensor],
    masks: Mapping[str, Tensor],
) -> Step:
    """Take one step.

    Parameters
    ----------
    variant
        What is changed of the plain cell.
    from_x
        (B, 4H), or (B, 3H) with coupled gates: `from_input`, of this step.
    h_prev, c_prev
        (B, P) and (B, H): the state before the step; of an sLSTM c, n and m are one tensor (B, 3H).
    own
        The parameters of the layer and direction, by name.
    masks
        Those of this step, layer and direction, without the axes before B; none in evaluation. That of weight_hh is in
        `own` already.

    Examples
    --------
    >>> own = {"weight_hh": torch.zeros(4, 1)}
    >>> step(Variant(), torch.zeros(1, 4), torch.zeros(1, 1), torch.ones(1, 1), own, {}).c
    tensor([[0.5000]])
    """
    a_t = from_x + from_hidden(own, h_prev, masks)  # (1.1)
    a = dict(zip(variant.gates, a_t.chunk(len(variant.gates), -1), strict=True))  # (1.9)
    if variant.cell == "slstm":
        return _slstm(variant, a, c_prev, own, masks)
    peephole = variant.blocks(own, c_prev.size(-1))
    activation = _GATES[variant.gate_activation]

    def gate(name: str, seen: Tensor) -> Tensor:
        return activation(a[name] + peephole[name] * seen if name in peephole else a[name])  # (7.5), (7.6)

    i = gate("i", c_prev)  # (1.2)
    f = 1 - i if variant.coupled else gate("f", c_prev)  # (7.9), (1.3)
    g = _SQUASHES[variant.candidate_activation](a["g"])  # (1.4)
    c = f * c_prev + i * (g * masks["candidate"] if "candidate" in masks else g)  # (1.6), (7.11)
    o = gate("o", c)  # (1.5)
    h = shown(variant, o, _normalized(c, own["gain_c"], own.get("bias_c")) if variant.layer_norm else c)
    if "weight_hr" in own:
        h = linear(h, own["weight_hr"])  # (1.17)
    z_h, z_c = variant.zoneout  # type: ignore[misc]
    if z_h:
        z = masks.get("zoneout_h", z_h)
        h = z * h_prev + (1 - z) * h  # (7.17)
    if z_c:
        z = masks.get("zoneout_c", z_c)
        c = z * c_prev + (1 - z) * c  # (7.17)
    return Step(i, f, g, o, c, h)


def _slstm(
    variant: Variant, a: Mapping[str, Tensor], cells: Tensor, own: Mapping[str, Tensor], masks: Mapping[str, Tensor]
) -> Step:
    """Go on from the pre-activations as an sLSTM does."""
    c_prev, n_prev, m_prev = cells.chunk(3, dim=-1)
    log_f = a["f"] if variant.gate_activation == "exp" else logsigmoid(a["f"])  # (7.24)
    begun = n_prev != 0
    kept = torch.where(begun, log_f + m_prev, a["i"])
    m = torch.maximum(kept, a["i"])  # (7.25)
    i = (a["i"] - m).exp()  # (7.26)
    f = torch.where(begun, (kept - m).exp(), 0)  # (7.26)
    g, o = _SQUASHES[variant.candidate_activation](a["g"]), a["o"].sigmoid()  # (1.4), (1.5)
    c = f * c_prev + i * (g * masks["candidate"] if "candidate" in masks else g)  # (7.27)
    n = f * n_prev + i  # (7.27)
    after = torch.cat([c, n, m], dim=-1)
    h = shown(variant, o, after)
    if "weight_hr" in own:
        h = linear(h, own["weight_hr"])  # (1.17)
    return Step(i, f, g, o, after, h)
