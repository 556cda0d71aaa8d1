"""Long sequences cut into lanes that are read side by side, in chunks between which a state is carried on."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gatewise.errors import ArgumentError
from gatewise.train.samples import Batch, shuffled

NO_TARGET = -100
"""A target that is a class, where there is none: torch's cross-entropy passes over it."""

Chunks = tuple[int, int] | Literal["random"]


class Stored(Protocol):
    """An array, or what gives slices of itself as arrays, such as a file that is far larger than memory."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of its numbers."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, ...)."""

    def __len__(self) -> int:
        """N."""

    def __getitem__(self, places: slice, /) -> NDArray[Any]:
        """Some of the N."""


@dataclass(frozen=True, eq=False)
class Track:
    """Everything that is read, one step after the other.

    Parameters
    ----------
    inputs : array or Stored, shape (N, ...)
        May be in a file: of it only what is read next is ever loaded.
    targets : array or Stored, shape (N, ...)
        What each step's output is compared with: integers, with `NO_TARGET` where there is none, or floating-point
        numbers, with NaN.
    begins : bool array, shape (N,), default None
        Where another sequence begins, so that no state may come over from the step before.
    """

    inputs: Stored
    targets: Stored
    begins: NDArray[np.bool_] | None = None

    def __post_init__(self) -> None:
        if len(self.inputs) != len(self.targets) or not len(self.targets):
            raise ArgumentError(
                f"there are {len(self.inputs)} inputs and {len(self.targets)} targets, needed are as many of both, "
                "and at least one"
            )


@dataclass(frozen=True, eq=False)
class Lanes:
    """A track for truncated backpropagation through time, as `Samples` of a model that takes and returns a state.

    It is cut into as many lanes of equal length as a batch has rows. All are read from their beginning to their end,
    `k1` steps at a time; gradients flow back through the last `k2` (Williams and Peng 1990; with k1 = k2 through the
    chunk alone). The last lane may be shorter: past its end there are no targets. Each lane begins with a fresh state.

    Parameters
    ----------
    track : Track
        What is read.
    chunks : pair of int or "random"
        k1 and k2, of which the second is not smaller; or chunks of random length with the learning rate in proportion
        to it (Merity et al. 2018, section 4.1): 95 % of them about `length`, the others half of that, each with a
        standard deviation of 5. They are drawn once from `seed`, and come in another order in each epoch.
    length : int, default 70
        Of random chunks, and of an evaluation's.
    seed : int, default 0
        Of random chunks.
    evaluated_in : int, default 0
        Lanes into which an evaluation cuts it: 1 reads it from beginning to end; 0: as many as are evaluated at once.

    Raises
    ------
    ArgumentError
        k1 is below 1, or k2 below k1; or `length` is below 1.

    Examples
    --------
    >>> track = Track(np.arange(10), np.arange(1, 11))
    >>> for batch in Lanes(track, (3, 3)).batches(2, torch.Generator()):
    ...     print(batch.inputs[0].tolist())
    [[0, 1, 2], [5, 6, 7]]
    [[3, 4], [8, 9]]
    """

    track: Track
    chunks: Chunks
    length: int = 70
    seed: int = 0
    evaluated_in: int = 0

    def __post_init__(self) -> None:
        k1, k2 = (1, 1) if self.chunks == "random" else self.chunks
        if not 1 <= k1 <= k2:
            raise ArgumentError(
                f"there are {k1} steps to a chunk and gradients flow through {k2}, needed is at least 1 and no fewer "
                "for the gradients: change them"
            )
        if self.length < 1:
            raise ArgumentError(f"chunks are {self.length} steps long, needed is at least 1: change it")

    def __len__(self) -> int:
        return _count(self.track.targets)

    def sha256(self) -> str:
        """A checksum over the track."""
        digest = hashlib.sha256()
        for array in (self.track.inputs, self.track.targets, self.track.begins):
            if array is not None:
                digest.update(f"{array.dtype} {array.shape}\0".encode())
                for start in range(0, len(array), 2**20):  # so that a file is never loaded as a whole
                    digest.update(np.ascontiguousarray(array[start : start + 2**20]).data)
        return digest.hexdigest()

    def steps(self, size: int) -> int:
        """How many chunks there are for `size` lanes."""
        return len(self._cuts(size))

    def longest(self, size: int) -> int:
        """How many steps each of `size` lanes has; the last one may have fewer."""
        return -(-len(self.track.inputs) // size)

    def batches(self, size: int, order: torch.Generator | None, first: int = 0) -> Iterator[Batch]:
        """The chunks of an epoch, from the beginning of all lanes to their end."""
        back = 0
        if order is None:
            size = self.evaluated_in or size
            lengths = self._even(size, self.length)
        elif self.chunks == "random":
            drawn = self._cuts(size)
            lengths = [drawn[place] for place in shuffled(len(drawn), order).tolist()]
        else:
            lengths, back = self._cuts(size), self.chunks[1] - self.chunks[0]
        fresh = sum(lengths[:first])
        for new in lengths[first:]:
            start, end = max(0, fresh - back), fresh + new
            rescaled = order is not None and self.chunks == "random"
            yield self._batch(
                size, (start, fresh, end), max(0, end - back) - start, new / self.length if rescaled else 1
            )
            fresh = end

    def _batch(self, size: int, columns: tuple[int, int, int], hand_on: int, rate: float) -> Batch:
        """Columns of `size` lanes from the first on, with targets from the second on, up to the third."""
        start, fresh, end = columns
        track, lane = self.track, self.longest(size)
        inputs = [_columns(track.inputs, size, lane, start, end, 0)]
        if track.begins is not None:
            inputs.append(_columns(track.begins, size, lane, start, end, False))
        floating = np.issubdtype(track.targets.dtype, np.floating)
        targets = _columns(track.targets, size, lane, fresh, end, np.nan if floating else NO_TARGET)
        return Batch(torch.arange(start, end), tuple(inputs), targets, _count(targets.numpy()), rate, hand_on)

    def _cuts(self, size: int) -> list[int]:
        """The lengths of the chunks of `size` lanes."""
        if self.chunks != "random":
            return self._even(size, self.chunks[0])
        draws = np.random.default_rng(self.seed)
        lengths: list[int] = []
        left = self.longest(size)
        while left:
            about = self.length if draws.random() < 0.95 else self.length / 2
            lengths.append(min(left, max(min(5, self.length), round(draws.normal(about, 5)))))
            left -= lengths[-1]
        return lengths

    def _even(self, size: int, length: int) -> list[int]:
        lane = self.longest(size)
        return [min(length, lane - start) for start in range(0, lane, length)]


def _columns(array: Stored, lanes: int, lane: int, start: int, end: int, filling: float) -> Tensor:
    """The same columns of all lanes of a length, shape (lanes, end - start, ...); integers as int64."""
    kind = np.dtype(np.int64) if np.issubdtype(array.dtype, np.integer) else array.dtype
    found = np.full((lanes, end - start, *array.shape[1:]), filling, kind)
    for row in range(lanes):
        own = array[row * lane + start : row * lane + end]
        found[row, : len(own)] = own
    return torch.from_numpy(found)


def _count(targets: Stored) -> int:
    """How many there are; of a file no more is loaded at once than a part."""
    if np.issubdtype(targets.dtype, np.unsignedinteger):  # which cannot be NO_TARGET
        return len(targets)
    parts = (targets[start : start + 2**20] for start in range(0, len(targets), 2**20))
    if np.issubdtype(targets.dtype, np.floating):
        return sum(int((~np.isnan(part)).sum()) for part in parts)
    return sum(int((part != NO_TARGET).sum()) for part in parts)
