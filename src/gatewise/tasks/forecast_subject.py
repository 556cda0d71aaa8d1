"""What there is to look at of a run that forecasts: its backtest, and single forecasts with what was read for each."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gatewise.data.series import Series
from gatewise.data.table import Times
from gatewise.data.windows import Windows
from gatewise.tasks.backtest import Backtest
from gatewise.train.progress import Score

if TYPE_CHECKING:
    from torch import nn

    from gatewise.tasks.task import Probe


@dataclass(frozen=True, eq=False)
class Replay:
    """A backtest, and what it was computed from.

    Parameters
    ----------
    result : Backtest
        The errors.
    series : list of Series
        What the data hold.
    windows : Windows
        Those of the test part.
    forecasts : float64 array, shape (N, horizon, Q)
        In the target's units.
    quantiles : tuple of float
        Which; none for a point forecast.
    points : mapping of str to float64 array, shape (N, horizon)
        The model's point forecast, and that of each baseline, by its name in `result`; the model's is the first.
    truth : float64 array, shape (N, horizon)
        NaN where it was not observed.
    deviation : float64 array, shape (N,)
        Of the target in each window's series, by which the training scaled it.
    """

    result: Backtest
    series: list[Series]
    windows: Windows
    forecasts: NDArray[np.float64]
    quantiles: tuple[float, ...]
    points: Mapping[str, NDArray[np.float64]]
    truth: NDArray[np.float64]
    deviation: NDArray[np.float64]

    def by_step(self) -> dict[str, NDArray[np.float64]]:
        """The mean absolute error of each forecast at each step of the horizon; NaN where nothing was observed."""
        there = (~np.isnan(self.truth)).sum(axis=0)
        missed = {name: np.nansum(np.abs(points - self.truth), axis=0) for name, points in self.points.items()}
        nowhere = np.full(there.shape, np.nan)
        return {name: np.divide(sums, there, out=nowhere.copy(), where=there > 0) for name, sums in missed.items()}

    def by_origin(self) -> dict[str, NDArray[np.float64]]:
        """The mean absolute error of each forecast from each origin, (N,)."""
        return {name: np.nanmean(np.abs(points - self.truth), axis=1) for name, points in self.points.items()}


@dataclass(frozen=True, eq=False)
class Forecast:
    """What comes after a row of a series.

    Parameters
    ----------
    series : Series
        What was read.
    times : Times, shape (horizon,)
        When it is for.
    values : float64 array, shape (horizon, Q)
        In the target's units: a quantile each, or the point forecast alone.
    """

    series: Series
    times: Times
    values: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Origin:
    """A forecast, and the rows just before it as the model takes them.

    Parameters
    ----------
    forecast : Forecast
        In the target's units.
    row : int
        The row of the series that the horizon begins with.
    inputs : tuple
        What the model is called with to read these rows.
    steps : int
        How many they are.
    """

    forecast: Forecast
    row: int
    inputs: tuple[Any, ...]
    steps: int


@dataclass(frozen=True, eq=False)
class ForecastSubject:
    """A trained model that forecasts, and what it can be looked at with.

    Parameters
    ----------
    model : Module
        With the run's weights, in evaluation mode.
    score : Score
        Of the test part, of scaled targets.
    unit : str
        What its loss is measured in.
    replay : Replay
        Its backtest.
    steps : int
        Rows of the sequences on which its gradient is followed.
    carried : bool
        Whether its state is carried on, so that a forecast rests on more than the rows that an `Origin` has.
    at : callable
        Maps the place of a test window to its origin.
    probe : callable
        Maps a number to a probe of so many test sequences at most.
    given : sequence of Origin
        What comes after the last rows of the series that were given beside them.
    """

    model: "nn.Module"
    score: Score
    unit: str
    replay: Replay
    steps: int
    carried: bool
    at: Callable[[int], Origin]
    probe: "Callable[[int], Probe]"
    given: Sequence[Origin]
