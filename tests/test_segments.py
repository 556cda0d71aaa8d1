"""checkpoint_every: the same numbers in less memory."""

import copy
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.utils.rnn import pack_padded_sequence

import gatewise
from gatewise.errors import ArgumentError

OPTIONS = [
    {},
    {"num_layers": 2, "bidirectional": True},
    {"num_layers": 2, "proj_size": 2},
    {"batch_first": True, "bidirectional": True},
    {"bias": False},
]
WALKS = [{}, {"lengths": [2, 7, 0]}, {"reset": True}, {"lengths": [7, 3, 5], "reset": True}]


def both(every, dtype=torch.float64, **options):
    """An LSTM that keeps everything, and the same with segments."""
    torch.manual_seed(0)
    whole = gatewise.LSTM(4, 5, dtype=dtype, **options)
    segmented = gatewise.LSTM(4, 5, dtype=dtype, checkpoint_every=every, **options)
    segmented.load_state_dict(whole.state_dict())
    return whole, segmented


def outcome(lstm, x, hx=None, **walk):
    """Results, and the gradients of everything."""
    x = x.clone().requires_grad_()
    hx = None if hx is None else tuple(state.clone().requires_grad_() for state in hx)
    torch.manual_seed(5)  # of dropout
    output, states = lstm(x, hx, **walk)
    weighted = lambda t: (t * torch.linspace(-1, 2, t.numel(), dtype=t.dtype).reshape(t.shape)).sum()  # noqa: E731
    leaves = [x, *(hx or ()), *lstm.parameters()]
    return (output, *states), torch.autograd.grad(sum(map(weighted, states), weighted(output)), leaves)


def assert_equal(one, other):
    """The results bit for bit; the gradients to the rounding of sums that are added up in another order."""
    for a, b in zip(one[0], other[0], strict=True):
        assert torch.equal(a, b)
    for a, b in zip(one[1], other[1], strict=True):
        torch.testing.assert_close(b, a, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("every", [1, 3, 7, 50])
@pytest.mark.parametrize("walk", WALKS, ids=str)
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_the_same_numbers(options, walk, every):
    whole, segmented = both(every, **options)
    x = torch.randn((3, 7, 4) if whole.batch_first else (7, 3, 4)).double()
    if "reset" in walk:
        walk = walk | {"reset": torch.rand(x.shape[:2]) < 0.4}
    rows = whole.num_layers * (2 if whole.bidirectional else 1)
    hx = torch.randn(rows, 3, whole.proj_size or 5).double(), torch.randn(rows, 3, 5).double()
    for state in (None, hx):
        assert_equal(outcome(whole, x, state, **walk), outcome(segmented, x, state, **walk))


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.integers(1, 12), st.integers(1, 4), st.integers(1, 14), st.data())
def test_any_lengths(T, B, every, data):
    whole, segmented = both(every, bidirectional=True)
    lengths = data.draw(st.lists(st.integers(0, T), min_size=B, max_size=B))
    x = torch.randn(T, B, 4).double()
    assert_equal(outcome(whole, x, lengths=lengths), outcome(segmented, x, lengths=lengths))


def test_packed_sequences():
    whole, segmented = both(2, num_layers=2, bidirectional=True)
    x = torch.randn(7, 3, 4).double()
    packed = pack_padded_sequence(x, [3, 7, 5], enforce_sorted=False)
    for module in (whole, segmented):
        module.zero_grad()
        output, (h_n, c_n) = module(packed)
        (output.data.square().sum() + h_n.sum() + c_n.sum()).backward()
    assert torch.equal(whole(packed)[0].data, segmented(packed)[0].data)
    assert torch.equal(whole(packed)[1][0], segmented(packed)[1][0])
    for one, other in zip(whole.parameters(), segmented.parameters(), strict=True):
        torch.testing.assert_close(other.grad, one.grad, rtol=1e-12, atol=1e-12)


def test_without_a_batch_axis_and_with_dropout():
    whole, segmented = both(3, num_layers=3, dropout=0.5)
    assert_equal(outcome(whole, torch.ones(7, 4).double()), outcome(segmented, torch.ones(7, 4).double()))


def test_bfloat16_adds_up_the_weights_gradients_in_float32():
    whole, segmented = both(1, torch.bfloat16)
    x = torch.randn(200, 2, 4)
    exact = outcome(both(0, torch.float32)[0], x)[1]
    for one, other, true in zip(
        outcome(whole, x.bfloat16())[1], outcome(segmented, x.bfloat16())[1], exact, strict=True
    ):
        ours, theirs = ((g.float() - true).norm() / true.norm() for g in (other, one))
        assert ours < 2 * theirs + 2**-8


def test_weights_of_which_only_some_are_trained():
    _, segmented = both(3)
    segmented.weight_ih_l0.requires_grad_(False)
    output, _ = segmented(torch.randn(7, 3, 4).double())
    output.sum().backward()
    assert segmented.weight_ih_l0.grad is None
    assert segmented.weight_hh_l0.grad.any()


def test_inference_goes_the_plain_way():
    whole, segmented = both(3)
    x = torch.randn(7, 3, 4).double()
    with torch.no_grad():
        assert torch.equal(whole(x)[0], segmented(x)[0])
        mapped = torch.func.vmap(lambda x: segmented(x)[0], in_dims=1, out_dims=1)(x)
    torch.testing.assert_close(mapped, whole(x)[0])


def test_it_is_kept_with_the_module():
    _, segmented = both(3)
    assert copy.deepcopy(segmented).checkpoint_every == 3
    assert pickle.loads(pickle.dumps(segmented)).checkpoint_every == 3
    assert repr(segmented) == "LSTM(4, 5, checkpoint_every=3)"
    assert repr(gatewise.LSTM(4, 5)) == "LSTM(4, 5)"


def test_where_there_is_no_such_thing():
    _, segmented = both(3)
    x = torch.randn(7, 3, 4).double().requires_grad_()
    with pytest.raises(ArgumentError, match=r"checkpoint_every is 3, and gradients of gradients \(create_graph\) need"):
        torch.autograd.grad(segmented(x)[0].sum(), x, create_graph=True)
    with pytest.raises(ArgumentError, match=r"checkpoint_every is 3, .* goes by composite \(torch.func"):
        torch.func.grad(lambda x: segmented(x)[0].sum())(x)
    with pytest.raises(ArgumentError, match="checkpoint_every is -1, needed a whole number of steps"):
        gatewise.LSTM(4, 5, checkpoint_every=-1)
    with pytest.raises(ArgumentError, match=r"checkpoint_every is 0\.5, needed"):
        gatewise.LSTM(4, 5, checkpoint_every=0.5)


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # of what torch.compile looks at where it goes on
def test_a_compiled_model_calls_it_as_it_is():
    whole, segmented = both(3)
    x = torch.randn(7, 3, 4).double()
    compiled = torch.compile(segmented, backend="eager")
    assert_equal(outcome(whole, x), (outcome(compiled, x)[0], outcome(segmented, x)[1]))


VARIED = [
    {"peephole": True, "coupled": True, "layer_norm": True},
    {"zoneout": (0.3, 0.6), "variational_dropout": 0.5, "proj_size": 2},
    {"cell": "slstm", "recurrent_dropout": 0.4, "bias": False},
]


@pytest.mark.parametrize("every", [1, 3, 50])
@pytest.mark.parametrize("walk", WALKS, ids=str)
@pytest.mark.parametrize("options", VARIED, ids=str)
def test_changed_cells_and_their_masks(options, walk, every):
    """Those of the reverse direction are drawn by the input's steps, too."""
    whole, segmented = both(every, num_layers=2, bidirectional=True, batch_first=True, **options)
    x = torch.randn(3, 7, 4).double()
    if "reset" in walk:
        walk = walk | {"reset": torch.rand(x.shape[:2]) < 0.4}
    assert_equal(outcome(whole, x, **walk), outcome(segmented, x, **walk))
    if not walk:
        packed = pack_padded_sequence(x, [3, 7, 5], batch_first=True, enforce_sorted=False)
        found = []
        for module in (whole, segmented):
            torch.manual_seed(5)
            found.append(module(packed)[0].data)
        assert torch.equal(*found)
