"""The loop over time, layers and directions, forward and backward.

Of the cell it knows only that a step takes a state to the next and that its gradient takes that of a
state to that of the one before: see `gatewise.reference.cell`. The numbers in the comments are the
equations of docs/equations.md.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gatewise.errors import ArgumentError, DtypeError, ShapeError
from gatewise.reference.cell import Cell, Plain
from gatewise.reference.slstm import SLSTM
from gatewise.reference.step import Array, checked
from gatewise.reference.variant import PLAIN, Variant
from gatewise.reference.variants import Varied


class Forward(NamedTuple):
    """What `forward` computed, and what `backward` needs of it.

    Attributes
    ----------
    output : ndarray, (T, B, D*H)
        The hidden states of the last layer, forward direction first.
    h_n, c_n : ndarray, (L*D, B, H)
        The state after each direction's last step; row l*D + d is layer l, direction d.
    gates : tuple of tuple of Step, or of SStep of an sLSTM
        ``gates[layer][direction]`` holds i, f, g, o, c and h, each (T, B, H). Index t is time t in
        both directions: the reverse direction arrives at T-1 first and at 0 last. The m of a
        projection is o * tanh(c).
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
    variant : Variant
        The cell.
    masks : dict of str to ndarray
        Its masks; none in evaluation.
    initial, last : dict of str to ndarray
        Every initial and last state by its name: h and c, and n and m of an sLSTM, which are as wide as c.

    With a projection, P stands for H in the shapes of `output`, of `inputs` above the first, of
    h_n, h_0, and of h in `gates`; c is H wide throughout.

    The inputs and parameters are those that were given, not copies: leave them unchanged until
    `backward` has been called.
    """

    output: Array
    h_n: Array
    c_n: Array
    gates: tuple[tuple[Any, ...], ...]
    inputs: tuple[Array, ...]
    h_0: Array
    c_0: Array
    parameters: dict[str, Array]
    lengths: NDArray[np.integer]
    reset: NDArray[np.bool_]
    variant: Variant
    masks: dict[str, Array]
    initial: dict[str, Array]
    last: dict[str, Array]


class Gradients(NamedTuple):
    """The gradient of a loss by everything that `forward` was given.

    Attributes
    ----------
    d_x : ndarray, (T, B, I)
    d_h_0, d_c_0 : ndarray, (L*D, B, H)
        With a projection d_h_0 is (L*D, B, P).
    d_parameters : dict of str to ndarray
        The names and shapes of the parameters.
    d_initial : dict of str to ndarray
        By every initial state, as `Forward.initial` names them.
    """

    d_x: Array
    d_h_0: Array
    d_c_0: Array
    d_parameters: dict[str, Array]
    d_initial: dict[str, Array]


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
    variant: Variant = PLAIN,
    masks: Mapping[str, Array] | None = None,
    n_0: Array | None = None,
    m_0: Array | None = None,
) -> Forward:
    """Run a stacked, perhaps bidirectional LSTM over a batch of sequences.

    Parameters
    ----------
    x : ndarray, (T, B, I)
        The input. No time step at all (T = 0) leaves the state as it is.
    parameters : mapping of str to ndarray
        ``weight_ih_l0`` (4H, I), ``weight_hh_l0`` (4H, H), ``bias_ih_l0`` and ``bias_hh_l0`` (4H,),
        ``weight_ih_l1`` (4H, D*H) and so on, with the suffix ``_reverse`` for the reverse direction;
        all of the biases or none. A projection is there if its weights are: ``weight_hr_l0`` (P, H) and
        one for each other layer and direction. ``weight_hh_l0`` is (4H, P) then, and ``weight_ih_l1``
        (4H, D*P). Those are the names of torch.nn.LSTM, and P is what it calls proj_size. A variant may have
        more, and fewer rows: `Variant.shapes` tells.
    h_0, c_0 : ndarray, (L*D, B, H), optional
        The initial state; None is zero. With a projection h_0 is (L*D, B, P).
    num_layers : int
        L.
    bidirectional : bool
        Whether each layer also reads the sequence from its end.
    lengths : ndarray of int, (B,), optional
        The steps of each sequence, from 0 to T; None is T for all.
    reset : ndarray of bool, (T, B), optional
        Where it is true, the sequence is cut between step t - 1 and t: no state is handed on there, in either
        direction. Before step 0 it is the forward direction's initial state that is not handed on.
    variant : Variant
        The cell; the plain one unless another is given.
    masks : mapping of str to ndarray, optional
        All that `Variant.masks` tells, drawn by the caller: a training call. None is evaluation, where nothing is
        dropped and zoneout is its expectation.
    n_0, m_0 : ndarray, (L*D, B, H), optional
        The rest of an sLSTM's initial state; None is zero.

    Returns
    -------
    Forward
        The output, the last state, every gate, and what `backward` needs.

    Raises
    ------
    ArgumentError
        If there are no layers, parameters or masks are missing or too many, or a length is not from 0 to T.
    ShapeError, DtypeError
        If an array does not fit the others or is not float64.

    References
    ----------
    docs/equations.md, section 1, and section 7 for the variants. The two directions are from Schuster
    and Paliwal, "Bidirectional recurrent neural networks", 1997.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> parameters = {"weight_ih_l0": rng.normal(size=(8, 3)), "weight_hh_l0": rng.normal(size=(8, 2))}
    >>> run = forward(rng.normal(size=(5, 4, 3)), parameters)
    >>> run.output.shape, run.h_n.shape, run.gates[0][0].f.shape
    ((5, 4, 2), (1, 4, 2), (5, 4, 2))

    The same number of cells, projected to a hidden state of one number:

    >>> parameters |= {"weight_hh_l0": rng.normal(size=(8, 1)), "weight_hr_l0": rng.normal(size=(1, 2))}
    >>> run = forward(rng.normal(size=(5, 4, 3)), parameters)
    >>> run.output.shape, run.h_n.shape, run.gates[0][0].f.shape
    ((5, 4, 1), (1, 4, 1), (5, 4, 2))
    """
    directions = 2 if bidirectional else 1
    parameters = _checked_parameters(parameters, num_layers, directions, variant)
    hidden, axis, width = _sizes(parameters, variant)
    x = checked("x", x, {"T": None, "B": None, "I": parameters["weight_ih_l0"].shape[1]})
    rows = {"L*D": num_layers * directions, "B": x.shape[1]}
    initial = _checked_states(
        {"h_0": h_0, "c_0": c_0, "n_0": n_0, "m_0": m_0}, variant, {**rows, axis: width}, {**rows, "H": hidden}
    )
    lengths, reset = _checked_lengths(lengths, *x.shape[:2]), _checked_reset(reset, *x.shape[:2])
    shapes = variant.masks(cells=rows["L*D"], time=len(x), batch=x.shape[1], hidden=hidden, width=width)
    masks = _checked_masks(masks, {name: mask.shape for name, mask in shapes.items()})

    cell = _cell_of(variant)
    last = {name: np.empty_like(states) for name, states in initial.items()}
    gates: list[tuple[Any, ...]] = []
    layer_input = x
    inputs: list[Array] = []
    for layer in range(num_layers):
        inputs.append(layer_input)
        both: list[Any] = []
        for direction in range(directions):
            row = layer * directions + direction  # (1.13)
            own = {kind: parameters[name] for kind, name in _names(layer, direction, parameters, variant).items()}
            widths = dict.fromkeys(cell.step_type._fields, hidden) | {"h": width}
            steps = cell.step_type(**{name: np.empty((*x.shape[:2], size)) for name, size in widths.items()})
            state = tuple(states[row] for states in initial.values())
            for t in _time_order(len(x), direction):
                taken, cut = _taken(t, lengths), _cut(t, direction, lengths, reset)
                before = tuple(np.where(cut, 0, one) for one in state)  # (1.15)
                now = cell.step(layer_input[t], before, own, _masks_at(masks, row, t))
                for over_time, at_t in zip(steps, now, strict=True):
                    over_time[t] = np.where(taken, at_t, 0)
                new = (getattr(now, name) for name in initial)
                state = tuple(np.where(taken, after, one) for after, one in zip(new, state, strict=True))  # (1.14)
            for states, one in zip(last.values(), state, strict=True):
                states[row] = one  # (1.13)
            both.append(steps)
        gates.append(tuple(both))
        layer_input = np.concatenate([steps.h for steps in both], axis=2)  # (1.10), (1.12)
    return Forward(
        layer_input,
        last["h"],
        last["c"],
        tuple(gates),
        tuple(inputs),
        initial["h"],
        initial["c"],
        parameters,
        lengths,
        reset,
        variant,
        masks,
        initial,
        last,
    )


def backward(
    forward: Forward,
    d_output: Array | None = None,
    d_h_n: Array | None = None,
    d_c_n: Array | None = None,
    *,
    d_n_n: Array | None = None,
    d_m_n: Array | None = None,
) -> Gradients:
    """Carry the gradient of a loss back through all layers and all of time.

    Parameters
    ----------
    forward : Forward
        What `forward` returned.
    d_output : ndarray, (T, B, D*H), optional
        The loss's gradient by the output; None is zero, here and below. With a projection (T, B, D*P).
    d_h_n, d_c_n : ndarray, (L*D, B, H), optional
        The loss's gradient by the last state. With a projection d_h_n is (L*D, B, P).
    d_n_n, d_m_n : ndarray, (L*D, B, H), optional
        And by the rest of an sLSTM's.

    Returns
    -------
    Gradients
        d_x, d_h_0, d_c_0 and d_parameters, and all initial states' by name.

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
    variant, directions = forward.variant, len(forward.gates[0])
    hidden, axis, width = _sizes(forward.parameters, variant)
    time, batch = forward.output.shape[:2]
    rows = {"L*D": len(forward.h_0), "B": batch}
    d_layer = _checked_or_zero("d_output", d_output, {"T": time, "B": batch, f"D*{axis}": directions * width})
    given = {"d_h_n": d_h_n, "d_c_n": d_c_n, "d_n_n": d_n_n, "d_m_n": d_m_n}
    d_last = _checked_states(given, variant, {**rows, axis: width}, {**rows, "H": hidden})

    cell = _cell_of(variant)
    d_initial = {name: np.empty_like(states) for name, states in forward.initial.items()}
    d_parameters = {name: np.zeros_like(array) for name, array in forward.parameters.items()}
    for layer in reversed(range(len(forward.gates))):
        layer_input = forward.inputs[layer]
        d_layer_input = np.zeros_like(layer_input)
        for direction, steps in enumerate(forward.gates[layer]):
            row = layer * directions + direction
            names = _names(layer, direction, forward.parameters, variant)
            own = {kind: forward.parameters[name] for kind, name in names.items()}
            befores = [
                _before(getattr(steps, name), states[row], direction, forward)
                for name, states in forward.initial.items()
            ]
            d_y = d_layer[:, :, direction * width : (direction + 1) * width]
            d_state = tuple(states[row] for states in d_last.values())
            for t in reversed(_time_order(time, direction)):
                taken, cut = _taken(t, forward.lengths), _cut(t, direction, forward.lengths, forward.reset)
                now = cell.step_type(*(over_time[t] for over_time in steps))
                # A step that is not taken is sent nothing, and so adds nothing.
                d_now = tuple(np.where(taken, one, 0) for one in (d_y[t] + d_state[0], *d_state[1:]))  # (2.1)
                before = tuple(states[t] for states in befores)
                masks = _masks_at(forward.masks, row, t)
                sent = cell.step_backward(d_now, now, layer_input[t], before, own, masks)
                d_before = (np.where(cut, 0, one) for one in sent.d_state)  # (3.9)
                d_state = tuple(
                    np.where(taken, one, kept) for one, kept in zip(d_before, d_state, strict=True)
                )  # (3.9)
                d_layer_input[t] += sent.d_x  # (3.8)
                for kind, d_parameter in sent.d_parameters.items():
                    d_parameters[names[kind]] += d_parameter
            for states, one in zip(d_initial.values(), d_state, strict=True):
                states[row] = one  # (3.6), (3.7)
        d_layer = d_layer_input  # (3.8)
    return Gradients(d_layer, d_initial["h"], d_initial["c"], d_parameters, d_initial)


def _cell_of(variant: Variant) -> Cell:
    """Return the step pair."""
    if variant.cell == "slstm":
        return SLSTM(variant)
    return Plain() if variant == PLAIN else Varied(variant)


def _masks_at(masks: Mapping[str, Array], row: int, t: int) -> dict[str, Array]:
    """Return the masks of one layer and direction at step t; those with no axis of time are for all steps."""
    return {name: mask[row, t] if mask.ndim == 4 else mask[row] for name, mask in masks.items()}


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


def _names(layer: int, direction: int, parameters: Mapping[str, Array], variant: Variant) -> dict[str, str]:
    """Return the names of the parameters of one cell, each by its name within a step and in the variant's order."""
    suffix = f"_l{layer}" + ("_reverse" if direction else "")
    bias, projection = (any(name.startswith(kind) for name in parameters) for kind in ("bias_ih", "weight_hr"))
    return {kind: kind + suffix for kind in variant.shapes(inputs=1, hidden=1, projection=int(projection), bias=bias)}


def _sizes(parameters: Mapping[str, Array], variant: Variant) -> tuple[int, str, int]:
    """Return H, then the name and the size of a hidden state's axis: P with a projection, H without."""
    if "weight_hr_l0" in parameters:
        width, hidden = checked("weight_hr_l0", parameters["weight_hr_l0"], {"P": None, "H": None}).shape
        return hidden, "P", width
    rows = f"{len(variant.gates)}H"
    hidden = checked("weight_hh_l0", parameters["weight_hh_l0"], {rows: None, "H": None}).shape[1]
    return hidden, "H", hidden


def _checked_parameters(
    parameters: Mapping[str, Array], num_layers: int, directions: int, variant: Variant
) -> dict[str, Array]:
    """Return the parameters as a dict, after a look at each name, shape and number type."""
    if num_layers < 1:
        raise ArgumentError(f"num_layers: needed at least 1, given {num_layers}")
    cells = [(layer, direction) for layer in range(num_layers) for direction in range(directions)]
    needed = [name for cell in cells for name in _names(*cell, parameters, variant).values()]
    missing = [name for name in needed if name not in parameters]
    unknown = [name for name in parameters if name not in needed]
    if missing or unknown:
        raise ArgumentError(
            f"parameters: missing [{', '.join(missing)}], unknown [{', '.join(unknown)}] "
            f"for num_layers {num_layers} and {directions} direction(s)"
        )
    hidden, axis, width = _sizes(parameters, variant)
    rows = f"{len(variant.gates)}H"
    checked("weight_hh_l0", parameters["weight_hh_l0"], {rows: len(variant.gates) * hidden, axis: width})
    inputs = checked("weight_ih_l0", parameters["weight_ih_l0"], {rows: None, "I": None}).shape[1]
    axes: dict[str, dict[str, int]] = {}
    for layer, direction in cells:
        of_layer = f"D*{axis}" if layer else "I"
        named = {
            "weight_ih": (rows, of_layer),
            "weight_hh": (rows, axis),
            "bias_ih": (rows,),
            "bias_hh": (rows,),
            "weight_hr": ("P", "H"),
            "weight_ch": (f"{len(variant.peepholes)}H",),
            "gain_ih": (rows,),
            "gain_hh": (rows,),
            "gain_c": ("H",),
            "bias_c": ("H",),
        }
        shapes = variant.shapes(
            inputs=directions * width if layer else inputs, hidden=hidden, projection=width if axis == "P" else 0
        )
        names = _names(layer, direction, parameters, variant)
        axes |= {name: dict(zip(named[kind], shapes[kind], strict=True)) for kind, name in names.items()}
    return {name: checked(name, array, axes[name]) for name, array in parameters.items()}


def _checked_masks(masks: Mapping[str, Array] | None, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Array]:
    """Return the masks as a dict, empty if there are none, after a look at each name, shape and number type."""
    if masks is None:
        return {}
    if masks.keys() != shapes.keys():
        raise ArgumentError(f"masks: needed [{', '.join(shapes)}], given [{', '.join(masks)}]; None is evaluation")
    for name, shape in shapes.items():
        mask = masks[name]
        if mask.dtype != np.float64 or mask.shape != shape:
            raise ShapeError(f"masks: {name} needed float64 and shape {shape}, given {mask.dtype} and {mask.shape}")
    return dict(masks)


def _checked_states(
    given: Mapping[str, Array | None], variant: Variant, of_h: Mapping[str, int], axes: Mapping[str, int]
) -> dict[str, Array]:
    """Return h and c and whatever else the variant's state has, by name; zeros for what is not given."""
    states: dict[str, Array] = {}
    for name, array in given.items():
        state = name.removeprefix("d_")[0]
        if state in variant.states:
            states[state] = _checked_or_zero(name, array, of_h if state == "h" else axes)
        elif array is not None:
            raise ArgumentError(f"{name}: this cell's state is {' and '.join(variant.states)} alone")
    return states


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
