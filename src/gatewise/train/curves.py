"""The figure of a training: loss, accuracy and the like over epochs."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gatewise.drawing import BLACK, BLUE, COLOURS, VERMILION, new_figure, save, tidy
from gatewise.train.metrics import Metric

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito's colours, apart for the colour-blind; line style and marker tell them apart in grey as well.
STYLES: dict[str, dict[str, Any]] = {
    "train": {"color": BLACK, "linestyle": "-", "marker": "o"},
    "dev": {"color": VERMILION, "linestyle": "--", "marker": "s"},
    "test": {"color": BLUE, "linestyle": ":", "marker": "^"},
}

UNITS = {
    "loss": "cross-entropy loss (nats per sample)",
    "accuracy": "accuracy (share of samples)",
    "bits_per_character": "bits per character",
    "bits_per_byte": "bits per byte",
}


def draw_curves(
    path: Path, metrics: Sequence[Metric], best_epoch: float, title: str, unit: str = UNITS["loss"]
) -> None:
    """Draw the loss, and what else is measured and has its unit in `UNITS`, of each split over epochs.

    Parameters
    ----------
    path : path
        The PNG file; one that exists is replaced.
    metrics : sequence of Metric
        Of "train" those at whole epochs count, or all if there are none; of the others all.
    best_epoch : float
        Is marked.
    title : str
        Above the figure.
    unit : str, default: of the cross-entropy
        What the loss is.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "curves.png"
    >>> draw_curves(path, [Metric(9, 1.0, "train", 0.5, 2.0, {"accuracy": 0.75})], best_epoch=1, title="digits")
    >>> path.read_bytes()[1:4]
    b'PNG'
    """
    shown = [name for name in UNITS if _has(metrics, name)]
    figure = new_figure(5 * len(shown), 4)
    figure.suptitle(title, fontsize=11)
    for axes, quantity in zip(figure.subplots(1, len(shown), squeeze=False).flat, shown, strict=True):
        _draw(axes, metrics, quantity, best_epoch)
        axes.set(ylabel=UNITS[quantity])
    figure.axes[0].set(ylabel=unit)
    if any(metric.loss > 0 for metric in metrics):  # that of a series that stays the same is 0
        figure.axes[0].set(yscale="log")
    figure.legend(*figure.axes[-1].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)
    save(figure, path)


def draw_comparison(path: Path, runs: Mapping[str, Sequence[Metric]], title: str, unit: str = UNITS["loss"]) -> None:
    """Draw the curves of several runs together: a colour for each run, a line style for each split.

    Parameters
    ----------
    path : path
        The file; its ending says which kind.
    runs : mapping of str to sequence of Metric
        Each by the name that it has in the legend.
    title : str
        Above the figure.
    unit : str, default: of the cross-entropy
        What the loss is.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "together.svg"
    >>> line = Metric(9, 1.0, "train", 0.5, 2.0, {"accuracy": 0.75})
    >>> draw_comparison(path, {"one": [line], "two": [line]}, title="digits")
    >>> path.is_file()
    True
    """
    measures = [name for name in UNITS if all(_has(metrics, name) for metrics in runs.values())]
    figure = new_figure(5 * len(measures) + 1, 4.5)
    figure.suptitle(title, fontsize=11)
    for axes, measure in zip(figure.subplots(1, len(measures), squeeze=False).flat, measures, strict=True):
        for number, (name, metrics) in enumerate(runs.items()):
            for split, style in STYLES.items():
                values = _values(metrics, split, measure)
                if values:
                    axes.plot(
                        list(values),
                        list(values.values()),
                        label=f"{name}, {split}",
                        linewidth=1.4,
                        linestyle=style["linestyle"],
                        color=COLOURS[number % len(COLOURS)],
                        marker=style["marker"] if len(values) == 1 else "",
                    )
        axes.set(
            xlabel="epoch",
            ylabel=unit if measure == "loss" else UNITS[measure],
            yscale="log" if measure == "loss" else "linear",
        )
        tidy(axes)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False, fontsize=8)
    save(figure, path)


def _has(metrics: Sequence[Metric], quantity: str) -> bool:
    return quantity == "loss" or any(quantity in metric.measures for metric in metrics)


def _draw(axes: "Axes", metrics: Sequence[Metric], quantity: str, best_epoch: float) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.axvline(best_epoch, color="0.75", linewidth=4, zorder=0, label=f"best (epoch {best_epoch:g})")
    for place, (split, style) in enumerate(STYLES.items()):
        values = _values(metrics, split, quantity)
        if values:
            every = max(1, len(values) // 8)
            marked = (place * every // 3, every)  # not all splits at the same epochs
            axes.plot(
                list(values), list(values.values()), label=split, markevery=marked, markersize=5, linewidth=1.5, **style
            )
    axes.set(xlabel="epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    tidy(axes)


def _values(metrics: Sequence[Metric], split: str, quantity: str) -> dict[float, float]:
    """The quantity over epochs; of training those that are whole, if any are, as its means begin anew with each."""
    values = {metric.epoch: metric[quantity] for metric in metrics if metric.split == split}
    whole = {epoch: value for epoch, value in values.items() if epoch == int(epoch)}
    return whole if split == "train" and whole else values
