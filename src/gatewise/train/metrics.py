"""What is measured beside the loss, and metrics.jsonl, which keeps all of it line by line."""

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch

from gatewise.errors import RunError


def correct_by_argmax(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Count the samples whose highest class score is their own class's.

    Parameters
    ----------
    outputs : float tensor, shape (B, classes)
        Logits or probabilities.
    targets : integer tensor, shape (B,)
        The class of each sample.

    Returns
    -------
    integer tensor, shape ()
        From 0 to B; the first of equal scores counts.

    Examples
    --------
    >>> correct_by_argmax(torch.tensor([[0.1, 2.0], [3.0, -1.0]]), torch.tensor([1, 1]))
    tensor(1)
    """
    return (outputs.argmax(dim=1) == targets).sum()


def correct_by_logit(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Count the samples of two classes whose logit is on the right side of 0.

    Parameters
    ----------
    outputs : float tensor, shape (B,) or (B, 1)
        Logits: class 1 from 0 on.
    targets : tensor, shape (B,) or (B, 1)
        0 or 1.

    Returns
    -------
    integer tensor, shape ()
        From 0 to B.

    Examples
    --------
    >>> correct_by_logit(torch.tensor([[-0.1], [0.0], [2.0]]), torch.tensor([1, 1, 1]))
    tensor(2)
    """
    return ((outputs.flatten() >= 0) == (targets.flatten() > 0.5)).sum()


def correct_by_probability(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Count the samples of two classes whose probability is on the right side of one half.

    Parameters
    ----------
    outputs : float tensor, shape (B,) or (B, 1)
        Probabilities of class 1, which is taken from 0.5 on.
    targets : tensor, shape (B,) or (B, 1)
        0 or 1.

    Returns
    -------
    integer tensor, shape ()
        From 0 to B.

    Examples
    --------
    >>> correct_by_probability(torch.tensor([0.4, 0.5, 0.9]), torch.tensor([1, 1, 1]))
    tensor(2)
    """
    return correct_by_logit(outputs - 0.5, targets)


@dataclass(frozen=True)
class Metric:
    """A line of metrics.jsonl.

    Parameters
    ----------
    step : int
        Training steps done since the start.
    epoch : float
        Epochs done since the start; a whole number after whole epochs.
    split : str
        "train", "dev" or "test".
    loss : float
        The mean over samples. Of "train" it is over the epoch so far, while the weights changed; an epoch's last line
        is over all of it. Of the others it is over the whole split.
    seconds : float
        Time that the pass has taken: of "train" since the epoch began, of the others their evaluation.
    measures : dict of str to float
        Means over the same samples, such as "accuracy"; in the file they stand beside the loss.
    gradient_norm : float or None
        Of "train": the last step's, before clipping.

    Examples
    --------
    >>> Metric(600, 1.0, "dev", 0.5, 0.1, {"accuracy": 0.75}).to_json()
    {'step': 600, 'epoch': 1.0, 'split': 'dev', 'loss': 0.5, 'accuracy': 0.75, 'seconds': 0.1}
    """

    step: int
    epoch: float
    split: str
    loss: float
    seconds: float
    measures: dict[str, float] = field(default_factory=dict)
    gradient_norm: float | None = None

    def __getitem__(self, name: str) -> float:
        """One of the measures, or the loss."""
        return self.loss if name == "loss" else self.measures[name]

    def to_json(self) -> dict[str, Any]:
        """As it stands in the file."""
        line = {"step": self.step, "epoch": self.epoch, "split": self.split, "loss": self.loss}
        norm = {} if self.gradient_norm is None else {"gradient_norm": self.gradient_norm}
        return line | self.measures | norm | {"seconds": self.seconds}

    @classmethod
    def from_json(cls, line: dict[str, Any]) -> Self:
        """What `to_json` gave."""
        own = {name: line.pop(name) for name in ("step", "epoch", "split", "loss", "seconds")}
        norm = line.pop("gradient_norm", None)
        return cls(**own, gradient_norm=norm, measures={name: float(value) for name, value in line.items()})


class MetricsLog:
    """Adds lines to a metrics.jsonl, each at once there for whoever follows the file.

    Parameters
    ----------
    path : path
        The file; lines are added to one that exists.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "metrics.jsonl"
    >>> with MetricsLog(path) as log:
    ...     log.write(Metric(600, 1.0, "train", 0.5, 2.0))
    >>> print(path.read_text(), end="")
    {"step": 600, "epoch": 1.0, "split": "train", "loss": 0.5, "seconds": 2.0}
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("a", encoding="utf-8")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def write(self, metric: Metric) -> None:
        """Add one line.

        Parameters
        ----------
        metric : Metric
            Of finite numbers, as JSON knows no others.
        """
        self._file.write(json.dumps(metric.to_json(), allow_nan=False) + "\n")
        self._file.flush()

    def sync(self) -> int:
        """Have all lines on disk, whatever happens to the machine, and return the bytes of the file."""
        os.fsync(self._file.fileno())
        return os.fstat(self._file.fileno()).st_size


def read_metrics(path: Path) -> list[Metric]:
    """Read a metrics.jsonl.

    Parameters
    ----------
    path : path
        The file.

    Returns
    -------
    list of Metric
        In the order of the file.

    Raises
    ------
    RunError
        The file is missing, or a line is not what `MetricsLog` writes.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise RunError(f"{path} cannot be read ({error}): give a folder that gatewise train made") from error
    return [_metric(path, number, line) for number, line in enumerate(lines, start=1)]


def _refused(constant: str) -> float:
    raise ValueError(f"{constant} is no number of JSON")


def _metric(path: Path, number: int, line: str) -> Metric:
    try:
        return Metric.from_json(json.loads(line, parse_constant=_refused))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        keys = "step, epoch, split, loss, seconds and measures"
        raise RunError(f"{path}, line {number} is no JSON object of {keys}: remove the line") from error
