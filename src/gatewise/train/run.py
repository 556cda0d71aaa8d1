"""The folder of a training, the files in it, and who may write them."""

import fcntl
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from gatewise.errors import RunError
from gatewise.train.state import Tensors
from gatewise.train.tensors import read_tensors, write_tensors
from gatewise.whole import sync_folder

CHECKPOINTS = 2
"""How many are kept: the newest, and the one before for when it is damaged."""


@dataclass(frozen=True)
class Run:
    """The folder of a training and the files in it.

    Examples
    --------
    >>> Run(Path("runs/mine")).config.as_posix()
    'runs/mine/config.toml'
    """

    folder: Path

    @classmethod
    def create(cls, folder: Path) -> Self:
        """Make a new folder, or take an empty one.

        Parameters
        ----------
        folder : path
            Where; the folders above it are made too.

        Returns
        -------
        Run
            Of that folder.

        Raises
        ------
        RunError
            The folder exists and is not empty, or cannot be made.
        """
        try:
            if folder.exists() and not folder.is_dir():
                raise RunError(f"{folder} is a file, needed is a new folder: give another --run")
            folder.mkdir(parents=True, exist_ok=True)
            if any(not path.name.startswith(".") for path in folder.iterdir()):  # what a killed one left is hidden
                raise RunError(f"{folder} is not empty, needed is a new folder: give another --run or remove it")
        except OSError as error:
            raise RunError(f"{folder} cannot be made ({error.strerror}): give another --run") from error
        return cls(folder)

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Take the folder of a training.

        Parameters
        ----------
        folder : path
            Where it is.

        Returns
        -------
        Run
            Of that folder.

        Raises
        ------
        RunError
            It is no folder, or one without a config.toml.

        Examples
        --------
        >>> Run.open(Path("no/such/run"))
        Traceback (most recent call last):
        gatewise.errors.RunError: no/such/run is no run folder (no config.toml): give one that gatewise train made
        """
        run = cls(folder)
        if not run.config.is_file():
            raise RunError(f"{folder} is no run folder (no config.toml): give one that gatewise train made")
        return run

    @property
    def config(self) -> Path:
        """The settings."""
        return self.folder / "config.toml"

    @property
    def metrics(self) -> Path:
        """Loss and what else is measured, line by line."""
        return self.folder / "metrics.jsonl"

    @property
    def curves(self) -> Path:
        """The figure of them."""
        return self.folder / "curves.png"

    def weights(self, which: str) -> Path:
        """The "best" or the "last" weights."""
        return self.folder / f"{which}.safetensors"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Be the only one who writes here; the lock ends with the process, however that ends.

        Raises
        ------
        RunError
            Another process has it.
        """
        with (self.folder / ".lock").open("a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise RunError(
                    f"{self.folder} is being written by another process: wait for it, or stop it with Ctrl-C"
                ) from error
            yield

    def is_free(self) -> bool:
        """Whether no process writes here."""
        try:
            with self.locked():
                return True
        except RunError:
            return False

    def checkpoints(self) -> list[Path]:
        """The checkpoints, the newest first."""
        found = [path for path in self.folder.glob("checkpoint-*.safetensors") if _step_of(path) is not None]
        return sorted(found, key=lambda path: _step_of(path) or 0, reverse=True)

    def write_checkpoint(self, step: int, tensors: Tensors, kept: Mapping[str, Any]) -> None:
        """Write one more checkpoint, and remove those that are no longer needed; damaged ones of later steps too.

        Parameters
        ----------
        step : int
            Training steps done.
        tensors, kept
            What `Runner.state` gives, and whatever else JSON knows.
        """
        write_tensors(self.folder / f"checkpoint-{step:09}.safetensors", tensors, {"kept": json.dumps(kept)})
        there = self.checkpoints()
        kept_ones = [path for path in there if (_step_of(path) or 0) <= step][:CHECKPOINTS]
        for path in there:
            if path not in kept_ones:
                path.unlink()
        sync_folder(self.folder)

    def read_checkpoint(self, say: Callable[[str], None]) -> tuple[Path, Tensors, dict[str, Any]] | None:
        """Read the newest checkpoint that is whole.

        Parameters
        ----------
        say : callable
            Takes a line about each that is damaged.

        Returns
        -------
        path, tensors, kept : or None
            Which it is, and what it holds as it was written; None if the training had not come so far.

        Raises
        ------
        RunError
            There are some, and none is whole.
        """
        damaged: list[str] = []
        for path in self.checkpoints():
            try:
                tensors, metadata = read_tensors(path)
                kept = json.loads(metadata["kept"])
            except (RunError, KeyError, ValueError) as error:
                damaged.append(str(error) if isinstance(error, RunError) else f"{path} is no checkpoint")
            else:
                for line in damaged:
                    say(f"{line}; going on from the one before, {path.name}")
                return path, tensors, kept
        if damaged:
            raise RunError(f"no checkpoint is whole ({'; '.join(damaged)}): train again")
        return None

    def clear(self) -> None:
        """Remove what a process left that was killed while it wrote."""
        for path in self.folder.glob(".*.part"):
            path.unlink()


def _step_of(path: Path) -> int | None:
    found = re.fullmatch(r"checkpoint-(\d+)\.safetensors", path.name)
    return int(found[1]) if found else None


def truncate(path: Path, size: int) -> None:
    """Cut a file back to what it held when a checkpoint was written.

    Raises
    ------
    RunError
        It holds less.
    """
    found = path.stat().st_size if path.exists() else 0
    if found < size:
        raise RunError(f"{path} has {found:,} bytes, the checkpoint knows of {size:,}: restore the file or train again")
    if path.exists():
        os.truncate(path, size)
