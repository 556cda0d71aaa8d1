"""Every variant of the cell and every pair of them, through the same checks."""

import dataclasses
import itertools

import numpy as np
import pytest
import torch

import gatewise
from cells import CASES, PAIRS, SINGLES, in_turn
from compare import assert_same
from gatewise.nn.paths import Path
from gatewise.reference import activations
from gatewise.reference.code import coded, decoded
from varied import ROUNDING, I, by_reference, call_of, every_case, every_single, gradients_of, make, outcome

# The gradient of the 0/1 gate is not that of its function, so the reference alone tells what it is; and in fewer bits a
# rounding may turn a gate over.
SMOOTH = {name: options for name, options in CASES.items() if options.get("gate_activation") != "step"}
every_smooth_case = pytest.mark.parametrize("options", SMOOTH.values(), ids=SMOOTH)
# Every variant in training and in evaluation, and each pair in one of the two.
MODES = in_turn(["training", "evaluation"])
every_mode = pytest.mark.parametrize(("cell", "mode"), MODES)

# Gates of 0 and 1 leave all units of a cell equal. There a layer norm is 316 times as steep, and bends.
STEEP = {"gate_activation": "step", "layer_norm": True}
# A central difference of the fourth order with a step of 1e-6. Rounding: a loss of some dozen terms around 1 is off by
# up to some 1e-15, which the division by 1.2e-5 / 8 makes 1e-9.
DIFFERENCE, DIFFERENCE_TOLERANCE = 1e-6, 2e-8

WALK = {"lengths": [4, 0, 3], "reset": [[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 0, 1]]}


def test_in_its_pairs_every_variant_is_trained_and_evaluated():
    for single in SINGLES:
        met = {mode for name, mode in MODES if name in PAIRS and single in name.split(" + ")}
        assert met == {"training", "evaluation"}, single


class Linearised:
    """The straight-through gate around one forward pass: its values there, and the identity for what changes.

    Of this function the finite differences are what equation (7.3) says, for a slope of 1.
    """

    def __init__(self):
        self.known, self.calls = [], 0

    def value(self, a):
        if self.calls == len(self.known):
            self.known.append((a.copy(), np.where(a > 0, 1.0, 0.0)))
        a_0, value = self.known[self.calls]
        self.calls += 1
        return value + (a - a_0)


@every_mode
def test_every_gradient_of_the_reference_matches_finite_differences(cell, mode, monkeypatch):
    options = CASES[cell]
    # A pair is taken in one direction: what a second one adds is the same for every cell.
    lstm = make(options, bidirectional=cell in SINGLES).train(mode == "training")
    x, state, d_results = call_of(lstm)
    states = dict(zip((f"{name}_0" for name in lstm.variant.states), state, strict=True))
    arrays = {"x": x} | states | dict(lstm.named_parameters())
    linearised = Linearised()
    if options.get("gate_activation") == "step":
        monkeypatch.setitem(activations.GATES, "step", activations.Activation(linearised.value, np.ones_like))

    def run():
        linearised.calls = 0
        return by_reference(lstm, x, state, WALK)

    gradients = gradients_of(lstm, run(), d_results)
    assert gradients.keys() == arrays.keys()

    def loss():
        now = run()
        return sum((d.numpy() * r).sum() for d, r in zip(d_results, (now.output, *now.last.values()), strict=True))

    rng = np.random.default_rng(2)
    for name, tensor in arrays.items():
        array = tensor.detach().numpy()  # the same memory
        kept, direction = array.copy(), rng.normal(size=array.shape)  # along a direction that nobody chose
        at = {}
        for steps in (-2, -1, 1, 2):
            array[...] = kept + steps * DIFFERENCE * direction
            at[steps] = loss()
        array[...] = kept
        wanted = (8 * (at[1] - at[-1]) - (at[2] - at[-2])) / (12 * DIFFERENCE)
        # The direction has several entries, whose errors add up; where gradients are large, so are they.
        tolerance = DIFFERENCE_TOLERANCE * np.abs(direction).sum() * max(1, np.abs(gradients[name]).max())
        tolerance *= 100 if options == STEEP else 1
        assert abs((gradients[name] * direction).sum() - wanted) <= tolerance, name


@every_mode
@pytest.mark.parametrize(
    ("path", "walk"),
    [("kernel", {}), ("kernel", WALK), ("composite", WALK)],
    ids=["whole", "lengths and resets", "by torch's operations"],
)
def test_the_module_is_the_reference(cell, mode, path, walk, monkeypatch):
    options = CASES[cell]
    monkeypatch.setattr("gatewise.nn.lstm.path_of", lambda *_, **__: Path(path, ""))
    lstm = make(options, num_layers=2, bidirectional=True).train(mode == "training")
    x, state, d_results = call_of(lstm)
    run = by_reference(lstm, x, state, walk)
    expected = (run.output, *run.last.values(), *gradients_of(lstm, run, d_results).values())
    got = outcome(lstm, lstm, x, state, d_results, walk)
    tolerance = ROUNDING * 100 if options == STEEP else ROUNDING
    assert_same(got, tuple(map(torch.from_numpy, expected)), tolerance=tolerance)


@every_case
def test_without_biases_and_a_state(options):
    lstm = make(options, bias=False)
    x, state, _ = call_of(lstm)
    run = by_reference(lstm, x, [torch.zeros_like(s) for s in state], {})
    assert_same(lstm(x)[0].detach(), torch.from_numpy(run.output), tolerance=ROUNDING)


def differentiable(lstm):
    """The module as a function of everything that it is differentiable by, and all of that."""
    x, state, _ = call_of(lstm, T=2, B=1)
    names = [name for name, _ in lstm.named_parameters()]
    leaves = [t.detach().clone().requires_grad_() for t in (x, *state, *lstm.parameters())]

    def function(x, *others):
        torch.manual_seed(7)
        weights = dict(zip(names, others[len(state) :], strict=True))
        output, states = torch.func.functional_call(lstm, weights, (x, others[: len(state)]))
        return output, *states

    return function, leaves


@every_smooth_case
def test_gradcheck(options):
    assert torch.autograd.gradcheck(*differentiable(make(options).train()), fast_mode=True)


@pytest.mark.parametrize("name", [name for name in SINGLES if name in SMOOTH])
def test_gradients_of_gradients(name):
    assert torch.autograd.gradgradcheck(*differentiable(make(SINGLES[name]).train()), fast_mode=True)


@every_case
def test_cut_in_two_with_the_state_carried(options):
    lstm = make(options, num_layers=2)
    x, state, d_results = call_of(lstm, T=5)

    def in_two(x, state):
        first, between = lstm(x[:2], state)
        second, last = lstm(x[2:], between)
        return torch.cat([first, second]), last

    whole = outcome(lstm, lstm, x, state, d_results, {})
    assert_same(outcome(in_two, lstm, x, state, d_results, {}), whole, tolerance=ROUNDING)


@every_case
def test_a_short_sequence_is_the_sequence_alone(options):
    lstm = make(options, num_layers=2, bidirectional=True)
    x, state, _ = call_of(lstm)
    lengths = [4, 2, 0]
    output, states = lstm(x, state, lengths=lengths)
    packed = torch.nn.utils.rnn.pack_padded_sequence(x[:, :2], lengths[:2])
    of_packed, _ = torch.nn.utils.rnn.pad_packed_sequence(lstm(packed, tuple(s[:, :2].contiguous() for s in state))[0])
    assert_same(of_packed.detach(), output[:, :2].detach(), tolerance=ROUNDING)
    for b, length in enumerate(lengths[:2]):
        one = slice(b, b + 1)
        alone, last = lstm(x[:length, one], tuple(s[:, one] for s in state))
        pairs = [(output[:length, one], alone), *((s[:, one], t) for s, t in zip(states, last, strict=True))]
        for ours, theirs in pairs:
            assert_same(ours.detach(), theirs.detach(), tolerance=ROUNDING)
        assert not output[length:, b].any()
    assert all(torch.equal(after[:, 2], before[:, 2]) for after, before in zip(states, state, strict=True))


@every_single
def test_packed_sequences_and_their_masks(options, monkeypatch):
    """In any order, by the kernels and by torch's operations."""
    lstm = make(options, num_layers=2, bidirectional=True).train()
    x, state, _ = call_of(lstm)
    found = []
    for path in ("kernel", "composite"):
        monkeypatch.setattr("gatewise.nn.lstm.path_of", lambda *_, path=path, **__: Path(path, ""))
        leaf = x.clone().requires_grad_()
        torch.manual_seed(7)
        packed = torch.nn.utils.rnn.pack_padded_sequence(leaf, [2, 4, 1], enforce_sorted=False)
        output, states = lstm(packed, state)
        gradients = torch.autograd.grad(output.data.square().sum() + states[1].sum(), [leaf, *lstm.parameters()])
        found.append((output.data.detach(), *(s.detach() for s in states), *gradients))
    assert_same(*found, tolerance=ROUNDING)


@every_case
def test_a_reset_begins_anew(options):
    lstm = make(options, bidirectional=True, batch_first=True)
    x = torch.randn(1, 5, I, dtype=torch.float64)
    reset = torch.tensor([[False, False, True, False, True]])
    parts = [lstm(part)[0] for part in x.split([2, 2, 1], dim=1)]
    assert_same(lstm(x, reset=reset)[0].detach(), torch.cat(parts, dim=1).detach(), tolerance=ROUNDING)


@every_case
def test_a_trace_holds_the_gates(options):
    lstm = make(options, num_layers=2, bidirectional=True).train()
    x, state, _ = call_of(lstm)
    run = by_reference(lstm, x, state, {})
    torch.manual_seed(7)
    found = gatewise.trace(lstm, x, state)
    for layer, steps in zip(found.layers, itertools.chain(*run.gates), strict=True):
        for name in "ifgoch":
            assert_same(getattr(layer, name), torch.from_numpy(getattr(steps, name)), name, ROUNDING)


@every_smooth_case
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_narrower_numbers(options, dtype):
    lstm = make(options).to(dtype)
    x, state, _ = call_of(lstm)
    output, last = lstm(x.to(dtype), tuple(s.to(dtype) for s in state))
    assert {t.dtype for t in (output, *last)} == {dtype}
    wide, states = lstm.double()(x.to(dtype).double(), tuple(s.to(dtype).double() for s in state))
    # Sums are float32 in both, over four steps. bfloat16 rounds what is returned, by 2^-8, and h of each step before.
    for ours, theirs in zip((output, *last), (wide, *states), strict=True):
        bound = 3 * 2**-8 if dtype == torch.bfloat16 else 1e-5
        assert_same(ours.double().detach(), theirs.detach(), tolerance=bound)


@every_case
@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
def test_a_cell_is_found_again_from_its_numbers(options, training):
    variant = make(options).variant
    shapes = variant.masks(cells=1, time=1, batch=1, hidden=1, width=1)
    masks = {name: name for name in shapes} if training else {}
    again, named = decoded(*coded(variant, masks))
    rates = dict.fromkeys(("recurrent_dropout", "variational_dropout", "weight_dropout"), 0.0)  # the masks have them
    assert again == dataclasses.replace(variant, **rates)
    assert (named or {}) == masks
