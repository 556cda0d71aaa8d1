"""A state carried from batch to batch: truncated backpropagation through time (Williams and Peng 1990)."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from gatewise.train.samples import Batch

State = tuple[Tensor, ...]
"""What a recurrent model is in after a step, such as (h_n, c_n)."""


def through(model: Callable[..., Any], batch: Batch, state: State | None) -> tuple[Tensor, State | None]:
    """Run a model over a batch from the state that the batch before has left.

    Parameters
    ----------
    model : callable
        Maps inputs of shape (B, T, ...) and a state, or None for the first, to outputs (B, T, ...) and a state.
    batch : Batch
        Gradients flow through all its columns, and not from there into the batches before.
    state : tuple of Tensor or None
        What this function gave for the batch before; None: this is the first.

    Returns
    -------
    outputs : Tensor, shape (B, K, ...)
        For the K columns that have targets, the last ones.
    state : tuple of Tensor or None
        After ``batch.hand_on`` columns, without its history.

    Examples
    --------
    >>> lstm = torch.nn.LSTM(1, 2, batch_first=True)
    >>> x, targets = torch.randn(3, 6, 1), torch.randn(3, 2, 2)
    >>> batch = Batch(torch.arange(6), (x,), targets, 6, hand_on=4)
    >>> outputs, (h, c) = through(lstm, batch, None)
    >>> outputs.shape, torch.equal(h[0], lstm(x[:, :4])[0][:, -1])
    (torch.Size([3, 2, 2]), True)
    """
    after: State | None
    steps = batch.inputs[0].shape[1]
    hand_on = steps if batch.hand_on is None else batch.hand_on
    if 0 < hand_on < steps:
        begun, middle = model(*(tensor[:, :hand_on] for tensor in batch.inputs), state)
        ended, _ = model(*(tensor[:, hand_on:] for tensor in batch.inputs), middle)
        outputs, after = torch.cat([begun, ended], dim=1), _detached(middle)
    else:
        outputs, ended_in = model(*batch.inputs, state)
        after = _detached(ended_in) if hand_on else state
    return outputs[:, -batch.targets.shape[1] :], after


def _detached(state: State) -> State:
    return tuple(tensor.detach() for tensor in state)
