# torch's operators, as csrc/operators.cpp registers them when it is imported, the short ways to one of them, masks
# (csrc/masks.hpp), and a stream (csrc/stream.hpp).

from typing import Any

from torch import Tensor, nn

def plain_lstm(
    input: object,
    h_0: Tensor | None,
    c_0: Tensor | tuple[Tensor, ...] | None,
    weights: list[Tensor],
    num_layers: int,
    bidirectional: bool,
    batch_first: bool,
    cell: int = 0,
    zoneout_h: float = 0.0,
    zoneout_c: float = 0.0,
    masks: list[Tensor] = ...,
    /,
) -> tuple[Tensor, tuple[Tensor, ...]] | None: ...
def packed_lstm(
    data: Tensor,
    batch_sizes: Tensor,
    sorted_indices: Tensor | None,
    unsorted_indices: Tensor | None,
    h_0: Tensor | None,
    c_0: Tensor | None,
    weights: list[Tensor],
    num_layers: int,
    bidirectional: bool,
    /,
) -> tuple[Tensor, tuple[Tensor, ...]] | None: ...
def new_mask(shape: tuple[int, ...], is_double: bool, probability: float, value: float, /) -> Tensor: ...
def new_stream(
    module: nn.Module,
    names: tuple[str, ...],
    num_layers: int,
    batch_size: int,
    watched: tuple[dict[int, Any], dict[int, Any], bool] | None,
) -> object: ...
def stream_step(stream: object, x: object) -> Tensor | None: ...
def stream_state(stream: object) -> tuple[Tensor, Tensor]: ...
