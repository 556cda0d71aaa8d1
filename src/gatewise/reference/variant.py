"""Which cell an LSTM computes with: what is changed of the plain one, in which parameters, and under which masks.

`Variant` describes; `gatewise.reference.variants` holds the equations, and `gatewise.nn` the same in torch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from numbers import Real
from typing import Any, Literal, NamedTuple, TypeVar, get_args

from gatewise.errors import ArgumentError

Kind = Literal["lstm", "slstm"]
GateActivation = Literal["sigmoid", "hardsigmoid", "step", "exp"]
Squash = Literal["tanh", "linear"]
Weight = TypeVar("Weight")


@dataclass(frozen=True, kw_only=True)
class Variant:
    """What is changed of the plain cell; with no arguments, nothing.

    Parameters
    ----------
    cell : {"lstm", "slstm"}
        The LSTM, or the sLSTM (Beck et al. 2024, equations 8 to 17), whose input gate is an exponential and whose state
        has a normalizer n and a stabilizer m besides h and c: equations (7.24) to (7.28).
    peephole : bool
        Whether the input and the forget gate see the cell state before the step and the output gate that after it
        (Gers and Schmidhuber 2000): equations (7.5) and (7.6).
    coupled : bool
        Whether the forget gate is 1 - i, without weights of its own (Greff et al. 2017): equation (7.9).
    layer_norm : bool
        Whether W_ih x, W_hh h and the cell state on its way to h are normalized over their units (Ba et al. 2016,
        supplement, equations 20 to 22): equations (7.20) and (7.21).
    gate_activation : {"sigmoid", "hardsigmoid", "step", "exp"}
        What the gates go through: σ; equation (7.1), piecewise linear; or (7.2), 0 or 1, whose gradient is that of the
        identity (Bengio et al. 2013). Of an sLSTM it is the forget gate's, σ or the exponential; its output gate is σ.
    candidate_activation, cell_activation : {"tanh", "linear"}
        What the candidate goes through, and the cell state on its way to h: equation (7.4).
    zoneout : float or (float, float)
        Rates with which each unit's h, and its c, stays what it was before the step (Krueger et al. 2017): equation
        (7.17). One number is for both; the pair is kept.
    recurrent_dropout : float
        Rate with which each number of the candidate is dropped, at each step anew (Semeniuta et al. 2016): (7.11).
    variational_dropout : float
        Rate with which each number of the hidden state is dropped on its way into the gates, one mask for all of the
        sequence (Gal and Ghahramani 2016): equation (7.13).
    weight_dropout : float
        Rate with which each entry of weight_hh is dropped, one mask for the batch and all of the sequence (Wan et al.
        2013, Merity et al. 2018: DropConnect): equation (7.15).

    Attributes
    ----------
    is_plain : bool
        Whether the step itself is the plain one: with nothing but weights that are dropped before it.

    Raises
    ------
    ArgumentError
        A setting has another value, or two of them do not go together.

    Examples
    --------
    >>> Variant(peephole=True, coupled=True).shapes(inputs=3, hidden=2)
    {'weight_ih': (6, 3), 'weight_hh': (6, 2), 'bias_ih': (6,), 'bias_hh': (6,), 'weight_ch': (4,)}
    """

    cell: Kind = "lstm"
    peephole: bool = False
    coupled: bool = False
    layer_norm: bool = False
    gate_activation: GateActivation = "sigmoid"
    candidate_activation: Squash = "tanh"
    cell_activation: Squash = "tanh"
    zoneout: float | tuple[float, float] = (0.0, 0.0)
    recurrent_dropout: float = 0.0
    variational_dropout: float = 0.0
    weight_dropout: float = 0.0
    is_plain: bool = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for name in ("peephole", "coupled", "layer_norm"):
            value = getattr(self, name)
            if type(value) is not bool:
                raise ArgumentError(f"{name} is {value!r}, needed True or False: choose one")
        kinds = {
            "cell": Kind,
            "gate_activation": GateActivation,
            "candidate_activation": Squash,
            "cell_activation": Squash,
        }
        for name, kind in kinds.items():
            value, known = getattr(self, name), get_args(kind)
            if value not in known:
                raise ArgumentError(f"{name} is {value!r}, needed one of {', '.join(known)}: choose one")
        for name in ("recurrent_dropout", "variational_dropout", "weight_dropout"):
            object.__setattr__(self, name, _rate(name, getattr(self, name)))
        both = self.zoneout if isinstance(self.zoneout, (tuple, list)) else (self.zoneout, self.zoneout)
        if len(both) != 2:
            raise ArgumentError(f"zoneout is {self.zoneout!r}, needed a rate, or one for h and one for c: give a pair")
        object.__setattr__(self, "zoneout", tuple(_rate("zoneout", rate) for rate in both))
        if self.cell == "slstm":
            self._refuse_beside_slstm()
        elif self.gate_activation == "exp":
            raise ArgumentError("gate_activation is 'exp', which grows without bound but in an sLSTM: add cell='slstm'")
        object.__setattr__(self, "is_plain", not self.changes().keys() - {"weight_dropout"})

    def _refuse_beside_slstm(self) -> None:
        """Say what has no meaning in an sLSTM, or none that its paper gives it."""
        why = {
            "peephole": "its gates see h alone",
            "coupled": "its input gate is an exponential, and 1 - i would be below 0",
            "layer_norm": "c is divided by n instead",
            "zoneout": "c, n and m are one state, of which no part can stay alone",
            "cell_activation": "h is o c / n, without a tanh to leave out",
        }
        changed = self.changes()
        for name, reason in why.items():
            if name in changed:
                raise ArgumentError(f"{name} is {changed[name]!r} and cell is 'slstm': {reason}; leave one out")
        if self.gate_activation not in ("sigmoid", "exp"):
            raise ArgumentError(
                f"gate_activation is {self.gate_activation!r} and cell is 'slstm': it takes the logarithm of its "
                "forget gate; choose sigmoid or exp"
            )

    @property
    def states(self) -> tuple[str, ...]:
        """What is handed from step to step, in its order."""
        return ("h", "c", "n", "m") if self.cell == "slstm" else ("h", "c")

    @property
    def gates(self) -> tuple[str, ...]:
        """The blocks of rows in weight_ih, weight_hh and the biases, in their order."""
        return ("i", "g", "o") if self.coupled else ("i", "f", "g", "o")

    @property
    def peepholes(self) -> tuple[str, ...]:
        """The gates whose peepholes stand in weight_ch, in its order: that of `gates`."""
        return tuple(gate for gate in self.gates if gate != "g") if self.peephole else ()

    def changes(self) -> dict[str, Any]:
        """What is not as in the plain cell, by name.

        Examples
        --------
        >>> Variant(coupled=True, cell_activation="linear").changes()
        {'coupled': True, 'cell_activation': 'linear'}
        """
        defaults = {setting.name: setting.default for setting in fields(self) if setting.init}
        return {name: value for name, default in defaults.items() if (value := getattr(self, name)) != default}

    def in_evaluation(self) -> "Variant":
        """Give what is left where no masks are drawn: nothing is dropped, and zoneout is its expectation.

        Examples
        --------
        >>> Variant(weight_dropout=0.5).in_evaluation() == PLAIN
        True
        """
        return replace(self, recurrent_dropout=0.0, variational_dropout=0.0, weight_dropout=0.0)

    def masks(self, *, cells: int, time: int, batch: int, hidden: int, width: int) -> "dict[str, Mask]":
        """Tell the masks of a training call, in the order in which they are drawn.

        Parameters
        ----------
        cells
            L·D: each layer and direction has masks of its own, which come first.
        time, batch, hidden, width
            T, B, H, and the width of h: P, or H where it is not projected.

        Returns
        -------
        dict of str to Mask
            Of those of these that the variant has: zoneout_h (L·D, T, B, P) and zoneout_c (L·D, T, B, H), 1 where the
            state stays; candidate (L·D, T, B, H), hidden (L·D, B, P) and weight_hh (L·D, 4H, P), 0 where it is dropped.
            The rows of a batch are those of the input; of packed sequences, in the order in which they are packed.

        Examples
        --------
        >>> Variant(variational_dropout=0.5).masks(cells=2, time=7, batch=3, hidden=4, width=4)
        {'hidden': Mask(shape=(2, 3, 4), rate=0.5, is_kept=False)}
        """
        zoneout_h, zoneout_c = self.zoneout  # type: ignore[misc]
        masks = {
            "zoneout_h": Mask((cells, time, batch, width), zoneout_h, True),
            "zoneout_c": Mask((cells, time, batch, hidden), zoneout_c, True),
            "candidate": Mask((cells, time, batch, hidden), self.recurrent_dropout, False),
            "hidden": Mask((cells, batch, width), self.variational_dropout, False),
            "weight_hh": Mask((cells, len(self.gates) * hidden, width), self.weight_dropout, False),
        }
        return {name: mask for name, mask in masks.items() if mask.rate}

    def shapes(self, *, inputs: int, hidden: int, projection: int = 0, bias: bool = True) -> dict[str, tuple[int, ...]]:
        """Tell the parameters of one layer and direction, in their order, and the shape of each.

        Parameters
        ----------
        inputs, hidden
            What the layer reads (I, or D·P above the first), and H.
        projection
            P where h is projected, 0 where it is not.
        bias
            Whether there are biases.

        Returns
        -------
        dict of str to tuple
            torch's own come first and in torch's order, those of the variant behind them: weight_ch, diagonal
            weights of one number a unit, stacked as `peepholes`; gain_ih and gain_hh, of what the two matrices give,
            and gain_c and bias_c, of the cell state. (bias_ih and bias_hh are the other two normalizations' own.)
        """
        rows, width = len(self.gates) * hidden, projection or hidden
        shapes: dict[str, tuple[int, ...]] = {"weight_ih": (rows, inputs), "weight_hh": (rows, width)}
        if bias:
            shapes |= {"bias_ih": (rows,), "bias_hh": (rows,)}
        if projection:
            shapes |= {"weight_hr": (projection, hidden)}
        if self.peephole:
            shapes |= {"weight_ch": (len(self.peepholes) * hidden,)}
        if self.layer_norm:
            shapes |= {"gain_ih": (rows,), "gain_hh": (rows,), "gain_c": (hidden,)}
            if bias:
                shapes |= {"bias_c": (hidden,)}
        return shapes

    def named(self, weights: Sequence[Weight]) -> dict[str, Weight]:
        """Give the parameters of one layer and direction their names.

        Parameters
        ----------
        weights
            In the order of `shapes`; how many there are tells whether there are biases and a projection.

        Examples
        --------
        >>> Variant(peephole=True).named(["W", "U", "V", "p"])
        {'weight_ih': 'W', 'weight_hh': 'U', 'weight_hr': 'V', 'weight_ch': 'p'}
        """
        for bias in (False, True):
            for projection in (0, 1):
                names = self.shapes(inputs=1, hidden=1, projection=projection, bias=bias)
                if len(names) == len(weights):
                    return dict(zip(names, weights, strict=True))
        raise ArgumentError(f"weights are {len(weights)}, needed are those of a layer and direction: see shapes()")

    def blocks(self, parameters: Mapping[str, Any], hidden: int) -> dict[str, Any]:
        """Give each gate its peephole, by the gate's name; there are none without peepholes.

        Parameters
        ----------
        parameters
            Those of one layer and direction, by name.
        hidden
            H.

        Examples
        --------
        >>> Variant(peephole=True).blocks({"weight_ch": "iiffoo"}, 2)
        {'i': 'ii', 'f': 'ff', 'o': 'oo'}
        """
        return {
            gate: parameters["weight_ch"][number * hidden : (number + 1) * hidden]
            for number, gate in enumerate(self.peepholes)
        }


class Mask(NamedTuple):
    """A random mask.

    Attributes
    ----------
    shape : tuple of int
    rate : float
        Between 0 and 1.
    is_kept : bool
        Whether the mask is 1 with that rate and 0 otherwise. If not, it is 0 with that rate and 1 / (1 - rate)
        otherwise, so that what is dropped keeps its expectation.
    """

    shape: tuple[int, ...]
    rate: float
    is_kept: bool


def _rate(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, Real) or not 0 <= float(value) < 1:
        raise ArgumentError(f"{name} is {value!r}, needed a rate from 0 to below 1: choose one")
    return float(value)


PLAIN = Variant()
"""The cell that is torch's."""

WITHOUT_TIME = ("hidden", "weight_hh")
"""The masks that are the same at every step."""
