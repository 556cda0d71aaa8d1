"""A variant in numbers, as the compiled core and torch's operators are told of it, and back.

csrc/kernels.hpp has the same bits: `Cell::of_bits`.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeVar

from gatewise.reference.variant import GateActivation, Variant

Numbers = TypeVar("Numbers")

_SLSTM, _PEEPHOLE, _COUPLED, _LAYER_NORM, _LINEAR_CANDIDATE, _LINEAR_CELL, _DROPS_CANDIDATE, _DROPS_HIDDEN = (
    1 << bit for bit in range(8)
)
_GATES: tuple[GateActivation, ...] = ("sigmoid", "hardsigmoid", "step", "exp")  # by the two bits above those
_DROPS_WEIGHTS = 1 << 10
_MASKS = ("zoneout_h", "zoneout_c", "candidate", "hidden", "weight_hh")


class Code(NamedTuple):
    """A cell.

    Attributes
    ----------
    cell : int
        Bits: sLSTM, peephole, coupled, layer_norm, a linear candidate, a linear cell, whether there is a mask of the
        candidate, and of the hidden state; two for the activation of the gates; and whether there is a mask of
        weight_hh, which torch's operators alone know: the core gets weights with it in them.
    zoneout_h, zoneout_c : float
        The rates.
    """

    cell: int
    zoneout_h: float
    zoneout_c: float


PLAIN_CODE = Code(0, 0.0, 0.0)
"""Of the cell that is torch's."""


def coded(variant: Variant, masks: Mapping[str, Numbers] | None) -> tuple[Code, list[Numbers]]:
    """Say a cell, and the masks of a call, in numbers.

    Parameters
    ----------
    variant
        The cell.
    masks
        By the names of `Variant.masks`; without weight_hh where the weights have it in them; None: evaluation.

    Returns
    -------
    Code
        The cell; rates of dropout are not in it, because the masks are.
    list
        The masks that there are, in the order zoneout_h, zoneout_c, candidate, hidden, weight_hh.

    Examples
    --------
    >>> coded(Variant(peephole=True, zoneout=(0.1, 0.0)), {"zoneout_h": "mask"})
    (Code(cell=2, zoneout_h=0.1, zoneout_c=0.0), ['mask'])
    """
    masks = masks or {}
    if variant.is_plain and not masks:
        return PLAIN_CODE, []
    bits = {
        _SLSTM: variant.cell == "slstm",
        _PEEPHOLE: variant.peephole,
        _COUPLED: variant.coupled,
        _LAYER_NORM: variant.layer_norm,
        _LINEAR_CANDIDATE: variant.candidate_activation == "linear",
        _LINEAR_CELL: variant.cell_activation == "linear",
        _DROPS_CANDIDATE: "candidate" in masks,
        _DROPS_HIDDEN: "hidden" in masks,
        _DROPS_WEIGHTS: "weight_hh" in masks,
    }
    cell = sum(bit for bit, is_set in bits.items() if is_set) + (_GATES.index(variant.gate_activation) << 8)
    zoneout_h, zoneout_c = variant.zoneout  # type: ignore[misc]
    return Code(cell, zoneout_h, zoneout_c), [masks[name] for name in _MASKS if name in masks]


def decoded(code: Code, masks: Sequence[Numbers]) -> tuple[Variant, dict[str, Numbers] | None]:
    """Find the cell and the names of its masks again: the reverse of `coded`.

    Returns
    -------
    Variant
        The cell, without rates of dropout.
    dict or None
        The masks by name; None where there are none.

    Examples
    --------
    >>> variant, masks = decoded(Code(2 + 64, 0.1, 0.0), ["z", "k"])
    >>> variant.changes(), masks
    ({'peephole': True, 'zoneout': (0.1, 0.0)}, {'zoneout_h': 'z', 'candidate': 'k'})
    """
    bits, *zoneout = code
    variant = Variant(
        cell="slstm" if bits & _SLSTM else "lstm",
        peephole=bool(bits & _PEEPHOLE),
        coupled=bool(bits & _COUPLED),
        layer_norm=bool(bits & _LAYER_NORM),
        gate_activation=_GATES[bits >> 8 & 3],
        candidate_activation="linear" if bits & _LINEAR_CANDIDATE else "tanh",
        cell_activation="linear" if bits & _LINEAR_CELL else "tanh",
        zoneout=(zoneout[0], zoneout[1]),
    )
    dropped = {"candidate": _DROPS_CANDIDATE, "hidden": _DROPS_HIDDEN, "weight_hh": _DROPS_WEIGHTS}
    drops = [name for name, bit in dropped.items() if bits & bit]
    zoned = [name for name, rate in zip(_MASKS, zoneout, strict=False) if rate] if len(masks) > len(drops) else []
    return variant, dict(zip([*zoned, *drops], masks, strict=True)) or None
