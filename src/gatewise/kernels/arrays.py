"""An array as the core takes it: numbers of a type that it has, of the right shape, and told by its address."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from gatewise.errors import DtypeError, ShapeError

Array = npt.NDArray[Any]

BFLOAT16 = np.dtype([("bfloat16", "<u2")])
"""NumPy's view of bfloat16, which it has no numbers of: 16 bits by a name that no arithmetic takes for numbers."""

DTYPES = (np.dtype(np.float32), np.dtype(np.float64), BFLOAT16)
"""What a layer computes in."""


def checked(name: str, array: Array, dtype: npt.DTypeLike, **axes: int) -> Array:
    """Give an array in one piece, as C orders it.

    Parameters
    ----------
    name
        What an error calls it.
    array
        It is copied where it is not in one piece.
    dtype
        The type that it has to have.
    **axes
        The size that each axis has to have, in their order.

    Raises
    ------
    ShapeError, DtypeError
        It is of another type or shape.

    Examples
    --------
    >>> checked("x", np.zeros((3, 2), np.float32).T, np.float32, B=2, I=3).flags.c_contiguous
    True
    >>> checked("x", np.zeros((3, 2)), np.float64, B=2, I=3)
    Traceback (most recent call last):
    gatewise.errors.ShapeError: x has shape (3, 2), needed (B, I) = (2, 3): pass an array of that shape
    """
    if array.dtype != dtype:
        needed = "BFLOAT16" if dtype == BFLOAT16 else np.dtype(dtype)
        raise DtypeError(f"{name} is {array.dtype}, needed {needed}: convert it")
    if array.shape != tuple(axes.values()):
        needed = f"({', '.join(axes)}) = {tuple(axes.values())}"
        raise ShapeError(f"{name} has shape {array.shape}, needed {needed}: pass an array of that shape")
    return np.ascontiguousarray(array)


def aligned(count: int, dtype: npt.DTypeLike) -> Array:
    """Make an array of some numbers, whatever they are, that begins where a vector of the machine's may.

    Examples
    --------
    >>> aligned(5, np.float32).ctypes.data % 64
    0
    """
    size = count * np.dtype(dtype).itemsize
    room = np.empty(size + 64, np.uint8)
    first = -room.ctypes.data % 64
    return room[first : first + size].view(dtype)


def address(array: Array | None) -> int:
    """Tell where an array begins, which has to be kept until the call is over; of None 0.

    Examples
    --------
    >>> address(None)
    0
    """
    return 0 if array is None else int(array.ctypes.data)
