"""The sizes that are measured, and how much arithmetic they are."""

from collections.abc import Sequence
from typing import NamedTuple

from gatewise.errors import ArgumentError


class Size(NamedTuple):
    """What decides how much an LSTM computes.

    Examples
    --------
    >>> print(Size(8, 20, 32, 32, 1, 1))
    (8, 20, 32, 32, 1, 1)
    """

    B: int
    """Batch rows."""
    T: int
    """Steps."""
    I: int
    """Numbers per step of the input."""
    H: int
    """Hidden units."""
    L: int
    """Layers."""
    D: int
    """Directions."""

    def __str__(self) -> str:
        return f"({', '.join(map(str, self))})"


GRID = (
    Size(8, 20, 32, 32, 1, 1),
    Size(8, 35, 32, 32, 1, 1),
    Size(64, 10, 1, 64, 2, 1),
    Size(64, 28, 28, 100, 2, 1),
    Size(100, 28, 28, 128, 2, 1),
    Size(64, 28, 28, 100, 2, 2),
    Size(1, 1, 128, 128, 1, 1),
    Size(1, 100, 128, 128, 1, 1),
    Size(256, 50, 64, 64, 1, 1),
    Size(64, 512, 128, 128, 1, 1),
    Size(32, 100, 256, 256, 1, 1),
    Size(16, 1000, 64, 256, 2, 1),
    Size(64, 100, 512, 512, 1, 1),
    Size(8, 200, 1024, 1024, 1, 1),
)
"""The rows of the table, numbered from 1."""

QUICK = (GRID[0], GRID[6])
"""The rows that ``--quick`` takes."""

VARIED = (GRID[0], Size(64, 100, 128, 128, 1, 1))
"""The sizes at which the variants of the cell are measured."""

QUICK_VARIED = VARIED[:1]
"""Of these, what ``--quick`` takes."""

SMALLEST = Size(1, 1, 4, 4, 1, 1)
"""So little arithmetic that a call's time is what surrounds it."""

NOTES = GRID[0]
"""The size at which the study notes time their own operator."""


def input_size(size: Size, layer: int, P: int) -> int:
    """Tell how many numbers per step a layer reads: I, or what all directions of the layer below it give.

    Examples
    --------
    >>> input_size(Size(64, 28, 28, 100, 2, 2), layer=1, P=100)
    200
    """
    return size.I if layer == 0 else size.D * P


def flops(size: Size, kind: str, steps: int | None = None, proj_size: int = 0) -> int:
    """Count the floating-point operations of the matrix products; those of the gates are left out.

    Forward 2·T·B·4H·(I + H) per layer and direction, where I is the layer's own input; with ``proj_size`` P in place of
    the second H, and 2·T·B·P·H for the projection. Training three times that: backward has two products for each of
    forward's, one for the gradient of what is multiplied and one for that of the weights.

    Parameters
    ----------
    size : Size
        The sizes.
    kind : {"forward", "training"}
        Forward alone, or forward and backward.
    steps : int, default T·B
        The steps of all sequences together.
    proj_size : int, default 0
        Width of h; 0: H.

    Examples
    --------
    >>> flops(Size(8, 20, 32, 32, 1, 1), "forward") == 2 * 20 * 8 * 4 * 32 * (32 + 32)
    True
    """
    steps = size.T * size.B if steps is None else steps
    P = proj_size or size.H
    projection = P * size.H if proj_size else 0
    layers = (4 * size.H * (input_size(size, layer, P) + P) + projection for layer in range(size.L))
    return 2 * steps * size.D * sum(layers) * (3 if kind == "training" else 1)


def least_bytes(size: Size, proj_size: int = 0) -> int:
    """Count the memory without which nothing can be compared: torch's weights, gatewise's, input and output.

    Parameters
    ----------
    size : Size
        The sizes.
    proj_size : int, default 0
        Width of h; 0: H.

    Examples
    --------
    >>> least_bytes(Size(8, 20, 32, 32, 1, 1)) == 4 * (2 * 4 * 32 * (32 + 32) + 20 * 8 * (32 + 32))
    True
    """
    weights = flops(size, "forward", steps=1, proj_size=proj_size) // 2
    return 4 * (2 * weights + size.T * size.B * (size.I + size.D * (proj_size or size.H)))


def read_sizes(words: Sequence[str], every: Sequence[Size] = GRID) -> tuple[Size, ...]:
    """Make sizes of what an option says.

    Parameters
    ----------
    words : sequence of str
        Each ``all``, a row of the grid, counted from 1, or sizes B,T,I,H,L or B,T,I,H,L,D.
    every : sequence of Size, default `GRID`
        What ``all`` means.

    Raises
    ------
    ArgumentError
        There is no such row, or sizes are no numbers from 1 on, or D is not 1 or 2.

    Examples
    --------
    >>> read_sizes(["3", "2,3,4,5,1"])
    (Size(B=64, T=10, I=1, H=64, L=2, D=1), Size(B=2, T=3, I=4, H=5, L=1, D=1))
    """
    if not words:
        raise ArgumentError("sizes is empty, needed at least one: give rows of the grid, B,T,I,H,L or all")
    found: list[Size] = []
    for word in words:
        found += _read(word, every)
    return tuple(dict.fromkeys(found))


def _read(word: str, every: Sequence[Size]) -> Sequence[Size]:
    if word == "all":
        return every
    parts = word.split(",")
    if all(part.strip().isdecimal() for part in parts):
        numbers = [int(part) for part in parts]
        if len(numbers) == 1 and 1 <= numbers[0] <= len(GRID):
            return GRID[numbers[0] - 1 : numbers[0]]
        if len(numbers) in (5, 6) and min(numbers) >= 1 and max(numbers) < 2**31 and numbers[5:] in ([], [1], [2]):
            return [Size(*numbers, *[1] * (6 - len(numbers)))]
    raise ArgumentError(
        f"sizes has {word!r}, needed a row from 1 to {len(GRID)}, the numbers B,T,I,H,L or B,T,I,H,L,D (D is 1 or 2), "
        "or all: change it"
    )
