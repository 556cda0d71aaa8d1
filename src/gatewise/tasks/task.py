"""What a task is, and the table of tasks. Nothing here imports torch until a task is run."""

import dataclasses
import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from gatewise.errors import ArgumentError
from gatewise.tasks.mistakes import Verdicts
from gatewise.train.callback import Callback
from gatewise.train.config import TrainConfig, read_config
from gatewise.train.progress import Progress, Score

if TYPE_CHECKING:
    from torch import Tensor, nn

    from gatewise.tasks.forecast_subject import ForecastSubject
    from gatewise.train.run import Run


PROBED = 64
"""Test sequences of a probe, at most."""


class Report(Callback):
    """Hears how a training goes. This one says nothing; the command line's prints."""

    draws = True
    """Whether the curves are drawn in the end, which takes longer than a small training."""

    def about(self, lines: Mapping[str, str]) -> None:
        """Before the first epoch: what is trained on what, a line each by its name."""

    def say(self, line: str) -> None:
        """Whatever else is to be known."""


@dataclass(frozen=True)
class Outcome:
    """How a training ended.

    Parameters
    ----------
    progress : Progress
        Where it stands.
    chosen_by : str
        What chose the best weights.
    signal : int
        What ended it early, such as Ctrl-C; 0 if nothing did.
    """

    progress: Progress
    chosen_by: str
    signal: int


@dataclass(frozen=True)
class Prediction:
    """What a model makes of one sample.

    Parameters
    ----------
    label : int
        The class of the highest score.
    scores : list of float
        The probability of each class (softmax of the logits), which add up to 1.
    shown : list of str
        What was given as the model read it, in lines of characters.
    names : list of str, default: none
        What each class is called, where it is not by its number.
    """

    label: int
    scores: list[float]
    shown: list[str]
    names: list[str] = field(default_factory=list)


@dataclass(frozen=True, eq=False)
class Sample:
    """One sequence that a model reads.

    Parameters
    ----------
    name : str
        A file, or its place among the test samples.
    input : Tensor, shape (1, ...)
        As the model takes it.
    log_scores : float32 array, shape (classes,)
        The logarithm of the probability that the model gives each class.
    truth : int or None
        Its class, where that is known.
    picture : float32 array, shape (rows, columns) or (rows, columns, 3), default None
        From 0 to 1, of a sample that can be looked at.
    reads : sequence of str, default: none
        What the model reads at each step, where that can be said in a word.
    """

    name: str
    input: "Tensor"
    log_scores: NDArray[np.float32]
    truth: int | None
    picture: NDArray[np.float32] | None = None
    reads: Sequence[str] = ()

    @property
    def taken_for(self) -> int:
        """The class of the highest score, the first of equals."""
        return int(self.log_scores.argmax())


@dataclass(frozen=True, eq=False)
class Subject:
    """A trained model, and what it can be looked at with.

    Parameters
    ----------
    model : Module
        With the run's weights, in evaluation mode.
    loss : callable
        Maps outputs and targets to the mean loss over a batch.
    score : Score
        Of all test samples.
    names : sequence of str
        What each class is called.
    inputs : Tensor, shape (N, ...)
        The test samples, as the model takes them.
    truth : integer array, shape (N,)
        The class of each.
    log_scores : float32 array, shape (N, classes)
        The logarithm of the probability that the model gives each class.
    step : str
        What a step of a sequence is, such as "row".
    test_sample : callable
        Maps the place of a test sample to it.
    given : sequence of Sample
        What was given beside them.
    lengths : integer tensor, shape (N,), default None
        Of the test samples, where they differ: the model takes them as its second argument.
    """

    model: "nn.Module"
    loss: "Callable[[Tensor, Tensor], Tensor]"
    score: Score
    names: Sequence[str]
    inputs: "Tensor"
    truth: NDArray[np.intp]
    log_scores: NDArray[np.float32]
    step: str
    test_sample: Callable[[int], Sample]
    given: Sequence[Sample]
    lengths: "Tensor | None" = None


@dataclass(frozen=True, eq=False)
class Probe:
    """A trained model on some test sequences, on which its gradient can be followed back.

    Parameters
    ----------
    model : Module
        With the run's weights, in evaluation mode.
    inputs : tuple
        What it is called with.
    loss : callable
        Maps what it returns to the task's loss there.
    sequences, steps : int
        How many sequences these are, and how long the longest is.
    step : str
        What a step is, such as "row".
    reach : int or None
        Through how many steps gradients flowed in training at the most; None: through whole sequences.
    """

    model: "nn.Module"
    inputs: tuple[Any, ...]
    loss: "Callable[[Any], Tensor]"
    sequences: int
    steps: int
    step: str
    reach: int | None = None


def probe_of(subject: Subject, length: int, steps: int | None) -> Probe:
    """A probe of what there is to look at: some of the test samples, taken evenly from all.

    Parameters
    ----------
    subject : Subject
        Has them.
    length : int
        How many steps each has.
    steps : int or None
        How many are asked for.

    Raises
    ------
    ArgumentError
        Another length is asked for than theirs.
    """
    import torch

    if steps not in (None, length):
        raise ArgumentError(f"steps is {steps}, and the sequences have {length} {subject.step}s: leave it out")
    places = torch.linspace(0, len(subject.truth) - 1, min(PROBED, len(subject.truth))).round().long()
    targets = torch.from_numpy(subject.truth)[places]
    inputs = (subject.inputs[places],)
    return Probe(subject.model, inputs, lambda out: subject.loss(out, targets), len(places), length, subject.step)


class Runner(Protocol):
    """The functions of a module that can run tasks of one kind.

    Of those that take a run, `config` are its settings, `weights` says which ones ("best" or "last"), and `given` is
    what a user gives: a path, or what the task reads. They raise RunError where the weights are missing, damaged or not
    those of the settings, DataError where the data or what is given are missing, damaged or not like those trained on,
    and ArgumentError where the task has nothing of the kind.
    """

    def train(self, task: "Task", config: Any, folder: Path, report: Report, resume: bool = False) -> Outcome:
        """Train in a new run folder, or go on in one: see `gatewise.tasks.training.train_problem`."""

    def evaluate(self, task: "Task", config: Any, run: "Run", weights: str) -> Score:
        """The loss (a mean over samples) and the measures of a run's weights on the task's test samples."""

    def predict(self, config: Any, run: "Run", weights: str, given: str) -> Prediction:
        """Apply a run's weights to what a user gives."""

    def judge(self, task: "Task", config: Any, run: "Run", weights: str) -> Verdicts:
        """Evaluate, and keep what each test sample was taken for."""

    def model(self, config: Any, run: "Run", weights: str) -> "nn.Module":
        """A run's model with its weights."""

    def look(
        self, task: "Task", config: Any, run: "Run", weights: str, given: Sequence[str]
    ) -> "Subject | ForecastSubject":
        """Load the model, and what it can be looked at with: the test samples and what a user gives."""

    def probe(self, task: "Task", config: Any, run: "Run", weights: str, steps: int | None) -> Probe:
        """Load the model and some test sequences, of so many steps; None: of as many as suit."""


@dataclass(frozen=True)
class Task:
    """Something that gatewise can be trained to do.

    Parameters
    ----------
    name : str
        As on the command line.
    config : class
        Its settings, with its recipe as defaults; the docstring is its help.
    splits : callable
        Maps a configuration to the sets of samples "train", "dev" (or none) and "test".
    test_set : callable
        Maps a configuration to the set "test" alone.
    module : str, default "gatewise.tasks.rows"
        The module whose `train`, `evaluate` and `predict` run it. It is imported when they are called: torch
        takes a second, and --help should not.
    sample : str, default "image.png"
        What its `command` may be given, for whoever reads how to go on.
    recipes : mapping of str to mapping
        What each named recipe sets otherwise than the defaults do.
    read_image : callable, default None
        Maps a configuration, a path and (rows, columns) to the pixels of an image from 0 to 1, where the task takes
        more than grey images of the very size.
    command : str, default "predict"
        The command of gatewise that uses a trained model.
    """

    name: str
    config: type[TrainConfig]
    splits: Callable[[Any], Mapping[str, Any]]
    test_set: Callable[[Any], Any]
    module: str = "gatewise.tasks.rows"
    sample: str = "image.png"
    recipes: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    read_image: Callable[[Any, str, tuple[int, int]], Any] | None = None
    command: str = "predict"

    def runner(self) -> Runner:
        """The module that runs it."""
        return cast(Runner, importlib.import_module(self.module))

    def with_data(self, config: TrainConfig, data: Path) -> TrainConfig:
        """The configuration with its data taken from another place: the test part's, where that has a file of its own.

        Raises
        ------
        ArgumentError
            The task's data come with gatewise.
        """
        if not hasattr(config, "data"):
            raise ArgumentError(f"--data is {data}, but the data of {self.name} come with gatewise: leave it out")
        changes: dict[str, Any] = {"data" if getattr(config, "test", None) is None else "test": data}
        return dataclasses.replace(config, **changes)


def tasks() -> dict[str, Task]:
    """The table of tasks, each by its name.

    Examples
    --------
    >>> list(tasks())
    ['digits', 'mnist', 'images', 'digit-sum', 'series', 'text', 'sequences']
    """
    from gatewise.tasks import digit_sum, digits, images, mnist, sequences, series, text

    table = (digits.TASK, mnist.TASK, images.TASK, digit_sum.TASK, series.TASK, text.TASK, sequences.TASK)
    return {task.name: task for task in table}


def task_of(run: "Run") -> tuple[Task, TrainConfig]:
    """The task of a run folder and its settings.

    Raises
    ------
    RunError
        The folder's config.toml is missing or not in order.
    """
    table = tasks()
    name, config = read_config(run.config, {task.name: task.config for task in table.values()})
    return table[name], config
