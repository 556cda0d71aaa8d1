"""The gradient over the lag: one model path by path, and several models side by side."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from gatewise.drawing import BLACK, BLUE, GREEN, ORANGE, PURPLE, SKY, VERMILION, new_figure, tidy
from gatewise.errors import ArgumentError
from gatewise.insight.figures.looks import LINES, SMALL, as_array, draw_line, percent, plain, span, steps
from gatewise.insight.gradient_flow import GradientFlow, LayerFlow

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

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
    "peephole": {"color": ORANGE, "linestyle": (0, (8, 2)), "marker": "P", "label": "by way of peepholes"},
    "zoneout": {"color": SKY, "linestyle": (0, (2, 1)), "marker": "X", "label": "past steps by zoneout"},
}


MOST_LAYERS = 6
"""Panels of `draw_lags`."""


DECADES = 12
"""Powers of ten that a log scale shows at most below what a gradient begins with."""


def draw_lags(flow: GradientFlow, title: str = "", fraction: float = 0.1, reach: int | None = None) -> Figure:
    """Draw how the gradient of each layer's state falls, or grows, on its way back, path by path.

    Parameters
    ----------
    flow : GradientFlow
        Of `gatewise.gradient_flow`, with at most six layers.
    title : str
        Above the figure; none if empty.
    fraction : float, default: 0.1
        Where the whole gradient has fallen below it for good, the horizon is marked.
    reach : int or None
        Steps through which training let gradients flow, which are marked too; None: nothing is.

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
        figure.suptitle(plain(title), fontsize=11)
    grid = figure.subplots(rows, columns, squeeze=False)
    shown: dict[str, Line2D] = {}
    for axes, layer in zip(grid.flat, flow.layers, strict=False):
        for line in _draw_paths(axes, layer):
            shown.setdefault(str(line.get_label()), line)
        axes.set_xlabel("steps before the loss" + " (in reverse order)" * layer.direction)
        state = "c" if layer.cell == "lstm" else "h"
        axes.set_ylabel(f"norm of dL/d{state} (rms over sequences)", fontsize=SMALL + 1)
        axes.set_title(plain(f"{layer.name} ({layer.cell})"), fontsize=10, loc="left", pad=20)
        horizon, words = layer.horizon(fraction), f"horizon: {_horizon_words(layer, fraction)}"
        if math.isfinite(horizon):
            marked = axes.axvline(horizon, color=BLACK, linestyle=(0, (1, 1)), linewidth=1.2, label=words)
        else:
            (marked,) = axes.plot([], [], linestyle="none", label=words)
        handles = [marked]
        if reach is not None and reach < len(layer.decay):
            cut = f"in training cut off after {steps(reach)}"
            handles.append(axes.axvline(reach, color="0.45", linestyle="--", linewidth=1.6, label=cut))
        axes.legend(
            handles=handles,
            ncols=2,
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
    for name, one in flows.items():
        if not isinstance(one, LayerFlow):
            raise ArgumentError(f"{name} is a {type(one).__name__}, needed a LayerFlow: give one of flow.layers")
    if not 1 <= len(flows) <= len(LINES):
        raise ArgumentError(f"flows are {len(flows)}, needed from 1 to {len(LINES)}: draw several figures of fewer")
    figure = new_figure(7.5, 4.2 + 0.2 * len(flows))
    axes = figure.subplots()
    curves = []
    for place, (name, layer) in enumerate(flows.items()):
        horizon = layer.horizon(fraction)
        curves.append(_positive(as_array(layer.decay)))
        draw_line(axes, curves[-1], place, **LINES[place], label=plain(f"{name}: {_horizon_words(layer, fraction)}"))
        if math.isfinite(horizon):  # a tick of the same colour where its line comes below
            axes.plot([horizon] * 2, [fraction / 2, fraction * 2], color=LINES[place]["color"], linewidth=2)
    axes.axhline(fraction, color="0.5", linestyle=(0, (1, 1)), linewidth=1.2, zorder=1)
    axes.text(1.005, fraction, percent(fraction), va="center", fontsize=SMALL, transform=axes.get_yaxis_transform())
    _log_scale(axes, curves, reach=fraction)
    axes.set_xlabel("steps before the loss")
    axes.set_ylabel("share of the gradient that is left")
    span(axes, max(len(curve) for curve in curves))
    if title:
        axes.set_title(plain(title), fontsize=11)
    tidy(axes)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", frameon=False, fontsize=SMALL + 1)
    return figure


def _draw_paths(axes: Axes, layer: LayerFlow) -> list[Line2D]:
    """The lines of one panel of `draw_lags`."""
    norms = torch.linalg.vector_norm(layer.lags, dim=(1, 2), dtype=torch.float64) / layer.lag_counts.double().sqrt()
    whole, by_path = _positive(as_array(norms)), _positive(as_array(layer.lag_paths))
    lines = [draw_line(axes, whole, 0, **WHOLE, marker="o" if len(whole) == 1 else "")]
    for place, name in enumerate(layer.names):
        lines.append(draw_line(axes, by_path[:, place], place, **PATHS[name]))
    _log_scale(axes, [whole, by_path])
    span(axes, len(whole))
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
        return f"not below {percent(fraction)} within {steps(len(layer.decay) - 1)}"
    return f"below {percent(fraction)} after {steps(horizon)}"
