"""Columns of a CSV or Parquet file as arrays of numbers, times and names; whatever is none is named and refused."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from gatewise.errors import DataError

if TYPE_CHECKING:
    import polars as pl

TimeKind = Literal["row", "number", "date", "moment"]
"""What a time is: a row's place; a number; a date; or a date and a time of day."""

FORMATS = ("%Y-%m-%d", "%Y/%m/%d", "%d.%m.%Y", "%Y-%m")
"""Dates that are read as they stand. Others, such as 3/4/2010, could be read in two ways."""

OF_DAY = ("%H:%M:%S%.f", "%H:%M", "%H:%M:%S%.f%z", "%H:%M%z")
"""Times of day that may come after a date and a space or a T."""

LARGEST = 1e150
"""Of numbers, so that their squares are numbers as well."""


EARLIEST, LATEST = (int(np.datetime64(year, "us").astype(np.int64)) for year in ("0001-01-01", "9001-01-01"))
"""Of dates, in microseconds since 1970: what calendars and figures can show, and room for what is forecast."""

MOST_CATEGORIES = 1000
"""Names in a column, each of which is a number in every row: more are identifiers rather than categories."""

SHOWN = 60
"""Characters of a cell or a name that a message shows, at most."""


@dataclass(frozen=True, eq=False)
class Times:
    """The times of rows.

    Parameters
    ----------
    values : float64 or int64 array, shape (N,)
        Places and numbers as they are; dates and moments in microseconds since 1970, in UTC where a zone is known.
    kind : {"row", "number", "date", "moment"}
        What they are.
    zoned : bool, default False
        Whether a zone is known: they are moments then, and written in UTC.

    Examples
    --------
    >>> Times(np.array([0, 86_400_000_000]), "date").shown()
    ['1970-01-01', '1970-01-02']
    """

    values: NDArray[np.float64] | NDArray[np.int64]
    kind: TimeKind
    zoned: bool = False

    def shown(self) -> list[str]:
        """Each as it is written."""
        return [show_time(value, self.kind) + "+00:00" * self.zoned for value in self.values.tolist()]

    def take(self, places: slice | NDArray[np.intp]) -> "Times":
        """Those at some places."""
        return replace(self, values=self.values[places])

    def column(self) -> "pl.Series":
        """As a table has them: rows from 1 and whole numbers as integers, dates and moments as such.

        Examples
        --------
        >>> Times(np.array([1.0, 2.0]), "number").column().to_list()
        [1, 2]
        """
        import polars as pl

        if self.kind == "row":
            return pl.Series(self.values.astype(np.int64) + 1)
        if self.kind == "number":
            whole = np.round(self.values)
            return pl.Series(whole.astype(np.int64) if (whole == self.values).all() else self.values)
        moments = pl.Series(self.values.astype(np.int64)).cast(pl.Datetime("us", "UTC" if self.zoned else None))
        return moments.cast(pl.Date) if self.kind == "date" else moments


def show_time(value: float, kind: TimeKind) -> str:
    """One time as it is written.

    Examples
    --------
    >>> show_time(3_600_000_000, "moment"), show_time(1700.0, "number"), show_time(6, "row")
    ('1970-01-01 01:00:00', '1700', '7')
    """
    if kind == "row":
        return str(int(value) + 1)
    if kind == "number":
        return f"{value:.15g}"
    moment = np.datetime64(int(value), "us")
    if kind == "date":
        return str(moment.astype("datetime64[D]"))
    return str(moment if int(value) % 1_000_000 else moment.astype("datetime64[s]")).replace("T", " ")


def read_table(path: Path, columns: Sequence[str], others: bool = False) -> "pl.DataFrame":
    r"""Read some columns of a file: of CSV (UTF-8, commas, names in the first line) as text, of Parquet as they are.

    Parameters
    ----------
    path : path
        Ends in .csv or .parquet.
    columns : sequence of str
        Those that must be there.
    others : bool, default False
        Whether all others are wanted as well.

    Raises
    ------
    DataError
        The file is missing, of another kind or damaged, has no rows, or lacks a column.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "load.csv"
    >>> _ = path.write_text("day,kw\n1,3.5\n2,\n")
    >>> numbers(read_table(path, ["kw"]), "kw", path)
    array([3.5, nan])
    """
    import polars as pl

    if not path.is_file():
        raise DataError(f"{path} is no file: give the path of a CSV or Parquet file")
    if path.suffix.lower() not in (".csv", ".parquet"):
        raise DataError(f"{path} is of no known kind, needed is a file that ends in .csv or .parquet: convert it")
    try:
        if path.suffix.lower() == ".csv":
            frame = pl.read_csv(path, infer_schema=False)
            frame.columns = there = _quotes_undoubled(path, frame.columns)
        else:
            there = list(pl.read_parquet_schema(path))
            frame = pl.read_parquet(path, columns=[name for name in there if others or name in columns])
    except (pl.exceptions.PolarsError, OSError) as error:
        why = " ".join(str(error).split())[:200] or type(error).__name__
        raise DataError(
            f"{path} cannot be read as a table ({why}): give CSV in UTF-8 with commas, or Parquet"
        ) from error
    for name in columns:
        if name not in there:
            listed = ", ".join(_short(other) for other in there[:20])
            if len(there) == 1 and any(mark in there[0] for mark in ";\t|"):
                raise DataError(f"{path} begins with {listed!r}, needed are columns with commas between: convert it")
            raise DataError(f"{path} has no column {name!r}, there are {listed}: name one of them, or mend the file")
    for name in there if others else columns:
        if f"{name}_duplicated_0" in there:  # as polars calls the second
            raise DataError(f"{path} has two columns {name!r}, needed is one: rename the other")
    if not len(frame):
        raise DataError(f"{path} has no rows: give a file with some")
    return frame


def _quotes_undoubled(path: Path, named: list[str]) -> list[str]:
    """The columns' names as the first line means them: polars leaves a doubled quote in quotes doubled."""
    if not any('""' in name for name in named):
        return named
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            written = next(row for row in csv.reader(file) if row)
        pairs = list(zip(named, written, strict=True))
    except (csv.Error, ValueError) as error:
        raise DataError(f"{path}: the names in the first line cannot be told apart: mend their quotes") from error
    return [name.replace(own.replace('"', '""'), own, 1) for name, own in pairs]


def numbers(
    frame: "pl.DataFrame", column: str, path: Path, empty: bool = True, remedy: str = "mend the file"
) -> NDArray[np.float64]:
    """A column as numbers; NaN where a cell is empty.

    Parameters
    ----------
    frame : polars.DataFrame
        Has the column.
    column : str
        Its name.
    path : path
        For messages.
    empty : bool, default True
        Whether a cell may be empty.
    remedy : str
        What to do about a cell that is no number, for messages.

    Raises
    ------
    DataError
        A cell holds no number, NaN, infinity, or what is beyond `LARGEST`; or, without `empty`, nothing.
    """
    import polars as pl

    cells = frame[column]
    if cells.dtype == pl.String:
        text = cells.str.strip_chars()
        text = text.set(text == "", None)
        found = text.cast(pl.Float64, strict=False)
        _refuse(found.is_null() & text.is_not_null(), cells, column, path, "a number", remedy)
        missing = text.is_null()
    elif cells.dtype.is_numeric() or cells.dtype in (pl.Boolean, pl.Null):
        found, missing = cells.cast(pl.Float64), cells.is_null()
    else:
        other = "give another column" if remedy == "mend the file" else remedy
        raise DataError(f"{path}: {column} holds values of type {cells.dtype}, needed are numbers: {other}")
    _refuse(~found.is_finite() & ~missing, cells, column, path, f"a finite number{' or an empty cell' * empty}")
    if not empty:
        _refuse(missing, cells, column, path, "a number", "fill it, or remove the row")
    _refuse((found.abs() > LARGEST) & ~missing, cells, column, path, f"a number up to {LARGEST:g}")
    values: NDArray[np.float64] = found.to_numpy().astype(np.float64)
    return values


def names(frame: "pl.DataFrame", column: str, path: Path) -> list[str]:
    """A column as names, spaces around them left out.

    Raises
    ------
    DataError
        A cell is empty, or the column holds what has no name, such as lists.
    """
    text = _text(frame, column, path)
    _refuse(text.is_null(), frame[column], column, path, "a name")
    return text.to_list()


def categories(frame: "pl.DataFrame", column: str, path: Path) -> tuple[str, ...]:
    """The names that a column holds, each once, in their order.

    Raises
    ------
    DataError
        There is none, there are more than `MOST_CATEGORIES`, or the column holds what has no name.

    Examples
    --------
    >>> import polars as pl
    >>> categories(pl.DataFrame({"sky": ["sun", "rain", None, "sun"]}), "sky", Path("a.csv"))
    ('rain', 'sun')
    """
    found = _text(frame, column, path).drop_nulls().unique().sort()
    if not len(found):
        raise DataError(f"{path}: {column} is empty in each row, needed are names: give another column")
    if len(found) > MOST_CATEGORIES:
        raise DataError(
            f"{path}: {column} holds {len(found):,} different names, needed are at most {MOST_CATEGORIES:,}: call "
            "similar ones the same, or give another column"
        )
    return tuple(found.to_list())


def one_hot(frame: "pl.DataFrame", column: str, path: Path, known: Sequence[str]) -> NDArray[np.float64]:
    """A column of names as 1 in the place of each row's name among those that are known, and 0 elsewhere.

    Returns
    -------
    float64 array, shape (N, len(known))
        NaN where a cell is empty.

    Raises
    ------
    DataError
        A name is not known.

    Examples
    --------
    >>> import polars as pl
    >>> one_hot(pl.DataFrame({"sky": ["sun", "rain", None]}), "sky", Path("a.csv"), ["rain", "sun"])
    array([[ 0.,  1.],
           [ 1.,  0.],
           [nan, nan]])
    """
    text = _text(frame, column, path)
    listed = ", ".join(known[:10]) + ", …" * (len(known) > 10)
    needed = f"one of the categories that were trained on ({listed})"
    _refuse(~text.is_in(list(known)) & text.is_not_null(), frame[column], column, path, needed, "remove the row")
    found = np.stack([(text == name).cast(float).to_numpy() for name in known], axis=1)
    found[text.is_null().to_numpy()] = np.nan
    return found


def _text(frame: "pl.DataFrame", column: str, path: Path) -> "pl.Series":
    """A column as text without spaces around it; null where a cell is empty."""
    import polars as pl

    cells = frame[column]
    if cells.dtype.is_nested() or cells.dtype == pl.Binary:
        raise DataError(f"{path}: {column} holds values of type {cells.dtype}, needed are names: give another column")
    text = cells.cast(pl.String, strict=False).str.strip_chars()
    return text.set(text == "", None)


def times(
    frame: "pl.DataFrame", column: str, path: Path, form: str | None = None, option: str = "--time-format"
) -> Times:
    """A column as times.

    Parameters
    ----------
    frame : polars.DataFrame
        Has the column.
    column : str
        Its name.
    path : path
        For messages.
    form : str, default: `FORMATS`, and numbers
        How the dates are written, such as "%d/%m/%Y %H:%M" (the letters of strftime).
    option : str, default "--time-format"
        What says so on the command line, for messages.

    Raises
    ------
    DataError
        A cell holds no time, or is empty.

    Examples
    --------
    >>> import polars as pl
    >>> times(pl.DataFrame({"at": ["2010-01-01 00:00", "2010-01-01 01:00"]}), "at", Path("a.csv")).shown()
    ['2010-01-01 00:00:00', '2010-01-01 01:00:00']
    """
    import polars as pl

    cells = frame[column]
    if cells.dtype.is_numeric() and form is not None:
        cells = cells.cast(pl.String)
    if cells.dtype == pl.String:
        text = cells.str.strip_chars()
        text = text.set(text == "", None)
        _refuse(text.is_null(), cells, column, path, "a time")
        if form is None:
            plain = text.cast(pl.Float64, strict=False)
            if plain.is_not_null().all():
                _refuse(~plain.is_finite(), cells, column, path, "a time")
                return Times(plain.to_numpy().astype(np.float64), "number")
        found = _parsed(text, form)
        remedy = f"mend it, or {'give' if form is None else 'change'} {option}"
        needed = "a number or a date such as 2010-12-31 23:00" if form is None else f"a date as {form}"
        _refuse(found.is_null(), cells, column, path, needed, remedy)
    elif cells.dtype == pl.Date or isinstance(cells.dtype, pl.Datetime):
        found = cells.cast(
            pl.Datetime("us", getattr(cells.dtype, "time_zone", None))
        )  # (UTC within, whatever the zone)
        _refuse(found.is_null(), cells, column, path, "a time")
    elif cells.dtype.is_numeric():
        plain = cells.cast(pl.Float64)
        _refuse(plain.is_null() | ~plain.is_finite(), cells, column, path, "a time")
        return Times(plain.to_numpy().astype(np.float64), "number")
    else:
        raise DataError(
            f"{path}: {column} holds values of type {cells.dtype}, needed are dates or numbers: give another column"
        )
    values = found.dt.epoch("us").to_numpy().astype(np.int64)
    zoned = isinstance(found.dtype, pl.Datetime) and found.dtype.time_zone is not None
    result = Times(values, "moment" if zoned or (values % 86_400_000_000).any() else "date", zoned)
    outside = np.flatnonzero((values < EARLIEST) | (values >= LATEST))
    if len(outside):
        (given,) = result.take(outside[:1]).shown()
        raise DataError(
            f"{path}, row {outside[0] + 1}: {column} is {given}, needed is a time from the year 1 to the year 9000: "
            "mend the file"
        )
    return result


def _parsed(text: "pl.Series", form: str | None) -> "pl.Series":
    """Dates by the format that reads the first one; all null where none does."""
    import polars as pl

    zoned = text.str.replace("Z$", "+00:00")
    forms = (
        [form] if form is not None else [*FORMATS, *(f"{d}{sep}{t}" for d in FORMATS for sep in " T" for t in OF_DAY)]
    )
    for each in forms:
        try:
            found = zoned.str.to_datetime(each, strict=False, time_unit="us")
        except pl.exceptions.PolarsError:  # a format of the user's own that is none
            break
        if found.is_not_null()[0]:
            return found
    return pl.Series([None] * len(text), dtype=pl.Datetime("us"))


def _short(text: str) -> str:
    """As much of a text as a message shows."""
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"


def _refuse(
    bad: "pl.Series", cells: "pl.Series", column: str, path: Path, needed: str, remedy: str = "mend the file"
) -> None:
    """Name the first cell that is bad."""
    place = bad.fill_null(True).arg_max()
    if place is not None and bad.fill_null(True)[place]:
        value = cells[place]
        given = "empty" if value is None or value == "" else _short(repr(value))
        raise DataError(f"{path}, row {place + 1}: {column} is {given}, needed is {needed}: {remedy}")
