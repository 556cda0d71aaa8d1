"""Windows over series: scaled by the training part alone, divided by time, and none that looks over a border."""

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, Self, cast

import numpy as np
from numpy.typing import NDArray

from gatewise.data.scaling import moments
from gatewise.data.series import Channel, Series
from gatewise.data.steps import PERIODS, Calendar, Step, calendar_features
from gatewise.data.table import TimeKind, Times
from gatewise.errors import ArgumentError, DataError

Part = Literal["train", "dev", "test"]


@dataclass(frozen=True)
class GroupForm:
    """What a model must know of one series.

    Parameters
    ----------
    mean, deviation : tuple of float
        Of each scaled column over the rows before `dev_from`: the target, the features, what is known in advance.
    naive_error : float
        The mean absolute error there of the seasonal naive forecast, by which MASE is scaled; 0 where there is none.
    dev_from, test_from : float
        The time of the first row of the dev and of the test part.
    """

    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    naive_error: float
    dev_from: float
    test_from: float


@dataclass(frozen=True)
class Form:
    """What the series of a model are like: it is kept with the weights.

    Parameters
    ----------
    window, horizon : int
        Rows that are read, and rows that are forecast.
    season : int
        Rows after which the series come round.
    step : Step
        What rows are apart.
    kind : {"row", "number", "date", "moment"}
        What times are.
    calendar : tuple of {"hour", "weekday", "month", "year-day"}
        What is read of them.
    features, known : int
        How many numbers there are of each in a row: one of a column, or of a column of names one of each category.
    whole_windows : bool
        Whether a window must end in a row that was there, because what is filled in knows what comes after.
    groups : dict of str to GroupForm
        Each series by its name.
    zoned : bool, default False
        Whether the times have a zone.
    categories : dict of str to tuple of str, default: none
        The columns of names, and which there are.
    """

    window: int
    horizon: int
    season: int
    step: Step
    kind: TimeKind
    calendar: tuple[Calendar, ...]
    features: int
    known: int
    whole_windows: bool
    groups: dict[str, GroupForm]
    zoned: bool = False
    categories: dict[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def channels(self) -> int:
        """Numbers in a row: the target, the features, what is known in advance, and the calendar's."""
        return 1 + self.features + self.ahead

    @property
    def ahead(self) -> int:
        """Numbers in a row that are known in advance, the calendar's included."""
        return self.known + 2 * len(self.calendar)

    def to_json(self) -> str:
        """As it is kept; every number comes back as it was."""
        return json.dumps(asdict(self), allow_nan=False)

    @classmethod
    def from_json(cls, kept: str) -> Self:
        """What `to_json` gave."""
        found: dict[str, Any] = json.loads(kept)
        groups = {
            name: GroupForm(**group | {"mean": tuple(group["mean"]), "deviation": tuple(group["deviation"])})
            for name, group in found["groups"].items()
        }
        calendar = cast(tuple[Calendar, ...], tuple(found["calendar"]))
        categories = {column: tuple(names) for column, names in found["categories"].items()}
        others = {"step": Step(**found["step"]), "calendar": calendar, "groups": groups, "categories": categories}
        return cls(**found | others)


@dataclass(frozen=True, eq=False)
class Windows:
    """Samples of a forecast.

    Parameters
    ----------
    inputs : float32 array, shape (N, window + horizon, channels)
        The scaled rows; in those of the horizon the target and the features are 0.
    targets : float32 array, shape (N, horizon)
        Scaled likewise; NaN where there was none.
    groups : integer array, shape (N,)
        Which series each is of.
    origins : integer array, shape (N,)
        The row of the series that each horizon begins with.

    Examples
    --------
    >>> one = Windows(np.zeros((2, 5, 1), "f4"), np.zeros((2, 2), "f4"), np.zeros(2, np.intp), np.arange(2))
    >>> len(one)
    2
    """

    inputs: NDArray[np.float32]
    targets: NDArray[np.float32]
    groups: NDArray[np.intp]
    origins: NDArray[np.intp]

    def __len__(self) -> int:
        return len(self.inputs)


def divide(series: Sequence[Series], dev_fraction: float, test_fraction: float) -> list[tuple[float, float]]:
    """The time at which the dev and the test part of each series begin.

    With times the borders are the same for all: no series is trained on at a time at which another is tested. Without
    them each series has its own.

    Parameters
    ----------
    series : sequence of Series
        Of one kind of time.
    dev_fraction, test_fraction : float
        Shares of the time from the first row to the last.

    Examples
    --------
    >>> there = np.ones(10, bool)
    >>> one = Series("", Times(np.arange(10), "row"), np.ones(10), np.ones((10, 0)), np.ones((10, 0)), there, there)
    >>> divide([one], 0.1, 0.2)
    [(7.0, 8.0)]
    """

    def borders(first: float, end: float) -> tuple[float, float]:
        span = end - first
        return end - (dev_fraction + test_fraction) * span, end - test_fraction * span

    if series[0].times.kind == "row":
        own = [borders(0, len(one)) for one in series]
        return [(float(round(dev)), float(round(test))) for dev, test in own]
    step = min(float(one.times.values[1] - one.times.values[0]) for one in series)
    first = min(float(one.times.values[0]) for one in series)
    last = max(float(one.times.values[len(one) - 1]) for one in series)
    return [borders(first, last + step)] * len(series)


def make_form(
    series: Sequence[Series],
    step: Step,
    *,
    window: int,
    horizon: int,
    season: int | None,
    calendar: Sequence[Calendar] | None,
    scaling: Literal["group", "all"],
    dev_fraction: float,
    test_fraction: float,
    whole_windows: bool,
    channels: Sequence[Channel] = (),
) -> Form:
    """Divide series by time, and fit their scaling on the training part alone.

    Parameters
    ----------
    series : sequence of Series
        What the data hold.
    step : Step
        What their rows are apart.
    window, horizon : int
        Rows that are read, and rows that are forecast.
    season : int or None
        Rows after which they come round; None: a day, a week or a year of them, as the step says, or 1 where the
        training part is shorter than that.
    calendar : sequence of str or None
        What is read of the times; None: what the step says, if the training part goes through it at least twice.
    scaling : {"group", "all"}
        Whether each series has a mean and deviation of its own.
    dev_fraction, test_fraction : float
        Shares of the end.
    whole_windows : bool
        See `Form`.
    channels : sequence of Channel, default: numbers all
        What the features are, and after them what is known in advance. Categories are not scaled.

    Raises
    ------
    DataError
        A series is too short for a window and a horizon in its training part, or a horizon in the other two; or a
        category is not in the training part.
    ArgumentError
        The calendar is asked of times that have none.

    Examples
    --------
    >>> there = np.ones(10, bool)
    >>> one = Series("", Times(np.arange(10), "row"), np.arange(10.0), np.ones((10, 0)), np.ones((10, 0)), there, there)
    >>> form = make_form([one], Step("row", 1), window=2, horizon=1, season=None, calendar=None, scaling="group",
    ...                  dev_fraction=0.1, test_fraction=0.1, whole_windows=False)
    >>> form.groups[""].mean, form.groups[""].test_from, form.season
    ((3.5,), 9.0, 1)
    >>> Form.from_json(form.to_json()) == form
    True
    """
    borders = divide(series, dev_fraction, test_fraction)
    rows = [_first_rows(one.times, len(one), *border) for one, border in zip(series, borders, strict=True)]
    shortest = min(dev for dev, _ in rows)
    if season is None:
        season = step.season if step.season < shortest else 1
    elif season >= shortest:
        raise DataError(
            f"season is {season} and the training part of a series has {shortest} rows, needed are more than a season: "
            "make season smaller, or give a longer series"
        )
    for one, (dev, test) in zip(series, rows, strict=True):
        counts = {"training": (dev, window + horizon), "dev": (test - dev, horizon), "test": (len(one) - test, horizon)}
        if dev_fraction == 0:
            del counts["dev"]
        for part, (count, needed) in counts.items():
            if count < needed:
                reads = f"window {window} and horizon {horizon}" if part == "training" else f"horizon {horizon}"
                raise DataError(
                    f"{one.title} has {count} rows in the {part} part (of {len(one)} in all), needed are at least "
                    f"{needed} ({reads}): give a longer series, or make window, horizon or the fractions fit"
                )
    if calendar is None:
        calendar = [name for name in step.calendar() if _turns_twice(series, rows, name)]
    elif calendar and series[0].times.kind in ("row", "number"):
        raise ArgumentError(
            f"calendar is {' '.join(calendar)}, needed are dates to read it from: give --time, or leave calendar out"
        )
    scaled = [_scaled_columns(one) for one in series]
    categories = _categories(channels, [own[:dev] for own, (dev, _) in zip(scaled, rows, strict=True)])
    pooled = _moments(scaled, rows, channels) if scaling == "all" else None
    groups = {}
    for place, (one, border) in enumerate(zip(series, borders, strict=True)):
        mean, deviation = pooled or _moments(scaled[place : place + 1], rows[place : place + 1], channels)
        known = np.where(one.observed, one.target, np.nan)[: rows[place][0]]
        errors = np.abs(known[season:] - known[:-season])
        errors = errors[~np.isnan(errors)]
        groups[one.name] = GroupForm(mean, deviation, float(errors.mean()) if len(errors) else 0.0, *border)
    one = series[0]
    counts_of = (one.features.shape[1], one.known.shape[1])
    of_times = (season, step, one.times.kind, tuple(calendar))
    return Form(window, horizon, *of_times, *counts_of, whole_windows, groups, one.times.zoned, categories)


def rows_of(series: Series, form: Form) -> NDArray[np.float64]:
    """The scaled rows of a series, shape (N + F, channels); after its last target the target and the features are 0."""
    group = form.groups[series.name]
    total, past = len(series.times.values), 1 + form.features
    rows = np.zeros((total, form.channels))
    rows[: len(series), 0] = series.target
    rows[: len(series), 1:past] = series.features
    rows[:, past : past + form.known] = series.known
    width = past + form.known
    rows[:, :width] = (rows[:, :width] - np.array(group.mean)) / np.array(group.deviation)
    rows[len(series) :, :past] = 0
    rows[:, width:] = calendar_features(series.times, form.calendar)
    return rows


def make_windows(series: Sequence[Series], form: Form, part: Part, stride: int = 1) -> Windows:
    """The windows whose horizon lies in a part, of all series one after the other.

    A window may begin in the part before, as it would where the model is used; its horizon never crosses a border.

    Parameters
    ----------
    series : sequence of Series
        What the data hold.
    form : Form
        What they were like at the training: the borders and the scaling.
    part : {"train", "dev", "test"}
        Which.
    stride : int, default 1
        Rows between two origins.

    Raises
    ------
    DataError
        There is none, or there are more than fit into memory.
    """
    origins = origins_of(series, form, part, stride)
    count = sum(map(len, origins))
    need_memory(
        f"{count:,} windows of {form.window + form.horizon} rows",
        count * (form.window + form.horizon) * form.channels,
        "window",
    )
    inputs = np.concatenate([_inputs(rows_of(one, form), form, own) for one, own in zip(series, origins, strict=True)])
    targets = np.concatenate([targets_of(one, form, own) for one, own in zip(series, origins, strict=True)])
    groups = np.repeat(np.arange(len(series)), [len(own) for own in origins])
    return Windows(inputs, targets, groups, np.concatenate(origins))


def origins_of(series: Sequence[Series], form: Form, part: Part, stride: int = 1) -> list[NDArray[np.intp]]:
    """The rows of each series at which a horizon begins that lies in a part, with a window before it.

    Parameters
    ----------
    series, form, part, stride
        As of `make_windows`.

    Raises
    ------
    DataError
        There is none.
    """
    origins = []
    for one in series:
        dev, test = borders_of(one, form)
        first, end = {"train": (0, dev), "dev": (dev, test), "test": (test, len(one))}[part]
        chosen = np.arange(max(first, form.window), end - form.horizon + 1, stride)
        if form.whole_windows:
            chosen = chosen[one.complete[chosen - 1]]
        there = np.concatenate([[0], np.cumsum(one.observed)])
        origins.append(chosen[there[chosen + form.horizon] > there[chosen]])
    if not sum(map(len, origins)):
        raise DataError(
            f"the {part} part has no window of {form.window} rows with {form.horizon} after it: give longer series, or "
            "make window, horizon or the fractions fit"
        )
    return origins


def need_memory(what: str, numbers: int, setting: str) -> None:
    """Refuse so many float32 numbers that half of the machine's memory is too little for them.

    Raises
    ------
    DataError
        It is.
    """
    needed = 4 * numbers
    if needed > os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2:
        raise DataError(
            f"{what} need {needed / 2**30:.1f} GiB, more than half of this machine's memory: make {setting} smaller, "
            "or give fewer rows"
        )


def last_window(series: Series, form: Form, future: Times, known: NDArray[np.float64]) -> NDArray[np.float32]:
    """What is read to forecast after the last target, shape (1, window + horizon, channels).

    Parameters
    ----------
    series : Series
        At least a window long.
    form : Form
        What the series were like at the training.
    future : Times, shape (horizon,)
        When the forecast is for.
    known : float64 array, shape (horizon, K)
        What is known of it.
    """
    return _inputs(rows_of(with_future(series, future, known), form), form, np.array([len(series)]))


def with_future(series: Series, future: Times, known: NDArray[np.float64]) -> Series:
    """A series with these rows after its last target, in place of those that it has there."""
    count = len(series)
    clock = replace(future, values=np.concatenate([series.times.values[:count], future.values]))
    return replace(series, times=clock, known=np.concatenate([series.known[:count], known]))


def borders_of(series: Series, form: Form) -> tuple[int, int]:
    """The first row of the dev part and of the test part."""
    group = form.groups[series.name]
    return _first_rows(series.times, len(series), group.dev_from, group.test_from)


def _first_rows(times: Times, length: int, dev: float, test: float) -> tuple[int, int]:
    values = times.values[:length]
    return int(np.searchsorted(values, dev)), int(np.searchsorted(values, test))


def _inputs(rows: NDArray[np.float64], form: Form, origins: NDArray[np.intp]) -> NDArray[np.float32]:
    places = origins[:, None] + np.arange(-form.window, form.horizon)
    inputs: NDArray[np.float32] = rows.astype(np.float32)[places]
    inputs[:, form.window :, : 1 + form.features] = 0
    return inputs


def targets_of(series: Series, form: Form, origins: NDArray[np.intp]) -> NDArray[np.float32]:
    """The scaled targets of horizons that begin at some rows, shape (N, horizon); NaN where there was none."""
    group = form.groups[series.name]
    scaled = (np.where(series.observed, series.target, np.nan) - group.mean[0]) / group.deviation[0]
    targets: NDArray[np.float32] = scaled.astype(np.float32)[origins[:, None] + np.arange(form.horizon)]
    return targets


def _scaled_columns(series: Series) -> NDArray[np.float64]:
    """The columns that are scaled, shape (N, 1 + P + K); NaN where the target, or of the features a row, was not there.

    (What was filled in may know what comes after the training part. The first row is never filled.)
    """
    target = np.where(series.observed, series.target, np.nan)[:, None]
    features = np.where(series.complete[:, None], series.features, np.nan)
    return np.concatenate([target, features, series.known[: len(series)]], axis=1)


def _moments(
    columns: Sequence[NDArray[np.float64]], rows: Sequence[tuple[int, int]], channels: Sequence[Channel]
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The mean and deviation of each column over the training parts; of a category 0 and 1, which leave it as it is."""
    mean, deviation = moments(np.concatenate([own[:dev] for own, (dev, _) in zip(columns, rows, strict=True)]))
    named = {place for place, channel in enumerate(channels, start=1) if channel.category is not None}
    return (
        tuple(0.0 if place in named else value for place, value in enumerate(mean)),
        tuple(1.0 if place in named else value for place, value in enumerate(deviation)),
    )


def _categories(channels: Sequence[Channel], parts: Sequence[NDArray[np.float64]]) -> dict[str, tuple[str, ...]]:
    """The categories of each column of names. Of one that the training parts lack nothing could be learned.

    Raises
    ------
    DataError
        There is such a one.
    """
    found: dict[str, tuple[str, ...]] = {}
    for place, (column, category) in enumerate(channels, start=1):
        if category is None:
            continue
        if not any((part[:, place] == 1).any() for part in parts):
            raise DataError(
                f"{column} is {category!r} in no row of the training part whose numbers are all there, needed is each "
                "category in one at least: give its rows another name, or remove them"
            )
        found[column] = (*found.get(column, ()), category)
    return found


def _turns_twice(series: Sequence[Series], rows: Sequence[tuple[int, int]], name: Calendar) -> bool:
    spans = [one.times.values[dev - 1] - one.times.values[0] for one, (dev, _) in zip(series, rows, strict=True)]
    return bool(max(spans) >= 2 * PERIODS[name])
