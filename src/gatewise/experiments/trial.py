"""A trial of a search, trained in a process of its own."""

import os
import signal
import traceback
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from gatewise.errors import DivergenceError
from gatewise.tasks.task import Report, tasks
from gatewise.train.config import TrainConfig
from gatewise.train.progress import Evaluation

if TYPE_CHECKING:
    from gatewise.train.runner import Runner

RUNGS = 20
"""Points of a training, equally far apart, at which trials are compared."""


@dataclass(frozen=True)
class Job:
    """A trial to train.

    Parameters
    ----------
    task : str
        The task's name.
    config : TrainConfig
        The settings.
    folder : path
        Its run folder; one that is there already is gone on with.
    reached : int
        The last rung that has been told.
    """

    task: str
    config: TrainConfig
    folder: Path
    reached: int


@dataclass(frozen=True)
class Reached:
    """A trial has come to a rung; the answer is whether it shall end there.

    Parameters
    ----------
    rung : int
        From 1 to RUNGS.
    value : float
        The best on dev so far.
    """

    rung: int
    value: float


@dataclass(frozen=True)
class Ended:
    """A trial is over.

    Parameters
    ----------
    how : {"finished", "pruned", "diverged", "stopped"}
        To its end, by the answer to a rung, by a loss that is no number, or by Ctrl-C.
    value : float or None
        The best on dev.
    epochs : int
        Whole ones that it came to.
    seconds : float
        Of training.
    """

    how: Literal["finished", "pruned", "diverged", "stopped"]
    value: float | None
    epochs: int
    seconds: float


class Trial(Report):
    """Tells how far a training is, and ends it where that is asked for.

    Parameters
    ----------
    job : Job
        What is trained.
    connection : Connection
        To the process that searches.
    stop : Event
        Set when all trials shall stop.
    """

    draws = False

    def __init__(self, job: Job, connection: Connection, stop: Event) -> None:
        self.by = job.config.best_by
        self.reached = job.reached
        self.connection = connection
        self.stop = stop
        self.parent = os.getppid()
        self.pruned = False
        self.epochs = 0
        self.seconds = 0.0

    def step(self, runner: "Runner") -> None:
        """End the training if all shall, or if the process that searches is gone."""
        if self.stop.is_set() or os.getppid() != self.parent:
            runner.stop()

    def evaluation(self, runner: "Runner", evaluation: Evaluation, is_best: bool) -> None:
        """Tell the value at each new rung; between two looks at dev several may have passed."""
        progress = runner.progress
        self.epochs, self.seconds = progress.epoch, progress.seconds
        rung = RUNGS * progress.step // runner.steps
        if "dev" not in evaluation.scores or progress.best is None or rung <= self.reached:
            return
        self.reached = rung
        try:
            self.connection.send(Reached(rung, progress.best.scores["dev"][self.by]))
            self.pruned = self.connection.recv() and not progress.ended
        except (EOFError, OSError):  # nobody is there any more: stop as `step` does
            runner.stop()
        if self.pruned:
            runner.stop()


def work(connection: Connection, stop: Event) -> None:
    """Train one trial after the other, as they come, until there are no more."""
    # Ctrl-C reaches every process of the terminal; until a training hears it itself, it is for the one that searches.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
    try:
        while True:
            job: Job = connection.recv()
            ended: Ended | Exception
            try:
                ended = run_trial(job, connection, stop)
            except Exception as error:
                error.add_note(traceback.format_exc())  # which does not travel otherwise
                ended = error
            connection.send(ended)
    except (EOFError, OSError, KeyboardInterrupt):
        return  # nobody is there any more, or nobody wants to wait


def run_trial(job: Job, connection: Connection, stop: Event) -> Ended:
    """Train, or go on."""
    from gatewise.train.run import Run

    task = tasks()[job.task]
    trial = Trial(job, connection, stop)
    try:
        outcome = task.runner().train(task, job.config, job.folder, trial, resume=Run(job.folder).config.is_file())
    except DivergenceError:
        return Ended("diverged", None, trial.epochs, trial.seconds)
    progress = outcome.progress
    value = None if progress.best is None else progress.best.scores["dev"][job.config.best_by]
    how: Literal["finished", "pruned", "stopped"] = (
        "finished" if progress.ended else "pruned" if trial.pruned else "stopped"
    )
    return Ended(how, value, progress.epoch, progress.seconds)
