"""A call of an LSTM that keeps its gates to be read, by the kernels and by torch's operations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from gatewise.nn.composite import composite_lstm


class Recorded(NamedTuple):
    """What one layer and direction has computed.

    Attributes
    ----------
    h : Tensor
        (T, B, P), time first whatever the input, or (steps, P) where the sequences are packed; 0 past a length.
    activations : callable
        Gives i, f, g, o and c after their activation, (5, T, B, H), padded where the sequences are packed; past a
        length they are not a number. What the kernels have kept is read when it is called, and anew each time.
    """

    h: Tensor
    activations: Callable[[], Tensor]


def recorded_by_kernel(
    found: list[Recorded],
    input: Tensor,
    h_0: Tensor | None,
    c_0: Tensor | None,
    weights: Sequence[Tensor],
    num_layers: int,
    bidirectional: bool,
    batch_first: bool,
    lengths: Tensor | None,
    reset: Tensor | None,
    batch_sizes: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Run all layers as `gatewise.nn.operators.lstm` does, by the same kernel call, and keep the gates for `found`.

    Parameters
    ----------
    found
        Receives one `Recorded` for each layer and direction.
    input, h_0, c_0, weights, num_layers, bidirectional, batch_first, lengths, reset, batch_sizes
        As of `gatewise.nn.operators.lstm`.

    Returns
    -------
    output, h_n, c_n
        As there, and as differentiable.

    Examples
    --------
    >>> found = []
    >>> weights = [torch.zeros(12, 4), torch.zeros(12, 3)]
    >>> _ = recorded_by_kernel(found, torch.zeros(5, 2, 4), None, None, weights, 1, False, False, None, None, None)
    >>> found[0].h.shape
    torch.Size([5, 2, 3])
    """
    network = (num_layers, bidirectional, batch_first)
    training = torch.ops.gatewise.lstm_training.default
    output, h_n, c_n, kept = training(input, h_0, c_0, weights, *network, lengths, reset, batch_sizes)
    across = batch_first and batch_sizes is None
    layers = [*kept[: num_layers - 1], output.transpose(0, 1) if across else output]
    read = torch.ops.gatewise.lstm_activations.default
    x, own = input.detach(), [weight.detach() for weight in weights]
    directions = 2 if bidirectional else 1
    for number, gates in enumerate(kept[num_layers - 1 :]):
        h = layers[number // directions].detach().chunk(directions, dim=-1)[number % directions]
        found.append(Recorded(h, partial(read, x, own, gates, number, *network, lengths, batch_sizes)))
    return output, h_n, c_n


def recorded_by_composite(
    found: list[Recorded],
    input: Tensor,
    h_0: Tensor | None,
    c_0: Tensor | None,
    weights: Sequence[Tensor],
    num_layers: int,
    bidirectional: bool,
    batch_first: bool,
    lengths: Tensor | None,
    reset: Tensor | None,
    batch_sizes: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Do the same by torch's operations, where the kernels have no code.

    Examples
    --------
    >>> found = []
    >>> weights = [torch.zeros(12, 4), torch.zeros(12, 3)]
    >>> _ = recorded_by_composite(found, torch.zeros(5, 2, 4), None, None, weights, 1, False, False, None, None, None)
    >>> found[0].activations().shape
    torch.Size([5, 5, 2, 3])
    """
    steps: list[tuple[Tensor, Tensor]] = []
    results = composite_lstm(
        input, h_0, c_0, weights, num_layers, bidirectional, batch_first, lengths, reset, batch_sizes, steps
    )
    for h, activations in steps:
        found.append(Recorded(h.detach(), activations.detach))
    return results
