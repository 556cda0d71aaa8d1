"""How far apart a series' rows are in time, and what follows from it: missing rows, the next times, the season."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from gatewise.data.table import Times

SECOND = 1_000_000
HOUR, DAY = 3600 * SECOND, 24 * 3600 * SECOND

Calendar = Literal["hour", "weekday", "month", "year-day"]

PERIODS: dict[Calendar, int] = {
    "hour": DAY,
    "weekday": 7 * DAY,
    "month": 365 * DAY,
    "year-day": 365 * DAY,
}
"""After how many microseconds a calendar feature comes round."""


@dataclass(frozen=True)
class Step:
    """The time from one row to the next.

    Parameters
    ----------
    unit : {"row", "number", "time", "month"}
        What it is counted in: rows; the time column's own numbers; microseconds; or months.
    size : float
        How many of them.
    month_end : bool, default False
        Whether each time is in the last day of its month, whichever that is.

    Examples
    --------
    >>> Step("time", HOUR).words, Step("month", 3).words, Step("number", 0.5).words
    ('1 hour', '3 months', '0.5')
    >>> Step("time", HOUR).season, Step("time", DAY).season, Step("month", 1).season, Step("row", 1).season
    (24, 7, 12, 1)
    """

    unit: Literal["row", "number", "time", "month"]
    size: float
    month_end: bool = False

    @property
    def words(self) -> str:
        """As it is said."""
        if self.unit == "row":
            return "1 row"
        if self.unit == "number":
            return f"{self.size:g}"
        if self.unit == "month":
            return _counted(self.size, "month")
        for name, length in (("week", 7 * DAY), ("day", DAY), ("hour", HOUR), ("minute", 60 * SECOND)):
            if self.size % length == 0:
                return _counted(self.size / length, name)
        return _counted(self.size / SECOND, "second")

    @property
    def season(self) -> int:
        """Rows after which a series of this step is likely to come round: a day, a week or a year of them, or 1."""
        if self.unit == "month":
            return 12 // int(self.size) if 12 % self.size == 0 else 1
        if self.unit != "time":
            return 1
        for least, period in ((1, DAY), (DAY, 7 * DAY), (7 * DAY, 364 * DAY)):
            if least <= self.size < period and period % self.size == 0:
                return int(period // self.size)
        return 1

    def places(self, times: Times) -> NDArray[np.float64]:
        """How many steps each time is after the first: whole numbers where it is on the grid."""
        values = times.values
        if self.unit != "month":
            counted: NDArray[np.float64] = (values - values[0]).astype(np.float64) / self.size
            return counted
        months, rest = _months(values, self.month_end)
        off_grid = rest != rest[0]  # another day of the month is between two
        apart: NDArray[np.float64] = (months - months[0]) / self.size + 0.5 * off_grid
        return apart

    def after(self, last: float, count: int) -> NDArray[np.float64] | NDArray[np.int64]:
        """The times of the next rows, shape (count,)."""
        if self.unit in ("row", "number"):
            following: NDArray[np.float64] = last + self.size * np.arange(1, count + 1, dtype=np.float64)
            return following
        if self.unit == "time":
            return int(last) + int(self.size) * np.arange(1, count + 1, dtype=np.int64)
        months, rest = _months(np.array([int(last)]), self.month_end)
        months = months + int(self.size) * np.arange(1, count + 1)
        return _month_start(months + self.month_end) + rest

    def calendar(self) -> tuple[Calendar, ...]:
        """The calendar features that change from row to row, and not faster than the rows."""
        if self.unit == "month":
            return ("month",) if self.size < 12 else ()
        if self.unit != "time":
            return ()
        named: tuple[Calendar, ...] = ("hour", "weekday", "year-day")
        coarsest = {"hour": DAY // 2, "weekday": 3 * DAY, "year-day": 120 * DAY}
        return tuple(name for name in named if self.size <= coarsest[name])


def find_step(groups: Sequence[Times]) -> Step:
    """The step that most rows are apart: the median of all differences within groups.

    Parameters
    ----------
    groups : sequence of Times
        Each increasing, at least one of two rows.

    Examples
    --------
    >>> find_step([Times(np.array([0, 1, 2, 4]) * HOUR, "moment")]).words
    '1 hour'
    >>> months = np.array(["2001-01", "2001-02", "2001-03"], "datetime64[us]").astype(np.int64)
    >>> find_step([Times(months, "date")]).words
    '1 month'
    """
    kind = groups[0].kind
    if kind == "row":
        return Step("row", 1)
    differences = np.concatenate([np.diff(times.values) for times in groups])
    if kind == "number":
        return Step("number", float(_middle(differences)))
    if differences.min() >= 28 * DAY:
        for month_end in (False, True):
            counted = [_months(times.values, month_end) for times in groups]
            if all((rest == rest[0]).all() for _, rest in counted):
                apart = np.concatenate([np.diff(months) for months, _ in counted])
                return Step("month", int(_middle(apart)), month_end)
    return Step("time", int(_middle(differences)))


def calendar_features(times: Times, wanted: Sequence[Calendar]) -> NDArray[np.float64]:
    """The sine and cosine of where each time is in its day, week or year: shape (N, 2 · len(wanted)).

    Parameters
    ----------
    times : Times
        Dates or moments, shape (N,).
    wanted : sequence of {"hour", "weekday", "month", "year-day"}
        Hours with their minutes; a year's days are counted from 1 January, 365.25 of them to a turn.

    Examples
    --------
    >>> noon = Times(np.array([12 * HOUR]), "moment")
    >>> calendar_features(noon, ["hour"]).round(6).tolist()
    [[0.0, -1.0]]
    """
    parts = [np.empty((len(times.values), 0))]
    for name in wanted:
        turn = 2 * np.pi * _share(times.values.astype(np.int64), name)
        parts.append(np.stack([np.sin(turn), np.cos(turn)], axis=1))
    return np.concatenate(parts, axis=1)


def _share(values: NDArray[np.int64], name: Calendar) -> NDArray[np.float64]:
    """How much of its period is over, from 0 to below 1."""
    moments = values.astype("datetime64[us]")
    if name == "hour":
        return values % DAY / DAY
    if name == "weekday":
        return (values // DAY + 3) % 7 / 7  # 1 January 1970 was a Thursday
    if name == "month":
        return moments.astype("datetime64[M]").astype(np.int64) % 12 / 12
    since = moments - moments.astype("datetime64[Y]").astype("datetime64[us]")
    share: NDArray[np.float64] = since.astype(np.int64) // DAY / 365.25
    return share


def _months(
    values: NDArray[np.float64] | NDArray[np.int64], month_end: bool
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Months since January 1970, and what is left; at month ends counted back from the next month's beginning."""
    values = values.astype(np.int64)
    months = values.astype("datetime64[us]").astype("datetime64[M]").astype(np.int64)
    return months, values - _month_start(months + month_end)


def _month_start(months: NDArray[np.int64]) -> NDArray[np.int64]:
    return months.astype("datetime64[M]").astype("datetime64[us]").astype(np.int64)


def _middle(values: NDArray[np.float64] | NDArray[np.int64]) -> float:
    """The median; of two in the middle the lower one, which is among the values."""
    middle: float = np.sort(values)[(len(values) - 1) // 2]
    return middle


def _counted(number: float, thing: str) -> str:
    return f"{number:g} {thing}" if number == 1 else f"{number:g} {thing}s"
