"""`gatewise.Stream`: T steps are one call over the sequence, whatever happens between them."""

import copy
import pickle
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import prune
from torch.overrides import BaseTorchFunctionMode

import gatewise
from gatewise import kernels
from gatewise.errors import ArgumentError, DtypeError, KernelError, RunError, ShapeError

DTYPES = (torch.float32, torch.float64, torch.bfloat16)


def steps_of(stream, x):
    return torch.stack([stream(x_t) for x_t in x])


def same_state(stream, lstm, state):
    h, c = stream.state
    return torch.equal(h, state[0]) and torch.equal(c.to(state[1].dtype), state[1])


@st.composite
def networks(draw):
    H = draw(st.integers(1, 20))
    torch.manual_seed(draw(st.integers(0, 99)))
    return gatewise.LSTM(
        draw(st.integers(1, 20)),
        H,
        num_layers=draw(st.integers(1, 3)),
        bias=draw(st.booleans()),
        proj_size=draw(st.integers(0, H - 1)),
        batch_first=draw(st.booleans()),
        dtype=draw(st.sampled_from(DTYPES)),
    )


@settings(max_examples=60, deadline=None)
@given(networks(), st.none() | st.integers(1, 5), st.integers(1, 6), st.data())
def test_steps_are_the_sequence_bit_for_bit(tmp_path_factory, lstm, B, T, data):
    rows = () if B is None else (B,)
    x = torch.randn(T, *rows, lstm.input_size).to(lstm.weight_hh_l0.dtype)
    reset = torch.zeros(T, *rows, dtype=torch.bool)
    saved = data.draw(st.integers(0, T))
    path = tmp_path_factory.mktemp("stream") / "state.safetensors"
    stream, found = gatewise.Stream(lstm, batch_size=B), []
    for t in range(T):
        if t == saved:
            stream.save(path)
            stream = gatewise.Stream(lstm, batch_size=B)
            stream.restore(path)
        if data.draw(st.booleans()):
            chosen = None if B is None else data.draw(st.lists(st.integers(0, B - 1), unique=True))
            stream.reset() if B is None else stream.reset(rows=chosen)
            reset[t] = True if B is None else torch.isin(torch.arange(B), torch.tensor(chosen, dtype=torch.long))
        found.append(stream(x[t]))
    across = lstm.batch_first and B is not None
    given_x, given_reset = (x.transpose(0, 1), reset.transpose(0, 1)) if across else (x, reset)
    with torch.no_grad():
        output, state = lstm(given_x, reset=given_reset)
    assert torch.equal(torch.stack(found), output.transpose(0, 1) if across else output)
    assert same_state(stream, lstm, state)


@pytest.mark.parametrize("name", kernels.available())
def test_every_instruction_set_and_a_change_of_it(name):
    lstm = gatewise.LSTM(5, 19, num_layers=2, proj_size=7)
    stream, x = gatewise.Stream(lstm, batch_size=3), torch.randn(4, 3, 5)
    found = [stream(x[0]), stream(x[1])]
    with kernels.using(name):
        found += [stream(x[2]), stream(x[3])]
    expected, _ = lstm(x)
    # (Each instruction set rounds as the others do, or by FMA less; what is packed for one is nonsense to another.)
    assert torch.allclose(torch.stack(found), expected, atol=1e-6)


@pytest.mark.parametrize("threads", [1, 2])
def test_sizes_that_threads_share(threads):
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        lstm, x = gatewise.LSTM(128, 256), torch.randn(3, 8, 128)
        with torch.no_grad():
            assert torch.equal(steps_of(gatewise.Stream(lstm, batch_size=8), x), lstm(x)[0])
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("cell", [gatewise.LSTMCell, nn.LSTMCell])
def test_cells(cell, bias):
    cell = cell(6, 5, bias=bias)
    x = torch.randn(7, 2, 6)
    ours = gatewise.LSTM(6, 5, bias=bias)
    ours.load_state_dict({f"{name}_l0": weight for name, weight in cell.state_dict().items()})
    stream = gatewise.Stream(cell, batch_size=2)
    assert torch.equal(steps_of(stream, x), ours(x)[0])
    hx = None
    for x_t in x:
        hx = cell(x_t, hx)
    assert torch.allclose(stream.state[1][0], hx[1], atol=1e-6)  # a few ulp of numbers about 1


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
def test_torch_lstm():
    theirs = nn.LSTM(6, 5, num_layers=2, proj_size=3)
    x = torch.randn(7, 2, 6)
    with torch.no_grad():
        expected, (h_n, c_n) = theirs(x)
    stream = gatewise.Stream(theirs, batch_size=2)
    assert torch.allclose(steps_of(stream, x), expected, atol=1e-6)  # a few ulp of numbers about 1
    assert [state.shape for state in stream.state] == [h_n.shape, c_n.shape]


def test_an_output_stays_as_it_is_and_may_be_written_to():
    lstm, x = gatewise.LSTM(3, 4), torch.randn(3, 1, 3)
    stream = gatewise.Stream(lstm)
    first = stream(x[0])
    kept = first.clone()
    second = stream(x[1])
    assert torch.equal(first, kept)
    second.zero_()
    assert torch.equal(stream(x[2]), lstm(x)[0][2])


def test_inputs_of_any_strides():
    lstm, x = gatewise.LSTM(4, 3), torch.randn(4, 2, 10)
    stream = gatewise.Stream(lstm, batch_size=2)
    given_x = [x[0, :, :8:2], x[1, :, :4], x[:, :, 2].T, torch.complex(x[3, :, :4], -x[3, :, 4:8]).conj().imag]
    assert given_x[3].is_neg()
    assert torch.equal(steps_of(stream, given_x), lstm(torch.stack([g.clone() for g in given_x]))[0])


# ------------------------------------------------------------------------------------------------ weights


def adam(lstm):
    optimizer = torch.optim.Adam(lstm.parameters(), lr=0.1, fused=True)
    lstm(torch.randn(2, 1, lstm.input_size))[0].sum().backward()
    optimizer.step()


def through_data(lstm):
    for weight in lstm.parameters():
        weight.data.mul_(0.5)


def through_numpy(lstm):
    for weight in lstm.parameters():
        np.multiply(weight.detach().numpy(), 0.5, out=weight.detach().numpy())


def other_memory(lstm):
    for _ in range(3):  # so that memory given back is used again
        for weight in lstm.parameters():
            weight.data = torch.randn_like(weight)


def other_parameters(lstm):
    for name, weight in list(lstm.named_parameters()):
        setattr(lstm, name, nn.Parameter(torch.randn_like(weight)))


def one_bias(lstm):
    lstm.bias_hh_l1.data[3] += 1


def one_projection(lstm):
    with torch.no_grad():
        lstm.weight_hr_l1[0, 0] += 1


def loaded(lstm):
    lstm.load_state_dict(gatewise.LSTM(20, 40, num_layers=2, proj_size=9).state_dict())


@pytest.mark.parametrize(
    "change",
    [adam, through_data, through_numpy, other_memory, other_parameters, one_bias, one_projection, loaded],
    ids=lambda change: change.__name__,
)
def test_weights_that_change_are_used_at_the_next_step(change):
    lstm, x = gatewise.LSTM(20, 40, num_layers=2, proj_size=9), torch.randn(4, 1, 20)
    stream = gatewise.Stream(lstm)
    state = None
    for t, x_t in enumerate(x):
        if t == 2:
            change(lstm)
        with torch.no_grad():
            expected, state = lstm(x_t[None], state)
        assert torch.equal(stream(x_t), expected[0])


def test_a_number_written_behind_torchs_back_is_found_in_time():
    lstm, x = gatewise.LSTM(128, 128), torch.zeros(1, 128)
    stream = gatewise.Stream(lstm)
    stream(x)
    lstm.weight_ih_l0.data[77, 31] = 5
    x[0, 31] = 1
    N = lstm.weight_ih_l0.nbytes
    for _ in range(N // 1024):
        state = stream.state
        h = stream(x)
    assert torch.equal(h, lstm(x[None], state)[0][0])


def test_weights_that_are_computed_anew():
    lstm, x = gatewise.LSTM(20, 40), torch.randn(4, 1, 20)
    nn.utils.parametrizations.weight_norm(lstm, "weight_hh_l0")
    stream = gatewise.Stream(lstm)
    steps_of(stream, x)
    with torch.no_grad():
        lstm.parametrizations.weight_hh_l0.original0.mul_(2)
    stream.reset()
    assert torch.equal(steps_of(stream, x), lstm(x)[0])


def test_weights_of_other_strides_and_in_inference_mode():
    with torch.inference_mode():
        lstm = gatewise.LSTM(20, 40)
        lstm.weight_hh_l0.data = lstm.weight_hh_l0.data.T.contiguous().T
        stream, x = gatewise.Stream(lstm), torch.randn(4, 1, 20)
        first = steps_of(stream, x)
        assert torch.equal(first, lstm(x)[0])
        lstm.weight_ih_l0[7, 3] += 1  # nobody counts these
        lstm.weight_hh_l0[8, 4] += 1
        stream.reset()
        assert torch.equal(steps_of(stream, x), lstm(x)[0])
    stream.reset()  # its state is no inference tensor
    assert stream.state[0].count_nonzero() == 0


@pytest.mark.parametrize("change", [lambda lstm: lstm.double(), lambda lstm: lstm.to("meta")])
def test_weights_that_no_longer_fit(change):
    lstm = gatewise.LSTM(4, 3)
    stream = gatewise.Stream(lstm)
    stream(torch.zeros(1, 4))
    change(lstm)
    with pytest.raises(ShapeError, match=r"^weight_ih_l0 of lstm is \(12, 4\), .*make a new Stream$"):
        stream(torch.zeros(1, 4))


def test_weights_of_another_size():
    lstm = gatewise.LSTM(4, 3)
    stream = gatewise.Stream(lstm)
    for name, weight in gatewise.LSTM(4, 5).named_parameters():
        setattr(lstm, name, weight)
    with pytest.raises(ShapeError, match=r"is \(20, 4\), torch.float32 on cpu, and the stream began with \(12, 4\)"):
        stream(torch.zeros(1, 4))


# -------------------------------------------------------------------------------------------------- state


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_state_is_a_copy_and_can_be_set(dtype):
    lstm, x = gatewise.LSTM(4, 3, num_layers=2, dtype=dtype), torch.randn(6, 2, 4).to(dtype)
    stream, other = gatewise.Stream(lstm, batch_size=2), gatewise.Stream(lstm, batch_size=2)
    steps_of(stream, x[:3])
    state = stream.state
    expected = steps_of(stream, x[3:])
    other.state = state
    assert torch.equal(steps_of(other, x[3:]), expected)
    for part in state:
        part.fill_(9)
    assert not torch.equal(stream.state[0], state[0])


def test_a_stream_goes_on_from_what_an_lstm_returned():
    lstm = gatewise.LSTM(4, 3, dtype=torch.bfloat16)
    _, state = lstm(torch.randn(6, 1, 4).bfloat16())
    stream = gatewise.Stream(lstm)
    stream.state = state
    assert torch.equal(stream.state[1], state[1].float())
    assert stream.state[1].dtype == torch.float32


@pytest.mark.parametrize(
    ("state", "error", "says"),
    [
        (3, ArgumentError, r"^hx is a int, needed a pair"),
        ((torch.zeros(1, 2, 3), torch.zeros(1, 2, 4)), ShapeError, r"^c of lstm .* H is 4 instead of 3$"),
        ((torch.zeros(1, 3, 3), torch.zeros(1, 2, 3)), ShapeError, r"^h of lstm .* B is 3 instead of 2$"),
        ((torch.zeros(1, 2, 3), torch.zeros(1, 2, 3).double()), DtypeError, r"^c of lstm is torch.float64"),
    ],
)
def test_states_that_do_not_fit_change_nothing(state, error, says):
    stream = gatewise.Stream(gatewise.LSTM(4, 3), batch_size=2)
    stream(torch.ones(2, 4))
    before = stream.state
    with pytest.raises(error, match=says):
        stream.state = state
    assert all(map(torch.equal, stream.state, before))


def test_places_that_cannot_be_written_to(tmp_path):
    stream = gatewise.Stream(gatewise.LSTM(4, 3))
    (tmp_path / "file").touch()
    for place, why in {
        tmp_path / "none" / "state": "No such file or directory",
        tmp_path / "file" / "state": "Not a directory",
        tmp_path: "Is a directory",
        Path("/dev/full"): "No space left on device",
        Path("/proc/state"): "No such file or directory",  # what nobody may write to, root included
    }.items():
        with pytest.raises(RunError, match=rf"^{place} cannot be written \({why}\): make its folder, make room"):
            stream.save(place)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("to", [copy.copy, copy.deepcopy, pickle.dumps])
def test_a_stream_is_neither_copied_nor_pickled(to):
    stream = gatewise.Stream(gatewise.LSTM(4, 3))
    with pytest.raises(ArgumentError, match=r"^a Stream is neither copied nor pickled: make another Stream"):
        to(stream)
    other = gatewise.Stream(copy.deepcopy(stream.model))  # what is said works
    stream(torch.ones(1, 4))
    other.state = stream.state
    assert other(torch.ones(1, 4)).equal(stream(torch.ones(1, 4)))


def test_damaged_and_other_files(tmp_path):
    path, stream = tmp_path / "state.safetensors", gatewise.Stream(gatewise.LSTM(4, 3))
    with pytest.raises(RunError, match=r"^.*state.safetensors is missing: save a stream there, or wait"):
        stream.restore(path)
    stream(torch.ones(1, 4))
    before = stream.state
    stream.save(path)
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(RunError, match=r"is damaged .* or save a stream there$"):
        stream.restore(path)
    for foreign in (content[:20], pickle.dumps({"h": 1}), b""):
        path.write_bytes(foreign)
        with pytest.raises(RunError, match=r"cannot be read as tensors"):
            stream.restore(path)
    path.write_bytes(safetensors.torch.save(dict(zip("hc", before, strict=True))))
    with pytest.raises(RunError, match=r"is of another program \(it has no checksum\): restore it or save a stream"):
        stream.restore(path)
    path.write_bytes(content)
    with pytest.raises(ShapeError, match=r"^h of lstm has shape \(1, 1, 3\), needed \(L, B, P\) = \(1, 2, 3\)"):
        gatewise.Stream(gatewise.LSTM(4, 3), batch_size=2).restore(path)
    with pytest.raises(RunError, match=r"holds \['c', 'h'\], needed the state of this stream: \['0.c', '0.h'\]$"):
        gatewise.Stream(nn.Sequential(gatewise.LSTM(4, 3))).restore(path)
    assert all(map(torch.equal, stream.state, before))


@pytest.mark.parametrize(
    ("rows", "error"),
    [([2], ArgumentError), ([-1], ArgumentError), ([0.5], DtypeError), ("a", DtypeError), ([True], ShapeError)],
)
def test_rows_that_are_none(rows, error):
    with pytest.raises(error, match=r"^rows"):
        gatewise.Stream(gatewise.LSTM(4, 3), batch_size=2).reset(rows)


def test_rows_by_a_mask():
    stream = gatewise.Stream(gatewise.LSTM(4, 3, num_layers=2), batch_size=3)
    stream(torch.ones(3, 4))
    stream.reset(torch.tensor([True, False, True]))
    assert stream.state[0].count_nonzero(dim=(0, 2)).tolist() == [0, 6, 0]
    stream.reset([])
    assert stream.state[0].count_nonzero() == 6


# ----------------------------------------------------------------------------------------- what is refused


def with_hook(lstm):
    lstm.register_forward_hook(lambda *args: None)
    return lstm


@pytest.mark.parametrize(
    ("make", "error", "says"),
    [
        (lambda: gatewise.Stream(3), ArgumentError, r"^model is a int"),
        (lambda: gatewise.Stream(nn.LSTM(2, 2), 0), ArgumentError, r"^batch_size is 0, needed a whole number"),
        (lambda: gatewise.Stream(nn.LSTM(2, 2), True), ArgumentError, r"^batch_size is True"),
        (lambda: gatewise.Stream(gatewise.LSTM(2, 2, bidirectional=True)), ArgumentError, r"^lstm is bidirectional"),
        (lambda: gatewise.Stream(gatewise.LSTM(2, 2).half()), DtypeError, r"^lstm is torch.float16, needed float32"),
        (lambda: gatewise.Stream(gatewise.LSTM(2, 2, device="meta")), KernelError, r"^lstm is on meta, needed on the"),
        (lambda: gatewise.Stream(nn.Linear(2, 2)), ArgumentError, r"^model is a Linear without an LSTM"),
        (lambda: gatewise.Stream(nn.GRU(2, 2)), ArgumentError, r"^model is a GRU, whose state"),
        (lambda: gatewise.Stream(nn.Sequential(nn.LSTM(2, 2), nn.RNN(2, 2))), ArgumentError, r"^1 is a RNN, whose"),
        (lambda: gatewise.Stream(nn.ModuleList([nn.LSTMCell(2, 2)])), ArgumentError, r"^0 is a LSTMCell, whose"),
    ],
)
def test_models_that_are_refused(make, error, says):
    with pytest.raises(error, match=says):
        make()


@pytest.mark.parametrize(
    ("lstm", "x", "error", "says"),
    [
        (nn.LSTM(4, 3), 3, DtypeError, r"^input is a int, needed a torch.Tensor"),
        (nn.LSTM(4, 3), torch.zeros(4), ShapeError, r"^input .*needed \(B, I\) = \(2, 4\): it has 1 axes"),
        (nn.LSTM(4, 3), torch.zeros(2, 5), ShapeError, r"^input .* I is 5 instead of 4$"),
        (nn.LSTM(4, 3), torch.zeros(2, 4).double(), DtypeError, r"^input is torch.float64"),
        (nn.LSTM(4, 3), torch.zeros(2, 4, device="meta"), KernelError, r"^input is on meta"),
        (nn.LSTM(4, 3), torch.zeros(2, 4).to_sparse(), KernelError, r"^input is laid out as torch.sparse"),
        (nn.LSTM(4, 3), torch.zeros(2, 4, requires_grad=True), ArgumentError, r"^input requires a gradient"),
        (nn.LSTM(4, 3), nn.Parameter(torch.zeros(2, 4)), ArgumentError, r"^input requires a gradient"),
        (with_hook(nn.LSTM(4, 3)), torch.zeros(2, 4), ArgumentError, r"^lstm has forward hooks"),
        (nn.LSTM(4, 3, num_layers=2, dropout=0.5), torch.zeros(2, 4), ArgumentError, r"^lstm is in training and drops"),
    ],
)
def test_steps_that_are_refused_change_nothing(lstm, x, error, says):
    stream = gatewise.Stream(lstm, batch_size=2)
    stream.state = state = tuple(torch.rand_like(part) for part in stream.state)
    with pytest.raises(error, match=says):
        stream(x)
    assert all(map(torch.equal, stream.state, state))


def test_surroundings_that_are_refused():
    stream, x = gatewise.Stream(gatewise.LSTM(4, 3)), torch.zeros(1, 4)
    with torch.autocast("cpu", torch.bfloat16), pytest.raises(ArgumentError, match=r"^autocast is on"):
        stream(x)
    with pytest.raises(ArgumentError, match=r"under a transform"):
        torch.func.vmap(stream)(x[None])
    with BaseTorchFunctionMode(), pytest.raises(ArgumentError, match=r"what overrides torch's functions"):
        stream(x)


@pytest.mark.filterwarnings("ignore")  # torch's own, of torch.jit and of what a trace does not see
def test_a_trace_is_refused():
    stream = gatewise.Stream(gatewise.LSTM(4, 3))
    with pytest.raises(ArgumentError, match=r"a trace"):
        torch.jit.trace(lambda x: stream(x), (torch.zeros(1, 4),))


def test_gradients():
    stream, x = gatewise.Stream(gatewise.LSTM(4, 3)), torch.ones(1, 4, requires_grad=True)
    assert not stream(x.detach()).requires_grad
    with torch.no_grad():
        assert not stream(x).requires_grad


def test_dropout_in_evaluation():
    lstm, x = gatewise.LSTM(4, 3, num_layers=2, dropout=0.5).eval(), torch.randn(5, 1, 4)
    assert torch.equal(steps_of(gatewise.Stream(lstm), x), lstm(x)[0])


# ------------------------------------------------------------------------------------------- whole models


class Speaker(nn.Module):
    """Tokens (B, T) to scores (B, T, 10), by two LSTMs, one of them torch's."""

    def __init__(self, last=False):
        super().__init__()
        self.embedding = nn.Embedding(10, 6)
        self.first = gatewise.LSTM(6, 5, num_layers=2, batch_first=True)
        self.second = nn.LSTM(5, 4)
        self.head = nn.Linear(4, 10)
        self.last = last
        self.calls = 1
        self.fails = False

    def forward(self, tokens, hx=None):
        x, (h_n, c_n) = self.first(self.embedding(tokens), hx)
        for _ in range(self.calls - 1):
            self.first(self.embedding(tokens))
        if self.fails:
            raise ValueError("on purpose")
        y, (h_n, c_n) = self.second(x.transpose(0, 1))
        assert h_n.shape == c_n.shape == (1, len(tokens), 4)
        return self.head(h_n[-1] if self.last else y.transpose(0, 1))


@pytest.fixture
def tokens():
    return torch.randint(10, (3, 7))


def test_a_model(tokens, tmp_path):
    model = Speaker().eval()
    expected = model(tokens)
    stream = gatewise.Stream(model, batch_size=3)
    found = [stream(tokens[:, t : t + 1]) for t in range(4)]
    stream.save(tmp_path / "state")
    stream = gatewise.Stream(model, batch_size=3)
    stream.restore(tmp_path / "state")
    found += [stream(tokens=tokens[:, t : t + 1]) for t in range(4, 7)]
    # torch's LSTM is computed by gatewise's kernels, and its product of one step adds up in another order: some ulp.
    assert torch.allclose(torch.cat(found, 1), expected, atol=1e-6)
    assert not found[0].requires_grad
    assert stream.state.keys() == {"first", "second"}
    assert torch.equal(model(tokens), expected)
    assert "forward" not in model.first.__dict__
    stream.reset(rows=[0, 1])
    again = stream(tokens[:, :1])
    assert torch.allclose(again[:2], expected[:2, :1], atol=1e-6)
    assert not torch.allclose(again[2], expected[2, :1], atol=1e-6)


def test_a_model_of_last_states_without_a_batch_axis():
    model = nn.Sequential(gatewise.LSTM(4, 3)).eval()
    x = torch.randn(5, 4)
    output, (h_n, c_n) = model(x)
    stream = gatewise.Stream(model, batch_size=None)
    for x_t in x:
        last, state = stream(x_t[None])
    assert torch.equal(last, output[-1:])
    assert torch.equal(state[0], h_n)
    assert torch.equal(state[1], c_n)
    assert torch.equal(stream.state["0"][1], c_n)


def test_hooks_run_in_a_model():
    lstm, x = gatewise.LSTM(4, 3), torch.randn(5, 1, 4)
    prune.l1_unstructured(lstm, "weight_hh_l0", 0.5)
    expected, _ = lstm(x)
    stream = gatewise.Stream(nn.Sequential(lstm).eval())
    assert torch.equal(torch.cat([stream(x_t[None])[0] for x_t in x]), expected)


@pytest.mark.parametrize(
    ("change", "words", "error", "says"),
    [
        ({"calls": 2}, {}, ArgumentError, r"^first is called twice in a step"),
        ({"fails": True}, {}, ValueError, r"^on purpose$"),
        ({}, {"hx": 3}, ArgumentError, r"^first is called with hx, and its state is the stream's"),
        ({"training": True}, {}, ArgumentError, r"^model is in training"),
        ({"second": nn.LSTM(5, 4)}, {}, ArgumentError, r"^second is an LSTM that was not in the model before"),
        ({"second": nn.Sequential(nn.LSTM(5, 4))}, {}, ArgumentError, r"^second.0 is an LSTM that was not in"),
    ],
)
def test_what_models_may_not_do(tokens, change, words, error, says):
    model = Speaker().eval()
    stream = gatewise.Stream(model, batch_size=3)
    stream(tokens[:, :1])
    before = stream.state
    for name, value in change.items():
        setattr(model, name, value)
    with pytest.raises(error, match=says):
        stream(tokens[:, 1:2], **words)
    for name, pair in stream.state.items():
        assert all(map(torch.equal, pair, before[name]))
    assert "forward" not in model.first.__dict__


def test_more_than_a_step(tokens):
    stream = gatewise.Stream(Speaker().eval(), batch_size=3)
    with pytest.raises(ShapeError, match=r"^first is given an input of shape \(3, 7, 6\), needed one step at a time"):
        stream(tokens)
    with pytest.raises(ShapeError, match=r"^input has shape \(2, 6\), needed \(B, I\) = \(3, 6\)"):
        stream(tokens[:2, :1])


def test_gradients_of_a_model():
    stream = gatewise.Stream(nn.Sequential(nn.Linear(4, 4), nn.LSTM(4, 3)).eval())
    with pytest.raises(ArgumentError, match=r"^input requires a gradient"):
        stream(torch.ones(1, 1, 4, requires_grad=True))


def test_a_state_of_other_lstms():
    stream = gatewise.Stream(Speaker().eval())
    state = stream.state
    with pytest.raises(ArgumentError, match=r"^state is a tuple, needed a dict"):
        stream.state = state["first"]
    del state["first"]
    with pytest.raises(ArgumentError, match=r"^state is of \['second'\], needed those of all LSTMs: \['first', 'sec"):
        stream.state = state


def test_a_class_of_ones_own_is_a_model():
    class Doubled(gatewise.LSTM):
        def forward(self, *args, **kwargs):
            output, state = super().forward(*args, **kwargs)
            return 2 * output, state

    with pytest.raises(ArgumentError, match=r"^model is a Doubled whose forward is not torch's or gatewise's own"):
        gatewise.Stream(Doubled(4, 3).eval())(torch.zeros(1, 1, 4))
