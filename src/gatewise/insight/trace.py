"""`trace` and `record`: what the gates of an LSTM did, step by step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from gatewise.errors import ArgumentError, DtypeError, ShapeError
from gatewise.insight.given import Given, given_of
from gatewise.insight.swap import swapped
from gatewise.insight.twin import twin_of
from gatewise.nn import LSTM
from gatewise.nn.checks import as_lengths, check_reset
from gatewise.nn.lstm import Prepared
from gatewise.nn.paths import transformed
from gatewise.nn.recorded import Recorded

if TYPE_CHECKING:
    import xarray

NAMES = ("i", "f", "g", "o", "c", "h")
"""What a trace holds, in this order."""

AXES = ("layer", "direction", "step", "sequence", "unit")
"""The axes of each array of a whole trace."""


class LayerTrace:
    """What one layer did in one direction.

    Parameters
    ----------
    layer, direction : int
        Which one: layers from 0 on, direction 0 forward and 1 reverse.
    h : Tensor
        (T, B, P); past a sequence's length not a number.
    activations : callable
        Gives i, f, g, o and c, (5, T, B, H), when it is first needed.
    h_0, c_0 : Tensor
        (B, P) and (B, H): the state that it began with.

    Attributes
    ----------
    i, f, g, o, c : Tensor
        (T, B, H), after their activation, at the input's steps (in the reverse direction too, which takes them from the
        last to the first). Past a sequence's length they are not a number. From bfloat16 they come as float32.

    Notes
    -----
    Of a changed cell each is what its equations call so. With ``coupled`` f is 1 - i. With ``zoneout`` c and h are what
    is handed on (7.17), and with dropout in the step g is what it was before its mask (7.11). Of an sLSTM i and f are
    the stabilized gates (7.26), of which one is 1, and c is as its stabilizer scales it: h is o c / n (7.28), and n and
    m are not kept.

    Examples
    --------
    >>> layer = trace(LSTM(4, 3), torch.zeros(5, 2, 4)).layers[0]
    >>> torch.allclose(layer.h, layer.o * layer.c.tanh())
    True
    """

    def __init__(self, layer: int, direction: int, h: Tensor, activations: Any, h_0: Tensor, c_0: Tensor) -> None:
        self.layer, self.direction, self.h, self.h_0, self.c_0 = layer, direction, h, h_0, c_0
        self._read = activations

    @cached_property
    def activations(self) -> Tensor:
        """i, f, g, o and c in one tensor, (5, T, B, H)."""
        found: Tensor = self._read()
        del self._read  # and what the call has kept with it
        return found

    @property
    def i(self) -> Tensor:
        """The input gate."""
        return self.activations[0]

    @property
    def f(self) -> Tensor:
        """The forget gate."""
        return self.activations[1]

    @property
    def g(self) -> Tensor:
        """The candidate."""
        return self.activations[2]

    @property
    def o(self) -> Tensor:
        """The output gate."""
        return self.activations[3]

    @property
    def c(self) -> Tensor:
        """The cell state after each step."""
        return self.activations[4]

    @property
    def name(self) -> str:
        """As torch ends its weights' names: l0, l1_reverse."""
        return f"l{self.layer}" + "_reverse" * self.direction

    def __repr__(self) -> str:
        return f"<LayerTrace {self.name}: (T, B, H) = {tuple(self.c.shape)}>"


@dataclass(frozen=True, eq=False)
class Trace:
    """What an LSTM did in one call: its gates, its cells and its hidden states, of all layers and directions.

    Parameters
    ----------
    layers : sequence of LayerTrace
        Layer l, direction d at l·D + d.
    directions : int
        D, 1 or 2.
    lengths : Tensor or None
        (B,), the steps of each sequence; None: all of them have T.
    reset : Tensor or None
        (T, B), bool: where no state was handed on from the step before.
    output
        What the call returned: output and (h_n, c_n), as `LSTM.forward` gives them, detached; they share its memory.
    weights : sequence of Tensor
        What it computed with, in torch's order, in training without what weight_dropout has dropped; none in a trace
        that was read from arrays.

    Attributes
    ----------
    i, f, g, o, c, h : Tensor
        (L, D, T, B, H) with the axes `gatewise.insight.trace.AXES`: layer, direction, step, sequence, unit; h is
        (L, D, T, B, P). They are stacked of the layers' own.

    Examples
    --------
    >>> lstm = LSTM(4, 3, num_layers=2, batch_first=True)
    >>> found = trace(lstm, torch.zeros(2, 5, 4))
    >>> found.f.shape, found.layers[1].f.shape
    (torch.Size([2, 1, 5, 2, 3]), torch.Size([5, 2, 3]))
    >>> sorted(found.to_numpy())
    ['c', 'c_0', 'f', 'g', 'h', 'h_0', 'i', 'o']
    """

    layers: Sequence[LayerTrace]
    directions: int
    lengths: Tensor | None
    reset: Tensor | None
    output: Any
    weights: Sequence[Tensor] = ()

    def layer(self, layer: int = 0, direction: int = 0) -> LayerTrace:
        """One layer and direction.

        Raises
        ------
        ArgumentError
            There is none of these numbers.
        """
        whole = isinstance(layer, int) and isinstance(direction, int)
        if not (whole and 0 <= layer < len(self.layers) // self.directions and 0 <= direction < self.directions):
            raise ArgumentError(
                f"layer is {layer} and direction {direction}, needed a layer below "
                f"{len(self.layers) // self.directions} and a direction below {self.directions}"
            )
        return self.layers[layer * self.directions + direction]

    def _stacked(self, name: str) -> Tensor:
        all_of = torch.stack([getattr(layer, name) for layer in self.layers])
        return all_of.reshape(len(self.layers) // self.directions, self.directions, *all_of.shape[1:])

    @property
    def i(self) -> Tensor:
        """The input gate."""
        return self._stacked("i")

    @property
    def f(self) -> Tensor:
        """The forget gate."""
        return self._stacked("f")

    @property
    def g(self) -> Tensor:
        """The candidate."""
        return self._stacked("g")

    @property
    def o(self) -> Tensor:
        """The output gate."""
        return self._stacked("o")

    @property
    def c(self) -> Tensor:
        """The cell state after each step."""
        return self._stacked("c")

    @property
    def h(self) -> Tensor:
        """The hidden state after each step."""
        return self._stacked("h")

    def to_numpy(self) -> dict[str, np.ndarray[Any, Any]]:
        """Everything as NumPy arrays, by name.

        Returns
        -------
        dict
            i, f, g, o, c and h with the axes `AXES`, h_0 and c_0 with (layer, direction, sequence, unit); and where the
            call had them lengths (sequence,) and reset (step, sequence).
        """
        names = [*NAMES, "h_0", "c_0"]
        found = {name: _numpy(self._stacked(name)) for name in names}
        rest = {"lengths": self.lengths, "reset": self.reset}
        return found | {name: _numpy(tensor) for name, tensor in rest.items() if tensor is not None}

    @classmethod
    def from_numpy(cls, arrays: Mapping[str, np.ndarray[Any, Any]]) -> Self:
        """Make a trace of what `to_numpy` gave; its `output` is None.

        Raises
        ------
        ShapeError, DtypeError, ArgumentError
            An array is missing, has not the axes of the others, or no floating-point numbers; a length is not from 0
            to T; or `reset` is not bool.
        """
        if not isinstance(arrays, Mapping):
            raise ArgumentError(f"arrays are a {type(arrays).__name__}, needed a dict: give what to_numpy gave")
        needed = [*NAMES, "h_0", "c_0"]
        missing = [name for name in needed if name not in arrays]
        if missing:
            raise ShapeError(
                f"arrays lack {', '.join(missing)}, needed are {', '.join(needed)}: give what to_numpy gave"
            )
        tensors = {}
        for name in [*needed, *(name for name in ("lengths", "reset") if name in arrays)]:
            array = np.asarray(arrays[name])
            if array.dtype.kind not in "fiub":
                raise DtypeError(f"{name} holds {array.dtype}, needed numbers: give what to_numpy gave")
            tensors[name] = torch.as_tensor(array)
        shape = tensors["c"].shape
        if len(shape) != len(AXES):
            raise ShapeError(f"c has shape {tuple(shape)}, needed ({', '.join(AXES)}): give what to_numpy gave")
        for name in needed:
            state, own = name in ("h_0", "c_0"), tensors[name].shape
            fits = (*shape[:2], *([] if state else [shape[2]]), shape[3])
            if own[:-1] != fits or (name not in ("h", "h_0") and own[-1] != shape[-1]):
                axes = ", ".join(axis for axis in AXES if not (state and axis == "step"))
                raise ShapeError(f"{name} has shape {tuple(own)}, needed ({axes}) that fit c, {tuple(shape)}")
            if not tensors[name].is_floating_point():
                raise DtypeError(f"{name} is {tensors[name].dtype}, needed floating-point numbers: convert it")
        T, B = shape[2:4]
        lengths = as_lengths(tensors["lengths"], T=T, B=B) if "lengths" in tensors else None
        if "reset" in tensors:
            check_reset(tensors["reset"], tensors["c"], T=T, B=B)
        layers = []
        for number in range(shape[0] * shape[1]):
            at = divmod(number, shape[1])
            five = torch.stack([tensors[name][at] for name in NAMES[:5]])
            layers.append(
                LayerTrace(*at, tensors["h"][at], lambda five=five: five, tensors["h_0"][at], tensors["c_0"][at])
            )
        return cls(layers, shape[1], lengths, tensors.get("reset"), None)

    def to_xarray(self) -> xarray.Dataset:
        """Everything as an xarray.Dataset with named axes; h and h_0 have an axis "output" where h is projected.

        Raises
        ------
        ArgumentError
            xarray is not installed.
        """
        try:
            import xarray
        except ImportError as error:
            raise ArgumentError(
                "xarray is not installed: pip install 'gatewise[xarray]', or take to_numpy()"
            ) from error
        arrays = self.to_numpy()
        projected = arrays["h"].shape[-1] != arrays["c"].shape[-1]
        unit = "output" if projected else "unit"
        return xarray.Dataset({name: (_axes(name, unit), array) for name, array in arrays.items()})

    @classmethod
    def from_xarray(cls, dataset: xarray.Dataset) -> Self:
        """Make a trace of what `to_xarray` gave, whatever the order of its axes.

        Raises
        ------
        ShapeError, DtypeError, ArgumentError
            It is no dataset, an axis has another name, or the arrays are not those of a trace.
        """
        if not hasattr(dataset, "data_vars"):
            raise ArgumentError(f"dataset is a {type(dataset).__name__}, needed an xarray.Dataset: give a trace's")
        arrays = {}
        for name, variable in dataset.data_vars.items():
            unit = "output" if "output" in variable.dims else "unit"
            axes = _axes(str(name), unit)
            if set(axes) != set(variable.dims):
                raise ShapeError(f"{name} has the axes {variable.dims}, needed {axes}: give what to_xarray gave")
            arrays[str(name)] = variable.transpose(*axes).to_numpy()
        return cls.from_numpy(arrays)

    def __repr__(self) -> str:
        T, B, H = self.layers[0].c.shape
        layers = len(self.layers) // self.directions
        return f"<Trace of i, f, g, o, c, h: L, D, T, B, H = {layers}, {self.directions}, {T}, {B}, {H}>"

    def _repr_png_(self) -> bytes:
        """The gates of the first sequence in the last layer, for notebooks."""
        from gatewise.drawing import as_png
        from gatewise.insight.figures import draw_gates

        return as_png(draw_gates(self, layer=len(self.layers) // self.directions - 1))


def trace(lstm: nn.Module, input: Any, hx: Any = None, *, lengths: Any = None, reset: Any = None) -> Trace:
    """Run an LSTM over a batch of sequences and keep what its gates did.

    The output comes from the same kernel call. Nothing is differentiable: use `record` within a training.

    Parameters
    ----------
    lstm : gatewise.LSTM or torch.nn.LSTM
        Of torch's the weights are read and gatewise's kernels compute. In training mode dropout is drawn, as ever.
    input, hx, lengths, reset
        As in `gatewise.LSTM.forward`.

    Returns
    -------
    Trace
        i, f, g, o, c and h of every layer, direction, step, sequence and unit.

    Raises
    ------
    ArgumentError
        `lstm` is neither.
    ShapeError, DtypeError
        The input or the state does not fit.

    Examples
    --------
    A forget gate with a bias of 3 keeps 95 % of a cell where nothing comes in:

    >>> lstm = LSTM(4, 3)
    >>> for weight in lstm.parameters():
    ...     _ = nn.init.zeros_(weight)
    >>> with torch.no_grad():
    ...     _ = lstm.gates().f.bias_ih.fill_(3)
    >>> found = trace(lstm, torch.zeros(2, 1, 4), (torch.zeros(1, 1, 3), torch.ones(1, 1, 3)))
    >>> found.f[0, 0, :, 0, 0], found.c[0, 0, :, 0, 0]
    (tensor([0.9526, 0.9526]), tensor([0.9526, 0.9074]))
    """
    with torch.no_grad():
        _, found, _ = traced(lstm, input, hx, lengths=lengths, reset=reset)
    return found


class Traces(dict[str, list[Trace]]):
    """The traces of a model's LSTMs by their names in it, one for each call.

    Examples
    --------
    >>> Traces(lstm=[])["cell"]
    Traceback (most recent call last):
    KeyError: "no LSTM 'cell' was called, but lstm"
    """

    def __missing__(self, name: str) -> list[Trace]:
        raise KeyError(f"no LSTM {name!r} was called, but {', '.join(self) or 'none'}")


@contextmanager
def record(model: nn.Module) -> Iterator[Traces]:
    """Keep what the LSTMs anywhere inside a model do while a block runs.

    The model computes what it would without it, gradients too, and its LSTMs' gates come from the same kernel calls. A
    torch.nn.LSTM in it is computed by gatewise's kernels for as long: the results agree to rounding.

    Parameters
    ----------
    model : torch.nn.Module
        With at least one gatewise.LSTM or torch.nn.LSTM, or one itself (its name is "" then).

    Yields
    ------
    Traces
        For each LSTM's name, as `model.named_modules` gives it, a list with a `Trace` for each call.

    Raises
    ------
    ArgumentError
        There is no LSTM in it, it was compiled, or an LSTM in it has a forward of its own or is being recorded already.
        Within the block: a call is under a transform of torch.func.

    Notes
    -----
    What torch.utils.checkpoint computes anew on the way back it computes as the block's end left it: go backward within
    the block.

    Examples
    --------
    >>> model = nn.ModuleDict({"lstm": LSTM(4, 3), "head": nn.Linear(3, 2)})
    >>> with record(model) as traces:
    ...     output, _ = model["lstm"](torch.zeros(5, 2, 4))
    >>> traces["lstm"][0].f.shape
    torch.Size([1, 1, 5, 2, 3])
    """
    if isinstance(model, nn.Module) and not any(isinstance(module, (LSTM, nn.LSTM)) for module in model.modules()):
        raise ArgumentError(
            f"model is a {type(model).__name__} without a gatewise.LSTM or torch.nn.LSTM, needed at least one in it"
        )
    traces = Traces()

    def recording(name: str, module: nn.Module, forward: Any) -> Any:
        def recorded(*args: Any, **kwargs: Any) -> Any:
            output, found, _ = traced(module, *args, **kwargs)
            traces.setdefault(name, []).append(found)
            return output

        return recorded

    with swapped(model, lambda module: isinstance(module, (LSTM, nn.LSTM)), recording):
        yield traces


def traced(
    lstm: nn.Module, input: Any, hx: Any = None, *, lengths: Any = None, reset: Any = None
) -> tuple[Any, Trace, Given]:
    """Run an LSTM as a call of it does, differentiably, and keep its trace.

    Returns
    -------
    results, trace, given
        As of `gatewise.LSTM.forward`, the `Trace`, whose own `output` is detached, and what the call computed with.

    Examples
    --------
    >>> (output, _), found, _ = traced(LSTM(4, 3), torch.zeros(5, 2, 4))
    >>> output.requires_grad, found.h.requires_grad
    (True, False)
    """
    if transformed():
        raise ArgumentError(
            "a call under torch.func (vmap, grad …) cannot be traced: trace one of its inputs by itself"
        )
    results, call, recorded = twin_of(lstm).record(input, hx, lengths=lengths, reset=reset)
    with torch.no_grad():
        unsorted = input.unsorted_indices if isinstance(input, PackedSequence) else None
        return results, _trace(results, input, call, recorded), given_of(call, unsorted)


def _trace(output: Any, input: Any, call: Prepared, recorded: Sequence[Recorded]) -> Trace:
    """The trace of a call, in the caller's order of sequences and with time first."""
    network = call.network
    directions = 2 if network.bidirectional else 1
    lengths, reset, unsorted = network.lengths, network.reset, None
    across = network.batch_first and network.batch_sizes is None
    if across and reset is not None:
        reset = reset.transpose(0, 1)
    if isinstance(input, PackedSequence):
        sizes = input.batch_sizes
        lengths = (torch.arange(int(sizes[0])) < sizes[:, None]).sum(0)
        unsorted = input.unsorted_indices
        if unsorted is not None:
            lengths = lengths[unsorted.cpu()]

    def ordered(x: Tensor, axis: int) -> Tensor:
        return x if unsorted is None else x.index_select(axis, unsorted)

    layers = []
    for number, (h, activations) in enumerate(recorded):
        if network.batch_sizes is not None:
            h = _padded(h, network.batch_sizes)
        elif lengths is not None:
            past = torch.arange(h.size(0), device=h.device)[:, None] >= lengths.to(h.device)
            h = h.masked_fill(past[:, :, None], torch.nan)
        if number >= len(recorded) - directions and unsorted is None:
            h = h.clone()  # the call's output, which its caller may write over
        B, P, H = h.size(1), h.size(2), call.weights[0].size(0) // len(network.variant.gates)
        h_0 = h.new_zeros(B, P) if call.h_0 is None else call.h_0[number].detach().clone()
        c_0 = h.new_zeros(B, H) if call.c_0 is None else call.c_0[number][:, :H].detach().clone()
        layers.append(
            LayerTrace(
                *divmod(number, directions),
                ordered(h, 1),
                lambda activations=activations: ordered(activations(), 2),
                ordered(h_0, 0),
                ordered(c_0, 0),
            )
        )
    weights = [weight.detach() for weight in call.weights]
    return Trace(layers, directions, lengths, reset, _detached(output), weights)


def _detached(results: Any) -> Any:
    """Output and states without their graph, which a trace must not keep alive."""
    output, states = results
    data = output._replace(data=output.data.detach()) if isinstance(output, PackedSequence) else output.detach()
    return data, tuple(state.detach() for state in states)


def _padded(h: Tensor, batch_sizes: Tensor) -> Tensor:
    """(steps, P) of packed sequences as (T, B, P), past the ends not a number."""
    taken = (torch.arange(int(batch_sizes[0])) < batch_sizes[:, None]).to(h.device)
    padded = h.new_full((*taken.shape, h.size(-1)), torch.nan)
    padded[taken] = h
    return padded


def _axes(name: str, of_h: str) -> tuple[str, ...]:
    """The axes of a trace's array, of which the last one of h may be another than that of the gates."""
    if name in ("lengths", "reset"):
        return ("sequence",) if name == "lengths" else ("step", "sequence")
    own = (axis for axis in AXES[:-1] if not (axis == "step" and name.endswith("_0")))
    return (*own, of_h if name.startswith("h") else AXES[-1])


def _numpy(tensor: Tensor) -> np.ndarray[Any, Any]:
    tensor = tensor.detach().cpu()
    found: np.ndarray[Any, Any] = (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()
    return found
