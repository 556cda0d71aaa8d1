"""What is dropped: the masks, who draws them and when, and what they do."""

import pytest
import torch

import gatewise
from compare import assert_same
from gatewise import reference
from gatewise.errors import ArgumentError, ShapeError
from varied import ROUNDING, H, I, call_of, every_mask, make, masks_of


@every_mask
def test_the_same_seed_draws_the_same_masks_on_any_number_of_threads(options):
    lstm = gatewise.LSTM(I, 200, 2, bidirectional=True, dropout=0.2, **options)
    x = torch.randn(20, 16, I)
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 1, 2):
            torch.set_num_threads(threads)
            torch.manual_seed(3)
            found.append(lstm(x)[0])
    finally:
        torch.set_num_threads(before)
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])
    assert not torch.equal(lstm(x)[0], found[0])


@every_mask
def test_evaluation_draws_nothing(options):
    lstm = gatewise.LSTM(I, H, **options).eval()
    x = torch.randn(4, 3, I)
    seed = torch.get_rng_state()
    output = lstm(x)[0]
    assert torch.equal(seed, torch.get_rng_state())
    assert torch.equal(output, lstm(x)[0])
    gatewise.explain_path(lstm.train(), x)
    assert torch.equal(seed, torch.get_rng_state())


@every_mask
def test_masks_of_every_form_of_input(options):
    """One step after another, batch_first, packed, and with dropout between the layers, which is drawn after them."""
    lstm = gatewise.LSTM(I, H, 2, bidirectional=True, **options)
    across = gatewise.LSTM(I, H, 2, bidirectional=True, batch_first=True, **options)
    across.load_state_dict(lstm.state_dict())
    x = torch.randn(4, 3, I)
    found = []
    for function in (
        lambda: lstm(x)[0],
        lambda: across(x.transpose(0, 1))[0].transpose(0, 1),
        lambda: lstm(torch.nn.utils.rnn.pack_padded_sequence(x, [4, 4, 4]))[0].data.view(4, 3, -1),
        lambda: lstm(x, lengths=[4, 4, 4])[0],
    ):
        torch.manual_seed(3)
        found.append(function().detach())
    for other in found[1:]:
        assert_same(other, found[0], tolerance=1e-6)
    lstm.dropout = 1e-9  # of which nothing is dropped
    torch.manual_seed(3)
    assert_same(lstm(x)[0].detach(), found[0], tolerance=1e-6)


def test_the_masks_drop_what_they_say():
    lstm = make({"zoneout": (0.2, 0.7), "recurrent_dropout": 0.25, "variational_dropout": 0.5, "weight_dropout": 0.1})
    masks = masks_of(lstm, T=300, B=300)
    assert {name: set(mask.unique().tolist()) for name, mask in masks.items()} == {
        "zoneout_h": {0.0, 1.0},
        "zoneout_c": {0.0, 1.0},
        "candidate": {0.0, 1 / 0.75},
        "hidden": {0.0, 2.0},
        "weight_hh": {0.0, 1 / 0.9},
    }
    # 270,000 draws: a standard deviation of at most 0.5 / 520 = 0.001.
    assert masks["zoneout_h"].mean().item() == pytest.approx(0.2, abs=0.005)
    assert masks["zoneout_c"].mean().item() == pytest.approx(0.7, abs=0.005)
    assert masks["candidate"].mean().item() == pytest.approx(1, abs=0.007)


def test_zoneout_in_evaluation_is_the_expectation():
    lstm, plain = make({"zoneout": (0.3, 0.6)}), make({})
    x, state, _ = call_of(lstm, T=1)
    _, (h, c) = lstm(x, state)
    _, (h_plain, c_plain) = plain(x, state)
    assert_same(h.detach(), (0.3 * state[0] + 0.7 * h_plain).detach(), tolerance=ROUNDING)
    assert_same(c.detach(), (0.6 * state[1] + 0.4 * c_plain).detach(), tolerance=ROUNDING)


def test_dropped_weights_go_by_the_kernels():
    lstm = make({"weight_dropout": 0.5}).train()
    x, state, _ = call_of(lstm)
    assert gatewise.explain_path(lstm, x).name == "kernel"
    masks, plain = masks_of(lstm), make({})
    torch.manual_seed(7)
    got = lstm(x, state)[0]
    with torch.no_grad():
        plain.weight_hh_l0.mul_(masks["weight_hh"][0])
    assert torch.equal(got, plain(x, state)[0])


def test_the_reference_refuses_masks_that_do_not_fit():
    lstm = make({"zoneout": (0.0, 0.5), "weight_dropout": 0.5})
    x, _, _ = call_of(lstm)
    parameters = {name: p.detach().numpy() for name, p in lstm.named_parameters()}
    masks = {name: mask.numpy() for name, mask in masks_of(lstm).items()}
    says = r"masks: needed \[zoneout_c, weight_hh\], given \[weight_hh\]; None is evaluation"
    less = {"weight_hh": masks["weight_hh"]}
    with pytest.raises(ArgumentError, match=says):
        reference.forward(x.numpy(), parameters, variant=lstm.variant, masks=less)
    with pytest.raises(
        ShapeError, match=r"masks: zoneout_c needed float64 and shape \(1, 4, 3, 3\), given float64 and"
    ):
        reference.forward(x.numpy(), parameters, variant=lstm.variant, masks=masks | {"zoneout_c": masks["weight_hh"]})


def test_a_map_over_drawn_masks_is_refused():
    lstm = gatewise.LSTM(I, H, zoneout=0.5)
    with pytest.raises(RuntimeError, match="vmap"):
        torch.func.vmap(lambda x: lstm(x)[0])(torch.randn(5, 4, 3, I))


@every_mask
def test_a_map_over_independent_draws(options):
    lstm = make(options).train()
    x, state, _ = call_of(lstm)
    mapped = torch.func.vmap(lambda each: lstm(each, state)[0], randomness="different")
    one, other = mapped(torch.stack([x, x]))
    assert not torch.equal(one, other)
    assert one.shape == (*x.shape[:2], lstm.hidden_size)
