"""The variants' table, line by line, as the run goes."""

from __future__ import annotations

from collections.abc import Iterator

from gatewise.bench.grid import Size
from gatewise.bench.timing import Ratio
from gatewise.bench.variants.row import LOOP, OWN, VariantRow


def legend(repeats: int, turn: float) -> list[str]:
    """Explain the columns.

    Examples
    --------
    >>> max(map(len, legend(21, 0.02))) < 80
    True
    """
    return [
        "training steps of changed cells: forward, and backward to the input, the states",
        "and all parameters; masks are drawn in each step, rates as in the README",
        f"ms: median of {repeats} turns of at least {turn * 1e3:g} ms; ± half the interquartile range;",
        "    (n) in n turns only",
        "over plain: gatewise's time over that of its plain cell, which takes turns with it",
        "loop: the time of a loop in Python over gatewise's: the same cell, weights and",
        "    masks in torch's operations, the input's product for all steps at once",
        "both are medians of the ratios within a round. The row plain has the plain cell",
        "twice, and how far from 1 it is is the machine's doing. Compared before they are",
        "timed: the output and all gradients, with the same masks (step: in float64)",
    ]


def head(size: Size) -> list[str]:
    """Give the lines above the rows of a size."""
    return [
        f"(B, T, I, H, L, D) = {size}",
        f"{'variant':20}{'by':9} {'ms':>10} {'':10} {'over plain':>12} {'loop':>12}",
    ]


def line(row: VariantRow, repeats: int) -> str:
    r"""Give the line of a row.

    Parameters
    ----------
    row : VariantRow
        What was found.
    repeats : int
        Turns that each takes; where it took fewer, the cell says how many.

    Examples
    --------
    >>> from gatewise.bench.timing import Timing
    >>> times = {n: Timing((t,) * 3, (0, 1, 2), 5) for n, t in (("gatewise", 2.0), ("plain", 1.6), ("loop", 9.0))}
    >>> row = VariantRow("peephole", Size(8, 20, 32, 32, 1, 1), "kernel: why", times)
    >>> print("\n".join([*head(row.size), line(row, repeats=3)]))
    """
    start = f"{row.name:20}{row.path.partition(':')[0]:9}"
    if row.wrong:
        return f"{start} not timed: it differs"
    own = row.timings[OWN]
    few = _few(len(own.milliseconds), repeats)
    loop = _cell(row.loop_over(), repeats) if LOOP in row.timings else "n/a"
    return f"{start} {own.median:10.3f} ±{own.spread:4.0%}{few:5} {_cell(row.over_plain(), repeats)} {loop}".rstrip()


def _cell(ratio: Ratio, repeats: int) -> str:
    return f"{ratio.median:6.2f}x ±{ratio.spread:4.0%}{_few(len(ratio.values), repeats):5}"


def _few(turns: int, repeats: int) -> str:
    return f" ({turns})" if turns < repeats else ""
