"""The gradient's way back: every step's gradient is autograd's, each path what it says, and a step's Jacobian."""

import itertools
import math

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence

import gatewise
from gatewise.errors import ArgumentError
from gatewise.insight.gradient_flow import gradient_flow
from recurrence import CLOSE, KINDS, B, H, I, T, cell_that_keeps, grad_of, made, some_loss, step_by_step

OPTIONS = [{}, {"num_layers": 2}, {"bidirectional": True}, {"num_layers": 3, "bidirectional": True}]
CASES = [(kind, options) for kind in KINDS for options in OPTIONS] + [
    ("lstm", {"num_layers": 2, "bidirectional": True, "proj_size": 2}),
    ("torch lstm", {"proj_size": 2}),
    ("srn", {"nonlinearity": "relu", "num_layers": 2}),
]


def assert_is_autograd_s(flow, states, lengths=None):
    lengths = torch.full((B,), T) if lengths is None else torch.as_tensor(lengths)
    for layer in flow.layers:
        for t in range(T):
            _, c, h = states[layer.layer, layer.direction, t]
            torch.testing.assert_close(layer.d_h[t], grad_of(h), **CLOSE)
            if layer.cell == "lstm":
                torch.testing.assert_close(layer.d_c[t], grad_of(c), **CLOSE)


@pytest.mark.parametrize("which", ["last", "all", "states"])
@pytest.mark.parametrize(("kind", "options"), CASES, ids=str)
def test_every_step_s_gradient_is_autograd_s(kind, options, which):
    module, x, loss = made(kind, **options), torch.randn(T, B, I).double(), some_loss(kind, which)
    output, states, steps = step_by_step(module, x)
    value = loss((output, states if "lstm" in kind else states[0]))
    value.backward()
    flow = gradient_flow(module, x, loss)
    assert flow.loss == pytest.approx(value.item(), rel=1e-12)
    assert_is_autograd_s(flow, steps)


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("kind", ["lstm", "torch lstm"])
def test_lengths_resets_and_a_state_to_begin_with(kind, bidirectional):
    module = made("lstm", num_layers=2, bidirectional=bidirectional)
    x, rows = torch.randn(T, B, I).double(), 4 if bidirectional else 2
    hx = torch.randn(rows, B, H).double(), torch.randn(rows, B, H).double()
    lengths, reset = [2, 6, 3], torch.rand(T, B) < 0.4
    loss = lambda returned: some_loss(kind, "all")(returned) + some_loss(kind, "states")(returned)  # noqa: E731
    output, states, steps = step_by_step(module, x, hx, lengths, reset)
    loss((output, states)).backward()

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.cell = module

        def forward(self, x):
            return self.cell(x, hx, lengths=lengths, reset=reset)

    assert_is_autograd_s(gradient_flow(Model(), x, loss), steps, lengths)


@pytest.mark.parametrize("options", [{}, {"num_layers": 2, "bidirectional": True}], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_packed_sequences(kind, options):
    module, x, lengths = made(kind, **options), torch.randn(T, B, I).double(), [2, 6, 3]
    output, _, steps = step_by_step(module, x, lengths=lengths)
    weights = torch.randn_like(output)
    (output * weights).sum().backward()
    packed = pack_padded_sequence(x, lengths, enforce_sorted=False)
    weights = pack_padded_sequence(weights, lengths, enforce_sorted=False).data
    flow = gradient_flow(module, packed, lambda returned: (returned[0].data * weights).sum())
    assert_is_autograd_s(flow, steps, lengths)


@pytest.mark.parametrize("kind", KINDS)
def test_batch_first_and_no_batch_axis(kind):
    module, x = made(kind), torch.randn(T, B, I).double()
    across = made(kind, batch_first=True)
    by_time = gradient_flow(module, x, lambda returned: returned[0][-1].sum())
    by_batch = gradient_flow(across, x.transpose(0, 1), lambda returned: returned[0][:, -1].sum())
    torch.testing.assert_close(by_batch.layers[0].paths, by_time.layers[0].paths)
    alone = gradient_flow(module, x[:, 1], lambda returned: returned[0][-1].sum())
    torch.testing.assert_close(alone.layers[0].paths[:, :, 0], by_time.layers[0].paths[:, :, 1])
    hx = gradient_flow(module, (x[:, 1], alone_state(kind)), lambda returned: returned[0][-1].sum())
    assert not torch.allclose(hx.layers[0].paths, alone.layers[0].paths)


def alone_state(kind):
    h = torch.ones(1, H).double()
    return (h, h) if "lstm" in kind else h


# --- the paths ----------------------------------------------------------------------------------------------


def test_the_cell_s_own_path_is_what_is_left_where_the_gates_hand_nothing_on():
    """What Hochreiter and Schmidhuber (1997) cut: the gradient on every path by way of h."""
    module, x, loss = made("lstm"), torch.randn(T, B, I).double(), some_loss("lstm", "all")
    output, states, steps = step_by_step(module, x, cut_h=True)
    # The same loss at the same place, so that it sends the same to each h.
    loss((output, states)).backward()
    cell = gradient_flow(module, x, loss).layers[0].path("cell")
    for t in range(T):
        torch.testing.assert_close(cell[t], steps[0, 0, t][1].grad, **CLOSE)


def test_each_gate_s_path_is_what_came_through_it_and_then_along_the_cell():
    """Written out as the double sum that it is, of autograd's gradients of the pre-activations."""
    module, x, loss = made("lstm"), torch.randn(T, B, I).double(), some_loss("lstm", "all")
    output, states, steps = step_by_step(module, x)
    loss((output, states)).backward()
    layer, trace = gradient_flow(module, x, loss).layers[0], gatewise.trace(module, x).layers[0]
    reads = trace.o * (1 - trace.c.tanh() ** 2)
    for number, name in enumerate("ifgo"):
        recurrent = module.weight_hh_l0[number * H : (number + 1) * H]
        for t in range(T):
            expected = torch.zeros(B, H).double()
            for s in range(t, T - 1):
                d_a = steps[0, 0, s + 1][0].grad[:, number * H : (number + 1) * H]
                expected += trace.f[t + 1 : s + 1].prod(0) * reads[s] * (d_a @ recurrent)
            torch.testing.assert_close(layer.path(name)[t], expected.detach(), **CLOSE)
            through_h = layer.h_paths[t, layer.names.index(name)]
            d_a = steps[0, 0, t + 1][0].grad if t + 1 < T else torch.zeros(B, 4 * H).double()
            torch.testing.assert_close(through_h, (d_a[:, number * H : (number + 1) * H] @ recurrent).detach(), **CLOSE)


def test_a_gru_s_own_path_is_the_product_of_its_update_gates():
    module, x = made("gru"), torch.randn(T, B, I).double()
    layer = gradient_flow(module, x, lambda returned: returned[0][-1].sum()).layers[0]
    for t in range(T):
        torch.testing.assert_close(layer.path("state")[t], layer.keeps[t + 1 :].prod(0), **CLOSE)
    assert torch.count_nonzero(layer.path("r")[: T - 1]) == (T - 1) * B * H


def test_a_simple_network_has_no_path_but_through_h():
    layer = gradient_flow(made("srn"), torch.randn(T, B, I).double(), lambda returned: returned[0][-1].sum()).layers[0]
    assert layer.names == ("state", "h")
    assert not layer.path("state")[:-1].any()
    assert layer.keeps is None
    assert layer.time_constants() is None
    with pytest.raises(ArgumentError, match="l0 is a srn, which has no cell state c: take d_h"):
        layer.norms("c")
    with pytest.raises(ArgumentError, match="path is 'i', needed one of state, h"):
        layer.path("i")


def test_a_forget_gate_of_one_keeps_the_gradient_exactly():
    layer = gradient_flow(cell_that_keeps(1.0), torch.randn(1000, 1, I).double(), lambda r: r[1][1].sum()).layers[0]
    assert torch.equal(layer.d_c, torch.ones(1000, 1, H).double())
    assert torch.equal(layer.path("cell"), layer.d_c)
    assert math.isinf(layer.horizon(0.5))
    assert layer.time_constants().isinf().all()


def test_a_forget_gate_of_one_half_halves_it_each_step():
    layer = gradient_flow(cell_that_keeps(0.5), torch.randn(40, 1, I).double(), lambda r: r[1][1].sum()).layers[0]
    halves = 0.5 ** torch.arange(40).double()
    torch.testing.assert_close(layer.d_c[:, 0, 0], halves.flip(0), rtol=1e-14, atol=0)
    torch.testing.assert_close(layer.decay, halves, rtol=1e-14, atol=0)
    assert [layer.horizon(fraction) for fraction in (0.6, 0.4, 0.1, 0.01)] == [1, 2, 4, 7]
    assert layer.unit_horizons(0.1).tolist() == [4.0] * H
    torch.testing.assert_close(layer.time_constants(), torch.full((H,), 1 / math.log(2)).double())


# --- the Jacobian -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("reverse", [False, True])
def test_singular_values_are_those_of_a_step_s_jacobian(kind, reverse):
    module, x = made(kind, bidirectional=reverse), torch.randn(T, B, I).double()
    flow = gradient_flow(module, x, lambda returned: returned[0].sum())
    layer = flow.layers[-1]
    got = layer.singular_values()
    _, _, steps = step_by_step(module, x)
    for t, b in itertools.product(range(T), range(B)):
        before = t + 1 if reverse else t - 1
        zero = torch.zeros(H).double()
        _, c, h = (s[b].detach() for s in steps[0, int(reverse), before]) if 0 <= before < T else (0, zero, zero)

        def step(state, t=t, b=b):
            own = torch.cat([x[t, b], state[-H:]])
            return one_step(module, own, state, "_l0_reverse" if reverse else "_l0")

        state = torch.cat([c, h]) if "lstm" in kind else h
        jacobian = torch.func.jacrev(step)(state)
        torch.testing.assert_close(got[t, b], torch.linalg.matrix_norm(jacobian, 2).detach(), rtol=1e-8, atol=1e-10)


def one_step(module, own, state, suffix):
    weight = lambda name: getattr(module, name + suffix).detach()  # noqa: E731
    from_x, from_h = own[:I] @ weight("weight_ih").T + weight("bias_ih"), own[I:] @ weight("weight_hh").T
    from_h = from_h + weight("bias_hh")
    if isinstance(module, nn.GRU):
        r, z = (from_x + from_h)[: 2 * H].sigmoid().chunk(2)
        return (1 - z) * (from_x[2 * H :] + r * from_h[2 * H :]).tanh() + z * state
    if isinstance(module, nn.RNN):
        return (from_x + from_h).tanh()
    i, f, g, o = (from_x + from_h).chunk(4)
    c = f.sigmoid() * state[:H] + i.sigmoid() * g.tanh()
    return torch.cat([c, o.sigmoid() * c.tanh()])


def test_a_forget_gate_below_one_and_a_singular_value_above():
    """The example of docs/equations.md (4.11): the gradient doubles with every step."""
    lstm = gatewise.LSTM(1, 1, bias=False).double()
    with torch.no_grad():
        lstm.weight_ih_l0.zero_()
        lstm.weight_hh_l0.zero_()
        lstm.gates().g.weight_hh.fill_(6)
    layer = gradient_flow(lstm, torch.zeros(12, 1, 1).double(), lambda returned: returned[1][1].sum()).layers[0]
    assert layer.keeps.max() == 0.5
    torch.testing.assert_close(layer.singular_values(), torch.full((12, 1), math.sqrt(11.5625)).double())
    torch.testing.assert_close(layer.d_c[:-1, 0, 0] / layer.d_c[1:, 0, 0], torch.full((11,), 2.0).double())


def test_singular_values_with_projection_resets_and_lengths():
    module = made("lstm", proj_size=2)
    reset = torch.zeros(T, B).bool()
    reset[3, 1] = True

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.cell = module

        def forward(self, x):
            return self.cell(x, lengths=[2, 6, 3], reset=reset)

    got = gradient_flow(Model(), torch.randn(T, B, I).double(), lambda returned: returned[0].sum()).layers[0]
    values = got.singular_values()
    assert values[3, 1] == 0
    assert not values[2:, 0].any()
    assert (values[:2] > 0).all()


def test_singular_values_where_a_step_is_not_finite():
    lstm = gatewise.LSTM(2, 3)
    x = torch.randn(4, 2, 2)
    layer = gradient_flow(lstm, x, lambda output: output[0][1].sum()).layers[0]
    wanted = layer.singular_values()
    layer.one.recurrence._into_c[2, 1] = torch.nan
    found = layer.singular_values()
    assert found[2, 1].isnan() and found.isnan().sum() == 1
    assert torch.where(found.isnan(), wanted, found).equal(wanted)
