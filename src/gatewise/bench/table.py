"""The table, line by line, as the run goes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from gatewise.bench.report import OWN, Row

PRODUCTS = ("square", "layer", "step")


class Table:
    r"""Columns of fixed width: they can be printed before the last row is known.

    Parameters
    ----------
    peers : sequence of str
        The peers beside gatewise, a column each.
    repeats : int
        Turns that each peer takes; where it took fewer, the cell says how many.

    Examples
    --------
    >>> from gatewise.bench.grid import GRID
    >>> from gatewise.bench.timing import Timing
    >>> times = {"gatewise": Timing((0.08,) * 21, tuple(range(21)), 9), "torch": Timing((0.4,) * 5, tuple(range(5)), 9)}
    >>> ceilings = {"square": 100.0, "layer": 50.0, "step": 20.0}
    >>> row = Row("plain", "forward", GRID[0], 2_621_440, "kernel: float32", times, ceilings, fork_join=2.7e-6)
    >>> table = Table(["torch"], repeats=21)
    >>> print("\n".join([*table.head(row), table.line(row)]))
    plain; gatewise by kernel: float32
    row (B, T, I, H, L, D)         kind      fork µs      gatewise ms     GFLOP/s square layer  step        torch
      1 (8, 20, 32, 32, 1, 1)      forward       2.7      0.080 ±  0%        32.8    33%   66%  164%    5.00x (5)
    """

    def __init__(self, peers: Sequence[str], repeats: int) -> None:
        self.peers = peers
        self.repeats = repeats

    def head(self, row: Row) -> list[str]:
        """Give the lines above the rows of a form, of which this is the first."""
        columns = f"{'row':>3} {'(B, T, I, H, L, D)':26} {'kind':8} {'fork µs':>8} {'gatewise ms':>16}{'GFLOP/s':>12} "
        columns += " ".join([f"{PRODUCTS[0]:>6}", *(f"{name:>5}" for name in PRODUCTS[1:])])
        return [f"{row.form}; gatewise by {row.path}", columns + "".join(f" {name:>12}" for name in self.peers)]

    def line(self, row: Row) -> str:
        """Give the line of a row."""
        number = "·" if row.number is None else row.number
        start = f"{number:>3} {row.size!s:26} {row.kind:8}"
        own = row.timings.get(OWN)
        if own is None:
            return f"{start} not timed: it differs"
        few = self._few(len(own.milliseconds))
        start += f" {_microseconds(row):>8}"
        start += f" {own.median:10.3f} ±{own.spread:4.0%}{few:5}{row.gflops():7.1f} "
        start += " ".join([f"{row.share('square'):6.0%}", *(f"{row.share(name):5.0%}" for name in PRODUCTS[1:])])
        return start + "".join(f" {self._cell(row, name):>12}" for name in self.peers)

    def _cell(self, row: Row, peer: str) -> str:
        if peer in row.wrong:
            return "differs"
        if peer not in row.timings:
            return "n/a"
        return f"{row.ratio(peer):.2f}x{self._few(len(row.timings[peer].milliseconds))}"

    def _few(self, turns: int) -> str:
        return f" ({turns})" if turns < self.repeats else ""


def _microseconds(row: Row) -> str:
    """An empty parallel region's."""
    return "n/a" if row.fork_join is None else f"{row.fork_join * 1e6:.1f}"


def legend(repeats: int, turn: float) -> list[str]:
    """Explain the columns.

    Examples
    --------
    >>> legend(21, 0.02)[0]
    'medians of 21 turns of at least 20 ms, interleaved; ± half the interquartile range; (n) in n turns only'
    """
    return [
        f"medians of {repeats} turns of at least {turn * 1e3:g} ms, interleaved; ± half the interquartile range; "
        "(n) in n turns only",
        "fork: an empty parallel region of all threads just before the row, by which rows of one state of the machine",
        "are told from those of another",
        "square, layer, step: gatewise's GFLOP/s as a share of torch.mm's in the same turns, at 1024 × 1024 × 1024, at",
        "(T·B, I+H) × (I+H, 4H), and at (B, H) × (H, 4H); each peer's column: its time over gatewise's",
    ]


def reasons(rows: Sequence[Row]) -> list[str]:
    """Say why peers were not timed in the rows of a form, each reason once.

    Examples
    --------
    >>> from gatewise.bench.grid import GRID
    >>> absent = {"jax": "no", "x": "no"}
    >>> rows = [Row("plain", kind, GRID[0], 1, "", {}, {}, absent) for kind in ("forward", "training")]
    >>> reasons(rows)
    ['n/a  jax, x: no']
    """
    where: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        for peer, why in row.absent.items():
            where.setdefault((peer, why), []).append(row)
    lines: dict[str, list[str]] = {}
    for (peer, why), found in where.items():
        lines.setdefault(f"{why}{_places(found, rows)}", []).append(peer)
    return [f"n/a  {', '.join(names)}: {line}" for line, names in lines.items()]


def _places(found: Sequence[Row], rows: Sequence[Row]) -> str:
    """Where, if not everywhere."""
    if len(found) == len(rows):
        return ""
    kinds = {row.kind for row in found}
    if len(kinds) == 1 and len(found) == sum(row.kind in kinds for row in rows):
        return "" if kinds == {row.kind for row in rows} else f" (every {found[0].kind} row)"
    return f" ({', '.join(f'{row.kind} {row.size}' for row in found)})"


def overhead_lines(rows: Iterable[Row]) -> list[str]:
    r"""Give the times of the smallest size, in microseconds.

    Examples
    --------
    >>> from gatewise.bench.grid import SMALLEST
    >>> from gatewise.bench.timing import Timing
    >>> times = {"gatewise": Timing((0.01, 0.01), (0, 1), 5), "torch": Timing((0.05, 0.05), (0, 1), 5)}
    >>> print("\n".join(overhead_lines([Row("plain", "forward", SMALLEST, 1, "", times, fork_join=2.7e-6)])))
    overhead of a call, at (1, 1, 4, 4, 1, 1), in µs
      forward   gatewise 10.0 ±0%   torch 50.0 ±0% (5.00x)   fork 2.7
    """
    lines: list[str] = []
    for row in rows:
        if not lines:
            lines.append(f"overhead of a call, at {row.size}, in µs")
        cells = [
            f"{name} {t.median * 1e3:.1f} ±{t.spread:.0%}"
            + (f" ({row.ratio(name):.2f}x)" if name != OWN and OWN in row.timings else "")
            for name, t in row.timings.items()
        ]
        if cells:
            cells.append(f"fork {_microseconds(row)}")
        lines.append(f"  {row.kind:9} {'   '.join(cells) or 'not timed: it differs'}")
    return lines


def notes_lines(size: object, times: dict[str, float]) -> list[str]:
    r"""Give the times by the protocol of the study notes.

    Examples
    --------
    >>> print("\n".join(notes_lines("(8, 20, 32, 32, 1, 1)", {"gate-loop": 2.5, "gatewise": 0.25})))
    the study notes' protocol at (8, 20, 32, 32, 1, 1): mean ms of 100 calls, the first 10 dropped, gradients recorded
      gate-loop 2.500 (10.00x)   gatewise 0.250
    """
    if not times:
        return []
    own = times.get(OWN)
    cells = [f"{n} {t:.3f}" + (f" ({t / own:.2f}x)" if own and n != OWN else "") for n, t in times.items()]
    return [
        f"the study notes' protocol at {size}: mean ms of 100 calls, the first 10 dropped, gradients recorded",
        f"  {'   '.join(cells)}",
    ]
