"""The loop over time, layers and directions, forward and backward.

Of the cell it knows only that `step` takes a state to the next and that `step_backward` takes the
gradient of a state to that of the one before. The numbers in the comments are the equations of
docs/equations.md.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gatewise.errors import ArgumentError, DtypeError, ShapeError
from gatewise.reference.step import Array, Step, checked, step, step_backward


class Forward(NamedTuple):
    """What `forward` computed, and what `backward` needs of it.

    Attributes
    ----------
    output : ndarray, (T, B, D*H)
        The hidden states of the last layer, forward direction first.
    h_n, c_n : ndarray, (L*D, B, H)
        The state after each direction's last step; row l*D + d is layer l, direction d.
    gates : tuple of tuple of Step
        ``gates[layer][direction]`` holds i, f, g, o, c and h, each (T, B, H). Index t is time t in
        both directions: the reverse direction arrives at T-1 first and at 0 last.
    inputs : tuple of ndarray
        What each layer read: x, then the output of the layer below, (T, B, I) or (T, B, D*H).
    h_0, c_0 : ndarray, (L*D, B, H)
        The initial state.
    parameters : dict of str to ndarray
        The weights and biases under torch's names.
    lengths : ndarray of int, (B,)
        The steps that each sequence takes. What `output` and `gates` hold past them is zero.
    reset : ndarray of bool, (T, B)
        Where no state is handed on from step t - 1 to t.

    The inputs and parameters are those that were given, not copies: leave them unchanged until
    `backward` has been called.
    """

    output: Array
    h_n: Array
    c_n: Array
    gates: tuple[tuple[Step, ...], ...]
    inputs: tuple[Array, ...]
    h_0: Array
    c_0: Array
    parameters: dict[str, Array]
    lengths: NDArray[np.integer]
    reset: NDArray[np.bool_]


class Gradients(NamedTuple):
    """The gradient of a loss by everything that `forward` was given.

    Attributes
    ----------
    d_x : ndarray, (T, B, I)
    d_h_0, d_c_0 : ndarray, (L*D, B, H)
    d_parameters : dict of str to ndarray
        The names and shapes of the parameters.
    """

    d_x: Array
    d_h_0: Array
    d_c_0: Array
    d_parameters: dict[str, Array]


def forward(
    x: Array,
    parameters: Mapping[str, Array],
    h_0: Array | None = None,
    c_0: Array | None = None,
    *,
    num_layers: int = 1,
    bidirectional: bool = False,
    lengths: NDArray[np.integer] | None = None,
    reset: NDArray[np.bool_] | None = None,
) -> Forward:
    """Run a stacked, perhaps bidirectional LSTM over a batch of sequences.

    Parameters
    ----------
    x : ndarray, (T, B, I)
        The input. No time step at all (T = 0) leaves the state as it is.
    parameters : mapping of str to ndarray
        ``weight_ih_l0`` (4H, I), ``weight_hh_l0`` (4H, H), ``bias_ih_l0`` and ``bias_hh_l0`` (4H,),
        ``weight_ih_l1`` (4H, D*H) and so on, with the suffix ``_reverse`` for the reverse direction;
        all of the biases or none. Those are the names of torch.nn.LSTM.
    h_0, c_0 : ndarray, (L*D, B, H), optional
        The initial state; None is zero.
    num_layers : int
        L.
    bidirectional : bool
        Whether each layer also reads the sequence from its end.
    lengths : ndarray of int, (B,), optional
        The steps of each sequence, from 0 to T; None is T for all.
    reset : ndarray of bool, (T, B), optional
        Where it is true, the sequence is cut between step t - 1 and t: no state is handed on there, in either
        direction. Before step 0 it is the forward direction's initial state that is not handed on.

    Returns
    -------
    Forward
        The output, the last state, every gate, and what `backward` needs.

    Raises
    ------
    ArgumentError
        If there are no layers, parameters are missing or too many, or a length is not from 0 to T.
    ShapeError, DtypeError
        If an array does not fit the others or is not float64.

    References
    ----------
    docs/equations.md, section 1. The two directions are from Schuster and Paliwal, "Bidirectional
    recurrent neural networks", 1997.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> parameters = {"weight_ih_l0": rng.normal(size=(8, 3)), "weight_hh_l0": rng.normal(size=(8, 2))}
    >>> run = forward(rng.normal(size=(5, 4, 3)), parameters)
    >>> run.output.shape, run.h_n.shape, run.gates[0][0].f.shape
    ((5, 4, 2), (1, 4, 2), (5, 4, 2))
    """
    directions = 2 if bidirectional else 1
    parameters = _checked_parameters(parameters, num_layers, directions)
    hidden = parameters["weight_hh_l0"].shape[1]
    x = checked("x", x, {"T": None, "B": None, "I": parameters["weight_ih_l0"].shape[1]})
    state = {"L*D": num_layers * directions, "B": x.shape[1], "H": hidden}
    h_0 = _checked_or_zero("h_0", h_0, state)
    c_0 = _checked_or_zero("c_0", c_0, state)
    lengths, reset = _checked_lengths(lengths, *x.shape[:2]), _checked_reset(reset, *x.shape[:2])

    h_n, c_n = np.empty_like(h_0), np.empty_like(c_0)
    gates: list[tuple[Step, ...]] = []
    layer_input = x
    inputs: list[Array] = []
    for layer in range(num_layers):
        inputs.append(layer_input)
        both: list[Step] = []
        for direction in range(directions):
            row = layer * directions + direction  # (1.13)
            cell = [parameters[name] for name in _names(layer, direction, parameters)]
            steps = Step(*(np.empty((*x.shape[:2], hidden)) for _ in Step._fields))
            h, c = h_0[row], c_0[row]
            for t in _time_order(len(x), direction):
                taken, cut = _taken(t, lengths), _cut(t, direction, lengths, reset)
                now = step(layer_input[t], np.where(cut, 0, h), np.where(cut, 0, c), *cell)  # (1.15)
                for over_time, at_t in zip(steps, now, strict=True):
                    over_time[t] = np.where(taken, at_t, 0)
                h, c = np.where(taken, now.h, h), np.where(taken, now.c, c)  # (1.14)
            h_n[row], c_n[row] = h, c  # (1.13)
            both.append(steps)
        gates.append(tuple(both))
        layer_input = np.concatenate([steps.h for steps in both], axis=2)  # (1.10), (1.12)
    return Forward(layer_input, h_n, c_n, tuple(gates), tuple(inputs), h_0, c_0, parameters, lengths, reset)


def backward(
    forward: Forward,
    d_output: Array | None = None,
    d_h_n: Array | None = None,
    d_c_n: Array | None = None,
) -> Gradients:
    """Carry the gradient of a loss back through all layers and all of time.

    Parameters
    ----------
    forward : Forward
        What `forward` returned.
    d_output : ndarray, (T, B, D*H), optional
        The loss's gradient by the output; None is zero, here and below.
    d_h_n, d_c_n : ndarray, (L*D, B, H), optional
        The loss's gradient by the last state.

    Returns
    -------
    Gradients
        d_x, d_h_0, d_c_0 and d_parameters.

    Raises
    ------
    ShapeError, DtypeError
        If a gradient does not have the shape of what it belongs to, or is not float64.

    References
    ----------
    docs/equations.md, section 3.

    Examples
    --------
    With all weights zero the forget gate is 1/2 and the cell state's gradient halves at each step.

    >>> parameters = {"weight_ih_l0": np.zeros((4, 1)), "weight_hh_l0": np.zeros((4, 1))}
    >>> run = forward(np.ones((3, 1, 1)), parameters)
    >>> print(backward(run, d_c_n=np.ones((1, 1, 1))).d_c_0)
    [[[0.125]]]
    """
    directions, hidden = len(forward.gates[0]), forward.h_0.shape[2]
    time, batch, width = forward.output.shape
    state = {"L*D": len(forward.h_0), "B": batch, "H": hidden}
    d_layer = _checked_or_zero("d_output", d_output, {"T": time, "B": batch, "D*H": width})
    d_h_n = _checked_or_zero("d_h_n", d_h_n, state)
    d_c_n = _checked_or_zero("d_c_n", d_c_n, state)

    d_h_0, d_c_0 = np.empty_like(forward.h_0), np.empty_like(forward.c_0)
    d_parameters: dict[str, Array] = {}
    for layer in reversed(range(len(forward.gates))):
        layer_input = forward.inputs[layer]
        d_layer_input = np.zeros_like(layer_input)
        for direction, steps in enumerate(forward.gates[layer]):
            row = layer * directions + direction
            weight_ih, weight_hh, *biases = _names(layer, direction, forward.parameters)
            h_prev = _before(steps.h, forward.h_0[row], direction, forward)
            c_prev = _before(steps.c, forward.c_0[row], direction, forward)
            d_hidden = d_layer[:, :, direction * hidden : (direction + 1) * hidden]
            d_a = np.empty((time, batch, 4 * hidden))
            d_h, d_c = d_h_n[row], d_c_n[row]
            for t in reversed(_time_order(time, direction)):
                taken, cut = _taken(t, forward.lengths), _cut(t, direction, forward.lengths, forward.reset)
                at_t = Step(*(over_time[t] for over_time in steps))
                d_a_t, d_c_prev = step_backward(d_hidden[t] + d_h, d_c, at_t, c_prev[t])  # (2.1)
                d_a[t] = np.where(taken, d_a_t, 0)
                d_h_prev = d_a[t] @ forward.parameters[weight_hh]  # (3.1)
                d_h = np.where(taken, np.where(cut, 0, d_h_prev), d_h)  # (3.9)
                d_c = np.where(taken, np.where(cut, 0, d_c_prev), d_c)  # (3.9)
            d_h_0[row] = d_h  # (3.6)
            d_c_0[row] = d_c  # (3.7)
            d_layer_input += d_a @ forward.parameters[weight_ih]  # (3.2), (3.8)
            d_parameters[weight_ih] = np.tensordot(d_a, layer_input, axes=([0, 1], [0, 1]))  # (3.3)
            d_parameters[weight_hh] = np.tensordot(d_a, h_prev, axes=([0, 1], [0, 1]))  # (3.4)
            for bias in biases:
                d_parameters[bias] = d_a.sum(axis=(0, 1))  # (3.5)
        d_layer = d_layer_input  # (3.8)
    in_order = {name: d_parameters[name] for name in forward.parameters}
    return Gradients(d_layer, d_h_0, d_c_0, in_order)


def _time_order(time: int, direction: int) -> range:
    """Return the times in the order in which a direction reads them."""
    return range(time - 1, -1, -1) if direction else range(time)  # (1.11)


def _taken(t: int, lengths: NDArray[np.integer]) -> NDArray[np.bool_]:
    """Return which sequences take step t, (B, 1)."""
    taken: NDArray[np.bool_] = t < lengths
    return taken[:, np.newaxis]


def _cut(t: int, direction: int, lengths: NDArray[np.integer], reset: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return where no state is handed on to step t, (B, 1)."""
    if not direction:
        return reset[t, :, np.newaxis]
    if t + 1 == len(reset):
        return np.zeros((len(lengths), 1), bool)
    return reset[t + 1, :, np.newaxis] & _taken(t + 1, lengths)  # what comes from beyond the end is the initial state


def _before(states: Array, initial: Array, direction: int, forward: Forward) -> Array:
    """Return the state handed to each step, (T, B, H), from the state after each and the initial one."""
    before = np.empty_like(states)
    state = initial
    for t in _time_order(len(states), direction):
        before[t] = np.where(_cut(t, direction, forward.lengths, forward.reset), 0, state)
        state = np.where(_taken(t, forward.lengths), states[t], state)
    return before


def _names(layer: int, direction: int, parameters: Mapping[str, Array]) -> list[str]:
    """Return torch's names for the parameters of one cell, in the order in which `step` takes them."""
    suffix = f"_l{layer}" + ("_reverse" if direction else "")
    kinds = ["weight_ih", "weight_hh"]
    if any(name.startswith("bias") for name in parameters):
        kinds += ["bias_ih", "bias_hh"]
    return [kind + suffix for kind in kinds]


def _checked_parameters(parameters: Mapping[str, Array], num_layers: int, directions: int) -> dict[str, Array]:
    """Return the parameters as a dict, after a look at each name, shape and number type."""
    if num_layers < 1:
        raise ArgumentError(f"num_layers: needed at least 1, given {num_layers}")
    cells = [(layer, direction) for layer in range(num_layers) for direction in range(directions)]
    needed = [name for cell in cells for name in _names(*cell, parameters)]
    missing = [name for name in needed if name not in parameters]
    unknown = [name for name in parameters if name not in needed]
    if missing or unknown:
        raise ArgumentError(
            f"parameters: missing [{', '.join(missing)}], unknown [{', '.join(unknown)}] "
            f"for num_layers {num_layers} and {directions} direction(s)"
        )
    hidden = checked("weight_hh_l0", parameters["weight_hh_l0"], {"4H": None, "H": None}).shape[1]
    checked("weight_hh_l0", parameters["weight_hh_l0"], {"4H": 4 * hidden, "H": hidden})
    inputs = checked("weight_ih_l0", parameters["weight_ih_l0"], {"4H": 4 * hidden, "I": None}).shape[1]
    axes: dict[str, dict[str, int]] = {}
    for layer, direction in cells:
        weight_ih, weight_hh, *biases = _names(layer, direction, parameters)
        width = {"D*H": directions * hidden} if layer else {"I": inputs}
        axes[weight_ih] = {"4H": 4 * hidden, **width}
        axes[weight_hh] = {"4H": 4 * hidden, "H": hidden}
        axes |= {bias: {"4H": 4 * hidden} for bias in biases}
    return {name: checked(name, array, axes[name]) for name, array in parameters.items()}


def _checked_or_zero(name: str, array: Array | None, axes: Mapping[str, int]) -> Array:
    """Return the array if it has the axes asked for, and zeros of that shape if there is none."""
    if array is None:
        return np.zeros(tuple(axes.values()))
    return checked(name, array, axes)


def _checked_lengths(lengths: NDArray[np.integer] | None, time: int, batch: int) -> NDArray[np.integer]:
    if lengths is None:
        return np.full(batch, time)
    lengths = np.asarray(lengths)
    if lengths.shape != (batch,):
        raise ShapeError(f"lengths: needed shape (B,) = ({batch},), given {lengths.shape}")
    if not np.issubdtype(lengths.dtype, np.integer):
        raise DtypeError(f"lengths: needed integers, given {lengths.dtype}")
    if batch and not (lengths.min() >= 0 and lengths.max() <= time):
        raise ArgumentError(f"lengths: needed from 0 to T = {time}, given from {lengths.min()} to {lengths.max()}")
    return lengths


def _checked_reset(reset: NDArray[np.bool_] | None, time: int, batch: int) -> NDArray[np.bool_]:
    if reset is None:
        return np.zeros((time, batch), bool)
    reset = np.asarray(reset)
    if reset.shape != (time, batch):
        raise ShapeError(f"reset: needed shape (T, B) = ({time}, {batch}), given {reset.shape}")
    if reset.dtype != bool:
        raise DtypeError(f"reset: needed bool, given {reset.dtype}")
    return reset
