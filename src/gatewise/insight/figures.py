"""Figures of what is seen inside: gates and cells over time, the gradient over the lag, time constants."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gatewise.drawing import (
    BLACK,
    BLUE,
    GREEN,
    ORANGE,
    PURPLE,
    SKY,
    VERMILION,
    new_figure,
    tidy,
)
from gatewise.errors import ArgumentError
from gatewise.insight.gradient_flow import GradientFlow, LayerFlow
from gatewise.insight.trace import LayerTrace, Trace

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

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

# Of the lines that have no colour of their own. Each has its line style and marker as well: a figure may be printed in
# grey.
LINES: tuple[dict[str, Any], ...] = (
    {"color": BLUE, "linestyle": "-", "marker": "o"},
    {"color": VERMILION, "linestyle": "--", "marker": "s"},
    {"color": GREEN, "linestyle": "-.", "marker": "^"},
    {"color": BLACK, "linestyle": ":", "marker": "D"},
    {"color": ORANGE, "linestyle": (0, (5, 1, 1, 1, 1, 1)), "marker": "v"},
    {"color": PURPLE, "linestyle": (0, (8, 2)), "marker": "P"},
    {"color": SKY, "linestyle": (0, (2, 1)), "marker": "X"},
)

WHOLE: dict[str, Any] = {"color": "0.6", "linestyle": "-", "linewidth": 4, "label": "whole gradient"}
# No cell has two paths of one look: z does in a GRU what f does in an LSTM, n what g does, and a SRN has h alone.
PATHS: dict[str, dict[str, Any]] = {
    "cell": {"color": BLUE, "linestyle": "-", "marker": "o", "label": "cell alone"},
    "state": {"color": BLUE, "linestyle": "-", "marker": "o", "label": "state alone"},
    "h": {"color": VERMILION, "linestyle": "--", "marker": "s", "label": "by way of h"},
    "i": {"color": GREEN, "linestyle": "-.", "marker": "^", "label": "by way of i"},
    "r": {"color": GREEN, "linestyle": "-.", "marker": "^", "label": "by way of r"},
    "f": {"color": VERMILION, "linestyle": "--", "marker": "s", "label": "by way of f"},
    "z": {"color": VERMILION, "linestyle": "--", "marker": "s", "label": "by way of z"},
    "g": {"color": BLACK, "linestyle": ":", "marker": "D", "label": "by way of g"},
    "n": {"color": BLACK, "linestyle": ":", "marker": "D", "label": "by way of n"},
    "o": {"color": PURPLE, "linestyle": (0, (5, 1, 1, 1, 1, 1)), "marker": "v", "label": "by way of o"},
}

MOST_LAYERS = 6
"""Panels of `draw_lags`."""

DECADES = 12
"""Powers of ten that a log scale shows at most below what a gradient begins with."""

SMALL = 8
"""Points of the smaller text."""


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
    >>> from gatewise.insight.trace import trace
    >>> found = trace(torch.nn.LSTM(4, 3), torch.ones(5, 2, 4))
    >>> figure = draw_gates(found, sequence=1)
    >>> [axes.get_title() for axes in figure.axes if axes.images][:3]
    ['i: input gate', 'f: forget gate', 'o: output gate']
    """
    of_layer = _layer_of(trace, layer, direction, sequence)
    values = {name: _array(getattr(of_layer, name)[:, sequence]) for name in MEANINGS}
    order = _lasting_first(values["f"])
    figure = new_figure(11, 5.6)
    figure.suptitle(_plain(title or _which(trace, layer, direction, sequence)), fontsize=11)
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
        _whole_numbers(axes)
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
    figure.suptitle(_plain(title or _which(trace, layer, direction, sequence)), fontsize=11)
    panels = figure.subplots(3, 1, sharex=True, height_ratios=(2, 1, 1))
    for axes, name in zip(panels, ("c", "f", "i"), strict=True):
        array = _array(getattr(of_layer, name)[:, sequence])
        for place, unit in enumerate(chosen):
            _line(axes, array[:, unit], place, **LINES[place], label=f"unit {unit}")
        axes.set_ylabel(f"{name}: {MEANINGS[name]}", fontsize=SMALL + 1)
        tidy(axes)
        if name == "c":
            axes.axhline(0, color="0.5", linewidth=0.8, zorder=1)
        else:
            axes.set_ylim(-0.04, 1.04)
            axes.set_yticks([0, 0.5, 1], ["0 shut", "0.5", "1 open"])
    panels[-1].set_xlabel("step t")
    _span(panels[-1], of_layer.c.shape[0])
    figure.legend(
        *panels[0].get_legend_handles_labels(),
        loc="outside lower center",
        ncols=6,
        columnspacing=1.2,
        frameon=False,
        fontsize=SMALL + 1,
    )
    return figure


def draw_lags(flow: GradientFlow, title: str = "", fraction: float = 0.1) -> Figure:
    """Draw how the gradient of each layer's state falls, or grows, on its way back, path by path.

    Parameters
    ----------
    flow : GradientFlow
        Of `gatewise.gradient_flow`, with at most six layers.
    title : str
        Above the figure; none if empty.
    fraction : float, default: 0.1
        Where the whole gradient has fallen below it for good, the horizon is marked.

    Returns
    -------
    matplotlib.figure.Figure
        One panel for each layer: `lag_paths`, a line for each path, and the whole, on a log scale. Zeros and what is no
        finite number leave gaps, and what is below 1e-12 of what is there at lag 0 is out of view.

    Raises
    ------
    ArgumentError
        There are no layers or more than six, or the fraction is not between 0 and 1.

    Examples
    --------
    >>> from gatewise.insight.gradient_flow import gradient_flow
    >>> flow = gradient_flow(torch.nn.GRU(4, 3), torch.ones(5, 2, 4), lambda output: output[0][-1].sum())
    >>> figure = draw_lags(flow)
    >>> [text.get_text() for text in figure.legends[0].get_texts()]
    ['whole gradient', 'state alone', 'by way of r', 'by way of z', 'by way of n']
    """
    count = len(flow.layers)
    if not 1 <= count <= MOST_LAYERS:
        raise ArgumentError(
            f"flow has {count} layers, needed from 1 to {MOST_LAYERS}: give fewer, as with "
            f"GradientFlow(flow.loss, flow.layers[:{MOST_LAYERS}])"
        )
    columns = {1: 1, 2: 2, 4: 2}.get(count, 3)
    rows = -(-count // columns)
    figure = new_figure({1: 7.5, 2: 10, 3: 13}[columns], 3.6 * rows + 0.8)
    if title:
        figure.suptitle(_plain(title), fontsize=11)
    grid = figure.subplots(rows, columns, squeeze=False)
    shown: dict[str, Line2D] = {}
    for axes, layer in zip(grid.flat, flow.layers, strict=False):
        for line in _draw_paths(axes, layer):
            shown.setdefault(str(line.get_label()), line)
        axes.set_xlabel("steps before the loss" + " (in reverse order)" * layer.direction)
        state = "c" if layer.cell == "lstm" else "h"
        axes.set_ylabel(f"norm of dL/d{state} (rms over sequences)", fontsize=SMALL + 1)
        axes.set_title(_plain(f"{layer.name} ({layer.cell})"), fontsize=10, loc="left", pad=20)
        horizon, words = layer.horizon(fraction), f"horizon: {_horizon_words(layer, fraction)}"
        if math.isfinite(horizon):
            marked = axes.axvline(horizon, color=BLACK, linestyle=(0, (1, 1)), linewidth=1.2, label=words)
        else:
            (marked,) = axes.plot([], [], linestyle="none", label=words)
        axes.legend(
            handles=[marked],
            loc="lower left",
            bbox_to_anchor=(0, 1),
            borderaxespad=0.2,
            handlelength=1.8 if math.isfinite(horizon) else 0,
            handletextpad=0.6 if math.isfinite(horizon) else 0,
            borderpad=0.2,
            frameon=False,
            fontsize=SMALL,
        )
    for axes in grid.flat[count:]:
        axes.set_visible(False)
    figure.legend(
        list(shown.values()),
        list(shown),
        loc="outside lower center",
        ncols=4 if columns == 1 else 6,
        frameon=False,
        fontsize=SMALL + 1,
    )
    return figure


def draw_comparison(flows: Mapping[str, LayerFlow], title: str = "", fraction: float = 0.1) -> Figure:
    """Draw how much of the gradient is left so many steps back, of several layers together.

    Parameters
    ----------
    flows : mapping of str to LayerFlow
        From one to seven layers, of one model or of several, each by the name that it has in the legend.
    title : str
        Above the figure; none if empty.
    fraction : float, default: 0.1
        Marked by a line across; the legend says after how many steps each has fallen below it for good.

    Returns
    -------
    matplotlib.figure.Figure
        One panel: each layer's `decay` on a log scale. Zeros and what is no finite number leave gaps, and what is below
        1e-12 is out of view.

    Raises
    ------
    ArgumentError
        There are no flows or more than seven, or the fraction is not between 0 and 1.

    Examples
    --------
    >>> from gatewise.insight.gradient_flow import gradient_flow
    >>> flow = gradient_flow(torch.nn.RNN(4, 3), torch.ones(5, 2, 4), lambda output: output[0][-1].sum())
    >>> figure = draw_comparison({"SRN": flow.layers[0]}, fraction=0.001)
    >>> figure.axes[0].get_ylabel()
    'share of the gradient that is left'
    """
    if not 1 <= len(flows) <= len(LINES):
        raise ArgumentError(f"flows are {len(flows)}, needed from 1 to {len(LINES)}: draw several figures of fewer")
    figure = new_figure(7.5, 4.2 + 0.2 * len(flows))
    axes = figure.subplots()
    curves = []
    for place, (name, layer) in enumerate(flows.items()):
        horizon = layer.horizon(fraction)
        curves.append(_positive(_array(layer.decay)))
        _line(axes, curves[-1], place, **LINES[place], label=_plain(f"{name}: {_horizon_words(layer, fraction)}"))
        if math.isfinite(horizon):  # a tick of the same colour where its line comes below
            axes.plot([horizon] * 2, [fraction / 2, fraction * 2], color=LINES[place]["color"], linewidth=2)
    axes.axhline(fraction, color="0.5", linestyle=(0, (1, 1)), linewidth=1.2, zorder=1)
    axes.text(1.005, fraction, _percent(fraction), va="center", fontsize=SMALL, transform=axes.get_yaxis_transform())
    _log_scale(axes, curves, reach=fraction)
    axes.set_xlabel("steps before the loss")
    axes.set_ylabel("share of the gradient that is left")
    _span(axes, max(len(curve) for curve in curves))
    if title:
        axes.set_title(_plain(title), fontsize=11)
    tidy(axes)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", frameon=False, fontsize=SMALL + 1)
    return figure


def draw_time_constants(layer: LayerFlow, title: str = "", fraction: float = 0.1) -> Figure:
    """Draw how long the gates alone would let each unit remember, and how long it does by its gradient.

    Parameters
    ----------
    layer : LayerFlow
        Of an LSTM or a GRU.
    title : str
        Above the figure; if empty, the layer's name.
    fraction : float, default: 0.1
        Of the measured horizons. They are divided by ln(1 / fraction): a gradient that falls by 1/e in so many steps
        falls to the fraction at its horizon.

    Returns
    -------
    matplotlib.figure.Figure
        Two histograms over units with one log axis of steps: `time_constants` above, and below
        `unit_horizons(fraction)` in the same measure. Units that have no finite one are counted in words.

    Raises
    ------
    ArgumentError
        The layer is a simple recurrent network's, or the fraction is not between 0 and 1.

    Examples
    --------
    >>> from gatewise.insight.gradient_flow import gradient_flow
    >>> flow = gradient_flow(torch.nn.LSTM(4, 3), torch.ones(5, 2, 4), lambda output: output[0][-1].sum())
    >>> figure = draw_time_constants(flow.layers[0])
    >>> figure.axes[1].get_xlabel()
    'time constant (steps)'
    """
    constants = layer.time_constants()
    if constants is None:
        raise ArgumentError(
            f"{layer.name} is a {layer.cell}, which has no gates and so no time constants, needed an LSTM or a GRU: "
            "draw_comparison shows how far its gradient reaches"
        )
    implied, horizons = _array(constants), _array(layer.unit_horizons(fraction))
    measured = horizons / math.log(1 / fraction)
    longest = len(layer.lags) - 1
    gates = "forget gates" if layer.cell == "lstm" else "update gates"
    figure = new_figure(7, 5.4)
    figure.suptitle(_plain(title or f"{layer.name} ({layer.cell})"), fontsize=11)
    panels = figure.subplots(2, 1, sharex=True, sharey=True)
    bins = _log_bins(implied, measured)
    most = max(np.histogram(_drawn(values), bins)[0].max() for values in (implied, measured))
    panels[0].set_ylim(0, 1.05 * max(1, most))
    _draw_histogram(
        panels[0],
        implied,
        bins,
        f"implied by the {gates}",
        {"inf": f"with {gates} of 1 throughout", "0": f"with a {gates.removesuffix('s')} of 0"},
        color=BLUE,
    )
    _draw_histogram(
        panels[1],
        measured,
        bins,
        f"measured: horizon at {_percent(fraction)} of the gradient, divided by {math.log(1 / fraction):.3g}",
        {"inf": f"still above {_percent(fraction)} {_steps(longest)} back", "nan": "without gradient at lag 0"},
        color=ORANGE,
        hatch="///",
    )
    panels[1].set_xlabel("time constant (steps)")
    return figure


def _array(tensor: Tensor) -> NDArray[np.float64]:
    array: NDArray[np.float64] = tensor.detach().double().cpu().numpy()
    return array


def _plain(text: str) -> str:
    """A text that matplotlib takes neither for a formula nor, as it begins with _, for a line without a label."""
    return (" " if text.startswith("_") else "") + text.replace("$", r"\$")


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"


def _steps(count: float) -> str:
    return "1 step" if count == 1 else f"{count:,.0f} steps"


def _layer_of(trace: Trace, layer: int, direction: int, sequence: int) -> LayerTrace:
    """One layer of a trace in which there is such a sequence."""
    of_layer = trace.layer(layer, direction)
    B = of_layer.c.shape[1]
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
    c = np.vstack([_array(of_layer.c_0[sequence])[None], _array(of_layer.c[:, sequence])])
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


def _whole_numbers(axes: Axes) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(nbins=7, integer=True, min_n_ticks=1))


def _span(axes: Axes, count: int) -> None:
    """Show steps 0 to count - 1, also where lines end before."""
    margin = max(0.5, 0.02 * count)
    axes.set_xlim(-margin, count - 1 + margin)
    _whole_numbers(axes)


def _line(axes: Axes, values: NDArray[np.float64], place: int, **style: Any) -> Line2D:
    """A line over 0, 1, …, with about eight markers, not at the same steps as those of the lines at other places."""
    every = max(1, len(values) // 8)
    offset = place * every // len(LINES)
    looks: dict[str, Any] = {
        "linewidth": 1.4 if len(values) <= 200 else 1.0,
        "markersize": 4,
        "markevery": (offset, every),
    } | style
    (line,) = axes.plot(np.arange(len(values)), values, **looks)
    return line


def _draw_paths(axes: Axes, layer: LayerFlow) -> list[Line2D]:
    """The lines of one panel of `draw_lags`."""
    norms = torch.linalg.vector_norm(layer.lags, dim=(1, 2), dtype=torch.float64) / layer.lag_counts.double().sqrt()
    whole, by_path = _positive(_array(norms)), _positive(_array(layer.lag_paths))
    lines = [_line(axes, whole, 0, **WHOLE, marker="o" if len(whole) == 1 else "")]
    for place, name in enumerate(layer.names):
        lines.append(_line(axes, by_path[:, place], place, **PATHS[name]))
    _log_scale(axes, [whole, by_path])
    _span(axes, len(whole))
    tidy(axes)
    return lines


def _positive(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Not a number, which leaves a gap in a line, where a log scale has no place for a value."""
    return np.where(np.isfinite(values) & (values > 0), values, np.nan)


def _log_scale(axes: Axes, curves: Sequence[NDArray[np.float64]], reach: float = math.inf) -> None:
    """Scale the y axis by logarithms: from the largest value of curves, each (N,) or (N, K), down to the smallest.

    It ends at `DECADES` below the largest at lag 0, but not above `reach`.
    """
    from matplotlib.ticker import NullLocator

    values, starts = (
        every[np.isfinite(every)]
        for every in (np.concatenate([curve.ravel() for curve in curves]), np.hstack([curve[0] for curve in curves]))
    )
    if not len(values):
        axes.yaxis.set_major_locator(NullLocator())
        axes.text(0.5, 0.5, "no gradient to draw", ha="center", va="center", transform=axes.transAxes)
        return
    top = float(values.max())
    bottom = min(reach, max(float(values.min()), float(starts.max(initial=0)) * 10.0**-DECADES))
    room = max((top / bottom) ** 0.06, 1.3)  # at least so much that equal values have an axis
    axes.set_ylim(bottom / room, top * room)  # before the scale, which would look for limits by itself
    axes.set_yscale("log")


def _horizon_words(layer: LayerFlow, fraction: float) -> str:
    horizon = layer.horizon(fraction)
    if math.isnan(horizon):
        return "none, as the gradient is 0 at lag 0, or somewhere not finite"
    if math.isinf(horizon):
        return f"not below {_percent(fraction)} within {_steps(len(layer.decay) - 1)}"
    return f"below {_percent(fraction)} after {_steps(horizon)}"


def _log_bins(*values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Edges for finite values above 0, equally wide by their logarithms, over a factor of ten at least."""
    every = np.concatenate(values)
    every = every[np.isfinite(every) & (every > 0)]
    low, high = (float(every.min()), float(every.max())) if len(every) else (1.0, 1.0)
    widen = max(1.05, math.sqrt(10 * low / high))
    low, high = low / widen, high * widen
    count = min(31, max(9, round(math.sqrt(2 * len(every))) | 1))  # odd: equal values stand in the middle of a bar
    edges: NDArray[np.float64] = np.geomspace(low, high, count + 1)
    return edges


def _drawn(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """What has a place on a log scale."""
    return values[np.isfinite(values) & (values > 0)]


def _draw_histogram(
    axes: Axes,
    values: NDArray[np.float64],
    bins: NDArray[np.float64],
    what: str,
    reasons: Mapping[str, str],
    **style: Any,
) -> None:
    """One panel of `draw_time_constants`; units without a value on a log scale are counted, each kind and why."""
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator

    finite = _drawn(values)
    axes.hist(finite, bins=list(bins), edgecolor="white" if "hatch" not in style else BLACK, linewidth=0.6, **style)
    axes.set_xscale("log")
    axes.set_xlim(bins[0], bins[-1])
    wide = bins[-1] > 1000 * bins[0]
    axes.xaxis.set_major_locator(LogLocator(subs=(1,) if wide else (1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, place: f"{value:g}"))
    axes.xaxis.set_minor_formatter(FuncFormatter(lambda value, place: ""))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=6, integer=True, min_n_ticks=1))
    axes.set_ylabel("number of units")
    said = f"{len(finite):,} of {len(values):,} units"
    if len(finite):
        median = float(np.median(finite))
        axes.axvline(median, color=BLACK, linestyle="--", linewidth=1.2)
        said += f", median (dashed) {median:.3g} steps"
    counts = {"inf": int(np.isinf(values).sum()), "0": int((values == 0).sum()), "nan": int(np.isnan(values).sum())}
    left_out = [f"{count:,} {reasons[kind]}" for kind, count in counts.items() if count]
    lines = [what, said, *(["not drawn: " + "; ".join(left_out)] if left_out else [])]
    axes.set_title("\n".join(lines), fontsize=SMALL + 1, loc="left")
    tidy(axes)
