"""Arrays of float32 to bfloat16 and back."""

from __future__ import annotations

import numpy as np

from gatewise import _core
from gatewise.errors import DtypeError
from gatewise.kernels.arrays import BFLOAT16, Array, address


def to_bfloat16(x: Array) -> Array:
    """Round a float32 array to `BFLOAT16`: to the nearest, of two equally near to the one that ends in a zero bit.

    Examples
    --------
    >>> import numpy as np
    >>> from_bfloat16(to_bfloat16(np.float32([1, 1.003, 1.004, np.inf])))
    array([1.       , 1.       , 1.0078125,       inf], dtype=float32)
    """
    if x.dtype != np.float32:
        raise DtypeError(f"x is {x.dtype}, needed float32: convert it")
    x = np.ascontiguousarray(x)
    y = np.empty(x.shape, BFLOAT16)
    _core.to_bfloat16(address(x), address(y), x.size)
    return y


def from_bfloat16(x: Array) -> Array:
    """Widen a `BFLOAT16` array to float32, which has all of its numbers.

    Examples
    --------
    >>> import numpy as np
    >>> from_bfloat16(np.zeros(2, BFLOAT16))
    array([0., 0.], dtype=float32)
    """
    if x.dtype != BFLOAT16:
        raise DtypeError(f"x is {x.dtype}, needed BFLOAT16: convert it")
    x = np.ascontiguousarray(x)
    y = np.empty(x.shape, np.float32)
    _core.from_bfloat16(address(x), address(y), x.size)
    return y
