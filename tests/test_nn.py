"""gatewise.LSTM and LSTMCell against torch's own: values, weights, errors."""

import copy
import itertools

import pytest
import torch

import gatewise
from beside_torch import TOLERANCE, pair, relative, results
from gatewise.errors import DtypeError, ShapeError

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


def test_empty_batch():
    theirs, ours = pair(4, 6, 2)
    expected, got = theirs(torch.zeros(5, 0, 4)), ours(torch.zeros(5, 0, 4))
    assert got[0].shape == expected[0].shape
    assert got[1][0].shape == expected[1][0].shape


def test_negated_views_are_resolved():
    theirs, ours = pair(1, 5)
    x, state = torch._neg_view(torch.randn(3, 2, 1)), [torch._neg_view(torch.randn(1, 2, 5)) for _ in "hc"]
    expected, got = theirs(x, tuple(state))[0], ours(x, tuple(state))[0]
    assert relative(got, expected) <= 1e-6
    d_output = torch._neg_view(torch.randn(3, 2, 5))
    (a,) = torch.autograd.grad(got, ours.weight_ih_l0, d_output)
    (b,) = torch.autograd.grad(expected, theirs.weight_ih_l0, d_output)
    assert relative(a, b) <= 1e-5


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
