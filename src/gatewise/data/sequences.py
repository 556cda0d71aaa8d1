"""Labelled sequences of different length, out of a table with a row for each step, or out of a .ts file."""

import hashlib
import json
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import NDArray

from gatewise.data.scaling import moments
from gatewise.data.series import by_name, need_increase
from gatewise.data.table import Times, names, numbers, read_table, times
from gatewise.data.ts_file import read_ts
from gatewise.errors import DataError

if TYPE_CHECKING:
    import polars as pl

NO_LABEL = -1
"""In place of a label that is not known."""

NAMED = 10
"""Names that a message lists, at most."""


@dataclass(frozen=True)
class Layout:
    """What the columns of a table are, which has a row for each step. A .ts file has none of them.

    Parameters
    ----------
    id : str or None
        Says which sequence a row is of.
    target : str or None
        The label.
    step : str, default: the order of the rows
        Numbers or times that increase within a sequence.
    features : tuple of str, default: all other columns that begin with a number
        What is read.
    per_step : bool, default False
        Whether each row has a label of its own, or its sequence one.
    step_format : str, default: the usual ones
        How dates are written in `step`.

    Raises
    ------
    DataError
        One column is given twice.
    """

    id: str | None
    target: str | None
    step: str | None = None
    features: tuple[str, ...] = ()
    per_step: bool = False
    step_format: str | None = None

    def __post_init__(self) -> None:
        named = [name for name in (self.id, self.target, self.step, *self.features) if name is not None]
        twice = next((name for place, name in enumerate(named) if name in named[:place]), None)
        if twice is not None:
            raise DataError(f"the column {twice!r} is given twice, needed is one use of each: leave one out")


@dataclass(frozen=True, eq=False)
class Sequences:
    """N sequences of S steps in all, with P numbers in each step.

    Parameters
    ----------
    source : path
        The file, for messages.
    ids : tuple of str
        What each is called: of a table whole numbers in their order, or names in theirs; of a .ts file its place.
    lengths : integer array, shape (N,)
        The steps of each.
    values : float64 array, shape (S, P)
        One sequence after the other.
    features : tuple of str
        What the numbers are called.
    classes : tuple of str
        What the labels are called.
    labels : integer array, shape (N,) or (S,)
        The place among the classes of each sequence's label, or of each step's; `NO_LABEL` where it is not known.
    rows : integer array, shape (S,)
        Where each step was in the file.
    steps : Times, shape (S,), default None
        What the file calls each step.
    left_out : tuple of str, default: none
        Columns that are not read, as they are no numbers.

    per_step : bool, default False
        Whether the labels are those of the steps.

    Examples
    --------
    >>> values, labels, rows = np.ones((3, 4)), np.array([0, 0]), np.arange(3)
    >>> two = Sequences(Path("a.csv"), ("x", "y"), np.array([2, 1]), values, (), ("b",), labels, rows)
    >>> len(two), two.take(np.array([1])).rows.tolist()
    (2, [2])
    """

    source: Path
    ids: tuple[str, ...]
    lengths: NDArray[np.intp]
    values: NDArray[np.float64]
    features: tuple[str, ...]
    classes: tuple[str, ...]
    labels: NDArray[np.intp]
    rows: NDArray[np.intp]
    steps: Times | None = None
    left_out: tuple[str, ...] = ()
    per_step: bool = False

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def starts(self) -> NDArray[np.intp]:
        """Where each begins, shape (N,)."""
        starts: NDArray[np.intp] = np.cumsum(self.lengths) - self.lengths
        return starts

    def take(self, places: NDArray[np.intp]) -> Self:
        """Some of the sequences."""
        starts = self.starts
        own = np.concatenate([np.arange(starts[place], starts[place] + self.lengths[place]) for place in places])
        return replace(
            self,
            ids=tuple(self.ids[place] for place in places),
            lengths=self.lengths[places],
            values=self.values[own],
            labels=self.labels[own if self.per_step else places],
            rows=self.rows[own],
            steps=None if self.steps is None else self.steps.take(own),
        )

    def with_classes(self, classes: Sequence[str]) -> Self:
        """The same with labels that are places among other classes.

        Raises
        ------
        DataError
            A label is none of them.
        """
        place = {name: number for number, name in enumerate(classes)}
        codes = np.array([place.get(name, NO_LABEL - 1) for name in self.classes] + [NO_LABEL])  # (the last for none)
        labels = codes[self.labels]
        new = np.flatnonzero(labels < NO_LABEL)
        if len(new):
            which = int(np.searchsorted(self.starts, new[0], side="right")) - 1 if self.per_step else new[0]
            raise DataError(
                f"{self.source}: the label {self.classes[self.labels[new[0]]]!r} of {self.ids[which]} is none of the "
                f"{len(classes)} that are trained on ({_listed(classes)}): remove the sequence, or train with such ones"
            )
        return replace(self, classes=tuple(classes), labels=labels)

    def present(self) -> tuple[str, ...]:
        """The classes that there are labels of."""
        return tuple(self.classes[code] for code in np.unique(self.labels) if code != NO_LABEL)

    @property
    def clock(self) -> Times:
        """What each step is called: as in the file, or by its place in its sequence, shape (S,)."""
        if self.steps is not None:
            return self.steps
        return Times(np.arange(len(self.rows)) - np.repeat(self.starts, self.lengths), "row")

    def sha256(self) -> str:
        """A checksum over ids, lengths, values and labels."""
        digest = hashlib.sha256(json.dumps([self.ids, self.features, self.classes]).encode())
        for array in (self.lengths, self.values, self.labels):
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()


@dataclass(frozen=True)
class Form:
    """What the sequences of a model are like: it is kept with the weights.

    Parameters
    ----------
    features : tuple of str
        What is read.
    mean, deviation : tuple of float
        Of each over the training part, by which it is scaled.
    classes : tuple of str
        What the labels are called.

    Examples
    --------
    >>> form = Form(("x",), (1.0,), (2.0,), ("a", "b"))
    >>> Form.from_json(form.to_json()) == form
    True
    """

    features: tuple[str, ...]
    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    classes: tuple[str, ...]

    def scaled(self, sequences: Sequences) -> NDArray[np.float32]:
        """The values of sequences as a model reads them, shape (S, P)."""
        scaled: NDArray[np.float64] = (sequences.values - np.array(self.mean)) / np.array(self.deviation)
        return scaled.astype(np.float32)

    def to_json(self) -> str:
        """As it is kept."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, kept: str) -> Self:
        """What `to_json` gave."""
        return cls(**{name: tuple(values) for name, values in json.loads(kept).items()})


def make_form(train: Sequences) -> Form:
    """What the sequences that are trained on are like."""
    return Form(train.features, *moments(train.values), train.classes)


def read_sequences(path: Path, layout: Layout, labelled: bool = True) -> Sequences:
    r"""Read the sequences of a file.

    Parameters
    ----------
    path : path
        CSV or Parquet with a row for each step, in which those of different sequences may alternate; or .ts.
    layout : Layout
        Which column is what.
    labelled : bool, default True
        Whether all labels must be there, and of a sequence the same, if it has one.

    Raises
    ------
    DataError
        A column is missing or holds what it should not; steps go back or are doubled; a sequence has two labels. The
        message names the first place.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "taps.csv"
    >>> _ = path.write_text("who,at,x,y,what\nb,1,0,1,tap\na,1,2,3,slide\nb,2,4,5,tap\n")
    >>> found = read_sequences(path, Layout("who", "what", "at"))
    >>> found.ids, found.lengths.tolist(), found.features, found.values.tolist()
    (('a', 'b'), [1, 2], ('x', 'y'), [[2.0, 3.0], [0.0, 1.0], [4.0, 5.0]])
    >>> found.classes, found.labels.tolist(), found.rows.tolist()
    (('slide', 'tap'), [0, 1], [1, 0, 2])
    """
    ending = path.suffix.lower()
    if ending not in (".csv", ".parquet", ".ts"):
        raise DataError(f"{path} is of no known kind, needed is a file that ends in .csv, .parquet or .ts: convert it")
    if ending == ".ts":
        if layout.id is not None:
            raise DataError(f"{path} is a .ts file, needed is a table, as at the training: give one")
        return _from_ts(path, layout, labelled)
    if layout.id is None or (layout.target is None and labelled):
        raise DataError(f"{path} is a table, needed is a .ts file, as at the training: give one")
    return _from_table(path, layout, layout.id, labelled)


def _from_ts(path: Path, layout: Layout, labelled: bool) -> Sequences:
    found = read_ts(path)
    if labelled and found.classes is None:
        raise DataError(f"{path} has no labels (@classLabel), needed is one of each sequence: give another file")
    features = tuple(f"dimension {place + 1}" for place in range(found.dimensions))
    if layout.features and layout.features != features:
        raise DataError(
            f"{path} has {found.dimensions} dimensions, needed are the {len(layout.features)} features of the training "
            f"({_listed(layout.features)}): give such a file"
        )
    classes = _in_order(set(found.labels))
    lengths = np.array([len(sequence) for sequence in found.sequences])
    return Sequences(
        path,
        tuple(str(place + 1) for place in range(len(lengths))),
        lengths,
        np.concatenate(found.sequences),
        features,
        classes,
        _codes(found.labels, classes) if found.labels else np.full(len(lengths), NO_LABEL),
        np.arange(lengths.sum()),
    )


def _from_table(path: Path, layout: Layout, id_: str, labelled: bool) -> Sequences:
    targets = [layout.target] if layout.target is not None and labelled else []
    needed = [id_, *targets, *([layout.step] if layout.step else []), *layout.features]
    frame = read_table(path, needed, others=True)
    features, left_out = layout.features, []
    if not features:
        others = [name for name in frame.columns if name not in (id_, layout.target, layout.step)]
        features = tuple(name for name in others if _begins_with_a_number(frame[name]))
        left_out = [name for name in others if name not in features]
        if not features:
            raise DataError(f"{path} has no column of numbers beside {', '.join(needed)}: add what is to be read")
    values = np.stack([numbers(frame, name, path, empty=False) for name in features], axis=1)
    clock = None if layout.step is None else times(frame, layout.step, path, layout.step_format, "--step-format")
    by_id = by_name(names(frame, id_, path))
    ids = _in_order(by_id)
    if layout.step is not None and clock is not None:
        remedy = "sort the rows, remove doubles, or give another --id"
        for name in ids:
            own = by_id[name]
            need_increase(path, layout.step, own, clock.take(own), f"steps that increase in {name}", remedy)
    rows = np.concatenate([by_id[name] for name in ids])
    lengths = np.array([len(by_id[name]) for name in ids])
    labels: NDArray[np.intp] = np.full(len(frame), NO_LABEL)
    classes: tuple[str, ...] = ()
    if layout.target is not None and layout.target in frame.columns:
        labels, classes = _labels(frame, layout.target, path, labelled)
    labels = labels[rows]
    starts = np.cumsum(lengths) - lengths
    if not layout.per_step:
        if labelled:
            _need_one_each(path, layout.target or "", labels, np.repeat(labels[starts], lengths), rows, classes)
        labels = labels[starts]
    return Sequences(
        path,
        ids,
        lengths,
        values[rows],
        features,
        classes,
        labels,
        rows,
        None if clock is None else clock.take(rows),
        tuple(left_out),
        layout.per_step,
    )


def _labels(frame: "pl.DataFrame", column: str, path: Path, needed: bool) -> tuple[NDArray[np.intp], tuple[str, ...]]:
    """The labels of all rows, and what the classes are called."""
    import polars as pl

    cells = frame[column]
    if not (cells.dtype.is_integer() or cells.dtype in (pl.String, pl.Categorical, pl.Enum, pl.Boolean, pl.Null)):
        raise DataError(
            f"{path}: {column} holds values of type {cells.dtype}, needed are names or whole numbers: give "
            "another column"
        )
    text = cells.cast(pl.String).str.strip_chars()
    text = text.set(text == "", None)
    found = names(frame, column, path) if needed else text.drop_nulls().to_list()
    plain = text.cast(pl.Float64, strict=False)
    broken = (plain != plain.round()) & plain.is_not_null()
    if plain.null_count() == text.null_count() and broken.any():
        place = broken.fill_null(False).arg_max() or 0
        raise DataError(
            f"{path}, row {place + 1}: {column} is {cells[place]!r}, needed are names or whole numbers: give another "
            "column"
        )
    classes = _in_order(set(found))
    labels = np.full(len(cells), NO_LABEL)
    labels[text.is_not_null().to_numpy()] = _codes(found, classes)
    return labels, classes


def _need_one_each(
    path: Path,
    column: str,
    labels: NDArray[np.intp],
    first: NDArray[np.intp],
    rows: NDArray[np.intp],
    classes: Sequence[str],
) -> None:
    other = np.flatnonzero(labels != first)
    if len(other):
        place = other[0]
        raise DataError(
            f"{path}, row {rows[place] + 1}: {column} is {classes[labels[place]]!r} and was {classes[first[place]]!r} "
            "in the sequence's first row, needed is one label for each id: mend the file, or give --per-step"
        )


def _begins_with_a_number(cells: "pl.Series") -> bool:
    """Whether a column is of numbers; of text the first cell that is not empty decides: the others are held to it."""
    import polars as pl

    if cells.dtype != pl.String:
        return cells.dtype.is_numeric() or cells.dtype == pl.Boolean
    text = cells.str.strip_chars()
    filled = text.filter(text.is_not_null() & (text != "")).head(1)
    return bool(filled.cast(pl.Float64, strict=False).is_not_null().any())


def _in_order(found: Collection[str]) -> tuple[str, ...]:
    """Names in their order, or whole numbers in theirs, whatever the order in which they were found."""
    if all(name.removeprefix("-").isdecimal() for name in found):
        return tuple(sorted(found, key=lambda name: (int(name), name)))
    return tuple(sorted(found))


def _codes(labels: Sequence[str], classes: Sequence[str]) -> NDArray[np.intp]:
    place = {name: number for number, name in enumerate(classes)}
    return np.array([place[label] for label in labels], dtype=np.intp)


def _listed(found: Sequence[str]) -> str:
    return ", ".join([*found[:NAMED], *(["…"] if len(found) > NAMED else [])])
