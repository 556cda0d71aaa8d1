"""The work of a variant: an LSTM of that cell, its input, states and gradient of the output; and a training step."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from gatewise.bench.config import VariantName
from gatewise.bench.grid import Size
from gatewise.bench.peers import Call, Results
from gatewise.bench.work import layers, seeded
from gatewise.nn import LSTM

Name = VariantName | Literal["plain"]
Network = Callable[[Tensor, tuple[Tensor, ...]], Tensor]
"""What makes the output of the input and the states."""

# The rates are those of the README's examples: a mask costs the same at any rate.
ARGUMENTS: dict[Name, dict[str, Any]] = {
    "plain": {},
    "peephole": {"peephole": True},
    "coupled": {"coupled": True},
    "layer-norm": {"layer_norm": True},
    "projection": {},
    "zoneout": {"zoneout": 0.1},
    "recurrent-dropout": {"recurrent_dropout": 0.25},
    "variational-dropout": {"variational_dropout": 0.1},
    "weight-dropout": {"weight_dropout": 0.5},
    "hard-sigmoid": {"gate_activation": "hardsigmoid"},
    "step": {"gate_activation": "step"},
    "linear-candidate": {"candidate_activation": "linear"},
    "linear-cell": {"cell_activation": "linear"},
    "slstm": {"cell": "slstm"},
    "peephole+coupled": {"peephole": True, "coupled": True},
    "layer-norm+zoneout": {"layer_norm": True, "zoneout": 0.1},
}
"""Those of gatewise.LSTM for each variant; the projection's proj_size is H/2."""


@dataclass(frozen=True)
class Work:
    """Numbers to compute with, drawn once for a size and a variant.

    Parameters
    ----------
    size : Size
        The sizes.
    lstm : LSTM
        The weights, in training mode.
    x : Tensor
        The input, (T, B, I).
    states : tuple of Tensor
        h_0, c_0, and for an sLSTM n_0 and m_0.
    d_output : Tensor
        The gradient of the output, from which backward starts.

    Examples
    --------
    >>> draw(Size(2, 3, 4, 6, 1, 1), "projection", torch.float32).d_output.shape
    torch.Size([3, 2, 3])
    """

    size: Size
    lstm: LSTM
    x: Tensor
    states: tuple[Tensor, ...]
    d_output: Tensor


def options(size: Size, name: Name) -> dict[str, Any]:
    """Give the arguments of gatewise.LSTM for a size and a variant.

    Examples
    --------
    >>> options(Size(2, 3, 4, 6, 1, 1), "projection")["proj_size"]
    3
    """
    projection = {"proj_size": size.H // 2} if name == "projection" else {}
    return layers(size) | projection | ARGUMENTS[name]


def draw(size: Size, name: Name, dtype: torch.dtype) -> Work:
    """Draw weights and numbers; for the same size and variant always the same.

    Parameters
    ----------
    size : Size
        The sizes; H is at least 2 where h is projected.
    name : str
        The variant, or plain.
    dtype : torch.dtype
        What is computed in.
    """
    B, T, I, H, L, D = size
    with seeded():
        lstm = LSTM(**options(size, name), dtype=dtype)
        P = lstm.proj_size or H
        x, d_output = torch.randn(T, B, I, dtype=dtype), torch.randn(T, B, D * P, dtype=dtype)
        h_0 = torch.randn(L * D, B, P, dtype=dtype)
        cells = [torch.randn(L * D, B, H, dtype=dtype) for _ in lstm.variant.states[1:]]
    if len(cells) > 1:
        cells[1] = 1 + cells[1].abs()  # of an sLSTM's n, 0 is the beginning and below 0 nothing
    return Work(size, lstm, x, (h_0, *cells), d_output)


def of_module(lstm: LSTM) -> Network:
    """Make the network of an LSTM."""

    def network(x: Tensor, states: tuple[Tensor, ...]) -> Tensor:
        output: Tensor = lstm(x, states)[0]
        return output

    return network


def training(network: Network, parameters: Mapping[str, Tensor], work: Work) -> Call:
    """Make the call of a training step: forward, and backward to the input, the states and all parameters.

    Parameters
    ----------
    network : callable
        Draws its masks in each call.
    parameters : mapping of str to Tensor
        By the names that gatewise.LSTM gives them.
    work : Work
        What it is given.
    """
    x = work.x.clone().requires_grad_()
    states = tuple(state.clone().requires_grad_() for state in work.states)
    named = {"x": x, **{f"{n}_0": s for n, s in zip(work.lstm.variant.states, states, strict=True)}, **parameters}
    leaves: Sequence[Tensor] = list(named.values())

    def run() -> Tensor:
        for leaf in leaves:
            leaf.grad = None
        output = network(x, states)
        output.backward(work.d_output)  # type: ignore[no-untyped-call]
        return output

    def results(output: Tensor) -> Results:
        gradients = {f"d_{name}": leaf.grad for name, leaf in named.items() if leaf.grad is not None}
        return {"output": output.detach(), **gradients}

    return Call(run, results)
