"""Sequences of different length out of files of one's own, each with a label, or with one a step: the settings."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import tyro

from gatewise.data.images import stratified_split, too_few
from gatewise.data.sequences import Layout, Sequences, read_sequences
from gatewise.errors import DataError
from gatewise.tasks.task import Task
from gatewise.train.config import TrainConfig
from gatewise.train.schedule import ScheduleName

Name = Annotated[str | None, tyro.conf.arg(metavar="NAME")]
Names = Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME...")]
File = Annotated[Path | None, tyro.conf.arg(metavar="FILE")]
Share = Annotated[float | None, tyro.conf.arg(metavar="FLOAT")]

TEST_FRACTION = 0.2
"""Share of the sequences that is the test part, where nothing else is said."""


@dataclass(frozen=True, kw_only=True)
class SequencesConfig(TrainConfig):
    """Tell which class a sequence is of, or with --per-step each of its steps; the sequences may differ in length.

    A CSV or Parquet file has a row for each step: a column says which sequence it is of (--id), one may say which step
    (--step), one is the label (--target), and all others that hold numbers are read, or those of --features. A .ts file
    (of the UEA and UCR archives) says all that itself. Nothing is cut or stretched to one length, and what fills a
    batch up is neither computed nor learned.

    The test part is a file of its own (--test) or a share drawn by the seed, and chooses nothing; a share of the rest
    (dev) chooses the best weights. Features are scaled by mean and deviation of the training part. NaN, infinity and
    empty cells are refused.

    Example:
      gatewise train sequences --data vowels_TRAIN.ts --test vowels_TEST.ts --run runs/vowels
      gatewise train sequences --data taps.csv --id tap --step at --target who --run runs/taps
      gatewise train sequences --data words.parquet --id word --target tag --per-step
      gatewise evaluate runs/taps --figure mistakes.png
      gatewise predict runs/taps new.csv --out labels.csv
    """

    data: Path
    """The file: .csv (UTF-8, commas), .parquet or .ts."""

    test: File = None
    """The file of the test part, of the same kind. Without it a share of the data is."""

    id: Name = None
    """The column that says which sequence a row is of. A .ts file has none."""

    step: Name = None
    """The column of the steps: numbers or dates that increase within a sequence. Without it, the rows are in order."""

    step_format: Name = None
    """How dates are written where that is not plain, such as %d/%m/%Y (the letters of strftime)."""

    target: Name = None
    """The column of the labels: names or whole numbers. A .ts file has none."""

    features: Names = ()
    """Columns of numbers that are read; without it all others whose first cell is a number."""

    per_step: bool = False
    """Each row has a label of its own; without it all rows of a sequence have the same."""

    bidirectional: bool = True
    """Read each sequence from its end as well."""

    read: Literal["mean", "last"] = "mean"
    """What of the LSTM tells a sequence's class: the mean of its outputs over all steps, or its state in the end."""

    test_fraction: Share = None
    """Share of the sequences that is the test part, of each class; without it 0.2, or the file of --test."""

    hidden_size: int = 64
    num_layers: int = 1
    learning_rate: float = 2e-3
    schedule: ScheduleName = "cosine"
    clip_norm: float = 1.0
    batch_size: int = 16
    epochs: int = 60
    dev_fraction: float = 0.1
    """Share of the data's sequences, of each class, set aside (dev): it chooses the best weights; 0: training does."""

    def __post_init__(self) -> None:
        super().__post_init__()
        of_columns = ("id", "target", "step", "step_format", "features", "per_step")
        if self.data.suffix.lower() == ".ts":
            for name in of_columns:
                self._need(name, not getattr(self, name), "left out where data is a .ts file")
        else:
            for name in ("id", "target"):
                self._need(name, getattr(self, name) is not None, "the name of a column, as data is no .ts file")
        self._need("step_format", self.step_format is None or self.step is not None, "left out where there is no step")
        for name in ("id", "step", "target"):
            self._need(name, getattr(self, name) != "probability", "another name, as predictions have such a column")
        self._need("read", self.read == "mean" or not self.per_step, "left out where each step has a label")
        self._need("test", self.test is None or self.test.absolute() != self.data.absolute(), "another file than data")
        fits = self.test is None or self.test_fraction is None
        self._need("test_fraction", fits, "left out where there is a file for the test part")
        self._need("test_fraction", self.test is not None or 0 < self.tested < 1, "a number above 0 and below 1")
        most = 1 - self.tested
        self._need("dev_fraction", self.dev_fraction < most, f"below {most:g}, as test_fraction is the rest to 1")
        for name in ("data", "test"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, getattr(self, name).absolute())  # a run is evaluated from anywhere

    @property
    def tested(self) -> float:
        """The share of the data that is the test part; 0 where there is a file for it."""
        if self.test is not None:
            return 0.0
        return TEST_FRACTION if self.test_fraction is None else self.test_fraction

    @property
    def layout(self) -> Layout:
        """What the columns are."""
        return Layout(self.id, self.target, self.step, self.features, self.per_step, self.step_format)


def splits(config: SequencesConfig) -> dict[str, Sequences]:
    """The training, dev and test sequences; no "dev" where its fraction is 0. The classes are those of the training.

    Raises
    ------
    DataError
        A file is not in order, a class has too few sequences for the parts, or a part has a label that the training
        part has not.
    """
    everything = read_sequences(config.data, config.layout)
    _need_enough(everything, config)
    strata = np.zeros(len(everything), np.intp) if config.per_step else everything.labels
    test, dev, train = stratified_split(strata, [config.tested, config.dev_fraction], config.seed)
    parts = {"train": everything.take(train)}
    if len(dev):
        parts["dev"] = everything.take(dev)
    if config.test is None:
        parts["test"] = everything.take(test)
    else:
        parts["test"] = read_sequences(config.test, replace(config.layout, features=everything.features))
    classes = parts["train"].present()
    if len(classes) < 2:
        raise DataError(f"{config.data} has the label {classes[0]!r} alone, needed are at least two: give other data")
    return {name: part.with_classes(classes) for name, part in parts.items()}


def test_set(config: SequencesConfig) -> Sequences:
    """The test sequences."""
    return splits(config)["test"]


def _need_enough(everything: Sequences, config: SequencesConfig) -> None:
    """Refuse a class that would be missing from a part; where each step has a label, too few sequences."""
    fractions = [config.tested, config.dev_fraction]
    labels = np.zeros(len(everything), np.intp) if config.per_step else everything.labels
    names = ("",) if config.per_step else everything.classes
    counts = dict(zip(names, np.bincount(labels, minlength=len(names)).tolist(), strict=True))
    lacking = too_few(counts, fractions)
    if lacking is not None:
        name, needed = lacking
        what = f"the class {name!r} has" if name else "there are"
        shares = f"test_fraction {fractions[0]:g}, dev_fraction {fractions[1]:g}"
        raise DataError(
            f"{config.data}: {what} {counts[name]} sequence{'s' * (counts[name] != 1)}, needed are at least {needed} "
            f"for some in each part ({shares}): add some, or change the fractions"
        )


TASK = Task("sequences", SequencesConfig, splits, test_set, "gatewise.tasks.labelling", "FILE")
