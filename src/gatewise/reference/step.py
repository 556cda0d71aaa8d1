"""One step of the LSTM cell and its gradient, for a batch.

A row of each array is one sequence of the batch, so the product W x of docs/equations.md is
`x @ weight.T` here. The numbers in the comments are the equations there.
"""

from collections.abc import Mapping
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from gatewise.errors import DtypeError, ShapeError

Array: TypeAlias = NDArray[np.float64]


class Step(NamedTuple):
    """The gates, the candidate and the new state of a step, all after their activation.

    Attributes
    ----------
    i, f, g, o : ndarray, (B, H)
        Input gate, forget gate, candidate, output gate.
    c, h : ndarray, (B, H)
        Cell state and hidden state after the step; with a projection h is (B, P).

    A whole sequence is a `Step` too, with a time axis in front: (T, B, H).
    """

    i: Array
    f: Array
    g: Array
    o: Array
    c: Array
    h: Array


def checked(name: str, array: Array, axes: Mapping[str, int | None]) -> Array:
    """Return `array` if it is float64 and has the axes asked for, or say in one line what is wrong.

    Parameters
    ----------
    name : str
        What the message calls the array.
    array : array_like
        What a user gave.
    axes : mapping of str to int or None
        Each axis by its name with the size it needs; None takes any size.

    Returns
    -------
    ndarray
        The array, not copied if it was one.

    Raises
    ------
    DtypeError
        If the numbers are not float64.
    ShapeError
        If the number of axes or the size of one is wrong.

    Examples
    --------
    >>> checked("h_0", np.zeros((2, 5)), {"B": 2, "H": 3})
    Traceback (most recent call last):
    gatewise.errors.ShapeError: h_0: needed (B, H) = (2, 3), given (2, 5)
    """
    array = np.asarray(array)
    if array.dtype != np.float64:
        raise DtypeError(f"{name}: needed float64, given {array.dtype}; convert with .astype('float64')")
    fits = array.ndim == len(axes) and all(
        size is None or size == given for size, given in zip(axes.values(), array.shape, strict=True)
    )
    if not fits:
        sizes = ", ".join("any" if size is None else str(size) for size in axes.values())
        raise ShapeError(f"{name}: needed ({', '.join(axes)}) = ({sizes}), given {array.shape}")
    return array


def sigmoid(a: Array) -> Array:
    """Compute 1 / (1 + exp(-a)) without overflow and with full relative accuracy on both sides.

    Parameters
    ----------
    a : ndarray, any shape
        The pre-activation.

    Returns
    -------
    ndarray, the shape of `a`

    Notes
    -----
    exp is taken of -|a| only, so it stays in (0, 1]. See "The numerics of σ and tanh" in
    docs/equations.md.

    Examples
    --------
    >>> print(sigmoid(np.array([-1000.0, 0.0, 1000.0])))
    [0.  0.5 1. ]
    """
    q = np.exp(-np.abs(a))  # (5.1)
    return np.where(a >= 0, 1.0, q) / (1.0 + q)  # (5.1)


def step(
    x: Array,
    h_prev: Array,
    c_prev: Array,
    weight_ih: Array,
    weight_hh: Array,
    bias_ih: Array | None = None,
    bias_hh: Array | None = None,
    weight_hr: Array | None = None,
) -> Step:
    """Take one step of the LSTM: equations (1.1) to (1.7), or to (1.6) and then (1.16), (1.17) with a projection.

    Parameters
    ----------
    x : ndarray, (B, I)
        The input of this step.
    h_prev, c_prev : ndarray, (B, H)
        The hidden state and the cell state before this step; with a projection h_prev is (B, P).
    weight_ih : ndarray, (4H, I)
        The input's weights, the rows of i, f, g and o one block below the other.
    weight_hh : ndarray, (4H, H)
        The hidden state's weights, stacked likewise; with a projection (4H, P).
    bias_ih, bias_hh : ndarray, (4H,), optional
        The two biases, stacked likewise; None is zero.
    weight_hr : ndarray, (P, H), optional
        The projection's weights; None is no projection.

    Returns
    -------
    Step
        i, f, g, o, c and h, each (B, H); with a projection h is (B, P).

    Raises
    ------
    ShapeError, DtypeError
        If an array does not fit the others or is not float64.

    References
    ----------
    Hochreiter and Schmidhuber, "Long short-term memory", 1997; the forget gate is from Gers,
    Schmidhuber and Cummins, "Learning to forget: continual prediction with LSTM", 2000; the
    projection from Sak, Senior and Beaufays, "Long short-term memory recurrent neural network
    architectures for large scale acoustic modeling", 2014.

    Examples
    --------
    With all weights zero each gate is half open: half of the cell state stays, nothing enters.

    >>> x, state = np.ones((1, 3)), np.ones((1, 2))
    >>> now = step(x, state, state, np.zeros((8, 3)), np.zeros((8, 2)))
    >>> print(now.f, now.c)
    [[0.5 0.5]] [[0.5 0.5]]
    """
    if weight_hr is None:
        hidden = checked("weight_hh", weight_hh, {"4H": None, "H": None}).shape[1]
        width = {"H": hidden}
    else:
        weight_hr = checked("weight_hr", weight_hr, {"P": None, "H": None})
        hidden = weight_hr.shape[1]
        width = {"P": weight_hr.shape[0]}
    weight_hh = checked("weight_hh", weight_hh, {"4H": 4 * hidden, **width})
    weight_ih = checked("weight_ih", weight_ih, {"4H": 4 * hidden, "I": None})
    x = checked("x", x, {"B": None, "I": weight_ih.shape[1]})
    h_prev = checked("h_prev", h_prev, {"B": x.shape[0], **width})
    c_prev = checked("c_prev", c_prev, {"B": x.shape[0], "H": hidden})

    a = x @ weight_ih.T + h_prev @ weight_hh.T  # (1.1)
    if bias_ih is not None:
        a += checked("bias_ih", bias_ih, {"4H": 4 * hidden})  # (1.1)
    if bias_hh is not None:
        a += checked("bias_hh", bias_hh, {"4H": 4 * hidden})  # (1.1)
    a_i, a_f, a_g, a_o = np.split(a, 4, axis=1)  # (1.9)
    i = sigmoid(a_i)  # (1.2)
    f = sigmoid(a_f)  # (1.3)
    g = np.tanh(a_g)  # (1.4)
    o = sigmoid(a_o)  # (1.5)
    c = f * c_prev + i * g  # (1.6)
    m = o * np.tanh(c)  # (1.7), (1.16)
    h = m if weight_hr is None else m @ weight_hr.T  # (1.17)
    return Step(i, f, g, o, c, h)


def step_backward(
    d_h: Array,
    d_c: Array,
    step: Step,
    c_prev: Array,
    weight_hr: Array | None = None,
) -> tuple[Array, Array]:
    """Carry the gradient back through one step: equations (2.2) to (2.12), after (2.13) with a projection.

    Parameters
    ----------
    d_h : ndarray, (B, H)
        The whole gradient of h_t: from the output and from step t+1, equation (2.1). With a projection it is (B, P).
    d_c : ndarray, (B, H)
        The gradient that reaches c_t from step t+1. What comes through h_t is added here.
    step : Step
        What `step` returned.
    c_prev : ndarray, (B, H)
        The cell state before the step.
    weight_hr : ndarray, (P, H), optional
        The projection's weights, as `step` was given them.

    Returns
    -------
    d_a : ndarray, (B, 4H)
        The gradient of the pre-activations, in the order i, f, g, o. Those of the weights, of x
        and of h_prev are products with it, but for that of weight_hr, a product with d_h.
    d_c_prev : ndarray, (B, H)
        The gradient of the cell state before the step.

    Raises
    ------
    ShapeError, DtypeError
        If an array does not fit the others or is not float64.

    Examples
    --------
    >>> x, state = np.ones((1, 3)), np.ones((1, 1))
    >>> now = step(x, state, state, np.zeros((4, 3)), np.zeros((4, 1)))
    >>> d_a, d_c_prev = step_backward(0 * state, state, now, state)
    >>> print(d_a, d_c_prev)
    [[0.   0.25 0.5  0.  ]] [[0.5]]
    """
    c_prev = checked("c_prev", c_prev, {"B": None, "H": None})
    state = {"B": c_prev.shape[0], "H": c_prev.shape[1]}
    shown = state
    if weight_hr is not None:
        weight_hr = checked("weight_hr", weight_hr, {"P": None, "H": state["H"]})
        shown = {"B": state["B"], "P": weight_hr.shape[0]}
    d_h = checked("d_h", d_h, shown)
    d_c = checked("d_c", d_c, state)
    checked("step.h", step.h, shown)
    i, f, g, o, c = (checked(f"step.{name}", getattr(step, name), state) for name in Step._fields[:5])

    d_m = d_h if weight_hr is None else d_h @ weight_hr  # (2.13)
    tanh_c = np.tanh(c)
    d_o = d_m * tanh_c  # (2.2)
    d_c = d_c + d_m * o * (1 - tanh_c**2)  # (2.3)
    d_i = d_c * g  # (2.4)
    d_f = d_c * c_prev  # (2.5)
    d_g = d_c * i  # (2.6)
    d_c_prev = d_c * f  # (2.7)
    d_a_i = d_i * i * (1 - i)  # (2.8)
    d_a_f = d_f * f * (1 - f)  # (2.9)
    d_a_g = d_g * (1 - g**2)  # (2.10)
    d_a_o = d_o * o * (1 - o)  # (2.11)
    return np.concatenate([d_a_i, d_a_f, d_a_g, d_a_o], axis=1), d_c_prev  # (2.12)
