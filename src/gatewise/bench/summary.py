"""What the rows come to: for each form, kind and peer the mean ratio and the lowest one."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from gatewise.bench.grid import Size

if TYPE_CHECKING:
    from gatewise.bench.report import Row

FASTEST = "the fastest"
"""Stands in a peer's place for whoever is the fastest of each row, gatewise left out."""


@dataclass(frozen=True)
class Summary:
    """The ratios of a peer over the rows of a form and kind.

    Parameters
    ----------
    form, kind : str
        Of the rows.
    peer : str
        Its name, or `FASTEST`.
    rows : int
        In which it was timed.
    mean : float
        The geometric mean of its times over gatewise's.
    lowest : float
        The smallest of them.
    at : Size
        Where that was.

    Examples
    --------
    >>> Summary("plain", "forward", "torch", 2, 2.0, 1.0, Size(1, 2, 3, 4, 1, 1)).as_json()["at"]["H"]
    4
    """

    form: str
    kind: str
    peer: str
    rows: int
    mean: float
    lowest: float
    at: Size

    def as_json(self) -> dict[str, Any]:
        """Give it as JSON takes it."""
        return asdict(self) | {"at": self.at._asdict()}


def summarize(rows: Sequence[Row]) -> list[Summary]:
    """Sum up rows, form by form, kind by kind and peer by peer.

    Where several peers were timed in a plain row, `FASTEST` follows them.

    Parameters
    ----------
    rows : sequence of Row
        Those in which gatewise was not timed count for nothing.

    Examples
    --------
    >>> from gatewise.bench.grid import GRID
    >>> from gatewise.bench.report import Row
    >>> from gatewise.bench.timing import Timing
    >>> times = [{"gatewise": Timing((2.0,), (0,), 5), "torch": Timing((t,), (0,), 5)} for t in (4.0, 16.0)]
    >>> rows = [Row("plain", "forward", size, 1, "kernel", t) for size, t in zip(GRID, times)]
    >>> [(s.peer, s.rows, s.mean, s.lowest, s.at.T) for s in summarize(rows)]
    [('torch', 2, 4.0, 2.0, 20)]
    """
    found = []
    for form, kind in dict.fromkeys((row.form, row.kind) for row in rows):
        ratios = {row.size: row.ratios() for row in rows if (row.form, row.kind) == (form, kind)}
        peers = dict.fromkeys(peer for of_row in ratios.values() for peer in of_row)
        for peer in peers:
            found.append(_sum_up(form, kind, peer, {size: r[peer] for size, r in ratios.items() if peer in r}))
        if form == "plain" and len(peers) > 1:
            found.append(_sum_up(form, kind, FASTEST, {size: min(r.values()) for size, r in ratios.items() if r}))
    return found


def _sum_up(form: str, kind: str, peer: str, ratios: Mapping[Size, float]) -> Summary:
    mean = math.exp(sum(map(math.log, ratios.values())) / len(ratios))
    at = min(ratios, key=lambda size: ratios[size])
    return Summary(form, kind, peer, len(ratios), mean, ratios[at], at)


def summary_lines(summaries: Mapping[str, Sequence[Summary]]) -> list[str]:
    r"""Give the table of the summaries.

    Parameters
    ----------
    summaries : mapping of str to sequence of Summary
        Those of each run, by how malloc was; the runs' lines for the same rows stand one below the other.

    Examples
    --------
    >>> at = Size(8, 20, 32, 32, 1, 1)
    >>> runs = {name: [Summary("plain", "forward", "torch", 14, mean, 1.5, at)] for name, mean in (("default", 2.0),)}
    >>> print("\n".join(summary_lines(runs)))
    summary: a peer's time over gatewise's, the geometric mean of its rows and the lowest
    form         kind      peer         malloc   rows      mean    lowest  at (B, T, I, H, L, D)
    plain        forward   torch        default    14     2.00x     1.50x  (8, 20, 32, 32, 1, 1)
    """
    lines = [
        f"{s.form:12} {s.kind:9} {s.peer:12} {malloc:8} {s.rows:4} {s.mean:8.2f}x {s.lowest:8.2f}x  {s.at}"
        for name in dict.fromkeys((s.form, s.kind, s.peer) for found in summaries.values() for s in found)
        for malloc, found in summaries.items()
        for s in found
        if (s.form, s.kind, s.peer) == name
    ]
    if not lines:
        return []
    return [
        "summary: a peer's time over gatewise's, the geometric mean of its rows and the lowest",
        f"{'form':12} {'kind':9} {'peer':12} {'malloc':8} {'rows':4} {'mean':>9} {'lowest':>9}  at (B, T, I, H, L, D)",
        *lines,
    ]
