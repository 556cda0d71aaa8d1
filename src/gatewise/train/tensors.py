"""Tensors in files that are whole or not there, and that tell when a byte has changed.

A file is safetensors and nothing else: no pickle, so that loading a stranger's file runs no code. The format does not
notice a changed byte; a SHA-256 over names, shapes, numbers and metadata does.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import safetensors
import safetensors.torch
import torch

from gatewise.errors import RunError
from gatewise.whole import write_whole


def write_tensors(path: Path, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str]) -> None:
    """Write tensors by `write_whole`, with a checksum. The same ones make the same bytes.

    Parameters
    ----------
    path : path
        The file; one that exists is replaced.
    tensors : mapping of str to tensor
        On any device.
    metadata : mapping of str to str
        Is kept with them, along with the checksum under "sha256".

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "some.safetensors"
    >>> write_tensors(path, {"x": torch.ones(2)}, {"epoch": "3"})
    >>> read_tensors(path)
    ({'x': tensor([1., 1.])}, {'epoch': '3'})
    """
    # Copies: safetensors takes none that share memory, as a weight does that two modules have.
    own = torch.contiguous_format
    held = {name: tensor.detach().cpu().clone(memory_format=own) for name, tensor in tensors.items()}
    content = safetensors.torch.save(held, {**metadata, "sha256": _sha256(held, metadata)})
    write_whole(path, _sorted_header(content))


def read_tensors(path: Path, again: str = "train again") -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Read what `write_tensors` wrote.

    Parameters
    ----------
    path : path
        The file.
    again : str
        What makes such a file, for the messages.

    Returns
    -------
    tensors : dict of str to tensor
        By name, ascending; in memory of their own.
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
        raise RunError(f"{path} is missing: {again}, or wait until it is written") from error
    except (OSError, safetensors.SafetensorError) as error:
        raise RunError(f"{path} cannot be read as tensors ({error}): restore it or {again}") from error
    if "sha256" not in metadata:
        raise RunError(f"{path} is of another program (it has no checksum): restore it or {again}")
    if metadata.pop("sha256") != _sha256(tensors, metadata):
        raise RunError(f"{path} is damaged (its checksum is not that of its content): restore it or {again}")
    return tensors, metadata


def _sha256(tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str]) -> str:
    digest = hashlib.sha256(json.dumps(dict(sorted(metadata.items()))).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"\0{name} {tensor.dtype} {tuple(tensor.shape)}\0".encode())
        digest.update(tensor.contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _sorted_header(content: bytes) -> bytes:
    """The same safetensors file with its metadata in alphabetical order; the library's order is random."""
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # the tensors begin at a multiple of eight bytes
    return len(text).to_bytes(8, "little") + text + content[8 + length :]
