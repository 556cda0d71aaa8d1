"""Sequences out of a .ts file, the text format of the UEA and UCR archives of time series classification."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gatewise.data.table import LARGEST
from gatewise.errors import DataError


@dataclass(eq=False)
class TsFile:
    """What a .ts file holds.

    Parameters
    ----------
    path : path
        Where it is.
    dimensions : int
        Numbers in a step; 0: not yet known.
    classes : list of str or None
        Those that its header declares; None: it has no labels.
    length : int
        Of all sequences, where the header says so; 0: each has its own.
    sequences : list of float64 array, shape (T, dimensions)
        In the file's order.
    labels : list of str
        Of each, if there are classes.
    """

    path: Path
    dimensions: int = 0
    classes: list[str] | None = None
    length: int = 0
    sequences: list[NDArray[np.float64]] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    equal: bool = False
    """Whether the header says that all are of the same length."""


def read_ts(path: Path) -> TsFile:
    r"""Read a .ts file: its header, and a sequence a line, of dimensions between colons and steps between commas.

    Parameters
    ----------
    path : path
        UTF-8. Time stamps, missing values and targets that are numbers are refused.

    Raises
    ------
    DataError
        It is missing or not in order: the message names the line.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "two.ts"
    >>> _ = path.write_text("@dimensions 2\n@classLabel true a b\n@data\n1,2,3:4,5,6:a\n7:8:b\n")
    >>> found = read_ts(path)
    >>> [sequence.tolist() for sequence in found.sequences], found.labels
    ([[[1.0, 4.0], [2.0, 5.0], [3.0, 6.0]], [[7.0, 8.0]]], ['a', 'b'])
    """
    if not path.is_file():
        raise DataError(f"{path} is no file: give the path of a .ts file")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as text ({error}): give a .ts file in UTF-8") from error
    found = TsFile(path)
    lines = ((number, line.strip()) for number, line in enumerate(text.splitlines(), start=1))
    told = ((number, line) for number, line in lines if line and line[0] not in "#%")
    _read_header(found, told)
    for number, line in told:
        _read_sequence(found, number, line)
    if not found.sequences:
        raise DataError(f"{path} holds no sequences after @data: give a file with some")
    return found


def _read_header(found: TsFile, lines: Iterator[tuple[int, str]]) -> None:
    """Read up to @data."""
    for number, line in lines:
        name, _, value = line.partition(" ")
        name, value = name.lower(), value.strip()
        if name == "@data":
            return
        if name not in HEADER:
            raise DataError(
                f"{found.path}, line {number}: {line[:40]!r} is no line of a .ts header, needed is one of "
                f"{', '.join(HEADER)} or @data: mend the file"
            )
        try:
            HEADER[name](found, value)
        except ValueError as error:
            raise DataError(f"{found.path}, line {number}: {line[:60]} {error}") from error
    raise DataError(f"{found.path} has no line @data, needed is one before the sequences: give a .ts file")


def _read_sequence(found: TsFile, number: int, line: str) -> None:
    where = f"{found.path}, line {number}"
    parts = line.split(":")
    if found.classes is not None:
        label = parts.pop().strip()
        if label not in found.classes:
            raise DataError(
                f"{where}: the label is {label!r}, needed is one of {', '.join(found.classes)}, as @classLabel says: "
                "mend the file"
            )
        found.labels.append(label)
    found.dimensions = found.dimensions or len(parts)
    if len(parts) != found.dimensions:
        raise DataError(f"{where} has {len(parts)} dimensions, needed are {found.dimensions}: mend the file")
    columns = [_numbers(where, place, part) for place, part in enumerate(parts, start=1)]
    lengths = {len(column) for column in columns}
    if len(lengths) > 1:
        raise DataError(
            f"{where}: the dimensions have {min(lengths)} to {max(lengths)} steps, needed are as many in each: mend it"
        )
    if found.equal:
        found.length = found.length or len(columns[0])
        if len(columns[0]) != found.length:
            raise DataError(
                f"{where} has {len(columns[0])} steps, needed are {found.length}, as @equalLength says: mend the file"
            )
    found.sequences.append(np.stack(columns, axis=1))


def _numbers(where: str, place: int, part: str) -> NDArray[np.float64]:
    """The steps of a dimension."""
    values = np.empty(part.count(",") + 1)
    for step, cell in enumerate(part.split(",")):
        at = f"{where}, dimension {place}, step {step + 1}"
        if cell.strip() in ("", "?"):
            raise DataError(f"{at} is missing ({cell.strip()!r}), needed is a number: fill it, or remove the sequence")
        try:
            values[step] = float(cell)
        except ValueError as error:
            raise DataError(f"{at} is {cell.strip()[:40]!r}, needed is a number: mend the file") from error
        if not abs(values[step]) <= LARGEST:  # which NaN is not either
            raise DataError(f"{at} is {cell.strip()}, needed is a finite number up to {LARGEST:g}: mend the file")
    return values


def _flag(value: str) -> bool:
    if value.lower() not in ("true", "false"):
        raise ValueError("is neither true nor false: mend the file")
    return value.lower() == "true"


def _count(value: str) -> int:
    if not value.isdecimal() or int(value) < 1:
        raise ValueError("has no number from 1 on: mend the file")
    return int(value)


def _refused(what: str) -> Callable[[TsFile, str], None]:
    def read(found: TsFile, value: str) -> None:
        if _flag(value.split(" ")[0]):
            raise ValueError(f"says that there are {what}, which are not read here: give a file without them")

    return read


def _univariate(found: TsFile, value: str) -> None:
    if _flag(value):
        found.dimensions = 1


def _dimensions(found: TsFile, value: str) -> None:
    found.dimensions = _count(value)


def _equal_length(found: TsFile, value: str) -> None:
    found.equal = _flag(value)


def _series_length(found: TsFile, value: str) -> None:
    found.length = _count(value)


def _class_label(found: TsFile, value: str) -> None:
    there, *classes = value.split()
    if _flag(there):
        if not classes:
            raise ValueError("names no class: mend the file")
        found.classes = classes


HEADER: dict[str, Callable[[TsFile, str], None]] = {
    "@problemname": lambda found, value: None,
    "@timestamps": _refused("time stamps"),
    "@missing": _refused("missing values"),
    "@univariate": _univariate,
    "@dimension": _dimensions,
    "@dimensions": _dimensions,
    "@equallength": _equal_length,
    "@serieslength": _series_length,
    "@classlabel": _class_label,
    "@targetlabel": _refused("targets that are numbers"),
}
"""What the lines of a header say, each by its name in lower case."""
