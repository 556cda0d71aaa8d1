"""The figure of a training: loss and accuracy over epochs."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gatewise.train.metrics import Metric
from gatewise.train.whole import write_whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito's colours, apart for the colour-blind; line style and marker tell them apart in grey as well.
STYLES: dict[str, dict[str, Any]] = {
    "train": {"color": "#000000", "linestyle": "-", "marker": "o"},
    "dev": {"color": "#D55E00", "linestyle": "--", "marker": "s"},
    "test": {"color": "#0072B2", "linestyle": ":", "marker": "^"},
}


def draw_curves(path: Path, metrics: Sequence[Metric], best_epoch: float, title: str) -> None:
    """Draw loss and accuracy of each split over epochs.

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

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "curves.png"
    >>> draw_curves(path, [Metric(9, 1.0, "train", 0.5, 2.0, {"accuracy": 0.75})], best_epoch=1, title="digits")
    >>> path.read_bytes()[1:4]
    b'PNG'
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=11)
    left, right = figure.subplots(1, 2)
    _draw(left, metrics, "loss", best_epoch)
    left.set(ylabel="cross-entropy loss (nats per sample)", yscale="log")
    _draw(right, metrics, "accuracy", best_epoch)
    right.set(ylabel="accuracy (share of samples)")
    figure.legend(*right.get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png")
    write_whole(path, drawn.getvalue())


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
    axes.grid(color="0.9", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)


def _values(metrics: Sequence[Metric], split: str, quantity: str) -> dict[float, float]:
    """The quantity over epochs; of training those that are whole, if any are, as its means begin anew with each."""
    values = {metric.epoch: metric[quantity] for metric in metrics if metric.split == split}
    whole = {epoch: value for epoch, value in values.items() if epoch == int(epoch)}
    return whole if split == "train" and whole else values
