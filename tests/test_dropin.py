"""gatewise's modules in torch's place: every option, every way to call them, and everything done to modules."""

import copy
import doctest
import io
import itertools
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.func import functional_call, grad
from torch.nn.utils import parametrizations, prune
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence
from torch.testing._internal.common_modules import module_db

import gatewise
from compare import assert_same
from gatewise.errors import ArgumentError, DtypeError, KernelError, ShapeError
from gatewise.nn.composite import composite_lstm

CLASSES = {nn.LSTM: gatewise.LSTM, nn.LSTMCell: gatewise.LSTMCell}


def leaves(*tensors):
    return [None if t is None else t.detach().clone().requires_grad_() for t in tensors]


# ------------------------------------------------------------------------------------ torch's own module cases

SAMPLES = [
    (info.module_cls, training, number)
    for info in module_db
    if info.module_cls in CLASSES
    for training in (True, False)
    for number in range(len(info.module_inputs_func(info, "cpu", torch.double, True, training)))
]


@pytest.mark.parametrize(
    ("cls", "training", "number"), SAMPLES, ids=lambda value: getattr(value, "__name__", str(value))
)
def test_torchs_own_module_cases(cls, training, number):
    info = next(info for info in module_db if info.module_cls is cls)
    sample = info.module_inputs_func(info, "cpu", torch.double, True, training)[number]
    args, kwargs = sample.constructor_input.args, sample.constructor_input.kwargs
    torch.manual_seed(number)
    theirs = cls(*args, **kwargs, dtype=torch.double).train(training)
    torch.manual_seed(number)
    ours = CLASSES[cls](*args, **kwargs, dtype=torch.double).train(training)
    assert [(n, p.shape) for n, p in ours.named_parameters()] == [(n, p.shape) for n, p in theirs.named_parameters()]
    assert all(torch.equal(p, q) for p, q in zip(ours.parameters(), theirs.parameters(), strict=True))
    assert repr(ours) == repr(theirs)
    inputs, options = sample.forward_input.args, sample.forward_input.kwargs
    expected = theirs(*inputs, **options)
    assert_same(ours(*inputs, **options), expected)
    with io.BytesIO() as file:
        torch.save(ours, file)
        file.seek(0)
        loaded = torch.load(file, weights_only=False)
    assert_same(loaded(*inputs, **options), expected)
    other = CLASSES[cls](*args, **kwargs, dtype=torch.double).train(training)
    other.load_state_dict(theirs.state_dict())
    assert_same(other(*inputs, **options), expected)

    def function(*tensors):
        parameters = dict(zip(dict(ours.named_parameters()), tensors[len(flat) :], strict=True))
        results = functional_call(ours, parameters, rebuilt(tensors[: len(flat)]), options)
        return [results[0], *results[1]] if isinstance(results[1], tuple) else list(results)

    flat = [inputs[0], *(inputs[1] if len(inputs) > 1 else ())]

    def rebuilt(tensors):
        return (tensors[0], tuple(tensors[1:])) if len(inputs) > 1 else (tensors[0],)

    everything = [t.detach().requires_grad_() for t in (*flat, *ours.parameters())]
    assert torch.autograd.gradcheck(function, everything, fast_mode=True)
    if training:  # none of torch's cases drops anything: evaluation is the same function
        assert torch.autograd.gradgradcheck(function, everything, fast_mode=True)


# ---------------------------------------------------------------------------------------- every option at once


@st.composite
def networks(draw):
    """The arguments of a network."""
    hidden = draw(st.integers(1, 19))
    return {
        "input_size": draw(st.integers(1, 9)),
        "hidden_size": hidden,
        "num_layers": draw(st.integers(1, 3)),
        "bias": draw(st.booleans()),
        "batch_first": draw(st.booleans()),
        "bidirectional": draw(st.booleans()),
        "proj_size": draw(st.integers(1, hidden - 1)) if hidden > 1 and draw(st.booleans()) else 0,
    }


def pair(network, dtype, dropout=0.0):
    """Make torch's network and gatewise's with the same weights, in training mode."""
    theirs = nn.LSTM(**network, dropout=dropout if network["num_layers"] > 1 else 0.0, dtype=dtype)
    ours = gatewise.LSTM(**network, dropout=dropout if network["num_layers"] > 1 else 0.0, dtype=dtype)
    ours.load_state_dict(theirs.state_dict())
    return theirs, ours


def states(network, B, dtype):
    rows = network["num_layers"] * (1 + network["bidirectional"])
    batch = () if B is None else (B,)
    widths = network["proj_size"] or network["hidden_size"], network["hidden_size"]
    return [torch.randn(rows, *batch, width, dtype=dtype) for width in widths]


def laid_out(x, layout):
    """The same numbers with other strides."""
    if layout == "transposed":
        return x.transpose(0, -1).contiguous().transpose(0, -1)
    if layout == "sliced":
        wide = torch.full((*x.shape[:-1], 2 * x.shape[-1] + 1), torch.nan, dtype=x.dtype)
        wide[..., 1::2] = x
        return wide[..., 1::2]
    if layout == "expanded":
        return x[:1].expand_as(x)
    return x


many = settings(max_examples=80, deadline=None, derandomize=True)


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN:UserWarning")
@many
@given(
    networks(),
    st.sampled_from(["batch", "single", "packed", "packed sorted"]),
    st.integers(1, 7),
    st.integers(1, 7),
    st.booleans(),
    st.sampled_from(["plain", "transposed", "sliced", "expanded"]),
    st.sampled_from([torch.float64, torch.float32]),
    st.sampled_from([0.0, 0.5, 1.0]),
    st.integers(0, 2**16),
)
def test_every_option_at_once(network, form, T, B, with_state, layout, dtype, dropout, seed):
    torch.manual_seed(seed)
    if dtype is torch.float32:
        dropout = 0.0  # torch draws its masks within oneDNN's call order there; float64 shows that ours are the same
    theirs, ours = pair(network, dtype, dropout)
    first = B if form != "single" and network["batch_first"] else T
    shape = (T,) if form == "single" else (first, T if network["batch_first"] else B)
    x = laid_out(torch.randn(*shape, network["input_size"], dtype=dtype), layout)
    hx = states(network, None if form == "single" else B, dtype) if with_state else [None, None]
    lengths = torch.randint(1, T + 1, (B,))
    lengths[0] = T
    if form == "packed sorted":
        lengths = lengths.sort(descending=True).values
    results = []
    for module in (theirs, ours):
        x_, *hx_ = leaves(x, *hx)
        given_ = x_ if layout == "plain" else laid_out(x_, layout)
        if form.startswith("packed"):
            given_ = pack_padded_sequence(given_, lengths, network["batch_first"], enforce_sorted="sorted" in form)
        torch.manual_seed(seed)
        output, (h_n, c_n) = module(given_, tuple(hx_) if with_state else None)
        values = output.data if isinstance(output, PackedSequence) else output
        drawn = torch.Generator().manual_seed(seed)
        loss = sum((t * torch.randn(t.shape, generator=drawn, dtype=dtype)).sum() for t in (values, h_n, c_n))
        module.zero_grad()
        loss.backward()
        gradients = [None if t is None else t.grad for t in (x_, *hx_)]
        results.append(
            {"output": output, "h_n": h_n, "c_n": c_n}
            | dict(zip(["d_input", "d_h_0", "d_c_0"], gradients, strict=True))
            | {f"d_{name}": parameter.grad for name, parameter in module.named_parameters()}
        )
    for name, expected in results[0].items():
        assert_same(results[1][name], expected, name)


def by_pieces(module, x, hx, lengths, reset):
    """Run each sequence of a batch (T, B, I) by itself, cut where it is reset, and put the results together."""
    directions = 1 + module.bidirectional
    width = (module.proj_size or module.hidden_size) * directions
    output = []
    h_n, c_n = [], []
    for b, length in enumerate(lengths):
        h_0, c_0 = (state[:, b] for state in hx)
        cuts = [0, *(t for t in range(1, length) if reset[t, b]), length]
        pieces, ends = [], []
        for start, end in itertools.pairwise(cuts):
            if end == start:
                continue
            first = torch.tensor([start == 0 and not reset[0, b], end == length] * module.num_layers)
            first = first.view(module.num_layers, 2)[:, :directions].reshape(-1, 1)
            piece, state = module(x[start:end, b], (torch.where(first, h_0, 0), torch.where(first, c_0, 0)))
            pieces.append(piece)
            ends.append(state)
        pieces.append(x.new_zeros(len(x) - length, width))
        output.append(torch.cat(pieces))
        if not ends:
            h_n.append(h_0), c_n.append(c_0)
            continue
        for states_, which in ((h_n, 0), (c_n, 1)):
            forward, reverse = ends[-1][which], ends[0][which]
            is_reverse = torch.arange(len(h_0))[:, None] % directions == 1
            states_.append(torch.where(is_reverse, reverse, forward))
    return torch.stack(output, 1), torch.stack(h_n, 1), torch.stack(c_n, 1)


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN:UserWarning")
@many
@given(
    networks(),
    st.integers(1, 6),
    st.integers(1, 5),
    st.booleans(),
    st.booleans(),
    st.booleans(),
    st.sampled_from([torch.float64, torch.float32]),
    st.integers(0, 2**16),
)
def test_lengths_and_resets_equal_torch_piece_by_piece(network, T, B, with_state, short, cut, dtype, seed):
    torch.manual_seed(seed)
    theirs, ours = pair(network, dtype)
    x, hx = torch.randn(T, B, network["input_size"], dtype=dtype), states(network, B, dtype)
    if not with_state:
        hx = [torch.zeros_like(state) for state in hx]
    lengths = torch.randint(0, T + 1, (B,)) if short else torch.full((B,), T)
    reset = torch.rand(T, B) < (0.4 if cut else 0.0)
    results = []
    for module in (theirs, ours):
        x_, *hx_ = leaves(x, *hx)
        if module is theirs:
            outputs = by_pieces(theirs, x_, hx_, lengths.tolist(), reset)
        else:
            across = (lambda t: t.transpose(0, 1)) if network["batch_first"] else (lambda t: t)
            output, state = ours(
                across(x_),
                tuple(hx_) if with_state else None,
                lengths=lengths if short else None,
                reset=across(reset) if cut else None,
            )
            outputs = (across(output), *state)
        drawn = torch.Generator().manual_seed(seed)
        loss = sum((t * torch.randn(t.shape, generator=drawn, dtype=dtype)).sum() for t in outputs)
        module.zero_grad()
        if loss.requires_grad:
            loss.backward()
        zeros = lambda t: torch.zeros_like(t) if t.grad is None else t.grad  # noqa: E731
        results.append(
            dict(zip(["output", "h_n", "c_n"], outputs, strict=True))
            | {"d_input": zeros(x_)}
            | (dict(zip(["d_h_0", "d_c_0"], map(zeros, hx_), strict=True)) if with_state else {})
            | {f"d_{name}": zeros(parameter) for name, parameter in module.named_parameters()}
        )
    for name, expected in results[0].items():
        assert_same(results[1][name], expected, name)


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("proj_size", [0, 2])
def test_gradients_of_gradients_with_lengths_and_resets(bidirectional, proj_size):
    lstm = gatewise.LSTM(3, 4, 2, bidirectional=bidirectional, proj_size=proj_size, dtype=torch.float64).eval()
    lengths, reset = torch.tensor([4, 0, 2]), torch.rand(4, 3) < 0.4
    x = torch.randn(4, 3, 3, dtype=torch.float64, requires_grad=True)
    h_0, c_0 = (t[:, :3].requires_grad_() for t in states(vars(lstm), 3, torch.float64))

    def run(x, h_0, c_0, *weights):
        parameters = dict(zip(dict(lstm.named_parameters()), weights, strict=True))
        output, state = functional_call(lstm, parameters, (x, (h_0, c_0)), {"lengths": lengths, "reset": reset})
        return (output, *state)

    inputs = (x, h_0, c_0, *lstm.parameters())
    assert torch.autograd.gradcheck(run, inputs, fast_mode=True)
    assert torch.autograd.gradgradcheck(run, inputs, fast_mode=True)


def test_no_number_past_a_length_is_read_or_gets_a_gradient():
    lstm = gatewise.LSTM(3, 4, 2, bidirectional=True)
    lengths = [5, 2, 0]
    x = torch.randn(5, 3, 3)
    clean = lstm(x, lengths=lengths)[0]
    past = torch.arange(5)[:, None] >= torch.tensor(lengths)
    spoilt = x.masked_fill(past[:, :, None], torch.nan).requires_grad_()
    output, _ = lstm(spoilt, lengths=lengths)
    assert torch.equal(output, clean)
    assert not output[past].any()
    output.sum().backward()
    assert not spoilt.grad[past].any()
    assert spoilt.grad[~past].all()


@pytest.mark.parametrize("proj_size", [0, 2])
def test_what_is_no_number_past_a_length_stays_out_of_the_gradients(proj_size):
    lstm, x = gatewise.LSTM(3, 4, proj_size=proj_size), torch.randn(5, 2, 3)
    x[3:, 1] = torch.inf
    lstm(x, lengths=[5, 3])[0].sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in lstm.parameters())


@pytest.mark.parametrize("given_", [[2, 0, 3], torch.tensor([2, 0, 3]), torch.tensor([2, 0, 3], dtype=torch.int32)])
def test_lengths_in_any_form(given_):
    lstm, x = gatewise.LSTM(3, 4), torch.randn(3, 3, 3)
    assert torch.equal(lstm(x, lengths=given_)[0], lstm(x, lengths=torch.tensor([2, 0, 3]))[0])


def test_a_single_sequence_can_be_reset():
    lstm, x = gatewise.LSTM(3, 4, bidirectional=True), torch.randn(6, 3)
    reset = torch.tensor([False, False, True, False, False, False])
    output, _ = lstm(x, reset=reset)
    assert torch.equal(output, torch.cat([lstm(x[:2])[0], lstm(x[2:])[0]]))


def test_packed_equals_lengths_bit_for_bit():
    lstm, x, lengths = gatewise.LSTM(3, 4, 2, bidirectional=True), torch.randn(6, 4, 3), torch.tensor([2, 6, 1, 6])
    packed, state = lstm(pack_padded_sequence(x, lengths, enforce_sorted=False))
    output, state_by_lengths = lstm(x, lengths=lengths)
    assert torch.equal(pad_packed_sequence(packed)[0], output)
    assert all(torch.equal(a, b) for a, b in zip(state, state_by_lengths, strict=True))


def test_what_does_not_fit_is_refused_in_words():
    lstm, x = gatewise.LSTM(3, 4), torch.randn(5, 2, 3)
    for lengths, error, says in [
        ([1], ShapeError, r"lengths have shape \(1,\), needed \(B,\) = \(2,\)"),
        ([6, 1], ArgumentError, "lengths go from 1 to 6, needed from 0 to T = 5"),
        ([-1, 1], ArgumentError, "lengths go from -1 to 1"),
        ([1.0, 2.0], DtypeError, "lengths are torch.float32, needed whole numbers"),
    ]:
        with pytest.raises(error, match=says):
            lstm(x, lengths=lengths)
    with pytest.raises(ArgumentError, match="lengths go from -3 to 99"):
        grad(lambda z: lstm(z, lengths=[-3, 99])[0].sum())(x)
    with pytest.raises(DtypeError, match="needed one whole number for each of the 2 sequences"):
        lstm(x, lengths=[1, None])
    assert lstm(x[:, :0], lengths=[])[0].shape == (5, 0, 4)
    with pytest.raises(ShapeError, match=r"reset has shape \(4,\), needed \(T\) = \(5,\)"):
        lstm(x[:, 0], reset=torch.zeros(4, dtype=torch.bool))
    for reset, error, says in [
        (torch.zeros(2, 5, dtype=torch.bool), ShapeError, r"reset has shape \(2, 5\), needed \(T, B\) = \(5, 2\)"),
        (torch.zeros(5, 2), DtypeError, r"reset is torch.float32, needed a torch.bool tensor: .*reset.bool\(\)"),
        ([[True]], DtypeError, "reset is a list"),
    ]:
        with pytest.raises(error, match=says):
            lstm(x, reset=reset)
    with pytest.raises(ShapeError, match="needed a batch axis for lengths"):
        lstm(x[:, 0], lengths=[3])
    packed = pack_padded_sequence(x, [5, 2])
    with pytest.raises(ArgumentError, match="input is packed and has lengths of its own"):
        lstm(packed, lengths=[5, 2])
    with pytest.raises(ShapeError, match=r"packed data of shape \(7, 3\), needed \(steps, I\) with I = 9"):
        gatewise.LSTM(9, 4)(packed)
    with pytest.raises(ShapeError, match=r"h_0 has shape \(1, 3, 4\), needed \(L·D, B, H\) = \(1, 2, 4\)"):
        lstm(packed, (torch.zeros(1, 3, 4), torch.zeros(1, 3, 4)))
    with pytest.raises(ArgumentError, match="hx is a tuple of Tensor, NoneType, needed a pair of tensors"):
        lstm(x, (torch.zeros(1, 2, 4), None))
    with pytest.raises(KernelError, match=r"input is on meta and the weights are on cpu: move the one"):
        lstm(x.to("meta"))
    projected = gatewise.LSTM(3, 4, proj_size=2)
    with pytest.raises(ShapeError, match=r"h_0 has shape .*, needed \(L·D, B, P\) = \(1, 2, 2\): P is 4"):
        projected(x, (torch.zeros(1, 2, 4), torch.zeros(1, 2, 4)))


@pytest.mark.parametrize(
    ("args", "call"),
    [
        ((3, 4), lambda m: m(torch.randn(2, 2, 2, 3))),
        ((3, 4), lambda m: m(torch.randn(5, 2, 4))),
        ((3, 4), lambda m: m(torch.randn(5, 2, 3).double())),
        ((3, 4), lambda m: m(torch.randn(5, 2, 3), (torch.zeros(1, 2, 4), torch.zeros(1, 3, 4)))),
        ((3, 4), lambda m: m(torch.randn(5, 2, 3), (torch.zeros(1, 4), torch.zeros(1, 4)))),
        ((3, 4), lambda m: m.load_state_dict({"weight_ih_l0": torch.zeros(16, 3)})),
        ((3, 4), lambda m: m.load_state_dict(nn.LSTM(3, 5).state_dict())),
        ((3, 0), None),
        ((0, 3), None),
        ((3, 4, 0), None),
        ((3, 4.0), None),
        ((3, 4, 1, 1), None),
        ((3, 4, 1, True, False, 1.5), None),
        ((3, 4, 1, True, False, 0.0, False, 4), None),
        ((3, 4, 1, True, False, 0.0, False, -1), None),
    ],
)
def test_what_torch_raises_is_raised_here(args, call):
    def error_of(cls):
        try:
            module = cls(*args)
            call(module)
        except Exception as error:
            return type(error)

    assert issubclass(error_of(gatewise.LSTM), error_of(nn.LSTM))


# ------------------------------------------------------------------------------------------- weights by gate


def test_gates_are_views_in_torchs_order():
    lstm = gatewise.LSTM(3, 4, 2, bidirectional=True)
    gates = lstm.gates(1, 1)
    for number, gate in enumerate(gates):
        rows = slice(4 * number, 4 * number + 4)
        for kind in gate._fields:
            whole = getattr(lstm, f"{kind}_l1_reverse")
            assert torch.equal(getattr(gate, kind), whole[rows])
            assert getattr(gate, kind).untyped_storage().data_ptr() == whole.untyped_storage().data_ptr()
    with torch.no_grad():
        gates.f.bias_ih.fill_(7)
    assert lstm.bias_ih_l1_reverse[4:8].eq(7).all()


def test_an_lstm_apart_and_together_again():
    for options in ({}, {"bias": False}, {"num_layers": 2, "bidirectional": True}):
        theirs = nn.LSTM(3, 4, **options, dtype=torch.float64)
        whole = gatewise.LSTM(3, 4, **options, dtype=torch.float64)
        whole.load_state_dict(theirs.state_dict())
        layers = [[whole.gates(k, d) for d in range(1 + whole.bidirectional)] for k in range(whole.num_layers)]
        again = gatewise.LSTM.from_gates(layers)
        x = torch.randn(5, 2, 3, dtype=torch.float64)
        assert_same(again(x), theirs(x))


def test_the_operator_by_hand_is_the_same():
    """torch's weights taken apart by gate, both biases of each, and multiplied out in a loop."""
    theirs = nn.LSTM(5, 6, dtype=torch.float64)
    lstm = gatewise.LSTM(5, 6, dtype=torch.float64)
    lstm.load_state_dict(theirs.state_dict())
    i, f, g, o = lstm.gates()
    x = torch.randn(7, 3, 5, dtype=torch.float64)
    h, c = (state[0] for state in lstm.init_state(3))
    for x_t in x:
        a = [x_t @ w.weight_ih.T + w.bias_ih + h @ w.weight_hh.T + w.bias_hh for w in (i, f, g, o)]
        c = a[1].sigmoid() * c + a[0].sigmoid() * a[2].tanh()
        h = a[3].sigmoid() * c.tanh()
    assert_same(h, theirs(x)[0][-1])


def test_the_page_about_gates():
    results = doctest.testfile(
        str(Path(__file__).parents[1] / "docs" / "gates.md"), module_relative=False, encoding="utf-8"
    )
    assert results.attempted > 20
    assert results.failed == 0


def test_gates_that_do_not_fit():
    gate = gatewise.Gate(torch.zeros(2, 3), torch.zeros(2, 2))
    wrong = gatewise.Gate(torch.zeros(2, 4), torch.zeros(2, 2))
    with pytest.raises(ShapeError, match=r"weight_ih of gate g has shape \(2, 4\), needed \(2, 3\) as gate i has it"):
        gatewise.LSTM.from_gates(gatewise.Gates(gate, gate, wrong, gate))
    good = gatewise.Gates(gate, gate, gate, gate)
    with pytest.raises(ShapeError, match=r"weight_ih_l1 has shape \(8, 3\) from its gates, needed \(8, 2\)"):
        gatewise.LSTM.from_gates([good, good])
    with pytest.raises(ArgumentError, match=r"the layers have \[1, 2\] directions"):
        gatewise.LSTM.from_gates([good, (good, good)])
    with pytest.raises(ArgumentError, match="proj_size is 2, needed is 0"):
        gatewise.LSTM(3, 4, proj_size=2).gates()
    with pytest.raises(ArgumentError, match="layer is 1 and direction 0, needed a layer below 1"):
        gatewise.LSTM(3, 2).gates(1)


# -------------------------------------------------------------------------------------------- dtypes and devices


@pytest.mark.parametrize("proj_size", [0, 2])
def test_float16_is_float32_rounded(proj_size):
    dtype = torch.float16
    narrow = gatewise.LSTM(3, 4, 2, bidirectional=True, proj_size=proj_size).to(dtype)
    wide = copy.deepcopy(narrow).float()
    x = torch.randn(5, 2, 3).to(dtype)
    output, (h_n, _) = narrow(x)
    expected, state = wide(x.float())
    assert torch.equal(output, expected.to(dtype))
    assert torch.equal(h_n, state[0].to(dtype))
    output.float().square().sum().backward()
    expected.to(dtype).float().square().sum().backward()
    for (name, p), q in zip(narrow.named_parameters(), wide.parameters(), strict=True):
        assert p.grad.dtype == dtype, name
        assert torch.equal(p.grad, q.grad.to(dtype)), name
    cell = gatewise.LSTMCell(3, 4).to(dtype)
    assert cell(x[0])[0].dtype == dtype


def test_autocast():
    lstm, x = gatewise.LSTM(3, 4, proj_size=0), torch.randn(5, 2, 3)
    narrow = copy.deepcopy(lstm).bfloat16()
    for module, inner in ((lstm, narrow), (gatewise.LSTM(3, 4, proj_size=2), None)):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            output, (h_n, c_n) = module(x)
            mixed, _ = module(x.bfloat16(), (h_n, c_n))
            assert "bfloat16" in gatewise.explain_path(module, x).why or module.proj_size
        assert {t.dtype for t in (output, h_n, c_n, mixed)} == {torch.bfloat16}
        if inner is not None:
            assert torch.equal(output, inner(x.bfloat16())[0])
        output.float().sum().backward()
        assert module.weight_ih_l0.grad.dtype == torch.float32
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert gatewise.LSTMCell(3, 4)(x[0])[0].dtype == torch.bfloat16
        assert gatewise.LSTM(3, 4, dtype=torch.float64)(x.double())[0].dtype == torch.float64


def test_meta_device():
    lstm = gatewise.LSTM(3, 4, 2, bidirectional=True, device="meta")
    output, (h_n, _) = lstm(torch.randn(5, 2, 3, device="meta"))
    assert (output.shape, h_n.shape, output.device.type) == ((5, 2, 8), (4, 2, 4), "meta")
    reset = torch.zeros(5, 2, dtype=torch.bool, device="meta")
    lstm(torch.randn(5, 2, 3, device="meta"), reset=reset)[0].sum().backward()
    assert lstm.weight_hh_l1.grad.shape == (16, 4)
    lstm.zero_grad()
    built = lstm.to_empty(device="cpu")
    built.reset_parameters()
    assert built(torch.randn(5, 2, 3))[0].isfinite().all()


def test_paths_are_explained():
    lstm, x = gatewise.LSTM(3, 4), torch.randn(5, 2, 3)
    explain = gatewise.explain_path
    assert str(explain(lstm, x)).startswith("kernel: float32 on cpu, instruction set ")
    assert explain(lstm, x, lengths=[1, 2]).name == "kernel"
    assert explain(lstm, pack_padded_sequence(x, [5, 2])).name == "kernel"
    assert explain(gatewise.LSTM(3, 4, proj_size=2), x).name == "kernel"
    assert explain(copy.deepcopy(lstm).half(), x.half()).why.endswith("computed in float32, the results rounded")
    assert explain(gatewise.LSTMCell(3, 4), x[0]).name == "kernel"
    with torch.autograd.forward_ad.dual_level():
        assert explain(lstm, x).name == "composite"
    with pytest.raises(ArgumentError, match=r"module is a torch.nn.modules.rnn.LSTM, needed a gatewise.LSTM"):
        explain(nn.LSTM(3, 4), x)
    for wrong, error in (
        (x.long(), DtypeError),
        (x[:, :, :2], ShapeError),
        (x.to_sparse(), KernelError),
        (None, DtypeError),
    ):
        with pytest.raises(error):
            explain(lstm, wrong)
    with pytest.raises(ArgumentError, match="a cell takes a single step"):
        explain(gatewise.LSTMCell(3, 4), x[0], lengths=[1])


needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA device")


@needs_cuda
@pytest.mark.parametrize("walked", [False, True])
def test_on_a_gpu(walked):
    theirs, ours = nn.LSTM(3, 4, 2, bidirectional=True).cuda(), gatewise.LSTM(3, 4, 2, bidirectional=True)
    ours.load_state_dict(theirs.state_dict())
    x, walk = torch.randn(5, 2, 3), {"lengths": [5, 2], "reset": torch.rand(5, 2) < 0.3} if walked else {}
    expected = ours(x, **walk)[0] if walked else theirs(x.cuda())[0].cpu()
    ours = ours.cuda()
    if walked:
        walk["reset"] = walk["reset"].cuda()
    assert gatewise.explain_path(ours, x.cuda(), **walk).name == ("composite" if walked else "torch")
    output, _ = ours(x.cuda(), **walk)
    assert_same(output.cpu(), expected, tolerance=1e-3)  # cuDNN may use TF32
    output.sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in ours.parameters())
    packed = pack_padded_sequence(x.cuda(), [5, 2])
    assert_same(ours(packed)[0].data, theirs(packed)[0].data, tolerance=1e-3)
    assert ours.eval()(x.cuda())[0].sum().backward() is None


# ------------------------------------------------------------------------------------ what is done to modules


def test_no_op_and_lists():
    lstm, theirs = (
        gatewise.LSTM(3, 4, 2, bidirectional=True, proj_size=2),
        nn.LSTM(3, 4, 2, bidirectional=True, proj_size=2),
    )
    before = [p.data_ptr() for p in lstm.parameters()]
    lstm.flatten_parameters()
    assert [p.data_ptr() for p in lstm.parameters()] == before
    assert [[w.shape for w in layer] for layer in lstm.all_weights] == [
        [w.shape for w in layer] for layer in theirs.all_weights
    ]
    assert lstm.extra_repr() == theirs.extra_repr()


def test_copies_and_pickles_compute_the_same():
    lstm, x = gatewise.LSTM(3, 4, 2, dropout=0.3).eval(), torch.randn(5, 2, 3)
    expected = lstm(x)[0]
    for other in (copy.deepcopy(lstm), copy.copy(lstm), pickle.loads(pickle.dumps(lstm))):
        assert torch.equal(other(x)[0], expected)


def test_state_dicts_with_hooks_and_strict_errors():
    lstm, theirs = gatewise.LSTM(3, 4), nn.LSTM(3, 4)
    seen = []
    lstm.register_state_dict_post_hook(lambda module, state, prefix, metadata: seen.append("saved"))
    lstm.register_load_state_dict_post_hook(lambda module, keys: seen.append("loaded"))
    theirs.load_state_dict(lstm.state_dict())
    lstm.load_state_dict(theirs.state_dict())
    assert seen == ["saved", "loaded"]
    state = theirs.state_dict()
    with pytest.raises(RuntimeError, match=r"Missing key.*bias_hh_l0"):
        lstm.load_state_dict({name: w for name, w in state.items() if name != "bias_hh_l0"})
    with pytest.raises(RuntimeError, match=r"Unexpected key.*extra"):
        lstm.load_state_dict(state | {"extra": torch.zeros(1)})
    assert lstm.load_state_dict(state | {"extra": torch.zeros(1)}, strict=False).unexpected_keys == ["extra"]


@pytest.mark.parametrize("change", ["weight_norm", "spectral_norm", "prune", "assigned", "data"])
def test_weights_that_are_parametrized_pruned_or_assigned(change):
    x = torch.randn(5, 2, 3, dtype=torch.float64)
    outputs, gradients = [], []
    for cls in (nn.LSTM, gatewise.LSTM):
        torch.manual_seed(0)
        lstm = cls(3, 4, dtype=torch.float64)
        if change == "weight_norm":
            parametrizations.weight_norm(lstm, "weight_hh_l0")
        elif change == "spectral_norm":
            parametrizations.spectral_norm(lstm, "weight_hh_l0")
            lstm.eval()
        elif change == "prune":
            prune.l1_unstructured(lstm, "weight_ih_l0", 0.5)
        elif change == "assigned":
            lstm.weight_hh_l0 = nn.Parameter(torch.ones(16, 4, dtype=torch.float64) / 9)
        else:
            lstm.weight_hh_l0.data = torch.ones(16, 4, dtype=torch.float64) / 9
        output, _ = lstm(x)
        output.sum().backward()
        outputs.append(output)
        gradients.append([p.grad for p in lstm.parameters()])
    assert_same(outputs[1], outputs[0])
    assert_same(tuple(gradients[1]), tuple(gradients[0]))


def test_modes_and_hooks():
    lstm, x = gatewise.LSTM(3, 4), torch.randn(5, 2, 3)
    with torch.no_grad():
        assert not lstm(x)[0].requires_grad
    with torch.inference_mode():
        assert lstm(x)[0].is_inference()
    seen = []
    lstm.register_forward_pre_hook(lambda module, args: seen.append("before"))
    lstm.register_forward_hook(lambda module, args, output: seen.append("after"))
    lstm.register_full_backward_hook(lambda module, d_in, d_out: seen.append("backward"))
    lstm(x.requires_grad_())[0].sum().backward()
    assert seen == ["before", "after", "backward"]


class Series(torch.utils.data.Dataset):
    """Items computed by an LSTM in the workers, from shared weights."""

    def __init__(self, lstm):
        self.lstm = lstm

    def __len__(self):
        return 4

    def __getitem__(self, number):
        with torch.no_grad():
            return self.lstm(torch.full((30, 64, 3), float(number)))[0]


@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_shared_weights_in_the_workers_of_a_loader(context):
    lstm = gatewise.LSTM(3, 32)
    lstm.share_memory()
    assert all(p.is_shared() for p in lstm.parameters())
    series = Series(lstm)
    expected = torch.stack([series[number] for number in range(4)])
    loader = torch.utils.data.DataLoader(series, batch_size=4, num_workers=1, multiprocessing_context=context)
    assert torch.equal(next(iter(loader)), expected)


def test_a_forked_process_does_not_wait_for_threads_that_are_not_there():
    """After a call on several threads; torch's own LSTM would wait for ever."""
    code = """
import os, signal, torch, gatewise
torch.set_num_threads(2)
lstm, x = gatewise.LSTM(32, 64), torch.randn(50, 64, 32)
expected = lstm(x)[0]
child = os.fork()
if child == 0:
    signal.alarm(20)
    # (torch's own comparison of tensors would wait for threads, too.)
    same = lstm(x)[0].detach().numpy().tobytes() == expected.detach().numpy().tobytes()
    same = same and "forked" in gatewise.explain_path(lstm, x).why
    os._exit(0 if same else 1)
raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    done = subprocess.run([sys.executable, "-c", code], env=os.environ | {"OMP_NUM_THREADS": "2"}, timeout=60)
    assert done.returncode == 0


def test_the_composite_is_the_kernel_in_other_words():
    torch.manual_seed(0)
    lstm = gatewise.LSTM(3, 4, 2, bidirectional=True, dtype=torch.float64)
    x, lengths, reset = torch.randn(5, 3, 3, dtype=torch.float64), torch.tensor([5, 0, 3]), torch.rand(5, 3) < 0.4
    weights = list(lstm.parameters())
    output, state = lstm(x, lengths=lengths, reset=reset)
    expected = composite_lstm(x, None, None, weights, 2, True, False, lengths, reset, None)
    assert_same((output, *state), expected)
