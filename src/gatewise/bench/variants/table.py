"""The variants' table, line by line, as the run goes."""

from __future__ import annotations

from gatewise.bench.grid import Size
from gatewise.bench.timing import Ratio
from gatewise.bench.variants.row import LOOP, OWN, VariantRow
from gatewise.bench.variants.work import ARGUMENTS


def legend(repeats: int, turn: float) -> list[str]:
    """Explain the columns.

    Examples
    --------
    >>> legend(21, 0.02)[4]
    'ms          gatewise: the median of 21 turns of at least 20 ms, interleaved'
    """
    given = [item for arguments in ARGUMENTS.values() for item in arguments.items() if isinstance(item[1], float)]
    rates = ", ".join(f"{name} {rate:g}" for name, rate in dict(given).items())
    return [
        "training steps of changed cells, compared before they are timed: the output and",
        "the gradients of input, states and all parameters (of step in float64)",
        "masks are drawn anew in each step, at these rates:",
        rates,
        f"ms          gatewise: the median of {repeats} turns of at least {turn * 1e3:g} ms, interleaved",
        "over plain  gatewise over its plain cell (of row plain: the noise)",
        "loop        the same cell as a loop in Python over gatewise: torch's operations,",
        "            the input's product for all steps at once, then a step at a time",
        "both are medians of the ratios within each round of turns",
        "±           half the interquartile range; (n) in n turns only",
    ]


def head(size: Size) -> list[str]:
    """Give the lines above the rows of a size."""
    return [
        f"(B, T, I, H, L, D) = {size}",
        f"{'variant':20}{'by':9}{'ms':>15}{'':5} {'over plain':>12} {'loop':>13}",
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
    (B, T, I, H, L, D) = (8, 20, 32, 32, 1, 1)
    variant             by                    ms        over plain          loop
    peephole            kernel       2.000 ±  0%       1.25x ±  0%   4.50x ±  0%
    """
    start = f"{row.name:20}{row.path.partition(':')[0]:9}"
    if row.wrong:
        return f"{start} not timed: it differs"
    own = row.timings[OWN]
    few = _few(len(own.milliseconds), repeats)
    return f"{start}{own.median:9.3f} ±{own.spread:4.0%}{few:5} {_cell(row.over_plain(), 5)} {_loop(row, repeats)}"


def _loop(row: VariantRow, repeats: int) -> str:
    if LOOP not in row.timings:
        return f"{'n/a':>13}"
    return _cell(row.loop_over(), 6) + _few(len(row.timings[LOOP].milliseconds), repeats)


def _cell(ratio: Ratio, width: int) -> str:
    return f"{ratio.median:{width}.2f}x ±{ratio.spread:4.0%}"


def _few(turns: int, repeats: int) -> str:
    return f" ({turns})" if turns < repeats else ""
