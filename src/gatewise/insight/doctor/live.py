"""The doctor for a live model: runs a copy of it on a batch, and reports what the tensors show."""

from __future__ import annotations

import copy
import math
import random
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from gatewise.errors import ArgumentError
from gatewise.insight.doctor.findings import Finding, Findings

LossFunction = Callable[[Any, Any], Tensor]


def doctor(
    model: nn.Module, batch: Any, target: Any = None, loss: LossFunction | None = None, *, batch_axis: int = 0
) -> Findings:
    """Run a model on a batch and look for mistakes with sequences.

    A copy is run, a few times, so that the model, its gradients and torch's random state stay as they are.

    Parameters
    ----------
    model : Module
        The model, on the device of the batch.
    batch : Tensor, tuple or dict
        What the model is called with: one input, or a tuple of arguments, or a dict of keyword arguments. Whether
        batch and time are swapped shows only with two samples or more that differ.
    target : Tensor, optional
        What the loss compares the model's result with.
    loss : callable, optional
        Such as `torch.nn.MSELoss()`: called with the result and the target. Without these two, nothing is said about
        the loss and about parameters that it does not depend on.
    batch_axis : int, default 0
        The axis of the batch that counts samples.

    Returns
    -------
    Findings
        A list that prints as text; empty if nothing was found.

    Raises
    ------
    ArgumentError
        The model is no module or cannot be copied, `batch` holds no tensor, or only one of `target` and `loss` was
        given. What the model itself raises on the batch is passed on.

    Examples
    --------
    A model for batches of (samples, steps, numbers) whose author forgot ``batch_first=True``:

    >>> class Model(torch.nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.lstm = torch.nn.LSTM(4, 8)
    ...
    ...     def forward(self, x):
    ...         return self.lstm(x)[0][:, -1]
    >>> found = doctor(Model(), torch.randn(5, 7, 4))
    >>> [(finding.where, finding.code) for finding in found]
    [('model.lstm', 'batch-and-time')]
    >>> print(found[0].mend)
    model.lstm = torch.nn.LSTM(4, 8, batch_first=True)
    """
    if not isinstance(model, nn.Module):
        raise ArgumentError(f"model is a {type(model).__name__}, needed is a torch.nn.Module: give the model itself")
    if (target is None) != (loss is None):
        raise ArgumentError("only one of target and loss was given, needed are both or neither: give the other one too")
    samples = _samples(batch, batch_axis)
    if samples is None:
        raise ArgumentError(f"batch has no tensor with an axis {batch_axis}: give what the model is called with")
    if samples == 0:
        raise ArgumentError(f"batch has no sample along axis {batch_axis}: give one with two or more")
    found = Findings()
    with _left_alone(model):
        found += _swapped(model, batch, batch_axis)
        found += _last_steps(model, batch)
        found += _plain_tensors(model, batch)
        if loss is not None:
            found += _of_the_loss(model, batch, target, loss)
    return Findings(dict.fromkeys(found))  # a module that is called twice is named once


@contextmanager
def _left_alone(model: nn.Module) -> Iterator[None]:
    """Keep the random states as they were, and torch quiet about what is reported here."""
    tensors = [*model.parameters(), *model.buffers()]
    devices = sorted({t.device.index or 0 for t in tensors if t.device.type == "cuda"})
    state = random.getstate()
    try:
        with (
            torch.random.fork_rng(devices),
            # cuDNN goes back through an LSTM in training mode only.
            torch.backends.cudnn.flags(enabled=False),
            torch.enable_grad(),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        random.setstate(state)


def _copy(model: nn.Module) -> nn.Module:
    # torch does not copy a tensor that was computed with gradients, such as a state kept from the step before.
    memo: dict[int, Any] = {}
    for module in model.modules():
        for tensor in _tensors(list(vars(module).values())):
            if not tensor.is_leaf:
                memo[id(tensor)] = tensor.detach().clone()
    try:
        return copy.deepcopy(model, memo)
    except Exception as error:
        raise ArgumentError(
            f"the {type(model).__name__} cannot be copied ({type(error).__name__}: {error}), needed is a model that "
            "copy.deepcopy takes: leave out of it what is none of its state"
        ) from error


# --- a run --------------------------------------------------------------------------------------------------


@dataclass
class Call:
    """A call of a recurrent module: what it read and what it gave."""

    name: str
    module: nn.RNNBase
    input: Any
    output: Any

    @property
    def time(self) -> int:
        """The axis of the steps."""
        return 1 if self.module.batch_first and self.input.dim() == 3 else 0


@dataclass
class Run:
    """A run of a copy of the model."""

    result: Any
    calls: list[Call] = field(default_factory=list)
    embedded: list[tuple[Tensor, nn.Embedding]] = field(default_factory=list)


def _run(model: nn.Module, batch: Any) -> Run:
    """Run a model that is a copy already, with the same random numbers each time."""
    run = Run(None)
    names = {module: f"model.{name}" if name else "model" for name, module in model.named_modules()}

    def keep(module: nn.Module, given: tuple[Any, ...], words: dict[str, Any], output: Any) -> None:
        read = given[0] if given else words.get("input")
        if isinstance(module, nn.RNNBase):
            run.calls.append(Call(names[module], module, read, output[0]))
        elif isinstance(module, nn.Embedding) and isinstance(read, Tensor):
            run.embedded.append((read, module))

    hooks = [
        module.register_forward_hook(keep, with_kwargs=True)
        for module in names
        if isinstance(module, nn.RNNBase | nn.Embedding)
    ]
    try:
        torch.manual_seed(0)
        random.seed(0)
        batch = _each(batch, lambda tensor: tensor.detach().clone())
        if isinstance(batch, Mapping):
            run.result = model(**batch)
        else:
            run.result = model(*batch) if isinstance(batch, tuple) else model(batch)
    finally:
        for hook in hooks:
            hook.remove()
    return run


def _tensors(value: Any) -> list[Tensor]:
    """All tensors in nested tuples, lists and dicts."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, PackedSequence):
        return [value.data]
    if isinstance(value, Mapping):
        value = list(value.values())
    return [tensor for part in value for tensor in _tensors(part)] if isinstance(value, tuple | list) else []


def _each(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """The same nesting of tuples, lists and dicts with each tensor changed."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, Mapping):
        return {key: _each(part, change) for key, part in value.items()}
    if isinstance(value, list):
        return [_each(part, change) for part in value]
    return tuple(_each(part, change) for part in value) if type(value) is tuple else value


def _samples(batch: Any, axis: int) -> int | None:
    return next((tensor.size(axis) for tensor in _tensors(batch) if tensor.dim() > axis), None)


# --- batch and time -----------------------------------------------------------------------------------------


def _swapped(model: nn.Module, batch: Any, axis: int) -> Iterator[Finding]:
    """Reorder the samples: the results have to follow, and a module whose steps are reordered reads them as time."""
    count = _samples(batch, axis)
    if count is None or count < 2:
        return
    order = torch.arange(count).roll(1)

    def reorder(tensor: Tensor) -> Tensor:
        for at in (axis, 0):  # lengths have no other axis than the samples'
            if tensor.dim() > at and tensor.size(at) == count:
                return tensor.index_select(at, order.to(tensor.device))
        return tensor

    with torch.no_grad():
        one, other = _run(_copy(model).eval(), batch), _run(_copy(model).eval(), _each(batch, reorder))
    if len(one.calls) != len(other.calls) or _follows(one.result, other.result, order):
        return
    said = set()
    for before, after in zip(one.calls, other.calls, strict=True):
        if not isinstance(before.input, Tensor) or before.input.dim() != 3 or before.name in said:
            continue
        time, rows = before.time, 1 - before.time
        if not _moved(before.input, after.input, order, time) or _moved(before.input, after.input, order, rows):
            continue
        said.add(before.name)
        options = _options(before.module, batch_first=not before.module.batch_first)
        yield Finding(
            before.name,
            None,
            None,
            "batch-and-time",
            f"its input {tuple(before.input.shape)} has the {count} samples along axis {time}, which it reads as time: "
            "with the samples in another order, the model gives them other results.",
            f"{before.name} = {options}",
        )


def _moved(before: Tensor, after: Tensor, order: Tensor, axis: int) -> bool:
    """Whether one tensor is the other with the entries along an axis reordered."""
    if before.shape != after.shape or before.size(axis) != len(order):
        return False
    return _near(before.index_select(axis, order.to(before.device)), after)


def _follows(before: Any, after: Any, order: Tensor) -> bool:
    """Whether results are reordered as the samples are; true if they have no axis of samples to tell it by."""
    first = next(iter(_tensors(before)), None)
    if first is not None and first.dim() > 0 and len(order) not in first.shape:
        return False  # as many results as there are steps, say
    pairs = [
        (one, other)
        for one, other in zip(_tensors(before), _tensors(after), strict=False)
        if len(order) in one.shape and one.is_floating_point()
    ]
    return all(any(_moved(one, other, order, axis) for axis in range(one.dim())) for one, other in pairs)


def _near(one: Tensor, other: Tensor) -> bool:
    if not one.is_floating_point():
        return torch.equal(one, other)
    size = float(one.abs().max()) if one.numel() else 0.0
    if not math.isfinite(size):
        return torch.equal(one.isfinite(), other.isfinite())
    return torch.allclose(one, other, rtol=1e-3, atol=1e-4 * size)


def _options(module: nn.RNNBase, *, batch_first: bool) -> str:
    """The call that makes such a module."""
    words = {"num_layers": 1, "bias": True, "dropout": 0.0, "bidirectional": False, "proj_size": 0}
    given = [str(module.input_size), str(module.hidden_size)]
    given += [f"{word}={getattr(module, word)}" for word, usual in words.items() if getattr(module, word) != usual]
    if isinstance(module, nn.RNN) and module.nonlinearity != "tanh":
        given.append(f"nonlinearity={module.nonlinearity!r}")
    package = type(module).__module__.partition(".")[0]
    return (
        f"{'torch.nn' if package == 'torch' else package}.{type(module).__name__}({', '.join(given)}, {batch_first=})"
    )


# --- the last step ------------------------------------------------------------------------------------------


def _last_steps(model: nn.Module, batch: Any) -> Iterator[Finding]:
    """Go back from the results to each recurrent module's output: which of its steps is used at all?"""
    run = _run(_copy(model).eval(), batch)
    scalar = _scalar(run.result)
    outputs = [_numbers(call.output) for call in run.calls]
    if scalar is None or not outputs or not all(output.requires_grad for output in outputs):
        return
    gradients = torch.autograd.grad(scalar, outputs, allow_unused=True)
    padded = _padded_ids(run)
    for call, gradient in zip(run.calls, gradients, strict=True):
        if gradient is not None and (isinstance(call.output, PackedSequence) or call.input.dim() == 3):
            yield from _of_a_call(call, gradient, padded)


def _scalar(result: Any) -> Tensor | None:
    """One number that depends on all that can be gone back from; None if nothing can."""
    scalar = None
    for tensor in _tensors(result):
        if tensor.requires_grad and tensor.is_floating_point():
            # Weighted at random, as the plain sum of a softmax has no gradient.
            part = (tensor * torch.randn_like(tensor)).sum()
            scalar = part if scalar is None else scalar + part
    return scalar


def _numbers(output: Any) -> Tensor:
    tensor: Tensor = output.data if isinstance(output, PackedSequence) else output
    return tensor


def _of_a_call(call: Call, gradient: Tensor, padded: list[Tensor]) -> Iterator[Finding]:
    lengths: list[int] | None = None
    if isinstance(call.output, PackedSequence):
        # Step after step, the rows of the sequences that are that long.
        sizes = call.output.batch_sizes
        last, before = gradient[-int(sizes[-1]) :], gradient[: -int(sizes[-1])]
        shorter = int(sizes[0] - sizes[-1])
        steps, state = len(sizes), "the last state holds each sequence's own last step"
    else:
        by_time = gradient.transpose(0, call.time)
        last, before = by_time[-1], by_time[:-1]
        lengths = _lengths(call, padded)
        steps = len(by_time)
        shorter = sum(length < steps for length in lengths or ())
        state = "pack the batch, so that the last state holds each sequence's own last step"
    if steps < 2 or bool(before.any()) or not bool(last.any()):
        return
    both = call.module.bidirectional
    width = last.size(-1) // 2
    taken = "torch.cat([h_n[-2], h_n[-1]], dim=-1)" if both else "h_n[-1]"
    pair = "(h_n, _)" if call.module.mode == "LSTM" else "h_n"
    if both and bool(last[..., width:].any()):
        yield Finding(
            call.name,
            None,
            None,
            "last-of-bidirectional",
            "of its output only the last step is used, in both directions: the reverse one begins there, so its half "
            "has read one step of the sequence only.",
            f"output, {pair} = {call.name}(…); {taken}",
        )
    if shorter:
        flag = ", batch_first=True" if call.module.batch_first else ""
        pack = f"packed = torch.nn.utils.rnn.pack_padded_sequence(x, lengths{flag}, enforce_sorted=False)\n"
        yield Finding(
            call.name,
            None,
            None,
            "last-of-padded",
            f"of its output only the last of {steps} steps is used, and {shorter} sequences of the batch end before: "
            f"theirs is padding; {state}.",
            f"{'' if lengths is None else pack}output, {pair} = {call.name}({'packed' if lengths else '…'}); {taken}",
        )


def _padded_ids(run: Run) -> list[Tensor]:
    """For each embedding with a padding index: where its ids are padding."""
    return [ids == module.padding_idx for ids, module in run.embedded if module.padding_idx is not None]


def _lengths(call: Call, padded: list[Tensor]) -> list[int] | None:
    """How long the sequences of a dense batch are; None where that is not plain to see."""
    x = call.input.detach().transpose(0, call.time)  # (T, B, I)
    masks = [mask if call.time == 1 else mask.T for mask in padded if mask.dim() == 2]
    for mask in masks:  # (B, T)
        if mask.shape == (x.size(1), x.size(0)):
            return _before_padding(mask)
    zero = (x == 0).all(-1).T
    lengths = _before_padding(zero)
    # Zeros are data too, the margin of an image for one. As padding count only those behind whole sequences without a
    # step of zeros, of which one has no padding and another is padded for a third of the steps.
    steps = x.size(0)
    inside = any(bool(row[:length].any()) for row, length in zip(zero, lengths, strict=True))
    is_padding = not inside and max(lengths) == steps and 0 < min(lengths) <= 2 * steps / 3
    return lengths if is_padding and steps - min(lengths) >= 2 else None


def _before_padding(mask: Tensor) -> list[int]:
    """The steps before the padding that each row of (B, T) ends with."""
    kept = ~mask
    steps = torch.arange(1, mask.size(1) + 1, device=mask.device)
    return [int(length) for length in (kept * steps).amax(1)]


# --- weights that are none ----------------------------------------------------------------------------------


def _plain_tensors(model: nn.Module, batch: Any) -> Iterator[Finding]:
    """Watch each tensor that a module keeps as a plain attribute: does the result depend on it?"""
    model = _copy(model).eval()
    watched: list[tuple[nn.Module, str, str, Tensor, Tensor]] = []
    for path, module in model.named_modules():
        for name, value in list(vars(module).items()):
            is_weight = isinstance(value, Tensor) and value.is_floating_point() and value.dim() >= 2
            if is_weight and not isinstance(value, nn.Parameter):
                leaf = value.detach().clone().requires_grad_()
                stand_in = leaf.clone()
                setattr(module, name, stand_in)
                watched.append((module, name, ".".join(filter(None, ("model", path))), leaf, stand_in))
    if not watched:
        return
    try:
        scalar = _scalar(_run(model, batch).result)
    except RuntimeError:
        return  # the model does with the tensor what it may not do with a weight
    if scalar is None:
        return
    gradients = torch.autograd.grad(scalar, [leaf for *_, leaf, _ in watched], allow_unused=True)
    for (module, name, path, _, stand_in), gradient in zip(watched, gradients, strict=True):
        # What the run itself has replaced is a state, not a weight.
        if gradient is not None and getattr(module, name) is stand_in:
            yield Finding(
                path,
                None,
                None,
                "embedding-not-a-parameter",
                f"its {name} {tuple(stand_in.shape)} is a plain tensor that the result depends on, neither parameter "
                "nor buffer: no optimizer trains it, and neither .to(device) nor state_dict() takes it along.",
                f"{path}.{name} = torch.nn.Parameter({path}.{name})",
            )


# --- the loss -----------------------------------------------------------------------------------------------


def _of_the_loss(model: nn.Module, batch: Any, target: Any, loss: LossFunction) -> Iterator[Finding]:
    model = _copy(model)  # in its own mode: what takes part in training may stay out in evaluation
    loss = copy.deepcopy(loss) if isinstance(loss, nn.Module) else loss
    result = _run(model, batch).result
    value = loss(result, target)
    if isinstance(result, Tensor) and isinstance(target, Tensor):
        yield from _broadcast(result, target, loss, value)
    yield from _untrained(model, value)


def _broadcast(result: Tensor, target: Tensor, loss: LossFunction, value: Tensor) -> Iterator[Finding]:
    """Give the loss shapes that agree: if it says something else then, it had compared the wrong pairs."""
    if result.shape == target.shape or result.numel() != target.numel() or not target.is_floating_point():
        return
    squeezed = [s for s in result.shape if s != 1] == [s for s in target.shape if s != 1]
    try:
        matched = loss(result.reshape(target.shape), target)
        together = (result.detach() + target.detach()).shape
    except (RuntimeError, ValueError, IndexError, TypeError):
        return  # a loss that needs the two shapes as they are
    if not squeezed or (matched.shape == value.shape and _near(matched, value)):
        return
    longer = result.dim() > target.dim()
    yield Finding(
        "loss",
        None,
        None,
        "mse-broadcast",
        f"the result {list(result.shape)} and the target {list(target.shape)} are broadcast to "
        f"{list(together)}: each prediction is compared with every target.",
        "loss(output.squeeze(-1), target)" if longer else "loss(output, target.squeeze(-1))",
    )


def _untrained(model: nn.Module, value: Tensor) -> Iterator[Finding]:
    """Name the parameters that the loss does not depend on."""
    named = [(name, weight) for name, weight in model.named_parameters() if weight.requires_grad]
    if not named:
        return
    gradients: tuple[Tensor | None, ...] = (None,) * len(named)
    if value.requires_grad:
        gradients = torch.autograd.grad(value.sum(), [weight for _, weight in named], allow_unused=True)
    if all(gradient is None for gradient in gradients):
        yield Finding(
            "model",
            None,
            None,
            "no-gradient",
            "the loss depends on none of its parameters: between them stands a detach, a no_grad, an argmax or a "
            "number taken out of a tensor, and nothing is trained.",
            "loss(model(batch), target).backward()  # on what the model gave, unchanged",
        )
        return
    unused: dict[str, list[str]] = {}
    for (name, _), gradient in zip(named, gradients, strict=True):
        if gradient is None:
            module, _, weight = f"model.{name}".rpartition(".")
            unused.setdefault(module, []).append(weight)
    for module, weights in unused.items():
        yield Finding(
            module,
            None,
            None,
            "no-gradient",
            f"the loss does not depend on its {', '.join(weights)}: no training changes that.",
            f"{module}.requires_grad_(False)  # if it is to stay out; else use it in forward",
        )
