"""The processes that train one model together: usually one; under torchrun as many as it starts."""

import os
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from datetime import timedelta
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn

from gatewise.errors import ArgumentError
from gatewise.train.samples import Batch


class Processes(Protocol):
    """What a training asks of the processes that share it.

    Attributes
    ----------
    rank, count : int
        Which one this is, from 0, and how many there are. The one of rank 0 writes.
    """

    rank: int
    count: int

    def begin_step(self, seed: int, step: int) -> None:
        """Before each step: draw from now on what no other process does."""

    def share_gradients(self, model: nn.Module) -> nn.Module:
        """What to call in the model's place, so that backward leaves everywhere the mean of all gradients."""

    def share(
        self, inputs: tuple[Tensor, ...], targets: Tensor, samples: int
    ) -> tuple[tuple[Tensor, ...], Tensor, float]:
        """A process's own part of a batch, and what to weigh its mean loss with.

        The mean over processes of the weighted losses is the batch's part of the mean over `samples`.
        """

    def gradients_wait(self, model: nn.Module, wait: bool) -> AbstractContextManager[Any]:
        """Where backward leaves each process its own gradient, if it is to wait for more."""

    def backward(self, loss: Tensor) -> None:
        """Compute the gradients."""

    def part(self, batch: Batch) -> Batch:
        """A process's own part of what is evaluated; it may be empty."""

    def total(self, values: list[float]) -> list[float]:
        """The sums over processes."""


class Alone:
    """One process.

    Examples
    --------
    >>> Alone().share((torch.zeros(3, 2),), torch.zeros(3), 6)[2]
    0.5
    """

    rank = 0
    count = 1

    def begin_step(self, seed: int, step: int) -> None:
        """Go on drawing."""

    def share_gradients(self, model: nn.Module) -> nn.Module:
        """The model itself."""
        return model

    def share(
        self, inputs: tuple[Tensor, ...], targets: Tensor, samples: int
    ) -> tuple[tuple[Tensor, ...], Tensor, float]:
        """All of it."""
        return inputs, targets, len(targets) / samples

    def gradients_wait(self, model: nn.Module, wait: bool) -> AbstractContextManager[Any]:
        """Nothing has to wait."""
        return nullcontext()

    def backward(self, loss: Tensor) -> None:
        """Compute the gradients."""
        loss.backward()  # type: ignore[no-untyped-call]

    def part(self, batch: Batch) -> Batch:
        """All of it."""
        return batch

    def total(self, values: list[float]) -> list[float]:
        """The values."""
        return values


class Together:
    """The processes that torchrun has started: DistributedDataParallel by lightning-fabric.

    Each takes every so-manieth sample of a batch, so that a step is that of one process with the whole batch, within
    rounding.

    Raises
    ------
    ArgumentError
        lightning-fabric is not installed.
    """

    def __init__(self) -> None:
        try:
            from lightning_fabric import Fabric
            from lightning_fabric.strategies.ddp import DDPStrategy
        except ImportError as error:
            raise ArgumentError(
                "several processes need lightning-fabric, which is not installed: pip install 'gatewise[parallel]'"
            ) from error
        gpus = torch.cuda.is_available()
        local = int(os.environ["LOCAL_WORLD_SIZE"])
        self._fabric = Fabric(
            accelerator="cuda" if gpus else "cpu",
            strategy=DDPStrategy(process_group_backend="nccl" if gpus else "gloo", timeout=timedelta(minutes=10)),
            devices=local,
            num_nodes=int(os.environ["WORLD_SIZE"]) // local,
        )
        self._fabric.launch()
        self.rank = self._fabric.global_rank
        self.count = self._fabric.world_size

    def begin_step(self, seed: int, step: int) -> None:
        """Seed torch by the step and the rank: a resumed training drops what it would have dropped."""
        torch.manual_seed(hash((seed, step, self.rank)))

    def share_gradients(self, model: nn.Module) -> nn.Module:
        """The model in DistributedDataParallel."""
        return self._fabric.setup_module(model)

    def share(
        self, inputs: tuple[Tensor, ...], targets: Tensor, samples: int
    ) -> tuple[tuple[Tensor, ...], Tensor, float]:
        """Every so-manieth sample; where none is left, the first with no weight, so that all take each step."""
        own = slice(self.rank, None, self.count)
        if self.rank >= len(targets):
            return tuple(tensor[:1] for tensor in inputs), targets[:1], 0.0
        return tuple(tensor[own] for tensor in inputs), targets[own], len(targets[own]) * self.count / samples

    def gradients_wait(self, model: nn.Module, wait: bool) -> AbstractContextManager[Any]:
        """Gradients are added up before the processes exchange them."""
        return self._fabric.no_backward_sync(cast(Any, model), enabled=wait)

    def backward(self, loss: Tensor) -> None:
        """Compute the gradients, and their means over processes."""
        self._fabric.backward(loss)

    def part(self, batch: Batch) -> Batch:
        """Every so-manieth sample."""
        own = slice(self.rank, None, self.count)
        inputs, targets = tuple(tensor[own] for tensor in batch.inputs), batch.targets[own]
        return replace(batch, places=batch.places[own], inputs=inputs, targets=targets, count=len(targets))

    def total(self, values: list[float]) -> list[float]:
        """The sums over processes, in float64."""
        tensor = torch.tensor(values, dtype=torch.float64, device=self._fabric.device)
        return self._fabric.all_reduce(tensor, reduce_op="sum").tolist()  # type: ignore[union-attr]


def processes() -> Processes:
    """Those that torchrun has started, or this one alone.

    Examples
    --------
    >>> processes().count
    1
    """
    return Together() if int(os.environ.get("WORLD_SIZE", "1")) > 1 else Alone()
