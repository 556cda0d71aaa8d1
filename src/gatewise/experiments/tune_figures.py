"""The figures of a search for settings."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gatewise.drawing import BLUE, VERMILION, new_figure, save, tidy
from gatewise.experiments.search import TrialResult
from gatewise.experiments.tune import Choice, Dimension, Search

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito's colours; the markers differ in grey as well.
FINISHED: dict[str, Any] = {"color": BLUE, "marker": "o", "s": 26, "linewidths": 0, "label": "finished"}
PRUNED: dict[str, Any] = {"color": "0.6", "marker": "x", "s": 18, "linewidths": 1, "label": "pruned"}
BEST: dict[str, Any] = {"color": VERMILION, "marker": "*", "s": 150, "linewidths": 0, "label": "best", "zorder": 4}
LABELS = {"loss": "best dev loss (mean per sample)", "accuracy": "best dev accuracy (share of samples)"}


def draw_history(path: Path, trials: Sequence[TrialResult], best: TrialResult, search: Search) -> None:
    """Draw the value of each trial in their order, and the best so far as a line.

    Parameters
    ----------
    path : path
        The file; its ending says which kind.
    trials : sequence of TrialResult
        All.
    best : TrialResult
        One of them that finished.
    search : Search
        What was searched.
    """
    from matplotlib.ticker import MaxNLocator

    figure, axes = _figure(7.5, 4.2, 1)
    by = search.base.best_by
    _scatter(axes[0], [(trial.number, trial) for trial in trials], best)
    finished = [trial for trial in trials if trial.how == "finished" and trial.value is not None]
    pick = min if by == "loss" else max
    so_far = [pick(t.value for t in finished[: n + 1] if t.value is not None) for n in range(len(finished))]
    numbers = [trial.number for trial in finished]
    numbers.append(max(trial.number for trial in trials))  # on to the last, finished or not
    axes[0].step(numbers, [*so_far, so_far[-1]], where="post", color=VERMILION, linewidth=1.3, label="best so far")
    axes[0].set(xlabel="trial", ylabel=LABELS[by])
    axes[0].xaxis.set_major_locator(MaxNLocator(integer=True))
    _scale(axes[0], trials, by)
    counts = ", ".join(
        f"{count} {how}"
        for how in ("finished", "pruned", "diverged")
        if (count := sum(trial.how == how for trial in trials))
    )
    axes[0].set_title(f"{search.task}: {counts}", fontsize=11)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False, fontsize=9)
    save(figure, path)


def draw_slices(path: Path, trials: Sequence[TrialResult], best: TrialResult, search: Search) -> None:
    """Draw the value of each trial over each setting, a panel for each.

    Parameters
    ----------
    path, trials, best, search
        As in `draw_history`.
    """
    columns = 2 if len(search.space) == 4 else min(3, len(search.space))
    rows = -(-len(search.space) // columns)
    figure, panels = _figure(3.6 * columns + 1.2, 3.0 * rows + 0.8, rows, columns)
    by = search.base.best_by
    for axes in panels[len(search.space) :]:
        axes.set_visible(False)
    for number, (axes, dimension) in enumerate(zip(panels, search.space, strict=False)):
        places = _places(dimension)
        _scatter(axes, [(places(trial.settings[dimension.name]), trial) for trial in trials], best)
        axes.set(xlabel=dimension.name.replace("_", " "))
        if number % columns == 0:
            axes.set_ylabel(LABELS[by])
        _scale(axes, trials, by)
        _ticks(axes, dimension)
    figure.suptitle(f"{search.task}: where the good trials lie", fontsize=11)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    save(figure, path)


def draw_importances(path: Path, importances: Mapping[str, float], search: Search) -> None:
    """Draw how much each setting has to do with whether a trial is good.

    Parameters
    ----------
    path : path
        The file; its ending says which kind.
    importances : mapping of str to float
        Shares that add up to 1.
    search : Search
        What was searched.
    """
    figure, (axes,) = _figure(6.5, 1.5 + 0.42 * len(importances), 1)
    names = sorted(importances, key=lambda name: importances[name])
    bars = axes.barh([name.replace("_", " ") for name in names], [importances[name] for name in names], color=BLUE)
    axes.bar_label(bars, [f"{importances[name]:.0%}" for name in names], padding=4, fontsize=9)
    axes.set(xlim=(0, 1.08 * (max(importances.values()) or 1)), xlabel="importance (share, by PED-ANOVA)")
    axes.set_title(f"{search.task}: what decides the dev {search.base.best_by}", fontsize=11)
    axes.grid(visible=False)
    axes.tick_params(axis="y", length=0)
    save(figure, path)


def _figure(width: float, height: float, rows: int, columns: int = 1) -> tuple[Any, list["Axes"]]:

    figure = new_figure(width, height)
    panels = list(figure.subplots(rows, columns, sharey=True, squeeze=False).flat)
    for axes in panels:
        tidy(axes)
    return figure, panels


def _scatter(axes: "Axes", points: Sequence[tuple[float, TrialResult]], best: TrialResult) -> None:
    for style, how in ((PRUNED, "pruned"), (FINISHED, "finished")):
        own = [(x, trial.value) for x, trial in points if trial.how == how and trial.value is not None]
        if own:
            axes.scatter(*zip(*own, strict=True), alpha=0.8, **style)
    (place,) = [x for x, trial in points if trial.number == best.number]
    assert best.value is not None
    axes.scatter([place], [best.value], **BEST)


def _scale(axes: "Axes", trials: Sequence[TrialResult], by: str) -> None:
    """Losses by their logarithms, which spread over more than one power of ten."""
    values = [trial.value for trial in trials if trial.value is not None]
    if by == "loss" and min(values) > 0:
        from matplotlib.ticker import FuncFormatter, LogLocator

        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if max(values) < 1000 * min(values) else (1,)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, place: f"{value:g}"))
        axes.minorticks_off()


def _places(dimension: Dimension) -> Any:
    """Where a value stands: at itself, or a choice at its place."""
    return dimension.values.index if isinstance(dimension, Choice) else float


def _ticks(axes: "Axes", dimension: Dimension) -> None:
    if isinstance(dimension, Choice):
        axes.set_xticks(range(len(dimension.values)), [str(value) for value in dimension.values])
        axes.set_xlim(-0.5, len(dimension.values) - 0.5)
        return
    if dimension.log:
        axes.set_xscale("log")
        return
    step = dimension.step or (1 if isinstance(dimension.low, int) else 0)
    if step:  # where values can be, as many as fit
        count = round((dimension.high - dimension.low) / step) + 1
        axes.set_xticks([dimension.low + step * place for place in range(0, count, -(-count // 8))])
