"""The figures of the memory experiment."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gatewise.drawing import BLACK, BLUE, GREEN, ORANGE, PURPLE, SKY, VERMILION, new_figure, save, tidy
from gatewise.experiments.memory import PUBLISHED, Result, summarize

# Okabe and Ito's colours; marker and line style tell the cells apart in grey as well.
STYLES: dict[str, dict[str, Any]] = {
    "lstm": {"color": BLUE, "marker": "o", "linestyle": "-"},
    "srn": {"color": VERMILION, "marker": "s", "linestyle": "--"},
    "gru": {"color": GREEN, "marker": "^", "linestyle": "-."},
    "peephole": {"color": PURPLE, "marker": "D", "linestyle": "-"},
    "cifg": {"color": ORANGE, "marker": "v", "linestyle": "--"},
    "layer-norm": {"color": SKY, "marker": "P", "linestyle": "-."},
    "slstm": {"color": BLACK, "marker": "X", "linestyle": ":"},
}


def draw_accuracy(paths: Sequence[Path], results: Sequence[Result], title: str) -> None:
    """Draw the test accuracy of each cell over the lengths: each seed a point, their mean a line, a band one deviation.

    Parameters
    ----------
    paths : sequence of path
        The files; their endings say which kind.
    results : sequence of Result
        At least one.
    title : str
        Above it.
    """
    figure = new_figure(7, 4.2)
    axes = figure.subplots()
    summaries = summarize(results)
    for cell in dict.fromkeys(summary.cell for summary in summaries):
        own = [summary for summary in summaries if summary.cell == cell]
        lengths = [summary.length for summary in own]
        means = [summary.mean("test") for summary in own]
        low = [max(0.0, summary.mean("test") - summary.deviation("test")) for summary in own]
        high = [min(1.0, summary.mean("test") + summary.deviation("test")) for summary in own]
        style = STYLES[cell]
        axes.plot(lengths, means, label=f"{cell.upper()}, test (mean)", linewidth=1.8, **style)
        axes.plot(
            lengths,
            [summary.mean("dev") for summary in own],
            label=f"{cell.upper()}, dev (mean)",
            linewidth=0.9,
            alpha=0.6,
            **style | {"marker": ""},
        )
        axes.fill_between(lengths, low, high, color=style["color"], alpha=0.15, linewidth=0)
        for summary in own:
            points = [summary.length] * len(summary.test)
            axes.plot(points, summary.test, linestyle="", marker=".", markersize=4, color=style["color"], alpha=0.6)
    lengths = sorted({summary.length for summary in summaries})
    known = [length for length in lengths if length in PUBLISHED]
    if known:
        published = [PUBLISHED[length][1] for length in known]
        axes.plot(known, published, linestyle=":", color="0.4", marker="x", label="LSTM, test, as published")
    if lengths[-1] >= 10 * lengths[0]:
        axes.set_xscale("log")
    axes.set(xlabel="length of the sequence (digits)", ylabel="accuracy (share of samples)", ylim=(0, 1.02))
    axes.set_xticks(lengths, [str(length) for length in lengths])
    axes.minorticks_off()
    axes.set_title(title, fontsize=11)
    tidy(axes)
    figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=8)
    for path in paths:
        save(figure, path)


def draw_losses(paths: Sequence[Path], results: Sequence[Result], title: str) -> None:
    """Draw the training and the dev loss of each length over epochs, a line for each cell: the mean over seeds.

    Parameters
    ----------
    paths : sequence of path
        The files; their endings say which kind.
    results : sequence of Result
        At least one.
    title : str
        Above it.
    """
    import numpy as np

    lengths = list(dict.fromkeys(result.length for result in results))
    columns = min(3, len(lengths))
    rows = -(-len(lengths) // columns)
    figure = new_figure(3.4 * columns + 0.6, 2.6 * rows + 0.9)
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    for axes in grid.flat[len(lengths) :]:
        axes.set_visible(False)
    for axes, length in zip(grid.flat, lengths, strict=False):
        for cell in dict.fromkeys(result.cell for result in results):
            own = [result for result in results if (result.cell, result.length) == (cell, length)]
            if not own:
                continue
            color = STYLES[cell]["color"]
            losses = np.mean([result.losses for result in own], axis=0)
            axes.plot(np.arange(1, len(losses) + 1), losses, color=color, linewidth=1.4, label=f"{cell.upper()}, train")
            epochs = [epoch for epoch, _ in own[0].dev_losses]
            dev = np.mean([[loss for _, loss in result.dev_losses] for result in own], axis=0)
            axes.plot(
                epochs,
                dev,
                color=color,
                linewidth=1.2,
                linestyle="--",
                marker="." if len(epochs) < 3 else "",
                label=f"{cell.upper()}, dev",
            )
        axes.set_title(f"{length} digits", fontsize=9)
        axes.set(yscale="log")
        tidy(axes)
    for axes in grid[:, 0]:
        axes.set_ylabel("cross-entropy (nats)")
    for axes in grid[-1]:
        axes.set_xlabel("epoch")
    figure.suptitle(title, fontsize=11)
    figure.legend(*grid.flat[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)
    for path in paths:
        save(figure, path)
