"""What a training goes through: samples in batches, in an order that its seed fixes."""

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.utils.data import RandomSampler

from gatewise.errors import ArgumentError

GATHERED = 2**20
"""Bytes of inputs, at most, that are gathered for several steps at once: they stay in the cache."""


@dataclass(frozen=True, eq=False)
class Batch:
    """What goes through the model in a step, or is evaluated at once.

    Parameters
    ----------
    places : integer tensor
        Where it is among the samples, for messages.
    inputs : tuple of Tensor, each of shape (B, ...)
        The model's arguments.
    targets : Tensor, shape (B, ...)
        What the loss compares the outputs with. Where they have fewer columns than the outputs, (B, K, ...) against
        (B, T, ...), they are those of the last K: what comes before is there for the state alone.
    count : int
        Over how many targets the loss is a mean.
    rate : float, default 1
        What the learning rate is multiplied by.
    hand_on : int, default None
        The columns of the inputs after which the next batch begins, where a state is carried on to it; None: all.
    """

    places: Tensor
    inputs: tuple[Tensor, ...]
    targets: Tensor
    count: int
    rate: float = 1.0
    hand_on: int | None = None


class Samples(Protocol):
    """What a `Runner` trains on or evaluates."""

    def __len__(self) -> int:
        """How many targets there are, over all of which a score is the mean."""

    def sha256(self) -> str:
        """A checksum, so that a training goes on with the data that it began with."""

    def steps(self, size: int) -> int:
        """How many batches of `size` samples there are in an epoch."""

    def batches(self, size: int, order: torch.Generator | None, first: int = 0) -> Iterator[Batch]:
        """The batches of an epoch.

        Parameters
        ----------
        size : int
            Samples in each.
        order : Generator or None
            Draws the order of an epoch, the same number of times whatever `first` is; None: for an evaluation, where
            each sample counts once and order does not.
        first : int, default 0
            How many of them are over.
        """


@dataclass(frozen=True, eq=False)
class Examples:
    """Samples of one shape held in memory: `inputs` of shape (N, ...) and `targets` of shape (N, ...).

    Their batches are those of ``DataLoader(..., shuffle=True, generator=torch.Generator().manual_seed(seed))``.

    Examples
    --------
    >>> samples = Examples(torch.eye(3), torch.tensor([0, 1, 0]))
    >>> [batch.targets.tolist() for batch in samples.batches(2, None)]
    [[0, 1], [0]]
    """

    inputs: Tensor
    targets: Tensor

    def __post_init__(self) -> None:
        if len(self.inputs) != len(self.targets) or not len(self.targets):
            raise ArgumentError(
                f"there are {len(self.inputs)} inputs and {len(self.targets)} targets, needed are as many of both, "
                "and at least one"
            )

    def __len__(self) -> int:
        return len(self.targets)

    def sha256(self) -> str:
        """A checksum over both."""
        return checksum(self.inputs, self.targets)

    def steps(self, size: int) -> int:
        """How many batches there are."""
        return math.ceil(len(self) / size)

    def batches(self, size: int, order: torch.Generator | None, first: int = 0) -> Iterator[Batch]:
        """The batches, of which those of several small steps are gathered at once: a gathering takes its time."""
        places = torch.arange(len(self)) if order is None else shuffled(len(self), order)
        places = places[first * size :]
        at_once = size * max(1, GATHERED // max(1, size * self.inputs[0].nbytes))
        for start in range(0, len(places), at_once):
            chosen = places[start : start + at_once]
            tensors = (chosen, self.inputs.index_select(0, chosen), self.targets.index_select(0, chosen))
            for own, inputs, targets in zip(*(torch.split(tensor, size) for tensor in tensors), strict=True):
                yield Batch(own, (inputs,), targets, len(targets))


def checksum(*tensors: Tensor) -> str:
    """A checksum over tensors, their types and shapes.

    Examples
    --------
    >>> checksum(torch.zeros(2)) == checksum(torch.zeros(2)), checksum(torch.zeros(2)) == checksum(torch.zeros(1, 2))
    (True, False)
    """
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(f"{tensor.dtype} {tuple(tensor.shape)}\0".encode())
        digest.update(tensor.cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def shuffled(count: int, generator: torch.Generator) -> Tensor:
    """The places 0 to count - 1 in the order in which an epoch of torch's shuffling DataLoader takes them.

    Parameters
    ----------
    count : int
        Samples.
    generator : Generator
        Draws the order, and goes on as a DataLoader's own does.

    Returns
    -------
    integer tensor, shape (count,)

    Examples
    --------
    >>> shuffled(5, torch.Generator().manual_seed(0)).sort().values
    tensor([0, 1, 2, 3, 4])
    """
    torch.empty((), dtype=torch.int64).random_(generator=generator)  # a DataLoader's seed for its worker processes
    return torch.tensor(list(RandomSampler(range(count), generator=generator)))
