"""A language model: at each character or byte, how likely each is to come next, with the state carried on."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from gatewise.data.text import Document, Vocabulary, read_document
from gatewise.errors import ArgumentError, RunError
from gatewise.nn import LSTM
from gatewise.tasks.mistakes import Verdicts
from gatewise.tasks.task import PROBED, Outcome, Prediction, Probe, Report, Subject, Task
from gatewise.tasks.text import TextConfig
from gatewise.tasks.training import Problem, built, counted, train_problem
from gatewise.train.carried import State
from gatewise.train.lanes import NO_TARGET, Lanes, Track
from gatewise.train.progress import Score
from gatewise.train.run import Run
from gatewise.train.runner import Loss, Measure, Runner
from gatewise.train.state import fill_weights
from gatewise.train.tensors import read_tensors

READ = 128
"""Steps of dev and test that go through the model at once; the state is carried on, and the result the same."""


class LanguageModel(nn.Module):
    """An embedding, an LSTM and a linear layer, from numbers to the scores of each number to come next.

    Parameters
    ----------
    vocabulary : Vocabulary
        What the numbers stand for.
    embedding_size : int
        Numbers by which one is read (E).
    hidden_size, num_layers, dropout
        Of the LSTM.
    tied : bool, default False
        Whether the weights of the embedding are those of the last layer as well (Press & Wolf 2017). Where
        `hidden_size` is not E, a linear layer without bias leads from one to the other before it.
    lstm : callable, default gatewise.nn.LSTM
        Makes the LSTM from the arguments of `torch.nn.LSTM`, such as that class itself.

    Attributes
    ----------
    vocabulary : Vocabulary
        As given.

    Examples
    --------
    >>> model = LanguageModel(Vocabulary("characters", "abn"), 8, 16, tied=True)
    >>> logits, (h_n, c_n) = model(torch.tensor([[1, 0, 2]]))
    >>> logits.shape, h_n.shape
    (torch.Size([1, 3, 4]), torch.Size([1, 1, 16]))
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        embedding_size: int,
        hidden_size: int,
        num_layers: int = 1,
        dropout: float = 0.0,
        tied: bool = False,
        lstm: Callable[..., nn.Module] = LSTM,
    ) -> None:
        super().__init__()
        self.vocabulary = vocabulary
        self.embedding = nn.Embedding(vocabulary.size, embedding_size)
        self.lstm = lstm(embedding_size, hidden_size, num_layers, batch_first=True, dropout=dropout)
        differs = hidden_size != embedding_size
        self.to_embedding = nn.Linear(hidden_size, embedding_size, bias=False) if tied and differs else None
        self.linear = None if tied else nn.Linear(hidden_size, vocabulary.size)
        self.bias = nn.Parameter(torch.zeros(vocabulary.size)) if tied else None
        if tied:  # as a linear layer's weights begin, which these are too
            nn.init.uniform_(self.embedding.weight, -1 / math.sqrt(embedding_size), 1 / math.sqrt(embedding_size))

    def forward(self, numbers: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Map numbers (B, T) and the state before them, zero if None, to logits (B, T, V) and the state after them."""
        output, after = self.lstm(self.embedding(numbers), state)
        if self.linear is not None:
            return self.linear(output), after
        if self.to_embedding is not None:
            output = self.to_embedding(output)
        return nn.functional.linear(output, self.embedding.weight, self.bias), after


def nats(vocabulary: Vocabulary) -> Callable[[Tensor, Tensor], Tensor]:
    """The sum of -ln p over targets, from logits (B, T, V) and targets (B, T) that may be `NO_TARGET`.

    An unknown character costs more than that it is one: any of those that the training never saw is as likely as
    another, so that what is not known makes no text look easier.

    Examples
    --------
    >>> import numpy as np
    >>> known, targets = Vocabulary("characters", "abn"), torch.tensor([[3]])
    >>> costs = nats(known)(torch.zeros(1, 1, 4), targets).item()
    >>> round(costs, 3) == round(math.log(4) + math.log(known.unseen), 3)
    True
    """

    def total(outputs: Tensor, targets: Tensor) -> Tensor:
        costs = cross_entropy(outputs.flatten(0, 1), targets.flatten(), ignore_index=NO_TARGET, reduction="sum")
        if vocabulary.unknown is not None:
            costs = costs + (targets == vocabulary.unknown).sum() * math.log(vocabulary.unseen)
        return costs

    return total


def loss_of(vocabulary: Vocabulary) -> Loss:
    """The mean of -ln p over targets: see `nats`."""
    total = nats(vocabulary)
    return lambda outputs, targets: total(outputs, targets) / (targets != NO_TARGET).sum()


def measures_of(vocabulary: Vocabulary) -> dict[str, Measure]:
    """The sum of -log2 p over targets, by its name."""
    total = nats(vocabulary)
    name = f"bits_per_{vocabulary.unit.removesuffix('s')}"
    return {name: lambda outputs, targets: total(outputs, targets) / math.log(2)}


def document_of(config: TextConfig, vocabulary: Vocabulary | None = None) -> Document:
    """Read what the settings name: see `read_document`."""
    return read_document(config.data, config.unit, config.dev_fraction, config.test_fraction, vocabulary)


def lanes_of(document: Document, config: TextConfig) -> dict[str, Lanes]:
    """The parts of a document, each the numbers and those that come after them; no "dev" where its fraction is 0.

    Each begins with what is foretold from the last number of the part before: of dev and test everything counts.

    Raises
    ------
    ArgumentError
        The training part has less than a chunk for each lane.
    """
    dev, test = document.borders
    chunked = config.chunked
    needed = config.batch_size * chunked.length
    if dev - 1 < needed:
        raise ArgumentError(
            f"{config.data} has {dev:,} {config.unit} to train on, needed are {needed + 1:,} for {config.batch_size} "
            f"lanes and chunks of {chunked.length}: give a longer text, or lower batch_size or bptt"
        )
    numbers = document.numbers
    borders = {"train": (1, dev), "dev": (dev, test), "test": (test, len(numbers))}
    found = {}
    for part, (start, stop) in borders.items():
        if part != "dev" or config.dev_fraction:
            track = Track(numbers.part(start - 1, stop - 1), numbers.part(start, stop))
            found[part] = (
                Lanes(track, chunked.chunks, chunked.length, config.seed)
                if part == "train"
                else Lanes(track, (READ, READ), READ, evaluated_in=1 if part == "test" else 0)
            )
    return found


def problem(config: TextConfig) -> Problem:
    """What the settings train."""
    document = document_of(config)
    vocabulary = document.vocabulary
    lanes = lanes_of(document, config)
    model = build(vocabulary, config)
    parts = ", ".join(f"{len(own):,} {name}" for name, own in lanes.items())
    known = f" of {len(vocabulary.characters):,} kinds" if vocabulary.unit == "characters" else ""
    parameters = sum(parameter.numel() for parameter in model.parameters())
    tied = ", tied" if config.tied else ""
    return Problem(
        model,
        loss_of(vocabulary),
        measures_of(vocabulary),
        {name: own for name, own in lanes.items() if name != "test"},
        about={"characters": vocabulary.characters},
        description={
            "data": f"{parts} {config.unit}{known}",
            "read": (
                f"in {config.batch_size} lanes of {-(-len(lanes['train']) // config.batch_size):,}, bptt {config.bptt}"
            ),
            "model": (
                f"embedding {config.embedding_size}{tied}, LSTM {config.embedding_size}→{config.hidden_size}, "
                f"{counted(config.num_layers, 'layer')}, {parameters:,} parameters"
            ),
        },
        unit=f"cross-entropy loss (nats per {config.unit.removesuffix('s')})",
        carries=True,
    )


def build(vocabulary: Vocabulary, config: TextConfig, lstm: Callable[..., nn.Module] = LSTM) -> LanguageModel:
    """The model of the settings, fresh."""
    sizes = (config.embedding_size, config.hidden_size, config.num_layers)
    return built(config, lambda: LanguageModel(vocabulary, *sizes, config.dropout, config.tied, lstm))


def train(task: Task, config: TextConfig, folder: Path, report: Report, resume: bool = False) -> Outcome:
    """Train in a run folder: see `train_problem`."""
    return train_problem(task.name, config, problem, folder, report, resume)


@dataclass(frozen=True)
class Foretold:
    """How well the test part was foretold.

    Parameters
    ----------
    score : Score
        Loss in nats, and bits.
    unknown : int
        Characters in it that the training never saw.
    """

    score: Score
    unknown: int

    @property
    def perplexity(self) -> float:
        """As of how many equally likely characters or bytes one would have to be chosen each time: 2 to the bits."""
        return math.exp(self.score.loss)


def foretell(config: TextConfig, run: Run, weights: str) -> Foretold:
    """Read the test part once from its beginning to its end, from a fresh state: see `tasks.task.Runner`."""
    found = model(config, run, weights)
    vocabulary = found.vocabulary
    runner = Runner(found, loss_of(vocabulary), config, measures=measures_of(vocabulary), carries=True)
    part = lanes_of(document_of(config, vocabulary), config)["test"]
    targets = part.track.targets
    unknown = sum(int((targets[at : at + 2**20] == vocabulary.unknown).sum()) for at in range(0, len(targets), 2**20))
    return Foretold(runner.evaluate(part), unknown)


def evaluate(task: Task, config: TextConfig, run: Run, weights: str) -> Score:
    """Loss (nats) and bits over the test part: see `foretell`."""
    return foretell(config, run, weights).score


def model(config: TextConfig, run: Run, weights: str) -> LanguageModel:
    """A run's model with its weights."""
    path = run.weights(weights)
    tensors, kept = read_tensors(path)
    if "characters" not in kept:
        raise RunError(f"{path} is not of a model of text: take the run's own file")
    found = build(Vocabulary(config.unit, kept["characters"]), config)
    fill_weights(found, tensors, path)
    return found


def probe(task: Task, config: TextConfig, run: Run, weights: str, steps: int | None) -> Probe:
    """Load the model, and stretches of the test part; the loss is that of what comes after each."""
    found = model(config, run, weights)
    lanes = lanes_of(document_of(config, found.vocabulary), config)
    track = lanes["test"].track
    length = steps or min(4 * config.chunked.reach, len(track.targets))
    if length > len(track.targets):
        raise ArgumentError(
            f"steps is {length}, and the test part has {len(track.targets):,} {config.unit}: make it smaller"
        )
    most = max(1, min(PROBED, len(track.targets) // length))
    starts = np.linspace(0, len(track.targets) - length, most).round().astype(np.intp)
    numbers = np.stack([track.inputs[start : start + length] for start in starts]).astype(np.int64)
    last = np.stack([track.targets[start + length - 1 : start + length] for start in starts]).astype(np.int64)
    loss, targets = loss_of(found.vocabulary), torch.from_numpy(last)
    unit = config.unit.removesuffix("s")
    return Probe(
        found.eval(),
        (torch.from_numpy(numbers), None),
        lambda out: loss(out[0][:, -1:], targets),
        most,
        length,
        unit,
        min(config.chunked.reach, lanes["train"].longest(config.batch_size)),
    )


def judge(task: Task, config: TextConfig, run: Run, weights: str) -> Verdicts:
    """Refuse: there is no confusion matrix of characters."""
    raise ArgumentError(f"a confusion matrix is for tasks with classes, and {task.name} has none: leave figure out")


def predict(config: TextConfig, run: Run, weights: str, given: str) -> Prediction:
    """Refuse: a text is gone on with; see `gatewise.tasks.generation`."""
    raise ArgumentError("text is gone on with and has no classes: see gatewise generate --help")


def look(task: Task, config: TextConfig, run: Run, weights: str, given: Sequence[str]) -> Subject:
    """Refuse: the report is of classes."""
    raise ArgumentError(
        f"gatewise inspect is for forecasts and tasks with classes, and {task.name} is neither: see gatewise "
        "generate, or gatewise.record(gatewise.load(RUN))"
    )
