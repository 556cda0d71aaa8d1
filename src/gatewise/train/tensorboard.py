"""The metrics of a training for TensorBoard, beside metrics.jsonl."""

import importlib.util
import time
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from gatewise.errors import ArgumentError
from gatewise.train.callback import Callback
from gatewise.train.progress import Evaluation, Score
from gatewise.train.runner import Runner

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


class TensorBoard(Callback):
    """Writes loss, accuracy and the like of each split, and the training's learning rate and gradient norm.

    Each split has a folder of its own, so that TensorBoard draws them into the same charts. The training's points come
    each `log_every` steps and with each evaluation. After a resumption the points past the checkpoint are taken back,
    and written again as they are reached.

    Parameters
    ----------
    folder : path
        Holds the splits' folders.

    Raises
    ------
    ArgumentError
        The package tensorboard is not installed.

    Examples
    --------
    >>> import tempfile, torch
    >>> from gatewise.train.config import TrainConfig
    >>> from gatewise.train.samples import Examples
    >>> train = Examples(torch.eye(3), torch.tensor([0, 1, 0]))
    >>> runner = Runner(torch.nn.Linear(3, 2), torch.nn.functional.cross_entropy, TrainConfig(epochs=2))
    >>> folder = Path(tempfile.mkdtemp())
    >>> with TensorBoard(folder) as board:
    ...     runner.train(train, {"dev": train}, [board])
    >>> sorted(path.name for path in folder.iterdir())
    ['dev', 'train']
    """

    def __init__(self, folder: Path) -> None:
        if importlib.util.find_spec("tensorboard") is None:
            raise ArgumentError(
                "tensorboard is asked for, and the package of that name is not installed: pip install "
                "'gatewise[tensorboard]', or leave it out"
            )
        self.folder = folder
        self._writers: dict[str, SummaryWriter] = {}
        self._last: dict[str, int] = {}  # the step of each split's last point
        self._purged = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for writer in self._writers.values():
            writer.close()

    def start(self, runner: Runner) -> None:
        """Find from which step on points are to be taken back: the first one whose points the training will write."""
        progress, evaluations = runner.progress, runner.history.evaluations
        self._last = dict.fromkeys(evaluations[-1].scores, evaluations[-1].step) if evaluations else {}
        # A checkpoint between an epoch's last step and the evaluation that follows: that one is still to come.
        waits = progress.batch == runner.steps_an_epoch and progress.step not in self._last.values()
        self._purged = progress.step + (not waits)

    def step(self, runner: Runner) -> None:
        """Write the training's means over the epoch so far now and then; an epoch's last step leaves that to it."""
        progress, config = runner.progress, runner.config
        due = progress.batch % config.log_every == 0 and 0 < progress.batch < runner.steps_an_epoch
        if due and progress.sums.samples:
            self._write(runner, "train", progress.sums.score(), progress.step)

    def evaluation(self, runner: Runner, evaluation: Evaluation, is_best: bool) -> None:
        """Write the scores of each split."""
        for split, score in evaluation.scores.items():
            self._write(runner, split, score, evaluation.step)

    def _write(self, runner: Runner, split: str, score: Score, step: int) -> None:
        if self._last.get(split) == step:  # an evaluation of dev at an epoch's end is followed by the epoch's own
            return
        self._last[split] = step
        writer = self._writer(split)
        for name, value in {"loss": score.loss, **score.measures}.items():
            writer.add_scalar(name, value, step)
        if split == "train":
            writer.add_scalar("learning_rate", runner.optimizer.param_groups[0]["lr"], step)
            writer.add_scalar("gradient_norm", runner.progress.gradient_norm, step)
        writer.flush()  # what a checkpoint goes on from is there, even after a kill -9

    def _writer(self, split: str) -> "SummaryWriter":
        if split not in self._writers:
            from torch.utils.tensorboard import SummaryWriter

            _wait_for_a_later_second(self.folder / split)
            self._writers[split] = SummaryWriter(self.folder / split, purge_step=self._purged)
        return self._writers[split]


def _wait_for_a_later_second(folder: Path) -> None:
    """Let a file of events come last by its name, which is the order of reading and holds the second it was made in."""
    newest = max((int(path.name.split(".")[3]) for path in folder.glob("events.out.tfevents.*")), default=0)
    if newest <= time.time() < newest + 1:
        time.sleep(newest + 1 - time.time())
