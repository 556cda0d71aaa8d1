"""How well a model does, and metrics.jsonl, which keeps it line by line."""

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from types import TracebackType
from typing import Self

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


@dataclass(frozen=True)
class Metric:
    """A line of metrics.jsonl.

    Parameters
    ----------
    step : int
        Training steps (batches) done since the start.
    epoch : int
        The epoch, from 1.
    split : str
        "train", "dev" or "test".
    loss, accuracy : float
        Means over samples. Of "train" they are over the epoch so far, while the weights changed; an epoch's
        last line is over all of it. Of the others they are over the whole split, after the epoch.
    seconds : float
        Time that the pass has taken: of "train" since the epoch began, of the others their evaluation.

    Examples
    --------
    >>> Metric(step=600, epoch=1, split="dev", loss=0.5, accuracy=0.75, seconds=0.1).accuracy
    0.75
    """

    step: int
    epoch: int
    split: str
    loss: float
    accuracy: float
    seconds: float


class MetricsLog:
    """Adds lines to a metrics.jsonl, each at once on disk for whoever follows the file.

    Parameters
    ----------
    path : path
        The file; lines are added to one that exists.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "metrics.jsonl"
    >>> with MetricsLog(path) as log:
    ...     log.write(Metric(600, 1, "train", 0.5, 0.75, 2.0))
    >>> print(path.read_text(), end="")
    {"step": 600, "epoch": 1, "split": "train", "loss": 0.5, "accuracy": 0.75, "seconds": 2.0}
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
        self._file.write(json.dumps(asdict(metric), allow_nan=False) + "\n")
        self._file.flush()


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


def _metric(path: Path, number: int, line: str) -> Metric:
    try:
        return Metric(**json.loads(line))
    except (ValueError, TypeError) as error:
        keys = ", ".join(field.name for field in fields(Metric))
        raise RunError(f"{path}, line {number} is no JSON object of {keys}: remove the line") from error
