"""The kernels against the reference: every output and every gradient, on every instruction set of the machine."""

import itertools
import os
import subprocess
import sys
from functools import lru_cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatewise import kernels, reference
from gatewise.errors import DtypeError, KernelError, ShapeError

ISAS = kernels.available()
BFLOAT16 = kernels.BFLOAT16
DTYPES = [np.float32, np.float64, BFLOAT16]
NAMES = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0", "weight_hr_l0")

# (T, B, I, H), the awkward ones first: one of everything; fewer, as many and more units than any vector's lanes; rows
# around the tiles' heights; depths around the blocks of K; more rows and steps than a chunk takes at once; weights from
# beyond the second-level cache, and rows that are two tiles.
SIZES = [
    (1, 1, 1, 1),
    (2, 1, 1, 3),
    (1, 5, 3, 4),
    (3, 2, 2, 5),
    (3, 3, 2, 7),
    (2, 4, 1, 8),
    (4, 5, 4, 9),
    (2, 6, 9, 15),
    (3, 7, 16, 16),
    (3, 8, 17, 17),
    (2, 3, 5, 31),
    (2, 9, 8, 33),
    (5, 13, 28, 100),
    (2, 2, 300, 12),
    (2, 3, 10, 270),
    (300, 2, 3, 5),
    (3, 210, 3, 5),
    (40, 4, 32, 32),
    (230, 33, 3, 65),  # gates enough to go past the caches
    (2, 8, 3, 520),
]


# (T, B, I, H, P) where h is projected: one number, fewer, as many and more than a vector's lanes, more than a panel's,
# depths around the blocks of K.
PROJECTED = [
    (1, 1, 1, 2, 1),
    (3, 2, 2, 5, 3),
    (2, 7, 4, 9, 8),
    (3, 5, 3, 40, 17),
    (2, 3, 5, 33, 32),
    (2, 2, 3, 300, 1),
    (2, 3, 4, 280, 270),
    (40, 9, 8, 24, 10),
    (3, 210, 3, 7, 4),
]


def as_dtype(x, dtype):
    """Round float64 numbers."""
    return kernels.to_bfloat16(x.astype(np.float32)) if dtype == BFLOAT16 else x.astype(dtype)


def widened(x):
    """Numbers that NumPy can compute with."""
    return kernels.from_bfloat16(x) if x.dtype == BFLOAT16 else x


def case(T, B, I, H, P=None, bias=True, dtype=np.float64, seed=0):
    """Draw inputs, parameters and output gradients; with P, h is projected to that width."""
    projected, P = P is not None, P or H
    rng = np.random.default_rng(seed)
    draw = lambda *shape: as_dtype(rng.uniform(-1, 1, shape), dtype)  # noqa: E731
    weights = lambda *shape: as_dtype(rng.uniform(-1, 1, shape) / np.sqrt(H), dtype)  # noqa: E731
    inputs = {"x": draw(T, B, I), "h_0": draw(B, P), "c_0": draw(B, H)}
    parameters = {
        "weight_ih_l0": weights(4 * H, I),
        "weight_hh_l0": weights(4 * H, P),
    }
    if bias:
        parameters |= {"bias_ih_l0": draw(4 * H), "bias_hh_l0": draw(4 * H)}
    gradients = {"d_h": draw(T, B, P), "d_h_n": draw(B, P), "d_c_n": draw(B, H)}
    if projected:
        parameters["weight_hr_l0"] = weights(P, H)
    return inputs, parameters, gradients


def run(inputs, parameters, gradients, *, threads=1, **walk):
    """Run the kernels; return every output and gradient by name."""
    result = kernels.forward(*inputs.values(), *(parameters.get(name) for name in NAMES), threads=threads, **walk)
    outputs = {"h": result.h, "h_n": result.h_n, "c_n": result.c_n}
    T, B = inputs["x"].shape[:2]
    past = np.arange(T)[:, None] >= walk.get("lengths", np.full(B, T))
    for name, steps in kernels.activations(result, threads=threads)._asdict().items():
        assert np.isnan(steps[past]).all(), name
        outputs[f"{name} of all steps"] = np.where(past[:, :, None], 0, steps)
    found = kernels.backward(result, **gradients, threads=threads)._asdict()
    return outputs | {name: gradient for name, gradient in found.items() if gradient is not None}


def run_reference(inputs, parameters, gradients, *, reverse=False, lengths=None, reset=None):
    """Run the reference in float64 on the same numbers; in reverse as the second of two directions."""
    wide = lambda arrays: {name: widened(a).astype(np.float64) for name, a in arrays.items()}  # noqa: E731
    inputs, parameters, gradients = wide(inputs), wide(parameters), wide(gradients)
    P, H, direction = inputs["h_0"].shape[1], inputs["c_0"].shape[1], int(reverse)
    suffix = "_reverse" if reverse else ""
    if reverse:
        parameters |= {f"{name}{suffix}": weight for name, weight in parameters.items()}

    def of_direction(array, axis):
        if array is None or not reverse:
            return array if array is None or axis else array[None]
        return np.stack([np.zeros_like(array), array]) if axis == 0 else np.concatenate([0 * array, array], axis)

    forward = reference.forward(
        inputs["x"],
        parameters,
        of_direction(inputs["h_0"], 0),
        of_direction(inputs["c_0"], 0),
        bidirectional=reverse,
        lengths=lengths,
        reset=reset,
    )
    back = reference.backward(
        forward,
        d_output=of_direction(gradients.get("d_h"), 2),
        d_h_n=of_direction(gradients.get("d_h_n"), 0),
        d_c_n=of_direction(gradients.get("d_c_n"), 0),
    )
    found = {
        "h": forward.output[:, :, direction * P :],
        "h_n": forward.h_n[direction],
        "c_n": forward.c_n[direction],
        "d_x": back.d_x,
        "d_h_0": back.d_h_0[direction],
        "d_c_0": back.d_c_0[direction],
        "d_weight_ih": back.d_parameters[f"weight_ih_l0{suffix}"],
        "d_weight_hh": back.d_parameters[f"weight_hh_l0{suffix}"],
        "d_bias": back.d_parameters.get(f"bias_hh_l0{suffix}", np.zeros(4 * H)),
    }
    gates = forward.gates[0][direction]
    found |= {f"{name} of all steps": getattr(gates, name) for name in "ifgoc"}
    if P != H:
        found["d_weight_hr"] = back.d_parameters[f"weight_hr_l0{suffix}"]
    return found


def assert_close(got, expected, *, skip=()):
    """Compare relative to each array's largest value.

    A number here is a sum of at most a few thousand products of numbers around 1, carried through at most 300
    contracting steps: its rounding error is some tens of the type's epsilon. 200 leaves room and still sees a wrong
    digit in the sixth (float32) or fourteenth (float64) place.

    Sums of bfloat16 are float32, so that only what is stored counts, each number off by half of the type's epsilon of
    2^-7 at most: h on its way to the next step, what is kept of the gates, each d_a, and the result. These errors point
    anywhere, and three epsilons hold what they come to; five where h is projected to a single number, which may be the
    difference of much larger ones.
    """
    single = got["h"].shape[2] == 1 and "d_weight_hr" in got
    narrow = got["h"].dtype == BFLOAT16
    tolerance = (5 if single else 3) * 2**-7 if narrow else 200 * np.finfo(got["h"].dtype).eps
    for name in expected.keys() - set(skip):
        scale = np.abs(expected[name]).max()
        error = np.abs(widened(got[name]) - expected[name]).max()
        assert error <= tolerance * scale, f"{name}: {error / scale:.1e} relative"


def walks(T, B, seed=0):
    """Draw lengths, some of them 0 and some T, and resets."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(0, T + 1, B)
    lengths[rng.integers(0, B)] = T
    return {"lengths": lengths, "reset": rng.random((T, B)) < 0.3}


@lru_cache(maxsize=8)  # of one size and type, for which the instruction sets come one after the other
def expected_of(size, dtype, names=(), reverse=False):
    """A case, how it is walked, and what the reference makes of it, once for all instruction sets."""
    both, arrays = walks(*size[:2]), case(*size, dtype=dtype)
    walk = {name: both[name] for name in names} | {"reverse": reverse}
    return arrays, walk, run_reference(*arrays, **walk)


@pytest.mark.threads
@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("size", SIZES + PROJECTED, ids=str)
def test_against_reference(isa, dtype, size):
    arrays, _, expected = expected_of(size, dtype)
    with kernels.using(isa):
        for threads in (1, 2):
            assert_close(run(*arrays, threads=threads), expected)


@pytest.mark.parametrize("isa", ISAS)
def test_without_bias(isa):
    arrays = case(4, 5, 3, 9, bias=False)
    with kernels.using(isa):
        assert_close(run(*arrays), run_reference(*arrays), skip=["d_bias"])


@pytest.mark.parametrize("given_", [["d_h"], ["d_h_n"], ["d_c_n"]])
def test_missing_gradients_are_zero(given_):
    inputs, parameters, gradients = case(4, 5, 3, 9)
    some = {name: gradients[name] for name in given_}
    assert_close(run(inputs, parameters, some), run_reference(inputs, parameters, some))


@pytest.mark.threads
@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    "size",
    [
        (3, 7, 20, 17),
        (30, 8, 32, 32),
        (20, 8, 9, 72),  # two groups, whose threads share units if there are six
        (4, 2, 9, 160),
        (2, 101, 3, 40),
        (1, 2, 130, 120),
        (2, 16, 8, 192),
        (3, 9, 4, 40, 20),
        (3, 2, 4, 40, 20),
    ],
    ids=str,
)
def test_threads_change_no_bit(isa, dtype, size):
    arrays = case(*size, dtype=dtype)
    with kernels.using(isa):
        one, *others = [run(*arrays, threads=threads) for threads in (1, 2, 3, 4, 5, 6)]
    for other in others:
        for name in one:
            assert np.array_equal(one[name], other[name]), name


EVERY_WALK = list(itertools.product([(), ("lengths",), ("reset",), ("lengths", "reset")], [False, True]))


@pytest.mark.threads
@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("size", SIZES + PROJECTED, ids=str)
def test_lengths_resets_and_reverse_against_reference(isa, dtype, size):
    large = max(size) > 200  # walked in one way alone, with all at once: in reverse where B is odd
    with kernels.using(isa):
        for names, reverse in [(("lengths", "reset"), size[1] % 2 == 1)] if large else EVERY_WALK:
            arrays, walk, expected = expected_of(size, dtype, names, reverse)
            one, *others = (run(*arrays, threads=threads, **walk) for threads in (1, 2, 3))
            assert_close(one, expected)
            for other in others:
                for name in one:
                    assert np.array_equal(one[name], other[name]), name


def test_no_steps_at_all():
    inputs, _, gradients = arrays = case(3, 2, 4, 5)
    got, expected = (how(*arrays, lengths=np.zeros(2, np.int64)) for how in (run, run_reference))
    zeros = {"h", "d_x", "d_weight_ih", "d_weight_hh", "d_bias", *(f"{name} of all steps" for name in "ifgoc")}
    assert_close(got, expected, skip=zeros)
    assert np.array_equal(got["h_n"], inputs["h_0"])
    assert np.array_equal(got["d_h_0"], gradients["d_h_n"])
    assert not any(got[name].any() for name in zeros)


@pytest.mark.parametrize("dtype", [np.float32, BFLOAT16], ids=str)
def test_numbers_past_the_lengths_are_not_read(dtype):
    inputs, parameters, gradients = case(5, 3, 4, 6, dtype=dtype)
    lengths = np.array([2, 5, 0])
    clean = run(inputs, parameters, gradients, lengths=lengths)
    past = np.arange(5)[:, None] >= lengths
    inputs["x"][past] = as_dtype(np.array(np.nan), dtype)
    gradients["d_h"][past] = as_dtype(np.array(np.nan), dtype)
    for name, value in run(inputs, parameters, gradients, lengths=lengths).items():
        assert np.array_equal(value, clean[name]), name


@pytest.mark.threads
@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("dtype", [np.float32, BFLOAT16], ids=str)
def test_inference_equals_training(isa, dtype):
    for size in SIZES + PROJECTED:
        inputs, parameters, _ = case(*size, dtype=dtype)
        weights = [parameters.get(name) for name in NAMES]
        with kernels.using(isa):
            kept = kernels.forward(*inputs.values(), *weights, threads=2)
            dropped = kernels.forward(*inputs.values(), *weights, threads=2, training=False)
            walk = walks(*size[:2])
            kept_short = kernels.forward(*inputs.values(), *weights, **walk)
            dropped_short = kernels.forward(*inputs.values(), *weights, **walk, training=False)
        for name in ("h", "h_n", "c_n"):
            assert np.array_equal(getattr(kept, name), getattr(dropped, name)), (size, name)
            assert np.array_equal(getattr(kept_short, name), getattr(dropped_short, name)), (size, name)


sizes = st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(1, 20), st.integers(1, 40))


@pytest.mark.threads
@settings(max_examples=40, deadline=None, derandomize=True)
@given(sizes, st.sampled_from(ISAS), st.sampled_from(DTYPES), st.integers(0, 99))
def test_any_size(size, isa, dtype, seed):
    arrays = case(*size, dtype=dtype, seed=seed)
    with kernels.using(isa):
        assert_close(run(*arrays, threads=2), run_reference(*arrays))


@settings(max_examples=25, deadline=None, derandomize=True)
@given(sizes, st.sampled_from(ISAS), st.integers(0, 99), st.data())
def test_cut_in_two_equals_the_whole(size, isa, seed, data):
    T, B, I, H = size
    inputs, parameters, _ = case(T + 1, B, I, H, dtype=np.float32, seed=seed)
    weights = [parameters.get(name) for name in NAMES]
    cut = data.draw(st.integers(1, T))
    with kernels.using(isa):
        whole = kernels.forward(*inputs.values(), *weights)
        first = kernels.forward(inputs["x"][:cut], inputs["h_0"], inputs["c_0"], *weights)
        second = kernels.forward(inputs["x"][cut:], first.h_n, first.c_n, *weights)
    assert np.array_equal(whole.h, np.concatenate([first.h, second.h]))
    assert np.array_equal(whole.c_n, second.c_n)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(sizes, st.sampled_from(ISAS), st.sampled_from([np.float32, BFLOAT16]), st.integers(0, 99), st.data())
def test_a_row_does_not_depend_on_its_batch(size, isa, dtype, seed, data):
    inputs, parameters, gradients = case(*size, dtype=dtype, seed=seed)
    order = np.array(data.draw(st.permutations(range(size[1]))))
    row = data.draw(st.integers(0, size[1] - 1))
    of = lambda arrays, rows: {n: a[:, rows] if a.ndim == 3 else a[rows] for n, a in arrays.items()}  # noqa: E731
    per_row = ("h", "h_n", "c_n", "d_x", "d_h_0", "d_c_0")
    with kernels.using(isa):
        whole = run(inputs, parameters, gradients)
        permuted = run(of(inputs, order), parameters, of(gradients, order))
        alone = run(of(inputs, [row]), parameters, of(gradients, [row]))
    whole = {name: whole[name] for name in per_row}
    for name, value in of(whole, order).items():
        assert np.array_equal(permuted[name], value), name
    for name, value in of(whole, [row]).items():
        assert np.array_equal(alone[name], value), name


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("dtype", [np.float32, BFLOAT16], ids=str)
@pytest.mark.parametrize("P", [9, 5])
def test_nan_stays_in_its_row(isa, dtype, P):
    inputs, parameters, gradients = case(4, 5, 3, 9, None if P == 9 else P, dtype=dtype)
    rest = [0, 1, 2, 4]
    with kernels.using(isa):
        clean = run(inputs, parameters, gradients)
        inputs["x"][2, 3] = as_dtype(np.array(np.nan), dtype)
        got = run(inputs, parameters, gradients)
    assert np.isnan(widened(got["h"])[2:, 3]).all()
    assert np.array_equal(got["h"][:2, 3], clean["h"][:2, 3])
    for name in ("h", "d_x"):
        assert np.array_equal(got[name][:, rest], clean[name][:, rest]), name
    for name in ("h_n", "c_n", "d_h_0", "d_c_0"):
        assert np.array_equal(got[name][rest], clean[name][rest]), name


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("H", [1, 7, 8, 9])
def test_infinity_saturates_and_does_not_reach_the_gradients_by_the_padding(isa, dtype, H):
    inputs, parameters, gradients = case(3, 2, 4, H, dtype=dtype)
    inputs["x"][1, 0, 2] = as_dtype(np.array(np.inf), dtype)
    with kernels.using(isa):
        got = {name: widened(value) for name, value in run(inputs, parameters, gradients).items()}
    for name in got.keys() - {"d_weight_ih"}:
        assert np.isfinite(got[name]).all(), name
    # 0 * infinity in the one column that the infinity is multiplied into, as everywhere in IEEE arithmetic.
    assert np.isfinite(np.delete(got["d_weight_ih"], 2, axis=1)).all()


# --------------------------------------------------------------------------------------------------- bfloat16


@pytest.mark.parametrize("isa", ISAS)
def test_all_numbers_of_bfloat16_are_widened_and_rounded_back(isa):
    bits = np.arange(1 << 16, dtype=np.uint16)
    with kernels.using(isa):
        wide = kernels.from_bfloat16(bits.view(BFLOAT16))
        back = kernels.to_bfloat16(wide).view(np.uint16)
    assert np.array_equal(wide.view(np.uint32), bits.astype(np.uint32) << 16)
    quiet = np.where(np.isnan(wide), bits | 0x40, bits)
    assert np.array_equal(back, quiet)


@pytest.mark.parametrize("isa", ISAS)
def test_rounding_to_bfloat16(isa):
    """To the nearest by the distance in float64, of two to the even one; NaN and infinity stay."""
    rng = np.random.default_rng(0)
    parts = [0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF, *rng.integers(0, 1 << 16, 5)]
    bits = (np.arange(1 << 16, dtype=np.uint32)[:, None] << 16 | np.uint32(parts)).ravel()
    x = bits.view(np.float32)
    with kernels.using(isa):
        got = kernels.to_bfloat16(x).view(np.uint16)
    nan = np.isnan(x)
    assert (np.isnan(kernels.from_bfloat16(got.view(BFLOAT16))) == nan).all()
    got, bits, x = got[~nan], bits[~nan], x[~nan].astype(np.float64)

    def number(upper):  # infinity stands where the next number would be
        value = (upper << 16).view(np.float32).astype(np.float64)
        return np.where(np.isinf(value), np.copysign(2.0**128, value), value)

    x = np.where(np.isinf(x), np.copysign(2.0**128, x), x)
    near, far = bits >> 16, (bits >> 16) + (bits & 0xFFFF > 0)  # next to x, towards zero and away from it
    to_near, to_far = np.abs(x - number(near)), np.abs(number(far) - x)
    even = np.where(near & 1, far, near)
    expected = np.where(to_near < to_far, near, np.where(to_near > to_far, far, even))
    assert np.array_equal(got, expected)


def assert_rounded_once(got, exact, size):
    """Within half of bfloat16's spacing of a sum in float64; `size` is the sum of what its terms would be unsigned.

    Float32 sums a few hundred terms, each time off by 2^-24 of what they come to so far: a thousandth of the spacing,
    or 2^-18 of `size`, hold that. A sum that is rounded on its way too is off by up to twice half the spacing.
    """
    spacing = 2.0 ** (np.floor(np.log2(np.maximum(np.abs(exact), 2.0**-100))) - 7)
    error = np.abs(widened(got) - exact)
    assert (error <= spacing * 0.501 + size * 2.0**-18).all(), (error / spacing).max()


def of_one_row(inputs, gradients, b):
    """A batch of a single row of another."""
    return ({n: a[:, [b]] if a.ndim == 3 else a[[b]] for n, a in arrays.items()} for arrays in (inputs, gradients))


@pytest.mark.parametrize("isa", ISAS)
def test_a_gate_is_summed_in_float32(isa):
    """Sums that float32 holds exactly, over blocks of k: rounding h is all that bfloat16 changes."""
    rng = np.random.default_rng(0)
    T, B, I, H = 1, 4, 1201, 601
    whole = lambda most, *shape: rng.integers(-most, most + 1, shape).astype(np.float32)  # noqa: E731
    x, h_0, c_0 = whole(8, T, B, I), whole(8, B, H), whole(1, B, H)
    weights = [whole(8, 4 * H, I) / 2048, whole(8, 4 * H, H) / 2048, whole(8, 4 * H) / 16, whole(8, 4 * H) / 2048]
    arrays = (x, h_0, c_0, *weights)
    with kernels.using(isa):
        wide = kernels.forward(*arrays)
        narrow = kernels.forward(*map(kernels.to_bfloat16, arrays))
        for name in ("h", "h_n", "c_n"):
            assert np.array_equal(getattr(narrow, name), kernels.to_bfloat16(getattr(wide, name))), name


@pytest.mark.parametrize("isa", ISAS)
def test_cells_are_float32_from_step_to_step(isa):
    """Behind an open forget gate c grows from 1 by 2^-10 a step, which bfloat16 would round away each time."""
    x, state, weights = np.zeros((256, 1, 1)), np.ones((1, 1)), np.zeros((4, 1))
    biases = np.array([0, 30, np.arctanh(2.0**-9), 0]), np.zeros(4)
    narrow = [as_dtype(a, BFLOAT16) for a in (x, state, state, weights, weights, *biases)]
    with kernels.using(isa):
        for training in (True, False):
            assert widened(kernels.forward(*narrow, training=training).c_n) == 1.25


@pytest.mark.parametrize("isa", ISAS)
def test_a_projection_is_rounded_once(isa):
    inputs, parameters, _ = case(1, 3, 4, 601, 10, dtype=BFLOAT16)
    inputs["h_0"] = np.zeros_like(inputs["h_0"])  # so that weight_hh counts for nothing
    weight_hr = widened(parameters["weight_hr_l0"]).astype(np.float64)
    unprojected = {**parameters, "weight_hh_l0": np.zeros((4 * 601, 601), BFLOAT16)}
    with kernels.using(isa):
        got = kernels.forward(*inputs.values(), *parameters.values())
        zeros = np.zeros((3, 601), BFLOAT16)
        full = kernels.forward(inputs["x"], zeros, inputs["c_0"], *list(unprojected.values())[:4])
        assert np.array_equal(got.c_n, full.c_n)
        h = widened(full.h).astype(np.float64)
        assert_rounded_once(got.h, h @ weight_hr.T, np.abs(h) @ np.abs(weight_hr).T)


@pytest.mark.parametrize("isa", ISAS)
def test_gradients_are_rounded_once(isa):
    """A row alone in a single step has its d_a as the gradient of the bias: of them the others are plain sums."""
    T, B, I, H = 1, 300, 5, 150  # more rows than a block of the weights' sums, more gates than a block of k
    inputs, parameters, gradients = case(T, B, I, H, dtype=BFLOAT16)
    with kernels.using(isa):
        whole = run(inputs, parameters, gradients)
        alone = (of_one_row(inputs, gradients, b) for b in range(B))
        d_a = np.stack([widened(run(given_, parameters, back)["d_bias"]) for given_, back in alone]).astype(np.float64)
        weights = {name: widened(weight).astype(np.float64) for name, weight in parameters.items()}
        x, h_0 = widened(inputs["x"])[0].astype(np.float64), widened(inputs["h_0"]).astype(np.float64)
        sums = {
            "d_x": (d_a, weights["weight_ih_l0"]),
            "d_h_0": (d_a, weights["weight_hh_l0"]),
            "d_weight_ih": (d_a.T, x),
            "d_weight_hh": (d_a.T, h_0),
            "d_bias": (d_a.T, np.ones((B, 1))),
        }
        for name, (a, b) in sums.items():
            got = whole[name][0] if name == "d_x" else whole[name]
            shape = got.shape
            assert_rounded_once(got, (a @ b).reshape(shape), (np.abs(a) @ np.abs(b)).reshape(shape))


def test_only_bfloat16_is_widened_and_only_float32_rounded():
    with pytest.raises(DtypeError, match="needed BFLOAT16"):
        kernels.from_bfloat16(np.zeros(3, np.uint16))
    with pytest.raises(DtypeError, match="needed float32"):
        kernels.to_bfloat16(np.zeros(3))


def test_inference_keeps_nothing_for_backward():
    inputs, parameters, gradients = case(2, 2, 2, 2)
    weights = [parameters[name] for name in NAMES[:2]]
    result = kernels.forward(*inputs.values(), *weights, training=False)
    with pytest.raises(KernelError, match="run forward with training=True"):
        kernels.backward(result, **gradients)


def test_bad_arrays_are_named():
    inputs, parameters, _ = case(2, 3, 4, 5)
    weights = [parameters[name] for name in NAMES[:4]]
    with pytest.raises(ShapeError, match=r"h_0 has shape \(2, 5\), needed \(B, P\) = \(3, 5\)"):
        kernels.forward(inputs["x"], inputs["h_0"][:2], inputs["c_0"], *weights)
    with pytest.raises(DtypeError, match="c_0 is float32, needed float64"):
        kernels.forward(inputs["x"], inputs["h_0"], inputs["c_0"].astype(np.float32), *weights)
    with pytest.raises(ShapeError, match="at least one step"):
        kernels.forward(inputs["x"][:0], inputs["h_0"], inputs["c_0"], *weights)
    with pytest.raises(DtypeError, match="needed float32, float64 or BFLOAT16"):
        kernels.forward(inputs["x"].astype(np.float16), inputs["h_0"], inputs["c_0"], *weights)
    with pytest.raises(ShapeError, match="both or neither"):
        kernels.forward(*inputs.values(), *weights[:3])
    with pytest.raises(ShapeError, match="with P less than H with one"):
        kernels.forward(*inputs.values(), *weights, np.ones((5, 5)))
    with pytest.raises(ShapeError, match=r"needed \(P, H\) = \(5, 5\)"):
        kernels.forward(*inputs.values(), *weights, np.ones((2, 5)))


@pytest.mark.parametrize("isa", ISAS)
def test_environment_variable_forces_an_instruction_set(isa):
    code = "from gatewise import kernels; print(kernels.instruction_set())"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {kernels.ISA_VARIABLE: isa},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == isa


def test_unknown_instruction_set_is_refused():
    with pytest.raises(KernelError, match="'sse9' is unknown"):
        kernels.use("sse9")


def test_an_instruction_set_is_used_for_its_block_alone():
    before = kernels.instruction_set()
    for isa in ISAS:
        with kernels.using(isa):
            assert kernels.instruction_set() == isa
        assert kernels.instruction_set() == before
    with pytest.raises(ZeroDivisionError), kernels.using(ISAS[-1]):
        raise ZeroDivisionError
    assert kernels.instruction_set() == before
    with pytest.raises(KernelError, match="'sse9' is unknown"), kernels.using("sse9"):
        pytest.fail("the block was entered")
    assert kernels.instruction_set() == before


@pytest.mark.skipif(len(ISAS) < 2, reason="one instruction set alone")
def test_what_one_instruction_set_has_kept_another_does_not_read():
    inputs, parameters, _ = case(3, 2, 4, 5)
    result = kernels.forward(*inputs.values(), *[parameters.get(name) for name in NAMES])
    other = next(isa for isa in ISAS if isa != kernels.instruction_set())
    for read in (kernels.backward, kernels.activations):
        with kernels.using(other), pytest.raises(KernelError, match=f"forward ran by .* would be read by {other}"):
            read(result)


def test_an_unknown_instruction_set_in_the_environment_is_named():
    done = subprocess.run(
        [sys.executable, "-c", "import gatewise.kernels"],
        env=os.environ | {kernels.ISA_VARIABLE: "avx9"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "GATEWISE_ISA is 'avx9' in the environment: instruction set 'avx9' is unknown" in done.stderr


def test_activations_are_refused_where_nothing_is_kept():
    inputs, parameters, _ = case(3, 2, 4, 5)
    weights = [parameters.get(name) for name in NAMES]
    with pytest.raises(KernelError, match="kept no gates"):
        kernels.activations(kernels.forward(*inputs.values(), *weights, training=False))


@pytest.mark.threads
def test_backward_leaves_what_forward_has_kept():
    inputs, parameters, gradients = case(30, 40, 4, 5)
    result = kernels.forward(*inputs.values(), *(parameters.get(name) for name in NAMES))
    before = kernels.activations(result)
    first, second = (kernels.backward(result, **gradients, threads=2) for _ in range(2))
    for one, other in zip((*before, *first[:-1]), (*kernels.activations(result), *second[:-1]), strict=True):
        np.testing.assert_array_equal(one, other)
