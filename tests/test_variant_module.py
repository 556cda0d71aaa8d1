"""A changed cell as a module: its parameters and copies, what it says of itself, and what it refuses."""

import copy
import dataclasses
import pickle
import re

import numpy as np
import pytest
import torch

import gatewise
from cells import NOT_IN_AN_SLSTM, REFUSED
from compare import assert_same
from gatewise.errors import ArgumentError
from gatewise.nn.paths import Path
from varied import ROUNDING, H, I, call_of, every_single, make


def test_a_variant_explains_its_path_and_itself():
    lstm = gatewise.LSTM(I, H, 2, peephole=True, cell_activation="linear")
    assert repr(lstm) == "LSTM(2, 3, num_layers=2, peephole=True, cell_activation='linear')"
    with gatewise.kernels.using("baseline"):
        path = gatewise.explain_path(lstm, torch.zeros(4, 3, I))
    how = "float32 on cpu, instruction set baseline, peephole=True cell_activation='linear': as it is"
    assert (path.name, path.why.split(";")[0]) == ("kernel", how)
    dropping = gatewise.LSTM(I, H, recurrent_dropout=0.5)
    assert "recurrent_dropout=0.5" in gatewise.explain_path(dropping, torch.zeros(4, 3, I)).why
    assert "dropout" not in gatewise.explain_path(dropping.eval(), torch.zeros(4, 3, I)).why
    on_meta = gatewise.LSTM(I, H, cell="slstm", device="meta")
    output, states = on_meta(torch.zeros(4, 3, I, device="meta"))
    assert (output.shape, [s.shape for s in states]) == ((4, 3, H), [(1, 3, H)] * 4)


def test_parameters_are_named_and_round_trip():
    lstm = gatewise.LSTM(I, H, bidirectional=True, proj_size=2, peephole=True, coupled=True)
    shapes = {name: tuple(p.shape) for name, p in lstm.named_parameters() if "reverse" not in name}
    assert shapes == {
        "weight_ih_l0": (9, 2),
        "weight_hh_l0": (9, 2),
        "bias_ih_l0": (9,),
        "bias_hh_l0": (9,),
        "weight_hr_l0": (2, 3),
        "weight_ch_l0": (6,),
    }
    assert all(p.abs().max() <= 3**-0.5 for p in lstm.parameters())
    other = gatewise.LSTM(I, H, bidirectional=True, proj_size=2, peephole=True, coupled=True)
    other.load_state_dict(lstm.state_dict())
    x = torch.randn(4, 3, I)
    assert torch.equal(other(x)[0], lstm(x)[0])


@every_single
def test_copies_and_transforms(options):
    lstm = make(options)
    x, state, _ = call_of(lstm)
    expected = lstm(x, state)[0].detach()
    for other in (copy.deepcopy(lstm), pickle.loads(pickle.dumps(lstm)), copy.deepcopy(lstm).float().double()):
        assert repr(other) == repr(lstm)
        assert_same(other(x, state)[0].detach(), expected, tolerance=1e-6)
    mapped = torch.func.vmap(lambda x, *state: lstm(x, state)[0], in_dims=1, out_dims=1)(x, *state)
    assert_same(mapped.detach(), expected, tolerance=ROUNDING)
    alone, _ = lstm(x[:, 0], tuple(s[:, 0] for s in state))
    assert_same(alone.detach(), expected[:, 0], tolerance=ROUNDING)


def test_the_same_seed_gives_a_variant_of_torchs_parameters_torchs_weights():
    torch.manual_seed(3)
    plain = gatewise.LSTM(I, H)
    torch.manual_seed(3)
    varied = gatewise.LSTM(I, H, gate_activation="hardsigmoid")
    assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), varied.parameters(), strict=True))


@pytest.mark.parametrize("pair", REFUSED, ids=" + ".join)
def test_what_does_not_go_together_is_refused_by_name(pair):
    with pytest.raises(ArgumentError, match=f"^{re.escape(NOT_IN_AN_SLSTM[pair[0]])}"):
        gatewise.LSTM(I, H, **REFUSED[pair])


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"cell": "gru"}, "cell is 'gru', needed one of lstm, slstm: choose one"),
        (
            {"gate_activation": "exp"},
            "gate_activation is 'exp', which grows without bound but in an sLSTM: add cell='slstm'",
        ),
        ({"peephole": 1}, "peephole is 1, needed True or False: choose one"),
        ({"coupled": "yes"}, "coupled is 'yes', needed True or False: choose one"),
        (
            {"gate_activation": "relu"},
            "gate_activation is 'relu', needed one of sigmoid, hardsigmoid, step, exp: choose one",
        ),
        ({"zoneout": 1.0}, "zoneout is 1.0, needed a rate from 0 to below 1: choose one"),
        (
            {"zoneout": (0.1, 0.2, 0.3)},
            "zoneout is (0.1, 0.2, 0.3), needed a rate, or one for h and one for c: give a pair",
        ),
        ({"recurrent_dropout": -0.1}, "recurrent_dropout is -0.1, needed a rate from 0 to below 1: choose one"),
        ({"weight_dropout": True}, "weight_dropout is True, needed a rate from 0 to below 1: choose one"),
        ({"variational_dropout": "x"}, "variational_dropout is 'x', needed a rate from 0 to below 1: choose one"),
        ({"cell_activation": None}, "cell_activation is None, needed one of tanh, linear: choose one"),
    ],
)
def test_other_values_are_refused(options, says):
    with pytest.raises(ArgumentError, match=f"^{re.escape(says)}$"):
        gatewise.LSTM(I, H, **options)


@every_single
def test_weights_gate_by_gate(options):
    """Views of the blocks of rows, where there are four gates and nothing else."""
    lstm = make(options)
    more = next((name for name in ("proj_size", "peephole", "coupled", "layer_norm") if options.get(name)), None)
    if more == "proj_size":
        with pytest.raises(ArgumentError, match="proj_size is 2, needed is 0: with weight_hr there is more than four"):
            lstm.gates()
    elif more is not None:
        with pytest.raises(ArgumentError, match=f"^{more} is True, and its weights are not those of four gates: read"):
            lstm.gates()
    else:
        for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
            stacked = torch.cat([getattr(gate, kind) for gate in lstm.gates()])
            assert torch.equal(stacked, getattr(lstm, f"{kind}_l0"))
        with torch.no_grad():
            lstm.gates().f.bias_ih.fill_(7)
        assert (lstm.bias_ih_l0[H : 2 * H] == 7).all()


def test_what_knows_the_plain_cell_alone_refuses_a_variant_by_name():
    lstm = gatewise.LSTM(I, H, peephole=True)
    with pytest.raises(ArgumentError, match="lstm has peephole, and a stream computes the plain cell"):
        gatewise.Stream(lstm)
    dropping = gatewise.LSTM(I, H, weight_dropout=0.5)
    stream = gatewise.Stream(dropping, 3)
    with pytest.raises(ArgumentError, match=r"lstm is in training and drops what it computes: call eval\(\) first"):
        stream(torch.zeros(3, I))
    dropping.eval()
    x = torch.randn(4, 3, I)
    assert torch.equal(torch.stack([stream(x_t) for x_t in x]), dropping(x)[0])


def test_rates_may_change_and_parameters_may_not():
    lstm = make({"zoneout": 0.1, "peephole": True}).eval()
    x, state, _ = call_of(lstm)
    before = lstm(x, state)[0]
    lstm.variant = dataclasses.replace(lstm.variant, zoneout=0.9)
    lengths = torch.full((x.size(1),), len(x))
    assert (lstm(x, state)[0] - before).abs().max() > 0.01
    assert_same(lstm(x, state)[0], lstm(x, state, lengths=lengths)[0])
    lstm.train().variant = dataclasses.replace(lstm.variant, zoneout=0.0, weight_dropout=0.5)
    torch.manual_seed(0)
    dropped = lstm(x, state)[0]
    torch.manual_seed(0)
    assert_same(dropped, lstm(x, state, lengths=lengths)[0])
    with pytest.raises(ArgumentError, match=r"parameters and states of {.*}: make a new LSTM"):
        lstm.variant = dataclasses.replace(lstm.variant, peephole=False)
    with pytest.raises(ArgumentError, match="make a new LSTM"):
        make({}).variant = make({"cell": "slstm"}).variant
    with pytest.raises(ArgumentError, match=r"needed a Variant: make one by dataclasses\.replace"):
        lstm.variant = None
    assert make({"recurrent_dropout": np.float32(0.5)}).variant.recurrent_dropout == 0.5


def test_an_slstm_s_states_may_be_changed_in_place():
    lstm = make({"cell": "slstm"}, num_layers=2)
    x, _, _ = call_of(lstm)
    for walk in ({}, {"lengths": torch.full((x.size(1),), len(x))}):
        _, state = lstm(x, **walk)
        halves = [each.detach() * 0.5 for each in state]
        for each in state:
            each.detach_().mul_(0.5)
        for each, half in zip(state, halves, strict=True):
            assert torch.equal(each, half)
        assert torch.equal(lstm(x, state, **walk)[0], lstm(x, tuple(halves), **walk)[0])


def test_dropped_weights_are_dropped_on_torchs_own_path():
    lstm = make({"weight_dropout": 0.5}).train()
    x, (h_0, c_0), _ = call_of(lstm)
    network = lstm.prepare(x, (h_0, c_0), None, None).network
    found = []
    for path in ("torch", "composite"):
        torch.manual_seed(1)
        found.append(network.run(Path(path, ""), x, h_0, c_0, list(lstm.parameters()))[0])
    assert_same(*found)
