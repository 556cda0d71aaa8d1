"""Which steps each row takes: its length, the direction, and where the state is dropped."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from gatewise import _core
from gatewise.errors import ShapeError
from gatewise.kernels.arrays import Array, address, checked
from gatewise.reference.code import Code


class Walk(NamedTuple):
    """Which steps each row takes, in the core's own terms: csrc/kernels.hpp."""

    reverse: bool
    length: Array | None  # (B) int64, descending
    order: Array | None  # (B) int64
    active: Array | None  # (T) int64
    before: Array | None  # (T + 1) int64
    reset: Array | None  # (T, B) bool

    def common(self, T: int, B: int, I: int, H: int, P: int, threads: int, code: Code) -> _core.Common:
        """Say it to the core, with the sizes and the cell."""
        tables = (address(a) for a in self[1:])
        return _core.Common(T, B, I, H, P, self.steps(T, B), threads, self.reverse, *tables, *code)

    def steps(self, T: int, B: int) -> int:
        """Count the steps of all rows."""
        return T * B if self.before is None else int(self.before[-1])


def walk_of(T: int, B: int, reverse: bool, lengths: Array | None, reset: Array | None) -> Walk:
    """Check the lengths and where the state is dropped, and order the rows by length, the longest first.

    Parameters
    ----------
    T, B
        Steps and batch rows.
    reverse
        Go from the last step to the first.
    lengths
        Each row's steps, (B,), int64, from 0 to T; None: T for all.
    reset
        (T, B), bool; None: nowhere.

    Raises
    ------
    ShapeError, DtypeError
        They do not fit the sizes.

    Examples
    --------
    >>> walk = walk_of(3, 2, False, np.array([1, 3]), None)
    >>> walk.order.tolist(), walk.active.tolist(), walk.steps(3, 2)
    ([1, 0], [2, 1, 1], 4)
    """
    if reset is not None:
        reset = checked("reset", reset, np.bool_, T=T, B=B)
    if lengths is None:
        return Walk(reverse, None, None, None, None, reset)
    lengths = checked("lengths", lengths, np.int64, B=B)
    if lengths.min() < 0 or lengths.max() > T:
        raise ShapeError(f"lengths go from {lengths.min()} to {lengths.max()}, needed from 0 to T = {T}")
    order = np.argsort(-lengths, kind="stable")
    active = (lengths[:, np.newaxis] > np.arange(T)).sum(axis=0, dtype=np.int64)
    before = np.concatenate([[0], active.cumsum()]).astype(np.int64)
    return Walk(reverse, lengths[order], order, active, before, reset)
