"""Train, evaluate, predict, save, load: one loop for any model, loss and data."""

import dataclasses
import math
import os
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from gatewise.errors import ArgumentError, DivergenceError, RunError
from gatewise.train.callback import Callback
from gatewise.train.carried import State, through
from gatewise.train.config import TrainConfig
from gatewise.train.health import gradient_norm, what_is_not_finite
from gatewise.train.parallel import Alone, Processes
from gatewise.train.progress import Evaluation, History, Progress, Score, Sums
from gatewise.train.samples import Batch, Samples
from gatewise.train.schedule import learning_rate
from gatewise.train.state import (
    Tensors,
    fill_weights,
    of,
    optimizer_state,
    random_state,
    restore_optimizer,
    restore_random,
    under,
)
from gatewise.train.tensors import read_tensors, write_tensors

Loss = Callable[[Tensor, Tensor], Tensor]
Measure = Callable[[Tensor, Tensor], Tensor]


class Augment(Protocol):
    """Changes the inputs of a training batch at random, such as by moving images; of several, the first."""

    def __call__(self, inputs: Tensor, generator: torch.Generator) -> Tensor:
        """Map inputs (B, ...) to inputs (B, ...), drawing from the generator alone."""


class Runner:
    """Trains a model, and tells how well it does.

    Parameters
    ----------
    model : Module
        Maps inputs (B, ...) to outputs (B, ...). Changed in place. Where it takes several inputs, they are its first
        arguments.
    loss : callable
        Maps outputs and targets to the mean loss over the batch, shape ().
    config : TrainConfig
        The settings.
    measures : mapping of str to callable, default: none
        Each maps outputs and targets to a sum over the batch, shape (); its mean over samples is reported by the name.
    optimizer : Optimizer, default: that of `config`, fused
        Holds the model's parameters; its learning rate is set at each step.
    augment : callable, default None
        Changes the inputs of each training batch.
    processes : Processes, default: this one alone
        Those that train together.
    carries : bool, default False
        Whether the model takes the state that the batch before has left as its last argument (None at the first of an
        epoch or an evaluation), and returns it beside the outputs: see `gatewise.train.carried`. After a step that is
        left out because it is not finite, a state that is not finite either is dropped.

    Raises
    ------
    ArgumentError
        A state is carried, and several batches are accumulated or several processes train.

    Attributes
    ----------
    progress : Progress
        Where the training stands.
    steps_an_epoch : int
        Training steps in an epoch; 0 before `train` has begun.
    best : dict of str to tensor
        The best weights so far, as of `model.state_dict()`; empty before the first evaluation.
    history : History
        The loss of each step and epoch, and the scores of each evaluation.

    Examples
    --------
    >>> from gatewise.train.samples import Examples
    >>> _ = torch.manual_seed(0)
    >>> train = Examples(torch.eye(3), torch.tensor([0, 1, 0]))
    >>> config = TrainConfig(epochs=2, batch_size=2, learning_rate=0.1)
    >>> runner = Runner(nn.Linear(3, 2), nn.functional.cross_entropy, config)
    >>> runner.train(train, {"dev": train})
    >>> len(runner.history.step_losses), len(runner.history.epoch_losses()), len(runner.history.scores("dev"))
    (4, 2, 2)
    >>> runner.predict(torch.eye(3)).shape
    torch.Size([3, 2])
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Loss,
        config: TrainConfig,
        *,
        measures: Mapping[str, Measure] | None = None,
        optimizer: torch.optim.Optimizer | None = None,
        augment: Augment | None = None,
        processes: Processes | None = None,
        carries: bool = False,
    ) -> None:
        self.processes = processes or Alone()
        for name, value in (("accumulate", config.accumulate), ("the number of processes", self.processes.count)):
            if carries and value > 1:
                raise ArgumentError(
                    f"{name} is {value}, needed is 1 where the state is carried on from batch to batch: change it"
                )
        self.carries = carries
        self.model = model
        self.loss = loss
        self.config = config
        self.measures = dict(measures or {})
        self.augment = augment
        self._called = self.processes.share_gradients(model)
        self.optimizer = optimizer or make_optimizer(model, config)
        self.progress = Progress()
        self.history = History()
        self.best: Tensors = {}
        self._state: State | None = None
        self._buffers: list[Tensor] = []
        self._parameters = [p for p in model.parameters() if p.requires_grad]
        self._device = self._parameters[0].device.type
        # Generators of their own, each from the seed alone: whatever else draws random numbers, such as another model's
        # dropout, does not change the order of the samples.
        self._order = torch.Generator().manual_seed(config.seed)
        self._draws = torch.Generator().manual_seed(config.seed)
        self._order_of_epoch = self._order.get_state()
        self.steps_an_epoch = 0
        self._asked = False  # this process was, to stop
        self._stopping = False  # all processes are

    # ---------------------------------------------------------------------------------------------- training

    def train(
        self, train: Samples, others: Mapping[str, Samples] | None = None, callbacks: Sequence[Callback] = ()
    ) -> None:
        """Train to the end, or on to it from where the training stands.

        Parameters
        ----------
        train : Samples
            What is trained on.
        others : mapping of str to Samples, default: none
            What is evaluated only. "dev" chooses the best weights; where there is none, the training loss does.
        callbacks : sequence of Callback
            Hear how it goes, in this order.

        Raises
        ------
        ArgumentError
            Early stopping is asked for, and there is no "dev"; what shall choose the best weights is not measured.
        DivergenceError
            A loss or a gradient is not finite: the message names the step, the batch and what went first. The weights
            are those before the step.
        """
        others = dict(others or {})
        config = self.config
        check_choice(config, others, self.measures)
        self.steps_an_epoch = train.steps(config.batch_size * config.accumulate)
        for callback in callbacks:
            callback.start(self)
        try:
            self._go_on(train, others, callbacks)
        finally:
            self._asked = self._stopping = False

    def _go_on(self, train: Samples, others: Mapping[str, Samples], callbacks: Sequence[Callback]) -> None:
        config, progress = self.config, self.progress
        self._buffers = list(self.model.buffers())
        while not progress.ended and not self._stopping:
            for batch in self._batches(train):
                self._step(batch)
                if config.dev_every and progress.step % config.dev_every == 0 and progress.sums.samples:
                    self._evaluate_all(others, callbacks, whole=False)
                for callback in callbacks:
                    callback.step(self)
                if self._stopping or progress.ended:
                    return
            last = progress.epoch + 1 == config.epochs
            looked_at = others if last or progress.ended or not config.dev_every else {}
            self._evaluate_all(looked_at, callbacks, whole=True)

    def stop(self) -> None:
        """End the training after the step under way; `train` goes on from there.

        Several processes end after the same step, the next one that begins.
        """
        self._asked = True
        if self.processes.count == 1:
            self._stopping = True

    @property
    def steps(self) -> int:
        """The steps of the whole training; 0 before `train` has begun."""
        return self.config.epochs * self.steps_an_epoch

    def _batches(self, train: Samples) -> Iterator[Batch]:
        """What each step takes, from where the epoch under way stands."""
        config, progress = self.config, self.progress
        self._order.set_state(self._order_of_epoch)
        self._called.train()
        return train.batches(config.batch_size * config.accumulate, self._order, progress.batch)

    def _step(self, batch: Batch) -> None:
        """Change the weights once, by the mean loss over a batch."""
        start = time.perf_counter()
        config, progress = self.config, self.progress
        total, measured = 0.0, [0.0] * len(self.measures)
        self.processes.begin_step(config.seed, progress.step)
        for group in self.optimizer.param_groups:  # as zero_grad() does, which takes 14 µs for it in place of 0.6
            for parameter in group["params"]:
                parameter.grad = None
        buffers = [(buffer, buffer.clone()) for buffer in self._buffers]  # which a forward pass may change
        before, after = self._state, self._state
        pieces = _pieces(batch, config)
        for number, (inputs, targets) in enumerate(pieces, start=1):
            if self.augment is not None:
                inputs = (self.augment(inputs[0], self._draws), *inputs[1:])
            inputs, targets, weight = self.processes.share(inputs, targets, len(batch.targets))
            with self.processes.gradients_wait(self._called, number < len(pieces)):
                with self._precision():
                    if self.carries:
                        outputs, after = through(self.model, batch, before)
                    else:
                        outputs = self._called(*inputs)
                    loss = self.loss(outputs, targets)
                self.processes.backward(loss if weight == 1 else loss * weight)
            if math.isfinite(total):
                looked_at = (*inputs, before) if self.carries else inputs  # in the end the first that spoils the loss
            if weight > 0:
                total += loss.item() * weight / self.processes.count
                measured = self._measured(outputs.detach(), targets, measured)
        total, stop, *measured = self.processes.total([total, float(self._asked), *measured])
        if stop > 0:  # and never back to False: a signal may have come meanwhile
            self._stopping = True
        norm_of, gradients = gradient_norm(self._parameters)
        norm = norm_of.item()
        progress.batch += 1
        progress.step += 1
        if math.isfinite(total) and math.isfinite(norm):
            if 0 < config.clip_norm < norm:
                torch._foreach_mul_(gradients, config.clip_norm / norm)
            rate = learning_rate(config.schedule, config.learning_rate * batch.rate, progress.step - 1, self.steps)
            for group in self.optimizer.param_groups:
                group["lr"] = rate
            self.optimizer.step()
            self._state = after
            progress.gradient_norm = norm
            progress.sums.add(total, batch.count, dict(zip(self.measures, measured, strict=True)))
            self.history.step_losses.append(total)
        else:
            went_first = what_is_not_finite(self.model, *looked_at) if config.nonfinite == "stop" else ""
            for buffer, kept in buffers:
                buffer.copy_(kept)
            if config.nonfinite == "stop":
                progress.batch -= 1
                progress.step -= 1
                raise DivergenceError(
                    f"the loss is {total:g} and the gradient's norm {norm:g} in epoch {progress.epoch + 1} at step "
                    f"{progress.step + 1} (batch {progress.batch + 1}, samples {_listed(batch.places)}), needed are "
                    f"finite numbers: {went_first}; try a lower learning rate, or nonfinite skip"
                )
            self._state = after if after is not None and all(bool(s.isfinite().all()) for s in after) else None
            progress.skipped += 1
        took = time.perf_counter() - start
        progress.sums.seconds += took
        progress.seconds += took

    def _measured(self, outputs: Tensor, targets: Tensor, before: list[float]) -> list[float]:
        """The sums of all measures with a batch more."""
        return [so_far + m(outputs, targets).item() for so_far, m in zip(before, self.measures.values(), strict=True)]

    def _precision(self) -> AbstractContextManager[object]:
        if self.config.precision == "float32":
            return nullcontext()
        return torch.autocast(self._device, dtype=torch.bfloat16)

    def _evaluate_all(self, others: Mapping[str, Samples], callbacks: Sequence[Callback], whole: bool) -> None:
        config, progress = self.config, self.progress
        if progress.sums.samples == 0:
            raise DivergenceError(
                f"every step of epoch {progress.epoch + 1} was left out, as none was finite: try a lower learning rate"
            )
        scores = {"train": progress.sums.score()}
        for name, samples in others.items():
            scores[name] = self._evaluate(samples, self.processes)
            progress.seconds += scores[name].seconds
            if not math.isfinite(scores[name].loss):
                raise DivergenceError(
                    f"the loss on the {name} samples is {scores[name].loss:g} after step {progress.step}, needed is a "
                    "finite number: try a lower learning rate"
                )
        evaluation = Evaluation(progress.step, progress.epoch + 1, whole, scores)
        self.history.evaluations.append(evaluation)
        is_best = self._is_best(evaluation, "dev" in others or bool(config.dev_every))
        if whole:
            progress.epoch += 1
            progress.batch = 0
            progress.sums = Sums()
            self._state = None
            self._order_of_epoch = self._order.get_state()
        progress.ended |= progress.epoch == config.epochs
        for callback in callbacks:
            callback.evaluation(self, evaluation, is_best)
        self._called.train()

    def _is_best(self, evaluation: Evaluation, by_dev: bool) -> bool:
        """Keep the weights if none were better, and count towards early stopping if some were."""
        config, progress = self.config, self.progress
        split = "dev" if by_dev else "train"
        if split not in evaluation.scores:
            return False
        found = evaluation.scores[split][config.best_by]
        before = progress.best.scores[split][config.best_by] if progress.best else math.nan
        better = found < before if config.best_by == "loss" else found > before
        if progress.best is None or better:
            progress.best, progress.since_best = evaluation, 0
            self.best = {name: tensor.detach().clone() for name, tensor in self.model.state_dict().items()}
            return True
        progress.since_best += 1
        progress.ended |= 0 < config.patience <= progress.since_best
        return False

    # ------------------------------------------------------------------------------------- evaluation and use

    def evaluate(self, samples: Samples) -> Score:
        """Go once through the samples without changing anything.

        Parameters
        ----------
        samples : Samples
            At least one.

        Returns
        -------
        Score
            The means over all samples, whatever the size of the batches.
        """
        return self._evaluate(samples, Alone())

    @torch.inference_mode()
    def _evaluate(self, samples: Samples, processes: Processes) -> Score:
        """The same by several processes, each of which takes its part."""
        start = time.perf_counter()
        total, measured = 0.0, [0.0] * len(self.measures)
        for batch, outputs in self._outputs(samples, processes):
            with self._precision():
                loss = self.loss(outputs, batch.targets)
            total += loss.item() * batch.count
            measured = self._measured(outputs, batch.targets, measured)
        total, *measured = processes.total([total, *measured])
        count = len(samples)
        means = {name: value / count for name, value in zip(self.measures, measured, strict=True)}
        return Score(total / count, means, count, time.perf_counter() - start)

    def outputs(self, samples: Samples) -> Iterator[tuple[Batch, Tensor]]:
        """Go once through the samples, and give each batch with the model's outputs for it.

        Parameters
        ----------
        samples : Samples
            At least one. They come in an order of their own: see each batch's places.

        Yields
        ------
        batch : Batch
            The next `eval_batch_size` samples.
        outputs : Tensor, shape (B, ...)
            Without gradients.
        """
        return self._outputs(samples, Alone())

    @torch.inference_mode()
    def predict(self, inputs: Tensor) -> Tensor:
        """The model's outputs (N, ...) for inputs (N, ...), in their order."""
        self.model.eval()
        with self._precision():
            return torch.cat([self.model(some) for some in torch.split(inputs, self.config.eval_batch_size)])

    def _outputs(self, samples: Samples, processes: Processes) -> Iterator[tuple[Batch, Tensor]]:
        """The part of each batch that is one process's own, if any is, and the outputs for it."""
        self.model.eval()
        state = None
        for batch in samples.batches(self.config.eval_batch_size, None):
            own = processes.part(batch)
            if not len(own.targets):
                continue
            with torch.inference_mode(), self._precision():
                if self.carries:
                    outputs, state = through(self.model, own, state)
                else:
                    outputs = self.model(*own.inputs)
            yield own, outputs

    # ---------------------------------------------------------------------------------------- what can be kept

    def save(self, path: str | os.PathLike[str], metadata: Mapping[str, str] | None = None) -> None:
        """Write the weights, and no more, into a file that is whole or not there."""
        write_tensors(Path(path), self.model.state_dict(), metadata or {})

    def load(self, path: str | os.PathLike[str]) -> dict[str, str]:
        """Read weights that `save` wrote, and return their metadata.

        Raises
        ------
        RunError
            The file is missing or damaged, or of another model.
        """
        tensors, metadata = read_tensors(Path(path))
        fill_weights(self.model, tensors, path)
        return metadata

    def use_best(self) -> None:
        """Give the model the best weights of the training."""
        if not self.best:
            raise RunError("there are no best weights yet: train first")
        self.model.load_state_dict(self.best)

    def state(self) -> tuple[Tensors, dict[str, Any]]:
        """All that the training is, as tensors and as JSON: from there it goes on bit for bit as it would have."""
        moments, groups = optimizer_state(self.optimizer)
        tensors = (
            under("model", self.model.state_dict())
            | under("best", self.best)
            | under("optimizer", moments)
            | under("random", random_state({"draws": self._draws}))
            | under("carried", {str(place): tensor for place, tensor in enumerate(self._state or ())})
            | {"order_of_epoch": self._order_of_epoch}
            | {"step_losses": torch.tensor(self.history.step_losses, dtype=torch.float64)}
        )
        kept = {
            "progress": self.progress.to_json(),
            "groups": groups,
            "evaluations": [dataclasses.asdict(evaluation) for evaluation in self.history.evaluations],
        }
        return tensors, kept

    def restore(self, tensors: Tensors, kept: Mapping[str, Any], source: object) -> None:
        """Put back what `state` gave.

        Parameters
        ----------
        tensors, kept
            As `state` gave them.
        source : object
            Where they come from, for messages.

        Raises
        ------
        RunError
            They are of another model.
        """
        fill_weights(self.model, of("model", tensors), source)
        restore_optimizer(self.optimizer, of("optimizer", tensors), kept["groups"])
        self.best = of("best", tensors)
        self.progress = Progress.from_json(kept["progress"])
        self.history = History(
            tensors["step_losses"].tolist(), [Evaluation.from_json(entry) for entry in kept["evaluations"]]
        )
        carried = of("carried", tensors)
        self._state = tuple(carried[str(place)] for place in range(len(carried))) or None
        self._order_of_epoch = tensors["order_of_epoch"]
        restore_random(of("random", tensors), {"draws": self._draws})


def check_choice(config: TrainConfig, others: Collection[str], measures: Collection[str]) -> None:
    """Refuse settings that choose the best weights, or the end, by what is not there.

    Parameters
    ----------
    config : TrainConfig
        The settings.
    others : collection of str
        The names of the splits that are evaluated only.
    measures : collection of str
        The names of what is measured.

    Raises
    ------
    ArgumentError
        A dev split or a measure is missing.

    Examples
    --------
    >>> check_choice(TrainConfig(patience=2), [], [])
    Traceback (most recent call last):
    gatewise.errors.ArgumentError: patience is 2 and there is no dev split: set some samples aside as dev
    """
    for name, wanted in (("patience", config.patience > 0), ("dev_every", config.dev_every > 0)):
        if wanted and "dev" not in others:
            raise ArgumentError(
                f"{name} is {getattr(config, name)} and there is no dev split: set some samples aside as dev"
            )
    if config.best_by not in ("loss", *measures):
        raise ArgumentError(f"best_by is {config.best_by}, which is not measured: give it as one of the measures")


def make_optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """The optimizer of the settings, in torch's fused form.

    Examples
    --------
    >>> type(make_optimizer(nn.Linear(2, 1), TrainConfig(optimizer="sgd"))).__name__
    'SGD'
    """
    if config.optimizer == "sgd":
        return torch.optim.SGD(model.parameters(), lr=config.learning_rate, fused=True)
    return torch.optim.Adam(model.parameters(), lr=config.learning_rate, fused=True)


def _pieces(batch: Batch, config: TrainConfig) -> list[tuple[tuple[Tensor, ...], Tensor]]:
    """The inputs and targets of a step that go through the model at once."""
    if config.accumulate == 1:
        return [(batch.inputs, batch.targets)]
    size = config.batch_size
    inputs = zip(*(torch.split(tensor, size) for tensor in batch.inputs), strict=True)
    return list(zip(inputs, torch.split(batch.targets, size), strict=True))


def _listed(places: Tensor) -> str:
    """Some places, the first few by number."""
    first = ", ".join(str(place) for place in places[:5].tolist())
    return f"{first} and {len(places) - 5} more" if len(places) > 5 else first
