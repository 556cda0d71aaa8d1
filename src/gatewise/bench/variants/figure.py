"""The figure of the variants: gatewise's time over its plain cell's, and that of the loop in Python over gatewise's."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from gatewise.bench.panels import new_panels, whiskers
from gatewise.bench.timing import Ratio
from gatewise.bench.variants.row import LOOP, VariantRow
from gatewise.drawing import BLUE, VERMILION, save, tidy

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def draw_variants(path: Path, rows: Sequence[VariantRow], title: str) -> None:
    """Draw, for each size, how many times as long as the plain cell each variant takes, and the loop as gatewise.

    Parameters
    ----------
    path : path
        The file, .png, .pdf or .svg; one that exists is replaced.
    rows : sequence of VariantRow
        At least one; those that were not timed stay empty.
    title : str
        Above the figure.

    Examples
    --------
    >>> import tempfile
    >>> from gatewise.bench.grid import GRID
    >>> from gatewise.bench.timing import Timing
    >>> times = {n: Timing((t,) * 3, (0, 1, 2), 5) for n, t in (("gatewise", 2.0), ("plain", 1.6), ("loop", 9.0))}
    >>> path = Path(tempfile.mkdtemp()) / "variants.png"
    >>> draw_variants(path, [VariantRow("peephole", GRID[0], "kernel: why", times)], "a machine")
    >>> path.read_bytes()[1:4]
    b'PNG'
    """
    sizes = list(dict.fromkeys(row.size for row in rows))
    places = {name: at for at, name in enumerate(dict.fromkeys(row.name for row in rows))}
    figure, panels = new_panels(places, 2 * len(sizes), width=2 + 5.4 * len(sizes), height=0.26, title=title)
    for number, size in enumerate(sizes):
        timed = [row for row in rows if row.size == size and row.timings]
        over, loop = panels[2 * number], panels[2 * number + 1]
        _draw_bars(over, {places[row.name]: row.over_plain() for row in timed}, BLUE)
        over.set_xlabel("gatewise's time over\nits plain cell's", fontsize=9)
        _draw_bars(loop, {places[r.name]: r.loop_over() for r in timed if LOOP in r.timings}, VERMILION)
        loop.set_xlabel("time of a loop in Python\nover gatewise's", fontsize=9)
        over.set_title(str(size), fontsize=10, loc="left")
    panels[0].set_ylim(len(places) - 0.4, -0.6)
    save(figure, path)


def _draw_bars(axes: Axes, ratios: dict[int, Ratio], colour: str) -> None:
    medians = [ratio.median for ratio in ratios.values()]
    reach = whiskers(medians, [ratio.quartiles for ratio in ratios.values()])
    if ratios:
        axes.barh(list(ratios), medians, height=0.7, color=colour, xerr=reach, error_kw={"elinewidth": 1})
    axes.axvline(1, color="0.4", linewidth=1)
    axes.set_xlim(left=0)
    tidy(axes)
