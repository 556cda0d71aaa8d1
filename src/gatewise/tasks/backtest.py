"""How good a forecast is, beside forecasts that need no training or little: a backtest over several origins."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gatewise.data.series import Series
from gatewise.data.windows import Form, Windows

BLOCKS = 4
"""Into how many parts a horizon is divided, each with errors of its own."""

PENALTIES = tuple(10.0**power for power in range(-6, 2))
"""Of the linear baseline, in mean eigenvalues of its features' covariance; the dev part chooses."""

MIDDLE = 1e-3
"""The penalty where there is no dev part."""

MOST = 20_000
"""Training windows that the linear baseline is fitted on, evenly apart: more change it little."""

MODEL = "lstm"


@dataclass(frozen=True)
class Errors:
    """How far a forecast is from the truth, over some steps of the horizon.

    Parameters
    ----------
    forecast : str
        Whose.
    first, last : int
        The steps of the horizon, from 1.
    mae, rmse : float
        The mean absolute error, and the root of the mean squared error, in the target's units.
    mase : float or None
        See `mase`; None where no series has a scale.
    smape : float
        See `smape`, in percent.
    coverage : float or None
        The share of the truth that is between the lowest and the highest quantile; None without quantiles.
    pinball : float or None
        The mean of `pinball` over the quantiles, in the target's units; None without quantiles.
    """

    forecast: str
    first: int
    last: int
    mae: float
    rmse: float
    mase: float | None
    smape: float
    coverage: float | None = None
    pinball: float | None = None


@dataclass(frozen=True)
class Backtest:
    """What forecasts came to over several origins.

    Parameters
    ----------
    target : str
        What was forecast.
    origins : int
        From how many places in time, over all series.
    series : int
        How many there are.
    season : int
        Of the seasonal naive forecast, and of the scale of MASE.
    interval : float or None
        What share of the truth ought to be between the lowest and the highest quantile.
    errors : sequence of Errors
        Over the whole horizon, then over each part of it.
    """

    target: str
    origins: int
    series: int
    season: int
    interval: float | None
    errors: Sequence[Errors]

    def overall(self) -> dict[str, Errors]:
        """Those over the whole horizon, each by its forecast."""
        horizon = max(each.last for each in self.errors)
        return {each.forecast: each for each in self.errors if (each.first, each.last) == (1, horizon)}

    def table(self) -> tuple[list[str], list[list[str]]]:
        """The errors as they are written: the columns (steps, forecast, and numbers), and the rows.

        Examples
        --------
        >>> Backtest("kw", 5, 1, 1, None, [Errors("naive", 1, 3, 1.0, 1.5, None, 9.0)]).table()
        (['steps', 'forecast', 'MAE', 'RMSE', 'MASE', 'sMAPE'], [['1–3', 'naive', '1', '1.5', '', '9.00 %']])
        """
        columns, rows = ["steps", "forecast", "MAE", "RMSE", "MASE", "sMAPE"], []
        if self.interval is not None:
            columns += [f"coverage (of {self.interval:.0%})", "pinball"]
        for each in self.errors:
            steps = f"{each.first}–{each.last}" if each.first < each.last else str(each.first)
            scaled = "" if each.mase is None else f"{each.mase:.3f}"
            row = [steps, each.forecast, f"{each.mae:.4g}", f"{each.rmse:.4g}", scaled, f"{each.smape:.2f} %"]
            if self.interval is not None:
                row.append("" if each.coverage is None else f"{each.coverage:.1%}")
                row.append("" if each.pinball is None else f"{each.pinball:.4g}")
            rows.append(row)
        return columns, rows

    def verdicts(self) -> list[str]:
        """Whether the model is better than each baseline by MAE over the whole horizon, in a line each.

        Examples
        --------
        >>> errors = [Errors("lstm", 1, 3, 1.0, 1.5, None, 9.0), Errors("naive", 1, 3, 0.8, 1.5, None, 9.0)]
        >>> Backtest("kw", 5, 1, 1, None, errors).verdicts()
        ['the model does NOT beat naive: MAE 1 against 0.8']
        """
        overall = self.overall()
        own = overall.pop(MODEL)
        return [
            f"the model {'beats' if own.mae < other.mae else 'does NOT beat'} {name}: "
            f"MAE {own.mae:.4g} against {other.mae:.4g}"
            for name, other in overall.items()
        ]

    def to_json(self) -> dict[str, Any]:
        """As JSON knows it."""
        return asdict(self) | {"errors": [asdict(each) for each in self.errors]}


def mase(error: NDArray[np.float64], scale: NDArray[np.float64]) -> float | None:
    """The mean absolute scaled error (Hyndman & Koehler 2006, "Another look at measures of forecast accuracy", eq. 3;
    with a season as in Hyndman & Athanasopoulos, "Forecasting: principles and practice", section 5.8).

    Parameters
    ----------
    error : float array, shape (N, H)
        NaN where there is no truth.
    scale : float array, shape (N,)
        The mean absolute error of the seasonal naive forecast over the training part of the window's series. Series
        that never change have 0, and are left out.

    Returns
    -------
    float or None
        Below 1 where the forecast is better than that; None where nothing is left.

    Examples
    --------
    >>> mase(np.array([[1.0, -3.0], [2.0, np.nan]]), np.array([2.0, 4.0]))
    0.8333333333333334
    """
    scaled = np.abs(error[scale > 0]) / scale[scale > 0, None]
    return float(np.nanmean(scaled)) if np.isfinite(scaled).any() else None


def smape(forecast: NDArray[np.float64], truth: NDArray[np.float64]) -> float:
    """The symmetric mean absolute percentage error, 200 |y - f| / (|y| + |f|) (Makridakis & Hibon 2000, "The M3
    competition"): from 0 to 200; where both are 0, 0.

    Parameters
    ----------
    forecast, truth : float array, shape (N, H)
        NaN where there is no truth.

    Examples
    --------
    >>> smape(np.array([[3.0, 0.0]]), np.array([[1.0, 0.0]]))
    50.0
    """
    size = np.abs(forecast) + np.abs(truth)
    share = np.divide(np.abs(forecast - truth), size, out=np.where(np.isnan(size), np.nan, 0.0), where=size > 0)
    return float(200 * np.nanmean(share))


def pinball(
    forecasts: NDArray[np.float64], truth: NDArray[np.float64], quantiles: Sequence[float]
) -> NDArray[np.float64]:
    """The pinball loss of each forecast quantile, max(q (y - f), (q - 1) (y - f)) (Koenker & Bassett 1978).

    Parameters
    ----------
    forecasts : float array, shape (N, H, Q)
        A quantile each.
    truth : float array, shape (N, H)
        NaN where there is none.
    quantiles : sequence of float
        Which, shape (Q,).

    Returns
    -------
    float array, shape (N, H, Q)

    Examples
    --------
    >>> pinball(np.array([[[1.0, 5.0]]]), np.array([[3.0]]), [0.1, 0.9]).round(6).tolist()
    [[[0.2, 0.2]]]
    """
    error = truth[..., None] - forecasts
    shares = np.array(quantiles)
    return np.maximum(shares * error, (shares - 1) * error)


def measure(
    name: str,
    forecast: NDArray[np.float64],
    truth: NDArray[np.float64],
    scale: NDArray[np.float64],
    quantiles: Sequence[float] = (),
    of_quantiles: NDArray[np.float64] | None = None,
) -> list[Errors]:
    """The errors of a forecast over the whole horizon, and over each part of it.

    Parameters
    ----------
    name : str
        Whose it is.
    forecast, truth : float array, shape (N, H)
        In the target's units; the truth is NaN where there is none.
    scale : float array, shape (N,)
        See `mase`.
    quantiles : sequence of float, default: none
        Which are forecast, ascending.
    of_quantiles : float array, shape (N, H, Q), default None
        Them.

    Examples
    --------
    >>> errors = measure("naive", np.ones((1, 2)), np.array([[1.0, 3.0]]), np.ones(1))
    >>> [(each.first, each.last, each.mae) for each in errors]
    [(1, 2, 1.0), (1, 1, 0.0), (2, 2, 2.0)]
    """
    horizon = truth.shape[1]
    parts = [np.arange(horizon)]
    if horizon > 1:
        parts += np.array_split(np.arange(horizon), min(BLOCKS, horizon))
    found = []
    for steps in parts:
        own, true = forecast[:, steps], truth[:, steps]
        if np.isnan(true).all():
            continue
        error = own - true
        coverage = lost = None
        if of_quantiles is not None:
            low, high = of_quantiles[:, steps, 0], of_quantiles[:, steps, -1]
            inside = ((low <= true) & (true <= high))[~np.isnan(true)]
            coverage = float(inside.mean())
            lost = float(np.nanmean(pinball(of_quantiles[:, steps], true, quantiles)))
        found.append(
            Errors(
                name,
                int(steps[0]) + 1,
                int(steps[-1]) + 1,
                float(np.nanmean(np.abs(error))),
                float(np.sqrt(np.nanmean(error**2))),
                mase(error, scale),
                smape(own, true),
                coverage,
                lost,
            )
        )
    return found


def naive(series: Sequence[Series], windows: Windows, horizon: int) -> NDArray[np.float64]:
    """The last value before each horizon, all along it: shape (N, horizon)."""
    return seasonal_naive(series, windows, horizon, 1)


def seasonal_naive(series: Sequence[Series], windows: Windows, horizon: int, season: int) -> NDArray[np.float64]:
    """The last season before each horizon, again and again: shape (N, horizon).

    Parameters
    ----------
    series : sequence of Series
        Those that the windows are of.
    windows : Windows
        Each at least a season after its series' beginning.
    horizon : int
        Steps.
    season : int
        Rows.

    Examples
    --------
    >>> from gatewise.data.table import Times
    >>> there = np.ones(6, bool)
    >>> clock = Times(np.arange(6), "row")
    >>> one = Series("", clock, np.arange(6.0), np.ones((6, 0)), np.ones((6, 0)), there, there)
    >>> at = Windows(np.zeros((1, 5, 1), "f4"), np.zeros((1, 3), "f4"), np.zeros(1, np.intp), np.array([3]))
    >>> seasonal_naive([one], at, 3, 2).tolist()
    [[1.0, 2.0, 1.0]]
    """
    found = np.empty((len(windows), horizon))
    back = np.arange(horizon) % season - season
    for place, one in enumerate(series):
        own = windows.groups == place
        found[own] = one.target[windows.origins[own, None] + back]
    return found


def linear(train: Windows, dev: Windows | None, test: Windows, form: Form) -> NDArray[np.float64] | None:
    """Ridge regression (Hoerl & Kennard 1970) from what the model reads to all steps of the horizon.

    It reads the target's and the features' window, and what is known of the horizon. It forecasts the difference to the
    last value, so that a strong penalty leads to the naive forecast. The penalty is the best of `PENALTIES` on the dev
    part.

    Parameters
    ----------
    train, dev, test : Windows
        Is fitted; chooses; is forecast.
    form : Form
        What they are like.

    Returns
    -------
    float64 array, shape (N, horizon), or None
        Scaled as the targets of `test`; None where no training window has its targets whole.
    """
    whole = np.flatnonzero(~np.isnan(train.targets).any(axis=1))
    if not len(whole):
        return None
    whole = whole[:: -(-len(whole) // MOST)]
    inputs, last = _flat(train.inputs[whole], form)
    targets = train.targets[whole].astype(np.float64) - last
    centre, level = inputs.mean(axis=0), targets.mean(axis=0)
    inputs -= centre
    sizes, turned = np.linalg.eigh(inputs.T @ inputs)
    sizes = np.maximum(sizes, 0)
    along = turned.T @ (inputs.T @ (targets - level))

    def forecast(windows: Windows, penalty: float) -> NDArray[np.float64]:
        weights = turned @ (along / (sizes + penalty * max(float(sizes.mean()), 1e-12))[:, None])
        read, before = _flat(windows.inputs, form)
        result: NDArray[np.float64] = (read - centre) @ weights + level + before
        return result

    if dev is None:
        return forecast(test, MIDDLE)
    squared = [np.nanmean((forecast(dev, penalty) - dev.targets) ** 2) for penalty in PENALTIES]
    return forecast(test, PENALTIES[int(np.argmin(squared))])


def _flat(inputs: NDArray[np.float32], form: Form) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """What the linear baseline reads, a row each, and the last values, shape (N, 1)."""
    past = inputs[:, : form.window, : 1 + form.features].astype(np.float64)
    last = past[:, -1, :1].copy()
    past[:, :, 0] -= last
    ahead = inputs[:, form.window :, 1 + form.features :].astype(np.float64)
    return np.concatenate([past.reshape(len(inputs), -1), last, ahead.reshape(len(inputs), -1)], axis=1), last
