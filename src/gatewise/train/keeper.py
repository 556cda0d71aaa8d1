"""A training in a run folder: metrics and checkpoints as it goes, weights and curves in the end, and going on."""

import errno
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import metadata

from gatewise.errors import DivergenceError, RunError
from gatewise.train.callback import Callback
from gatewise.train.curves import UNITS, draw_curves
from gatewise.train.metrics import Metric, MetricsLog, read_metrics
from gatewise.train.progress import Evaluation, Score
from gatewise.train.run import Run, truncate
from gatewise.train.runner import Runner
from gatewise.train.samples import Samples
from gatewise.train.signals import heard
from gatewise.train.tensors import write_tensors


class Keeper(Callback):
    """Writes a training into its run folder.

    Parameters
    ----------
    run : Run
        The folder.
    log : MetricsLog
        Its metrics.jsonl.
    about : mapping of str to str
        Is kept with the weights.
    data : str
        The checksum of what is trained on.
    """

    def __init__(self, run: Run, log: MetricsLog, about: Mapping[str, str], data: str) -> None:
        self.run = run
        self.log = log
        self.about = dict(about)
        self.data = data
        self.written = time.monotonic()

    def step(self, runner: Runner) -> None:
        """Write a line now and then, and a checkpoint."""
        progress, config = runner.progress, runner.config
        if progress.batch and progress.batch % config.log_every == 0 and progress.sums.samples:
            self._write(runner, "train", progress.sums.score(), progress.step)
        if time.monotonic() - self.written >= config.checkpoint_seconds:
            self.checkpoint(runner)

    def evaluation(self, runner: Runner, evaluation: Evaluation, is_best: bool) -> None:
        """Write a line for each split."""
        for split, score in evaluation.scores.items():
            self._write(runner, split, score, evaluation.step)

    def _write(self, runner: Runner, split: str, score: Score, step: int) -> None:
        norm = runner.progress.gradient_norm if split == "train" else None
        epoch = round(step / runner.steps_an_epoch, 6)
        self.log.write(Metric(step, epoch, split, score.loss, round(score.seconds, 3), score.measures, norm))

    def checkpoint(self, runner: Runner) -> None:
        """Write all that the training is, and the weights for whoever wants to use them already."""
        tensors, state = runner.state()
        kept = {"runner": state, "metrics": self.log.sync(), "data": self.data, "gatewise": self.about["gatewise"]}
        self.run.write_checkpoint(runner.progress.step, tensors, kept)
        self.weights(runner)
        self.written = time.monotonic()

    def weights(self, runner: Runner) -> None:
        """Write the last and the best weights."""
        progress = runner.progress
        last = self.about | {"step": str(progress.step), "epoch": str(progress.epoch)}
        write_tensors(self.run.weights("last"), runner.model.state_dict(), last)
        if progress.best is not None:
            best = self.about | {"step": str(progress.best.step), "epoch": str(progress.best.epoch)}
            write_tensors(self.run.weights("best"), runner.best, best)


def train_in(
    run: Run,
    runner: Runner,
    train: Samples,
    others: Mapping[str, Samples],
    *,
    about: Mapping[str, str],
    title: str,
    resume: bool = False,
    callbacks: Sequence[Callback] = (),
    say: Callable[[str], None] = print,
    draws: bool = True,
    unit: str = UNITS["loss"],
) -> int:
    """Train in a run folder to the end, or until Ctrl-C or SIGTERM; or go on from its newest checkpoint.

    Parameters
    ----------
    run : Run
        The folder, with its config.toml.
    runner : Runner
        Fresh, as the settings make it.
    train, others
        As in `Runner.train`.
    about : mapping of str to str
        Is kept with the weights.
    title : str
        Of the figure.
    resume : bool, default False
        Go on from the newest checkpoint that is whole.
    callbacks : sequence of Callback
        Hear how it goes.
    say : callable, default print
        Takes a line about what a resumption finds.
    draws : bool, default True
        Draw the curves in the end.
    unit : str, default: of the cross-entropy
        What the loss is.

    Returns
    -------
    int
        The signal that ended it early; 0 if none did. A checkpoint is written before the return all the same.

    Raises
    ------
    RunError
        Another process writes there; there is no whole checkpoint to go on from, or one of other data; the folder
        cannot be written.
    DivergenceError
        A loss or a gradient is not finite. The weights before the step are kept as the last ones.
    """
    if runner.processes.rank > 0:  # the first one writes; all go on from the same checkpoint
        if resume:
            _resume(run, runner, train, say=lambda line: None)
        with heard(lambda number: runner.stop()) as caught:
            runner.train(train, others)
        return caught()
    about = {**about, "gatewise": metadata.version("gatewise")}
    data = train.sha256()
    with run.locked(), _writing(run):
        run.clear()
        if resume:
            truncate(run.metrics, _resume(run, runner, train, say))
        with MetricsLog(run.metrics) as log, heard(lambda number: runner.stop()) as caught:
            keeper = Keeper(run, log, about, data)
            try:
                runner.train(train, others, [*callbacks, keeper])  # a checkpoint holds what the others did
            except DivergenceError:
                keeper.weights(runner)
                raise
            keeper.checkpoint(runner)
        if draws and runner.progress.best is not None:
            best = runner.progress.best.step / runner.steps_an_epoch
            draw_curves(run.curves, read_metrics(run.metrics), best, title=title, unit=unit)
        return caught()


def _resume(run: Run, runner: Runner, train: Samples, say: Callable[[str], None]) -> int:
    """Put the newest whole checkpoint into the runner, and return how many bytes the metrics had then."""
    found = run.read_checkpoint(say)
    if found is None:
        say("no checkpoint yet: from the start")
        return 0
    path, tensors, kept = found
    if kept["data"] != train.sha256():
        raise RunError(f"{path} is of other data than are there now: restore the data that the training began with")
    runner.restore(tensors, kept["runner"], path)
    step, epoch = runner.progress.step, runner.progress.epoch + 1
    ended = "the training has ended, nothing is left to do"
    say(f"resumed {path.name}: {ended if runner.progress.ended else f'step {step:,}, epoch {epoch}'}")
    return int(kept["metrics"])


@contextmanager
def _writing(run: Run) -> Iterator[None]:
    """Say what to do where the folder cannot be written."""
    try:
        yield
    except OSError as error:
        remedy = "make room" if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) else "make it writable"
        raise RunError(
            f"{run.folder} cannot be written ({error.strerror}): {remedy}, then go on with gatewise resume"
        ) from error
