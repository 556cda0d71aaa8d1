"""Train, evaluate, predict: the loop, for any model, loss and data held in memory."""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.utils.data import RandomSampler

from gatewise.errors import DivergenceError
from gatewise.train.metrics import correct_by_argmax

Loss = Callable[[Tensor, Tensor], Tensor]
Schedule = torch.optim.lr_scheduler.LRScheduler


class Augment(Protocol):
    """Changes the inputs of a training batch at random, such as by moving images."""

    def __call__(self, inputs: Tensor, generator: torch.Generator) -> Tensor:
        """Map inputs (B, ...) to inputs (B, ...), drawing from the generator alone."""


@dataclass(frozen=True, eq=False)
class Examples:
    """Samples held in memory: `inputs` of shape (N, ...) and `targets` of shape (N, ...)."""

    inputs: Tensor
    targets: Tensor

    def __len__(self) -> int:
        return len(self.targets)


@dataclass(frozen=True)
class Score:
    """How a pass over samples went: the means of loss and accuracy, the number of samples, the time taken."""

    loss: float
    accuracy: float
    samples: int
    seconds: float


@dataclass(frozen=True)
class Epoch:
    """A whole epoch: its number from 1, the training steps done since the start, the score of each split."""

    number: int
    step: int
    scores: dict[str, Score]


@dataclass
class Pass:
    """The sums of one pass over samples while it goes on.

    They stay tensors, so that adding a batch never waits for the device; `score` reads them. A true mean over
    samples weighs each batch's mean by the batch's size: the last batch may be smaller.

    Parameters
    ----------
    total : int
        Samples that the pass will see.
    split : str, default "given"
        Which samples they are: "train" where the weights change.
    epoch : int, default 0
        Its epoch; 0 where there is none, as in an evaluation on its own.
    first_step : int, default 0
        Training steps done before the pass.

    Examples
    --------
    >>> running = Pass(total=3)
    >>> running.add(torch.tensor([[0.0, 1.0], [1.0, 0.0]]), torch.tensor([1, 1]), torch.tensor(0.5))
    >>> running.add(torch.tensor([[1.0, 0.0]]), torch.tensor([0]), torch.tensor(2.0))
    >>> running.samples, running.score().loss, running.score().accuracy
    (3, 1.0, 0.6666666666666666)
    """

    total: int
    split: str = "given"
    epoch: int = 0
    first_step: int = 0
    samples: int = 0
    losses: list[Tensor] = field(default_factory=list)
    correct: list[Tensor] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    start: float = field(default_factory=time.perf_counter)

    def add(self, outputs: Tensor, targets: Tensor, loss: Tensor) -> None:
        """Add a batch of B samples: outputs (B, classes), targets (B,), and the mean loss over them."""
        self.losses.append(loss.detach())
        self.correct.append(correct_by_argmax(outputs.detach(), targets))
        self.sizes.append(len(targets))
        self.samples += len(targets)

    def score(self) -> Score:
        """Read the means so far, at least one batch.

        Raises
        ------
        DivergenceError
            The loss of a batch is not finite.
        """
        seconds = time.perf_counter() - self.start
        losses = torch.stack(self.losses).tolist()
        for batch, loss in enumerate(losses):
            if not math.isfinite(loss):
                raise DivergenceError(
                    f"the loss is {loss} {self._place(batch)}, needed is a finite number: try a lower learning rate"
                )
        loss = sum(loss * size for loss, size in zip(losses, self.sizes, strict=True)) / self.samples
        accuracy = int(torch.stack(self.correct).sum()) / self.samples
        return Score(loss, accuracy, self.samples, seconds)

    def _place(self, batch: int) -> str:
        if self.split == "train":
            return f"in epoch {self.epoch} at step {self.first_step + batch + 1}"
        return f"on the {self.split} samples after epoch {self.epoch} (step {self.first_step})"


def train_epoch(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    loss: Loss,
    examples: Examples,
    order: Tensor,
    batch_size: int,
    running: Pass,
    augment: Callable[[Tensor], Tensor] | None = None,
    schedule: Schedule | None = None,
    on_batch: Callable[[Pass], None] = lambda running: None,
) -> Score:
    """Go once through the samples and change the weights after each batch.

    Parameters
    ----------
    model : Module
        Maps inputs (B, ...) to outputs (B, classes).
    optimizer : Optimizer
        Holds the model's parameters.
    loss : callable
        Maps outputs and targets to the mean loss over the batch, shape ().
    examples : Examples
        N samples.
    order : integer tensor, shape (N,)
        The places of the samples in the order in which they are taken.
    batch_size : int
        Samples in a step; the last step takes what is left.
    running : Pass
        Takes the sums.
    augment : callable, default None
        Changes the inputs of a batch.
    schedule : LRScheduler, default None
        Changes the optimizer's learning rate after each step.
    on_batch : callable, default: nothing
        Is called with `running` after each step. It costs nothing unless it reads the score.

    Returns
    -------
    Score
        The means over all samples, each while the weights were as they were then.
    """
    model.train()
    for batch in torch.split(order, batch_size):
        inputs, targets = examples.inputs[batch], examples.targets[batch]
        if augment is not None:
            inputs = augment(inputs)
        outputs = model(inputs)
        batch_loss = loss(outputs, targets)
        optimizer.zero_grad()
        batch_loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        if schedule is not None:
            schedule.step()
        running.add(outputs, targets, batch_loss)
        on_batch(running)
    return running.score()


def evaluate(model: nn.Module, loss: Loss, examples: Examples, batch_size: int, running: Pass | None = None) -> Score:
    """Go once through the samples without changing anything.

    Parameters
    ----------
    model : Module
        Maps inputs (B, ...) to outputs (B, classes).
    loss : callable
        Maps outputs and targets to the mean loss over the batch, shape ().
    examples : Examples
        N samples.
    batch_size : int
        Samples at once; the last batch takes what is left, and the means are over samples all the same.
    running : Pass, default: a new one
        Takes the sums.

    Returns
    -------
    Score
        The means over all samples.

    Examples
    --------
    >>> examples = Examples(torch.eye(3), torch.tensor([0, 1, 0]))
    >>> evaluate(nn.Identity(), nn.functional.cross_entropy, examples, batch_size=2).accuracy
    0.6666666666666666
    """
    running = running or Pass(len(examples))
    model.eval()
    with torch.inference_mode():
        for first in range(0, len(examples), batch_size):
            batch = slice(first, first + batch_size)
            outputs, targets = model(examples.inputs[batch]), examples.targets[batch]
            running.add(outputs, targets, loss(outputs, targets))
    return running.score()


def predict(model: nn.Module, inputs: Tensor, batch_size: int) -> Tensor:
    """The model's outputs for all inputs.

    Parameters
    ----------
    model : Module
        Maps inputs (B, ...) to outputs (B, ...).
    inputs : tensor, shape (N, ...)
        At least one sample.
    batch_size : int
        Samples at once.

    Returns
    -------
    tensor, shape (N, ...)
        In the order of the inputs.

    Examples
    --------
    >>> predict(nn.Identity(), torch.arange(3.0), batch_size=2)
    tensor([0., 1., 2.])
    """
    model.eval()
    with torch.inference_mode():
        return torch.cat([model(batch) for batch in torch.split(inputs, batch_size)])


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


def fit(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    loss: Loss,
    train: Examples,
    others: Mapping[str, Examples],
    *,
    epochs: int,
    batch_size: int,
    eval_batch_size: int,
    seed: int,
    augment: Augment | None = None,
    schedule: Schedule | None = None,
    on_batch: Callable[[Pass], None] = lambda running: None,
    on_epoch: Callable[[Epoch], None] = lambda epoch: None,
) -> list[Epoch]:
    """Train, and evaluate the other splits after each epoch.

    The order of the samples and the draws of `augment` come from generators of their own, each from the seed
    alone: whatever else draws random numbers, such as another model's dropout, does not change them. The batches
    are those of ``DataLoader(..., shuffle=True, generator=torch.Generator().manual_seed(seed))``, so that a plain
    torch script with the same seed sees the same ones.

    Parameters
    ----------
    model : Module
        Maps inputs (B, ...) to outputs (B, classes). Changed in place.
    optimizer : Optimizer
        Holds the model's parameters.
    loss : callable
        Maps outputs and targets to the mean loss over the batch, shape ().
    train : Examples
        What is trained on.
    others : mapping of str to Examples
        What is evaluated only, each by its name.
    epochs, batch_size, eval_batch_size : int
        At least 1.
    seed : int
        Of the order of the samples and of `augment`.
    augment : callable, default None
        Maps the inputs of a training batch and a generator to inputs.
    schedule : LRScheduler, default None
        Changes the optimizer's learning rate after each step.
    on_batch : callable, default: nothing
        Is called with the epoch's sums after each step. It costs nothing unless it reads the score.
    on_epoch : callable, default: nothing
        Is called after each whole epoch, when the others have been evaluated.

    Returns
    -------
    list of Epoch
        One for each epoch; the training's scores are under "train".

    Raises
    ------
    DivergenceError
        A loss is not finite; the message names epoch and step.

    Examples
    --------
    >>> model = nn.Linear(3, 2)
    >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    >>> train = Examples(torch.eye(3), torch.tensor([0, 1, 0]))
    >>> history = fit(model, optimizer, nn.functional.cross_entropy, train, {"dev": train},
    ...               epochs=2, batch_size=2, eval_batch_size=3, seed=0)
    >>> [(epoch.number, epoch.step, list(epoch.scores)) for epoch in history]
    [(1, 2, ['train', 'dev']), (2, 4, ['train', 'dev'])]
    """
    order = torch.Generator().manual_seed(seed)
    draws = torch.Generator().manual_seed(seed)
    steps = math.ceil(len(train) / batch_size)
    history = []
    for number in range(1, epochs + 1):
        running = Pass(len(train), "train", number, first_step=(number - 1) * steps)
        places = shuffled(len(train), order)
        score = train_epoch(
            model,
            optimizer,
            loss,
            train,
            places,
            batch_size,
            running,
            partial(augment, generator=draws) if augment else None,
            schedule,
            on_batch,
        )
        scores = {"train": score}
        for name, examples in others.items():
            running = Pass(len(examples), name, number, first_step=number * steps)
            scores[name] = evaluate(model, loss, examples, eval_batch_size, running)
        epoch = Epoch(number, number * steps, scores)
        history.append(epoch)
        on_epoch(epoch)
    return history
