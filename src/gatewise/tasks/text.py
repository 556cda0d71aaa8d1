"""Text of one's own, read and written character by character: the settings, and the samples that they make."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, cast

import tyro

from gatewise.tasks.bptt import METAVAR, NEEDED, Bptt, parse_bptt
from gatewise.tasks.task import Task
from gatewise.train.config import TrainConfig
from gatewise.train.schedule import ScheduleName

if TYPE_CHECKING:
    from gatewise.train.lanes import Lanes


@dataclass(frozen=True, kw_only=True)
class TextConfig(TrainConfig):
    """Learn a text file: at each character, how likely each character is to be the next one.

    The training part is cut into as many lanes as a batch has rows, which are read side by side from beginning to end;
    the LSTM's state is carried on from chunk to chunk, and the gradient ends with the chunk (--bptt). The end of the
    file is the test part and what is before it the dev part, which chooses the best weights; nothing is shuffled.

    A text is UTF-8, Chinese as well as English, and nothing in it is changed, line ends included. The characters known
    are those of the training part. One that comes later for the first time is read as unknown, and costs the bits of
    the unknown and those of which one it is, of all characters that there are; --unit bytes knows everything.

    However long the file is, only what is read next is in memory. Characters are kept as numbers, one to four bytes
    each, in a temporary file that is gone when the training is (TMPDIR says where).

    Example:
      gatewise train text --data book.txt --run runs/book
      gatewise train text --data book.txt --unit bytes --tied --bptt 50/100
      gatewise evaluate runs/book
      gatewise generate runs/book --prompt "In the beginning" --temperature 0.8
    """

    data: Path
    """The text file, in UTF-8; or any file, with --unit bytes."""

    unit: Literal["characters", "bytes"] = "characters"
    """What is read in a step: a character of UTF-8, or a byte."""

    bptt: Annotated[str, tyro.conf.arg(metavar=METAVAR)] = "64"
    """Steps to a chunk (K1), and through how many of the last steps the gradient flows (K2; as many if left out). Or
    chunks of random length, about 70 or LENGTH, with the learning rate in proportion to it (Merity et al. 2018)."""

    embedding_size: int = 64
    """Numbers by which a character is read."""

    tied: bool = False
    """The weights that read a character are also those that foretell it (Press & Wolf 2017), after a linear layer to
    their size where the LSTM has another."""

    test_fraction: float = 0.1
    """Share of the file that is the test part, the end; above 0 and below 1."""

    dev_fraction: float = 0.05
    """Share of the file set aside before the test part (dev): it chooses the best weights; with 0 training does."""

    hidden_size: int = 256
    num_layers: int = 1
    learning_rate: float = 3e-3
    schedule: ScheduleName = "cosine"
    clip_norm: float = 1.0
    batch_size: int = 16
    """Lanes that are read side by side."""

    eval_batch_size: int = 32
    """Lanes in which dev is read, each from a fresh state. The test part is always read as a whole."""

    epochs: int = 5

    def __post_init__(self) -> None:
        super().__post_init__()
        self._need("embedding_size", 1 <= self.embedding_size < 2**31, "a number from 1 to below 2^31")
        self._need("test_fraction", 0 < self.test_fraction < 1, "a number above 0 and below 1")
        most = 1 - self.test_fraction
        self._need("dev_fraction", self.dev_fraction < most, f"below {most:g}, as test_fraction is the rest to 1")
        self._need("best_by", self.best_by == "loss", "loss")
        self._need("accumulate", self.accumulate == 1, "1, as the state is carried on from batch to batch")
        self._need("bptt", parse_bptt(self.bptt) is not None, NEEDED)
        object.__setattr__(self, "data", self.data.absolute())  # a run is evaluated from anywhere

    @property
    def chunked(self) -> Bptt:
        """How the state is carried on."""
        return cast(Bptt, parse_bptt(self.bptt))  # what is none was refused

    @property
    def things(self) -> str:
        """What is counted."""
        return self.unit


def splits(config: TextConfig) -> "dict[str, Lanes]":
    """The training, dev and test part; no "dev" where its fraction is 0.

    Raises
    ------
    DataError
        The file is not in order.
    ArgumentError
        It is too short for the settings.
    """
    from gatewise.tasks.language import document_of, lanes_of

    return lanes_of(document_of(config), config)


def test_set(config: TextConfig) -> "Lanes":
    """The test part."""
    return splits(config)["test"]


TASK = Task(
    "text", TextConfig, splits, test_set, "gatewise.tasks.language", "--prompt 'A few words'", command="generate"
)
