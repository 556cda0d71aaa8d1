"""Gates and cells over time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from gatewise.drawing import BLACK, new_figure, tidy
from gatewise.errors import ArgumentError
from gatewise.insight.figures.looks import LINES, SMALL, as_array, draw_line, plain, span, whole_numbers
from gatewise.insight.trace import LayerTrace, Trace

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Both maps are perceptually uniform and go from dark to light all the way, so that they read in grey. Of a signed
# quantity cividis tells the sign by its colour too: blue below 0, grey at 0, yellow above. In a map that is dark, or
# light, at both ends, printed grey, -1 and 1 would look the same.
SHARES, SIGNED = "viridis", "cividis"


MEANINGS = {
    "i": "input gate",
    "f": "forget gate",
    "o": "output gate",
    "g": "candidate",
    "c": "cell state",
    "h": "hidden state",
}
"""The panels of `draw_gates`, in their order."""


def draw_gates(trace: Trace, layer: int = 0, direction: int = 0, sequence: int = 0, title: str = "") -> Figure:
    """Draw i, f, o, g, c and h of one sequence as heat maps over time and unit.

    The units are sorted by the mean of their forget gate over the sequence, the highest on top, in all panels alike, so
    that those which last stand together; the numbers beside the rows are the units' own. A projected h has rows of its
    own, in the order of its weights. What is past the sequence's length, or no finite number, is blank.

    Parameters
    ----------
    trace : Trace
        Of `gatewise.trace` or `gatewise.record`.
    layer, direction, sequence : int, default: 0
        Which one of them.
    title : str
        Above the figure; if empty, layer, direction and sequence are said there.

    Returns
    -------
    matplotlib.figure.Figure
        Six panels and their colour bars: gates from 0 to 1, g from -1 to 1, c and h by their largest magnitude.

    Raises
    ------
    ArgumentError
        There is no such layer, direction or sequence.

    Examples
    --------
    >>> import torch
    >>> from gatewise.insight.trace import trace
    >>> found = trace(torch.nn.LSTM(4, 3), torch.ones(5, 2, 4))
    >>> figure = draw_gates(found, sequence=1)
    >>> [axes.get_title() for axes in figure.axes if axes.images][:3]
    ['i: input gate', 'f: forget gate', 'o: output gate']
    """
    of_layer = _layer_of(trace, layer, direction, sequence)
    values = {name: as_array(getattr(of_layer, name)[:, sequence]) for name in MEANINGS}
    order = _lasting_first(values["f"])
    figure = new_figure(11, 5.6)
    figure.suptitle(plain(title or _which(trace, layer, direction, sequence)), fontsize=11)
    first: Axes | None = None
    for number, (name, meaning) in enumerate(MEANINGS.items()):
        array = values[name]
        own_rows = array.shape[1] != len(order)
        rows = np.arange(array.shape[1]) if own_rows else order
        axes = figure.add_subplot(2, 3, number + 1, sharex=first, sharey=None if own_rows else first)
        first = first or axes
        bound = _draw_map(axes, name, array[:, rows])
        said = "" if name in "ifo" else f", −{bound:.3g} to {bound:.3g}"
        axes.set_title(f"{name}: {meaning}{said}", fontsize=10)
        if number % 3 == 0 or own_rows:
            _label_rows(axes, rows)
            axes.set_ylabel("unit of the projection" if own_rows else "unit (sorted by mean f)", fontsize=SMALL + 1)
        else:
            axes.tick_params(labelleft=False)
        if number >= 3:
            axes.set_xlabel("step t")
        else:
            axes.tick_params(labelbottom=False)
        whole_numbers(axes)
    figure.supxlabel("units sorted by the mean of their forget gate over the sequence, highest on top", fontsize=SMALL)
    return figure


def draw_cell(
    trace: Trace,
    layer: int = 0,
    direction: int = 0,
    sequence: int = 0,
    units: Sequence[int] | None = None,
    title: str = "",
) -> Figure:
    """Draw the cell state of a few units over time, and their forget and input gates below.

    Parameters
    ----------
    trace : Trace
        Of `gatewise.trace` or `gatewise.record`.
    layer, direction, sequence : int, default: 0
        Which one of them.
    units : sequence of int, optional
        From one to seven different ones. By default those, up to six, whose c moves most: between its least and its
        greatest value, the one it began with counted in.
    title : str
        Above the figure; if empty, layer, direction and sequence are said there.

    Returns
    -------
    matplotlib.figure.Figure
        Panels of c, f and i, with one line for each unit; a line ends where the sequence does.

    Raises
    ------
    ArgumentError
        There is no such layer, direction, sequence or unit, or there are too many units.

    Examples
    --------
    >>> import torch
    >>> from gatewise.insight.trace import trace
    >>> found = trace(torch.nn.LSTM(4, 3), torch.ones(5, 2, 4))
    >>> figure = draw_cell(found, units=[2, 0])
    >>> [text.get_text() for text in figure.legends[0].get_texts()]
    ['unit 2', 'unit 0']
    """
    of_layer = _layer_of(trace, layer, direction, sequence)
    H = of_layer.c.shape[2]
    chosen = _most_moving(of_layer, sequence) if units is None else [int(unit) for unit in units]
    if not (0 < len(set(chosen)) == len(chosen) <= len(LINES) and all(0 <= unit < H for unit in chosen)):
        raise ArgumentError(
            f"units are {chosen}, needed from 1 to {len(LINES)} different numbers from 0 to {H - 1}: choose among those"
        )
    figure = new_figure(7.5, 6)
    figure.suptitle(plain(title or _which(trace, layer, direction, sequence)), fontsize=11)
    panels = figure.subplots(3, 1, sharex=True, height_ratios=(2, 1, 1))
    for axes, name in zip(panels, ("c", "f", "i"), strict=True):
        array = as_array(getattr(of_layer, name)[:, sequence])
        for place, unit in enumerate(chosen):
            draw_line(axes, array[:, unit], place, **LINES[place], label=f"unit {unit}")
        axes.set_ylabel(f"{name}: {MEANINGS[name]}", fontsize=SMALL + 1)
        tidy(axes)
        if name == "c":
            axes.axhline(0, color="0.5", linewidth=0.8, zorder=1)
        else:
            axes.set_ylim(-0.04, 1.04)
            axes.set_yticks([0, 0.5, 1], ["0 shut", "0.5", "1 open"])
    panels[-1].set_xlabel("step t")
    span(panels[-1], of_layer.c.shape[0])
    figure.legend(
        *panels[0].get_legend_handles_labels(),
        loc="outside lower center",
        ncols=6,
        columnspacing=1.2,
        frameon=False,
        fontsize=SMALL + 1,
    )
    return figure


def _layer_of(trace: Trace, layer: int, direction: int, sequence: int) -> LayerTrace:
    """One layer of a trace in which there is such a sequence."""
    of_layer = trace.layer(layer, direction)
    B = of_layer.c.shape[1]
    if not B:
        raise ArgumentError("the trace has no sequence, needed at least one to draw: trace a batch that is not empty")
    if not 0 <= sequence < B:
        raise ArgumentError(f"sequence is {sequence}, needed one from 0 to {B - 1}: choose among those")
    return of_layer


def _which(trace: Trace, layer: int, direction: int, sequence: int) -> str:
    ways = ("", ", reverse direction")[direction] if trace.directions == 2 else ""
    return f"layer {layer}{ways}, sequence {sequence}"


def _lasting_first(f: NDArray[np.float64]) -> NDArray[np.intp]:
    """The units (H,) by the mean of their forget gate (T, H), highest first and equals by their numbers."""
    taken = np.isfinite(f)
    means = np.where(taken, f, 0).sum(axis=0) / np.maximum(1, taken.sum(axis=0))
    return np.argsort(-means, kind="stable")


def _most_moving(of_layer: LayerTrace, sequence: int) -> list[int]:
    """Up to six units, the one whose c moves most first."""
    c = np.vstack([as_array(of_layer.c_0[sequence])[None], as_array(of_layer.c[:, sequence])])
    taken = np.isfinite(c)
    moved = np.where(taken, c, -np.inf).max(axis=0) - np.where(taken, c, np.inf).min(axis=0)
    return [int(unit) for unit in np.argsort(-moved, kind="stable")[:6]]


def _draw_map(axes: Axes, name: str, values: NDArray[np.float64]) -> float:
    """One panel of `draw_gates`, of values (T, units), with its colour bar; returns where the colours end."""
    from matplotlib import colormaps

    gate = name in "ifo"
    sizes = np.abs(values[np.isfinite(values)])
    bound = 1.0 if gate or name == "g" else float(sizes.max(initial=0)) or 1.0
    low = 0.0 if gate else -bound
    image = axes.imshow(
        np.ma.masked_invalid(values.T),
        cmap=colormaps[SHARES if gate else SIGNED].with_extremes(bad="white"),
        vmin=low,
        vmax=bound,
        aspect="auto",
    )
    bar = axes.figure.colorbar(image, ax=axes, pad=0.02, aspect=24)
    if gate:
        bar.set_ticks([0, 0.5, 1], labels=["0 shut", "0.5", "1 open"])
    else:
        bar.set_ticks([-bound, 0, bound], labels=[f"−{bound:.3g}", "0", f"{bound:.3g}"])
        bar.ax.axhline(0, color=BLACK, linewidth=1.5)
    bar.ax.tick_params(labelsize=SMALL)
    return bound


def _label_rows(axes: Axes, units: NDArray[np.intp]) -> None:
    """Write units' own numbers beside their rows, as many as there is room for."""
    places = np.unique(np.linspace(0, len(units) - 1, min(len(units), 9)).round().astype(int))
    axes.set_yticks(places, [str(units[place]) for place in places], fontsize=SMALL)
