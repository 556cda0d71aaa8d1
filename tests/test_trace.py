"""Traces: the gates of all layers, directions, steps, sequences and units, from the very call."""

import copy
import itertools
import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pack_sequence

import gatewise
from compare import TOLERANCE, assert_same
from gatewise import reference
from gatewise.errors import ArgumentError, DtypeError, ShapeError
from gatewise.insight.trace import AXES, NAMES, Trace

H = 5


def a_case(T=6, B=3, dtype=torch.float64, seed=0, **options):
    torch.manual_seed(seed)
    lstm = gatewise.LSTM(4, H, dtype=dtype, **options)
    shape = (B, T, 4) if options.get("batch_first") else (T, B, 4)
    rows = options.get("num_layers", 1) * (2 if options.get("bidirectional") else 1)
    P = options.get("proj_size") or H
    state = torch.randn(rows, B, P, dtype=dtype), torch.randn(rows, B, H, dtype=dtype)
    return lstm, torch.randn(*shape, dtype=dtype), state


def by_reference(lstm, x, state, lengths=None, reset=None):
    """The steps of each layer and direction, as the NumPy reference computes them."""
    found = reference.forward(
        x.detach().double().numpy(),
        {name: weight.detach().double().numpy() for name, weight in lstm.named_parameters()},
        *(s.double().numpy() for s in state),
        num_layers=lstm.num_layers,
        bidirectional=lstm.bidirectional,
        lengths=None if lengths is None else np.array(lengths),
        reset=None if reset is None else reset.numpy(),
    )
    return [steps for layer in found.gates for steps in layer]


def assert_is(trace, steps, lengths=None, tolerance=None):
    """Each array is the reference's, and past the lengths it is not a number."""
    T, B = trace.layers[0].c.shape[:2]
    past = np.arange(T)[:, None] >= np.array([T] * B if lengths is None else lengths)
    assert len(trace.layers) == len(steps)
    for layer, expected in zip(trace.layers, steps, strict=True):
        for name in NAMES:
            got = getattr(layer, name).double().numpy()
            assert np.isnan(got[past]).all(), name
            error = np.abs(np.where(past[:, :, None], 0, got) - getattr(expected, name)).max()
            assert error <= (tolerance or TOLERANCE[layer.c.dtype]), (layer.name, name, error)


OPTIONS = [
    {},
    {"num_layers": 3},
    {"bidirectional": True},
    {"num_layers": 2, "bidirectional": True},
    {"num_layers": 2, "bias": False},
    {"num_layers": 2, "proj_size": 2, "bidirectional": True},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_a_trace_is_the_reference_s(options, dtype):
    lstm, x, state = a_case(dtype=dtype, **options)
    steps = by_reference(lstm, x, state)
    assert_is(gatewise.trace(lstm, x, state), steps)
    lengths, reset = [2, 6, 0], torch.rand(6, 3) < 0.3
    steps = by_reference(lstm, x, state, lengths, reset)
    assert_is(gatewise.trace(lstm, x, state, lengths=lengths, reset=reset), steps, lengths)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_the_output_is_that_of_the_call(options):
    lstm, x, state = a_case(dtype=torch.float32, **options)
    for hx, walk in itertools.product((None, state), ({}, {"lengths": [2, 6, 3]})):
        assert_same(gatewise.trace(lstm, x, hx, **walk).output, lstm(x, hx, **walk), tolerance=1e-12)


def test_the_axes():
    lstm, x, state = a_case(num_layers=2, bidirectional=True, proj_size=2, batch_first=True)
    found = gatewise.trace(lstm, x, state)
    assert AXES == ("layer", "direction", "step", "sequence", "unit")
    assert {name: tuple(getattr(found, name).shape) for name in NAMES} == {
        **dict.fromkeys("ifgoc", (2, 2, 6, 3, H)),
        "h": (2, 2, 6, 3, 2),
    }
    top, reverse = found.layer(1, 0), found.layer(1, 1)
    assert_same(torch.cat([top.h, reverse.h], -1), found.output[0].transpose(0, 1))
    assert (top.name, reverse.name) == ("l1", "l1_reverse")
    assert torch.equal(found.f[1, 1], reverse.f)
    with pytest.raises(ArgumentError, match="layer is 2 and direction 0, needed a layer below 2"):
        found.layer(2)


def test_batch_first_with_resets():
    lstm, x, state = a_case(batch_first=True)
    reset = torch.rand(3, 6) < 0.4
    found = gatewise.trace(lstm, x, state, reset=reset)
    assert_is(found, by_reference(lstm, x.transpose(0, 1), state, reset=reset.T))
    assert torch.equal(found.reset, reset.T)


def test_a_single_sequence_without_a_batch_axis():
    lstm, x, state = a_case(B=1)
    found = gatewise.trace(lstm, x[:, 0], tuple(s[:, 0] for s in state))
    assert_is(found, by_reference(lstm, x, state))
    assert found.output[0].shape == (6, H)


@pytest.mark.parametrize("options", [{}, {"num_layers": 2, "bidirectional": True}, {"batch_first": True}], ids=str)
def test_packed_sequences_in_the_caller_s_order(options):
    lstm, x, state = a_case(**options)
    lengths = [2, 6, 4]
    x = x.transpose(0, 1) if lstm.batch_first else x
    packed = pack_padded_sequence(x, lengths, enforce_sorted=False)
    found = gatewise.trace(lstm, packed, state)
    assert_is(found, by_reference(lstm, x, state, lengths), lengths)
    assert found.lengths.tolist() == lengths
    assert_same(found.output, lstm(packed, state))
    in_order = pack_sequence([x[:6, 1], x[:4, 2], x[:2, 0]])
    found = gatewise.trace(lstm, in_order)
    zeros = tuple(torch.zeros_like(s) for s in state)
    assert_is(found, by_reference(lstm, x[:, [1, 2, 0]], zeros, [6, 4, 2]), [6, 4, 2])


def test_bfloat16_comes_as_float32():
    lstm, x, state = a_case(dtype=torch.bfloat16)
    found = gatewise.trace(lstm, x, state)
    assert found.f.dtype == torch.float32
    # Each number is rounded to 2^-8 at most twice, and the cells add up some of them.
    assert_is(found, by_reference(lstm, x, state), tolerance=0.05)


def test_float16_by_torch_s_operations():
    lstm, x, state = a_case(dtype=torch.float16)
    assert_is(gatewise.trace(lstm, x, state), by_reference(lstm, x, state), tolerance=2e-3)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_torch_s_own_lstm(options):
    lstm, x, state = a_case(**options)
    theirs = nn.LSTM(4, H, dtype=torch.float64, **options)
    theirs.load_state_dict(lstm.state_dict())
    assert_is(gatewise.trace(theirs, x, state), by_reference(lstm, x, state))
    assert_same(gatewise.trace(theirs, x, state).output, theirs(x, state))


def test_torch_s_own_with_a_parametrized_weight():
    theirs = nn.utils.parametrizations.weight_norm(nn.LSTM(4, H), "weight_hh_l0")
    x = torch.randn(6, 2, 4)
    assert_same(gatewise.trace(theirs, x).output, theirs(x))


def test_past_backward_the_gates_are_what_they_were():
    lstm, x, state = a_case()
    with gatewise.record(lstm) as traces:
        output, _ = lstm(x, state)
    output.sum().backward()
    assert_is(traces[""][0], by_reference(lstm, x, state))


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_recording_changes_no_gradient(options):
    lstm, x, state = a_case(**options)

    def gradients():
        inputs = [x.clone().requires_grad_(), *(s.clone().requires_grad_() for s in state)]
        output, (h_n, c_n) = lstm(inputs[0], tuple(inputs[1:]))
        loss = (output * torch.arange(output.numel()).reshape(output.shape)).sum() + h_n.sum() + 2 * c_n.sum()
        return torch.autograd.grad(loss, [*inputs, *lstm.parameters()])

    plain = gradients()
    with gatewise.record(lstm):
        recorded = gradients()
    for one, other in zip(plain, recorded, strict=True):
        assert torch.equal(one, other)


def test_second_derivatives_while_recording():
    lstm, x, _ = a_case(T=3, B=1)
    with gatewise.record(lstm):
        assert torch.autograd.gradgradcheck(lambda x: lstm(x)[0], x.requires_grad_())


class Two(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first = gatewise.LSTM(4, H)
        self.rest = nn.ModuleList([nn.LSTM(H, 3), nn.Linear(3, 1)])

    def forward(self, x):
        output, _ = self.rest[0](self.first(x)[0])
        return self.rest[1](output[-1])


def test_recording_a_model():
    model, x = Two(), torch.randn(6, 2, 4)
    plain = model(x)
    with gatewise.record(model) as traces:
        recorded = model(x)
        model(x[:2])
    assert_same(recorded, plain)
    assert list(traces) == ["first", "rest.0"]
    assert [trace.c.shape[2] for trace in traces["rest.0"]] == [6, 2]
    assert_same(traces["first"][0].output, model.first(x))
    assert "forward" not in model.first.__dict__
    model(x)
    assert len(traces["first"]) == 2
    with pytest.raises(KeyError, match=r"no LSTM 'lstm' was called, but first, rest\.0"):
        traces["lstm"]


def test_a_model_is_itself_again_after_an_error():
    model = Two()
    with pytest.raises(ShapeError), gatewise.record(model):
        model(torch.randn(6, 2, 9))
    assert "forward" not in model.first.__dict__
    assert "forward" not in model.rest[0].__dict__


class Twice(nn.LSTM):
    def forward(self, input, hx=None):
        return super().forward(2 * input, hx)


def test_a_forward_of_its_own_is_not_passed_over():
    with pytest.raises(ArgumentError, match="model is a Twice whose forward is not torch's or gatewise's own"):
        gatewise.record(Twice(4, 3)).__enter__()
    model = Two()
    model.first.forward = lambda x: (x, None)
    with pytest.raises(ArgumentError, match="first is a LSTM whose forward is not"):
        gatewise.record(model).__enter__()
    model = Two()
    with gatewise.record(model) as traces:
        with pytest.raises(ArgumentError, match="or is being recorded already"):
            gatewise.record(model).__enter__()
        model(torch.randn(6, 2, 4))
    assert len(traces["first"]) == 1


@pytest.mark.parametrize("options", [{}, {"num_layers": 2, "bidirectional": True}], ids=str)
def test_what_is_written_over_later_is_in_no_trace(options):
    lstm, x, state = a_case(**options)
    steps, before = by_reference(lstm, x, state), gatewise.trace(lstm, x, state).to_numpy()
    with gatewise.record(lstm) as traces, torch.no_grad():
        output, (h_n, c_n) = lstm(x, state)
        for tensor in (output, h_n, c_n, x, *state, *lstm.parameters()):
            tensor.zero_()
    assert_is(traces[""][0], steps)
    for name, array in traces[""][0].to_numpy().items():
        np.testing.assert_array_equal(array, before[name], err_msg=name)


def test_under_transforms_nothing_is_recorded():
    lstm = gatewise.LSTM(4, 3)
    with (
        gatewise.record(lstm),
        pytest.raises(ArgumentError, match=r"under torch.func \(vmap, grad …\) cannot be traced"),
    ):
        torch.func.vmap(lambda x: lstm(x)[0], in_dims=1)(torch.randn(6, 2, 4))


def test_dropout_between_layers_is_drawn_as_ever():
    lstm, x, _ = a_case(num_layers=2)
    lstm.dropout = 0.5
    torch.manual_seed(3)
    plain, _ = lstm(x)
    torch.manual_seed(3)
    found = gatewise.trace(lstm, x)
    assert_same(found.output[0], plain)
    lstm.eval()
    assert not torch.allclose(gatewise.trace(lstm, x).h[1], found.h[1])
    assert torch.equal(gatewise.trace(lstm, x).h[0], found.h[0])


def test_autocast():
    lstm, x, _ = a_case(dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = gatewise.trace(lstm, x)
        assert_same(found.output[0], lstm(x)[0], tolerance=1e-12)


def test_no_sequences_at_all():
    lstm, _, _ = a_case()
    assert gatewise.trace(lstm, torch.zeros(6, 0, 4, dtype=torch.float64)).f.shape == (1, 1, 6, 0, H)


@pytest.mark.parametrize("walk", [{}, {"lengths": [2, 6, 3], "reset": torch.rand(6, 3) < 0.3}], ids=["all", "walk"])
@pytest.mark.parametrize("proj_size", [0, 2])
@pytest.mark.parametrize("way", ["numpy", "xarray"])
def test_there_and_back(walk, proj_size, way):
    lstm, x, state = a_case(num_layers=2, bidirectional=True, proj_size=proj_size)
    found = gatewise.trace(lstm, x, state, **walk)
    there = getattr(found, f"to_{way}")()
    again = getattr(Trace, f"from_{way}")(there).to_numpy()
    for name, array in found.to_numpy().items():
        np.testing.assert_array_equal(array, again[name], err_msg=name)
    assert ("lengths" in again) == bool(walk)
    if way == "xarray":
        assert there.f.dims == AXES
        assert there.h.dims[-1] == ("output" if proj_size else "unit")
        np.testing.assert_array_equal(there.c.sel(layer=1, direction=0, unit=2), found.c[1, 0, :, :, 2])


def test_arrays_that_are_no_trace():
    arrays = gatewise.trace(*a_case()[:2]).to_numpy()
    with pytest.raises(ShapeError, match=r"arrays lack f, needed are i, f, g, o, c, h, h_0, c_0"):
        Trace.from_numpy({name: array for name, array in arrays.items() if name != "f"})
    with pytest.raises(ShapeError, match=r"g has shape \(1, 1, 5, 3, 5\), needed \(layer, direction, step, sequence"):
        Trace.from_numpy(arrays | {"g": arrays["g"][:, :, 1:]})
    with pytest.raises(ShapeError, match=r"c_0 has shape \(1, 1, 3, 4\), needed \(layer, direction, sequence, unit\)"):
        Trace.from_numpy(arrays | {"c_0": arrays["c_0"][..., 1:]})
    with pytest.raises(DtypeError, match=r"o is torch.int64, needed floating-point numbers"):
        Trace.from_numpy(arrays | {"o": arrays["o"].astype(np.int64)})
    with pytest.raises(ShapeError, match=r"c has shape \(2, 2\), needed \(layer, direction, step, sequence, unit\)"):
        Trace.from_numpy(arrays | {"c": np.zeros((2, 2))})


def test_what_cannot_be_traced():
    x = torch.zeros(6, 2, 4)
    with pytest.raises(ArgumentError, match=r"lstm is a GRU, needed a gatewise.LSTM or a torch.nn.LSTM"):
        gatewise.trace(nn.GRU(4, 3), x)
    with pytest.raises(ArgumentError, match="model is a GRU without"), gatewise.record(nn.GRU(4, 3)):
        pass
    with pytest.raises(ArgumentError, match=r"model is a NoneType, needed a torch\.nn\.Module"), gatewise.record(None):
        pass
    compiled = torch.compile(Two(), backend="eager")
    with pytest.raises(ArgumentError, match="model was compiled"), gatewise.record(compiled):
        pass
    with pytest.raises(ShapeError, match=r"input has shape \(6, 2, 9\)"):
        gatewise.trace(gatewise.LSTM(4, 3), torch.zeros(6, 2, 9))


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.integers(1, 9), st.integers(1, 5), st.integers(1, 33), st.integers(0, 99), st.booleans())
def test_any_size(T, B, width, seed, bidirectional):
    torch.manual_seed(seed)
    lstm = gatewise.LSTM(3, width, bidirectional=bidirectional, dtype=torch.float64)
    x = torch.randn(T, B, 3, dtype=torch.float64)
    lengths = torch.randint(0, T + 1, (B,)).tolist()
    zeros = lstm.init_state(B)
    assert_is(gatewise.trace(lstm, x, lengths=lengths), by_reference(lstm, x, zeros, lengths), lengths)


def test_a_copy_or_a_file_made_while_it_is_recorded_is_a_model_of_its_own(tmp_path):
    model = nn.Sequential(gatewise.LSTM(4, 3))
    x = torch.randn(5, 2, 4)
    with gatewise.record(model) as traces:
        twin = copy.deepcopy(model)
        torch.save(model, tmp_path / "model.pt")
        with torch.no_grad():
            twin[0].weight_ih_l0.zero_()
        other = twin(x)[0]
    assert not traces  # the copy is not watched
    loaded = torch.load(tmp_path / "model.pt", weights_only=False)
    assert not other.equal(model(x)[0]) and loaded(x)[0].equal(model(x)[0])
    with torch.no_grad():
        loaded[0].weight_ih_l0.zero_()
    assert loaded(x)[0].equal(other)
    for one in (twin, loaded):
        with gatewise.record(one) as traces:
            one(x)
        assert len(traces["0"]) == 1


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"lengths": np.array([3])}, "lengths have shape"),
        ({"lengths": np.array([3, 9])}, "lengths go from 3 to 9"),
        ({"lengths": np.array([1.0, 2.0])}, "lengths are torch.float64"),
        ({"reset": np.zeros((5, 2))}, "reset is torch.float64"),
        ({"reset": np.zeros((2, 5), dtype=bool)}, "reset has shape"),
        ({"i": np.full((1, 1, 5, 2, 3), "x")}, "i holds <U1, needed numbers"),
    ],
)
def test_arrays_that_are_no_trace_are_refused(change, said):
    arrays = gatewise.trace(gatewise.LSTM(4, 3), torch.zeros(5, 2, 4)).to_numpy()
    with pytest.raises((ShapeError, DtypeError, ArgumentError), match=re.escape(said)):
        Trace.from_numpy(arrays | change)


def test_the_axes_of_a_dataset_come_in_any_order():
    found = gatewise.trace(gatewise.LSTM(4, 3, proj_size=2), torch.randn(5, 5, 4), reset=torch.rand(5, 5) < 0.3)
    turned = found.to_xarray().transpose(..., "sequence", "step", "output", "unit")
    again = Trace.from_xarray(turned)
    for name in (*NAMES, "reset"):
        assert getattr(again, name).equal(getattr(found, name))
    with pytest.raises(ShapeError, match="i has the axes"):
        Trace.from_xarray(found.to_xarray().rename(step="time"))
    with pytest.raises(ArgumentError, match="dataset is a NoneType"):
        Trace.from_xarray(None)
    with pytest.raises(ArgumentError, match="arrays are a NoneType"):
        Trace.from_numpy(None)
    with pytest.raises(ArgumentError, match="layer is 0 and"):
        found.layer("0")


def test_a_shallow_copy_computes_as_ever_once_the_block_is_over():
    model, x = nn.Sequential(gatewise.LSTM(4, 3)), torch.randn(5, 2, 4)
    with gatewise.record(model) as traces:
        other = copy.copy(model[0])
    assert other(x)[0].equal(model(x)[0])
    assert not traces


def test_what_is_no_module_is_not_recorded():
    with pytest.raises(ArgumentError, match=r"model is a int, needed a torch\.nn\.Module"), gatewise.record(3):
        pass
