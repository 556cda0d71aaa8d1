"""What training is for every task: from a problem to a run folder."""

import dataclasses
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import torch
from torch import nn

from gatewise.errors import ArgumentError
from gatewise.tasks.task import Outcome, Report
from gatewise.train.config import TrainConfig, write_config
from gatewise.train.curves import UNITS
from gatewise.train.keeper import train_in
from gatewise.train.parallel import processes
from gatewise.train.run import Run
from gatewise.train.runner import Augment, Loss, Measure, Runner, check_choice
from gatewise.train.samples import Samples
from gatewise.train.tensorboard import TensorBoard

Config = TypeVar("Config", bound=TrainConfig)
Model = TypeVar("Model", bound=nn.Module)


@dataclass(frozen=True, eq=False)
class Problem:
    """What a task trains.

    Parameters
    ----------
    model : Module
        Fresh.
    loss : callable
        Maps outputs and targets to the mean loss over a batch.
    measures : mapping of str to callable
        Each maps outputs and targets to a sum over a batch.
    splits : mapping of str to Samples
        "train", and others that are evaluated as it goes; "dev" chooses the best weights.
    about : mapping of str to str
        Is kept with the weights: what they need besides the settings.
    description : mapping of str to str
        A line each by its name, for whoever watches.
    augment : callable, default None
        Changes the inputs of each training batch.
    unit : str, default: of the cross-entropy
        What the loss is, for figures.
    carries : bool, default False
        Whether a state is carried from batch to batch: see `Runner`.
    """

    model: nn.Module
    loss: Loss
    measures: Mapping[str, Measure]
    splits: Mapping[str, Samples]
    about: Mapping[str, str] = field(default_factory=dict)
    description: Mapping[str, str] = field(default_factory=dict)
    augment: Augment | None = None
    unit: str = UNITS["loss"]
    carries: bool = False


def train_problem(
    name: str,
    config: Config,
    make: Callable[[Config], Problem],
    folder: Path,
    report: Report,
    resume: bool = False,
) -> Outcome:
    """Train in a run folder, and keep there the settings, the metrics, checkpoints, the weights and the curves.

    Parameters
    ----------
    name : str
        The task's.
    config : TrainConfig
        The settings.
    make : callable
        Reads the data and makes the model, the same for the same settings: torch is seeded before.
    folder : path
        The run folder, new or empty. It is made once the data are read and in order.
    report : Report
        Hears how it goes.
    resume : bool, default False
        Go on in a run folder, from its newest checkpoint.

    Returns
    -------
    Outcome
        How it ended, Ctrl-C and SIGTERM included.

    Raises
    ------
    DataError
        The data are missing or damaged.
    ArgumentError
        The settings do not fit the data, or the model not into memory.
    RunError
        The folder is not empty, has no checkpoint to go on from, or the disk is full.
    DivergenceError
        A loss or a gradient is not finite; the weights before the step are kept.
    """
    together = processes()
    config = with_threads(config)
    boards = [TensorBoard(folder / "tensorboard")] if config.tensorboard else []
    torch.manual_seed(config.seed)
    problem = make(config)
    check_choice(config, problem.splits, problem.measures)
    run = Run(folder)
    if together.rank == 0 and not resume:
        run = Run.create(folder)
        write_config(run.config, name, config)
    runner = Runner(
        problem.model,
        problem.loss,
        config,
        measures=problem.measures,
        augment=problem.augment,
        processes=together,
        carries=problem.carries,
    )
    shared = {"shared": f"by {together.count} processes"} if together.count > 1 else {}
    report.about({**problem.description, "recipe": recipe(config), **shared})
    others = {split: examples for split, examples in problem.splits.items() if split != "train"}
    with ExitStack() as open_ones:
        signal = train_in(
            run,
            runner,
            problem.splits["train"],
            others,
            about={"task": name, **problem.about},
            title=f"{name}, seed {config.seed}",
            resume=resume,
            callbacks=[report, *(open_ones.enter_context(board) for board in boards)],
            say=report.say,
            draws=report.draws,
            unit=problem.unit,
        )
    extreme = "highest" if config.best_by == "accuracy" else "lowest"
    return Outcome(runner.progress, f"{extreme} {'dev' if 'dev' in others else 'training'} {config.best_by}", signal)


def with_threads(config: Config) -> Config:
    """Set the number of threads, and write down which it is where torch chooses."""
    if config.threads:
        torch.set_num_threads(config.threads)
    return dataclasses.replace(config, threads=torch.get_num_threads())


def recipe(config: TrainConfig) -> str:
    """The settings of the training in a line.

    Examples
    --------
    >>> recipe(TrainConfig(threads=2, schedule="cosine"))
    'adam 0.001 cosine, batches of 100, 30 epochs, seed 0, 2 threads'
    """
    schedule = "" if config.schedule == "constant" else f" {config.schedule}"
    accumulated = "" if config.accumulate == 1 else f" {config.accumulate}×"
    return (
        f"{config.optimizer} {config.learning_rate:g}{schedule}, batches of{accumulated} {config.batch_size}, "
        f"{counted(config.epochs, 'epoch')}, seed {config.seed}, {counted(config.threads, 'thread')}"
    )


def counted(number: int, thing: str) -> str:
    """A number of things."""
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def built(config: TrainConfig, build: Callable[[], Model]) -> Model:
    """A model, if it fits into memory.

    Raises
    ------
    ArgumentError
        It does not.
    """
    try:
        return build()
    except RuntimeError as error:  # torch's way of saying that there is no memory for the weights
        raise ArgumentError(
            f"hidden_size is {config.hidden_size}, needed is a model that fits into memory ({error}): make it smaller"
        ) from error
