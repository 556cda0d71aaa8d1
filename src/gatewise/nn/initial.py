"""First weights of an LSTM by name, torch's and others: `initialize`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from gatewise.errors import ArgumentError
from gatewise.reference.variant import PLAIN, Variant


def initialize(lstm: nn.Module, name: str, *, longest: int | None = None) -> None:
    """Draw the first weights of an LSTM by the name of a way to.

    Parameters
    ----------
    lstm : gatewise.LSTM or torch.nn.LSTM
        Changed in place, all layers and directions.
    name : {"torch", "forget_one", "chrono", "orthogonal", "xavier", "zeros"}
        torch's: uniform within ±1/√H. ``forget_one``: those, with forget gates whose biases add up to 1 (Jozefowicz et
        al. 2015). `chrono_` and `orthogonal_` say what they do. ``xavier``: each gate's weights by themselves as Glorot
        and Bengio (2010) draw them, uniform, all biases 0. ``zeros``: all weights and biases 0, which leaves the units
        of a layer equal for ever; gains are 1 as ever. They alone go into other networks, too.
    longest : int, optional
        Steps that the longest memories shall last: for chrono, which needs it.

    Raises
    ------
    ArgumentError
        There is no such name, `longest` is missing, too much or no number from 3 on, `lstm` is another module or has
        weights that are parametrized, or the way does not go with the LSTM: orthogonal with a projection, forget_one
        with coupled gates (whose forget gate has no bias of its own), forget_one and chrono without biases.

    Examples
    --------
    >>> lstm = nn.LSTM(3, 4)
    >>> initialize(lstm, "forget_one")
    >>> (lstm.bias_ih_l0 + lstm.bias_hh_l0)[4:8]
    tensor([1., 1., 1., 1.], grad_fn=<SliceBackward0>)
    """
    if name not in _WAYS:
        raise ArgumentError(f"name is {name!r}, needed one of {', '.join(_WAYS)}: choose one")
    if (longest is None) == (name == "chrono"):
        given = "missing" if longest is None else longest
        raise ArgumentError(f"longest is {given}, and it is what chrono needs and no other: give it there alone")
    # (Zeros are zeros in any network; the others count on blocks of i, f, g and o.)
    if name != "zeros" and (not isinstance(lstm, nn.RNNBase) or lstm.mode != "LSTM"):
        raise ArgumentError(f"lstm is a {type(lstm).__name__}, needed a gatewise.LSTM or a torch.nn.LSTM: pass the one")
    if "parametrizations" in lstm._modules:
        raise ArgumentError("lstm has parametrized weights, which are computed of others: initialize it before that")
    if name in _BY_BIASES and not lstm.bias:
        raise ArgumentError(f"lstm has no biases, and {name} is a choice of them: make it with bias=True")
    _WAYS[name](lstm, **({} if longest is None else {"longest": longest}))


def orthogonal_(lstm: nn.Module) -> None:
    """Draw weights that neither shrink nor swell what they are given, and forget gates that begin open.

    Each gate's weight_ih is Xavier's, each gate's weight_hh orthogonal (Saxe et al. 2014), the forget gates' bias 1
    (Jozefowicz et al. 2015), all others 0; peepholes too, and gains 1. With coupled gates the input gate's bias is -1.

    Parameters
    ----------
    lstm : gatewise.LSTM or torch.nn.LSTM
        Changed in place, all layers and directions.

    Raises
    ------
    ArgumentError
        It has projections, whose weight_hh are not square.

    Examples
    --------
    >>> lstm = nn.LSTM(3, 4)
    >>> orthogonal_(lstm)
    >>> recurrent = lstm.weight_hh_l0[:4]
    >>> torch.allclose(recurrent @ recurrent.T, torch.eye(4), atol=1e-6)
    True
    """
    if lstm.proj_size:
        raise ArgumentError(f"proj_size is {lstm.proj_size}, needed is 0: orthogonal weight_hh are square")
    _by_gates(lstm, nn.init.orthogonal_)
    _open_forget_gates(lstm, torch.ones_like)


def chrono_(lstm: nn.Module, longest: int) -> None:
    """Draw weights whose memories last, some units' as long as the sequences.

    Each gate's weights are Xavier's; the forget gates' biases are the logarithms of numbers from 1 to `longest` - 1,
    the input gates' the same below 0 (Tallec and Ollivier 2018, equation 16), all others 0. Peepholes are 0 too, and
    gains 1. With coupled gates it is the input gate's biases alone.

    Parameters
    ----------
    lstm : gatewise.LSTM or torch.nn.LSTM
        Changed in place, all layers and directions.
    longest : int
        Steps that the longest memories shall last, from 3 on.

    Raises
    ------
    ArgumentError
        `longest` is another, or the gates do not go through σ.

    Examples
    --------
    >>> lstm = nn.LSTM(3, 4)
    >>> chrono_(lstm, 100)
    >>> bool((lstm.bias_ih_l0[4:8] >= 0).all()), torch.equal(lstm.bias_ih_l0[:4], -lstm.bias_ih_l0[4:8])
    (True, True)
    """
    if type(longest) is not int or longest < 3:
        raise ArgumentError(
            f"longest is {longest!r}, needed a whole number of steps, 3 or more: give how long memories shall last"
        )
    activation = _variant(lstm).gate_activation
    if activation != "sigmoid":
        raise ArgumentError(
            f"gate_activation is {activation!r}, and chrono's biases are those of σ: choose another name"
        )
    _by_gates(lstm, nn.init.xavier_uniform_)

    def lasting(bias: Tensor) -> Tensor:
        return torch.empty_like(bias).uniform_(1, longest - 1).log()

    _open_forget_gates(lstm, lasting, close_input=True)


def _forget_one(lstm: Any) -> None:
    if _variant(lstm).coupled:
        raise ArgumentError("coupled is True, and its forget gate has no bias to be 1: choose another name")
    lstm.reset_parameters()
    with torch.no_grad():
        for name, bias in lstm.named_parameters():
            if name.startswith(("bias_ih", "bias_hh")):
                _block(lstm, bias, "f").fill_(float(name.startswith("bias_ih")))


def _xavier(lstm: nn.Module) -> None:
    _by_gates(lstm, nn.init.xavier_uniform_)


def _zeros(lstm: nn.Module) -> None:
    for name, weight in lstm.named_parameters():
        nn.init.constant_(weight, 1.0 if name.startswith("gain") else 0.0)


def _torch(lstm: Any) -> None:
    lstm.reset_parameters()


_WAYS: dict[str, Callable[..., None]] = {
    "torch": _torch,
    "forget_one": _forget_one,
    "chrono": chrono_,
    "orthogonal": orthogonal_,
    "xavier": _xavier,
    "zeros": _zeros,
}
_BY_BIASES = ("forget_one", "chrono")
"""Those that say nothing of an LSTM without biases."""


def _by_gates(lstm: nn.Module, recurrent: Callable[[Tensor], Any]) -> None:
    """Draw each gate's weights by themselves: Xavier's, and those of weight_hh otherwise. Gains are 1, all others 0."""
    gates = len(_variant(lstm).gates)
    for name, weight in lstm.named_parameters():
        if name.startswith(("weight_ih", "weight_hh")):
            draw = recurrent if name.startswith("weight_hh") else nn.init.xavier_uniform_
            for gate in weight.chunk(gates):
                draw(gate)
        elif name.startswith("weight_hr"):
            nn.init.xavier_uniform_(weight)
        elif name.startswith("gain"):
            nn.init.ones_(weight)
        else:
            nn.init.zeros_(weight)


@torch.no_grad()
def _open_forget_gates(lstm: nn.Module, bias_of: Callable[[Tensor], Tensor], *, close_input: bool = False) -> None:
    """Set the forget gates' biases, or where they are coupled minus those of the input gates."""
    coupled = _variant(lstm).coupled
    for name, bias in lstm.named_parameters():
        if name.startswith("bias_ih"):
            drawn = bias_of(_block(lstm, bias, "i"))
            if not coupled:
                _block(lstm, bias, "f").copy_(drawn)
            if coupled or close_input:
                _block(lstm, bias, "i").copy_(-drawn)


def _variant(lstm: nn.Module) -> Variant:
    variant: Variant = getattr(lstm, "variant", PLAIN)
    return variant


def _block(lstm: nn.Module, bias: Tensor, gate: str) -> Tensor:
    """The part of a stacked bias that is a gate's."""
    gates = _variant(lstm).gates
    return bias.chunk(len(gates))[gates.index(gate)]
