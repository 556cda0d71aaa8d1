"""The short way of a changed cell's call: the common one, in which nothing has to be said or chosen."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import forward_ad

from gatewise.nn.masks import masks_of_call
from gatewise.nn.operators import plain_lstm
from gatewise.nn.paths import plainly_served
from gatewise.reference.code import Code, coded
from gatewise.reference.variant import Variant

if TYPE_CHECKING:
    from gatewise.nn.lstm import LSTM


class Codes(NamedTuple):
    """What the operators are told of a cell, found once for all calls of a module.

    Attributes
    ----------
    in_training, in_evaluation : Code
    draws : bool
        Whether a call in training draws masks.
    """

    in_training: Code
    in_evaluation: Code
    draws: bool

    @classmethod
    def of(cls, variant: Variant) -> Codes:
        """Find them.

        Examples
        --------
        >>> Codes.of(Variant(peephole=True, recurrent_dropout=0.5))
        Codes(in_training=Code(cell=66, zoneout_h=0.0, zoneout_c=0.0), in_evaluation=Code(cell=2, zoneout_h=0.0, \
zoneout_c=0.0), draws=True)
        """
        masks = dict.fromkeys(variant.masks(cells=1, time=1, batch=1, hidden=1, width=1))
        return cls(coded(variant, masks)[0], coded(variant.in_evaluation(), None)[0], bool(masks))


def directly(module: LSTM, input: Any, hx: Any) -> Any:
    """Run a network of changed cells by the kernels.

    Parameters
    ----------
    module, input, hx
        A module without dropout between its layers or segments, and as of its `forward`.

    Returns
    -------
    output, states
        As of `LSTM.forward`; None where the call is not the common one: no dense tensors on the CPU of three axes and
        of numbers that the kernels take, or under autocast, a compiler or a transform. Then no mask was drawn.

    Raises
    ------
    RuntimeError
        The operator's own words for what it refuses.
    """
    training = module.training
    code, draws = (module._codes.in_training, module._codes.draws) if training else (module._codes.in_evaluation, False)
    # (Whether the kernels take a call is asked here only where masks would be drawn in vain: plain_lstm asks too.)
    if torch.compiler.is_compiling() or forward_ad._current_level >= 0:
        return None
    if draws and not (plainly_served(input) and input.dim() == 3):
        return None
    h_0 = c_0 = None
    if hx is not None:
        if type(hx) is not tuple or [type(state) for state in hx] != [Tensor] * len(module.variant.states):
            return None
        h_0, c_0 = hx if len(hx) == 2 else (hx[0], hx[1:])
    weights, given = module._weights(), []
    if draws:
        number = module.num_layers * (2 if module.bidirectional else 1)
        batch, time = input.shape[:2] if module.batch_first else (input.size(1), input.size(0))
        given = list(masks_of_call(module.variant, input, weights, cells=number, time=time, batch=batch).values())
    network = module.num_layers, module.bidirectional, module.batch_first
    results = plain_lstm(input, h_0, c_0, weights, *network, *code, given)
    if results is None and draws:
        whole = torch.cat(c_0, dim=-1) if isinstance(c_0, tuple) else c_0
        output, *states = torch.ops.gatewise.lstm.default(
            input, h_0, whole, weights, *network, None, None, None, *code, given
        )
        results = output, tuple(states)
    if results is None or len(results[1]) == len(module.variant.states):
        return results
    output, (h_n, c_n) = results
    return output, (h_n, *one_by_one(c_n, len(module.variant.states) - 1))


def one_by_one(c_n: Tensor, count: int) -> list[Tensor]:
    """Give the states that stand side by side as tensors of their own, which may be changed in place.

    Examples
    --------
    >>> one_by_one(torch.arange(6.0).reshape(1, 1, 6), 3)[1]
    tensor([[[2., 3.]]])
    """
    return [state.clone() for state in c_n.chunk(count, dim=-1)]
