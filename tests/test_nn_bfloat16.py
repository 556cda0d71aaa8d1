"""gatewise.LSTM and LSTMCell in bfloat16."""

import copy

import pytest
import torch

import gatewise
from beside_torch import relative, results
from gatewise.reference.code import PLAIN_CODE

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
