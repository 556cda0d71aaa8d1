"""How long each unit remembers: what its gates imply, beside what the gradient shows."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gatewise.drawing import BLACK, BLUE, ORANGE, new_figure, tidy
from gatewise.errors import ArgumentError
from gatewise.insight.figures.looks import SMALL, as_array, percent, plain, steps
from gatewise.insight.gradient_flow import LayerFlow

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


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
    >>> import torch
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
    implied, horizons = as_array(constants), as_array(layer.unit_horizons(fraction))
    measured = horizons / math.log(1 / fraction)
    longest = len(layer.lags) - 1
    gates = "forget gates" if layer.cell == "lstm" else "update gates"
    figure = new_figure(7, 5.4)
    figure.suptitle(plain(title or f"{layer.name} ({layer.cell})"), fontsize=11)
    panels = figure.subplots(2, 1, sharex=True, sharey=True)
    bins = _log_bins(implied, measured)
    most = max(np.histogram(_drawn(values), bins)[0].max() for values in (implied, measured))
    panels[0].set_ylim(0, 1.05 * max(1, most))
    _draw_histogram(
        panels[0],
        implied,
        bins,
        f"implied by the {gates}",
        {
            "inf": f"with {gates} of 1 throughout",
            "0": f"with a {gates.removesuffix('s')} of 0",
            "nan": "with nothing yet to keep",
        },
        color=BLUE,
    )
    _draw_histogram(
        panels[1],
        measured,
        bins,
        f"measured: horizon at {percent(fraction)} of the gradient, divided by {math.log(1 / fraction):.3g}",
        {"inf": f"still above {percent(fraction)} {steps(longest)} back", "nan": "without gradient at lag 0"},
        color=ORANGE,
        hatch="///",
    )
    panels[1].set_xlabel("time constant (steps)")
    return figure


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
