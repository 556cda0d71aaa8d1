"""The kernels' own functions of a number, for whole arrays."""

from __future__ import annotations

import numpy as np

from gatewise import _core
from gatewise.errors import DtypeError
from gatewise.kernels.arrays import Array, address


def sigmoid(x: Array) -> Array:
    """Apply the kernels' own sigmoid to a float32 or float64 array, at most 2.5 ulp off.

    Examples
    --------
    >>> import numpy as np
    >>> float(sigmoid(np.zeros(1))[0])
    0.5
    """
    return _elementwise("sigmoid", x)


def tanh(x: Array) -> Array:
    """Apply the kernels' own tanh to a float32 or float64 array, at most 2.5 ulp off.

    Examples
    --------
    >>> import numpy as np
    >>> float(tanh(np.array([1e-300]))[0])
    1e-300
    """
    return _elementwise("tanh", x)


def exp_of_negative(x: Array) -> Array:
    """Apply the kernels' own exponential to float32 or float64 numbers of at most 0, at most 1.5 ulp off.

    Examples
    --------
    >>> import numpy as np
    >>> float(exp_of_negative(np.array([-1000.0]))[0])
    0.0
    """
    return _elementwise("exp_of_negative", x)


def log_sigmoid(x: Array) -> Array:
    """Apply the kernels' own logarithm of the sigmoid to a float32 or float64 array, at most 4 ulp off.

    Examples
    --------
    >>> import numpy as np
    >>> float(log_sigmoid(np.array([-1000.0]))[0])
    -1000.0
    """
    return _elementwise("log_sigmoid", x)


def _elementwise(name: str, x: Array) -> Array:
    if x.dtype not in (np.float32, np.float64):
        raise DtypeError(f"x is {x.dtype}, needed float32 or float64: convert it")
    x = np.ascontiguousarray(x)
    y = np.empty_like(x)
    getattr(_core, f"{name}_{x.dtype}")(address(x), address(y), x.size)
    return y
