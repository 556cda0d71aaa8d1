"""Sequences of different length as samples: batches of similar length, each padded to its own longest."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from gatewise.errors import ArgumentError
from gatewise.train.lanes import NO_TARGET
from gatewise.train.samples import Batch, checksum, shuffled

POOL = 8
"""Batches that are sorted by length together. More would have less padding, and make batches of the same sequences."""


@dataclass(frozen=True, eq=False)
class Ragged:
    """Sequences of different length, for a model that is called as ``model(x, lengths)``.

    A batch's inputs are x of shape (B, T, I), with zeros past each sequence's end, and lengths of shape (B,), int64; T
    is the longest of the batch. An epoch shuffles the sequences, sorts each `POOL` batches of them by length, cuts
    these into batches, and shuffles those: each sequence comes once, and in the same number of batches each time. An
    evaluation goes through them by length.

    Parameters
    ----------
    inputs : float tensor, shape (S, I)
        The steps of all sequences, one sequence after the other.
    lengths : integer tensor, shape (N,)
        The steps of each.
    targets : integer tensor, shape (N,) or (S,)
        A class for each sequence; or one for each step, which batches have as (B, T), `NO_TARGET` past the end.
    per_step : bool, default False
        Which of the two.

    Raises
    ------
    ArgumentError
        There is no sequence, one has no steps, or the counts do not fit one another.

    Examples
    --------
    >>> samples = Ragged(torch.arange(6.0)[:, None], torch.tensor([3, 1, 2]), torch.tensor([0, 1, 0]))
    >>> for batch in samples.batches(2, None):
    ...     print(batch.places.tolist(), batch.inputs[0][..., 0].tolist(), batch.inputs[1].tolist())
    [1, 2] [[3.0, 0.0], [4.0, 5.0]] [1, 2]
    [0] [[0.0, 1.0, 2.0]] [3]
    """

    inputs: Tensor
    lengths: Tensor
    targets: Tensor
    per_step: bool = False

    def __post_init__(self) -> None:
        needed = len(self.inputs) if self.per_step else len(self.lengths)
        if not len(self.lengths) or self.lengths.min() < 1 or self.lengths.sum() != len(self.inputs):
            raise ArgumentError(
                f"there are {len(self.lengths)} lengths, {int(self.lengths.sum())} in sum, for {len(self.inputs)} "
                "steps, needed is at least one sequence, each of at least one step, and all steps in them"
            )
        if len(self.targets) != needed:
            raise ArgumentError(f"there are {len(self.targets)} targets, needed are {needed}")

    def __len__(self) -> int:
        return len(self.lengths)

    def sha256(self) -> str:
        """A checksum over everything."""
        return checksum(self.inputs, self.lengths, self.targets)

    def steps(self, size: int) -> int:
        """How many batches there are, whatever their order."""
        return math.ceil(len(self) / size)

    def steps_of(self, places: Tensor) -> tuple[Tensor, Tensor]:
        """Where some sequences' steps are among all.

        Parameters
        ----------
        places : integer tensor, shape (B,)
            The sequences.

        Returns
        -------
        rows : integer tensor, shape (B, T)
            Past a sequence's end its first step again.
        past : bool tensor, shape (B, T)
            Where that is.
        """
        lengths, columns = self.lengths[places, None], torch.arange(int(self.lengths[places].max()))
        past = columns >= lengths
        return self._starts[places, None] + columns.masked_fill(past, 0), past

    @cached_property
    def _starts(self) -> Tensor:
        return self.lengths.cumsum(0) - self.lengths

    def batches(self, size: int, order: torch.Generator | None, first: int = 0) -> Iterator[Batch]:
        """The batches of an epoch, or of an evaluation."""
        alike = self._similar(size, order) if order else torch.split(self.lengths.argsort(stable=True), size)
        for places in alike[first:]:
            rows, past = self.steps_of(places)
            x = self.inputs[rows].masked_fill(past[:, :, None], 0)
            targets = self.targets[rows].masked_fill(past, NO_TARGET) if self.per_step else self.targets[places]
            yield Batch(places, (x, self.lengths[places]), targets, len(places))

    def _similar(self, size: int, order: torch.Generator) -> list[Tensor]:
        """Batches of similar length. The smaller one, if there is one, is any, not always that of the longest."""
        found: list[Tensor] = []
        for pool in torch.split(shuffled(len(self), order), POOL * size):
            by_length = pool[self.lengths[pool].argsort(stable=True)]
            sizes = [len(some) for some in torch.split(by_length, size)]
            drawn = torch.randperm(len(sizes), generator=order).tolist()
            found += torch.split(by_length, [sizes[place] for place in drawn])
        return [found[place] for place in torch.randperm(len(found), generator=order).tolist()]
