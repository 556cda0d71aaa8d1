"""Sequences of digits read by a recurrent network, and the sum told after the last."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from gatewise.data.digit_sum import CLASSES, DIGITS, DigitSums
from gatewise.errors import ArgumentError, DataError
from gatewise.nn import LSTM
from gatewise.nn.initial import initialize
from gatewise.tasks.digit_sum import Cell, DigitSumConfig, splits
from gatewise.tasks.mistakes import Verdicts
from gatewise.tasks.task import Outcome, Prediction, Probe, Report, Sample, Subject, Task, probe_of
from gatewise.tasks.training import Problem, built, counted, train_problem
from gatewise.train.metrics import correct_by_argmax
from gatewise.train.progress import Score
from gatewise.train.run import Run
from gatewise.train.runner import Runner
from gatewise.train.samples import Examples
from gatewise.train.state import fill_weights
from gatewise.train.tensors import read_tensors

WIDTH = 32
"""Numbers in a digit's vector."""

CELLS: dict[Cell, Callable[..., nn.Module]] = {
    "lstm": LSTM,
    "peephole": partial(LSTM, peephole=True),
    "cifg": partial(LSTM, coupled=True),
    "layer-norm": partial(LSTM, layer_norm=True),
    "slstm": partial(LSTM, cell="slstm"),
    "gru": nn.GRU,
    "srn": nn.RNN,
}


class SumClassifier(nn.Module):
    """Digits as vectors, a recurrent network over them, and a linear layer on its output after the last.

    Parameters
    ----------
    config : DigitSumConfig
        What it is made of.
    cell : callable, default: that of `config`
        Makes the recurrent network from the arguments of `torch.nn.LSTM`, such as that class itself.

    Examples
    --------
    >>> SumClassifier(DigitSumConfig())(torch.zeros(5, 10, dtype=torch.int64)).shape
    torch.Size([5, 19])
    """

    def __init__(self, config: DigitSumConfig, cell: Callable[..., nn.Module] | None = None) -> None:
        super().__init__()
        self.embedding = nn.Embedding(DIGITS, WIDTH)
        make = cell or CELLS[config.cell]
        self.cell = make(WIDTH, config.hidden_size, config.num_layers, batch_first=True, dropout=config.dropout)
        self.linear = nn.Linear(config.hidden_size, CLASSES)
        if not config.train_embedding:
            nn.init.xavier_uniform_(self.embedding.weight).requires_grad_(False)
        if config.initial == "zeros":
            initialize(self.cell, "zeros")
        if config.initial == "chrono":
            initialize(self.cell, "chrono", longest=config.length)

    def forward(self, digits: Tensor) -> Tensor:
        """Map digits (B, T) to logits (B, 19); the state before the first is zero."""
        output, _ = self.cell(self.embedding(digits))
        logits: Tensor = self.linear(output[:, -1])
        return logits


def swap_tails(inputs: Tensor, generator: torch.Generator) -> Tensor:
    """Give each sequence (B, T) of digits another's digits from the third on, moved around by some places.

    Examples
    --------
    >>> swap_tails(torch.tensor([[1, 2, 3, 0], [4, 5, 6, 0]]), torch.Generator().manual_seed(1))
    tensor([[1, 2, 0, 6],
            [4, 5, 3, 0]])
    """
    count, length = inputs.shape
    others = torch.randperm(count, generator=generator)
    moved = torch.randint(length - 2, (count, 1), generator=generator)
    places = 2 + (torch.arange(length - 2) + moved) % (length - 2)
    return torch.cat([inputs[:, :2], inputs[others].gather(1, places)], dim=1)


def examples(sums: DigitSums) -> Examples:
    """Sequences (N, T) and labels (N,) as int64."""
    return Examples(torch.from_numpy(sums.sequences), torch.from_numpy(sums.labels))


def problem(config: DigitSumConfig, cell: Callable[..., nn.Module] | None = None) -> Problem:
    """What the settings train."""
    sets = splits(config)
    model = built(config, lambda: SumClassifier(config, cell))
    counts = ", ".join(f"{len(sums)} {name}" for name, sums in sets.items())
    parameters = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    return Problem(
        model,
        cross_entropy,
        {"accuracy": correct_by_argmax},
        {name: examples(sums) for name, sums in sets.items() if name != "test"},
        description={
            "data": f"{counts} sequences of {config.length} digits",
            "model": (
                f"{config.cell} {WIDTH}→{config.hidden_size}, {counted(config.num_layers, 'layer')}, "
                f"{CLASSES} classes, {parameters:,} parameters"
            ),
        },
        augment=swap_tails if config.swap_tails else None,
    )


def train(task: Task, config: DigitSumConfig, folder: Path, report: Report, resume: bool = False) -> Outcome:
    """Train in a run folder: see `train_problem`."""
    return train_problem(task.name, config, problem, folder, report, resume)


def evaluate(task: Task, config: DigitSumConfig, run: Run, weights: str) -> Score:
    """Evaluate a run's weights on the test sequences."""
    runner = _runner(config, run.weights(weights))
    return runner.evaluate(examples(splits(config)["test"]))


def judge(task: Task, config: DigitSumConfig, run: Run, weights: str) -> Verdicts:
    """Refuse: there are no pictures to look at."""
    raise ArgumentError(f"figure is for tasks with images, and {task.name} has sequences: leave it out")


def predict(config: DigitSumConfig, run: Run, weights: str, given: str) -> Prediction:
    """Tell the sum of one sequence."""
    digits = _read(given)
    scores = _runner(config, run.weights(weights)).predict(digits)[0].softmax(dim=0)
    return Prediction(int(scores.argmax()), scores.tolist(), [" ".join(_words(digits))])


def model(config: DigitSumConfig, run: Run, weights: str) -> nn.Module:
    """Make a run's model."""
    return _runner(config, run.weights(weights)).model


def look(task: Task, config: DigitSumConfig, run: Run, weights: str, given: Sequence[str]) -> Subject:
    """Load a run's model, and what it can be looked at with."""
    own = [_read(digits) for digits in given]
    runner = _runner(config, run.weights(weights))
    tested = examples(splits(config)["test"])
    score = runner.evaluate(tested)
    log_scores = runner.predict(tested.inputs).float().log_softmax(dim=1).numpy()
    truth = tested.targets.numpy().astype(np.intp)

    def test_sample(place: int) -> Sample:
        digits = tested.inputs[place : place + 1]
        return Sample(f"test sequence {place}", digits, log_scores[place], int(truth[place]), reads=_words(digits))

    def given_sample(digits: Tensor) -> Sample:
        words = _words(digits)
        of_each = runner.predict(digits)[0].float().log_softmax(dim=0).numpy()
        return Sample(" ".join(words), digits, of_each, None, reads=words)

    return Subject(
        runner.model.eval(),
        cross_entropy,
        score,
        [str(label) for label in range(CLASSES)],
        tested.inputs,
        truth,
        log_scores,
        "digit",
        test_sample,
        [given_sample(digits) for digits in own],
    )


def probe(task: Task, config: DigitSumConfig, run: Run, weights: str, steps: int | None) -> Probe:
    """Load the model, and some of the test sequences."""
    return probe_of(look(task, config, run, weights, ()), config.length, steps)


def _read(given: str) -> Tensor:
    """Digits with spaces between them as (1, T)."""
    words = given.split()
    if len(words) < 2 or any(len(word) != 1 or word not in "0123456789" for word in words):
        raise DataError(
            f"{given!r} is no sequence of digits, needed are at least two with spaces between, such as '6 7 0 0 1 0': "
            "write it so"
        )
    return torch.tensor([[int(word) for word in words]])


def _words(digits: Tensor) -> list[str]:
    """What (1, T) digits are written as."""
    return [str(digit) for digit in digits[0].tolist()]


def _runner(config: DigitSumConfig, path: Path) -> Runner:
    tensors, _ = read_tensors(path)
    model = built(config, lambda: SumClassifier(config))
    fill_weights(model, tensors, path)
    return Runner(model, cross_entropy, config, measures={"accuracy": correct_by_argmax})
