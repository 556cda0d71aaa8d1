"""The mean and the deviation by which columns are scaled."""

import numpy as np
from numpy.typing import NDArray


def moments(rows: NDArray[np.float64]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The mean and deviation of each column of rows (N, P), NaN left out; a column that stays the same is left as wide.

    Examples
    --------
    >>> moments(np.array([[1.0, 5.0], [3.0, 5.0]]))
    ((2.0, 5.0), (1.0, 1.0))
    """
    mean, deviation = np.nanmean(rows, axis=0), np.nanstd(rows, axis=0)
    spread = np.nanmax(rows, axis=0) - np.nanmin(rows, axis=0)
    deviation = np.where(deviation > 0, deviation, spread)  # of numbers whose squares are below all numbers
    deviation[spread == 0] = 1
    return tuple(mean.tolist()), tuple(deviation.tolist())
