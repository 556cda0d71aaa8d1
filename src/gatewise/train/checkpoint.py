"""What a training keeps: the run folder, and weights in files that are whole or not there.

Weights are safetensors and nothing else: no pickle, so that loading a stranger's file runs no code. The format
does not notice a changed byte; a SHA-256 over names, shapes, numbers and metadata does.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import safetensors
import safetensors.torch
import torch
from torch import nn

from gatewise.errors import RunError


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
            if any(folder.iterdir()):
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
        """Loss and accuracy, line by line."""
        return self.folder / "metrics.jsonl"

    @property
    def curves(self) -> Path:
        """The figure of them."""
        return self.folder / "curves.png"

    def weights(self, which: str) -> Path:
        """The weights of the "best" or the "last" epoch."""
        return self.folder / f"{which}.safetensors"


def save_weights(path: Path, model: nn.Module, metadata: Mapping[str, str]) -> None:
    """Write a model's weights so that the file is the old one or the new one, whenever the machine stops.

    Parameters
    ----------
    path : path
        The file; one that exists is replaced.
    model : Module
        Whose state_dict is written. The same weights and metadata make the same bytes.
    metadata : mapping of str to str
        Is kept with the weights, along with a checksum under "sha256".

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "best.safetensors"
    >>> save_weights(path, nn.Linear(2, 1), {"epoch": "3"})
    >>> tensors, metadata = read_weights(path)
    >>> list(tensors), metadata["epoch"]
    (['bias', 'weight'], '3')
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    signed = {**metadata, "sha256": _sha256(tensors, metadata)}
    content = _sorted_header(safetensors.torch.save(tensors, signed))
    temporary = path.with_name(f".{path.name}.part")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)  # there only if the writing stopped half-way
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the new name is on disk as well
    finally:
        os.close(folder)


def read_weights(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Read what `save_weights` wrote.

    Parameters
    ----------
    path : path
        The file.

    Returns
    -------
    tensors : dict of str to tensor
        By name, ascending.
    metadata : dict of str to str
        As it was given.

    Raises
    ------
    RunError
        The file is missing, unreadable or damaged.
    """
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in sorted(file.keys())}
            metadata = dict(file.metadata() or {})
    except FileNotFoundError as error:
        raise RunError(f"{path} is missing: train again, or let the first epoch end") from error
    except (OSError, safetensors.SafetensorError) as error:
        raise RunError(f"{path} cannot be read as weights ({error}): restore it or train again") from error
    if metadata.pop("sha256", None) != _sha256(tensors, metadata):
        raise RunError(f"{path} is damaged (its checksum is not that of its content): restore it or train again")
    return tensors, metadata


def fill_weights(model: nn.Module, tensors: Mapping[str, torch.Tensor], source: Path) -> None:
    """Put weights into a model.

    Parameters
    ----------
    model : Module
        Changed in place.
    tensors : mapping of str to tensor
        A tensor for each of the model's, of the same shape.
    source : path
        Where they come from, for messages.

    Raises
    ------
    RunError
        A name or a shape is another than the model's.

    Examples
    --------
    >>> fill_weights(nn.Linear(2, 1), {"weight": torch.ones(1, 3), "bias": torch.ones(1)}, Path("best.safetensors"))
    Traceback (most recent call last):
    gatewise.errors.RunError: best.safetensors: weight has shape (1, 3), and in the model of config.toml has shape \
(1, 2): take the one that belongs to it
    """
    own = model.state_dict()
    for name in sorted(own.keys() | tensors.keys()):
        given = f"has shape {tuple(tensors[name].shape)}" if name in tensors else "is missing"
        needed = f"has shape {tuple(own[name].shape)}" if name in own else "is missing"
        if given != needed:
            raise RunError(
                f"{source}: {name} {given}, and in the model of config.toml {needed}: take the one that belongs to it"
            )
    model.load_state_dict(dict(tensors))


def _sha256(tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str]) -> str:
    digest = hashlib.sha256(json.dumps(dict(sorted(metadata.items()))).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"\0{name} {tensor.dtype} {tuple(tensor.shape)}\0".encode())
        digest.update(tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _sorted_header(content: bytes) -> bytes:
    """The same safetensors file with its metadata in alphabetical order; the library's order is random."""
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # the tensors begin at a multiple of eight bytes
    return len(text).to_bytes(8, "little") + text + content[8 + length :]
