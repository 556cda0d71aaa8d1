"""The work that every peer is given: the same weights, input, states and gradient of the output."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

from gatewise.bench.config import FormName
from gatewise.bench.grid import Size

SEED = 0

DTYPES: dict[FormName, torch.dtype] = {"bfloat16": torch.bfloat16, "float64": torch.float64}
"""Of the forms that are not float32."""


@dataclass(frozen=True)
class Work:
    """Numbers to compute with, drawn once for a size and a form.

    Parameters
    ----------
    size : Size
        The sizes.
    form : str
        What is called.
    lstm : torch.nn.LSTM
        The weights: float32, rounded to `dtype`. Peers copy them.
    dtype : torch.dtype
        What the peers compute in.
    x : Tensor
        The input: (T, B, I), (B, T, I) batch first, or (steps, I) packed.
    h_0, c_0 : Tensor
        The initial states.
    d_output : Tensor
        The gradient of the output, from which backward starts.
    packed : PackedSequence or None
        How `x` is packed.

    Examples
    --------
    >>> draw(Size(2, 3, 4, 5, 1, 1), "batch-first").x.shape
    torch.Size([2, 3, 4])
    """

    size: Size
    form: FormName
    lstm: nn.LSTM
    dtype: torch.dtype
    x: Tensor
    h_0: Tensor
    c_0: Tensor
    d_output: Tensor
    packed: PackedSequence | None

    @property
    def steps(self) -> int:
        """The steps of all sequences together."""
        return self.x.numel() // self.size.I

    def in_float32(self) -> Work:
        """Give the same numbers as float32."""
        numbers = {name: getattr(self, name).float() for name in ("x", "h_0", "c_0", "d_output")}
        return replace(self, dtype=torch.float32, **numbers)

    def fill(self, module: nn.RNNBase) -> nn.RNNBase:
        """Give a module these weights, and convert it to the dtype."""
        module.load_state_dict(self.lstm.state_dict())
        return module.to(self.dtype)

    def as_input(self, x: Tensor) -> Tensor | PackedSequence:
        """Make of numbers laid out as `x` what a module is called with."""
        if self.packed is None:
            return x
        return PackedSequence(x, self.packed.batch_sizes, self.packed.sorted_indices, self.packed.unsorted_indices)


@contextmanager
def seeded() -> Iterator[None]:
    """Draw from `SEED` on within a `with` block; torch's generator is afterwards what it was before.

    Examples
    --------
    >>> with seeded():
    ...     first = torch.randn(3)
    >>> with seeded():
    ...     bool((torch.randn(3) == first).all())
    True
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        yield


def layers(size: Size) -> dict[str, Any]:
    """Give the arguments that torch.nn.LSTM and gatewise.LSTM take for a size, whatever is called.

    Examples
    --------
    >>> layers(Size(2, 3, 4, 5, 1, 2))
    {'input_size': 4, 'hidden_size': 5, 'num_layers': 1, 'bidirectional': True}
    """
    return {"input_size": size.I, "hidden_size": size.H, "num_layers": size.L, "bidirectional": size.D == 2}


def arguments(size: Size, form: FormName) -> dict[str, Any]:
    """Give the arguments of torch.nn.LSTM and gatewise.LSTM for a size and a form.

    Examples
    --------
    >>> arguments(Size(2, 3, 4, 5, 1, 2), "projected")["proj_size"]
    2
    """
    return layers(size) | {"batch_first": form == "batch-first", "proj_size": proj_size(size, form)}


def proj_size(size: Size, form: FormName) -> int:
    """Give the width of h where it is projected, else 0."""
    return size.H // 2 if form == "projected" else 0


def draw(size: Size, form: FormName) -> Work:
    """Draw weights and numbers; for the same size and form always the same.

    Parameters
    ----------
    size : Size
        The sizes; H is at least 2 where h is projected.
    form : str
        What is called.
    """
    B, T, I, H, L, D = size
    dtype = DTYPES.get(form, torch.float32)
    P = proj_size(size, form) or H
    with seeded():
        lstm = nn.LSTM(**arguments(size, form))
        x, h_0, c_0 = torch.randn(T, B, I), torch.randn(L * D, B, P), torch.randn(L * D, B, H)
        d_output = torch.randn(T, B, D * P)
        lengths = torch.randint((T + 3) // 4, T + 1, (B,))
    packed = None
    if form == "batch-first":
        x, d_output = (t.transpose(0, 1).contiguous() for t in (x, d_output))
    elif form == "packed":
        lengths[B // 2] = T  # T steps there are
        packed = pack_padded_sequence(x, lengths, enforce_sorted=False)
        x, d_output = packed.data, pack_padded_sequence(d_output, lengths, enforce_sorted=False).data
    x, h_0, c_0, d_output = (t.to(dtype) for t in (x, h_0, c_0, d_output))
    with torch.no_grad():
        for weight in lstm.parameters():
            weight.copy_(weight.to(dtype))
    return Work(size, form, lstm, dtype, x, h_0, c_0, d_output, packed)
