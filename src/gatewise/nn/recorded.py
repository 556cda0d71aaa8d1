"""A call of an LSTM that keeps its gates to be read, by the kernels and by torch's operations."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gatewise.nn.call import Call, Three
from gatewise.nn.composite import composite_lstm
from gatewise.reference.variant import PLAIN, Variant


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
    found: list[Recorded], *arguments: Any, variant: Variant = PLAIN, masks: Mapping[str, Tensor] | None = None
) -> Three:
    """Run all layers as `gatewise.nn.operators.lstm` does, by the same kernel call, and keep the gates for `found`.

    Parameters
    ----------
    found
        Receives one `Recorded` for each layer and direction.
    *arguments, variant, masks
        As of `gatewise.nn.composite.composite_lstm`.

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
    call = Call.of(*arguments, variant=variant, masks=masks)
    output, h_n, c_n, kept = torch.ops.gatewise.lstm_training.default(*call)
    across = call.batch_first and call.batch_sizes is None
    layers = [*kept[: call.num_layers - 1], output.transpose(0, 1) if across else output]
    network = (call.num_layers, call.bidirectional, call.batch_first, call.lengths, call.batch_sizes, *call.code)
    read = torch.ops.gatewise.lstm_activations.default
    x, own = call.input.detach(), [weight.detach() for weight in call.weights]
    for number, gates in enumerate(kept[call.num_layers - 1 :]):
        layer, direction = divmod(number, call.directions)
        h = layers[layer].detach().chunk(call.directions, dim=-1)[direction]
        found.append(Recorded(h, partial(read, x, own, gates, number, *network)))
    return output, h_n, c_n


def recorded_by_composite(
    found: list[Recorded], *arguments: Any, variant: Variant = PLAIN, masks: Mapping[str, Tensor] | None = None
) -> Three:
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
    results = composite_lstm(*arguments, recorded=steps, variant=variant, masks=masks)
    for h, activations in steps:
        found.append(Recorded(h.detach(), activations.detach))
    return results
