"""How far a gradient is said to reach, which models it is followed through, and which are refused."""

import doctest
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
from recurrence import CLOSE, KINDS, B, H, I, T, cell_that_keeps, made, step_by_step

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
