"""Where a training stands, and what it has seen so far."""

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any, Self


@dataclass(frozen=True)
class Score:
    """How a pass over samples went.

    Parameters
    ----------
    loss : float
        The mean over samples.
    measures : dict of str to float
        Means over samples of whatever else was measured, such as "accuracy".
    samples : int
        How many there were.
    seconds : float
        What it took.

    Examples
    --------
    >>> Score(0.5, {"accuracy": 0.75}, 4, 0.1)["accuracy"]
    0.75
    """

    loss: float
    measures: dict[str, float]
    samples: int
    seconds: float

    def __getitem__(self, name: str) -> float:
        """One of the measures, or the loss."""
        return self.loss if name == "loss" else self.measures[name]


@dataclass
class Sums:
    """The sums of one pass over samples while it goes on.

    A true mean over samples weighs each batch's mean by the batch's size: the last batch may be smaller.

    Examples
    --------
    >>> sums = Sums()
    >>> sums.add(loss=1.0, samples=2, measured={"accuracy": 1.0})
    >>> sums.add(loss=4.0, samples=1, measured={"accuracy": 1.0})
    >>> sums.score().loss, sums.score().measures
    (2.0, {'accuracy': 0.6666666666666666})
    """

    loss: float = 0.0
    samples: int = 0
    measured: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0

    def add(self, loss: float, samples: int, measured: dict[str, float]) -> None:
        """Add a batch: the mean of its loss, and the sums over its samples of what else is measured."""
        self.loss += loss * samples
        self.samples += samples
        for name, value in measured.items():
            self.measured[name] = self.measured.get(name, 0.0) + value

    def score(self) -> Score:
        """The means so far; of no samples, nan."""
        samples = self.samples or math.nan
        means = {name: value / samples for name, value in self.measured.items()}
        return Score(self.loss / samples, means, self.samples, self.seconds)


@dataclass(frozen=True)
class Evaluation:
    """A look at all splits, after an epoch or some steps.

    Parameters
    ----------
    step : int
        Training steps done since the start.
    epoch : int
        The epoch that it is in, or after which it comes, from 1.
    whole : bool
        Whether that epoch is over.
    scores : dict of str to Score
        Of each split; of "train" the means over the epoch so far, while the weights changed.
    """

    step: int
    epoch: int
    whole: bool
    scores: dict[str, Score]

    @classmethod
    def from_json(cls, kept: dict[str, Any]) -> Self:
        """What `dataclasses.asdict` gave."""
        return cls(**kept | {"scores": {name: Score(**score) for name, score in kept["scores"].items()}})


@dataclass
class Progress:
    """Where a training stands: all of it that is no tensor.

    Parameters
    ----------
    epoch : int
        Whole epochs done.
    batch : int
        Batches done of the epoch under way.
    step : int
        Training steps done since the start, skipped ones included.
    sums : Sums
        Of the epoch under way.
    skipped : int
        Steps whose loss or gradient was not finite and that changed nothing.
    gradient_norm : float
        The last step's L2 norm over all parameters, before clipping.
    best : Evaluation or None
        The one that chose the best weights.
    since_best : int
        Evaluations since then.
    ended : bool
        Whether the training has come to its end, by its last epoch or by early stopping.
    seconds : float
        Time spent training and evaluating, interruptions left out.
    """

    epoch: int = 0
    batch: int = 0
    step: int = 0
    sums: Sums = field(default_factory=Sums)
    skipped: int = 0
    gradient_norm: float = 0.0
    best: Evaluation | None = None
    since_best: int = 0
    ended: bool = False
    seconds: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """As JSON knows it; every number comes back as it was."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, kept: dict[str, Any]) -> Self:
        """What `to_json` gave.

        Examples
        --------
        >>> evaluation = Evaluation(3, 1, True, {"dev": Score(0.5, {}, 4, 0.1)})
        >>> Progress.from_json(Progress(best=evaluation).to_json()).best == evaluation
        True
        """
        best = None if kept["best"] is None else Evaluation.from_json(kept["best"])
        return cls(**kept | {"sums": Sums(**kept["sums"]), "best": best})


@dataclass
class History:
    """What a training has seen since it began, resumed or not.

    Parameters
    ----------
    step_losses : list of float
        The loss of each step, the mean over its samples.
    evaluations : list of Evaluation
        In their order.
    """

    step_losses: list[float] = field(default_factory=list)
    evaluations: list[Evaluation] = field(default_factory=list)

    def epoch_losses(self) -> list[float]:
        """The training loss of each whole epoch."""
        return [evaluation.scores["train"].loss for evaluation in self.evaluations if evaluation.whole]

    def scores(self, split: str) -> list[tuple[int, Score]]:
        """The step and the score of each evaluation of a split.

        Examples
        --------
        >>> history = History(evaluations=[Evaluation(3, 1, True, {"dev": Score(0.5, {}, 4, 0.1)})])
        >>> [(step, score.loss) for step, score in history.scores("dev")]
        [(3, 0.5)]
        """
        return [(e.step, e.scores[split]) for e in self.evaluations if split in e.scores]
