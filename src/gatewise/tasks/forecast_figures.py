"""Figures of forecasts: a backtest's origins beside what came to be, and what comes after a file's last row."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gatewise.data.series import Series
from gatewise.data.table import Times
from gatewise.drawing import BLACK, BLUE, new_figure, save, tidy

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from gatewise.tasks.forecast_subject import Forecast, Replay

ORIGINS = 6
"""Of a backtest that are drawn, evenly apart; or series whose future is."""

CONTEXT = 3
"""Horizons before an origin that are drawn, and at least this many rows."""


def draw_backtest(path: Path, tested: "Replay", title: str) -> None:
    """Draw some origins: the series before, what came to be, the forecast, and its quantile band.

    Parameters
    ----------
    path : path
        The file; its ending says which kind.
    tested : Replay
        A backtest.
    title : str
        Above the figure.
    """
    chosen = np.unique(np.linspace(0, len(tested.windows) - 1, ORIGINS).astype(int))
    figure = new_figure(11, 2.6 * -(-len(chosen) // 2) + 0.8)
    figure.suptitle(title, fontsize=11)
    panels = figure.subplots(-(-len(chosen) // 2), 2, squeeze=False).flat
    horizon = tested.forecasts.shape[1]
    for axes, place in zip(panels, chosen, strict=False):
        one = tested.series[tested.windows.groups[place]]
        origin = int(tested.windows.origins[place])
        ahead = one.times.take(slice(origin, origin + horizon))
        _draw(axes, one, origin, horizon, ahead, tested.forecasts[place], tested.quantiles, tested.result.target)
    for axes in figure.axes[len(chosen) :]:
        axes.remove()
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False)
    save(figure, path)


def draw_forecasts(path: Path, forecasts: Sequence["Forecast"], quantiles: Sequence[float], target: str) -> None:
    """Draw what comes after the last row of each series, of the first few.

    Parameters
    ----------
    path : path
        The file; its ending says which kind.
    forecasts : sequence of Forecast
        At least one.
    quantiles : sequence of float
        Which are forecast; none for a point forecast.
    target : str
        What is.
    """
    shown = forecasts[:ORIGINS]
    figure = new_figure(8, 2.6 * len(shown) + 0.8)
    more = f" (the first {len(shown)} of {len(forecasts)} series)" if len(shown) < len(forecasts) else ""
    figure.suptitle(f"Forecast of {target}{more}", fontsize=11)
    for axes, each in zip(figure.subplots(len(shown), 1, squeeze=False).flat, shown, strict=True):
        _draw(axes, each.series, len(each.series), len(each.values), each.times, each.values, quantiles, target)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False)
    save(figure, path)


def first_drawn(origin: int, horizon: int) -> int:
    """The first row that is drawn before an origin.

    Examples
    --------
    >>> first_drawn(100, 12), first_drawn(100, 1), first_drawn(10, 12)
    (64, 76, 0)
    """
    return max(0, origin - max(CONTEXT * horizon, 24))


def _draw(
    axes: "Axes",
    series: Series,
    origin: int,
    horizon: int,
    ahead: Times,
    values: NDArray[np.float64],
    quantiles: Sequence[float],
    target: str,
) -> None:
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

    first = first_drawn(origin, horizon)
    truth = np.where(series.observed, series.target, np.nan)[first : origin + horizon]
    axes.plot(_along(series.times.take(slice(first, first + len(truth)))), truth, color=BLACK, lw=1, label="truth")
    middle = list(quantiles).index(0.5) if quantiles else 0
    at, marker = _along(ahead), {"marker": "o", "markersize": 3} if horizon == 1 else {}
    axes.plot(at, values[:, middle], color=BLUE, lw=1.6, linestyle="--", label="forecast", **marker)  # type: ignore[arg-type]
    if quantiles:
        label = f"quantiles {quantiles[0]:g} to {quantiles[-1]:g}"
        axes.fill_between(at, values[:, 0], values[:, -1], color=BLUE, alpha=0.2, linewidth=0, label=label)
    axes.axvline(at[0], color="0.75", linewidth=1, zorder=0)
    axes.set_ylabel(target)
    if series.name:
        axes.set_title(series.name, fontsize=9, loc="left")
    if ahead.kind in ("date", "moment"):
        locator = AutoDateLocator()  # type: ignore[no-untyped-call]
        axes.xaxis.set_major_locator(locator)
        axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))  # type: ignore[no-untyped-call]
    tidy(axes)


def _along(times: Times) -> NDArray[Any]:
    """The times as matplotlib knows them."""
    if times.kind in ("date", "moment"):
        return times.values.astype(np.int64).astype("datetime64[us]")
    return times.values
