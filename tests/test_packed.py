"""Packed sequences: the states are in the caller's order, wherever the sequences stand."""

import pytest
import torch
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence
from torch.utils._python_dispatch import TorchDispatchMode

import gatewise
from compare import assert_same
from gatewise.errors import DtypeError, KernelError, ShapeError

T, B, I, H, L = 6, 4, 3, 4, 2
LENGTHS = torch.tensor([2, 6, 1, 4])


def case(dtype=torch.float64, seed=0):
    """An LSTM, packed sequences whose order is not the caller's, and states that gradients go to."""
    torch.manual_seed(seed)
    lstm = gatewise.LSTM(I, H, L, bidirectional=True, dtype=dtype)
    packed = pack_padded_sequence(torch.randn(T, B, I, dtype=dtype), LENGTHS, enforce_sorted=False)
    states = tuple(torch.randn(2 * L, B, H, dtype=dtype, requires_grad=True) for _ in range(2))
    return lstm, packed, states


def with_data(packed, data):
    return PackedSequence(data, *packed[1:])


def results(lstm, packed, states=None):
    output, last = lstm(packed, states)
    return (output.data, *last)


def gradients_of(module, packed, states):
    """Of a sum of all results, to the data, the states and the parameters."""
    data = packed.data.clone().requires_grad_()
    loss = sum_of(results(module, with_data(packed, data), states))
    return torch.autograd.grad(loss, [data, *states, *module.parameters()])


def sum_of(results):
    """By numbers that differ from place to place."""
    return sum((x * torch.arange(1, 1 + x.numel(), dtype=x.dtype).view_as(x).cos()).sum() for x in results)


def test_states_and_gradients_are_torchs():
    lstm, packed, states = case()
    theirs = torch.nn.LSTM(I, H, L, bidirectional=True, dtype=torch.float64)
    theirs.load_state_dict(lstm.state_dict())
    for ours, expected in [
        (results(lstm, packed, states), results(theirs, packed, states)),
        (results(lstm, packed), results(theirs, packed)),
        (gradients_of(lstm, packed, states), gradients_of(theirs, packed, states)),
    ]:
        for a, b in zip(ours, expected, strict=True):
            assert_same(a, b)


def test_gradients_and_their_gradients_by_finite_differences():
    lstm, packed, states = case()

    def run(data, *states):
        return results(lstm, with_data(packed, data), states)

    inputs = packed.data.clone().requires_grad_(), *states
    assert torch.autograd.gradcheck(run, inputs, fast_mode=True, check_batched_grad=True)
    assert torch.autograd.gradgradcheck(run, inputs, fast_mode=True)


def test_one_node_of_the_graph_has_output_and_states():
    lstm, packed, states = case()
    output, h_n, c_n = results(lstm, packed, states)
    assert output.grad_fn.name() == "LSTMBackward"
    assert output.grad_fn is h_n.grad_fn is c_n.grad_fn


@pytest.mark.parametrize("state", [0, 1])
def test_the_gradient_of_one_state_alone(state):
    lstm, packed, states = case()
    expected = gradients_of(lstm, packed, states)[1 + state]
    for x in (states[1 - state], *lstm.parameters()):
        x.requires_grad_(False)
    found = torch.autograd.grad(sum_of(results(lstm, packed, states)), states[state])[0]
    assert_same(found, expected)


def test_without_gradients_it_is_the_same():
    lstm, packed, states = case(torch.float32)
    expected = results(lstm, packed, states)
    with torch.no_grad():
        found = results(lstm, packed, states)
    assert not any(x.requires_grad for x in found)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_whoever_stands_between_torch_and_its_operators_sees_the_states_put_in_order():
    lstm, packed, states = case(torch.float32)
    seen = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            seen.append(str(function))
            return function(*args, **(kwargs or {}))

    expected = results(lstm, packed, states)
    with Watch():
        found = results(lstm, packed, states)
    assert seen.count("aten.index_select.default") == 4
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize(("order", "back"), [([1, 1, 0, 3], [2, 0, 1, 3]), ([1, 3, 0, 2], [0, 1, 2, 3])])
def test_an_order_without_a_way_back_gathers_as_torch_does(order, back):
    lstm, packed, states = case()
    packed = packed._replace(sorted_indices=torch.tensor(order), unsorted_indices=torch.tensor(back))
    theirs = torch.nn.LSTM(I, H, L, bidirectional=True, dtype=torch.float64)
    theirs.load_state_dict(lstm.state_dict())
    for a, b in zip(gradients_of(lstm, packed, states), gradients_of(theirs, packed, states), strict=True):
        assert_same(a, b)


def test_an_order_that_was_written_over_is_found_by_backward():
    lstm, packed, states = case()
    output, *_ = results(lstm, packed, states)
    packed.sorted_indices.add_(0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        output.sum().backward()


def test_states_that_do_not_fit_are_refused_in_words():
    lstm, packed, (h_0, c_0) = case()
    with pytest.raises(ShapeError, match=r"h_0 has shape \(4, 3, 4\), needed \(L·D, B, H\) = \(4, 4, 4\)"):
        lstm(packed, (h_0[:, :3], c_0))
    with pytest.raises(ShapeError, match=r"c_0 has shape \(4, 4, 3\)"):
        lstm(packed, (h_0, c_0[:, :, :3]))


@pytest.mark.parametrize("which", ["sorted_indices", "unsorted_indices"])
def test_an_order_that_torch_did_not_see_written_over_is_refused(which):
    lstm, packed, states = case()
    output, *_ = results(lstm, packed, states)
    getattr(packed, which).numpy()[0] = 1 << 40
    with pytest.raises(IndexError, match="indices go out of the 4 sequences"):
        output.sum().backward()


def test_an_order_that_a_hook_gives_back_in_strides():
    lstm, packed, states = case()
    expected = gradients_of(lstm, packed, states)
    with torch.autograd.graph.saved_tensors_hooks(
        lambda x: x, lambda x: x if x.is_floating_point() else torch.stack([x, x], -1)[..., 0]
    ):
        found = gradients_of(lstm, packed, states)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize(
    ("field", "given", "error", "says"),
    [
        ("batch_sizes", [4, 3], DtypeError, "batch_sizes are a list, needed a torch.int64 tensor of one axis"),
        ("batch_sizes", torch.tensor([4, 3], dtype=torch.int32), DtypeError, "batch_sizes are torch.int32"),
        ("batch_sizes", torch.tensor([[4]]), DtypeError, r"batch_sizes are torch.int64 of shape \(1, 1\)"),
        ("batch_sizes", torch.tensor([4], device="meta"), KernelError, "batch_sizes are on meta, needed on cpu"),
        ("sorted_indices", torch.tensor([0, 1, 2]), ShapeError, "sorted_indices are 3, needed one for each of the 4"),
        ("sorted_indices", torch.arange(4, device="meta"), KernelError, "sorted_indices are on meta, needed on cpu"),
        ("unsorted_indices", torch.arange(4.0), DtypeError, "unsorted_indices are torch.float32"),
    ],
    ids=str,
)
def test_what_says_how_sequences_are_packed_is_refused_in_words(field, given, error, says):
    lstm, packed, states = case()
    fields = packed._asdict() | {field: given}
    with pytest.raises(error, match=says):
        lstm(tuple.__new__(PackedSequence, fields.values()), states)


def test_what_a_hook_gives_back_in_strides_is_read_in_strides():
    lstm, x = gatewise.LSTM(I, H, 2).double(), torch.randn(T, B, I).double()
    expected = torch.autograd.grad(lstm(x)[0].square().sum(), lstm.weight_hh_l0)
    with torch.autograd.graph.saved_tensors_hooks(
        lambda x: x, lambda x: torch.stack([x, x], -1)[..., 0] if x.dim() > 1 else x
    ):
        found = torch.autograd.grad(lstm(x)[0].square().sum(), lstm.weight_hh_l0)
    assert torch.equal(found[0], expected[0])


def test_a_compiler_goes_through_it_without_a_stop():
    lstm, packed, _ = case(torch.float32)
    compiled = torch.compile(lstm, fullgraph=True, backend="eager")
    for a, b in zip(results(compiled, packed), results(lstm, packed), strict=True):
        assert_same(a, b)
