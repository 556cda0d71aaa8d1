# torch's operators, as csrc/operators.cpp registers them when it is imported, and the short way to one of them.

from torch import Tensor

def plain_lstm(
    input: object,
    h_0: Tensor | None,
    c_0: Tensor | None,
    weights: list[Tensor],
    num_layers: int,
    bidirectional: bool,
    batch_first: bool,
) -> tuple[Tensor, tuple[Tensor, Tensor]] | None: ...
