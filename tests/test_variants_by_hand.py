"""What each variant of the cell is: by its equations, by hand, and by what it must not do."""

import numpy as np
import pytest
import torch

import gatewise
from compare import assert_same
from gatewise import reference
from gatewise.errors import ArgumentError, ShapeError
from gatewise.reference.cell import Plain
from gatewise.reference.variant import Variant
from gatewise.reference.variants import Varied
from varied import ROUNDING, H, I, call_of, make


def test_with_nothing_changed_the_variants_step_is_the_plain_one():
    lstm = make({"proj_size": 2})
    own = {name.removesuffix("_l0"): p.detach().numpy() for name, p in lstm.named_parameters()}
    x, state, (d_output, _, d_c_n) = call_of(lstm)
    x, state, d_state = x[0].numpy(), tuple(s[0].numpy() for s in state), (d_output[0].numpy(), d_c_n[0].numpy())
    plain, varied = Plain(), Varied(Variant())
    now, other = plain.step(x, state, own, {}), varied.step(x, state, own, {})
    for one, two in zip(now, other, strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-14)
    sent, back = (pair.step_backward(d_state, now, x, state, own, {}) for pair in (plain, varied))
    assert sent.d_parameters.keys() == back.d_parameters.keys()
    for one, two in zip(
        (sent.d_x, *sent.d_state, *sent.d_parameters.values()),
        (back.d_x, *back.d_state, *(back.d_parameters[name] for name in sent.d_parameters)),
        strict=True,
    ):
        np.testing.assert_allclose(one, two, rtol=1e-12, atol=1e-15)


def test_coupled_gates_add_up_to_one():
    found = gatewise.trace(make({"coupled": True}), torch.randn(4, 3, I, dtype=torch.float64))
    assert torch.equal(found.f, 1 - found.i)


@pytest.mark.parametrize("gate_activation", ["sigmoid", "exp"])
def test_a_trace_of_an_slstm_has_the_stabilized_gates(gate_activation):
    found = gatewise.trace(
        make({"cell": "slstm", "gate_activation": gate_activation}), torch.randn(6, 3, I, dtype=torch.float64)
    ).layers[0]
    assert torch.equal(torch.maximum(found.i, found.f), torch.ones_like(found.i))
    assert not found.f[0].any() and found.f[1:].all()  # there is nothing to forget at first (7.26)
    c, n = torch.zeros_like(found.c[0]), torch.zeros_like(found.c[0])
    for i, f, g, o, c_t, h_t in zip(found.i, found.f, found.g, found.o, found.c, found.h, strict=True):
        c, n = f * c + i * g, f * n + i  # (7.27)
        assert_same(c_t, c, tolerance=ROUNDING)
        assert_same(h_t, o * c / n, tolerance=ROUNDING)  # (7.28)


def test_a_trace_has_the_candidate_before_its_mask_and_the_state_that_is_handed_on():
    x = torch.randn(6, 3, I, dtype=torch.float64)
    found = gatewise.trace(make({"recurrent_dropout": 0.5}).train(), x).layers[0]
    written = found.c - found.f * torch.cat([found.c[:1] * 0, found.c[:-1]])
    shares = (written / (found.i * found.g)).round(decimals=6).abs().unique()
    assert shares.tolist() == [0, 2]  # (7.11)
    found = gatewise.trace(make({"zoneout": (0.0, 0.25)}).eval(), x).layers[0]
    before = torch.cat([found.c[:1] * 0, found.c[:-1]])
    made = found.f * before + found.i * found.g
    assert_same(found.c, 0.25 * before + 0.75 * made, tolerance=ROUNDING)  # (7.17)
    assert_same(found.h, found.o * made.tanh(), tolerance=ROUNDING)


def test_a_trace_has_the_weights_that_it_was_computed_with():
    lstm = make({"weight_dropout": 0.5}).train()
    weight = gatewise.trace(lstm, torch.randn(6, 3, I, dtype=torch.float64)).weights[1]
    kept = weight != 0
    assert 0 < kept.sum() < weight.numel()
    assert torch.equal(weight[kept], 2 * lstm.weight_hh_l0.detach()[kept])


def test_peepholes_of_zero_change_nothing():
    lstm, plain = make({"peephole": True}), make({})
    with torch.no_grad():
        lstm.weight_ch_l0.zero_()
    plain.load_state_dict({name: p for name, p in lstm.state_dict().items() if "weight_ch" not in name})
    x, state, _ = call_of(lstm)
    assert_same(lstm(x, state)[0].detach(), plain(x, state)[0].detach(), tolerance=ROUNDING)


def test_a_peephole_computed_by_hand():
    # Nothing but the peepholes: f = σ(p_f), c = f and i g = 0, o = σ(p_o c), from c_0 = 1.
    own = {"weight_ih": np.zeros((4, 1)), "weight_hh": np.zeros((4, 1)), "weight_ch": np.array([5.0, -1.0, 3.0])}
    now = Varied(Variant(peephole=True)).step(np.zeros((1, 1)), (np.zeros((1, 1)), np.ones((1, 1))), own, {})
    f = 1 / (1 + np.e)
    o = 1 / (1 + np.exp(-3 * f))
    np.testing.assert_allclose([now.f.item(), now.c.item(), now.o.item(), now.h.item()], [f, f, o, o * np.tanh(f)])


def test_layer_norm_is_torchs_on_what_it_is_said_to_normalize():
    lstm = make({"layer_norm": True})
    x, state, _ = call_of(lstm, T=1)
    norm = torch.nn.functional.layer_norm
    W, U, b, d = lstm.weight_ih_l0, lstm.weight_hh_l0, lstm.bias_ih_l0, lstm.bias_hh_l0
    a = norm(x[0] @ W.T, (4 * H,), lstm.gain_ih_l0, b) + norm(state[0][0] @ U.T, (4 * H,), lstm.gain_hh_l0, d)
    i, f, g, o = a.chunk(4, dim=-1)
    c = f.sigmoid() * state[1][0] + i.sigmoid() * g.tanh()
    h = o.sigmoid() * norm(c, (H,), lstm.gain_c_l0, lstm.bias_c_l0).tanh()
    assert_same(lstm(x, state)[0][0].detach(), h.detach(), tolerance=ROUNDING)
    assert_same(lstm(x, state)[1][1][0].detach(), c.detach(), tolerance=ROUNDING)


def test_layer_norm_begins_with_gains_of_one():
    lstm = gatewise.LSTM(I, H, 2, layer_norm=True)
    for kind, value in {"gain": 1, "bias_c": 0}.items():
        parameters = [p for name, p in lstm.named_parameters() if name.startswith(kind)]
        assert parameters and all((p == value).all() for p in parameters)
    names = [name for name, _ in gatewise.LSTM(I, H, bias=False, layer_norm=True).named_parameters()]
    assert names == ["weight_ih_l0", "weight_hh_l0", "gain_ih_l0", "gain_hh_l0", "gain_c_l0"]


def test_hard_gates_and_linear_activations_compute_by_hand():
    """The well-known exercise: x_2 = 1 adds x_1 to the memory, x_2 = -1 empties it, x_3 = 1 shows it."""
    lstm = gatewise.LSTM(3, 1, gate_activation="step", candidate_activation="linear", cell_activation="linear")
    i, f, g, o = (lstm.gates()._asdict()[name] for name in "ifgo")
    with torch.no_grad():
        for parameter in lstm.parameters():
            parameter.zero_()
        i.weight_ih[0, 1], i.bias_ih[0] = 100, -10
        f.weight_ih[0, 1], f.bias_ih[0] = 100, 10
        g.weight_ih[0, 0] = 1
        o.weight_ih[0, 2], o.bias_ih[0] = 100, -10
    x = [[1, 3, 2, 4, 2, 1, 3, 6, 1], [0, 1, 0, 1, 0, 0, -1, 1, 0], [0, 0, 0, 0, 0, 1, 0, 0, 1]]
    found = gatewise.trace(lstm, torch.tensor(x).T[:, None].float())
    assert found.c.flatten().tolist() == [0, 3, 3, 7, 7, 7, 0, 6, 6]
    assert found.h.flatten().tolist() == [0, 0, 0, 0, 0, 7, 0, 0, 6]


def test_an_slstm_is_a_weighted_mean_of_its_candidates():
    """By the sums that overflow, at sizes where they do not."""
    for activation in ("sigmoid", "exp"):
        lstm = make({"cell": "slstm", "gate_activation": activation})
        with torch.no_grad():
            lstm.weight_hh_l0.zero_()  # so that every step's gates are known at once
        x, _, _ = call_of(lstm, T=6)
        a_i, a_f, a_g, a_o = (x @ lstm.weight_ih_l0.T + lstm.bias_ih_l0 + lstm.bias_hh_l0).chunk(4, dim=-1)
        f = a_f.sigmoid() if activation == "sigmoid" else a_f.exp()
        c = n = torch.zeros_like(a_i[0])
        for t in range(6):
            c, n = f[t] * c + a_i[t].exp() * a_g[t].tanh(), f[t] * n + a_i[t].exp()
            assert_same(lstm(x)[0][t].detach(), (a_o[t].sigmoid() * c / n).detach(), tolerance=ROUNDING)


@pytest.mark.parametrize("activation", ["sigmoid", "exp"])
@pytest.mark.parametrize("size", [-1000.0, 1000.0])
def test_an_slstm_does_not_overflow(activation, size):
    lstm = make({"cell": "slstm", "gate_activation": activation}).float()
    x = torch.full((5, 2, I), size)
    reset = torch.tensor([[False, True]] * 5)
    output, states = lstm(x, reset=reset)
    assert all(t.isfinite().all() for t in (output, *states))
    assert output.abs().max() <= 1
    assert (states[2] >= 1).all()
    gradients = torch.autograd.grad(output.sum(), list(lstm.parameters()))
    assert all(g.isfinite().all() for g in gradients)


def test_an_slstm_names_the_states_that_it_needs():
    lstm = gatewise.LSTM(I, H, cell="slstm")
    x, states = torch.zeros(4, 3, I), lstm.init_state(3)
    assert [tuple(s.shape) for s in states] == [(1, 3, H)] * 4
    assert torch.equal(lstm(x, states)[0], lstm(x)[0])
    says = r"hx is a tuple of Tensor, Tensor, needed 4 tensors \(h_0, c_0, n_0, m_0\), or None for zeros: pass all"
    with pytest.raises(ArgumentError, match=says):
        lstm(x, states[:2])
    with pytest.raises(ShapeError, match=r"n_0 has shape \(1, 3, 4\), needed \(L·D, B, H\) = \(1, 3, 3\)"):
        lstm(x, (*states[:2], torch.zeros(1, 3, 4), states[3]))
    parameters = {name: p.detach().double().numpy() for name, p in gatewise.LSTM(I, H).named_parameters()}
    with pytest.raises(ArgumentError, match="n_0: this cell's state is h and c alone"):
        reference.forward(x.double().numpy(), parameters, n_0=np.zeros((1, 3, H)))
