"""Layer normalization with a gain, and its gradient; without a gain there is none of it.

The numbers in the comments are the equations of docs/equations.md.
"""

import numpy as np

from gatewise.reference.step import Array

EPSILON = 1e-5
"""What is added to the variance, as torch.nn.LayerNorm does."""


def normalized(v: Array, gain: Array | None) -> Array:
    """Shift and scale each row to a mean of 0 and a variance of 1, and multiply by the gain.

    Parameters
    ----------
    v : ndarray, (B, N)
        What a matrix gives, or a cell state.
    gain : ndarray, (N,), or None
        A factor for each unit; None: v is returned as it is.

    Examples
    --------
    >>> print(normalized(np.array([[1.0, 3.0, 5.0]]), np.ones(3)).round(3))
    [[-1.225  0.     1.225]]
    """
    return v if gain is None else gain * _parts(v)[0]  # (7.19)


def normalized_backward(d: Array, v: Array, gain: Array | None) -> tuple[Array, Array | None]:
    """Carry the gradient back through `normalized`.

    Parameters
    ----------
    d : ndarray, (B, N)
        The gradient of the result.
    v, gain
        What `normalized` was given.

    Returns
    -------
    d_v : ndarray, (B, N)
    d_gain : ndarray, (N,), or None
        None where there is no gain.
    """
    if gain is None:
        return d, None
    n, spread = _parts(v)
    d_n = gain * d  # (7.22)
    along = (d_n * n).mean(axis=1, keepdims=True)
    d_v = (d_n - d_n.mean(axis=1, keepdims=True) - n * along) / spread  # (7.22)
    return d_v, (d * n).sum(axis=0)  # (7.23)


def _parts(v: Array) -> tuple[Array, Array]:
    """Return each row normalized, and by what it was divided, (B, 1)."""
    spread = np.sqrt(v.var(axis=1, keepdims=True) + EPSILON)  # (7.19)
    return (v - v.mean(axis=1, keepdims=True)) / spread, spread
