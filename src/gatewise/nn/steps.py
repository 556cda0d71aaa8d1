"""One LSTM or LSTM cell, a step at a time, with its state: what `gatewise.Stream` is made of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from gatewise.errors import ArgumentError, DtypeError, KernelError, ShapeError
from gatewise.nn.checks import check_numbers, check_shape, check_state
from gatewise.nn.operators import new_stream, stream_state, stream_step
from gatewise.nn.paths import KERNEL_DTYPES
from gatewise.reference.variant import PLAIN, Variant

State = tuple[Tensor, Tensor]


class Steps:
    """The state of an LSTM between its steps, and the way to the next one.

    Parameters
    ----------
    module : gatewise.LSTM, torch.nn.LSTM, gatewise.LSTMCell or torch.nn.LSTMCell
        Its weights are read at each step.
    batch_size : int or None
        Rows (B); None: no batch axis.
    name : str
        What it is called in messages.
    alone : bool
        Nobody calls the module around a step: one that has hooks, or drops between its layers, is refused.

    Examples
    --------
    >>> steps = Steps(nn.LSTMCell(4, 3), 2, "cell", alone=True)
    >>> steps.step(torch.zeros(2, 4)).shape
    torch.Size([2, 3])
    """

    def __init__(self, module: nn.Module, batch_size: int | None, name: str, *, alone: bool) -> None:
        is_cell = isinstance(module, nn.LSTMCell)
        if not is_cell and module.bidirectional:
            raise ArgumentError(
                f"{name} is bidirectional, and its reverse direction begins with the last step, which a stream has not "
                "seen: use one with bidirectional=False"
            )
        whole: Variant = getattr(module, "variant", PLAIN)
        variant = whole.in_evaluation()
        if variant != PLAIN:
            raise ArgumentError(
                f"{name} has {', '.join(variant.changes())}, and a stream computes the plain cell: call the LSTM "
                "itself, with the state that it has returned"
            )
        of_cell = ["weight_ih", "weight_hh", *(["bias_ih", "bias_hh"] if module.bias else [])]
        self._names: list[str] = of_cell if is_cell else module._flat_weights_names  # type: ignore[assignment]
        self.module, self.batch_size, self.name = module, batch_size, name
        weights = {name: getattr(module, name) for name in self._names}
        first = weights[self._names[0]]
        if first.device.type != "cpu":
            raise KernelError(f"{name} is on {first.device}, needed on the cpu, where a stream computes: move it")
        if first.dtype not in KERNEL_DTYPES:
            raise DtypeError(f"{name} is {first.dtype}, needed float32, float64 or bfloat16: convert it")
        self._kinds = {name: (weight.shape, weight.dtype, weight.device) for name, weight in weights.items()}
        layers: int = 1 if is_cell else module.num_layers  # type: ignore[assignment]
        self._drops = (not is_cell and bool(module.dropout) and layers > 1) or whole != variant
        watched = (module._forward_pre_hooks, module._forward_hooks, self._drops) if alone else None
        self._stream = new_stream(module, tuple(self._names), layers, batch_size or 0, watched)

    def step(self, x: Tensor) -> Tensor:
        """Take one step: (B, I) → h of the last layer (B, P), or both without B."""
        try:
            h = stream_step(self._stream, x)
        except (RuntimeError, TypeError):
            self._check_weights()
            raise
        return self._refuse(x) if h is None else h

    @property
    def state(self) -> State:
        """Copies of h and c, (L, B, P) and (L, B, H), or both without B."""
        h, c = (state.clone() for state in stream_state(self._stream))
        return (h, c) if self.batch_size is not None else (h.squeeze(1), c.squeeze(1))

    def check(self, state: Any) -> None:
        """Refuse what cannot become the state."""
        check_state(state)
        for name, new, own in zip(("h", "c"), state, stream_state(self._stream), strict=True):
            # c of bfloat16 is kept in float32; an LSTM gives it rounded, and nothing is lost when it is widened.
            narrow = name == "c" and own.dtype == torch.float32 and new.dtype == self._kinds[self._names[0]][1]
            check_numbers(f"{name} of {self.name}", new, new.new_empty(0, device="cpu") if narrow else own)
            L, B, width = own.shape
            rows = {} if self.batch_size is None else {"B": B}
            check_shape(f"{name} of {self.name}", new, L=L, **rows, **{"P" if name == "h" else "H": width})

    def set_state(self, state: State) -> None:
        """Go on from another state, which has been checked."""
        with torch.no_grad():
            for new, own in zip(state, stream_state(self._stream), strict=True):
                own.copy_(new.view(own.shape) if self.batch_size is None else new)

    def reset(self, rows: Tensor | None) -> None:
        """Zero all rows of the state, or some, which have been checked."""
        for own in stream_state(self._stream):
            own[:, slice(None) if rows is None else rows] = 0

    def _refuse(self, x: Any) -> NoReturn:
        """Say why a step was not taken."""
        name, module = self.name, self.module
        if module._forward_pre_hooks or module._forward_hooks:
            raise ArgumentError(
                f"{name} has forward hooks, which are called with a sequence and not with a step: remove them, or give "
                "Stream a model that calls it (torch.nn.Sequential will do)"
            )
        if module.training and self._drops:
            raise ArgumentError(f"{name} is in training and drops what it computes: call eval() first")
        check_numbers("input", x, getattr(module, self._names[0]))
        rows = {} if self.batch_size is None else {"B": self.batch_size}
        check_shape("input", x, **rows, I=self._kinds[self._names[0]][0][1])
        if x.requires_grad and torch.is_grad_enabled():
            raise ArgumentError(
                "input requires a gradient, and a stream keeps none: give input.detach(), or call it under "
                "torch.no_grad(), or call the LSTM itself"
            )
        if torch.is_autocast_enabled("cpu"):
            raise ArgumentError("autocast is on, and a stream computes in its LSTM's dtype: convert the LSTM instead")
        raise ArgumentError(
            f"input is a {type(x).__name__} under a transform, a trace or what overrides torch's functions, needed a "
            "plain torch.Tensor outside of these: a step changes the stream"
        )

    def _check_weights(self) -> None:
        """Say which weight is no longer what the stream began with."""
        for name, kind in self._kinds.items():
            weight = getattr(self.module, name)
            if (weight.shape, weight.dtype, weight.device) != kind:
                shape, dtype, device = kind
                raise ShapeError(
                    f"{name} of {self.name} is {tuple(weight.shape)}, {weight.dtype} on {weight.device}, and the "
                    f"stream began with {tuple(shape)}, {dtype} on {device}: make a new Stream"
                )


def as_rows(rows: Tensor | Sequence[int] | Sequence[bool], batch_size: int | None) -> Tensor:
    """Bring rows of a batch into the form of an index, or refuse them.

    Parameters
    ----------
    rows
        Whole numbers from 0 to B - 1, or (B,) bool.
    batch_size
        B; None: there are none to choose from.

    Examples
    --------
    >>> as_rows([0, 2], 3)
    tensor([0, 2])
    """
    if batch_size is None:
        raise ArgumentError("rows are given, and the stream has no batch axis: leave them out")
    try:
        index = torch.as_tensor(rows)
    except (TypeError, ValueError, RuntimeError) as error:
        raise DtypeError(f"rows are {rows!r}, needed whole numbers below B = {batch_size}, or (B,) bool") from error
    if index.numel() == 0 and index.dtype != torch.bool:
        index = index.long()
    if index.dtype == torch.bool:
        check_shape("rows", index, B=batch_size)
    elif index.is_floating_point() or index.is_complex():
        raise DtypeError(f"rows are {index.dtype}, needed whole numbers below B = {batch_size}, or (B,) bool")
    elif index.dim() != 1 or (index.numel() and not 0 <= index.min() <= index.max() < batch_size):
        raise ArgumentError(f"rows are {rows!r}, needed a list of whole numbers from 0 to {batch_size - 1}")
    return index.cpu()
