"""A search for settings: Optuna proposes, processes train, a journal remembers."""

import math
import multiprocessing
import os
import signal
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import TPESampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from gatewise.errors import RunError
from gatewise.experiments.trial import RUNGS, Ended, Job, Reached, work
from gatewise.experiments.tune import Choice, Dimension, Search, Value
from gatewise.train.run import Run
from gatewise.train.signals import heard

JOURNAL = "journal.log"
FIRST_RUNG = RUNGS // 10
"""No trial is pruned before."""

STARTUP = 5
"""Trials that finish before one is pruned."""

HEARD_SECONDS = 0.2
"""Ctrl-C is heard after so long at most."""

GRACE_SECONDS = 5.0
"""Then a process that has not stopped by itself, as it is still starting or in a long step, is killed."""


@dataclass(frozen=True)
class TrialResult:
    """What a trial came to.

    Parameters
    ----------
    number : int
        From 0.
    how : {"finished", "pruned", "diverged"}
        Whether it came to its end.
    value : float or None
        The best on dev.
    settings : dict
        Of the space.
    epochs : int
        Whole ones that it came to.
    seconds : float
        Of training.
    folder : str
        Its run folder.
    """

    number: int
    how: str
    value: float | None
    settings: dict[str, Value]
    epochs: int
    seconds: float
    folder: str

    def to_json(self) -> dict[str, Any]:
        """As JSON knows it."""
        return asdict(self)


@dataclass(frozen=True)
class Found:
    """What a search has found so far.

    Parameters
    ----------
    trials : list of TrialResult
        Those that are over, in their order.
    importances : dict of str to float
        The share that each setting has in the differences, the largest first; empty where there are too few trials.
    signal : int
        What ended the search early, such as Ctrl-C; 0 if nothing did.
    """

    trials: list[TrialResult]
    importances: dict[str, float]
    signal: int


def ranked(trials: list[TrialResult], by: str) -> list[TrialResult]:
    """Those that finished, the best first, and the first of equals.

    Examples
    --------
    >>> trials = [TrialResult(n, "finished", value, {}, 1, 1.0, "") for n, value in enumerate([0.5, 0.7, 0.7])]
    >>> [trial.number for trial in ranked(trials, "accuracy")]
    [1, 2, 0]
    """
    sign = 1 if by == "loss" else -1
    finished = [(sign * trial.value, trial) for trial in trials if trial.how == "finished" and trial.value is not None]
    return [trial for _, trial in sorted(finished, key=lambda pair: (pair[0], pair[1].number))]


def run_search(search: Search, folder: Path, done: Callable[[list[TrialResult]], None]) -> Found:
    """Run what trials are left, several at a time.

    Trials that an earlier call left under way go on from their checkpoints. What is proposed depends on the seed, on
    the trial's number and on the trials that are over or under way: with one process, an interrupted search finds what
    one that was not interrupted finds.

    Parameters
    ----------
    search : Search
        What is searched.
    folder : path
        Holds the journal, and a run folder for each trial.
    done : callable
        Takes all trials that are over, once at the start and then as each ends.

    Returns
    -------
    Found
        Ctrl-C and SIGTERM included, with what there is then.

    Raises
    ------
    RunError
        The folder holds something else, or another process searches there; a process died.
    GatewiseError
        Of the first trial that failed.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    run = Run(folder)
    if not (folder / JOURNAL).is_file():
        Run.create(folder)
    with run.locked():
        study = _open(search, folder)
        done(_results(study, folder))
        cores = len(os.sched_getaffinity(0))
        with _Pool(search.processes or max(1, cores // (search.base.threads or 1))) as pool, heard(pool.stop):
            _go_on(search, study, folder, pool, lambda: done(_results(study, folder)))
        results = _results(study, folder)
        return Found(results, _importances(study), pool.signal)


def _open(search: Search, folder: Path) -> optuna.Study:
    """The study of a folder, new or as it was left."""
    journal = folder / JOURNAL
    (folder / f"{JOURNAL}.lock").unlink(missing_ok=True)  # of one that was killed while it wrote: nobody else does
    if journal.is_file():
        kept = journal.read_bytes()
        os.truncate(journal, kept.rfind(b"\n") + 1)  # and what it wrote then
    pruner: optuna.pruners.BasePruner = optuna.pruners.NopPruner()
    if search.pruner == "median":
        pruner = optuna.pruners.MedianPruner(n_startup_trials=STARTUP, n_warmup_steps=FIRST_RUNG)
    try:
        storage = JournalStorage(JournalFileBackend(str(journal)))
        if not optuna.get_all_study_names(storage):
            by_loss = search.base.best_by == "loss"
            optuna.create_study(storage=storage, study_name="gatewise", direction="minimize" if by_loss else "maximize")
        study = optuna.load_study(storage=storage, study_name="gatewise", pruner=pruner)
        before = study.user_attrs.get("search", {})
    except (ValueError, KeyError, TypeError) as error:
        raise RunError(f"{journal} cannot be read as Optuna's journal ({error}): give another --run") from error
    identity = search.identity()
    if not before:
        study.set_user_attr("search", identity)
    elif before != identity:
        differing = [name for name in identity if before.get(name) != identity[name]]
        said = "; ".join(f"{name} was {before.get(name)}, is {identity[name]}" for name in differing)
        raise RunError(f"{folder} is a search of other settings ({said}): give another --run, or those settings")
    if not study.get_trials(deepcopy=False) and search.recipe is not None:
        study.enqueue_trial(search.recipe)  # what the search has to beat
    return study


def _go_on(search: Search, study: optuna.Study, folder: Path, pool: "_Pool", done: Callable[[], None]) -> None:
    """Keep the processes busy until all trials are over."""
    distributions = {dimension.name: _distribution(dimension) for dimension in search.space}
    under_way: dict[Connection, optuna.Trial] = {}
    left = deque(_left(study, set(distributions)))
    over = len(study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED)))
    while True:
        while not pool.stopping and len(under_way) < pool.size and over + len(under_way) < search.trials:
            trial = left.popleft() if left else _ask(search, study, distributions)
            if trial.should_prune():  # it was to be when it was interrupted
                study.tell(trial, state=TrialState.PRUNED)
                over += 1
                continue
            reached = max(_frozen(study, trial).intermediate_values, default=0)
            job = Job(search.task, search.settings(trial.params), folder / _name(trial.number), reached)
            under_way[pool.send(job)] = trial
        if not under_way:
            return
        for connection, message in pool.messages(list(under_way)):
            trial = under_way[connection]
            if isinstance(message, Reached):
                reached = max(_frozen(study, trial).intermediate_values, default=0)
                for rung in range(reached + 1, message.rung + 1):
                    trial.report(message.value, rung)
                pool.answer(connection, trial.should_prune())
                continue
            del under_way[connection]
            pool.free(connection)
            if isinstance(message, Exception):
                study.tell(trial, state=TrialState.FAIL)
                raise message
            if message.how == "stopped":
                continue
            for name in ("how", "value", "epochs", "seconds"):
                trial.set_user_attr(name, getattr(message, name))
            if message.how == "finished":
                study.tell(trial, message.value)
            else:
                study.tell(trial, state=TrialState.PRUNED)
            over += 1
            done()


def _ask(search: Search, study: optuna.Study, distributions: dict[str, BaseDistribution]) -> optuna.Trial:
    """One more trial. A sampler for each, so that what it draws does not depend on how often the search began anew."""
    number = len(study.get_trials(deepcopy=False))
    study.sampler = TPESampler(seed=(search.base.seed * 1_000_003 + number) % 2**32)
    return study.ask(distributions)


def _left(study: optuna.Study, names: set[str]) -> Iterator[optuna.Trial]:
    """Trials that a process was at when it ended."""
    for frozen in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        if set(frozen.params) == names:
            yield optuna.Trial(study, frozen._trial_id)
        else:  # it ended while this one was proposed
            study.tell(frozen.number, state=TrialState.FAIL)


def _frozen(study: optuna.Study, trial: optuna.Trial) -> FrozenTrial:
    return study.get_trials(deepcopy=False)[trial.number]


def _results(study: optuna.Study, folder: Path) -> list[TrialResult]:
    over = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))
    return [
        TrialResult(
            trial.number,
            trial.user_attrs.get("how", "pruned"),
            trial.user_attrs.get("value", trial.value),
            dict(trial.params),
            trial.user_attrs.get("epochs", 0),
            trial.user_attrs.get("seconds", 0.0),
            str(folder / _name(trial.number)),
        )
        for trial in over
    ]


def _importances(study: optuna.Study) -> dict[str, float]:
    """By PED-ANOVA, which needs no forest."""
    values = {trial.value for trial in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))}
    if len(values) < 3:
        return {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # where it finds nothing to tell apart
        found = optuna.importance.get_param_importances(
            study, evaluator=optuna.importance.PedAnovaImportanceEvaluator()
        )
    return {name: float(share) for name, share in found.items()}


def _distribution(dimension: Dimension) -> BaseDistribution:
    if isinstance(dimension, Choice):
        return CategoricalDistribution(dimension.values)
    low, high, step, log = dimension.low, dimension.high, dimension.step, dimension.log
    if isinstance(low, int) and isinstance(high, int):
        return IntDistribution(low, high, log, int(step or 1))
    return FloatDistribution(low, high, log, step)


def _name(number: int) -> str:
    return f"trial-{number:04}"


class _Pool:
    """Processes that train trials, each started when there is one for it.

    Parameters
    ----------
    size : int
        How many at most.

    Attributes
    ----------
    signal : int
        The first that came; 0 if none did.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.signal = 0
        self._stopped = math.inf
        self._context = multiprocessing.get_context("spawn")
        self._stop = self._context.Event()
        self._processes: dict[Connection, BaseProcess] = {}
        self._idle: list[Connection] = []

    def __enter__(self) -> "_Pool":
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        """End all: those at work after the step that they are in, or at once after a second Ctrl-C."""
        self._stop.set()
        for connection, process in self._processes.items():
            if kind is KeyboardInterrupt:
                process.kill()
            connection.close()
        for process in self._processes.values():
            process.join()

    @property
    def stopping(self) -> bool:
        """Whether all trials shall stop."""
        return self._stop.is_set()

    def stop(self, number: int) -> None:
        """Have all trials stop, by a signal of this number."""
        if not self.stopping:
            self.signal = number
            self._stopped = time.monotonic()
            self._stop.set()

    def send(self, job: Job) -> Connection:
        """Give a job to a process that has none, and return where its messages come from."""
        connection = self._idle.pop() if self._idle else self._start()
        self.answer(connection, job)
        return connection

    def answer(self, connection: Connection, what: object) -> None:
        """Send something to a process. If it is gone, `messages` says so."""
        with suppress(OSError):
            connection.send(what)

    def free(self, connection: Connection) -> None:
        """Take note that a process has no job."""
        if connection in self._processes:
            self._idle.append(connection)

    def _start(self) -> Connection:
        ours, theirs = self._context.Pipe()
        # A Ctrl-C waits until the process is there, and ignored by it until it trains.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
        try:
            process = self._context.Process(target=work, args=(theirs, self._stop), daemon=True)
            process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        theirs.close()
        self._processes[ours] = process
        return ours

    def messages(self, connections: list[Connection]) -> Iterator[tuple[Connection, Reached | Ended | Exception]]:
        """What came from these, within some time.

        Raises
        ------
        RunError
            A process is gone that nobody stopped.
        """
        if time.monotonic() - self._stopped > GRACE_SECONDS:  # the next call goes on from the last checkpoints
            for connection in connections:
                self._processes[connection].kill()
        for ready in wait(connections, HEARD_SECONDS):
            assert isinstance(ready, Connection)
            try:
                yield ready, ready.recv()
            except (EOFError, OSError):
                process = self._processes.pop(ready)
                process.join()
                if not self.stopping:
                    raise RunError(
                        f"a process that trained ended by itself (exit status {process.exitcode}; memory?): the same "
                        "command goes on, with fewer --processes if that was it"
                    ) from None
                yield ready, Ended("stopped", None, 0, 0.0)
