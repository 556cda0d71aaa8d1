"""The kernels of changed cells against the reference: every variant and every pair, every output and gradient."""

from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cells import CASES, SINGLES
from gatewise import kernels, reference
from gatewise.errors import ArgumentError, DtypeError, ShapeError
from gatewise.reference.code import coded
from gatewise.reference.variant import PLAIN, Variant
from test_kernels import BFLOAT16, DTYPES, ISAS, as_dtype, walks, widened

TORCHS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr")

# Weights are dropped before a kernel is called; and a projection is a size here. What is left of each case is a cell.
CELLS = {
    name: {key: value for key, value in options.items() if key not in ("proj_size", "weight_dropout")}
    for name, options in CASES.items()
    if "weight dropout" not in name
}
every_isa = pytest.mark.parametrize("isa", ISAS)
every_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)
every_cell = pytest.mark.parametrize("name", CELLS)

# (T, B, I, H, P or None, whether biases, masks, lengths and resets, whether in reverse): the awkward sizes first, and
# all that a call can be. P stands where a case projects h; one unit cannot be projected.
SETTINGS = [
    (3, 5, 1, 1, None, True, True, False, False),
    (4, 5, 3, 17, 9, True, True, True, True),
    (4, 1, 2, 3, 1, False, False, True, False),
    (3, 6, 5, 20, 8, True, True, False, True),
]


class Case:
    """Numbers of a call, the same ones for every instruction set."""

    def __init__(self, name, setting, dtype, seed=0):
        T, B, I, H, P, bias, training, walked, reverse = setting
        projected = "proj_size" in name and P is not None
        P = P if projected else H
        self.variant = Variant(**CELLS[name])
        rng = np.random.default_rng(seed)
        # A hard gate that bfloat16 rounds to 1 has the slope 0: there gates stay away from it.
        small = 0.4 if dtype == BFLOAT16 and self.variant.gate_activation == "hardsigmoid" else 1
        draw = lambda *shape: as_dtype(rng.uniform(-1, 1, shape), dtype)  # noqa: E731
        weights = lambda *shape: as_dtype(rng.uniform(-1, 1, shape) * 2 * small / np.sqrt(H), dtype)  # noqa: E731
        gains = lambda *shape: as_dtype(rng.uniform(0.5, 1.5, shape) * small, dtype)  # noqa: E731
        shapes = self.variant.shapes(inputs=I, hidden=H, projection=P * projected, bias=bias)
        kinds = {"weight": weights, "bias": draw, "gain": gains}
        self.parameters = {name: kinds[name.split("_")[0]](*shape) for name, shape in shapes.items()}
        self.x, self.h_0, c_0 = draw(T, B, I), draw(B, P), draw(B, H)
        n_0, m_0 = gains(B, H), draw(B, H)
        if B > 1:  # a row that has not begun
            n_0[-1] = as_dtype(np.zeros(H), dtype)
        cells = [c_0, n_0, m_0][: len(self.variant.states) - 1]
        self.c_0 = np.concatenate(cells, axis=1)
        self.gradients = {"d_h": draw(T, B, P), "d_h_n": draw(B, P), "d_c_n": draw(B, len(cells) * H)}
        self.walk = (walks(T, B, seed) if walked else {}) | {"reverse": reverse}
        self.masks = None
        if training:
            shapes = self.variant.masks(cells=1, time=T, batch=B, hidden=H, width=P)
            sums = np.float64 if dtype == np.float64 else np.float32
            self.masks = {name: drawn(rng, mask).astype(sums)[0] for name, mask in shapes.items()}

    def arguments(self):
        """Those of kernels.forward."""
        own = {name: array for name, array in self.parameters.items() if name not in TORCHS}
        weights = (self.parameters.get(name) for name in TORCHS)
        return (self.x, self.h_0, self.c_0, *weights), {"variant": self.variant, "own": own, "masks": self.masks}


def drawn(rng, mask):
    taken = rng.random(mask.shape) < mask.rate
    return taken if mask.is_kept else ~taken / (1 - mask.rate)


def run(case, *, threads=1):
    """Every output and gradient of the kernels, by name."""
    arrays, others = case.arguments()
    result = kernels.forward(*arrays, **others, threads=threads, **case.walk)
    outputs = {"h": result.h, "h_n": result.h_n, "c_n": result.c_n}
    T, B = case.x.shape[:2]
    past = np.arange(T)[:, None] >= case.walk.get("lengths", np.full(B, T))
    for name, steps in kernels.activations(result, threads=threads)._asdict().items():
        assert np.isnan(steps[past]).all(), name
        outputs[f"{name} of all steps"] = np.where(past[:, :, None], 0, steps)
    found = kernels.backward(result, **case.gradients, threads=threads)._asdict()
    return outputs | {name: gradient for name, gradient in found.items() if gradient is not None}


def run_reference(case):
    """The same in float64 by the reference; in reverse as the second of two directions."""
    wide = lambda array: widened(array).astype(np.float64)  # noqa: E731
    reverse, variant = case.walk["reverse"], case.variant
    states = ["h", "c", "n", "m"][: len(variant.states)]
    parts = len(states) - 1
    both = lambda a, axis=0: np.concatenate([np.zeros_like(a), a], axis) if reverse else a  # noqa: E731
    initial = [wide(case.h_0), *np.split(wide(case.c_0), parts, axis=1)]
    d_last = [wide(case.gradients["d_h_n"]), *np.split(wide(case.gradients["d_c_n"]), parts, axis=1)]
    suffixes = ["_l0", "_l0_reverse"] if reverse else ["_l0"]
    forward = reference.forward(
        wide(case.x),
        {name + suffix: wide(array) for suffix in suffixes for name, array in case.parameters.items()},
        **{f"{name}_0": both(a[None]) for name, a in zip(states, initial, strict=True)},
        bidirectional=reverse,
        lengths=case.walk.get("lengths"),
        reset=case.walk.get("reset"),
        variant=variant,
        masks=None if case.masks is None else {name: both(wide64(mask)[None]) for name, mask in case.masks.items()},
    )
    back = reference.backward(
        forward,
        both(wide(case.gradients["d_h"]), 2),
        **{f"d_{name}_n": both(d[None]) for name, d in zip(states, d_last, strict=True)},
    )
    direction, P = int(reverse), case.h_0.shape[1]
    found = {
        "h": forward.output[:, :, direction * P :],
        "h_n": forward.h_n[direction],
        "c_n": np.concatenate([forward.last[name][direction] for name in states[1:]], axis=1),
        "d_x": back.d_x,
        "d_h_0": back.d_h_0[direction],
        "d_c_0": np.concatenate([back.d_initial[name][direction] for name in states[1:]], axis=1),
    }
    found |= {f"d_{name}": back.d_parameters[name + suffixes[-1]] for name in case.parameters if "bias_h" not in name}
    if "d_bias_ih" in found:
        found["d_bias"] = found.pop("d_bias_ih")
    gates = forward.gates[0][direction]
    return found | {f"{name} of all steps": getattr(gates, name) for name in "ifgoc"}


def wide64(mask):
    return mask.astype(np.float64)


def assert_close(case, got, wanted, terms=1):
    """Compare relative to each array's largest number.

    A number is a sum of some dozen products of numbers around 1 (or of `terms` times as many), carried through a few
    steps: some tens of the type's epsilon, as in test_kernels.py, of which the largest that was seen here is 50. Of
    bfloat16 only what is stored counts; normalizing and unbounded activations make an error larger on its way.
    """
    narrow, variant = case.x.dtype == BFLOAT16, case.variant
    linear = "linear" in (variant.candidate_activation, variant.cell_activation)
    tolerance = (4 + 4 * (linear or variant.layer_norm)) * 2**-7 if narrow else 200 * np.finfo(case.x.dtype).eps * terms
    # A norm does not change with the one number that all of its rows are multiplied by: what is left of its gradient is
    # the rounding of numbers as large as the bias's.
    alone = {"d_x": case.x.shape[2] == 1, "d_h_0": case.h_0.shape[1] == 1}
    for array, value in wanted.items():
        scale = np.abs(value).max() or 1
        if variant.layer_norm and alone.get(array):
            scale = max(scale, np.abs(widened(got["d_bias"])).max())
        error = np.abs(widened(got[array]) - value).max()
        assert error <= tolerance * scale, f"{array}: {error / scale:.1e} relative"


@cache
def expected(name, number, dtype):
    """A case and what the reference makes of it, once for all instruction sets."""
    setting, options = SETTINGS[number], CELLS[name]
    narrow = dtype == BFLOAT16
    if narrow and (options.get("gate_activation") == "step" or ("cell" in options and number == 0)):
        setting = (1, *setting[1:])  # what is rounded after a step might turn a gate of the next one over
    case = Case(name, setting, dtype, seed=number)
    if narrow and "cell" in options and number:
        # Likewise the choice of m, which h does not depend on. Of c, n and m each by itself there are gradients above.
        case.gradients["d_c_n"] = np.zeros_like(case.gradients["d_c_n"])
    return case, run_reference(case)


def key_of(dtype):
    return dtype if isinstance(dtype, np.dtype) else np.dtype(dtype)


@pytest.mark.threads
@every_isa
@every_dtype
@every_cell
def test_against_reference(isa, dtype, name):
    for number in range(len(SETTINGS)):
        case, wanted = expected(name, number, key_of(dtype))
        with kernels.using(isa):
            got = run(case)
            other = run(case, threads=2)
        assert got.keys() - {"d_bias"} == wanted.keys() - {"d_bias"}
        assert_close(case, got, wanted)
        for array, value in got.items():
            assert np.array_equal(value, other[array]), (SETTINGS[number], array)


@every_isa
@every_dtype
@every_cell
def test_inference_equals_training(isa, dtype, name):
    for number in range(len(SETTINGS)):
        case, _ = expected(name, number, key_of(dtype))
        arrays, others = case.arguments()
        with kernels.using(isa):
            kept, dropped = (kernels.forward(*arrays, **others, **case.walk, training=t) for t in (True, False))
        for array in ("h", "h_n", "c_n"):
            assert np.array_equal(getattr(kept, array), getattr(dropped, array)), (SETTINGS[number], array)


# Enough products to be shared among threads, which take rows in the first and units in the second; then a chunk of many
# steps, more rows than a product takes at once, and blocks of k.
SHARED = [
    (2, 60, 30, 40, 20, True, True, True, True),
    (2, 2, 130, 120, 50, True, True, False, False),
    (40, 8, 32, 32, 24, True, True, True, False),
    (2, 270, 3, 7, 4, True, True, False, True),
    (2, 3, 300, 290, 270, True, False, False, True),
]
ALONE = [name for name in SINGLES if name in CELLS]
HEAVY = [*ALONE, "peephole + coupled", "coupled + layer norm", "peephole + layer norm", "proj_size + layer norm"]
HEAVY += ["layer norm + zoneout", "proj_size + zoneout", "proj_size + slstm", "recurrent dropout + slstm exp"]


# Every cell in every setting, by one type of number: each type for each cell, and in each setting, in turn.
SHARED_IN_TURN = [
    (name, setting, DTYPES[(at + number) % len(DTYPES)])
    for at, name in enumerate(HEAVY)
    for number, setting in enumerate(SHARED)
]


@pytest.mark.threads
@every_isa
@pytest.mark.parametrize(("name", "setting", "dtype"), SHARED_IN_TURN, ids=str)
def test_threads_change_no_bit(isa, name, setting, dtype):
    case = Case(name, setting, dtype)
    with kernels.using(isa):
        one, *others = [run(case, threads=threads) for threads in (1, 2, 3)]
    for other in others:
        for array, value in one.items():
            assert np.array_equal(value, other[array], equal_nan=False), array


@every_isa
@pytest.mark.parametrize("setting", SHARED, ids=str)
@pytest.mark.parametrize("name", HEAVY)
def test_large_ones_against_reference(isa, name, setting):
    case = Case(name, setting, np.float64)
    wanted = large(name, setting)
    with kernels.using(isa):
        got = run(case)
    assert_close(case, got, wanted, terms=10)


@cache
def large(name, setting):
    return run_reference(Case(name, setting, np.float64))


@every_isa
@pytest.mark.parametrize("dtype", [np.float32, BFLOAT16], ids=str)
@pytest.mark.parametrize("name", ALONE)
def test_numbers_past_the_lengths_are_not_read(isa, dtype, name):
    case = Case(name, (5, 3, 4, 6, 3, True, True, True, False), dtype)
    case.walk["lengths"] = np.array([2, 5, 0])
    past = np.arange(5)[:, None] >= case.walk["lengths"]
    with kernels.using(isa):
        clean = run(case)
        for array in (case.x, case.gradients["d_h"]):
            array[past] = as_dtype(np.array(np.nan), dtype)
        for mask in case.masks.values():
            if mask.ndim == 3:
                mask[past] = np.nan
        for array, value in run(case).items():
            assert np.array_equal(value, clean[array]), array


@every_isa
@every_dtype
@pytest.mark.parametrize("name", ALONE)
def test_a_row_does_not_depend_on_its_batch(isa, dtype, name):
    case = Case(name, (4, 7, 3, 9, 5, True, True, True, True), dtype)
    row = 3
    alone = Case(name, (4, 7, 3, 9, 5, True, True, True, True), dtype)
    alone.x, alone.h_0, alone.c_0 = case.x[:, [row]], case.h_0[[row]], case.c_0[[row]]
    of_row = lambda a: a[:, [row]] if a.ndim == 3 else a[[row]]  # noqa: E731
    alone.gradients = {key: of_row(a) for key, a in case.gradients.items()}
    alone.masks = {key: of_row(a) for key, a in case.masks.items()}
    alone.walk |= {"lengths": case.walk["lengths"][[row]], "reset": case.walk["reset"][:, [row]]}
    with kernels.using(isa):
        whole, got = run(case), run(alone)
    for array in ("h", "d_x"):
        assert np.array_equal(got[array][:, 0], whole[array][:, row]), array
    for array in ("h_n", "c_n", "d_h_0", "d_c_0"):
        assert np.array_equal(got[array][0], whole[array][row]), array


@every_isa
@pytest.mark.parametrize("name", ALONE)
def test_nan_stays_in_its_row(isa, name):
    case = Case(name, (4, 5, 3, 9, 5, True, True, False, False), np.float32)
    rest = [0, 1, 2, 4]
    with kernels.using(isa):
        clean = run(case)
        case.x[2, 3] = np.nan
        got = run(case)
    assert np.isnan(got["c of all steps"][2, 3]).any()
    assert np.array_equal(got["h"][:2, 3], clean["h"][:2, 3])
    for array in ("h", "d_x"):
        assert np.array_equal(got[array][:, rest], clean[array][:, rest]), array
    for array in ("h_n", "c_n", "d_h_0", "d_c_0"):
        assert np.array_equal(got[array][rest], clean[array][rest]), array


sizes = st.tuples(st.integers(1, 6), st.integers(1, 8), st.integers(1, 12), st.integers(2, 40))


@pytest.mark.threads
@settings(max_examples=150, deadline=None, derandomize=True)
@given(sizes, st.sampled_from(list(CELLS)), st.sampled_from(ISAS), st.data())
def test_any_size(size, name, isa, data):
    H = size[-1]
    flags = data.draw(st.tuples(*[st.booleans()] * 4))
    case = Case(name, (*size, data.draw(st.integers(1, H - 1)), *flags), np.float64, data.draw(st.integers(0, 99)))
    with kernels.using(isa):
        assert_close(case, run(case, threads=2), run_reference(case), terms=10)  # more steps and terms than above


@every_isa
@every_dtype
def test_what_is_kept_grows_with_the_steps_alone(isa, dtype):
    """So that a compiler knows how large it is, whatever the lengths."""
    with kernels.using(isa):
        for name, options in CELLS.items():
            H, P = 11, 4 if "proj_size" in name else 11
            code, _ = coded(Variant(**options), None)
            row = kernels.kept_numbers(dtype.itemsize if isinstance(dtype, np.dtype) else dtype().itemsize, H, P, code)
            for T, B in ((1, 1), (7, 3), (300, 5)):
                whole = kernels.plan(key_of(dtype).itemsize, T, B, 6, H, P, T * B, True, code)
                grown = (row.gates * T * B, row.cells * (T + 1) * B, row.unprojected * T * B, row.normalized * T * B)
                assert whole[:4] == grown, (name, T, B)


@pytest.mark.threads
@pytest.mark.parametrize("name", ALONE)
def test_backward_leaves_what_forward_has_kept(name):
    case = Case(name, SETTINGS[1], np.float32)
    arrays, others = case.arguments()
    result = kernels.forward(*arrays, **others, **case.walk)
    first, second = (kernels.backward(result, **case.gradients, threads=2) for _ in range(2))
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one, other)


def test_what_does_not_fit_the_variant_is_named():
    case = Case("peephole", SETTINGS[2], np.float64)
    arrays, others = case.arguments()
    with pytest.raises(ArgumentError, match=r"own has \[\], needed \[weight_ch\]: give the variant's parameters"):
        kernels.forward(*arrays, **others | {"own": None})
    with pytest.raises(ArgumentError, match=r"own has \[weight_ch\], needed \[\]"):
        kernels.forward(*arrays, **others | {"variant": PLAIN})
    with pytest.raises(ShapeError, match=r"weight_ch has shape \(6,\), needed \(3H\) = \(9,\)"):
        kernels.forward(*arrays, **others | {"own": {"weight_ch": np.zeros(6)}})
    case = Case("zoneout", SETTINGS[1], np.float32)
    arrays, others = case.arguments()
    with pytest.raises(ArgumentError, match=r"masks are \[\], needed \[zoneout_h, zoneout_c\]: give these, or None"):
        kernels.forward(*arrays, **others | {"masks": {}})
    with pytest.raises(ShapeError, match=r"zoneout_h has shape \(4, 5, 2\), needed \(T, B, P\) = \(4, 5, 17\)"):
        kernels.forward(*arrays, **others | {"masks": case.masks | {"zoneout_h": np.zeros((4, 5, 2), np.float32)}})
    with pytest.raises(DtypeError, match="zoneout_c is float64, needed float32"):
        kernels.forward(*arrays, **others | {"masks": case.masks | {"zoneout_c": np.zeros((4, 5, 17))}})
    case = Case("slstm", SETTINGS[1], np.float64)
    arrays, others = case.arguments()
    with pytest.raises(ShapeError, match=r"c_0 has shape \(5, 17\), needed \(B, 3H\) = \(5, 51\)"):
        kernels.forward(*arrays[:2], arrays[2][:, :17], *arrays[3:], **others)
