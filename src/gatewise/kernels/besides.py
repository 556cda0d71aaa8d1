"""What a changed cell computes with besides: its own parameters, and the masks of a call."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from gatewise import _core
from gatewise.errors import ArgumentError
from gatewise.kernels.arrays import Array, address, checked
from gatewise.reference.variant import Variant


class Besides(NamedTuple):
    """What a changed cell computes with besides, in the core's own order: csrc/kernels.hpp."""

    weight_ch: Array | None = None  # (3H), coupled (2H)
    gain_ih: Array | None = None  # (4H), coupled (3H), as gain_hh
    gain_hh: Array | None = None
    gain_c: Array | None = None  # (H), as bias_c
    bias_c: Array | None = None
    zoneout_h: Array | None = None  # (T, B, P)
    zoneout_c: Array | None = None  # (T, B, H)
    candidate: Array | None = None  # (T, B, H)
    hidden: Array | None = None  # (B, P)

    def addressed(self) -> _core.Besides:
        """Say it to the core."""
        return _core.Besides(*map(address, self))


def besides_of(
    variant: Variant,
    own: Mapping[str, Array] | None,
    masks: Mapping[str, Array] | None,
    dtype: np.dtype[Any],
    bias: bool,
    **sizes: int,
) -> Besides:
    """Check what a changed cell computes with besides.

    Parameters
    ----------
    variant
        The cell.
    own, masks
        As `forward` takes them.
    dtype
        That of the input.
    bias
        Whether the layer has biases.
    **sizes
        T, B, H and P.

    Raises
    ------
    ShapeError, DtypeError
        An array does not fit the sizes.
    ArgumentError
        Parameters or masks of the variant are missing, or there are others.

    Examples
    --------
    >>> peephole = {"weight_ch": np.zeros(15)}
    >>> found = besides_of(Variant(peephole=True), peephole, None, np.dtype(float), True, T=4, B=2, H=5, P=5)
    >>> found.weight_ch.shape, found.gain_c
    ((15,), None)
    """
    own = own or {}
    T, B, H, P = (sizes[axis] for axis in "TBHP")
    needed = {
        name: shape for name, shape in variant.shapes(inputs=1, hidden=H, bias=bias).items() if name in Besides._fields
    }
    if own.keys() != needed.keys():
        raise ArgumentError(f"own has [{', '.join(own)}], needed [{', '.join(needed)}]: give the variant's parameters")
    found = {}
    for name, shape in needed.items():
        axis = "H" if shape == (H,) else f"{shape[0] // H}H"
        found[name] = checked(name, own[name], dtype, **{axis: shape[0]})
    if masks is not None:
        shapes = variant.masks(cells=1, time=T, batch=B, hidden=H, width=P)
        shapes.pop("weight_hh", None)  # which weight_hh has in it
        if masks.keys() != shapes.keys():
            raise ArgumentError(
                f"masks are [{', '.join(masks)}], needed [{', '.join(shapes)}]: give these, or None in evaluation"
            )
        sums = np.dtype(np.float64 if dtype == np.float64 else np.float32)
        for name in shapes:
            width = {"P": P} if name in ("zoneout_h", "hidden") else {"H": H}
            rows = {"B": B} if name == "hidden" else {"T": T, "B": B}
            found[name] = checked(name, masks[name], sums, **rows, **width)
    return Besides(**found)
