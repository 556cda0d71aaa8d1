"""The figure of a run: ratios to the peers and share of the ceiling, size by size."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gatewise.bench.panels import new_panels, whiskers
from gatewise.bench.report import OWN, Row
from gatewise.drawing import BLACK, BLUE, GREEN, PURPLE, SKY, VERMILION, save, tidy

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito's colours, apart for the colour-blind; the markers, some filled and some not, tell them apart in grey.
STYLES: dict[str, dict[str, Any]] = {
    "torch": {"color": BLACK, "marker": "o"},
    "cell-loop": {"color": BLUE, "marker": "s", "markerfacecolor": "white"},
    "gate-loop": {"color": SKY, "marker": "v"},
    "onnxruntime": {"color": VERMILION, "marker": "D", "markerfacecolor": "white"},
    "jax": {"color": GREEN, "marker": "^"},
}
OTHER: dict[str, Any] = {"color": PURPLE, "marker": "P"}
SHARES: dict[str, dict[str, Any]] = {
    "forward": {"color": BLACK, "marker": "o"},
    "training": {"color": VERMILION, "marker": "s", "markerfacecolor": "white"},
}


def draw_figure(path: Path, rows: Sequence[Row], title: str) -> None:
    """Draw, for each size, each peer's time over gatewise's, and gatewise's share of a square product's speed.

    Parameters
    ----------
    path : path
        The file, .png, .pdf or .svg; one that exists is replaced.
    rows : sequence of Row
        At least one; those in which gatewise was not timed stay empty.
    title : str
        Above the figure.

    Examples
    --------
    >>> import tempfile
    >>> from gatewise.bench.grid import GRID
    >>> from gatewise.bench.timing import Timing
    >>> times = {"gatewise": Timing((2.0, 2.0), (0, 1), 5), "torch": Timing((3.0, 3.0), (0, 1), 5)}
    >>> row = Row("plain", "forward", GRID[0], 2_621_440, "kernel", times, {"square": 100.0})
    >>> path = Path(tempfile.mkdtemp()) / "bench.png"
    >>> draw_figure(path, [row], "a machine")
    >>> path.read_bytes()[1:4]
    b'PNG'
    """
    places = {place: at for at, place in enumerate(dict.fromkeys((row.form, row.size) for row in rows))}
    several = len({form for form, _ in places}) > 1 or next(iter(places))[0] != "plain"
    labels = [f"{size}{f' {form}' * several}" for form, size in places]
    kinds = list(dict.fromkeys(row.kind for row in rows))
    count = len(kinds) + 1
    figure, panels = new_panels(labels, count, width=3.4 * count + 2.2, height=0.32, title=title)
    for axes, kind in zip(panels, kinds, strict=False):
        _draw_ratios(axes, [row for row in rows if row.kind == kind], places)
        axes.set_title(kind, fontsize=10)
    _draw_shares(panels[-1], rows, places)
    panels[0].set_ylabel("(B, T, I, H, L, D)")
    panels[0].invert_yaxis()
    for axes in panels:
        tidy(axes)
    named = {name: line for axes in panels[:-1] for line, name in zip(*axes.get_legend_handles_labels(), strict=True)}
    if named:
        figure.legend(
            named.values(), named.keys(), loc="outside lower center", ncols=len(named), frameon=False, fontsize=8
        )
    save(figure, path)


def _draw_ratios(axes: Axes, rows: Sequence[Row], places: dict[Any, int]) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    timed = [row for row in rows if OWN in row.timings]
    names = list(dict.fromkeys(name for row in timed for name in row.timings if name != OWN))
    for k, name in enumerate(names):
        found = [row for row in timed if name in row.timings]
        shift = (k - (len(names) - 1) / 2) * 0.12  # not one upon the other
        ratios = [row.ratio(name) for row in found]
        quartiles = [row.timings[name].ratio_quartiles(row.timings[OWN]) for row in found]
        y = [places[row.form, row.size] + shift for row in found]
        style = STYLES.get(name, OTHER)
        reach = whiskers(ratios, quartiles)
        axes.errorbar(ratios, y, xerr=reach, label=name, linestyle="none", markersize=5, elinewidth=1, **style)
    axes.axvline(1, color="0.4", linewidth=1)
    axes.set_xscale("log")
    low, high = axes.get_xlim()
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 100 * low else (1,)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("time over gatewise's\n(above 1: gatewise is faster)", fontsize=9)


def _draw_shares(axes: Axes, rows: Sequence[Row], places: dict[Any, int]) -> None:
    for k, (kind, style) in enumerate(SHARES.items()):
        found = [row for row in rows if row.kind == kind and OWN in row.timings and "square" in row.ceilings]
        if found:
            y = [places[row.form, row.size] + (k - 0.5) * 0.16 for row in found]
            shares = [100 * row.share("square") for row in found]
            axes.plot(shares, y, label=kind, linestyle="none", markersize=5, **style)
    axes.set_xlim(left=0)
    axes.set_title("gatewise's share of the ceiling", fontsize=10)
    axes.set_xlabel("% of torch.mm's GFLOP/s\nat 1024 × 1024 × 1024", fontsize=9)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=7, frameon=True, framealpha=0.9, edgecolor="0.8")
