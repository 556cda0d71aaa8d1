"""First weights by name: what each draws, on the plain cell and on variants."""

import copy

import pytest
import torch

import gatewise
from gatewise.errors import ArgumentError
from gatewise.nn.initial import initialize

NAMES = ["torch", "forget_one", "chrono", "orthogonal", "xavier", "zeros"]
VARIANTS = [{}, {"peephole": True}, {"coupled": True}, {"layer_norm": True}, {"coupled": True, "peephole": True}]


def drawn(name, **options):
    torch.manual_seed(0)
    lstm = gatewise.LSTM(5, 40, 2, bidirectional=True, **options)
    initialize(lstm, name, **({"longest": 50} if name == "chrono" else {}))
    return lstm, {name: p.detach() for name, p in lstm.named_parameters()}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("options", VARIANTS, ids=str)
def test_every_name_draws_every_weight_of_every_variant(name, options):
    if name == "forget_one" and "coupled" in options:
        with pytest.raises(ArgumentError, match="coupled is True, and its forget gate has no bias to be 1"):
            drawn(name, **options)
        return
    lstm, first = drawn(name, **options)
    before = copy.deepcopy(first)
    with torch.no_grad():
        for parameter in lstm.parameters():
            parameter.fill_(torch.nan)
    initialize(lstm, name, **({"longest": 50} if name == "chrono" else {}))
    now = dict(lstm.named_parameters())
    assert all(p.isfinite().all() for p in now.values())
    for kind in ("weight_ih_l0", "weight_hh_l1_reverse"):  # drawn anew, and of the same spread
        assert torch.equal(now[kind], before[kind]) == (name == "zeros")
        assert now[kind].std().item() == pytest.approx(before[kind].std().item(), rel=0.1)


def test_what_they_draw():
    _, plain = drawn("torch")
    bound = 40**-0.5
    assert all(p.abs().max() <= bound for p in plain.values())
    _, one = drawn("forget_one")
    assert torch.equal(one["bias_ih_l1"][40:80] + one["bias_hh_l1"][40:80], torch.ones(40))
    assert one["bias_ih_l1"][:40].abs().max() > 0
    _, xavier = drawn("xavier")
    assert xavier["weight_hh_l0"].abs().max() == pytest.approx((6 / 80) ** 0.5, rel=0.01)
    assert not xavier["bias_ih_l0"].any()
    _, orthogonal = drawn("orthogonal")
    for gate in orthogonal["weight_hh_l1_reverse"].chunk(4):
        torch.testing.assert_close(gate @ gate.T, torch.eye(40), rtol=0, atol=1e-5)
    _, zeros = drawn("zeros")
    assert not any(p.any() for p in zeros.values())


def test_coupled_gates_remember_by_their_input_gate():
    _, weights = drawn("chrono", coupled=True)
    i = weights["bias_ih_l0"][:40]
    assert -torch.tensor(49.0).log() <= i.min() <= i.max() <= 0
    _, weights = drawn("orthogonal", coupled=True)
    assert torch.equal(weights["bias_ih_l0"][:40], -torch.ones(40))
    assert not weights["bias_ih_l0"][40:].any()


def test_what_is_refused():
    lstm = gatewise.LSTM(5, 4)
    with pytest.raises(
        ArgumentError, match="name is 'he', needed one of torch, forget_one, chrono, orthogonal, xavier"
    ):
        initialize(lstm, "he")
    with pytest.raises(ArgumentError, match="longest is missing, and it is what chrono needs"):
        initialize(lstm, "chrono")
    with pytest.raises(ArgumentError, match="longest is 5, and it is what chrono needs and no other"):
        initialize(lstm, "zeros", longest=5)
    with pytest.raises(ArgumentError, match="proj_size is 2, needed is 0"):
        initialize(gatewise.LSTM(5, 4, proj_size=2), "orthogonal")
    for longest in (True, 0, 2, 2.5, float("inf"), "many"):
        with pytest.raises(ArgumentError, match="needed a whole number of steps, 3 or more"):
            initialize(lstm, "chrono", longest=longest)


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_left_as_it_was_without_a_word(name):
    """Where a name has no weights of its own to draw, or would take the blocks of another cell for gates."""
    longest = {"longest": 50} if name == "chrono" else {}
    for other in (
        ()
        if name == "zeros"
        else (torch.nn.GRU(5, 4), torch.nn.RNN(5, 4), gatewise.LSTMCell(5, 4), torch.nn.Sequential())
    ):
        kind = type(other).__name__
        with pytest.raises(ArgumentError, match=f"lstm is a {kind}, needed a gatewise.LSTM or a torch.nn.LSTM"):
            initialize(other, name, **longest)
    normalized = torch.nn.utils.parametrizations.weight_norm(gatewise.LSTM(5, 4), "weight_hh_l0")
    with pytest.raises(ArgumentError, match="lstm has parametrized weights, which are computed of others"):
        initialize(normalized, name, **longest)
    without = gatewise.LSTM(5, 4, bias=False)
    if name in ("forget_one", "chrono"):
        with pytest.raises(ArgumentError, match=f"lstm has no biases, and {name} is a choice of them"):
            initialize(without, name, **longest)
    else:
        initialize(without, name, **longest)
