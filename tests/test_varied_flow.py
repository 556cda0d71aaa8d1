"""The gradient's way back through changed cells: every variant and pair against autograd through the composite."""

import itertools

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence

import gatewise
import gatewise.nn.composite
import gatewise.nn.step
from cells import CASES, SINGLES, in_turn
from gatewise.errors import ArgumentError
from gatewise.insight.figures import draw_lags, draw_time_constants
from gatewise.insight.gradient_flow import gradient_flow
from gatewise.insight.report.flow import flow_blocks
from gatewise.nn.paths import Path
from gatewise.reference.variant import Variant
from recurrence import CLOSE, B, H, I, T, grad_of, some_loss

# Every variant in training and in evaluation, and each pair in one of the two.
every_mode = pytest.mark.parametrize(("cell", "mode"), in_turn(["evaluation", "training"]))
every_single = pytest.mark.parametrize("options", SINGLES.values(), ids=SINGLES)
LENGTHS = [2, 6, 3]


def make(options, **more):
    torch.manual_seed(1)
    lstm = gatewise.LSTM(I, H, **(options | more)).double()
    with torch.no_grad():
        for name, weight in lstm.named_parameters():
            if name.startswith(("gain", "bias_c")):  # not 1 and 0, which would hide a missing one
                weight.add_(0.3 * torch.randn_like(weight))
    return lstm


def state_of(lstm):
    rows = lstm.num_layers * (2 if lstm.bidirectional else 1)
    h, *cells = (torch.randn(rows, B, s.size(-1)).double() for s in lstm.init_state(B))
    if len(cells) == 3:
        cells[1] = cells[1].abs() + 0.5  # a normalizer
        cells[1][:, -1] = 0  # and a row that has not begun
    return h, *cells


class Called(nn.Module):
    """An LSTM as it is called in a test."""

    def __init__(self, lstm, hx=None, lengths=None, reset=None):
        super().__init__()
        self.cell, self.hx, self.walk = lstm, hx, {"lengths": lengths, "reset": reset}

    def forward(self, x):
        torch.manual_seed(7)  # of the masks
        return self.cell(x, self.hx, **self.walk)


def loss_of_all(returned):
    output, states = returned
    weighted = lambda x: (x * torch.linspace(-1, 2, x.numel()).double().reshape(x.shape)).sum()  # noqa: E731
    return weighted(output).tanh() + sum((weighted(s) for s in states), 0.0)


@pytest.fixture
def by_composite(monkeypatch):
    """Runs a model by the composite and gives its results and each step in the order in which they are taken.

    Each step's h and c keep their gradients. What the step is may be changed by `taking`.
    """

    def run(model, x, taking=gatewise.nn.step.step):
        steps = []

        def kept(*arguments):
            new = taking(*arguments)
            for tensor in (new.h, new.c):
                tensor.retain_grad()
            steps.append(new)
            return new

        with monkeypatch.context() as patch:
            patch.setattr("gatewise.nn.lstm.path_of", lambda *_, **__: Path("composite", ""))
            for short_way in ("plain_lstm", "packed_lstm", "directly"):  # which would not ask
                patch.setattr(f"gatewise.nn.lstm.{short_way}", lambda *_: None)
            patch.setattr("gatewise.nn.composite.step", kept)
            return model(x), steps

    return run


def by_layer(lstm, steps):
    """Steps by layer and direction, each at the input's times."""
    directions = 2 if lstm.bidirectional else 1
    for number in range(lstm.num_layers * directions):
        own = steps[number * T : (number + 1) * T]
        yield own[::-1] if number % directions else own


def assert_is_autograd_s(flow, lstm, steps):
    for layer, own in zip(flow.layers, by_layer(lstm, steps), strict=True):
        torch.testing.assert_close(layer.d_h, torch.stack([grad_of(new.h) for new in own]), **CLOSE)
        d_c = torch.stack([grad_of(new.c)[:, :H] for new in own])
        torch.testing.assert_close(layer.d_c, d_c, **CLOSE)
        assert layer.d_c.any()


@every_mode
def test_every_step_s_gradient_is_autograd_s(cell, mode, by_composite):
    lstm = make(CASES[cell], num_layers=2, bidirectional=True).train(mode == "training")
    x, reset = torch.randn(T, B, I).double(), torch.rand(T, B) < 0.3
    model = Called(lstm, state_of(lstm), LENGTHS, reset)
    returned, steps = by_composite(model, x)
    loss_of_all(returned).backward()
    assert_is_autograd_s(gradient_flow(model, x, loss_of_all), lstm, steps)


@pytest.mark.parametrize("training", [False, True], ids=["evaluation", "training"])
@every_single
def test_packed_sequences_in_another_order(options, training, by_composite):
    lstm = make(options, num_layers=2).train(training)
    packed = pack_padded_sequence(torch.randn(T, B, I).double(), LENGTHS, enforce_sorted=False)
    model = Called(lstm, state_of(lstm))
    loss = lambda returned: loss_of_all((returned[0].data, returned[1]))  # noqa: E731
    returned, steps = by_composite(model, packed)
    loss(returned).backward()
    flow, back = gradient_flow(model, packed, loss), packed.unsorted_indices
    for layer, own in zip(flow.layers, by_layer(lstm, steps), strict=True):
        torch.testing.assert_close(layer.d_h, torch.stack([grad_of(new.h)[back] for new in own]), **CLOSE)
        torch.testing.assert_close(layer.d_c, torch.stack([grad_of(new.c)[back, :H] for new in own]), **CLOSE)


@pytest.mark.parametrize("more", [{"batch_first": True}, {"bias": False}], ids=str)
@every_single
def test_batch_first_and_no_biases(options, more, by_composite):
    lstm = make(options, num_layers=2, **more).train()
    x = torch.randn(B, T, I).double() if lstm.batch_first else torch.randn(T, B, I).double()
    returned, steps = by_composite(Called(lstm), x)
    loss_of_all(returned).backward()
    assert_is_autograd_s(gradient_flow(Called(lstm), x, loss_of_all), lstm, steps)


@every_single
def test_what_stands_past_a_length_does_not_matter(options):
    lstm, x = make(options, num_layers=2, bidirectional=True).train(), torch.randn(T, B, I).double()
    model = Called(lstm, None, LENGTHS)
    past = torch.arange(T)[:, None] >= torch.tensor(LENGTHS)
    clean, padded = (
        gradient_flow(model, x.masked_fill(past[:, :, None], padding), loss_of_all) for padding in (0.0, torch.nan)
    )
    for one, other in zip(clean.layers, padded.layers, strict=True):
        assert torch.equal(one.paths, other.paths) and torch.equal(one.h_paths, other.h_paths)
        assert torch.equal(one.keeps, other.keeps)
        assert not one.keeps[past].any() and not one.paths.sum(1)[past].any()
        assert one.keeps[~past].any()


@every_single
def test_one_sequence_without_a_batch_axis(options):
    lstm, x = make(options), torch.randn(T, B, I).double()
    loss = lambda returned: returned[0][-1].sum()  # noqa: E731
    together, alone = gradient_flow(lstm.eval(), x, loss), gradient_flow(lstm, x[:, 1], loss)
    torch.testing.assert_close(alone.layers[0].paths[:, :, 0], together.layers[0].paths[:, :, 1], **CLOSE)


# ---- the paths ----


class Cut:
    """A peephole that lets no gradient through to the cell."""

    def __init__(self, weight):
        self.weight = weight

    def __mul__(self, seen):
        return self.weight * seen.detach()


@pytest.fixture
def along_c(by_composite, monkeypatch):
    """What reaches each step's c along the state alone, of a loss of the steps: neither by h nor through peepholes."""

    def taking(variant, from_x, h_prev, *rest):
        return gatewise.nn.step.step(variant, from_x, h_prev.detach(), *rest)

    def run(model, x, loss):
        blocks = Variant.blocks
        with monkeypatch.context() as patch:
            patch.setattr(Variant, "blocks", lambda *a: {name: Cut(p) for name, p in blocks(*a).items()})
            returned, steps = by_composite(model, x, taking)
        loss(returned, steps).backward()
        return torch.stack([grad_of(new.c)[:, :H] for new in steps])

    return run


@every_mode
def test_each_path_is_what_came_last_by_it_and_then_along_the_state(cell, mode, along_c):
    model, x = Called(make(CASES[cell]).train(mode == "training")), torch.randn(T, B, I).double()
    layer = gradient_flow(model, x, loss_of_all).layers[0]
    torch.testing.assert_close(sum(layer.path(name) for name in layer.names), layer.d_c, **CLOSE)
    for name in layer.names:
        through = layer.h_paths[:, layer.names.index(name)].clone()
        if name == "cell":
            found = along_c(model, x, lambda returned, steps: loss_of_all(returned))
        elif name == "peephole":  # from c to the gates, and not by h; the sum above holds what it is
            assert not through.any() and layer.path(name)[:-1].any()
            continue
        else:
            assert through[:-1].any() and not through[-1].any()
            found = along_c(
                model,
                x,
                lambda returned, steps, through=through: sum(
                    (new.h * sent).sum() for new, sent in zip(steps, through, strict=True)
                ),
            )
        torch.testing.assert_close(layer.path(name), found, **CLOSE)


@every_mode
def test_what_reaches_h_through_each_gate_is_autograd_s(cell, mode, by_composite, monkeypatch):
    """With a copy of h for each gate, whose gradient is what came through that one."""
    model, x = Called(make(CASES[cell]).train(mode == "training")), torch.randn(T, B, I).double()
    layer = gradient_flow(model, x, loss_of_all).layers[0]
    gates, copies, whole = model.cell.variant.gates, [], gatewise.nn.step.from_hidden

    def for_each(own, h_prev, masks):
        each = [h_prev.clone().requires_grad_() for _ in gates]
        for copy in each:
            copy.retain_grad()
        copies.append(each)
        return torch.cat([whole(own, h, masks).chunk(len(gates), -1)[n] for n, h in enumerate(each)], -1)

    monkeypatch.setattr("gatewise.nn.step.from_hidden", for_each)
    returned, _ = by_composite(model, x)
    loss_of_all(returned).backward()
    for t, (number, gate) in itertools.product(range(T - 1), enumerate(gates)):
        through = layer.h_paths[t, layer.names.index(gate)]
        torch.testing.assert_close(through, copies[t + 1][number].grad, **CLOSE)
    torch.testing.assert_close(layer.h_paths.sum(1), layer.d_h, **CLOSE)


def test_which_paths_there_are():
    def names(**options):
        return gradient_flow(make(options), torch.randn(T, B, I).double(), loss_of_all).layers[0].names

    assert names(layer_norm=True) == names(cell="slstm") == names(zoneout=(0, 0.5)) == ("cell", "i", "f", "g", "o")
    assert names(coupled=True) == ("cell", "i", "g", "o")
    assert names(peephole=True, zoneout=0.5) == ("cell", "i", "f", "g", "o", "peephole", "zoneout")


def test_zoneout_of_h_is_a_path_past_the_step():
    lstm = make({"zoneout": (0.25, 0.0)}).eval()
    layer = gradient_flow(lstm, torch.randn(T, B, I).double(), loss_of_all).layers[0]
    past = layer.h_paths[:, layer.names.index("zoneout")]
    torch.testing.assert_close(past[:-1], 0.25 * layer.d_h[1:], **CLOSE)
    assert not past[-1].any()


def test_a_peephole_is_a_path_from_c_to_the_gates():
    """One unit whose gates see nothing but its cell: all but what the peepholes send is along the cell."""
    lstm = gatewise.LSTM(1, 1, peephole=True, bias=False).double()
    with torch.no_grad():
        lstm.weight_hh_l0.zero_()
    x = torch.randn(T, 1, 1).double()
    layer = gradient_flow(lstm, x, lambda returned: returned[1][1].sum()).layers[0]
    i, f, g, c = (getattr(gatewise.trace(lstm, x).layers[0], name) for name in "ifgc")
    p_i, p_f, _ = lstm.weight_ch_l0.detach()
    step = f[1:] + p_i * i[1:] * (1 - i[1:]) * g[1:] + p_f * f[1:] * (1 - f[1:]) * c[:-1]  # (7.5), (1.6)
    whole = torch.cat([step, torch.ones(1, 1, 1).double()]).flip(0).cumprod(0).flip(0)
    along = torch.cat([f[1:], torch.ones(1, 1, 1).double()]).flip(0).cumprod(0).flip(0)
    torch.testing.assert_close(layer.d_c, whole, **CLOSE)
    torch.testing.assert_close(layer.path("cell"), along, **CLOSE)
    torch.testing.assert_close(layer.path("peephole"), whole - along, **CLOSE)


# ---- the Jacobian, and what the gates say ----


@pytest.mark.parametrize("reverse", [False, True])
@every_single
def test_a_step_s_jacobian_is_autograd_s(options, reverse, by_composite):
    lstm = make(options, bidirectional=reverse).train()
    x = torch.randn(T, B, I).double()
    layer = gradient_flow(Called(lstm), x, loss_of_all).layers[-1]
    seen = []

    def taking(*arguments):
        seen.append(arguments)
        return gatewise.nn.step.step(*arguments)

    by_composite(Called(lstm), x, taking)
    for t, (variant, from_x, h, c, own, masks) in enumerate(seen[-T:]):  # in the order in which they are taken

        def together(c, h, rest=(variant, from_x, own, masks)):
            new = gatewise.nn.step.step(*rest[:2], h, c, *rest[2:])
            return torch.cat([new.c, new.h], dim=-1).sum(0)  # of sequences apart, so that each has its own

        by_c, by_h = torch.autograd.functional.jacobian(together, (c.detach(), h.detach()))
        expected = torch.cat([by_c, by_h], dim=-1).transpose(0, 1)
        torch.testing.assert_close(layer.one.recurrence.jacobian(t), expected, **CLOSE)
    assert layer.singular_values().shape == (T, B)


def test_a_jacobian_past_a_length_and_at_a_reset_is_zero():
    reset = torch.zeros(T, B).bool()
    reset[3, 1] = True
    lstm = make({"peephole": True, "layer_norm": True, "zoneout": 0.3})
    flow = gradient_flow(Called(lstm, None, LENGTHS, reset), torch.randn(T, B, I).double(), loss_of_all)
    values = flow.layers[0].singular_values()
    assert values[3, 1] == 0
    assert not values[2:, 0].any()
    assert (values[:2] > 0).all()


def test_what_a_step_hands_on():
    x = torch.ones(T, B, I).double()
    for options in ({"coupled": True}, {"peephole": True}, {"layer_norm": True}, {"cell": "slstm"}):
        lstm = make(options)
        keeps, f = gradient_flow(lstm, x, loss_of_all).layers[0].keeps, gatewise.trace(lstm, x).layers[0].f
        torch.testing.assert_close(keeps, f, **CLOSE)
    lstm = make({"zoneout": (0.0, 0.25)}).eval()
    keeps, f = gradient_flow(lstm, x, loss_of_all).layers[0].keeps, gatewise.trace(lstm, x).layers[0].f
    torch.testing.assert_close(keeps, 0.25 + 0.75 * f, **CLOSE)  # (7.17)


def test_an_slstm_s_first_step_has_nothing_to_forget():
    """f is 0 there (7.26), which says nothing of how long a unit remembers."""
    lstm = make({"cell": "slstm", "gate_activation": "exp"})
    with torch.no_grad():
        for weight in lstm.parameters():
            weight.zero_()
        lstm.gates().f.bias_ih.fill_(-0.5)  # and i is 1
        lstm.gates().i.bias_ih.fill_(-100)
    x = torch.zeros(40, 1, I).double()
    reset = torch.zeros(40, 1).bool()
    reset[20] = True
    # i is e^-100 of what was written when the sequence began: m falls with log f, and f is 1 until the other is larger.
    layer = gradient_flow(Called(lstm, reset=reset), x, loss_of_all).layers[0]
    assert layer.keeps[[0, 20]].count_nonzero() == 0
    assert layer.one.recurrence.begins[:, 0, 0].nonzero().flatten().tolist() == [0, 20]
    with torch.no_grad():
        lstm.gates().i.bias_ih.zero_()  # m stays 0: the stabilized f is the forget gate itself
    layer = gradient_flow(Called(lstm, reset=reset), x, loss_of_all).layers[0]
    torch.testing.assert_close(layer.time_constants(), torch.full((H,), 2.0).double(), **CLOSE)


def test_an_slstm_of_one_step_has_no_time_constants():
    flow = gradient_flow(make({"cell": "slstm"}), torch.randn(1, B, I).double(), loss_of_all)
    assert flow.layers[0].time_constants().isnan().all()
    assert "5 with nothing yet to keep" in draw_time_constants(flow.layers[0]).axes[0].get_title(loc="left")
    assert flow_blocks(flow)[-1].rows[0][-1] == "none"


# ---- models ----


@pytest.mark.parametrize("name", ["peephole", "coupled", "zoneout", "slstm"])
def test_bfloat16_is_followed_in_float32(name):
    lstm, x = make(SINGLES[name]).eval(), torch.randn(T, B, I)
    loss = lambda returned: returned[0][-1].sum()  # noqa: E731
    wide = gradient_flow(lstm.float(), x, loss).layers[0]
    narrow = gradient_flow(lstm.bfloat16(), x.bfloat16(), loss).layers[0]
    assert narrow.paths.dtype == torch.float32
    # Weights and steps are rounded to 2^-8.
    assert (narrow.d_h - wide.d_h).abs().max() < 0.05 * wide.d_h.abs().max()


def test_with_peepholes_of_zero_the_flow_is_the_plain_cell_s():
    lstm, plain, x = make({"peephole": True}), make({}), torch.randn(T, B, I).double()
    with torch.no_grad():
        lstm.weight_ch_l0.zero_()
    plain.load_state_dict({name: p for name, p in lstm.state_dict().items() if "weight_ch" not in name})
    found, expected = (gradient_flow(one, x, some_loss("lstm", "all")).layers[0] for one in (lstm, plain))
    torch.testing.assert_close(found.paths[:, :5], expected.paths, **CLOSE)
    torch.testing.assert_close(found.h_paths[:, :5], expected.h_paths, **CLOSE)
    torch.testing.assert_close(found.time_constants(), expected.time_constants(), **CLOSE)
    torch.testing.assert_close(found.singular_values(), expected.singular_values(), **CLOSE)


def test_weights_that_were_dropped_are_no_path(by_composite):
    """In training the way back is through the very weights that the call computed with."""
    lstm, x = make({"weight_dropout": 0.5}).train(), torch.randn(T, B, I).double()
    returned, steps = by_composite(Called(lstm), x)
    loss_of_all(returned).backward()
    flow = gradient_flow(Called(lstm), x, loss_of_all)
    assert_is_autograd_s(flow, lstm, steps)
    assert lstm.weight_hh_l0.grad.count_nonzero() < lstm.weight_hh_l0.numel()


@every_single
def test_no_sequences_and_weights_that_are_not_trained(options):
    lstm, x = make(options).train(), torch.randn(T, B, I).double()
    trained = gradient_flow(Called(lstm), x, loss_of_all).layers[0]
    frozen = gradient_flow(Called(lstm.requires_grad_(False)), x, loss_of_all).layers[0]
    assert torch.equal(trained.paths, frozen.paths)
    flow = gradient_flow(lstm, torch.zeros(T, 0, I).double(), loss_of_all)
    assert flow.sentences() == ["l0 (lstm): the loss sends it no gradient."]


def test_dropout_between_layers_stays_refused_beside_a_variant():
    lstm = make({"peephole": True}, num_layers=2, dropout=0.5)
    with pytest.raises(ArgumentError, match="model drops 50 % between its layers"):
        gradient_flow(lstm, torch.zeros(T, B, I).double(), loss_of_all)


@every_single
def test_figures_and_reports_of_changed_cells(options):
    flow = gradient_flow(make(options | {"num_layers": 2}), torch.randn(T, B, I).double(), loss_of_all)
    assert flow.sentences()[0].startswith("l0 (lstm): ")
    assert flow_blocks(flow)
    draw_time_constants(flow.layers[0])
    draw_lags(flow)


def test_a_figure_s_legend_has_all_paths():
    lstm = make({"peephole": True, "zoneout": 0.3})
    figure = draw_lags(gradient_flow(lstm, torch.randn(T, B, I).double(), loss_of_all))
    drawn = [text.get_text() for text in figure.legends[0].get_texts()]
    assert drawn[-2:] == ["by way of peepholes", "past steps by zoneout"]
