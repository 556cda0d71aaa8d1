"""Which cell an LSTM computes with: what is changed of the plain one, and in which parameters.

`Variant` describes; `gatewise.reference.variants` holds the equations, and `gatewise.nn` the same in torch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, TypeVar, get_args

from gatewise.errors import ArgumentError

Gate = Literal["sigmoid", "hardsigmoid", "step"]
Squash = Literal["tanh", "linear"]
Weight = TypeVar("Weight")


@dataclass(frozen=True, kw_only=True)
class Variant:
    """What is changed of the plain cell; with no arguments, nothing.

    Parameters
    ----------
    peephole : bool
        Whether the input and the forget gate see the cell state before the step and the output gate that after it
        (Gers and Schmidhuber 2000): equations (7.5) and (7.6).
    coupled : bool
        Whether the forget gate is 1 - i, without weights of its own (Greff et al. 2017): equation (7.9).
    gate_activation : {"sigmoid", "hardsigmoid", "step"}
        What the gates go through: σ; equation (7.1), piecewise linear; or (7.2), 0 or 1, whose gradient is that of the
        identity (Bengio et al. 2013).
    candidate_activation, cell_activation : {"tanh", "linear"}
        What the candidate goes through, and the cell state on its way to h: equation (7.4).

    Raises
    ------
    ArgumentError
        A setting has another value.

    Examples
    --------
    >>> Variant(peephole=True, coupled=True).shapes(inputs=3, hidden=2)
    {'weight_ih': (6, 3), 'weight_hh': (6, 2), 'bias_ih': (6,), 'bias_hh': (6,), 'weight_ch': (4,)}
    """

    peephole: bool = False
    coupled: bool = False
    gate_activation: Gate = "sigmoid"
    candidate_activation: Squash = "tanh"
    cell_activation: Squash = "tanh"

    def __post_init__(self) -> None:
        for name in ("peephole", "coupled"):
            value = getattr(self, name)
            if type(value) is not bool:
                raise ArgumentError(f"{name} is {value!r}, needed True or False: choose one")
        kinds = {"gate_activation": Gate, "candidate_activation": Squash, "cell_activation": Squash}
        for name, kind in kinds.items():
            value, known = getattr(self, name), get_args(kind)
            if value not in known:
                raise ArgumentError(f"{name} is {value!r}, needed one of {', '.join(known)}: choose one")

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
        return {field.name: value for field in fields(self) if (value := getattr(self, field.name)) != field.default}

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
            weights of one number a unit, stacked as `peepholes`.
        """
        rows, width = len(self.gates) * hidden, projection or hidden
        shapes: dict[str, tuple[int, ...]] = {"weight_ih": (rows, inputs), "weight_hh": (rows, width)}
        if bias:
            shapes |= {"bias_ih": (rows,), "bias_hh": (rows,)}
        if projection:
            shapes |= {"weight_hr": (projection, hidden)}
        if self.peephole:
            shapes |= {"weight_ch": (len(self.peepholes) * hidden,)}
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


PLAIN = Variant()
"""The cell that is torch's."""
