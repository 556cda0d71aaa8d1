"""The compiled core from NumPy: checks, allocates, calls. The only module that imports the core.

torch's tensors reach the same kernels by the operators of csrc/operators.cpp, which check and allocate in torch's own
terms.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from gatewise import _core
from gatewise.errors import ArgumentError, DtypeError, KernelError, ShapeError
from gatewise.reference.code import PLAIN_CODE, Code, coded
from gatewise.reference.variant import PLAIN, Variant

Array = npt.NDArray[Any]

ISA_VARIABLE = "GATEWISE_ISA"

TORCH_VERSION: str = _core.torch_version
"""The torch that the operators were compiled against."""

BFLOAT16 = np.dtype([("bfloat16", "<u2")])
"""NumPy's view of bfloat16, which it has no numbers of: 16 bits by a name that no arithmetic takes for numbers."""

_DTYPES = (np.dtype(np.float32), np.dtype(np.float64), BFLOAT16)
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


def available() -> tuple[str, ...]:
    """Name the instruction sets that this machine has code and registers for, the best first.

    Examples
    --------
    >>> "baseline" in available()
    True
    """
    return tuple(name for name, supported in _core.instruction_sets() if supported)


def fork_join(threads: int, repeats: int = 1000) -> float:
    """Time an empty parallel region: what a call that is shared among threads costs at least.

    Parameters
    ----------
    threads
        How many threads begin and end together.
    repeats
        How often.

    Returns
    -------
    float
        Seconds of one, on average.

    Examples
    --------
    >>> 0 < fork_join(2) < 1
    True
    """
    if threads < 1 or repeats < 1:
        raise ArgumentError(f"threads is {threads} and repeats {repeats}, needed at least 1 of each")
    return _core.fork_join(threads, repeats)


def instruction_set() -> str:
    """Name the instruction set in use.

    Examples
    --------
    >>> instruction_set() in available()
    True
    """
    return str(_core.instruction_set())


def use(name: str) -> None:
    """Choose the instruction set for every later call of this process.

    Setting the environment variable ``GATEWISE_ISA`` before gatewise is imported does the same. What was saved for a
    backward pass under one instruction set must not meet another: choose before the forward pass.

    Parameters
    ----------
    name
        One of `available`.

    Raises
    ------
    KernelError
        There is no such instruction set, or this machine lacks it.

    Examples
    --------
    >>> use(available()[0])
    """
    known = [known for known, _ in _core.instruction_sets()]
    if name not in known:
        raise KernelError(f"instruction set {name!r} is unknown: this build has {', '.join(known)}")
    if name not in available():
        raise KernelError(f"this machine lacks {name!r}: it has {', '.join(available())}")
    plan.cache_clear()
    _core.use(name)


def forked() -> bool:
    """Whether this process is the child of a fork, where every call runs on one thread.

    Such a child has none of its parent's threads, and OpenMP would wait for them for ever. The results are the same.

    Examples
    --------
    >>> forked()
    False
    """
    return _core.forked()


@contextmanager
def using(name: str) -> Iterator[None]:
    """Use an instruction set within a `with` block.

    Examples
    --------
    >>> with using("baseline"):
    ...     instruction_set()
    'baseline'
    """
    before = instruction_set()
    use(name)
    try:
        yield
    finally:
        use(before)


class Plan(NamedTuple):
    """How many numbers of the call's dtype the arrays take that the caller allocates and the core lays out."""

    gates: int
    cells: int
    unprojected: int
    normalized: int
    forward_scratch: int
    backward_scratch: int


@lru_cache(maxsize=1024)
def plan(
    itemsize: int, T: int, B: int, I: int, H: int, P: int, steps: int, training: bool, code: Code = PLAIN_CODE
) -> Plan:
    """Tell how much to allocate for a call of these sizes.

    Parameters
    ----------
    itemsize
        Bytes of a number: 2 for bfloat16, 4 for float32, 8 for float64.
    T, B, I, H, P
        Steps, batch rows, inputs, hidden units, numbers of h.
    steps
        Steps of all rows together: T·B where all are equally long.
    training
        Whether the forward call keeps what backward needs.
    code
        The cell.

    Examples
    --------
    >>> plan(4, T=10, B=8, I=3, H=5, P=5, steps=80, training=True).cells >= 11 * 8 * 5
    True
    """
    return Plan(*_core.plan(itemsize, T, B, I, H, P, steps, training, *code))


class Kept(NamedTuple):
    """How many numbers a training call keeps for each step of each row."""

    gates: int
    cells: int
    unprojected: int
    normalized: int


def kept_numbers(itemsize: int, H: int, P: int, code: Code = PLAIN_CODE) -> Kept:
    """Tell what a training call of any length keeps: for each step of each row, and the cells once more for each row.

    Parameters
    ----------
    itemsize
        Bytes of a number: 2 for bfloat16, 4 for float32, 8 for float64.
    H, P
        Hidden units, and numbers of h: H, or less where it is projected.
    code
        The cell.

    Examples
    --------
    >>> kept, whole = kept_numbers(4, H=5, P=2), plan(4, T=10, B=8, I=3, H=5, P=2, steps=80, training=True)
    >>> (10 * 8 * kept.gates, 11 * 8 * kept.cells, 10 * 8 * kept.unprojected) == whole[:3]
    True
    """
    smallest = plan(itemsize, 1, 1, 1, H, P, 1, True, code)
    return Kept(smallest.gates, smallest.cells // 2, smallest.unprojected, smallest.normalized)


class Walk(NamedTuple):
    """Which steps each row takes, in the core's own terms: csrc/kernels.hpp."""

    reverse: bool
    length: Array | None  # (B) int64, descending
    order: Array | None  # (B) int64
    active: Array | None  # (T) int64
    before: Array | None  # (T + 1) int64
    reset: Array | None  # (T, B) bool

    def common(self, T: int, B: int, I: int, H: int, P: int, threads: int, code: Code) -> _core.Common:
        """Say it to the core, with the sizes and the cell."""
        tables = (_address(a) for a in self[1:])
        return _core.Common(T, B, I, H, P, self.steps(T, B), threads, self.reverse, *tables, *code)

    def steps(self, T: int, B: int) -> int:
        """Count the steps of all rows."""
        return T * B if self.before is None else int(self.before[-1])


def _walk(T: int, B: int, reverse: bool, lengths: Array | None, reset: Array | None) -> Walk:
    if reset is not None:
        reset = _checked("reset", reset, np.bool_, T=T, B=B)
    if lengths is None:
        return Walk(reverse, None, None, None, None, reset)
    lengths = _checked("lengths", lengths, np.int64, B=B)
    if lengths.min() < 0 or lengths.max() > T:
        raise ShapeError(f"lengths go from {lengths.min()} to {lengths.max()}, needed from 0 to T = {T}")
    order = np.argsort(-lengths, kind="stable")
    active = (lengths[:, np.newaxis] > np.arange(T)).sum(axis=0, dtype=np.int64)
    before = np.concatenate([[0], active.cumsum()]).astype(np.int64)
    return Walk(reverse, lengths[order], order, active, before, reset)


class Besides(NamedTuple):
    """What a changed cell computes with besides, in the core's own order: csrc/kernels.hpp."""

    weight_ch: Array | None = None  # (3H), coupled (2H)
    gain_ih: Array | None = None  # (4H), coupled (3H), as gain_hh
    gain_hh: Array | None = None
    gain_c: Array | None = None  # (H), as bias_c
    bias_c: Array | None = None
    zoneout_h: Array | None = None  # (T, B, P)
    zoneout_c: Array | None = None  # (T, B, H)
    candidate: Array | None = None  # (T, B, H)
    hidden: Array | None = None  # (B, P)

    def addressed(self) -> _core.Besides:
        """Say it to the core."""
        return _core.Besides(*map(_address, self))


def _besides(
    variant: Variant,
    own: Mapping[str, Array] | None,
    masks: Mapping[str, Array] | None,
    dtype: np.dtype[Any],
    bias: bool,
    **sizes: int,
) -> Besides:
    """Check what a changed cell computes with besides."""
    own = own or {}
    T, B, H, P = (sizes[axis] for axis in "TBHP")
    needed = {
        name: shape for name, shape in variant.shapes(inputs=1, hidden=H, bias=bias).items() if name in Besides._fields
    }
    if own.keys() != needed.keys():
        raise ArgumentError(f"own has [{', '.join(own)}], needed [{', '.join(needed)}]: give the variant's parameters")
    found = {}
    for name, shape in needed.items():
        axis = "H" if shape == (H,) else f"{shape[0] // H}H"
        found[name] = _checked(name, own[name], dtype, **{axis: shape[0]})
    if masks is not None:
        shapes = variant.masks(cells=1, time=T, batch=B, hidden=H, width=P)
        shapes.pop("weight_hh", None)  # which weight_hh has in it
        if masks.keys() != shapes.keys():
            raise ArgumentError(
                f"masks are [{', '.join(masks)}], needed [{', '.join(shapes)}]: give these, or None in evaluation"
            )
        sums = np.dtype(np.float64 if dtype == np.float64 else np.float32)
        for name in shapes:
            width = {"P": P} if name in ("zoneout_h", "hidden") else {"H": H}
            rows = {"B": B} if name == "hidden" else {"T": T, "B": B}
            found[name] = _checked(name, masks[name], sums, **rows, **width)
    return Besides(**found)


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
    gates: Array | None
    cells: Array | None
    unprojected: Array | None
    normalized: Array | None


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


def _checked(name: str, array: Array, dtype: npt.DTypeLike, **axes: int) -> Array:
    if array.dtype != dtype:
        needed = "BFLOAT16" if dtype == BFLOAT16 else np.dtype(dtype)
        raise DtypeError(f"{name} is {array.dtype}, needed {needed}: convert it")
    if array.shape != tuple(axes.values()):
        needed = f"({', '.join(axes)}) = {tuple(axes.values())}"
        raise ShapeError(f"{name} has shape {array.shape}, needed {needed}: pass an array of that shape")
    return np.ascontiguousarray(array)


def _address(array: Array | None) -> int:
    return 0 if array is None else int(array.ctypes.data)


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
    if x.dtype not in _DTYPES:
        raise DtypeError(f"x is {x.dtype}, needed float32, float64 or BFLOAT16: convert it")
    if (bias_ih is None) != (bias_hh is None):
        raise ShapeError("one bias is given and the other is None: pass both or neither")
    T, B, I = x.shape
    gates = len(variant.gates)
    H, P, rows = len(weight_hh) // gates, weight_hh.shape[-1], f"{gates}H"
    dtype = x.dtype
    x = np.ascontiguousarray(x)
    if weight_hr is not None:
        weight_hr = _checked("weight_hr", weight_hr, dtype, P=P, H=H)
    if (weight_hr is None) != (P == H):
        raise ShapeError(
            f"weight_hh has shape {weight_hh.shape}, needed ({rows}, H) without a weight_hr, and ({rows}, P) with P "
            "less than H with one: pass weights that fit"
        )
    h_0 = _checked("h_0", h_0, dtype, B=B, P=P)
    states = len(variant.states) - 1
    c_0 = _checked("c_0", c_0, dtype, B=B, **{"H" if states == 1 else "3H": states * H})
    weight_ih = _checked("weight_ih", weight_ih, dtype, **{rows: gates * H, "I": I})
    weight_hh = _checked("weight_hh", weight_hh, dtype, **{rows: gates * H, "P": P})
    if bias_ih is not None and bias_hh is not None:
        bias_ih = _checked("bias_ih", bias_ih, dtype, **{rows: gates * H})
        bias_hh = _checked("bias_hh", bias_hh, dtype, **{rows: gates * H})
    walk, (code, _) = _walk(T, B, reverse, lengths, reset), coded(variant, masks)
    besides = _besides(variant, own, masks, dtype, bias_ih is not None, T=T, B=B, H=H, P=P)
    sizes = plan(dtype.itemsize, T, B, I, H, P, walk.steps(T, B), training, code)
    h, h_n, c_n = np.zeros((T, B, P), dtype), np.empty((B, P), dtype), np.empty_like(c_0)
    kept: list[Array | None] = [np.empty(n, dtype) for n in (sizes.gates, sizes.cells, sizes.unprojected)]
    kept.append(np.empty(sizes.normalized, dtype) if sizes.normalized else None)
    scratch = np.empty(sizes.forward_scratch, dtype)
    _forward[dtype.itemsize](
        walk.common(T, B, I, H, P, threads, code),
        besides.addressed(),
        training,
        *(_address(x), _address(h_0), _address(c_0)),
        *(_address(weight_ih), _address(weight_hh), _address(bias_ih), _address(bias_hh), _address(weight_hr)),
        *(_address(h), _address(h_n), _address(c_n)),
        *map(_address, kept),
        _address(scratch),
    )
    inputs = (x, h_0, c_0, weight_ih, weight_hh, *([] if weight_hr is None else [weight_hr]))
    return Forward(h, h_n, c_n, inputs, (T, B, I, H, P), walk, code, besides, *(kept if training else [None] * 4))


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
    if result.gates is None or result.cells is None:
        raise KernelError("this result kept no gates: run forward with training=True")
    x, h_0, c_0, weight_ih, weight_hh, *projection = result.inputs
    (T, B, I, H, P), dtype, code = result.sizes, x.dtype, result.code
    weight_hr = projection[0] if projection else None
    if d_h is not None:
        d_h = _checked("d_h", d_h, dtype, T=T, B=B, P=P)
    if d_h_n is not None:
        d_h_n = _checked("d_h_n", d_h_n, dtype, B=B, P=P)
    if d_c_n is not None:
        width = c_0.shape[1]
        d_c_n = _checked("d_c_n", d_c_n, dtype, B=B, **{"H" if width == H else "3H": width})
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
        *(_address(x), _address(h_0), _address(weight_ih), _address(weight_hh), _address(weight_hr)),
        *(_address(result.h), *map(_address, kept)),
        *(_address(d_h), _address(d_h_n), _address(d_c_n)),
        *(_address(array) for array in grads),
        _address(scratch),
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
    if result.gates is None or result.cells is None:
        raise KernelError("this result kept no gates: run forward with training=True")
    (T, B, I, H, P), x = result.sizes, result.inputs[0]
    dtype = np.float64 if x.dtype == np.float64 else np.float32
    found = Activations(*(np.full((T, B, H), np.nan, dtype) for _ in Activations._fields))
    _activations[x.dtype.itemsize](
        result.walk.common(T, B, I, H, P, threads, result.code),
        *(_address(result.gates), _address(result.cells)),
        *(_address(array) for array in found),
    )
    return found


def sigmoid(x: Array) -> Array:
    """Apply the kernels' own sigmoid to a float32 or float64 array, at most 2.5 ulp off.

    Examples
    --------
    >>> import numpy as np
    >>> float(sigmoid(np.zeros(1))[0])
    0.5
    """
    return _elementwise("sigmoid", x)


def tanh(x: Array) -> Array:
    """Apply the kernels' own tanh to a float32 or float64 array, at most 2.5 ulp off.

    Examples
    --------
    >>> import numpy as np
    >>> float(tanh(np.array([1e-300]))[0])
    1e-300
    """
    return _elementwise("tanh", x)


def exp_of_negative(x: Array) -> Array:
    """Apply the kernels' own exponential to float32 or float64 numbers of at most 0, at most 1.5 ulp off.

    Examples
    --------
    >>> import numpy as np
    >>> float(exp_of_negative(np.array([-1000.0]))[0])
    0.0
    """
    return _elementwise("exp_of_negative", x)


def log_sigmoid(x: Array) -> Array:
    """Apply the kernels' own logarithm of the sigmoid to a float32 or float64 array, at most 4 ulp off.

    Examples
    --------
    >>> import numpy as np
    >>> float(log_sigmoid(np.array([-1000.0]))[0])
    -1000.0
    """
    return _elementwise("log_sigmoid", x)


def _elementwise(name: str, x: Array) -> Array:
    if x.dtype not in (np.float32, np.float64):
        raise DtypeError(f"x is {x.dtype}, needed float32 or float64: convert it")
    x = np.ascontiguousarray(x)
    y = np.empty_like(x)
    getattr(_core, f"{name}_{x.dtype}")(_address(x), _address(y), x.size)
    return y


def to_bfloat16(x: Array) -> Array:
    """Round a float32 array to `BFLOAT16`: to the nearest, of two equally near to the one that ends in a zero bit.

    Examples
    --------
    >>> import numpy as np
    >>> from_bfloat16(to_bfloat16(np.float32([1, 1.003, 1.004, np.inf])))
    array([1.       , 1.       , 1.0078125,       inf], dtype=float32)
    """
    if x.dtype != np.float32:
        raise DtypeError(f"x is {x.dtype}, needed float32: convert it")
    x = np.ascontiguousarray(x)
    y = np.empty(x.shape, BFLOAT16)
    _core.to_bfloat16(_address(x), _address(y), x.size)
    return y


def from_bfloat16(x: Array) -> Array:
    """Widen a `BFLOAT16` array to float32, which has all of its numbers.

    Examples
    --------
    >>> import numpy as np
    >>> from_bfloat16(np.zeros(2, BFLOAT16))
    array([0., 0.], dtype=float32)
    """
    if x.dtype != BFLOAT16:
        raise DtypeError(f"x is {x.dtype}, needed BFLOAT16: convert it")
    x = np.ascontiguousarray(x)
    y = np.empty(x.shape, np.float32)
    _core.from_bfloat16(_address(x), _address(y), x.size)
    return y


def multiplies_bfloat16() -> bool:
    """Whether the instruction set in use has a dot product of bfloat16, or converts its numbers to float32.

    Examples
    --------
    >>> with using("baseline"):
    ...     multiplies_bfloat16()
    False
    """
    return instruction_set() == "avx512bf16"


if forced := os.environ.get(ISA_VARIABLE):
    use(forced)
