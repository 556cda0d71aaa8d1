"""The gradient's way back: every step's gradient is autograd's, each path what it says, and the measures of how far."""

import doctest
import itertools
import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence

import gatewise
from gatewise.errors import ArgumentError
from gatewise.insight.figures import draw_comparison
from gatewise.insight.gradient_flow import gradient_flow, sentence
from gatewise.insight.report.flow import _lag_rows

# Gradients of numbers around 1 over a dozen steps in float64.
CLOSE = {"rtol": 1e-10, "atol": 1e-12}
T, B, I, H = 6, 3, 4, 5
KINDS = {"lstm": gatewise.LSTM, "torch lstm": nn.LSTM, "gru": nn.GRU, "srn": nn.RNN}


def step_by_step(module, x, hx=None, lengths=None, reset=None, cut_h=False):
    """The same in torch's operations, step by step: output, states, and of each layer, direction and step (a, c, h).

    With `cut_h` the gates do not hand a gradient on to the h that they read.
    """
    states, x_l, all_h_n, all_c_n = {}, x, [], []
    directions = 2 if module.bidirectional else 1
    lengths = torch.full((x.size(1),), x.size(0)) if lengths is None else torch.as_tensor(lengths)
    taken = torch.arange(x.size(0))[:, None] < lengths
    for layer, direction in itertools.product(range(module.num_layers), range(directions)):
        suffix = f"_l{layer}" + "_reverse" * direction
        weight = lambda name, suffix=suffix: getattr(module, name + suffix, None)  # noqa: E731
        if direction == 0:
            outputs, x_l = [], x_l if layer == 0 else torch.cat(below, dim=-1)  # noqa: F821
        h = x.new_zeros(x.size(1), weight("weight_hh").size(1)) if hx is None else hx[0][layer * directions + direction]
        c = x.new_zeros(x.size(1), module.hidden_size) if hx is None else hx[1][layer * directions + direction]
        output = [None] * x.size(0)
        for t in range(x.size(0)) if direction == 0 else reversed(range(x.size(0))):
            if reset is not None:
                at = t + direction
                cut = reset[at] & taken[at] if at < x.size(0) else torch.zeros(x.size(1)).bool()
                h, c = (torch.where(cut[:, None], 0, state) for state in (h, c))
            read = h.detach() if cut_h else h
            from_x = x_l[t] @ weight("weight_ih").T + weight("bias_ih")
            from_h = read @ weight("weight_hh").T + weight("bias_hh")
            a = from_x + from_h
            if isinstance(module, (gatewise.LSTM, nn.LSTM)):
                i, f, g, o = a.chunk(4, dim=1)
                i, f, g, o = i.sigmoid(), f.sigmoid(), g.tanh(), o.sigmoid()
                c_next = f * c + i * g
                c_next.retain_grad()
                h_next = o * c_next.tanh()
                if weight("weight_hr") is not None:
                    h_next = h_next @ weight("weight_hr").T
            else:
                c_next = c
                if isinstance(module, nn.GRU):
                    r, z = (from_x + from_h)[:, : 2 * H].sigmoid().chunk(2, dim=1)
                    n = (from_x[:, 2 * H :] + r * from_h[:, 2 * H :]).tanh()
                    h_next = (1 - z) * n + z * h
                else:
                    h_next = a.relu() if module.nonlinearity == "relu" else a.tanh()
            for tensor in (a, h_next):
                tensor.retain_grad()
            now = taken[t, :, None]
            h, c = torch.where(now, h_next, h), torch.where(now, c_next, c)
            states[layer, direction, t] = a, c_next, h_next
            output[t] = torch.where(now, h_next, 0)
        outputs.append(torch.stack(output))
        below = outputs
        all_h_n.append(h)
        all_c_n.append(c)
    return torch.cat(below, dim=-1), (torch.stack(all_h_n), torch.stack(all_c_n)), states


def grad_of(tensor):
    return torch.zeros_like(tensor) if tensor.grad is None else tensor.grad


def made(kind, **options):
    torch.manual_seed(1)
    return KINDS[kind](I, H, **options).double()


def some_loss(kind, which):
    """A loss of output and states that weighs all of their numbers differently."""

    def loss(returned):
        output, states = returned
        h_n, c_n = states if isinstance(states, tuple) else (states, None)
        weighted = lambda x: (x * torch.linspace(-1, 2, x.numel(), dtype=x.dtype).reshape(x.shape)).sum()  # noqa: E731
        if which == "last":
            return weighted(output[-1])
        if which == "all":
            return weighted(output).tanh()
        return weighted(h_n) + (2 * weighted(c_n) if "lstm" in kind else 0)

    return loss


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


def cell_that_keeps(f, **options):
    """An LSTM whose forget gates are f, and whose h no gate reads."""
    lstm = gatewise.LSTM(I, H, **options).double()
    with torch.no_grad():
        lstm.weight_hh_l0.zero_()
        lstm.weight_ih_l0.zero_()
        lstm.gates().f.bias_ih.fill_(torch.logit(torch.tensor(f, dtype=torch.float64)))
        lstm.gates().f.bias_hh.zero_()
    return lstm


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


# --- how far ------------------------------------------------------------------------------------------------


def test_the_lag_counts_from_the_last_reading_of_the_loss_alone():
    """A loss that reads every step sends new gradient everywhere; how far one reading's reaches is another matter."""
    module, x = made("lstm", num_layers=2), torch.randn(T, B, I).double()
    last = gradient_flow(module, x, lambda returned: returned[0][4].sum())
    every = gradient_flow(module, x, lambda returned: returned[0][:5].sum())
    for one, other in zip(last.layers, every.layers, strict=True):
        assert len(one.decay) == 5
        torch.testing.assert_close(one.lags, other.lags, **CLOSE)
        torch.testing.assert_close(one.lags, one.d_c[:5].flip(0), **CLOSE)
        assert not torch.allclose(one.d_c, other.d_c)
        whole = one.lag_paths.square().sum(1).sqrt()
        assert (whole > 0).all()


def test_lags_of_sequences_of_different_lengths_count_from_their_own_ends():
    module, x, lengths = made("gru"), torch.randn(T, B, I).double(), [2, 6, 3]
    packed = pack_padded_sequence(x, lengths, enforce_sorted=False)
    layer = gradient_flow(module, packed, lambda returned: returned[1].sum()).layers[0]
    assert layer.lag_counts.tolist() == [3, 3, 2, 1, 1, 1]
    for b, length in enumerate(lengths):
        alone = gradient_flow(module, x[:length, b : b + 1], lambda returned: returned[1].sum()).layers[0]
        torch.testing.assert_close(layer.lags[:length, b], alone.lags[:, 0], **CLOSE)
        assert not layer.lags[length:, b].any()


def test_a_reverse_direction_s_lags_run_the_other_way():
    module, x = made("lstm", bidirectional=True), torch.randn(T, B, I).double()
    flow = gradient_flow(module, x, lambda returned: returned[0][-1].sum())
    forward, reverse = flow.layers
    assert [len(forward.decay), len(reverse.decay)] == [T, 1]
    flow = gradient_flow(module, x, lambda returned: returned[0][0].sum())
    forward, reverse = flow.layers
    assert [len(forward.decay), len(reverse.decay)] == [1, T]
    torch.testing.assert_close(reverse.lags, reverse.d_c, **CLOSE)


@pytest.mark.parametrize("fraction", [0, 1, -0.5, 2])
def test_a_fraction_is_a_share(fraction):
    layer = gradient_flow(made("gru"), torch.randn(T, B, I).double(), lambda returned: returned[0].sum()).layers[0]
    with pytest.raises(ArgumentError, match=f"fraction is {fraction}, needed a number between 0 and 1"):
        layer.horizon(fraction)


def test_sentences():
    flow = gradient_flow(cell_that_keeps(0.5), torch.randn(40, 1, I).double(), lambda r: r[1][1].sum())
    assert flow.sentences() == ["l0 (lstm): 4 steps back the gradient has fallen below 10 %."]
    flow = gradient_flow(cell_that_keeps(0.5), torch.randn(3, 1, I).double(), lambda r: r[1][1].sum())
    assert flow.sentences() == ["l0 (lstm): 2 steps back, at the first, 25 % of the gradient is left."]

    lstm = gatewise.LSTM(1, 1, bias=False).double()
    with torch.no_grad():
        lstm.weight_ih_l0.zero_()
        lstm.weight_hh_l0.zero_()
        lstm.gates().g.weight_hh.fill_(6)
    flow = gradient_flow(lstm, torch.zeros(12, 1, 1).double(), lambda returned: returned[1][1].sum())
    assert flow.sentences() == ["l0 (lstm): 11 steps back, at the first, the gradient is 2.05e+03 times as large."]

    class Both(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.unused = made("gru"), made("srn")

        def forward(self, x):
            return self.used(x)[0], self.unused(x)[0]

    flow = gradient_flow(Both(), torch.randn(T, B, I).double(), lambda both: both[0][-1].sum())
    assert flow.sentences()[1] == "unused.l0 (srn): the loss sends it no gradient."
    assert math.isnan(flow.layers[1].horizon())


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


# --- models -------------------------------------------------------------------------------------------------


class Translator(nn.Module):
    """One network's last state is the other's first."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.encoder, self.decoder = made("lstm"), made("torch lstm")

    def forward(self, x, y):
        _, state = self.encoder(x)
        return self.decoder(y, state)[0]


def test_a_gradient_from_one_network_into_another():
    model, x, y = Translator(), torch.randn(T, B, I).double(), torch.randn(2, B, I).double()
    flow = gradient_flow(model, (x, y), lambda output: output[-1].sum())
    assert [layer.name for layer in flow.layers] == ["encoder.l0", "decoder.l0"]
    _, state, steps = step_by_step(model.encoder, x)
    output, _, _ = step_by_step(model.decoder, y, state)
    output[-1].sum().backward()
    for t in range(T):
        torch.testing.assert_close(flow.layers[0].d_c[t], steps[0, 0, t][1].grad, **CLOSE)


def test_a_network_that_is_called_twice():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.cell = made("gru")

        def forward(self, x):
            _, state = self.cell(x)
            return self.cell(x, state)[0]

    flow = gradient_flow(Twice(), torch.randn(T, B, I).double(), lambda output: output[-1].sum())
    assert [layer.name for layer in flow.layers] == ["cell.l0", "cell, call 2.l0"]
    first, second = flow.layers
    longer = gradient_flow(made("gru"), torch.randn(T, B, I).double(), lambda output: output[0][-1].sum())
    assert first.d_h.abs().max() < second.d_h.abs().max()
    assert longer.layers[0].d_h.shape == first.d_h.shape


def test_nothing_of_the_model_is_changed():
    model = nn.Sequential(made("lstm"))
    model[0].weight_ih_l0.grad = torch.ones_like(model[0].weight_ih_l0)
    x = torch.randn(T, B, I).double().requires_grad_()
    with torch.no_grad():
        gradient_flow(model, x, lambda returned: returned[0].sum())
    assert x.grad is None
    assert torch.equal(model[0].weight_ih_l0.grad, torch.ones_like(model[0].weight_ih_l0))
    assert model[0].bias_ih_l0.grad is None
    assert "forward" not in model[0].__dict__


@pytest.mark.parametrize("kind", KINDS)
def test_weights_that_are_not_trained(kind):
    module, x = made(kind), torch.randn(T, B, I).double()
    trained = gradient_flow(module, x, lambda returned: returned[0][-1].sum())
    frozen = gradient_flow(module.requires_grad_(False), x, lambda returned: returned[0][-1].sum())
    assert torch.equal(trained.layers[0].paths, frozen.layers[0].paths)


@pytest.mark.parametrize("kind", KINDS)
def test_bfloat16_is_followed_in_float32(kind):
    module, x = made(kind), torch.randn(T, B, I)
    wide = gradient_flow(module.float(), x, lambda returned: returned[0][-1].sum()).layers[0]
    narrow = gradient_flow(module.bfloat16(), x.bfloat16(), lambda returned: returned[0][-1].sum()).layers[0]
    assert narrow.paths.dtype == torch.float32
    # Weights and steps are rounded to 2^-8.
    assert (narrow.d_h - wide.d_h).abs().max() < 0.05 * wide.d_h.abs().max()


@pytest.mark.parametrize("kind", KINDS)
def test_an_output_that_is_written_over_later(kind):
    module, x = made(kind), torch.randn(T, B, I).double()
    plain = gradient_flow(module, x, lambda returned: returned[0].relu()[-1].sum())
    over = gradient_flow(module, x, lambda returned: returned[0].relu_()[-1].sum())
    assert torch.equal(plain.layers[0].paths, over.layers[0].paths)


@pytest.mark.parametrize("kind", KINDS)
def test_no_sequences_at_all(kind):
    flow = gradient_flow(made(kind), torch.zeros(T, 0, I).double(), lambda returned: returned[0].sum())
    assert flow.layers[0].d_h.shape == (T, 0, H)
    assert flow.sentences() == [f"l0 ({flow.layers[0].cell}): the loss sends it no gradient."]


def test_a_gradient_that_grows_beyond_all_numbers():
    srn = nn.RNN(1, 1, nonlinearity="relu", bias=False).double()
    with torch.no_grad():
        srn.weight_ih_l0.fill_(1e-300)
        srn.weight_hh_l0.fill_(1e10)
    layer = gradient_flow(srn, torch.full((25, 1, 1), 1e-10).double(), lambda r: 1e200 * r[0][-1].sum()).layers[0]
    assert math.isnan(layer.horizon())
    assert gatewise.insight.gradient_flow.sentence(layer) == "l0 (srn): its gradient is not finite."


def test_what_cannot_be_followed():
    x = torch.randn(T, B, I).double()
    with pytest.raises(ArgumentError, match=r"model is a Linear without a gatewise.LSTM"):
        gradient_flow(nn.Linear(3, 2), x, torch.sum)
    with pytest.raises(
        ArgumentError, match=r"loss made a tensor of shape \(6, 3, 5\), needed a tensor with one number"
    ):
        gradient_flow(made("gru"), x, lambda returned: returned[0])
    with pytest.raises(ArgumentError, match="loss made a float, needed a tensor"):
        gradient_flow(made("gru"), x, lambda returned: 1.0)
    with pytest.raises(ArgumentError, match="the loss does not depend on any recurrent module's output"):
        gradient_flow(made("gru"), x, lambda returned: torch.zeros(()))
    with pytest.raises(ArgumentError, match=r"model drops 50 % between its layers.*call model.eval\(\) first"):
        gradient_flow(made("lstm", num_layers=2, dropout=0.5), x, lambda returned: returned[0].sum())
    gradient_flow(made("lstm", num_layers=2, dropout=0.5).eval(), x, lambda returned: returned[0].sum())

    with pytest.raises(ArgumentError, match="the loss is nan, needed a finite number"):
        gradient_flow(made("gru"), x, lambda returned: returned[0].sum() * math.nan)
    with pytest.raises(ArgumentError, match=r"within torch\.inference_mode"), torch.inference_mode():
        gradient_flow(made("gru"), x, lambda returned: returned[0].sum())
    with pytest.raises(ArgumentError, match=r"model is a NoneType, needed a torch\.nn\.Module"):
        gradient_flow(None, x, torch.sum)

    class Idle(nn.Module):
        def __init__(self):
            super().__init__()
            self.cell = made("gru")

        def forward(self, x):
            return x

    with pytest.raises(ArgumentError, match="model is a Idle that called none of its recurrent modules"):
        gradient_flow(Idle(), x, torch.sum)
    with pytest.raises(ArgumentError, match="model was compiled"):
        gradient_flow(torch.compile(Idle(), backend="eager"), x, torch.sum)


def test_the_page_about_insight(tmp_path, monkeypatch):
    """Its figures are drawn into the folder where it runs."""
    monkeypatch.chdir(tmp_path)
    with torch.random.fork_rng():
        page = Path(__file__).parents[1] / "docs" / "insight.md"
        results = doctest.testfile(str(page), module_relative=False, encoding="utf-8")
    assert results.attempted > 50
    assert results.failed == 0
    for name in re.findall(r"figures/(insight-\w+\.png)", page.read_text()):
        assert (tmp_path / name).stat().st_size > 10_000


def test_what_the_loss_cannot_reach_has_no_horizon():
    class Reads(nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm, self.linear = gatewise.LSTM(4, 3), nn.Linear(3, 1)

        def forward(self, x):
            with torch.no_grad():
                output, _ = self.lstm(x)
            return self.linear(output)

    with pytest.raises(ArgumentError, match=r"or none where gradients flow \(not so are torch\.no_grad"):
        gradient_flow(Reads(), torch.zeros(5, 2, 4), lambda output: output.sum())


def test_what_is_read_without_gradients_first_is_not_in_the_way():
    lstm, x = gatewise.LSTM(4, 3), torch.randn(5, 2, 4)

    class BurnsIn(nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm = lstm

        def forward(self, x):
            with torch.no_grad():
                _, state = self.lstm(x)
            return self.lstm(x, state)[0]

    with torch.no_grad():
        _, state = lstm(x)
    (found,) = gradient_flow(BurnsIn(), x, lambda output: output[-1].sum()).layers
    alone = gradient_flow(lstm, (x, state), lambda output: output[0][-1].sum()).layers[0]
    assert found.name == "lstm.l0" and found.paths.equal(alone.paths)


def test_singular_values_where_a_step_is_not_finite():
    lstm = gatewise.LSTM(2, 3)
    x = torch.randn(4, 2, 2)
    layer = gradient_flow(lstm, x, lambda output: output[0][1].sum()).layers[0]
    wanted = layer.singular_values()
    layer.one.recurrence._into_c[2, 1] = torch.nan
    found = layer.singular_values()
    assert found[2, 1].isnan() and found.isnan().sum() == 1
    assert torch.where(found.isnan(), wanted, found).equal(wanted)


@pytest.mark.parametrize("scale", [1e-30, 1e-22, 1.0, 1e20])
def test_the_paths_of_a_report_add_up_at_any_scale(scale):
    torch.manual_seed(0)
    flow = gradient_flow(gatewise.LSTM(4, 3), torch.randn(30, 2, 4), lambda output: output[0][-1].sum() * scale)
    whole, alone, *_ = _lag_rows(0, flow.layers[0])
    assert whole["values"][0] == alone["values"][0] == 1
    assert all(value is not None for value in alone["values"][:3])


def test_wrong_arguments_are_named():
    model, x = gatewise.LSTM(4, 3), torch.ones(5, 2, 4)
    with pytest.raises(ArgumentError, match="loss is a NoneType, needed a function"):
        gradient_flow(model, x, None)
    with pytest.raises(ArgumentError, match="the loss is a complex number"):
        gradient_flow(model, x, lambda output: output[0].sum() * 1j)
    layer = gradient_flow(model, x, lambda output: output[0].sum()).layers[0]
    with pytest.raises(ArgumentError, match="of is 'x', needed 'c' or 'h'"):
        layer.norms("x")
    with pytest.raises(ArgumentError, match="fraction is 'a', needed a number"):
        layer.horizon("a")
    with pytest.raises(ArgumentError, match="fraction is 'a', needed a number"):
        sentence(layer, "a")
    assert layer.horizon(np.float32(0.1)) == layer.horizon(0.1)
    with pytest.raises(TypeError, match="too many positional arguments"):
        gradient_flow(model, (x, None, None), lambda output: output[0].sum())
    with pytest.raises(ArgumentError, match="a is a GradientFlow, needed a LayerFlow"):
        draw_comparison({"a": gradient_flow(model, x, lambda output: output[0].sum())})


def test_of_one_step_nothing_is_said():
    flow = gradient_flow(gatewise.LSTM(4, 3), torch.ones(1, 2, 4), lambda output: output[0].sum())
    assert flow.sentences() == [
        "l0 (lstm): its gradient reaches one step alone, so nothing is to be said of how it falls."
    ]
