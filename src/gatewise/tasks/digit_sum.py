"""The digit-sum memory task: its settings and its data."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from gatewise.data.digit_sum import DigitSums, make_digit_sums, read_digit_sums
from gatewise.errors import ArgumentError
from gatewise.tasks.task import Task
from gatewise.train.config import TrainConfig

Cell = Literal["lstm", "peephole", "cifg", "layer-norm", "slstm", "gru", "srn"]

WITHOUT_FORGET_GATES: tuple[Cell, ...] = ("gru", "srn")
"""The cells that are no LSTM."""


@dataclass(frozen=True, kw_only=True)
class DigitSumConfig(TrainConfig):
    """Add the first two digits of a sequence, and remember the sum to its end: 6 7 0 0 1 0 0 0 0 0 is 13.

    Every pair of digits is in the 300 training sequences: the 100 of dev and the 100 of test ask for the memory past a
    digit that distracts, not for arithmetic. The defaults are the recipe of the textbook experiment; --recipe remember
    is one under which the LSTM does remember.

    Example:
      gatewise train digit-sum --length 20 --run runs/sum
      gatewise train digit-sum --recipe remember --length 100
      gatewise predict runs/sum "6 7 0 0 1 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0"
    """

    length: int = 10
    """Digits in a sequence, at least 3."""

    cell: Cell = "lstm"
    """What remembers: gatewise's LSTM, as it is, with peepholes, with coupled gates, with layer normalization, or the
    sLSTM; torch's GRU; or torch's simple recurrent network (tanh)."""

    data: Path | None = None
    """A folder with train.txt, dev.txt and test.txt: digits, a tab, the label. Without it the seed draws them."""

    initial: Literal["torch", "chrono", "zeros"] = "torch"
    """The first weights: torch's; Xavier's with biases for memories as long as the sequences; or the cell's all 0."""

    train_embedding: bool = True
    """Whether the digits' vectors are trained or stay as they were drawn (Xavier's)."""

    swap_tails: bool = False
    """Each time a batch is seen, its sequences exchange what comes after their first two digits, moved around."""

    hidden_size: int = 32
    num_layers: int = 1
    batch_size: int = 8
    epochs: int = 500
    dev_every: int = 100
    best_by: Literal["loss", "accuracy"] = "accuracy"
    log_every: int = 100

    def __post_init__(self) -> None:
        super().__post_init__()
        self._need("length", 3 <= self.length < 2**31, "a number from 3 to below 2^31")
        self._need("dev_fraction", self.dev_fraction == 0, "0, as the dev split is one of its own")
        fits = self.initial != "chrono" or self.cell not in WITHOUT_FORGET_GATES
        self._need("initial", fits, "torch or zeros where the cell is no LSTM")
        if self.data is not None:
            object.__setattr__(self, "data", self.data.absolute())  # a run is evaluated from anywhere


RECIPES: dict[str, dict[str, object]] = {
    "corrected": {},
    "published": {"initial": "zeros", "train_embedding": False},
    "remember": {
        "initial": "chrono",
        "swap_tails": True,
        "learning_rate": 0.01,
        "schedule": "one-cycle",
        "batch_size": 32,
        "epochs": 600,
        "best_by": "loss",  # the first look at dev without a mistake is far from the last that gets better
    },
}
"""What each recipe sets otherwise."""


def splits(config: DigitSumConfig) -> dict[str, DigitSums]:
    """The training, dev and test sequences.

    Raises
    ------
    DataError
        A file is missing or damaged.
    ArgumentError
        The files hold sequences of another length.
    """
    if config.data is None:
        return make_digit_sums(config.length, config.seed)
    found = read_digit_sums(config.data)
    if found["train"].length != config.length:
        raise ArgumentError(
            f"length is {config.length}, and {config.data} holds sequences of {found['train'].length} digits: give that"
        )
    return found


def test_set(config: DigitSumConfig) -> DigitSums:
    """The test sequences."""
    return splits(config)["test"]


TASK = Task("digit-sum", DigitSumConfig, splits, test_set, "gatewise.tasks.sequence_sum", "'6 7 0 0 1 0'", RECIPES)
