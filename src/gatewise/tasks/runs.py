"""What run folders say of themselves: a table of many, and what differs between some."""

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors

from gatewise.errors import ArgumentError, RunError
from gatewise.tasks.task import task_of
from gatewise.train.config import TrainConfig
from gatewise.train.metrics import Metric, read_metrics
from gatewise.train.run import Run


@dataclass(frozen=True)
class Standing:
    """What a run folder says of itself.

    Parameters
    ----------
    folder : Path
        Where it is.
    task : str
        What is trained.
    config : TrainConfig
        Its settings.
    state : {"ended", "running", "stopped"}
        The training has come to its end; a process is writing there; or neither, and gatewise resume goes on.
    metrics : list of Metric
        All lines of its metrics.jsonl.
    """

    folder: Path
    task: str
    config: TrainConfig
    state: str
    metrics: list[Metric]

    @property
    def epoch(self) -> float:
        """Epochs done."""
        return max((metric.epoch for metric in self.metrics), default=0.0)

    def last(self, split: str) -> Metric | None:
        """The last line of a split; None if there is none."""
        return next((metric for metric in reversed(self.metrics) if metric.split == split), None)

    def to_json(self) -> dict[str, Any]:
        """As JSON knows it: the last line of each split for all its metrics."""
        lasts = {split: last.to_json() for split in ("train", "dev", "test") if (last := self.last(split))}
        settings = {name: _plain(value) for name, value in dataclasses.asdict(self.config).items()}
        return {"folder": str(self.folder), "task": self.task, "state": self.state, "settings": settings, **lasts}


def standing(folder: Path) -> Standing:
    """Read a run folder.

    Raises
    ------
    RunError
        It is none, or a file in it is not in order.
    """
    run = Run.open(folder)
    task, config = task_of(run)
    metrics = read_metrics(run.metrics) if run.metrics.is_file() else []
    return Standing(folder, task.name, config, _state(run), metrics)


def all_below(folder: Path) -> list[Path]:
    """The run folders in a folder and those below it, by name.

    Raises
    ------
    RunError
        There is none.
    """
    found = sorted(path.parent for path in folder.glob("**/config.toml"))
    if not found:
        raise RunError(f"{folder} holds no run folder: give the folder that your runs are in")
    return found


def differing(standings: Sequence[Standing]) -> list[str]:
    """The names of the settings in which runs differ.

    Raises
    ------
    ArgumentError
        There are fewer than two runs.
    """
    if len(standings) < 2:
        raise ArgumentError("one run alone cannot be compared: name two or more")
    settings = [dataclasses.asdict(standing.config) | {"task": standing.task} for standing in standings]
    names = dict.fromkeys(name for each in settings for name in each)
    return [name for name in names if any(each.get(name) != settings[0].get(name) for each in settings)]


def _state(run: Run) -> str:
    if not run.is_free():
        return "running"
    newest = run.checkpoints()[:1]
    return "ended" if newest and _ended(newest[0]) else "stopped"


def _ended(checkpoint: Path) -> bool:
    """Whether a checkpoint is a training's last. Its tensors are not read, nor its checksum."""
    try:
        with safetensors.safe_open(checkpoint, framework="np") as file:
            return bool(json.loads(file.metadata()["kept"])["runner"]["progress"]["ended"])
    except (OSError, ValueError, KeyError, TypeError, safetensors.SafetensorError):
        return False  # damaged: gatewise resume says so, and takes the one before


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value
