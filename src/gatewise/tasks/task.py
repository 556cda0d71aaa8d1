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

    from gatewise.train.run import Run


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


class Runner(Protocol):
    """The functions of a module that can run tasks of one kind."""

    def train(self, task: "Task", config: Any, folder: Path, report: Report, resume: bool = False) -> Outcome:
        """Train in a new run folder, or go on in one."""

    def evaluate(self, task: "Task", config: Any, run: "Run", weights: str) -> Score:
        """Evaluate a run's best or last weights on the task's test samples."""

    def predict(self, config: Any, run: "Run", weights: str, given: str) -> Prediction:
        """Apply a run's best or last weights to what a user gives."""

    def judge(self, task: "Task", config: Any, run: "Run", weights: str) -> Verdicts:
        """Evaluate, and keep what each test sample was taken for."""

    def model(self, config: Any, run: "Run", weights: str) -> "nn.Module":
        """A run's model with its best or last weights."""

    def look(self, task: "Task", config: Any, run: "Run", weights: str, given: Sequence[str]) -> Subject:
        """Load the model, and what it can be looked at with: the test samples and what a user gives."""


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
        What gatewise predict may be given, for whoever reads how to go on.
    recipes : mapping of str to mapping
        What each named recipe sets otherwise than the defaults do.
    read_image : callable, default None
        Maps a configuration, a path and (rows, columns) to the pixels of an image from 0 to 1, where the task takes
        more than grey images of the very size.
    """

    name: str
    config: type[TrainConfig]
    splits: Callable[[Any], Mapping[str, Any]]
    test_set: Callable[[Any], Any]
    module: str = "gatewise.tasks.rows"
    sample: str = "image.png"
    recipes: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    read_image: Callable[[Any, str, tuple[int, int]], Any] | None = None

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
    ['digits', 'mnist', 'images', 'digit-sum', 'series', 'sequences']
    """
    from gatewise.tasks import digit_sum, digits, images, mnist, sequences, series

    table = (digits.TASK, mnist.TASK, images.TASK, digit_sum.TASK, series.TASK, sequences.TASK)
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
