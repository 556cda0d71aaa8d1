"""One layer in one direction over a whole sequence: forward, backward, and the gates and cells that were kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from gatewise import _core
from gatewise.errors import DtypeError, KernelError, ShapeError
from gatewise.kernels.arrays import DTYPES, Array, address, aligned, checked
from gatewise.kernels.besides import Besides, besides_of
from gatewise.kernels.instruction_sets import instruction_set
from gatewise.kernels.sizes import plan
from gatewise.kernels.walk import Walk, walk_of
from gatewise.reference.code import Code, coded
from gatewise.reference.variant import PLAIN, Variant

_forward: dict[int, Callable[..., None]] = {
    2: _core.forward_bfloat16,
    4: _core.forward_float32,
    8: _core.forward_float64,
}
_backward: dict[int, Callable[..., None]] = {
    2: _core.backward_bfloat16,
    4: _core.backward_float32,
    8: _core.backward_float64,
}
_activations: dict[int, Callable[..., None]] = {
    2: _core.activations_bfloat16,
    4: _core.activations_float32,
    8: _core.activations_float64,
}


@dataclass
class Forward:
    """What `forward` computed, and what `backward` needs of it."""

    h: Array  # (T, B, P); what stands past a row's length is zero
    h_n: Array  # (B, P)
    c_n: Array  # (B, H), of an sLSTM c, n and m: (B, 3H)
    inputs: tuple[Array, ...]  # x, h_0, c_0, weight_ih, weight_hh, and weight_hr if h is projected
    sizes: tuple[int, int, int, int, int]  # T, B, I, H, P
    walk: Walk
    code: Code
    besides: Besides
    isa: str  # the instruction set that it ran by, as which the rest is laid out
    gates: Array | None
    cells: Array | None
    unprojected: Array | None
    normalized: Array | None


def _check_kept(result: Forward) -> None:
    """Refuse a result of which the core cannot read what was kept."""
    if result.gates is None:
        raise KernelError("this result kept no gates: run forward with training=True")
    if result.isa != instruction_set():
        raise KernelError(
            f"forward ran by the instruction set {result.isa}, and what it kept would be read by {instruction_set()}: "
            "use one for both"
        )


class Gradients(NamedTuple):
    """The gradients of `forward`'s inputs and parameters; both biases have the same one."""

    d_x: Array  # (T, B, I)
    d_h_0: Array  # (B, P)
    d_c_0: Array  # (B, H)
    d_weight_ih: Array  # (4H, I)
    d_weight_hh: Array  # (4H, P)
    d_bias: Array  # (4H,)
    d_weight_hr: Array | None  # (P, H); None where h is not projected
    d_weight_ch: Array | None  # and where there are none of these, shaped as in `Besides`
    d_gain_ih: Array | None
    d_gain_hh: Array | None
    d_gain_c: Array | None
    d_bias_c: Array | None


def forward(
    x: Array,
    h_0: Array,
    c_0: Array,
    weight_ih: Array,
    weight_hh: Array,
    bias_ih: Array | None = None,
    bias_hh: Array | None = None,
    weight_hr: Array | None = None,
    *,
    reverse: bool = False,
    lengths: Array | None = None,
    reset: Array | None = None,
    threads: int = 1,
    training: bool = True,
    variant: Variant = PLAIN,
    own: Mapping[str, Array] | None = None,
    masks: Mapping[str, Array] | None = None,
) -> Forward:
    """Run one layer in one direction over a whole sequence.

    Parameters
    ----------
    x
        The input, (T, B, I), float32, float64 or `BFLOAT16`; everything else has the same dtype. Numbers of bfloat16
        are summed in float32, and the cell state is float32 from step to step.
    h_0, c_0
        The initial state, (B, P) and (B, H).
    weight_ih, weight_hh
        (4H, I) and (4H, P), rows in the order i, f, g, o.
    bias_ih, bias_hh
        (4H,) each; both or neither.
    weight_hr
        (P, H) with P less than H: h is projected by it. None: P is H.
    reverse
        Go from the last step to the first.
    lengths
        Each row's steps, (B,), int64, from 0 to T; None: T for all.
    reset
        (T, B), bool: where true, no state is handed on from step t - 1 to t. None: nowhere.
    threads
        At most this many threads; the result does not depend on it, bit for bit.
    training
        Keep what `backward` needs.
    variant
        The cell. With coupled gates read 3H for 4H here; of an sLSTM `c_0` and `c_n` are c, n and m, (B, 3H).
    own
        The parameters that the variant has besides torch's, by the names of `Variant.shapes`.
    masks
        Those of this call by the names of `Variant.masks`, each without its first axis, float32, or float64 where the
        numbers are; but for that of weight_hh, which is in the weights. None: evaluation.

    Raises
    ------
    ShapeError, DtypeError
        An array does not fit the others.
    ArgumentError
        Parameters or masks of the variant are missing, or there are others.

    Examples
    --------
    >>> import numpy as np
    >>> zeros = np.zeros
    >>> forward(zeros((3, 1, 2)), zeros((1, 4)), zeros((1, 4)), zeros((16, 2)), zeros((16, 4))).h.shape
    (3, 1, 4)
    """
    if x.ndim != 3 or 0 in x.shape[:2]:
        raise ShapeError(f"x has shape {x.shape}, needed (T, B, I) with at least one step and one row")
    if x.dtype not in DTYPES:
        raise DtypeError(f"x is {x.dtype}, needed float32, float64 or BFLOAT16: convert it")
    if (bias_ih is None) != (bias_hh is None):
        raise ShapeError("one bias is given and the other is None: pass both or neither")
    T, B, I = x.shape
    gates = len(variant.gates)
    H, P, rows = len(weight_hh) // gates, weight_hh.shape[-1], f"{gates}H"
    dtype = x.dtype
    x = np.ascontiguousarray(x)
    if weight_hr is not None:
        weight_hr = checked("weight_hr", weight_hr, dtype, P=P, H=H)
    if (weight_hr is None) != (P == H):
        raise ShapeError(
            f"weight_hh has shape {weight_hh.shape}, needed ({rows}, H) without a weight_hr, and ({rows}, P) with P "
            "less than H with one: pass weights that fit"
        )
    h_0 = checked("h_0", h_0, dtype, B=B, P=P)
    states = len(variant.states) - 1
    c_0 = checked("c_0", c_0, dtype, B=B, **{"H" if states == 1 else "3H": states * H})
    weight_ih = checked("weight_ih", weight_ih, dtype, **{rows: gates * H, "I": I})
    weight_hh = checked("weight_hh", weight_hh, dtype, **{rows: gates * H, "P": P})
    if bias_ih is not None and bias_hh is not None:
        bias_ih = checked("bias_ih", bias_ih, dtype, **{rows: gates * H})
        bias_hh = checked("bias_hh", bias_hh, dtype, **{rows: gates * H})
    walk, (code, _) = walk_of(T, B, reverse, lengths, reset), coded(variant, masks)
    besides = besides_of(variant, own, masks, dtype, bias_ih is not None, T=T, B=B, H=H, P=P)
    sizes = plan(dtype.itemsize, T, B, I, H, P, walk.steps(T, B), training, code)
    h, h_n, c_n = np.zeros((T, B, P), dtype), np.empty((B, P), dtype), np.empty_like(c_0)
    kept: list[Array | None] = [aligned(n, dtype) for n in (sizes.gates, sizes.cells, sizes.unprojected)]
    kept.append(np.empty(sizes.normalized, dtype) if sizes.normalized else None)
    scratch = np.empty(sizes.forward_scratch, dtype)
    _forward[dtype.itemsize](
        walk.common(T, B, I, H, P, threads, code),
        besides.addressed(),
        training,
        *(address(x), address(h_0), address(c_0)),
        *(address(weight_ih), address(weight_hh), address(bias_ih), address(bias_hh), address(weight_hr)),
        *(address(h), address(h_n), address(c_n)),
        *map(address, kept),
        address(scratch),
    )
    inputs = (x, h_0, c_0, weight_ih, weight_hh, *([] if weight_hr is None else [weight_hr]))
    done = h, h_n, c_n, inputs, (T, B, I, H, P), walk, code, besides, instruction_set()
    return Forward(*done, *(kept if training else [None] * 4))


def backward(
    result: Forward,
    d_h: Array | None = None,
    d_h_n: Array | None = None,
    d_c_n: Array | None = None,
    *,
    threads: int = 1,
) -> Gradients:
    """Send gradients back through what `forward` computed.

    Parameters
    ----------
    result
        From `forward` with ``training=True``.
    d_h
        The gradient of ``h``, (T, B, P); None: zero.
    d_h_n, d_c_n
        The gradients of the final state, shaped as it is; None: zero.
    threads
        At most this many threads; the result does not depend on it, bit for bit.

    Raises
    ------
    KernelError
        `result` kept nothing for backward.
    ShapeError, DtypeError
        A gradient does not fit the result.

    Examples
    --------
    >>> import numpy as np
    >>> zeros = np.zeros
    >>> result = forward(zeros((3, 1, 2)), zeros((1, 4)), zeros((1, 4)), zeros((16, 2)), zeros((16, 4)))
    >>> backward(result, d_h=np.ones((3, 1, 4))).d_weight_ih.shape
    (16, 2)
    """
    _check_kept(result)
    x, h_0, c_0, weight_ih, weight_hh, *projection = result.inputs
    (T, B, I, H, P), dtype, code = result.sizes, x.dtype, result.code
    weight_hr = projection[0] if projection else None
    if d_h is not None:
        d_h = checked("d_h", d_h, dtype, T=T, B=B, P=P)
    if d_h_n is not None:
        d_h_n = checked("d_h_n", d_h_n, dtype, B=B, P=P)
    if d_c_n is not None:
        width = c_0.shape[1]
        d_c_n = checked("d_c_n", d_c_n, dtype, B=B, **{"H" if width == H else "3H": width})
    grads = Gradients(
        np.zeros_like(x),
        np.empty_like(h_0),
        np.empty_like(c_0),
        np.empty_like(weight_ih),
        np.empty_like(weight_hh),
        np.empty(len(weight_hh), dtype),
        *(None if array is None else np.empty_like(array) for array in (weight_hr, *result.besides[:5])),
    )
    sizes = plan(dtype.itemsize, T, B, I, H, P, result.walk.steps(T, B), True, code)
    scratch = np.empty(sizes.backward_scratch, dtype)
    kept = (result.cells, result.unprojected, result.normalized, result.gates)
    _backward[dtype.itemsize](
        result.walk.common(T, B, I, H, P, threads, code),
        result.besides.addressed(),
        *(address(x), address(h_0), address(weight_ih), address(weight_hh), address(weight_hr)),
        *(address(result.h), *map(address, kept)),
        *(address(d_h), address(d_h_n), address(d_c_n)),
        *(address(array) for array in grads),
        address(scratch),
    )
    return grads


class Activations(NamedTuple):
    """The gates, the candidate and the cells of all steps, each (T, B, H) and after its activation."""

    i: Array
    f: Array
    g: Array
    o: Array
    c: Array


def activations(result: Forward, *, threads: int = 1) -> Activations:
    """Read the gates and the cells out of what a training call has kept.

    Parameters
    ----------
    result
        From `forward` with ``training=True``, before its `backward`.
    threads
        At most this many threads.

    Returns
    -------
    Activations
        Of the input's dtype (of bfloat16: float32); past a row's length they are not a number.

    Raises
    ------
    KernelError
        `result` kept nothing.

    Examples
    --------
    With all weights zero each gate is half open, and the candidate is zero:

    >>> import numpy as np
    >>> zeros = np.zeros
    >>> result = forward(zeros((3, 1, 2)), zeros((1, 4)), zeros((1, 4)), zeros((16, 2)), zeros((16, 4)))
    >>> activations(result).f[0], activations(result).g[0]
    (array([[0.5, 0.5, 0.5, 0.5]]), array([[0., 0., 0., 0.]]))
    """
    _check_kept(result)
    (T, B, I, H, P), x = result.sizes, result.inputs[0]
    dtype = np.float64 if x.dtype == np.float64 else np.float32
    found = Activations(*(np.full((T, B, H), np.nan, dtype) for _ in Activations._fields))
    _activations[x.dtype.itemsize](
        result.walk.common(T, B, I, H, P, threads, result.code),
        *(address(result.gates), address(result.cells)),
        *(address(array) for array in found),
    )
    return found
