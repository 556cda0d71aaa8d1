"""Series out of a table: each group's rows in order of time, complete and regular, or refused by name."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gatewise.data.steps import Step, find_step
from gatewise.data.table import Times, categories, names, numbers, one_hot, read_table, times
from gatewise.errors import DataError

if TYPE_CHECKING:
    import polars as pl

Fill = Literal["refuse", "previous", "linear"]

SPARSEST = 10
"""Times as many rows as there are that filling may make."""


class Channel(NamedTuple):
    """A number that is read in each row: a column's own, or whether the column holds a category (1, else 0)."""

    column: str
    category: str | None = None


@dataclass(frozen=True)
class Columns:
    """What the columns of a table are to a forecast.

    Parameters
    ----------
    target : str
        Is forecast.
    time : str, default: the order of the rows
        Says when.
    features : tuple of str, default: none
        Numbers that are known up to the present.
    known : tuple of str, default: none
        Numbers that are known in advance.
    group : str, default: one series
        Says which series a row is of.
    time_format : str, default: the usual ones
        How the dates are written.
    categories : mapping of str to sequence of str, default: none
        Which of the features, known in advance or not, are names, and which there are of each.

    Raises
    ------
    DataError
        One column is given twice.
    """

    target: str
    time: str | None = None
    features: tuple[str, ...] = ()
    known: tuple[str, ...] = ()
    group: str | None = None
    time_format: str | None = None
    categories: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        named = self.named()
        twice = next((name for place, name in enumerate(named) if name in named[:place]), None)
        if twice is not None:
            raise DataError(f"the column {twice!r} is given twice, needed is one use of each: leave one out")

    def named(self) -> list[str]:
        """All of them."""
        return [name for name in (self.target, self.time, *self.features, *self.known, self.group) if name is not None]

    def channels(self, columns: Sequence[str]) -> list[Channel]:
        """The numbers that some columns are read as.

        Examples
        --------
        >>> Columns("kw", features=("wind", "sky"), categories={"sky": ("rain", "sun")}).channels(["wind", "sky"])
        [Channel(column='wind', category=None), Channel(column='sky', category='rain'), \
Channel(column='sky', category='sun')]
        """
        return [Channel(name, category) for name in columns for category in self.categories.get(name, [None])]


@dataclass(frozen=True, eq=False)
class Series:
    """One series at regular steps: N rows up to the last that has a target, and F rows after it.

    Parameters
    ----------
    name : str
        Of the group; empty where there is only one series.
    times : Times, shape (N + F,)
        Of all rows.
    target : float64 array, shape (N,)
        Filled where it was missing.
    features : float64 array, shape (N, P)
        What is known up to the present, filled likewise; of names, each category has a column.
    known : float64 array, shape (N + F, K)
        What is known in advance, filled likewise.
    observed : bool array, shape (N,)
        Whether the target was there. What was not is read by a model, and neither learned as a target nor scored.
    complete : bool array, shape (N,)
        Whether the target and all features were there.
    filled : int, default 0
        Rows in which something was filled.

    Examples
    --------
    >>> there = np.ones(3, bool)
    >>> series = Series("", Times(np.arange(5), "row"), np.ones(3), np.ones((3, 0)), np.ones((5, 1)), there, there)
    >>> len(series), series.future
    (3, 2)
    """

    name: str
    times: Times
    target: NDArray[np.float64]
    features: NDArray[np.float64]
    known: NDArray[np.float64]
    observed: NDArray[np.bool_]
    complete: NDArray[np.bool_]
    filled: int = 0

    def __len__(self) -> int:
        return len(self.target)

    @property
    def future(self) -> int:
        """Rows after the last that has a target."""
        return len(self.times.values) - len(self)

    @property
    def title(self) -> str:
        """What messages call it."""
        return f"the group {self.name!r}" if self.name else "the series"


def with_categories(path: Path, columns: Columns, wanted: Sequence[str]) -> Columns:
    """The same columns, of which some are names: those that the file has.

    Parameters
    ----------
    path : path
        CSV or Parquet.
    columns : Columns
        Which column is what.
    wanted : sequence of str
        The columns of names.

    Raises
    ------
    DataError
        The file cannot be read, lacks a column, or one holds no names.
    """
    if not wanted:
        return columns
    frame = read_table(path, columns.named())
    return replace(columns, categories={name: categories(frame, name, path) for name in wanted})


def read_series(
    path: Path, columns: Columns, fill: Fill = "refuse", step: Step | None = None
) -> tuple[list[Series], Step]:
    r"""Read the series of a file.

    Parameters
    ----------
    path : path
        CSV or Parquet.
    columns : Columns
        Which column is what.
    fill : {"refuse", "previous", "linear"}, default "refuse"
        What becomes of empty cells and missing steps: they are refused; or the value before holds on; or a straight
        line is drawn from the value before to the one after (after the last value it holds on; names always do).
    step : Step, default: the median difference
        What the rows must be apart.

    Returns
    -------
    series : list of Series
        A group each, in the order in which they first appear.
    step : Step
        What the rows are apart.

    Raises
    ------
    DataError
        A column is missing or holds what it should not, such as a category that is none of those in `columns`; times
        go back or are doubled; rows are irregular or, unless they are filled, missing. The message names the first
        place.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "load.csv"
    >>> _ = path.write_text("day,kw\n2001-01-01,1\n2001-01-02,\n2001-01-04,4\n2001-01-05,")
    >>> (series,), step = read_series(path, Columns("kw", "day"), fill="linear")
    >>> series.target.tolist(), series.observed.tolist(), series.future, step.words
    ([1.0, 2.0, 3.0, 4.0], [True, False, False, True], 1, '1 day')
    >>> read_series(path, Columns("kw", "day"))
    Traceback (most recent call last):
    gatewise.errors.DataError: ... row 3: day is 2001-01-04, 2 steps of 1 day after the row before, needed is one: ...
    """
    frame = read_table(path, columns.named())
    target = numbers(frame, columns.target, path)
    features, known = (_values(frame, path, columns, own) for own in (columns.features, columns.known))
    found = None if columns.time is None else times(frame, columns.time, path, columns.time_format)
    groups: dict[str, NDArray[np.intp]] = {"": np.arange(len(frame))}
    if columns.group is not None:
        groups = by_name(names(frame, columns.group, path))
    clocks = {
        name: Times(np.arange(len(rows)), "row") if found is None else found.take(rows) for name, rows in groups.items()
    }
    for name, rows in groups.items():
        remedy = "sort the rows, remove doubles" + (
            "" if columns.group else ", or give --group if there are several series"
        )
        need_increase(path, columns.time or "time", rows, clocks[name], "times that increase within a series", remedy)
    enough = [clock for clock in clocks.values() if len(clock.values) > 1]
    if not enough:
        raise DataError(f"{path}: no series has more than one row, needed are more than a window: give longer ones")
    own = find_step(enough)
    if step is not None and (own.unit != step.unit or abs(own.size - step.size) > 1e-3 * step.size):
        raise DataError(f"{path}: the rows are {own.words} apart, needed are {step.words}, as at the training")
    step = step or own
    result = []
    for name, rows in groups.items():
        where = _Where(path, columns, rows, clocks[name])
        values = (target[rows], features[rows], known[rows])
        result.append(_regular(name, where, step, fill, *values))
    return result, step


def _values(frame: "pl.DataFrame", path: Path, columns: Columns, names: Sequence[str]) -> NDArray[np.float64]:
    """Columns as the numbers that they are read as, shape (N, channels); NaN where a cell is empty."""
    remedy = "mend the file, or if these are names, give --categories as well"
    parts = [
        one_hot(frame, name, path, columns.categories[name])
        if name in columns.categories
        else numbers(frame, name, path, remedy=remedy)[:, None]
        for name in names
    ]
    return np.concatenate([np.empty((len(frame), 0)), *parts], axis=1)


@dataclass(frozen=True, eq=False)
class _Where:
    """Names the places of a group's rows in messages."""

    path: Path
    columns: Columns
    rows: NDArray[np.intp]
    times: Times

    def row(self, place: int) -> str:
        return f"{self.path}, row {self.rows[place] + 1}"


def by_name(order: Sequence[str]) -> dict[str, NDArray[np.intp]]:
    """The rows of each name, both in the order in which they appear.

    Examples
    --------
    >>> by_name(["b", "a", "b"])
    {'b': array([0, 2]), 'a': array([1])}
    """
    place = {name: number for number, name in enumerate(dict.fromkeys(order))}
    labels = np.array([place[name] for name in order])
    sorted_rows = np.argsort(labels, kind="stable")
    ends = np.cumsum(np.bincount(labels))
    return dict(zip(place, np.split(sorted_rows, ends[:-1]), strict=True))


def need_increase(path: Path, column: str, rows: NDArray[np.intp], clock: Times, needed: str, remedy: str) -> None:
    """Refuse times of rows that go back or are doubled: the first such row is named."""
    back = np.flatnonzero(np.diff(clock.values) <= 0)
    if len(back):
        place = int(back[0]) + 1
        before, own = clock.take(slice(place - 1, place + 1)).shown()
        what = f"{own} a second time" if own == before else f"{own} after {before}"
        raise DataError(f"{path}, row {rows[place] + 1}: {column} is {what}, needed are {needed}: {remedy}")


def _regular(
    name: str,
    where: _Where,
    step: Step,
    fill: Fill,
    target: NDArray[np.float64],
    features: NDArray[np.float64],
    known: NDArray[np.float64],
) -> Series:
    """A group's rows at regular steps, filled where that is wanted."""
    places = _places(where, step, fill)
    count = int(places[-1]) + 1

    def spread(values: NDArray[np.float64]) -> NDArray[np.float64]:
        wide = np.full((count, *values.shape[1:]), np.nan)
        wide[places] = values
        return wide

    target, features, known = spread(target), spread(features), spread(known)
    there = np.flatnonzero(~np.isnan(target))
    if not len(there):
        of_group = f" of the group {name!r}" if name else ""
        raise DataError(f"{where.path}: {where.columns.target}{of_group} is empty in each row: remove the rows")
    length = int(there[-1]) + 1
    observed = ~np.isnan(target[:length])
    complete = observed & ~np.isnan(features[:length]).any(axis=1)

    untold = np.flatnonzero(np.isnan(known).any(axis=1))
    filled_rows = len(np.union1d(untold, np.flatnonzero(~complete)))

    def filled(channel: Channel, values: NDArray[np.float64]) -> NDArray[np.float64]:
        missing = np.isnan(values)
        if not missing.any():
            return values
        if fill == "refuse" or missing[0]:
            first = int(missing.argmax())
            row = where.row(int(np.searchsorted(places, first)))
            remedy = "fill it, or train with --fill previous or --fill linear"
            if fill != "refuse":
                remedy = "fill it or remove the row, as there is no value before it"
            needed = "a number" if channel.category is None else "a name"
            raise DataError(f"{row}: {channel.column} is empty, needed is {needed}: {remedy}")
        return FILLS[fill if channel.category is None else "previous"](values, missing)

    columns = where.columns
    of_features, of_known = columns.channels(columns.features), columns.channels(columns.known)
    return Series(
        name,
        _times(where.times, step, count),
        filled(Channel(columns.target), target[:length]),
        _stacked([filled(channel, features[:length, i]) for i, channel in enumerate(of_features)], length),
        _stacked([filled(channel, known[:, i]) for i, channel in enumerate(of_known)], count),
        observed,
        complete,
        filled_rows,
    )


def _places(where: _Where, step: Step, fill: Fill) -> NDArray[np.intp]:
    """The place of each row on the grid of steps from the first row on."""
    counted = step.places(where.times)
    whole = np.round(counted)
    shown = where.times
    off = np.flatnonzero(np.abs(counted - whole) > 1e-3)
    apart = np.diff(whole)
    gaps = np.flatnonzero(apart != 1) + 1
    irregular = [int(found[0]) for found in (off, gaps) if len(found)]
    if not irregular or (fill != "refuse" and not len(off)):
        if whole[-1] >= SPARSEST * len(whole):
            raise DataError(
                f"{where.path}: {len(whole)} rows would be filled up to {whole[-1] + 1:.0f}, {step.words} apart, "
                f"needed is at least one row in {SPARSEST}: make the steps regular"
            )
        return whole.astype(np.intp)
    place = min(irregular)
    (value,) = shown.take(slice(place, place + 1)).shown()
    steps = (counted[place] - counted[place - 1]) if place else 0.0
    remedy = (
        "make the steps regular" if len(off) else "add the missing rows, or train with --fill previous or --fill linear"
    )
    raise DataError(
        f"{where.row(place)}: {where.columns.time} is {value}, {steps:.3g} steps of {step.words} after the row before, "
        f"needed is one: {remedy}"
    )


def _times(given: Times, step: Step, count: int) -> Times:
    """The times of all rows, those that were missing included."""
    if count == len(given.values):
        return given
    values = np.concatenate([given.values[:1], step.after(given.values[0].item(), count - 1)])
    return replace(given, values=values)


def _previous(values: NDArray[np.float64], missing: NDArray[np.bool_]) -> NDArray[np.float64]:
    last = np.maximum.accumulate(np.where(missing, 0, np.arange(len(values))))
    held: NDArray[np.float64] = values[last]
    return held


def _linear(values: NDArray[np.float64], missing: NDArray[np.bool_]) -> NDArray[np.float64]:
    rows = np.arange(len(values))
    return np.interp(rows, rows[~missing], values[~missing])


FILLS: dict[Fill, Callable[[NDArray[np.float64], NDArray[np.bool_]], NDArray[np.float64]]] = {
    "previous": _previous,
    "linear": _linear,
}


def _stacked(columns: list[NDArray[np.float64]], rows: int) -> NDArray[np.float64]:
    """Columns side by side, shape (rows, len(columns))."""
    return np.stack(columns, axis=1) if columns else np.empty((rows, 0))
