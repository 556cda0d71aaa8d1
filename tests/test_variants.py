"""Every variant of the cell and every pair of them, through the same checks."""

import copy
import dataclasses
import itertools
import pickle
import re

import numpy as np
import pytest
import torch
import torch.utils.checkpoint

import gatewise
from cells import CASES, NOT_IN_AN_SLSTM, REFUSED, SINGLES
from compare import assert_same
from gatewise import reference
from gatewise.errors import ArgumentError, ShapeError
from gatewise.nn.call import Call
from gatewise.nn.masks import draw_masks
from gatewise.nn.paths import Path
from gatewise.reference import activations
from gatewise.reference.cell import Plain
from gatewise.reference.code import coded, decoded
from gatewise.reference.variant import Variant
from gatewise.reference.variants import Varied

H, I = 3, 2

# The gradient of the 0/1 gate is not that of its function, so the reference alone tells what it is; and in fewer bits a
# rounding may turn a gate over.
SMOOTH = {name: options for name, options in CASES.items() if options.get("gate_activation") != "step"}
every_case = pytest.mark.parametrize("options", CASES.values(), ids=CASES)
every_single = pytest.mark.parametrize("options", SINGLES.values(), ids=SINGLES)
every_smooth_case = pytest.mark.parametrize("options", SMOOTH.values(), ids=SMOOTH)

# The reference and torch round the same few dozen operations a step in another order, over at most six steps.
ROUNDING = 1e-12
# Gates of 0 and 1 leave all units of a cell equal. There a layer norm is 316 times as steep, and bends.
STEEP = {"gate_activation": "step", "layer_norm": True}
# A central difference of the fourth order with a step of 1e-6. Rounding: a loss of some dozen terms around 1 is off by
# up to some 1e-15, which the division by 1.2e-5 / 8 makes 1e-9.
DIFFERENCE, DIFFERENCE_TOLERANCE = 1e-6, 2e-8

WALK = {"lengths": [4, 0, 3], "reset": [[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 0, 1]]}


def make(options, **others):
    torch.manual_seed(0)
    lstm = gatewise.LSTM(I, H, **options, **others, dtype=torch.float64)
    with torch.no_grad():
        for parameter in lstm.parameters():  # larger than torch's, so that every slope is another
            parameter.copy_(torch.randn_like(parameter) * 0.7)
    return lstm.eval()


def masks_of(lstm, T=4, B=3):
    """What the module draws after `torch.manual_seed(7)`, in a call of T steps and B sequences."""
    torch.manual_seed(7)
    cells = lstm.num_layers * (2 if lstm.bidirectional else 1)
    masks = lstm.variant.masks(cells=cells, time=T, batch=B, hidden=H, width=lstm.proj_size or H)
    return draw_masks(masks, lstm.weight_hh_l0)


def call_of(lstm, T=4, B=3):
    """An input and a state for an LSTM, and the weights of a loss for each of its results."""
    draw = torch.Generator().manual_seed(1)
    rows, P = lstm.num_layers * (2 if lstm.bidirectional else 1), lstm.proj_size or H
    shapes = [(T, B, I), (T, B, P * (2 if lstm.bidirectional else 1)), (rows, B, P), *[(rows, B, H)] * 3]
    x, d_output, *state = (torch.randn(shape, generator=draw, dtype=torch.float64) for shape in shapes)
    state[2] = state[2].abs() + 1  # as large as a normalizer is
    state = tuple(state[: len(lstm.variant.states)])
    return x, state, (d_output, *(torch.randn(s.shape, generator=draw, dtype=torch.float64) for s in state))


def by_reference(lstm, x, state, walk):
    """The forward pass in NumPy, of a module in training with the masks of `masks_of`."""
    masks = {name: mask.numpy() for name, mask in masks_of(lstm).items()} if lstm.training else None
    return reference.forward(
        x.numpy(),
        {name: weight.detach().numpy() for name, weight in lstm.named_parameters()},
        **{f"{name}_0": s.numpy() for name, s in zip(lstm.variant.states, state, strict=True)},
        num_layers=lstm.num_layers,
        bidirectional=lstm.bidirectional,
        lengths=np.array(walk["lengths"]) if "lengths" in walk else None,
        reset=np.array(walk["reset"], bool) if "reset" in walk else None,
        variant=lstm.variant,
        masks=masks,
    )


def outcome(function, lstm, x, state, d_results, walk):
    """Results and every gradient, as one flat tuple."""
    leaves = [x.clone().requires_grad_(), *(s.clone().requires_grad_() for s in state)]
    walk = walk | ({"reset": torch.tensor(walk["reset"]).bool()} if "reset" in walk else {})
    torch.manual_seed(7)
    output, states = function(leaves[0], tuple(leaves[1:]), **walk)
    loss = sum((d * r).sum() for d, r in zip(d_results, (output, *states), strict=True))
    gradients = torch.autograd.grad(loss, [*leaves, *lstm.parameters()])
    return *(result.detach() for result in (output, *states)), *gradients


def gradients_of(lstm, run, d_results):
    """Those of the reference, by name."""
    d_output, *d_states = (d.numpy() for d in d_results)
    by_state = {f"d_{name}_n": d for name, d in zip(lstm.variant.states, d_states, strict=True)}
    found = reference.backward(run, d_output, **by_state)
    return {"x": found.d_x} | {f"{name}_0": d for name, d in found.d_initial.items()} | found.d_parameters


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


@every_case
@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
def test_every_gradient_of_the_reference_matches_finite_differences(options, training, monkeypatch):
    lstm = make(options, bidirectional=True).train(training)
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


@every_case
@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize(
    ("path", "walk"),
    [("kernel", {}), ("kernel", WALK), ("composite", WALK)],
    ids=["whole", "lengths and resets", "by torch's operations"],
)
def test_the_module_is_the_reference(options, path, walk, training, monkeypatch):
    monkeypatch.setattr("gatewise.nn.lstm.path_of", lambda *_, **__: Path(path, ""))
    lstm = make(options, num_layers=2, bidirectional=True).train(training)
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


@pytest.mark.parametrize("options", SINGLES.values(), ids=SINGLES)
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


@every_case
def test_compiled(options):
    torch.compiler.reset()
    lstm = make(options).train()
    x, state, d_results = call_of(lstm, T=1)
    compiled = torch.compile(lstm, fullgraph=True, backend="aot_eager" if options in SINGLES.values() else "eager")
    expected = outcome(lstm, lstm, x, state, d_results, {})
    assert_same(outcome(compiled, lstm, x, state, d_results, {}), expected, tolerance=ROUNDING)


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


# ---- what each of them is ----


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


# ---- the masks ----


MASKED = {
    "zoneout": {"zoneout": 0.5},
    "recurrent dropout": {"recurrent_dropout": 0.5},
    "variational dropout": {"variational_dropout": 0.5},
    "weight dropout": {"weight_dropout": 0.5},
}
every_mask = pytest.mark.parametrize("options", MASKED.values(), ids=MASKED)


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
def test_two_compiled_calls_draw_two_masks(options):
    """They are the same operation of the same numbers, which a compiler might do once."""
    torch.compiler.reset()
    lstm = gatewise.LSTM(I, H, dtype=torch.float64, **options)

    def twice(x):
        return torch.cat([lstm(x)[0], lstm(x)[0]])

    x = torch.randn(2, 3, I, dtype=torch.float64)
    found = []
    for function in (twice, torch.compile(twice, fullgraph=True, backend="aot_eager")):
        torch.manual_seed(3)
        y = function(x)
        found.append((y.detach(), torch.autograd.grad(y.square().sum(), lstm.weight_hh_l0)[0]))
    assert_same(found[1], found[0], tolerance=ROUNDING)
    assert not torch.equal(*found[1][0].chunk(2))


@every_mask
def test_what_is_compiled_and_computed_anew_has_the_same_masks_again(options):
    torch.compiler.reset()
    lstm = gatewise.LSTM(I, H, dtype=torch.float64, **options)

    def anew(x):
        return torch.utils.checkpoint.checkpoint(lambda x: lstm(x)[0], x, use_reentrant=False)

    x = torch.randn(2, 3, I, dtype=torch.float64)
    found = []
    for function in (lambda x: lstm(x)[0], torch.compile(anew, backend="aot_eager")):
        torch.manual_seed(3)
        y = function(x)
        found.append((y.detach(), torch.autograd.grad(y.square().sum(), lstm.weight_hh_l0)[0], torch.get_rng_state()))
    assert_same(found[1][:2], found[0][:2], tolerance=ROUNDING)
    assert torch.equal(found[1][2], found[0][2])


@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated")  # of the compiler itself
def test_torchs_own_compiler_draws_the_same_masks():
    """It has a generator of its own for the operations that it knows."""
    torch.compiler.reset()
    options = {name: value for each in MASKED.values() for name, value in each.items()}
    lstm = gatewise.LSTM(I, H, dtype=torch.float64, **options)
    x, found = torch.randn(1, 3, I, dtype=torch.float64), []
    for function in (lstm, torch.compile(lstm, fullgraph=True)):
        torch.manual_seed(3)
        y = function(x)[0]
        found.append((y.detach(), torch.autograd.grad(y.square().sum(), lstm.weight_hh_l0)[0]))
    assert_same(found[1], found[0], tolerance=ROUNDING)


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


# ---- the module ----


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


@pytest.mark.parametrize("options", SINGLES.values(), ids=SINGLES)
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


# ---- the operators ----


def call_in(lstm, x, state, **walk):
    """The operator's arguments in a call of the module, with its masks, and without gradients."""
    masks = masks_of(lstm, *x.shape[:2]) if lstm.training else None
    if masks is not None and "weight_hh" in masks:
        masks.pop("weight_hh")
    h_0, *cells = state
    network = lstm.num_layers, lstm.bidirectional, False, walk.get("lengths"), walk.get("reset"), None
    weights = [weight.detach() for weight in lstm._weights()]
    return Call.of(x, h_0, torch.cat(cells, -1), weights, *network, variant=lstm.variant, masks=masks)


@pytest.mark.parametrize("options", SINGLES.values(), ids=SINGLES)
def test_the_operators_keep_what_they_promise_to_torch(options):
    """As torch itself checks it, with the masks of a training call."""
    lstm = make(options, num_layers=2, bidirectional=True).train()
    x, state, _ = call_of(lstm)
    forward = call_in(lstm, x, state, lengths=torch.tensor([4, 0, 3]))
    leaves = forward._replace(input=x.clone().requires_grad_(), weights=[w.requires_grad_() for w in forward.weights])
    torch.library.opcheck(torch.ops.gatewise.lstm.default, tuple(leaves))
    forward = forward._replace(weights=[w.detach() for w in forward.weights])
    checks = ["test_schema", "test_faketensor"]
    torch.library.opcheck(torch.ops.gatewise.lstm_training.default, tuple(forward), test_utils=checks)
    output, _, _, kept = torch.ops.gatewise.lstm_training(*forward)
    wanted = [True, False, False] + [True] * len(forward.weights)
    backward = (torch.randn_like(output), None, None, *forward[:4], output, kept, *forward[4:], wanted)
    torch.library.opcheck(torch.ops.gatewise.lstm_backward.default, backward, test_utils=checks)


def test_the_operator_refuses_what_the_core_would_read_past():
    lstm = make({"zoneout": 0.5, "variational_dropout": 0.5}).train()
    x, state, _ = call_of(lstm)
    call = call_in(lstm, x, state)
    lstm_operator = torch.ops.gatewise.lstm
    zoneout_h, zoneout_c, hidden = call.masks
    for change, says in (
        ({"masks": [zoneout_h, hidden]}, "there are 2 masks, needed 3 for this cell, or 1 in evaluation"),
        ({"masks": []}, "there are 0 masks, needed 3 for this cell, or 1 in evaluation"),
        (
            {"masks": [zoneout_h, zoneout_c[:, :3], hidden]},
            r"zoneout_c has shape \[1, 3, 3, 3\], needed \[L·D, T, B, H",
        ),
        (
            {"masks": [zoneout_h, zoneout_c, hidden[0]]},
            r"hidden has shape \[3, 3\], needed \[L·D, B, H\] = \[1, 3, 3\]",
        ),
        ({"masks": [zoneout_h.float(), zoneout_c, hidden]}, "zoneout_h is Float on cpu, needed a strided Double"),
        ({"cell": 2048}, "cell is 2048, needed from 0 to 2047"),
        ({"cell": 1 + 128}, "cell is 129, whose changes do not go together"),
        ({"cell": 3 << 8, "masks": []}, "cell is 768, whose changes do not go together"),
        ({"zoneout_h": 1.0}, "zoneout is 1 and 0.5, needed rates"),
        (
            {"cell": 2 + 128, "weights": call.weights[:2]},
            "there are 2 weights, needed 3, two more with biases and one more with a projection",
        ),
        ({"cell": 8 + 128}, "there are 4 weights, needed 5, three more with biases and one more with a projection"),
        ({"cell": 4 + 128}, r"weight_hh_l0 has shape \[12, 3\] and weight_ih_l0 \[12, 2\], needed \[3H, H\]"),
    ):
        with pytest.raises(RuntimeError, match=says):
            lstm_operator(*call._replace(**change))
    lstm = make({"cell": "slstm"})
    x, state, _ = call_of(lstm)
    call = call_in(lstm, x, state)
    with pytest.raises(RuntimeError, match=r"c_0 has shape \[1, 3, 3\], needed \[1, 3, 9\]"):
        lstm_operator(*call._replace(c_0=state[1]))
    lstm = make({"peephole": True})
    x, state, _ = call_of(lstm)
    call = call_in(lstm, x, state)
    weights = [*call.weights[:-1], call.weights[-1][:6]]
    with pytest.raises(RuntimeError, match=r"weight_ch_l0 has shape \[6\], needed \[9\]"):
        lstm_operator(*call._replace(weights=weights))


@every_case
@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
def test_a_cell_is_found_again_from_its_numbers(options, training):
    variant = make(options).variant
    shapes = variant.masks(cells=1, time=1, batch=1, hidden=1, width=1)
    masks = {name: name for name in shapes if name != "weight_hh"} if training else {}
    again, named = decoded(*coded(variant, masks))
    rates = dict.fromkeys(("recurrent_dropout", "variational_dropout", "weight_dropout"), 0.0)  # the masks have them
    assert again == dataclasses.replace(variant, **rates)
    assert (named or {}) == masks


def test_states_of_an_slstm_one_by_one_are_those_of_one_tensor():
    # The module hands c, n and m to the kernels as they are, and the operator takes them as one tensor.
    lstm = make({"cell": "slstm"})
    x, state, (d_output, *d_states) = call_of(lstm)
    weights = list(lstm.parameters())
    leaves = [s.clone().requires_grad_() for s in state]
    output, states = lstm(x, tuple(leaves))
    whole = torch.cat(state[1:], dim=-1).requires_grad_()
    network = 1, False, False, None, None, None
    as_one = torch.ops.gatewise.lstm(x, state[0], whole, weights, *network, *lstm._codes.in_training, [])
    assert torch.equal(output, as_one[0])
    assert torch.equal(torch.cat(states[1:], dim=-1), as_one[2])
    # A loss of n alone, by n alone: the others' gradients are zeros that nobody made.
    (d_n,) = torch.autograd.grad((states[2] * d_states[2]).sum(), leaves[2], retain_graph=True)
    (d_whole,) = torch.autograd.grad((as_one[2].chunk(3, -1)[1] * d_states[2]).sum(), whole)
    assert torch.equal(d_n, d_whole.chunk(3, -1)[1])
    # Several gradients at once, of which the second is twice the first.
    both = torch.autograd.grad(output, leaves, torch.stack([d_output, 2 * d_output]), is_grads_batched=True)
    for one, two in both:
        np.testing.assert_allclose(two, 2 * one, rtol=ROUNDING, atol=ROUNDING)
