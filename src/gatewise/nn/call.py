"""What the operator gatewise::lstm is called with: everything that runs an LSTM's layers takes the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from torch import Tensor

from gatewise.reference.code import Code, coded
from gatewise.reference.variant import Variant

Three = tuple[Tensor, Tensor, Tensor]
"""output, h_n and c_n."""


class Call(NamedTuple):
    """The arguments in their order; `gatewise.nn.composite.composite_lstm` says what each of the first ten is, and
    `gatewise.reference.code` the others.

    Examples
    --------
    >>> import torch
    >>> from gatewise.reference.code import PLAIN_CODE
    >>> weights = [torch.zeros(12, 4), torch.zeros(12, 3)]
    >>> Call(torch.zeros(5, 2, 4), None, None, weights, 1, True, False, None, None, None, *PLAIN_CODE, []).directions
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
    cell: int
    zoneout_h: float
    zoneout_c: float
    masks: Sequence[Tensor]

    @property
    def directions(self) -> int:
        """D."""
        return 2 if self.bidirectional else 1

    @property
    def code(self) -> Code:
        """The cell."""
        return Code(self.cell, self.zoneout_h, self.zoneout_c)

    @classmethod
    def of(cls, *arguments: Any, variant: Variant, masks: Mapping[str, Tensor] | None) -> Call:
        """Say the cell and its masks in the operator's terms, behind the first ten arguments.

        Examples
        --------
        >>> import torch
        >>> weights = [torch.zeros(12, 4), torch.zeros(12, 3), torch.zeros(9)]
        >>> first = torch.zeros(5, 2, 4), None, None, weights, 1, True, False, None, None, None
        >>> Call.of(*first, variant=Variant(peephole=True), masks=None).cell
        2
        """
        code, given = coded(variant, masks)
        return cls._make((*arguments, *code, given))
