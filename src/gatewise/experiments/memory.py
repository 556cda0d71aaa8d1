"""The memory experiment: how far back do recurrent networks remember? Its settings, its runs and its results."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from gatewise.errors import ArgumentError
from gatewise.tasks.digit_sum import RECIPES, WITHOUT_FORGET_GATES, Cell, DigitSumConfig

PUBLISHED = {
    10: (0.95, 0.93),
    15: (0.90, 0.92),
    20: (0.77, 0.74),
    25: (0.81, 0.78),
    30: (0.75, 0.67),
    35: (0.26, 0.19),
}
"""The dev and test accuracy of one LSTM at each length in the study note behind the experiment."""


@dataclass(frozen=True, kw_only=True)
class MemoryConfig:
    """Train networks to add two digits and to remember the sum past what follows, at several lengths, several times.

    Each length, cell and seed is a run of its own (gatewise train digit-sum), as many at a time as there are cores. The
    same command once more goes on where it stopped. In the end there are a table, results.json, and two figures as PNG
    and PDF: accuracy over length with the spread over seeds, and the loss curves.

    Example:
      gatewise memory                                        (the textbook's experiment: 2 cells, 6 lengths, 5 seeds)
      gatewise memory --recipe published --cells lstm --seeds 1
      gatewise memory --data sums/                           (sums/10/train.txt … sums/35/test.txt)
      gatewise memory --recipe remember --cells lstm --lengths 10 35 100 300
    """

    cells: tuple[Cell, ...] = ("srn", "lstm")
    """What remembers: srn, gru, lstm, peephole, cifg, layer-norm, slstm."""

    lengths: tuple[int, ...] = (10, 15, 20, 25, 30, 35)
    """Digits in a sequence."""

    seeds: int = 5
    """Runs of each cell and length: seeds 0, 1, 2 … draw the sequences, the first weights and the order."""

    recipe: Literal["corrected", "published", "remember"] = "corrected"
    """The textbook's, with torch's first weights and trained vectors; as in the study note, where the cell's weights
    begin at 0 and the vectors are not trained; or one under which the LSTM remembers."""

    data: Path | None = None
    """A folder with a folder for each length, named by it (10, 15 …), with train.txt, dev.txt and test.txt: digits, a
    tab, the label. Without it each seed draws its own."""

    epochs: int = 0
    """Epochs of each run; 0 takes the recipe's."""

    run: Annotated[Path, tyro.conf.arg(metavar="FOLDER")] = Path("runs/memory")
    """Where the runs and the results are kept; what is finished there is not trained again."""

    processes: int = 0
    """Runs at a time, each on one thread; 0 takes as many as there are cores."""

    json: bool = False
    """Print the results as one JSON object instead of the table."""

    def __post_init__(self) -> None:
        for name, least in (("seeds", 1), ("epochs", 0), ("processes", 0)):
            if getattr(self, name) < least:
                raise ArgumentError(f"{name} is {getattr(self, name)}, needed is a number from {least} on: change it")
        for name in ("cells", "lengths"):
            values = getattr(self, name)
            if not values or len(set(values)) < len(values):
                raise ArgumentError(f"{name} is {' '.join(map(str, values)) or 'empty'}, needed are some, each once")
        self.cases()  # each refuses what it cannot do

    def cases(self) -> "list[Case]":
        """All the runs."""
        return [
            Case(cell, length, seed, self._settings(cell, length, seed))
            for cell in self.cells
            for length in self.lengths
            for seed in range(self.seeds)
        ]

    def _settings(self, cell: Cell, length: int, seed: int) -> DigitSumConfig:
        settings: dict[str, Any] = dict(RECIPES[self.recipe])
        if cell in WITHOUT_FORGET_GATES and settings.get("initial") == "chrono":  # which is about forget gates
            settings["initial"] = "torch"
        if self.epochs:
            settings["epochs"] = self.epochs
        data = self.data and self.data / str(length)
        return DigitSumConfig(**settings, data=data, cell=cell, length=length, seed=seed, threads=1)


@dataclass(frozen=True)
class Case:
    """One run of the experiment."""

    cell: Cell
    length: int
    seed: int
    config: DigitSumConfig

    @property
    def name(self) -> str:
        """Of its folder."""
        return f"{self.cell}-{self.length}-{self.seed}"


@dataclass(frozen=True)
class Result:
    """What a run came to.

    Parameters
    ----------
    cell, length, seed
        Which run it is.
    dev, test : float
        Accuracy of the weights that dev chose.
    step : int
        The training step of those.
    seconds : float
        Time that the training took.
    losses : list of float
        The training loss of each epoch.
    dev_losses : list of (float, float)
        Epochs done and dev loss, of each look at dev.
    """

    cell: str
    length: int
    seed: int
    dev: float
    test: float
    step: int
    seconds: float
    losses: list[float]
    dev_losses: list[tuple[float, float]]


@dataclass(frozen=True)
class Summary:
    """The runs of a cell and a length.

    Parameters
    ----------
    cell, length
        Which.
    dev, test : list of float
        The accuracy of each seed.

    Examples
    --------
    >>> summary = Summary("lstm", 10, [0.9, 1.0], [0.8, 0.9])
    >>> f"{summary.mean('test'):.2f} ± {summary.deviation('test'):.2f}"
    '0.85 ± 0.07'
    """

    cell: str
    length: int
    dev: list[float]
    test: list[float]

    def mean(self, split: Literal["dev", "test"]) -> float:
        """Over the seeds."""
        return statistics.fmean(self.dev if split == "dev" else self.test)

    def deviation(self, split: Literal["dev", "test"]) -> float:
        """The standard deviation over the seeds (with n - 1); of a single one, 0."""
        values = self.dev if split == "dev" else self.test
        return statistics.stdev(values) if len(values) > 1 else 0.0


def summarize(results: Sequence[Result]) -> list[Summary]:
    """The runs of each cell and length together, in the order in which these first come."""
    cases = dict.fromkeys((result.cell, result.length) for result in results)
    return [
        Summary(
            cell,
            length,
            [result.dev for result in results if (result.cell, result.length) == (cell, length)],
            [result.test for result in results if (result.cell, result.length) == (cell, length)],
        )
        for cell, length in cases
    ]


def table(results: Sequence[Result]) -> list[str]:
    r"""The accuracies as lines of text, the published ones beside an LSTM's.

    Examples
    --------
    >>> result = Result("lstm", 10, 0, 0.91, 0.86, 700, 14.2, [0.1], [(1.0, 0.2)])
    >>> print(*table([result]), sep="\n")
    cell  length   dev            test           seeds   published dev, test
    lstm      10   0.910 ± 0.000  0.860 ± 0.000      1             0.95, 0.93
    """
    summaries = summarize(results)
    wide = max([4, *(len(summary.cell) for summary in summaries)])
    lines = [f"{'cell':<{wide}}  length   dev            test           seeds   published dev, test"]
    for summary in summaries:
        means = "  ".join(f"{summary.mean(split):.3f} ± {summary.deviation(split):.3f}" for split in ("dev", "test"))
        known = PUBLISHED.get(summary.length) if summary.cell == "lstm" else None
        published = f"             {known[0]:.2f}, {known[1]:.2f}" if known else ""
        lines.append(f"{summary.cell:<{wide}} {summary.length:>7}   {means}  {len(summary.test):>5}{published}")
    return lines
