"""What a call of an LSTM computed with, laid out as its trace is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence, pad_packed_sequence

from gatewise.nn.lstm import Prepared
from gatewise.reference.variant import Variant


class Given(NamedTuple):
    """What a call computed with: time first, the sequences in the caller's order.

    Attributes
    ----------
    variant : Variant
        The cell: in evaluation without what drops.
    x : Tensor
        (T, B, I), the input; 0 past a length.
    c_0 : Tensor or None
        The initial cells, (L·D, B, H), or c, n and m of an sLSTM, (L·D, B, 3H); None: zeros.
    masks : mapping of str to Tensor
        Those that were drawn, as `Variant.masks` tells them, at the input's steps; that of weight_hh is in the weights.
    """

    variant: Variant
    x: Tensor
    c_0: Tensor | None
    masks: Mapping[str, Tensor]


def given_of(call: Prepared, unsorted: Tensor | None) -> Given:
    """Lay out what a call was prepared with.

    Parameters
    ----------
    call
        The call, its masks drawn.
    unsorted
        The order of the caller's sequences among those of the call, as a packed input has it; None: the same.

    Examples
    --------
    >>> from gatewise.nn import LSTM
    >>> lstm = LSTM(4, 3, batch_first=True)
    >>> given_of(lstm.prepare(torch.zeros(2, 5, 4), None, None, None), None).x.shape
    torch.Size([5, 2, 4])
    """
    network, x = call.network, call.x.detach()
    if network.batch_sizes is not None:
        x, _ = pad_packed_sequence(PackedSequence(x, network.batch_sizes))
    elif network.batch_first:
        x = x.transpose(0, 1)
    if network.lengths is not None:
        taken = torch.arange(x.size(0), device=x.device)[:, None] < network.lengths.to(x.device)
        x = torch.where(taken[:, :, None], x, 0)

    def ordered(tensor: Tensor) -> Tensor:
        return tensor if unsorted is None else tensor.index_select(-2, unsorted)

    masks = {name: ordered(mask) for name, mask in (network.masks or {}).items()}
    return Given(network.variant, ordered(x), None if call.c_0 is None else ordered(call.c_0.detach()), masks)
