"""gatewise.LSTM and LSTMCell against torch's own: values, gradients, weights, errors."""

import copy
import itertools
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch

import gatewise
from gatewise.errors import DtypeError, KernelError, ShapeError
from gatewise.reference.code import PLAIN_CODE

# Outputs within 1e-6 and gradients within 1e-5, relative to the largest value, in
# float32 (both sides round; a gradient sums T * B terms); 1e-12 in float64.
TOLERANCE = {torch.float32: (1e-6, 1e-5), torch.float64: (1e-12, 1e-12)}


def pair(*args, dtype=torch.float32, **options):
    torch.manual_seed(0)
    theirs = torch.nn.LSTM(*args, **options, dtype=dtype)
    ours = gatewise.LSTM(*args, **options, dtype=dtype)
    ours.load_state_dict(theirs.state_dict())
    return theirs, ours


def relative(got, expected):
    got, expected = got.detach(), expected.detach()
    return float((got - expected).abs().max() / expected.abs().max().clamp_min(1e-30))


def results(lstm, x, state):
    """Outputs, and gradients of a loss that weighs every number of every output differently."""
    leaves = [t.clone().requires_grad_() for t in (x, *(state or ()))]
    output, (h_n, c_n) = lstm(leaves[0], tuple(leaves[1:]) or None)
    draw = torch.Generator().manual_seed(1)
    loss = sum((t * torch.randn(t.shape, generator=draw, dtype=t.dtype)).sum() for t in (output, h_n, c_n))
    gradients = torch.autograd.grad(loss, [*leaves, *lstm.parameters()])
    return [output, h_n, c_n], gradients


GRID = list(itertools.product([1, 2, 3], [True, False], [True, False], [True, False], [True, False]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize(("layers", "bias", "batch_first", "bidirectional", "with_state"), GRID)
def test_equals_torch(dtype, layers, bias, batch_first, bidirectional, with_state):
    theirs, ours = pair(5, 11, layers, bias=bias, batch_first=batch_first, bidirectional=bidirectional, dtype=dtype)
    T, B, directions = 7, 3, 1 + bidirectional
    x = torch.randn(*((B, T) if batch_first else (T, B)), 5, dtype=dtype)
    state = [torch.randn(layers * directions, B, 11, dtype=dtype) for _ in "hc"] if with_state else None
    expected, expected_gradients = results(theirs, x, state)
    got, gradients = results(ours, x, state)
    output_tolerance, gradient_tolerance = TOLERANCE[dtype]
    for a, b in zip(got, expected, strict=True):
        assert a.shape == b.shape
        assert relative(a, b) <= output_tolerance
    for a, b in zip(gradients, expected_gradients, strict=True):
        assert a.shape == b.shape
        assert relative(a, b) <= gradient_tolerance


@pytest.mark.parametrize("size", [(28, 100, 28, 64), (1, 64, 10, 64), (32, 32, 35, 8), (128, 128, 100, 1)], ids=str)
def test_equals_torch_at_real_sizes(size):
    I, H, T, B = size
    theirs, ours = pair(I, H)
    x, state = torch.randn(T, B, I), [torch.randn(1, B, H) for _ in "hc"]
    expected, expected_gradients = results(theirs, x, state)
    got, gradients = results(ours, x, state)
    assert max(map(relative, got, expected)) <= 1e-6
    assert max(map(relative, gradients, expected_gradients)) <= 1e-5


@pytest.mark.parametrize("batch_first", [True, False])
def test_single_sequence_without_batch_axis(batch_first):
    theirs, ours = pair(4, 6, 2, batch_first=batch_first)
    x, state = torch.randn(9, 4), tuple(torch.randn(2, 6) for _ in "hc")
    for hx in (None, state):
        expected, (h_n, c_n) = theirs(x, hx)
        got, (h, c) = ours(x, hx)
        assert (got.shape, h.shape, c.shape) == (expected.shape, h_n.shape, c_n.shape)
        assert relative(got, expected) <= 1e-6


@pytest.mark.parametrize(("layers", "bidirectional"), [(1, False), (2, True)])
@pytest.mark.parametrize("batch_first", [True, False])
def test_gradcheck(layers, bidirectional, batch_first):
    torch.manual_seed(0)
    lstm = gatewise.LSTM(2, 3, layers, batch_first=batch_first, bidirectional=bidirectional, dtype=torch.float64)
    x = torch.randn(3, 2, 2, dtype=torch.float64, requires_grad=True)
    batch = 3 if batch_first else 2
    state = [torch.randn(layers * (1 + bidirectional), batch, 3, dtype=torch.float64, requires_grad=True) for _ in "hc"]
    names = [name for name, _ in lstm.named_parameters()]

    def function(x, h_0, c_0, *parameters):
        weights = dict(zip(names, parameters, strict=True))
        output, (h_n, c_n) = torch.func.functional_call(lstm, weights, (x, (h_0, c_0)))
        return output, h_n, c_n

    parameters = [p.detach().clone().requires_grad_() for p in lstm.parameters()]
    assert torch.autograd.gradcheck(function, (x, *state, *parameters))


def test_same_seed_same_initial_weights_and_state_dict():
    for options in ({}, {"bidirectional": True}, {"bias": False}):
        torch.manual_seed(3)
        theirs = torch.nn.LSTM(5, 7, 2, **options)
        torch.manual_seed(3)
        ours = gatewise.LSTM(5, 7, 2, **options)
        assert list(ours.state_dict()) == list(theirs.state_dict())
        assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))
        theirs.load_state_dict(ours.state_dict())


def test_dropout_draws_torchs_own_masks():
    theirs, ours = pair(4, 8, 3, dropout=0.5)
    x = torch.randn(6, 2, 4)
    for lstm in (theirs, ours):
        lstm.train()
    torch.manual_seed(5)
    expected = theirs(x)[0]
    torch.manual_seed(5)
    got = ours(x)[0]
    assert relative(got, expected) <= 1e-6
    assert not torch.equal(ours(x)[0], got)
    ours.eval()
    theirs.eval()
    assert relative(ours(x)[0], theirs(x)[0]) <= 1e-6


def test_dropout_with_batch_first_and_gradients():
    torch.manual_seed(0)
    time_first = gatewise.LSTM(4, 8, 2, dropout=0.3, bidirectional=True)
    batch_first = gatewise.LSTM(4, 8, 2, dropout=0.3, bidirectional=True, batch_first=True)
    batch_first.load_state_dict(time_first.state_dict())
    x = torch.randn(6, 2, 4)
    torch.manual_seed(5)
    expected, gradients = results(time_first, x, None)
    torch.manual_seed(5)
    output, (h_n, _) = batch_first(x.transpose(0, 1))
    assert torch.equal(output.transpose(0, 1), expected[0])
    assert torch.equal(h_n, expected[1])
    assert all(float(g.abs().max()) > 0 for g in gradients)


def test_any_strides():
    """Transposed, sliced and expanded inputs and output gradients give what contiguous ones give."""
    _, lstm = pair(4, 6, 2)
    base = torch.randn(3, 7, 8)
    views = {
        "transposed": base[..., :4].transpose(0, 1),
        "every second number": base[..., ::2],
        "flipped": base[..., :4].flip(0)[1:],
        "expanded": torch.randn(1, 1, 4).expand(5, 3, 4),
    }
    for name, x in views.items():
        expected, expected_gradients = results(lstm, x.contiguous(), None)
        leaf = x.detach().requires_grad_()
        output, (h_n, c_n) = lstm(leaf)
        assert torch.equal(output, expected[0]), name
        draw = torch.Generator().manual_seed(1)
        loss = sum((t * torch.randn(t.shape, generator=draw)).sum() for t in (output, h_n, c_n))
        for a, b in zip(torch.autograd.grad(loss, [leaf, *lstm.parameters()]), expected_gradients, strict=True):
            assert torch.equal(a, b), name
    output, _ = lstm(base[..., :4])
    (expanded,) = torch.autograd.grad(output.sum(), lstm.weight_ih_l0, retain_graph=True)
    (dense,) = torch.autograd.grad(output, lstm.weight_ih_l0, torch.ones_like(output))
    assert torch.equal(expanded, dense)


def test_backward_twice_over_a_retained_graph():
    _, lstm = pair(4, 6, 2, bidirectional=True)
    output, _ = lstm(torch.randn(5, 3, 4))
    first = torch.autograd.grad(output.sum(), list(lstm.parameters()), retain_graph=True)
    second = torch.autograd.grad(output.sum(), list(lstm.parameters()), retain_graph=True)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_both_biases_keep_gradients_of_their_own():
    _, lstm = pair(4, 6)
    lstm(torch.randn(5, 3, 4))[0].sum().backward()
    before = lstm.bias_hh_l0.grad.clone()
    assert torch.equal(lstm.bias_ih_l0.grad, before)
    lstm.bias_ih_l0.grad.zero_()
    assert torch.equal(lstm.bias_hh_l0.grad, before)


def test_only_wanted_gradients():
    theirs, ours = pair(4, 6, 2)
    x = torch.randn(5, 3, 4)
    for lstm in (theirs, ours):
        for parameter in lstm.parameters():
            parameter.requires_grad_(False)
        lstm.weight_hh_l1.requires_grad_(True)
        lstm.bias_ih_l0.requires_grad_(True)
        lstm(x)[0].square().sum().backward()
    for (name, a), b in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        assert (a.grad is None) == (b.grad is None), name
        if a.grad is not None:
            assert relative(a.grad, b.grad) <= 1e-5, name


def test_changing_a_saved_tensor_in_place_is_noticed():
    _, lstm = pair(4, 6)
    output, _ = lstm(torch.randn(5, 3, 4))
    output.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        output.sum().backward()


@pytest.mark.parametrize(
    ("layers", "bidirectional", "bias", "batch_first"), [(1, False, True, False), (2, True, False, True)]
)
def test_gradients_of_gradients(layers, bidirectional, bias, batch_first):
    """By the composite; gradgradcheck differentiates the first gradients numerically, by the kernels."""
    options = {"bias": bias, "batch_first": batch_first, "bidirectional": bidirectional, "dtype": torch.float64}
    torch.manual_seed(0)
    lstm = gatewise.LSTM(2, 3, layers, **options)
    names = [name for name, _ in lstm.named_parameters()]

    def function(x, h_0, c_0, *weights):
        output, state = torch.func.functional_call(lstm, dict(zip(names, weights, strict=True)), (x, (h_0, c_0)))
        return output, *state

    state = [torch.randn(layers * (1 + bidirectional), 3, 3, dtype=torch.float64, requires_grad=True) for _ in "hc"]
    x = torch.randn(*((3, 2) if batch_first else (2, 3)), 2, dtype=torch.float64, requires_grad=True)
    weights = [p.detach().requires_grad_() for p in lstm.parameters()]
    assert torch.autograd.gradgradcheck(function, (x, *state, *weights))


def test_a_gradient_penalty_equals_torchs():
    """Only some gradients are asked for, some results are not used, and the graph is kept in between."""
    theirs, ours = pair(4, 6, 2)
    x, found = torch.randn(5, 3, 4), []
    for lstm in (theirs, ours):
        leaf = x.clone().requires_grad_()
        output = lstm(leaf)[0]
        (gradient,) = torch.autograd.grad(output.sum(), leaf, create_graph=True)
        (output.mean() + gradient.square().sum()).backward()
        found.append([leaf.grad, *(p.grad for p in lstm.parameters())])
    for expected, got in zip(*found, strict=True):
        assert relative(got, expected) <= 1e-5


def test_empty_batch():
    theirs, ours = pair(4, 6, 2)
    expected, got = theirs(torch.zeros(5, 0, 4)), ours(torch.zeros(5, 0, 4))
    assert got[0].shape == expected[0].shape
    assert got[1][0].shape == expected[1][0].shape


def test_gradients_of_an_empty_batch_are_zero():
    lstm, cell = gatewise.LSTM(3, 8, 2, bidirectional=True), gatewise.LSTMCell(3, 8)
    lstm(torch.randn(5, 0, 3))[0].sum().backward()
    cell(torch.ones(0, 3))[0].sum().backward()
    for parameter in (*lstm.parameters(), *cell.parameters()):
        assert torch.equal(parameter.grad, torch.zeros_like(parameter))


def test_negated_views_are_resolved():
    theirs, ours = pair(1, 5)
    x, state = torch._neg_view(torch.randn(3, 2, 1)), [torch._neg_view(torch.randn(1, 2, 5)) for _ in "hc"]
    expected, got = theirs(x, tuple(state))[0], ours(x, tuple(state))[0]
    assert relative(got, expected) <= 1e-6
    d_output = torch._neg_view(torch.randn(3, 2, 5))
    (a,) = torch.autograd.grad(got, ours.weight_ih_l0, d_output)
    (b,) = torch.autograd.grad(expected, theirs.weight_ih_l0, d_output)
    assert relative(a, b) <= 1e-5


def test_weights_that_do_not_fit_are_refused():
    x = torch.ones(2, 1, 3)
    changes = {
        "weight_hh_l0": torch.zeros(16, 4, dtype=torch.float64),
        "weight_ih_l1": torch.zeros(16, 5),
        "bias_hh_l0": torch.zeros(1),
    }
    for name, value in changes.items():
        lstm = gatewise.LSTM(3, 4, 2)
        setattr(lstm, name, torch.nn.Parameter(value))
        with pytest.raises(RuntimeError, match=f"^{name} "):
            lstm(x)


@pytest.mark.parametrize("proj_size", [0, 2])
def test_the_operators_keep_what_they_promise_to_torch(proj_size):
    """Schemas, shapes without numbers, autograd, and the compiler's view, as torch itself checks them."""
    lstm = gatewise.LSTM(3, 4, 2, bidirectional=True, proj_size=proj_size)
    weights = list(lstm.parameters())
    x, h_0, c_0 = (torch.randn(*s, requires_grad=True) for s in ((5, 2, 3), (4, 2, proj_size or 4), (4, 2, 4)))
    network = (2, True, False, None, None, None, *PLAIN_CODE, [])
    torch.library.opcheck(torch.ops.gatewise.lstm.default, (x, h_0, c_0, weights, *network))
    torch.library.opcheck(torch.ops.gatewise.lstm.default, (x, None, None, weights, *network))
    reset = torch.tensor([[False, True], [True, False], [False] * 2, [True] * 2, [False] * 2])
    walk = (torch.tensor([3, 5]), reset, None, *PLAIN_CODE, [])
    torch.library.opcheck(torch.ops.gatewise.lstm.default, (x, h_0, c_0, weights, *network[:3], *walk))
    packed = (x.detach().flatten(0, 1)[:7].requires_grad_(), h_0, c_0, weights, *network[:3])
    batch_sizes = torch.tensor([2, 2, 2, 1])
    torch.library.opcheck(torch.ops.gatewise.lstm.default, (*packed, None, None, batch_sizes, *PLAIN_CODE, []))
    plain = [w.detach() for w in weights]
    forward = (x.detach(), None, None, plain, *network)
    # (test_aot_dispatch_dynamic compares results, and part of what is kept for backward is padding that nobody writes.)
    torch.library.opcheck(
        torch.ops.gatewise.lstm_training.default, forward, test_utils=["test_schema", "test_faketensor"]
    )
    output, h_n, _, kept = torch.ops.gatewise.lstm_training(*forward)
    backward = (
        torch.randn_like(output),
        h_n,
        None,
        *forward[:4],
        output,
        kept,
        *network,
        [True, False, False] + [True] * len(weights),
    )
    torch.library.opcheck(torch.ops.gatewise.lstm_backward.default, backward)


def test_jit_traces_hold_the_operator():
    lstm = gatewise.LSTM(3, 4).requires_grad_(False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch says that tracing is deprecated
        traced = torch.jit.trace(lstm, torch.randn(2, 1, 3))
    x = torch.randn(7, 5, 3)
    assert torch.equal(traced(x)[0], lstm(x)[0])


def test_shapes_without_numbers_and_a_default_device():
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        assert gatewise.LSTM(3, 4)(torch.randn(2, 1, 3))[0].shape == (2, 1, 4)
    lstm, x = gatewise.LSTM(3, 4), torch.randn(2, 1, 3)
    expected = lstm(x)[0]
    with torch.device("meta"):
        assert torch.equal(lstm(x)[0], expected)


def test_deepcopy_and_repr():
    theirs, ours = pair(4, 6, 2, dropout=0.1)
    clone = copy.deepcopy(ours).eval()
    x = torch.randn(5, 3, 4)
    assert torch.equal(clone(x)[0], ours.eval()(x)[0])
    assert repr(ours) == repr(theirs)


def test_threads_follow_torch():
    _, lstm = pair(32, 64)
    x = torch.randn(20, 16, 32)
    before = torch.get_num_threads()
    try:
        outputs = []
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            outputs.append(results(lstm, x, None))
    finally:
        torch.set_num_threads(before)
    for got, gradients in outputs[1:]:
        assert all(torch.equal(a, b) for a, b in zip(got, outputs[0][0], strict=True))
        assert all(torch.equal(a, b) for a, b in zip(gradients, outputs[0][1], strict=True))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_cell_equals_torch(bias, dtype):
    torch.manual_seed(0)
    theirs = torch.nn.LSTMCell(5, 11, bias, dtype=dtype)
    torch.manual_seed(0)
    ours = gatewise.LSTMCell(5, 11, bias, dtype=dtype)
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))
    x, h, c = (torch.randn(3, n, dtype=dtype) for n in (5, 11, 11))
    output_tolerance, gradient_tolerance = TOLERANCE[dtype]
    outcomes = []
    for cell in (theirs, ours):
        leaves = [t.clone().requires_grad_() for t in (x, h, c)]
        h_1, c_1 = cell(leaves[0], (leaves[1], leaves[2]))
        h_2, c_2 = cell(leaves[0], (h_1, c_1))
        gradients = torch.autograd.grad((h_2 * c_2 + h_1).sum(), [*leaves, *cell.parameters()])
        outcomes.append(([h_1, c_1, h_2, c_2], gradients))
    (expected, expected_gradients), (got, gradients) = outcomes
    assert max(map(relative, got, expected)) <= output_tolerance
    assert max(map(relative, gradients, expected_gradients)) <= gradient_tolerance
    assert relative(ours(x[0])[0], theirs(x[0])[0]) <= output_tolerance
    assert ours(x[0], (h[0], c[0]))[1].shape == (11,)


def test_a_loop_over_cells_is_the_lstm():
    torch.manual_seed(0)
    lstm, cell = gatewise.LSTM(5, 7), gatewise.LSTMCell(5, 7)
    cell.load_state_dict({name.removesuffix("_l0"): value for name, value in lstm.state_dict().items()})
    x, state = torch.randn(6, 3, 5), None
    output, _ = lstm(x)
    for t in range(6):
        state = cell(x[t], state)
        assert torch.equal(output[t], state[0])


def test_errors_name_axes_and_remedies():
    lstm = gatewise.LSTM(4, 6, 2, batch_first=True)
    x = torch.randn(3, 5, 4)
    state = torch.zeros(2, 3, 6)
    with pytest.raises(DtypeError, match=r"input is torch.float64 and the weights are torch.float32: .*input.to"):
        lstm(x.double())
    with pytest.raises(ShapeError, match=r"h_0 has shape \(1, 3, 6\), needed \(L·D, B, H\) = \(2, 3, 6\): L·D is 1"):
        lstm(x, (state[:1], state))
    with pytest.raises(ShapeError, match=r"c_0 has shape .*it has 2 axes instead of 3"):
        lstm(x, (state, state[0]))
    with pytest.raises(DtypeError, match=r"c_0 is torch\.float64"):
        lstm(x, (state, state.double()))
    with pytest.raises(ShapeError, match=r"needed \(B, T, I\).* with I = 4"):
        lstm(torch.randn(3, 5, 7))
    with pytest.raises(ShapeError, match=r"needed \(B, T, I\)"):
        lstm(torch.randn(4))
    with pytest.raises(ShapeError, match="at least one step along T"):
        lstm(torch.randn(3, 0, 4))
    narrow = torch.float8_e4m3fn
    with pytest.raises(DtypeError, match=r"are torch.float8_e4m3fn, needed float64, float32, bfloat16 or float16"):
        copy.deepcopy(lstm).to(narrow)(x.to(narrow))
    with pytest.raises(DtypeError, match=r"input is a list, needed a torch\.Tensor"):
        lstm([[1.0]])
    cell = gatewise.LSTMCell(4, 6)
    with pytest.raises(ShapeError, match=r"needed \(B, I\)"):
        cell(torch.randn(3, 5))
    with pytest.raises(ShapeError, match=r"h has shape \(2, 6\), needed \(B, H\) = \(3, 6\): B is 2"):
        cell(torch.randn(3, 4), (torch.zeros(2, 6), torch.zeros(3, 6)))
    assert issubclass(ShapeError, RuntimeError)
    assert issubclass(DtypeError, ValueError)


def test_last_output_is_h_n_only_in_one_direction():
    """What a learner trips over: output[-1] is h_n[-1] for any depth, but not when bidirectional."""
    x = torch.randn(5, 3, 4)
    output, (h_n, _) = gatewise.LSTM(4, 6, 3)(x)
    assert torch.equal(output[-1], h_n[-1])
    output, (h_n, _) = gatewise.LSTM(4, 6, 3, bidirectional=True)(x)
    assert torch.equal(output[-1, :, :6], h_n[-2])
    assert torch.equal(output[0, :, 6:], h_n[-1])
    assert not torch.equal(output[-1, :, 6:], h_n[-1])


# ---------------------------------------------------------------------------------------------------- bfloat16

BF16 = torch.bfloat16
BF16_TOLERANCE = 3 * 2**-7  # epsilons: of each layer's h, of what is kept of the gates, of d_a and of the result


def narrow_pair(*args, **options):
    """An LSTM in bfloat16, and one of the same weights in float64."""
    torch.manual_seed(0)
    narrow = gatewise.LSTM(*args, **options, dtype=BF16)
    return narrow, copy.deepcopy(narrow).double()


@pytest.mark.parametrize("proj_size", [0, 5])
@pytest.mark.parametrize(("layers", "bias", "bidirectional"), [(1, False, False), (2, True, True)])
@pytest.mark.parametrize("batch_first", [True, False])
def test_bfloat16_equals_float64(proj_size, layers, bias, bidirectional, batch_first):
    options = {"bias": bias, "batch_first": batch_first, "bidirectional": bidirectional, "proj_size": proj_size}
    narrow, wide = narrow_pair(5, 11, layers, **options)
    rows = layers * (1 + bidirectional)
    x = torch.randn(*((3, 7) if batch_first else (7, 3)), 5, dtype=BF16)
    state = [torch.randn(rows, 3, width, dtype=BF16) for width in (proj_size or 11, 11)]
    got, gradients = results(narrow, x, state)
    draw = torch.Generator().manual_seed(1)
    leaves = [t.double().requires_grad_() for t in (x, *state)]
    output, (h_n, c_n) = wide(leaves[0], tuple(leaves[1:]))
    loss = sum((t * torch.randn(t.shape, generator=draw, dtype=BF16).double()).sum() for t in (output, h_n, c_n))
    expected_gradients = torch.autograd.grad(loss, [*leaves, *wide.parameters()])
    for a, b in zip((*got, *gradients), (output, h_n, c_n, *expected_gradients), strict=True):
        assert a.dtype == BF16
        assert relative(a.double(), b) <= BF16_TOLERANCE


def test_bfloat16_is_as_exact_as_torchs_and_takes_its_weights():
    theirs = torch.nn.LSTM(5, 11, 2, dtype=BF16)
    narrow, wide = narrow_pair(5, 11, 2)
    narrow.load_state_dict(theirs.state_dict())
    wide.load_state_dict(theirs.state_dict())
    x = torch.randn(20, 3, 5, dtype=BF16)
    expected = wide(x.double())[0]
    assert relative(narrow(x)[0].double(), expected) <= relative(theirs(x)[0].double(), expected)


def test_numbers_are_rounded_to_bfloat16_as_torch_rounds_them():
    bits = torch.arange(1 << 16, dtype=torch.int32) << 16
    for low in (0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF):
        x = (bits | low).view(torch.float32)
        expected = x.to(BF16)
        for isa in gatewise.kernels.available():
            with gatewise.kernels.using(isa):
                got = gatewise.kernels.to_bfloat16(x.numpy()).view("<i2")
        got = torch.from_numpy(got.copy()).view(BF16)
        assert torch.equal(got.isnan(), expected.isnan())
        assert torch.equal(got[~got.isnan()].view(torch.int16), expected[~expected.isnan()].view(torch.int16))


def test_autocast_runs_in_bfloat16_and_gives_float32_gradients():
    torch.manual_seed(0)
    lstm = gatewise.LSTM(5, 11, 2, bidirectional=True)
    narrow = copy.deepcopy(lstm).to(BF16)
    x = torch.randn(7, 3, 5)
    with torch.autocast("cpu", dtype=BF16):
        output, (h_n, c_n) = lstm(x)
        assert "instruction set" in gatewise.explain_path(lstm, x).why
        assert gatewise.explain_path(lstm, x).why.startswith("bfloat16 on cpu")
    expected = narrow(x.to(BF16))[0]
    assert torch.equal(output, expected)
    assert {t.dtype for t in (output, h_n, c_n)} == {BF16}
    output.float().square().sum().backward()
    expected.float().square().sum().backward()
    for p, q in zip(lstm.parameters(), narrow.parameters(), strict=True):
        assert p.grad.dtype == torch.float32
        assert torch.equal(p.grad, q.grad.float())


def test_kernels_are_found_in_gatewise_alone():
    code = "import gatewise\nwith gatewise.kernels.using('baseline'): print(gatewise.kernels.instruction_set())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "baseline"


@pytest.mark.skipif(len(gatewise.kernels.available()) < 2, reason="one instruction set alone")
def test_a_backward_by_another_instruction_set_is_refused():
    lstm = gatewise.LSTM(3, 4)
    other = next(isa for isa in gatewise.kernels.available() if isa != gatewise.kernels.instruction_set())
    output, _ = lstm(torch.zeros(5, 2, 3))
    with gatewise.kernels.using(other), pytest.raises(RuntimeError, match=f"forward ran by .* would by {other}: run"):
        output.sum().backward()


def test_paths_of_16_bits_are_explained():
    narrow, x = gatewise.LSTM(3, 4, dtype=BF16), torch.zeros(5, 2, 3, dtype=BF16)
    with gatewise.kernels.using("baseline"):
        assert "each product converted to float32: sums and cells in float32" in gatewise.explain_path(narrow, x).why
    assert torch.func.vmap(lambda x: x * (gatewise.explain_path(narrow, x).name == "composite"))(x + 1).all()


@pytest.mark.parametrize("proj_size", [0, 2])
def test_the_operators_keep_their_promises_in_bfloat16(proj_size):
    lstm = gatewise.LSTM(3, 4, 2, bidirectional=True, proj_size=proj_size, dtype=BF16)
    weights = [w.detach() for w in lstm.parameters()]
    network = (2, True, False, None, None, None, *PLAIN_CODE, [])
    forward = (torch.randn(5, 2, 3, dtype=BF16), None, None, weights, *network)
    checks = ["test_schema", "test_faketensor"]
    torch.library.opcheck(torch.ops.gatewise.lstm.default, forward, test_utils=checks)
    torch.library.opcheck(torch.ops.gatewise.lstm_training.default, forward, test_utils=checks)
    output, h_n, _, kept = torch.ops.gatewise.lstm_training(*forward)
    backward = (h_n, None, *forward[:4], output, kept, *forward[4:], [True, False, False] + [True] * len(weights))
    torch.library.opcheck(torch.ops.gatewise.lstm_backward.default, (output, *backward), test_utils=checks)


def test_bfloat16_is_compiled_and_exported():
    lstm = gatewise.LSTM(3, 4, 2, batch_first=True, dtype=BF16)
    x = torch.randn(2, 5, 3, dtype=BF16)
    compiled = torch.compile(lstm, fullgraph=True, backend="aot_eager")
    outcomes = []
    for function in (lstm, compiled):
        output = function(x)[0]
        outcomes.append((output, torch.autograd.grad(output.float().square().sum(), list(lstm.parameters()))))
    (expected, expected_gradients), (got, gradients) = outcomes
    assert torch.equal(got, expected)
    assert all(torch.equal(a, b) for a, b in zip(gradients, expected_gradients, strict=True))
    with torch.no_grad():
        exported = torch.export.export(lstm, (x,)).module()
        assert torch.equal(exported(x)[0], lstm(x)[0])


def test_bfloat16_walks_drops_and_packs():
    torch.manual_seed(0)
    lstm = gatewise.LSTM(3, 9, 2, dropout=0.5, bidirectional=True, dtype=BF16)
    x, lengths = torch.randn(6, 3, 3, dtype=BF16), [6, 4, 1]
    packed = torch.nn.utils.rnn.pack_padded_sequence(x, lengths)
    torch.manual_seed(1)
    output, _ = lstm(packed)
    torch.manual_seed(1)
    again, _ = lstm(packed)
    assert torch.equal(output.data, again.data)
    output.data.float().square().sum().backward()
    assert all(p.grad.dtype == BF16 and p.grad.isfinite().all() for p in lstm.parameters())
    lstm.eval()
    padded, _ = torch.nn.utils.rnn.pad_packed_sequence(lstm(packed)[0])
    assert torch.equal(padded, lstm(x, lengths=lengths)[0])
    reset = torch.zeros(6, 3, dtype=torch.bool)
    reset[3] = True
    forward = gatewise.LSTM(3, 9, dtype=BF16)
    cut = forward(x, reset=reset)[0]
    assert torch.equal(cut, torch.cat([forward(x[:3])[0], forward(x[3:])[0]]))


def test_a_cell_in_bfloat16():
    torch.manual_seed(0)
    narrow = gatewise.LSTMCell(5, 11, dtype=BF16)
    wide = copy.deepcopy(narrow).double()
    x, h, c = (torch.randn(3, n, dtype=BF16) for n in (5, 11, 11))
    for got, expected in zip(narrow(x, (h, c)), wide(x.double(), (h.double(), c.double())), strict=True):
        assert got.dtype == BF16
        assert relative(got.double(), expected) <= 2**-8


def test_gradients_of_gradients_in_bfloat16():
    narrow, wide = narrow_pair(3, 4)
    penalties = []
    for lstm in (narrow, wide):
        x = torch.linspace(-1, 1, 30).view(5, 2, 3).to(BF16).to(lstm.weight_ih_l0.dtype).requires_grad_()
        (gradient,) = torch.autograd.grad(lstm(x)[0].sum(), x, create_graph=True)
        gradient.square().sum().backward()
        penalties.append(lstm.weight_ih_l0.grad.double())
    assert relative(*penalties) <= 2 * BF16_TOLERANCE


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="no /proc to read the resident memory from")
@pytest.mark.parametrize(("short", "proj_size"), [(3, 0), (40, 0), (3, 60)])
def test_memory_of_a_long_sequence_is_given_back_after_many_short_ones(short, proj_size):
    code = f"""
import gatewise, torch
torch.set_num_threads(1)
lstm = gatewise.LSTM(16, 64, proj_size={proj_size})

def step(T):
    lstm(torch.randn(T, 8, 16))[0].sum().backward()
    lstm.zero_grad()
    return int(open("/proc/self/statm").read().split()[1]) * 4096 / 2**20

step({short})
before, after = step(20000), [step({short}) for _ in range(200)][-1]
print(before - after)
"""
    freed = float(subprocess.check_output([sys.executable, "-c", code]))
    assert freed > 20000 * 8 * (4 * 64 + 64) * 4 / 2**20 * 0.9  # the gates and the cells


@pytest.mark.parametrize("options", [{}, {"peephole": True}, {"cell": "slstm"}], ids=str)
def test_tensors_of_two_devices_are_refused(options):
    # torch sends a call with a tensor of shapes alone to where shapes are computed, which has no numbers to give.
    lstm, x = gatewise.LSTM(3, 4, **options), torch.randn(5, 2, 3)
    state = (torch.zeros(1, 2, 4, device="meta"),) * len(lstm.variant.states)
    with pytest.raises(KernelError, match="h_0 is on meta and the weights are on cpu"):
        lstm(x, state)
    lstm.weight_hh_l0 = torch.nn.Parameter(lstm.weight_hh_l0.to("meta"))
    with pytest.raises(KernelError, match="on cpu and meta, needed on one device"):
        lstm(x)
