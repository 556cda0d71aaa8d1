"""How much a call takes: the arrays that are allocated for it, and what a training call keeps."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from gatewise import _core
from gatewise.reference.code import PLAIN_CODE, Code


class Plan(NamedTuple):
    """How many numbers of the call's dtype the arrays take that the caller allocates and the core lays out."""

    gates: int
    cells: int
    unprojected: int
    normalized: int
    forward_scratch: int
    backward_scratch: int


@lru_cache(maxsize=1024)
def plan(
    itemsize: int, T: int, B: int, I: int, H: int, P: int, steps: int, training: bool, code: Code = PLAIN_CODE
) -> Plan:
    """Tell how much to allocate for a call of these sizes.

    Parameters
    ----------
    itemsize
        Bytes of a number: 2 for bfloat16, 4 for float32, 8 for float64.
    T, B, I, H, P
        Steps, batch rows, inputs, hidden units, numbers of h.
    steps
        Steps of all rows together: T·B where all are equally long.
    training
        Whether the forward call keeps what backward needs.
    code
        The cell.

    Examples
    --------
    >>> plan(4, T=10, B=8, I=3, H=5, P=5, steps=80, training=True).cells >= 11 * 8 * 5
    True
    """
    return Plan(*_core.plan(itemsize, T, B, I, H, P, steps, training, *code))


class Kept(NamedTuple):
    """How many numbers a training call keeps for each step of each row."""

    gates: int
    cells: int
    unprojected: int
    normalized: int


def kept_numbers(itemsize: int, H: int, P: int, code: Code = PLAIN_CODE) -> Kept:
    """Tell what a training call of any length keeps: for each step of each row, and the cells once more for each row.

    Parameters
    ----------
    itemsize
        Bytes of a number: 2 for bfloat16, 4 for float32, 8 for float64.
    H, P
        Hidden units, and numbers of h: H, or less where it is projected.
    code
        The cell.

    Examples
    --------
    >>> kept, whole = kept_numbers(4, H=5, P=2), plan(4, T=10, B=8, I=3, H=5, P=2, steps=80, training=True)
    >>> (10 * 8 * kept.gates, 11 * 8 * kept.cells, 10 * 8 * kept.unprojected) == whole[:3]
    True
    """
    smallest = plan(itemsize, 1, 1, 1, H, P, 1, True, code)
    return Kept(smallest.gates, smallest.cells // 2, smallest.unprojected, smallest.normalized)
