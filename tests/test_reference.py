"""The reference against finite differences, torch, its own equations, and the text that derives them."""

import doctest
import io
import itertools
import math
import re
import tokenize
from collections.abc import Iterator
from decimal import Decimal, localcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gatewise.errors import ArgumentError, DtypeError, GatewiseError, ShapeError
from gatewise.reference import Forward, Gradients, Step, backward, forward
from gatewise.reference.step import sigmoid, step, step_backward

ROOT = Path(__file__).parent.parent
EQUATIONS = ROOT / "docs" / "equations.md"

# Central differences with a step of 1e-6 in float64. The part cut off is step² / 6 times a third
# derivative, about 1e-12. Rounding: each loss, a sum of a few dozen terms below about 10 in all, is
# off by up to some 1e-15, which the division by 2e-6 makes some 1e-9. A wrong or missing term is off
# by about the gradient's own size, 1e-3 to 1.
DIFFERENCE = 1e-6
DIFFERENCE_TOLERANCE = 2e-8


def make_parameters(
    rng: np.random.Generator,
    *,
    inputs: int,
    hidden: int,
    num_layers: int = 1,
    bidirectional: bool = False,
    bias: bool = True,
    proj_size: int = 0,
) -> dict[str, np.ndarray]:
    parameters = {}
    shown = proj_size or hidden  # 0 is no projection, as in torch
    for layer, suffix in itertools.product(range(num_layers), ["", "_reverse"][: 1 + bidirectional]):
        width = shown * (1 + bidirectional) if layer else inputs
        parameters[f"weight_ih_l{layer}{suffix}"] = rng.normal(scale=0.7, size=(4 * hidden, width))
        parameters[f"weight_hh_l{layer}{suffix}"] = rng.normal(scale=0.7, size=(4 * hidden, shown))
        if bias:
            parameters[f"bias_ih_l{layer}{suffix}"] = rng.normal(scale=0.7, size=4 * hidden)
            parameters[f"bias_hh_l{layer}{suffix}"] = rng.normal(scale=0.7, size=4 * hidden)
        if proj_size:
            parameters[f"weight_hr_l{layer}{suffix}"] = rng.normal(scale=0.7, size=(proj_size, hidden))
    return parameters


def differences(function, array: np.ndarray) -> np.ndarray:
    """The derivative of function() by each entry of `array`, which it reads; the axes are in that order."""
    columns = []
    for index in np.ndindex(array.shape):
        kept = array[index]
        array[index] = kept + DIFFERENCE
        above = function()
        array[index] = kept - DIFFERENCE
        below = function()
        array[index] = kept
        columns.append((above - below) / (2 * DIFFERENCE))
    return np.stack(columns, axis=-1).reshape(*np.shape(above), *array.shape)


# ---- every gradient against finite differences ----

ODD = (2, 2, 3, 2, 0)  # T, B, I, H, P; P is 0 without a projection
ODD_PROJECTED = (2, 2, 1, 3, 2)
SIZES = [(5, 2, 2, 1, 0), (1, 2, 3, 3, 0), (4, 1, 1, 2, 0), (1, 1, 1, 1, 0)]  # each of H, T, B, I as 1 somewhere
SIZES += [(2, 1, 2, 2, 1), (1, 2, 1, 1, 3), (2, 2, 1, 2, 2)]  # P as 1, above H, equal to it
KINDS = list(itertools.product([1, 2], [False, True], [False, True], [False, True]))


@pytest.mark.parametrize(
    ("sizes", "num_layers", "bidirectional", "bias", "with_state"),
    [(sizes, *kind) for sizes in (ODD, ODD_PROJECTED) for kind in KINDS]
    + [(sizes, *kind) for sizes in SIZES for kind in (KINDS[0], KINDS[-1])],
)
def test_every_gradient_matches_finite_differences(sizes, num_layers, bidirectional, bias, with_state):
    time, batch, inputs, hidden, proj_size = sizes
    shown = proj_size or hidden
    rng = np.random.default_rng([*sizes, num_layers, bidirectional, bias, with_state])
    options = {"num_layers": num_layers, "bidirectional": bidirectional}
    parameters = make_parameters(rng, inputs=inputs, hidden=hidden, bias=bias, proj_size=proj_size, **options)
    rows = num_layers * (1 + bidirectional)
    x = rng.normal(size=(time, batch, inputs))
    h_0 = rng.normal(size=(rows, batch, shown)) * with_state
    c_0 = rng.normal(size=(rows, batch, hidden)) * with_state
    weights = [
        rng.normal(size=(time, batch, shown * (1 + bidirectional))),
        rng.normal(size=(rows, batch, shown)),
        rng.normal(size=(rows, batch, hidden)),
    ]

    def loss() -> float:
        run = forward(x, parameters, h_0, c_0, **options)
        return sum(np.sum(w * y) for w, y in zip(weights, (run.output, run.h_n, run.c_n), strict=True))

    # Without a state, that of zeros is what the differences go around: the gradients must be the same.
    given_state = (h_0, c_0) if with_state else (None, None)
    gradients = backward(forward(x, parameters, *given_state, **options), *weights)

    assert list(gradients.d_parameters) == list(parameters)
    pairs = {"x": (gradients.d_x, x), "h_0": (gradients.d_h_0, h_0), "c_0": (gradients.d_c_0, c_0)}
    pairs |= {name: (gradients.d_parameters[name], parameters[name]) for name in parameters}
    for name, (gradient, array) in pairs.items():
        wanted = differences(loss, array)
        assert gradient.shape == array.shape, name
        np.testing.assert_allclose(gradient, wanted, rtol=0, atol=DIFFERENCE_TOLERANCE, err_msg=name)


WALKS = {
    "lengths": {"lengths": np.array([3, 0, 4])},
    "reset": {"reset": np.array([[1, 0, 0], [0, 1, 0], [0, 0, 0], [1, 0, 1]], bool)},
}
WALKS["both"] = WALKS["lengths"] | WALKS["reset"]


@pytest.mark.parametrize("walk", WALKS.values(), ids=WALKS)
@pytest.mark.parametrize(("num_layers", "bidirectional"), [(1, False), (2, True)])
@pytest.mark.parametrize("proj_size", [0, 1])
def test_gradients_with_lengths_and_resets_match_finite_differences(walk, num_layers, bidirectional, proj_size):
    rng = np.random.default_rng(0)
    options = {"num_layers": num_layers, "bidirectional": bidirectional}
    parameters = make_parameters(rng, inputs=2, hidden=2, proj_size=proj_size, **options)
    rows = num_layers * (1 + bidirectional)
    shown = proj_size or 2
    x, h_0, c_0 = rng.normal(size=(4, 3, 2)), rng.normal(size=(rows, 3, shown)), rng.normal(size=(rows, 3, 2))
    d_output = rng.normal(size=(4, 3, shown * (1 + bidirectional)))
    d_h_n, d_c_n = rng.normal(size=h_0.shape), rng.normal(size=c_0.shape)

    def run() -> Forward:
        return forward(x, parameters, h_0, c_0, **options, **walk)

    def loss() -> float:
        now = run()
        return float((now.output * d_output).sum() + (now.h_n * d_h_n).sum() + (now.c_n * d_c_n).sum())

    found = backward(run(), d_output, d_h_n, d_c_n)
    arrays = {"x": x, "h_0": h_0, "c_0": c_0} | parameters
    gradients = {"x": found.d_x, "h_0": found.d_h_0, "c_0": found.d_c_0} | found.d_parameters
    for name, array in arrays.items():
        np.testing.assert_allclose(gradients[name], differences(loss, array), atol=DIFFERENCE_TOLERANCE, err_msg=name)


@pytest.mark.parametrize("proj_size", [0, 1])
def test_a_short_sequence_is_the_sequence_alone(proj_size):
    rng = np.random.default_rng(0)
    parameters = make_parameters(rng, inputs=3, hidden=2, num_layers=2, bidirectional=True, proj_size=proj_size)
    x, lengths = rng.normal(size=(5, 3, 3)), np.array([5, 2, 0])
    h_0, c_0 = rng.normal(size=(4, 3, proj_size or 2)), rng.normal(size=(4, 3, 2))
    options = {"num_layers": 2, "bidirectional": True}
    batch = forward(x, parameters, h_0, c_0, **options, lengths=lengths)
    for b, length in enumerate(lengths):
        alone = forward(x[:length, [b]], parameters, h_0[:, [b]], c_0[:, [b]], **options)
        np.testing.assert_allclose(batch.output[:length, [b]], alone.output, rtol=1e-14)  # products in another order
        assert not batch.output[length:, b].any()
        np.testing.assert_allclose(batch.h_n[:, [b]], alone.h_n, rtol=1e-14)
        np.testing.assert_allclose(batch.c_n[:, [b]], alone.c_n, rtol=1e-14)


@pytest.mark.parametrize("proj_size", [0, 1])
def test_a_reset_sequence_is_its_parts_laid_end_to_end(proj_size):
    rng = np.random.default_rng(0)
    parameters = make_parameters(rng, inputs=3, hidden=2, bidirectional=True, proj_size=proj_size)
    x = rng.normal(size=(6, 1, 3))
    reset = np.zeros((6, 1), bool)
    reset[[2, 5]] = True
    whole = forward(x, parameters, bidirectional=True, reset=reset)
    parts = [forward(part, parameters, bidirectional=True) for part in np.split(x, [2, 5])]
    np.testing.assert_array_equal(whole.output, np.concatenate([part.output for part in parts]))


@pytest.mark.parametrize("proj_size", [0, 1])
def test_missing_gradients_are_zero(proj_size):
    rng = np.random.default_rng(3)
    options = {"num_layers": 2, "bidirectional": True}
    parameters = make_parameters(rng, inputs=3, hidden=2, proj_size=proj_size, **options)
    run = forward(rng.normal(size=(3, 2, 3)), parameters, **options)
    given = {
        "d_output": rng.normal(size=run.output.shape),
        "d_h_n": rng.normal(size=run.h_n.shape),
        "d_c_n": rng.normal(size=run.c_n.shape),
    }

    def flat(gradients: Gradients) -> np.ndarray:
        arrays = [*gradients[:3], *gradients.d_parameters.values()]
        return np.concatenate([array.ravel() for array in arrays])

    assert not flat(backward(run)).any()
    parts = [flat(backward(run, **{name: gradient})) for name, gradient in given.items()]
    assert all(part.any() for part in parts)
    np.testing.assert_allclose(sum(parts), flat(backward(run, **given)), rtol=0, atol=1e-13)


def test_nothing_given_is_written_to():
    rng = np.random.default_rng(4)
    parameters = make_parameters(rng, inputs=3, hidden=2, bidirectional=True)
    x, h_0, c_0 = rng.normal(size=(3, 2, 3)), rng.normal(size=(2, 2, 2)), rng.normal(size=(2, 2, 2))
    d_output, d_h_n, d_c_n = (
        rng.normal(size=(3, 2, 4)),
        rng.normal(size=(2, 2, 2)),
        rng.normal(size=(2, 2, 2)),
    )
    for array in (x, h_0, c_0, d_output, d_h_n, d_c_n, *parameters.values()):
        array.flags.writeable = False  # NumPy raises where it is written to
    run = forward(x, parameters, h_0, c_0, bidirectional=True)
    gradients = backward(run, d_output, d_h_n, d_c_n)
    assert not np.shares_memory(gradients.d_parameters["bias_ih_l0"], gradients.d_parameters["bias_hh_l0"])


# ---- known values ----


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize("bidirectional", [False, True], ids=["one way", "both ways"])
@pytest.mark.parametrize("num_layers", [1, 2, 3])
@pytest.mark.parametrize("proj_size", [0, 2])
def test_equals_torch(num_layers, bidirectional, bias, proj_size):
    rng = np.random.default_rng([num_layers, bidirectional, bias])
    options = {"num_layers": num_layers, "bidirectional": bidirectional}
    parameters = make_parameters(rng, inputs=3, hidden=5, bias=bias, proj_size=proj_size, **options)
    rows = num_layers * (1 + bidirectional)
    x = rng.normal(size=(7, 4, 3))
    h_0, c_0 = rng.normal(size=(rows, 4, proj_size or 5)), rng.normal(size=(rows, 4, 5))
    run = forward(x, parameters, h_0, c_0, **options)
    weights = [rng.normal(size=array.shape) for array in (run.output, run.h_n, run.c_n)]
    gradients = backward(run, *weights)

    lstm = torch.nn.LSTM(3, 5, bias=bias, proj_size=proj_size, dtype=torch.float64, **options)
    assert list(gradients.d_parameters) == [name for name, _ in lstm.named_parameters()]
    lstm.load_state_dict({name: torch.from_numpy(array) for name, array in parameters.items()})
    leaves = [torch.tensor(array, requires_grad=True) for array in (x, h_0, c_0)]
    output, (h_n, c_n) = lstm(leaves[0], (leaves[1], leaves[2]))
    loss = sum((torch.from_numpy(w) * y).sum() for w, y in zip(weights, (output, h_n, c_n), strict=True))
    loss.backward()

    pairs = [(run.output, output.detach()), (run.h_n, h_n.detach()), (run.c_n, c_n.detach())]
    pairs += [(mine, leaf.grad) for mine, leaf in zip(gradients[:3], leaves, strict=True)]
    pairs += [(gradients.d_parameters[name], p.grad) for name, p in lstm.named_parameters()]
    for mine, theirs in pairs:
        np.testing.assert_allclose(mine, theirs.numpy(), rtol=0, atol=1e-12)


def test_a_projection_by_the_identity_is_none():
    rng = np.random.default_rng(13)
    options = {"num_layers": 2, "bidirectional": True}
    parameters = make_parameters(rng, inputs=3, hidden=2, **options)
    identity = {name.replace("_hh", "_hr"): np.eye(2) for name in parameters if name.startswith("weight_hh")}
    x = rng.normal(size=(5, 4, 3))
    plain, projected = (forward(x, p, **options) for p in (parameters, parameters | identity))
    d_output = rng.normal(size=plain.output.shape)
    of_plain, of_projected = (backward(run, d_output) for run in (plain, projected))

    pairs = [*zip(plain[:3], projected[:3], strict=True), *zip(of_plain[:3], of_projected[:3], strict=True)]
    pairs += [(of_plain.d_parameters[name], of_projected.d_parameters[name]) for name in parameters]
    for without, with_identity in pairs:
        np.testing.assert_array_equal(without, with_identity)


def test_projected_value_computed_by_hand():
    # Each gate is 1/2 and the candidate 0, so c is half of what it was, and m = tanh(c) / 2 = 1/4 in both cells.
    c_prev = np.full((1, 2), 2 * math.atanh(0.5))
    weight_hr = np.array([[1.0, 2.0], [4.0, 8.0], [16.0, 32.0]])
    now = step(np.zeros((1, 1)), np.zeros((1, 3)), c_prev, np.zeros((8, 1)), np.zeros((8, 3)), weight_hr=weight_hr)
    np.testing.assert_allclose(now.h, [[0.75, 3.0, 12.0]], rtol=1e-15)


def test_value_computed_by_hand():
    # Every gate has the same weights, given as x W + h U; torch's layout is the transpose, stacked.
    w, u = np.array([[0.1, 0.2], [0.1, 0.2]]), np.array([[0.0, 0.1], [0.1, 0.0]])
    b, zeros = np.full(8, 0.1), np.zeros((1, 2))
    now = step(np.array([[1.0, 0.0]]), zeros, zeros, np.tile(w.T, (4, 1)), np.tile(u.T, (4, 1)), b)
    np.testing.assert_allclose(now.h, [[0.05943684, 0.09524119]], rtol=0, atol=5e-9)


def test_gates_are_stacked_in_torchs_order():
    bias = np.repeat([1.0, 2.0, 3.0, 4.0], 2)
    now = step(np.zeros((1, 3)), np.zeros((1, 2)), np.zeros((1, 2)), np.zeros((8, 3)), np.zeros((8, 2)), bias)
    wanted = [sigmoid(np.array(1.0)), sigmoid(np.array(2.0)), np.tanh(3.0), sigmoid(np.array(4.0))]
    for mine, value in zip(now[:4], wanted, strict=True):
        np.testing.assert_array_equal(mine, np.full((1, 2), value))


# ---- the layout of what forward returns ----


@pytest.mark.parametrize("proj_size", [0, 1])
def test_gates_are_in_time_order_in_both_directions(proj_size):
    rng = np.random.default_rng(5)
    parameters = make_parameters(rng, inputs=3, hidden=2, bidirectional=True, proj_size=proj_size)
    x, h_0, c_0 = rng.normal(size=(5, 2, 3)), rng.normal(size=(2, 2, proj_size or 2)), rng.normal(size=(2, 2, 2))
    run = forward(x, parameters, h_0, c_0, bidirectional=True)
    alone = {name.removesuffix("_reverse"): p for name, p in parameters.items() if "reverse" in name}
    flipped = forward(x[::-1], alone, h_0[1:], c_0[1:])
    for name, mine, other in zip(Step._fields, run.gates[0][1], flipped.gates[0][0], strict=True):
        assert mine.shape == (5, 2, proj_size if proj_size and name == "h" else 2)
        np.testing.assert_array_equal(mine, other[::-1])
    np.testing.assert_array_equal(run.c_n[1], run.gates[0][1].c[0])
    np.testing.assert_array_equal(run.c_n[0], run.gates[0][0].c[-1])


def test_a_projected_hidden_state_is_what_the_gates_show():
    rng = np.random.default_rng(14)
    options = {"num_layers": 2, "bidirectional": True}
    parameters = make_parameters(rng, inputs=3, hidden=4, proj_size=2, **options)
    run = forward(rng.normal(size=(5, 2, 3)), parameters, **options, lengths=np.array([5, 3]))
    for layer, suffix in itertools.product(range(2), ["", "_reverse"]):
        of_cell = run.gates[layer][bool(suffix)]
        m = of_cell.o * np.tanh(of_cell.c)
        np.testing.assert_allclose(of_cell.h, m @ parameters[f"weight_hr_l{layer}{suffix}"].T, **ROUNDING)
    for outputs, gates in zip([run.inputs[1], run.output], run.gates, strict=True):
        np.testing.assert_array_equal(outputs, np.concatenate([gates[0].h, gates[1].h], axis=2))


def test_last_output_is_the_last_state_only_in_one_direction():
    rng = np.random.default_rng(6)
    x = rng.normal(size=(5, 2, 3))
    deep = forward(x, make_parameters(rng, inputs=3, hidden=2, num_layers=2), num_layers=2)
    np.testing.assert_array_equal(deep.output[-1], deep.h_n[-1])
    options = {"num_layers": 2, "bidirectional": True}
    both = forward(x, make_parameters(rng, inputs=3, hidden=2, **options), **options)
    np.testing.assert_array_equal(both.output[-1, :, :2], both.h_n[-2])
    np.testing.assert_array_equal(both.output[0, :, 2:], both.h_n[-1])
    assert np.abs(both.output[-1, :, 2:] - both.h_n[-1]).min() > 1e-3


# ---- the limits of the gates ----


def saturated_step(rng: np.random.Generator, a_i: float, a_f: float) -> tuple[Step, np.ndarray]:
    """A step whose input and forget gate are 0 or 1 whatever the input, and the cell state before it."""
    c_prev = rng.normal(size=(2, 3))
    bias = np.concatenate([np.full(3, a_i), np.full(3, a_f), rng.normal(size=6)])
    weight_ih, weight_hh = rng.normal(size=(12, 4)), rng.normal(size=(12, 3))
    return step(rng.normal(size=(2, 4)), rng.normal(size=(2, 3)), c_prev, weight_ih, weight_hh, bias), c_prev


def test_forget_0_input_1_overwrites():
    now, c_prev = saturated_step(np.random.default_rng(7), a_i=800, a_f=-800)
    np.testing.assert_array_equal(now.c, now.g)
    _, d_c_prev = step_backward(np.ones_like(c_prev), np.ones_like(c_prev), now, c_prev)
    assert not d_c_prev.any()


def test_forget_1_input_0_copies():
    now, c_prev = saturated_step(np.random.default_rng(8), a_i=-800, a_f=800)
    np.testing.assert_array_equal(now.c, c_prev)
    d_c = np.full_like(c_prev, 0.3)
    d_a, d_c_prev = step_backward(np.zeros_like(c_prev), d_c, now, c_prev)
    np.testing.assert_array_equal(d_c_prev, d_c)
    assert not d_a.any()


# ---- the paths of the gradient ----


def jacobian_by_paths(
    now: Step, c_prev: np.ndarray, weight_hh: np.ndarray, weight_hr: np.ndarray | None = None
) -> np.ndarray:
    """Equation (4.7) of the text, for a batch of one."""
    i, f, g, o, c, _ = (array[0] for array in now)
    u_i, u_f, u_g, u_o = np.split(weight_hh, 4)
    direct = np.diag(f)
    by_f = np.diag(c_prev[0] * f * (1 - f)) @ u_f
    by_i = np.diag(g * i * (1 - i)) @ u_i
    by_g = np.diag(i * (1 - g**2)) @ u_g
    by_o = np.diag(np.tanh(c) * o * (1 - o)) @ u_o
    r = np.diag(o * (1 - np.tanh(c) ** 2))
    if weight_hr is not None:
        by_o, r = weight_hr @ by_o, weight_hr @ r
    into_c = by_f + by_i + by_g
    return np.block([[direct, into_c], [r @ direct, r @ into_c + by_o]])


@pytest.mark.parametrize("proj_size", [0, 2])
def test_the_paths_add_up_to_the_jacobian(proj_size):
    rng = np.random.default_rng(9)
    hidden, shown = 3, proj_size or 3
    x, h_prev, c_prev = rng.normal(size=(1, 2)), rng.normal(size=(1, shown)), rng.normal(size=(1, hidden))
    weight_ih, weight_hh = rng.normal(size=(12, 2)), rng.normal(size=(12, shown))
    weight_hr = rng.normal(size=(shown, hidden)) if proj_size else None

    def take() -> Step:
        return step(x, h_prev, c_prev, weight_ih, weight_hh, weight_hr=weight_hr)

    def state() -> np.ndarray:
        now = take()
        return np.concatenate([now.c[0], now.h[0]])

    now = take()
    by_paths = jacobian_by_paths(now, c_prev, weight_hh, weight_hr)
    by_difference = np.hstack([differences(state, c_prev)[:, 0], differences(state, h_prev)[:, 0]])
    np.testing.assert_allclose(by_paths, by_difference, rtol=0, atol=2e-9)

    # Its rows are what backward finds for a gradient that arrives at one entry of c_t or h_t alone.
    for row, arriving in zip(by_paths, np.eye(hidden + shown), strict=True):
        d_a, d_c_prev = step_backward(arriving[None, hidden:], arriving[None, :hidden], now, c_prev, weight_hr)
        np.testing.assert_allclose(np.hstack([d_c_prev, d_a @ weight_hh])[0], row, rtol=0, atol=1e-14)


@pytest.mark.parametrize("overwrites", [False, True], ids=["open", "overwriting"])
def test_the_four_terms_where_the_hidden_state_follows_the_cell(overwrites):
    rng = np.random.default_rng(10)
    x, weight_ih, weight_hh = rng.normal(size=(1, 2)), rng.normal(size=(12, 2)), rng.normal(size=(12, 3))
    c_prev, o_prev = rng.normal(size=(1, 3)), rng.uniform(size=(1, 3))
    bias = np.concatenate([np.full(3, 800.0), np.full(3, -800.0), np.zeros(6)]) * overwrites

    def now() -> Step:
        return step(x, o_prev * np.tanh(c_prev), c_prev, weight_ih, weight_hh, bias)

    r_prev = np.diag((o_prev * (1 - np.tanh(c_prev) ** 2))[0])
    blocks = jacobian_by_paths(now(), c_prev, weight_hh)
    four_terms = blocks[:3, :3] + blocks[:3, 3:] @ r_prev  # (4.9)
    wanted = differences(lambda: now().c[0], c_prev)[:, 0]
    np.testing.assert_allclose(four_terms, wanted, rtol=0, atol=2e-9)
    if overwrites:
        by_candidate = np.diag(1 - now().g[0] ** 2) @ weight_hh[6:9] @ r_prev  # (4.12)
        np.testing.assert_allclose(four_terms, by_candidate, rtol=0, atol=1e-15)
        assert np.abs(by_candidate).max() > 0.1


def doubling_cell() -> dict[str, np.ndarray]:
    """The example of equation (4.11): one unit, and 6 as the only weight that is not zero."""
    return {"weight_ih_l0": np.zeros((4, 1)), "weight_hh_l0": np.array([[0.0], [0.0], [6.0], [0.0]])}


def test_a_step_can_stretch_a_gradient():
    zero = np.zeros((1, 1))
    weight_ih, weight_hh = doubling_cell().values()
    jacobian = jacobian_by_paths(step(zero, zero, zero, weight_ih, weight_hh), zero, weight_hh)
    np.testing.assert_array_equal(jacobian, [[0.5, 3.0], [0.25, 1.5]])
    np.testing.assert_array_equal(jacobian @ jacobian, 2 * jacobian)
    assert np.linalg.norm(jacobian, 2) == pytest.approx(math.sqrt(1 / 4 + 9 + 1 / 16 + 9 / 4))
    assert np.linalg.norm(jacobian, 2) == pytest.approx(3.40, abs=5e-3)


def test_a_gradient_explodes_while_the_forget_gate_is_a_half():
    for time in (1, 2, 10, 20, 100):
        run = forward(np.zeros((time, 1, 1)), doubling_cell())
        assert (run.gates[0][0].f == 0.5).all()
        gradients = backward(run, d_c_n=np.ones((1, 1, 1)))
        assert gradients.d_c_0.item() == 2.0 ** (time - 2)
        assert gradients.d_h_0.item() == 3 * 2.0 ** (time - 1)


def test_the_carousel_keeps_a_gradient_for_any_time():
    # f is 1, i and o are 0: nothing but the direct path, over a thousand steps.
    bias = np.array([-800.0, 800.0, 0.0, -800.0])
    weights = np.random.default_rng(11).normal(size=(4, 1))
    parameters = {
        "weight_ih_l0": weights,
        "weight_hh_l0": weights,
        "bias_ih_l0": bias,
        "bias_hh_l0": 0 * bias,
    }
    run = forward(np.ones((1000, 1, 1)), parameters)
    assert backward(run, d_c_n=np.full((1, 1, 1), 0.7)).d_c_0.item() == 0.7


# ---- properties ----

quick = settings(max_examples=25, deadline=None, derandomize=True, database=None)
small = st.integers(1, 4)


@st.composite
def runs(draw) -> tuple[np.random.Generator, np.ndarray, dict, np.ndarray, np.ndarray, int]:
    """An input, parameters and an initial state, one direction, with the number of layers."""
    time, batch, inputs, hidden, num_layers = (draw(small) for _ in range(5))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    options = {"bias": draw(st.booleans()), "proj_size": draw(st.integers(0, 3))}
    parameters = make_parameters(rng, inputs=inputs, hidden=hidden, num_layers=num_layers, **options)
    x = rng.normal(size=(time, batch, inputs))
    h_0 = rng.normal(size=(num_layers, batch, options["proj_size"] or hidden))
    c_0 = rng.normal(size=(num_layers, batch, hidden))
    return rng, x, parameters, h_0, c_0, num_layers


# Products of other sizes may add in another order, so rows agree to rounding and not to the bit.
ROUNDING = {"rtol": 0, "atol": 1e-13}


@quick
@given(runs(), st.data())
def test_a_sequence_cut_in_two_equals_the_whole(run, data):
    rng, x, parameters, h_0, c_0, num_layers = run
    cut = data.draw(st.integers(0, len(x)))
    whole = forward(x, parameters, h_0, c_0, num_layers=num_layers)
    first = forward(x[:cut], parameters, h_0, c_0, num_layers=num_layers)
    second = forward(x[cut:], parameters, first.h_n, first.c_n, num_layers=num_layers)
    np.testing.assert_allclose(np.concatenate([first.output, second.output]), whole.output, **ROUNDING)
    np.testing.assert_allclose(second.h_n, whole.h_n, **ROUNDING)
    np.testing.assert_allclose(second.c_n, whole.c_n, **ROUNDING)

    d_output, d_h_n, d_c_n = (rng.normal(size=y.shape) for y in (whole.output, whole.h_n, whole.c_n))
    wanted = backward(whole, d_output, d_h_n, d_c_n)
    later = backward(second, d_output[cut:], d_h_n, d_c_n)
    earlier = backward(first, d_output[:cut], later.d_h_0, later.d_c_0)
    np.testing.assert_allclose(np.concatenate([earlier.d_x, later.d_x]), wanted.d_x, **ROUNDING)
    np.testing.assert_allclose(earlier.d_h_0, wanted.d_h_0, **ROUNDING)
    np.testing.assert_allclose(earlier.d_c_0, wanted.d_c_0, **ROUNDING)
    for name, gradient in wanted.d_parameters.items():
        both = earlier.d_parameters[name] + later.d_parameters[name]
        np.testing.assert_allclose(both, gradient, **ROUNDING)


@quick
@given(runs(), st.data())
def test_rows_of_a_batch_do_not_meet(run, data):
    rng, x, parameters, h_0, c_0, num_layers = run
    batch = x.shape[1]
    # A permutation of the rows, or some of them, down to a row alone.
    rows = data.draw(st.lists(st.integers(0, batch - 1), unique=True, min_size=1))
    whole = forward(x, parameters, h_0, c_0, num_layers=num_layers)
    part = forward(x[:, rows], parameters, h_0[:, rows], c_0[:, rows], num_layers=num_layers)
    for mine, other in zip(part[:3], whole[:3], strict=True):
        np.testing.assert_allclose(mine, other[:, rows], **ROUNDING)

    weights = [rng.normal(size=array.shape) for array in whole[:3]]
    d_whole, d_part = backward(whole, *weights), backward(part, *(w[:, rows] for w in weights))
    for mine, other in zip(d_part[:3], d_whole[:3], strict=True):
        np.testing.assert_allclose(mine, other[:, rows], **ROUNDING)


# ---- the sigmoid ----


def test_sigmoid_is_accurate_and_does_not_overflow():
    a = np.concatenate([np.linspace(-700, 700, 2001), np.logspace(-20, 0, 41), -np.logspace(-20, 0, 41)])
    with localcontext() as context:
        context.prec = 60
        exact = [1 / (1 + (-Decimal(value)).exp()) for value in a.tolist()]
        errors = [
            float(abs(Decimal(mine) - value) / value) for mine, value in zip(sigmoid(a).tolist(), exact, strict=True)
        ]
    assert max(errors) < 4 * np.finfo(np.float64).eps
    np.testing.assert_array_equal(sigmoid(np.array([-np.inf, -1e308, 1e308, np.inf])), [0, 0, 1, 1])
    assert np.isnan(sigmoid(np.array(np.nan)))


# ---- what is refused, and in which words ----


def step_arguments(*, projected: bool = False) -> dict[str, np.ndarray]:
    shapes = {"x": (2, 3), "h_prev": (2, 5), "c_prev": (2, 5), "weight_ih": (20, 3), "weight_hh": (20, 5)}
    shapes |= {"bias_ih": (20,), "bias_hh": (20,)}
    if projected:
        shapes |= {"h_prev": (2, 4), "weight_hh": (20, 4), "weight_hr": (4, 5)}
    return {name: np.zeros(shape) for name, shape in shapes.items()}


@pytest.mark.parametrize(
    ("name", "projected"),
    [(name, projected) for projected in (False, True) for name in step_arguments(projected=projected)],
)
def test_step_refuses_other_shapes_and_dtypes(name, projected):
    arguments = step_arguments(projected=projected)
    with pytest.raises(DtypeError, match=rf"^{name}: needed float64, given float32; .*$"):
        step(**arguments | {name: arguments[name].astype(np.float32)})
    shape = (arguments[name].shape[0] + 1, *arguments[name].shape[1:])
    with pytest.raises(ShapeError, match=r"^\w+: needed \(.*\) = \(.*\), given \(.*\)$"):
        step(**arguments | {name: np.zeros(shape)})
    with pytest.raises(ShapeError, match=rf"^{name}: needed .*, given \(1, 1, 1\)$"):
        step(**arguments | {name: np.zeros((1, 1, 1))})


def test_a_step_names_the_axes():
    arguments = step_arguments()
    with pytest.raises(ShapeError) as caught:
        step(**arguments | {"c_prev": np.zeros((3, 5))})
    assert str(caught.value) == "c_prev: needed (B, H) = (2, 5), given (3, 5)"
    with pytest.raises(ShapeError) as caught:
        step(**arguments | {"x": np.zeros((2, 4))})
    assert str(caught.value) == "x: needed (B, I) = (any, 3), given (2, 4)"


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("h_prev", (2, 5), "h_prev: needed (B, P) = (2, 4), given (2, 5)"),
        ("c_prev", (2, 4), "c_prev: needed (B, H) = (2, 5), given (2, 4)"),
        ("weight_hh", (20, 5), "weight_hh: needed (4H, P) = (20, 4), given (20, 5)"),
        ("weight_hr", (4,), "weight_hr: needed (P, H) = (any, any), given (4,)"),
    ],
)
def test_a_projected_step_names_the_axes(name, shape, message):
    with pytest.raises(ShapeError) as caught:
        step(**step_arguments(projected=True) | {name: np.zeros(shape)})
    assert str(caught.value) == message


def test_step_backward_refuses_other_shapes_and_dtypes():
    now, good, wide = step(**step_arguments()), np.zeros((2, 5)), np.zeros((2, 6))
    with pytest.raises(ShapeError, match=r"^d_h: needed \(B, H\) = \(2, 5\), given \(2, 6\)$"):
        step_backward(wide, good, now, good)
    with pytest.raises(ShapeError, match=r"^d_c: "):
        step_backward(good, wide, now, good)
    with pytest.raises(ShapeError, match=r"^step\.o: "):
        step_backward(good, good, now._replace(o=wide), good)
    with pytest.raises(DtypeError, match=r"^c_prev: needed float64, given int64; "):
        step_backward(good, good, now, good.astype(np.int64))


def test_step_backward_refuses_what_does_not_fit_the_projection():
    arguments = step_arguments(projected=True)
    now, shown, good, weight_hr = step(**arguments), np.zeros((2, 4)), np.zeros((2, 5)), arguments["weight_hr"]
    with pytest.raises(ShapeError, match=r"^d_h: needed \(B, P\) = \(2, 4\), given \(2, 5\)$"):
        step_backward(good, good, now, good, weight_hr)
    with pytest.raises(ShapeError, match=r"^d_c: needed \(B, H\) = \(2, 5\), given \(2, 4\)$"):
        step_backward(shown, shown, now, good, weight_hr)
    with pytest.raises(ShapeError, match=r"^step\.h: needed \(B, P\) = \(2, 4\), given \(2, 5\)$"):
        step_backward(shown, good, now._replace(h=good), good, weight_hr)
    with pytest.raises(ShapeError, match=r"^weight_hr: needed \(P, H\) = \(any, 5\), given \(5, 4\)$"):
        step_backward(shown, good, now, good, weight_hr.T)
    with pytest.raises(DtypeError, match=r"^weight_hr: needed float64, given float32; "):
        step_backward(shown, good, now, good, weight_hr.astype(np.float32))
    with pytest.raises(ShapeError, match=r"^step\.h: needed \(B, H\) = \(2, 5\), given \(2, 4\)$"):
        step_backward(good, good, now, good)  # the projection was forgotten


def small_run(*, proj_size: int = 0, **changes) -> Forward:
    rng = np.random.default_rng(12)
    parameters = make_parameters(rng, inputs=3, hidden=2, num_layers=2, bidirectional=True, proj_size=proj_size)
    arguments = {"x": np.zeros((5, 4, 3)), "parameters": parameters, "num_layers": 2, "bidirectional": True}
    return forward(**arguments | changes)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"x": np.zeros((5, 4, 2))}, ShapeError, "x: needed (T, B, I) = (any, any, 3), given (5, 4, 2)"),
        ({"x": np.zeros((5, 3))}, ShapeError, "x: needed (T, B, I) = (any, any, 3), given (5, 3)"),
        ({"h_0": np.zeros((2, 4, 2))}, ShapeError, "h_0: needed (L*D, B, H) = (4, 4, 2), given (2, 4, 2)"),
        ({"c_0": np.zeros((4, 5, 2))}, ShapeError, "c_0: needed (L*D, B, H) = (4, 4, 2), given (4, 5, 2)"),
        (
            {"proj_size": 1, "h_0": np.zeros((4, 4, 2))},
            ShapeError,
            "h_0: needed (L*D, B, P) = (4, 4, 1), given (4, 4, 2)",
        ),
        (
            {"proj_size": 1, "c_0": np.zeros((4, 4, 1))},
            ShapeError,
            "c_0: needed (L*D, B, H) = (4, 4, 2), given (4, 4, 1)",
        ),
        ({"num_layers": 0}, ArgumentError, "num_layers: needed at least 1, given 0"),
        (
            {"x": np.zeros((5, 4, 3), np.float32)},
            DtypeError,
            "x: needed float64, given float32; convert with .astype('float64')",
        ),
    ],
)
def test_forward_refuses(changes, error, message):
    with pytest.raises(error) as caught:
        small_run(**changes)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("weight_hh_l0", (8, 3), "weight_hh_l0: needed (4H, H) = (12, 3), given (8, 3)"),
        ("weight_ih_l0_reverse", (8, 4), "weight_ih_l0_reverse: needed (4H, I) = (8, 3), given (8, 4)"),
        ("weight_ih_l1", (8, 2), "weight_ih_l1: needed (4H, D*H) = (8, 4), given (8, 2)"),
        ("bias_hh_l1_reverse", (2,), "bias_hh_l1_reverse: needed (4H) = (8), given (2,)"),
    ],
)
def test_forward_refuses_parameters_of_other_shapes(name, shape, message):
    parameters = small_run().parameters | {name: np.zeros(shape)}
    with pytest.raises(ShapeError) as caught:
        small_run(parameters=parameters)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("weight_hr_l0", (1, 2, 1), "weight_hr_l0: needed (P, H) = (any, any), given (1, 2, 1)"),
        ("weight_hh_l0", (8, 2), "weight_hh_l0: needed (4H, P) = (8, 1), given (8, 2)"),
        ("weight_hh_l1_reverse", (8, 2), "weight_hh_l1_reverse: needed (4H, P) = (8, 1), given (8, 2)"),
        ("weight_ih_l1", (8, 4), "weight_ih_l1: needed (4H, D*P) = (8, 2), given (8, 4)"),
        ("weight_hr_l1", (2, 2), "weight_hr_l1: needed (P, H) = (1, 2), given (2, 2)"),
    ],
)
def test_forward_refuses_projected_parameters_of_other_shapes(name, shape, message):
    parameters = small_run(proj_size=1).parameters | {name: np.zeros(shape)}
    with pytest.raises(ShapeError) as caught:
        small_run(parameters=parameters)
    assert str(caught.value) == message


def test_forward_names_parameters_that_are_missing_or_unknown():
    parameters = small_run().parameters
    fewer = {name: array for name, array in parameters.items() if name != "bias_hh_l1"}
    with pytest.raises(ArgumentError) as caught:
        small_run(parameters=fewer | {"weight_ho_l0": np.zeros((1, 2))})
    wanted = "parameters: missing [bias_hh_l1], unknown [weight_ho_l0] for num_layers 2 and 2 direction(s)"
    assert str(caught.value) == wanted


def test_all_cells_are_projected_or_none():
    parameters = small_run(proj_size=1).parameters
    fewer = {name: array for name, array in parameters.items() if name not in ("weight_hr_l0", "weight_hr_l1_reverse")}
    with pytest.raises(ArgumentError) as caught:
        small_run(parameters=fewer)
    wanted = "parameters: missing [weight_hr_l0, weight_hr_l1_reverse], unknown [] for num_layers 2 and 2 direction(s)"
    assert str(caught.value) == wanted


@pytest.mark.parametrize("proj_size", [0, 1])
@pytest.mark.parametrize("name", ["d_output", "d_h_n", "d_c_n"])
def test_backward_refuses_other_shapes_and_dtypes(name, proj_size):
    run = small_run(proj_size=proj_size)
    needed = {"d_output": "(T, B, D*H) = (5, 4, 4)", "d_h_n": "(L*D, B, H) = (4, 4, 2)"}
    if proj_size:
        needed = {"d_output": "(T, B, D*P) = (5, 4, 2)", "d_h_n": "(L*D, B, P) = (4, 4, 1)"}
    needed["d_c_n"] = "(L*D, B, H) = (4, 4, 2)"
    with pytest.raises(GatewiseError) as caught:
        backward(run, **{name: np.zeros((1, 4, 2))})
    assert isinstance(caught.value, ShapeError)
    assert str(caught.value) == f"{name}: needed {needed[name]}, given (1, 4, 2)"
    with pytest.raises(DtypeError, match=rf"^{name}: needed float64, given float32"):
        backward(run, **{name: np.zeros((4, 4, 2), np.float32)})


# ---- the text ----

CITATION = re.compile(r"\((\d\.\d+)\)")
REFERENCE_FILES = sorted((ROOT / "src/gatewise/reference").glob("*.py"))
CORE_FILES = sorted((ROOT / "csrc").glob("*.[hc]pp"))


def comments(path: Path) -> Iterator[str]:
    """The comments of a Python or C++ file, and the strings of the former, which hold the docstrings."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            if token.type in (tokenize.COMMENT, tokenize.STRING):
                yield token.string
    else:
        yield from re.findall(r"//.*|/\*[\s\S]*?\*/", text)


def tags() -> list[str]:
    return re.findall(r"\\tag\{(.*?)\}", EQUATIONS.read_text(encoding="utf-8"))


def test_equation_numbers_are_unique_and_in_order():
    numbers = [tuple(map(int, tag.split("."))) for tag in tags()]
    assert numbers == sorted(set(numbers))


@pytest.mark.parametrize("path", [EQUATIONS, *REFERENCE_FILES, *CORE_FILES], ids=lambda path: path.name)
def test_each_cited_equation_exists(path):
    texts = [path.read_text(encoding="utf-8")] if path == EQUATIONS else comments(path)
    cited = {number for text in texts for number in CITATION.findall(text)}
    assert cited <= set(tags())


def test_the_reference_cites_each_equation_of_forward_backward_and_the_variants():
    beside_code = [text for path in REFERENCE_FILES for text in comments(path) if text.startswith("#")]
    cited = {number for text in beside_code for number in CITATION.findall(text)}
    sections = {tag for tag in tags() if tag[0] in "1237"}
    assert sections - cited == {"1.8"}  # the stacked form says (1.1) in one product; the code has it in two


def test_the_examples_in_the_text_run():
    results = doctest.testfile(str(EQUATIONS), module_relative=False, encoding="utf-8")
    assert results.attempted > 5
    assert results.failed == 0
