"""What the operator gatewise::lstm is called with: everything that runs an LSTM's layers takes the same."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

Three = tuple[Tensor, Tensor, Tensor]
"""output, h_n and c_n."""


class Call(NamedTuple):
    """The arguments in their order; `gatewise.nn.composite.composite_lstm` says what each is.

    Examples
    --------
    >>> import torch
    >>> weights = [torch.zeros(12, 4), torch.zeros(12, 3)]
    >>> Call(torch.zeros(5, 2, 4), None, None, weights, 1, True, False, None, None, None).directions
    2
    """

    input: Tensor
    h_0: Tensor | None
    c_0: Tensor | None
    weights: Sequence[Tensor]
    num_layers: int
    bidirectional: bool
    batch_first: bool
    lengths: Tensor | None
    reset: Tensor | None
    batch_sizes: Tensor | None

    @property
    def directions(self) -> int:
        """D."""
        return 2 if self.bidirectional else 1
