"""Watching a model's recurrent modules: each call of one, layer by layer, ready for its gradient's way back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pad_packed_sequence

from gatewise.errors import ArgumentError
from gatewise.insight.given import Given
from gatewise.insight.recurrence import GRURecurrence, LSTMRecurrence, Recurrence, SRNRecurrence
from gatewise.insight.swap import swapped
from gatewise.insight.trace import Trace, traced
from gatewise.insight.varied import Taken, VariedRecurrence
from gatewise.nn import LSTM
from gatewise.nn.turned import cuts_of, turned

Cell = Literal["lstm", "gru", "srn"]


def cell_of(module: nn.Module) -> Cell | None:
    """What recurrent module it is, if it is one.

    Examples
    --------
    >>> cell_of(LSTM(4, 3)), cell_of(nn.Linear(4, 3))
    ('lstm', None)
    """
    if isinstance(module, (LSTM, nn.LSTM)):
        return "lstm"
    if isinstance(module, nn.GRU):
        return "gru"
    return "srn" if isinstance(module, nn.RNN) else None


@dataclass(frozen=True, eq=False)
class Direction:
    """One layer in one direction of a call.

    Parameters
    ----------
    layer, direction : int
        Which one.
    recurrence : Recurrence
        Its forward pass, in the order in which it takes its steps.
    lengths : Tensor or None
        (B,): the steps of each sequence.
    """

    layer: int
    direction: int
    recurrence: Recurrence
    lengths: Tensor | None

    def turned(self, x: Tensor) -> Tensor:
        """Bring (T, …, B, ·) from the input's order of time into the one of the steps taken, or back: it is the same.

        Past a length there are zeros.
        """
        return turned(x, self.direction, self.lengths)


@dataclass(frozen=True, eq=False)
class Call:
    """One call of a recurrent module.

    Parameters
    ----------
    module : str
        Its name in the model, and the number of the call if there are several.
    cell : {"lstm", "gru", "srn"}
        What it is.
    directions : sequence of Direction
        Layer l, direction d at l·D + d.
    num_directions : int
        D.
    batch_first : bool
        Whether the output is (B, T, ·).
    results : list of Tensor
        What the model was given: output (the data of a packed one), h_n, and c_n of an LSTM; n_n and m_n of an sLSTM.
    packed : PackedSequence or None
        The output, if it is packed.
    """

    module: str
    cell: Cell
    directions: Sequence[Direction]
    num_directions: int
    batch_first: bool
    results: list[Tensor]
    packed: PackedSequence | None

    def sources(self, gradients: Sequence[Tensor | None]) -> tuple[list[Tensor], list[Tensor]]:
        """What the loss sends to h and to the state of each layer and direction directly, in the order of its steps.

        Parameters
        ----------
        gradients
            Of `results`, None where the loss does not depend on one.

        Returns
        -------
        d_h, d_state : list of Tensor
            (T, B, P) and (T, B, H) for each; of an sLSTM's c, n and m (T, B, 3H).
        """
        whole = [torch.zeros_like(r) if d is None else d for r, d in zip(self.results, gradients, strict=True)]
        narrow = whole[0].dtype in (torch.bfloat16, torch.float16)
        d_output, d_h_n, *d_cells = (d.float() if narrow else d for d in whole)
        d_c_n = torch.cat(d_cells, dim=-1) if d_cells else None
        d_output = self._by_time(d_output)
        if (lengths := self.directions[0].lengths) is not None:  # what stands past them is 0 whatever h is
            past = torch.arange(len(d_output))[:, None] >= lengths
            d_output = d_output.masked_fill(past.to(d_output.device)[:, :, None], 0)
        top = len(self.directions) - self.num_directions
        all_d_h, all_d_state = [], []
        for number, one in enumerate(self.directions):
            if number >= top:
                d_h = one.turned(d_output.chunk(self.num_directions, dim=-1)[number - top])
            else:
                d_h = d_output.new_zeros(*d_output.shape[:2], d_h_n.size(-1))
            all_d_h.append(self._at_the_end(d_h, d_h_n, number))
            d_state = d_output.new_zeros(*d_output.shape[:2], (d_h_n if d_c_n is None else d_c_n).size(-1))
            all_d_state.append(d_state if d_c_n is None else self._at_the_end(d_state, d_c_n, number))
        return all_d_h, all_d_state

    def _by_time(self, d_output: Tensor) -> Tensor:
        """The gradient of the output as (T, B, ·)."""
        if self.packed is not None:
            padded, _ = pad_packed_sequence(self.packed._replace(data=d_output))
            return padded
        if d_output.dim() == 2:
            return d_output[:, None]
        return d_output.transpose(0, 1) if self.batch_first else d_output

    def _at_the_end(self, d: Tensor, d_n: Tensor, number: int) -> Tensor:
        """Add the gradient of the last state, which is each sequence's own last step."""
        d_last = d_n[number] if d_n.dim() == 3 else d_n[number][None]
        if not d_last.any():
            return d
        lengths = self.directions[number].lengths
        T, B = d.shape[:2]
        last = torch.full((B,), T - 1) if lengths is None else lengths - 1
        at = torch.arange(T)[:, None] == last
        return d + at.to(d.device)[:, :, None] * d_last


@contextmanager
def calls_of(model: nn.Module) -> Iterator[list[Call]]:
    """Keep each call of a model's recurrent modules while a block runs, differentiable as ever.

    Calls within torch.no_grad are not kept: no gradient comes through them.

    Parameters
    ----------
    model : torch.nn.Module
        With recurrent modules in it, or one itself.

    Yields
    ------
    list of Call
        In the order of the calls.

    Raises
    ------
    ArgumentError
        Within the block: dropout is on between the layers of a module.

    Examples
    --------
    >>> with calls_of(nn.GRU(4, 3)) as calls:
    ...     pass
    >>> calls
    []
    """
    calls: list[Call] = []
    times: dict[str, int] = {}

    def watching(name: str, module: Any, forward: Any) -> Any:
        def watched(*args: Any, **kwargs: Any) -> Any:
            if module.training and module.dropout and module.num_layers > 1:
                raise ArgumentError(
                    f"{name or 'model'} drops {100 * module.dropout:g} % between its layers, and the gradient's way "
                    "through what was drawn is not kept: call model.eval() first"
                )
            if not torch.is_grad_enabled():  # the loss's gradient does not come this way
                return forward(*args, **kwargs)
            times[name] = times.get(name, 0) + 1
            label = name if times[name] == 1 else f"{name}, call {times[name]}"
            watch = _lstm_call if cell_of(module) == "lstm" else _other_call
            results, call = watch(label, module, forward, *args, **kwargs)
            calls.append(call)
            return results

        return watched

    with swapped(model, lambda module: cell_of(module) is not None, watching):
        yield calls


def _results(output: Any, states: Any) -> tuple[list[Tensor], Any]:
    """The tensors that a module has returned, of which gradients can be asked, and copies of them to go on with.

    (What goes on may be written over, and would then no longer be what the module returned.)
    """
    packed, pair = isinstance(output, PackedSequence), isinstance(states, tuple)
    results = [output.data if packed else output, *(states if pair else (states,))]
    for result in results:
        if not result.requires_grad:  # neither its weights nor its input are trained
            result.requires_grad_()
    data, *others = (result.clone() for result in results)
    return results, (output._replace(data=data) if packed else data, tuple(others) if pair else others[0])


def _lstm_call(name: str, module: Any, forward: Any, *args: Any, **kwargs: Any) -> tuple[Any, Call]:
    (output, states), found, given = traced(module, *args, **kwargs)
    directions = []
    with torch.no_grad():
        x = given.x
        for number, layer in enumerate(found.layers):
            if layer.direction == 0 and layer.layer > 0:
                below = found.layers[number - found.directions : number]
                x = torch.cat([_up_to_the_end(one.h, found.lengths) for one in below], dim=-1)
            recurrence = _recurrence(found, given, number, x)
            directions.append(Direction(layer.layer, layer.direction, recurrence, found.lengths))
    packed = output if isinstance(output, PackedSequence) else None
    results, onward = _results(output, states)
    return onward, Call(name, "lstm", directions, found.directions, module.batch_first, results, packed)


def _recurrence(found: Trace, given: Given, number: int, x: Tensor) -> Recurrence:
    """The forward pass of one layer and direction of a traced call, whose input is x, (T, B, I)."""
    layer, lengths, variant = found.layers[number], found.lengths, given.variant
    activations = _up_to_the_end(layer.activations.transpose(0, 1), lengths)  # (T, 5, B, H)
    dtype = activations.dtype
    taken = None if lengths is None else (torch.arange(len(x))[:, None] < lengths).to(x.device)
    cut = cuts_of(found.reset, taken, layer.direction)
    cut = None if cut is None else turned(cut[:, :, None], layer.direction, lengths)[:, :, 0]
    per_direction = len(found.weights) // len(found.layers)
    own = [weight.to(dtype) for weight in found.weights[number * per_direction :][:per_direction]]
    in_order = turned(activations, layer.direction, lengths)
    if variant.is_plain:
        weight_hr = own[-1] if per_direction % 2 else None
        return LSTMRecurrence(in_order.transpose(0, 1), layer.c_0.to(dtype), own[0], own[1], weight_hr, cut)
    masks = {name: mask[number].to(dtype) for name, mask in given.masks.items()}
    for name in masks.keys() - {"hidden"}:  # which has no axis of time
        masks[name] = turned(masks[name], layer.direction, lengths)
    h = turned(_up_to_the_end(layer.h, lengths).to(dtype), layer.direction, lengths)
    c_0 = layer.c_0.new_zeros(len(layer.c_0), layer.c_0.size(1) * (len(variant.states) - 1))
    c_0 = (c_0 if given.c_0 is None else given.c_0[number]).to(dtype)
    x = turned(x.to(dtype), layer.direction, lengths)
    did = Taken(x, h, in_order[:, 4], layer.h_0.to(dtype), c_0, masks, cut, taken)
    return VariedRecurrence(variant, variant.named(own), did)


def _up_to_the_end(x: Tensor, lengths: Tensor | None) -> Tensor:
    """What a trace holds, with zeros past the lengths, where it is not a number there."""
    return x if lengths is None else x.nan_to_num(0)


def _other_call(name: str, module: Any, forward: Any, input: Any, hx: Any = None) -> tuple[Any, Call]:
    output, h_n = forward(input, hx)
    lengths = None
    with torch.no_grad():
        if isinstance(input, PackedSequence):
            x, lengths = pad_packed_sequence(input)
        else:
            x = input[:, None] if input.dim() == 2 else input.transpose(0, 1) if module.batch_first else input
        dtype = torch.float32 if x.dtype in (torch.bfloat16, torch.float16) else x.dtype
        x = x.detach().to(dtype)
        T, B = x.shape[:2]
        D = 2 if module.bidirectional else 1
        if hx is None:
            hx = x.new_zeros(module.num_layers * D, B, module.hidden_size)
        hx = hx.detach().to(dtype).reshape(module.num_layers * D, B, module.hidden_size)
        taken = None if lengths is None else (torch.arange(T)[:, None] < lengths).to(x.device)
        directions: list[Direction] = []
        outputs: list[Tensor] = []
        for number, weights in enumerate(module.all_weights):
            layer, direction = divmod(number, D)
            if direction == 0 and layer > 0:
                x = torch.cat([one.turned(h) for one, h in zip(directions[-D:], outputs[-D:], strict=True)], dim=-1)
            own = [weight.detach().to(dtype) for weight in weights]
            from_end = turned(x, direction, lengths)
            recurrence: GRURecurrence | SRNRecurrence
            if cell_of(module) == "gru":
                recurrence = GRURecurrence(from_end, hx[number], own, taken)
            else:
                recurrence = SRNRecurrence(from_end, hx[number], own, taken, module.nonlinearity == "relu")
            outputs.append(recurrence.h)
            directions.append(Direction(layer, direction, recurrence, lengths))
    packed = output if isinstance(output, PackedSequence) else None
    cell: Cell = "gru" if cell_of(module) == "gru" else "srn"
    given, onward = _results(output, h_n)
    return onward, Call(name, cell, directions, D, module.batch_first, given, packed)
