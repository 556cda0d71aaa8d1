"""What a training does where a loss or a gradient is not finite."""

import math
import re

import pytest
import torch
from torch import nn

from gatewise.errors import DivergenceError, GatewiseError
from gatewise.train.samples import Examples, shuffled
from training import Hears, a_runner, some_examples, trained, weights_of


class Breaks(nn.Module):
    """Two layers, the first of which is spoilt at one forward pass of training."""

    def __init__(self, at, value=math.nan):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Linear(4, 3), nn.Linear(3, 2)
        self.at, self.calls, self.value = at, 0, value
        self.first.register_forward_hook(self._spoil)

    def _spoil(self, module, args, output):
        self.calls += self.training
        return output * self.value if self.calls >= self.at and self.training else output

    def forward(self, inputs):
        return self.second(self.first(inputs))


def stopped(runner, train=None):
    """What a training that stops says, and the weights before the step."""
    before = []
    with pytest.raises(DivergenceError) as caught:
        runner.train(train or some_examples(), None, [Hears(lambda runner: before.append(weights_of(runner.model)))])
    assert isinstance(caught.value, GatewiseError)
    assert "\n" not in str(caught.value)
    return str(caught.value), before


def test_a_stop_names_step_batch_samples_and_module_and_leaves_the_weights_before_the_step():
    runner = a_runner(Breaks(at=5), epochs=3)
    says, before = stopped(runner)
    order = torch.Generator().manual_seed(0)
    shuffled(23, order)
    places = ", ".join(map(str, shuffled(23, order)[10:15].tolist()))
    assert says.startswith("the loss is nan and the gradient's norm nan in epoch 2 at step 5 (batch 2, samples ")
    assert f"(batch 2, samples {places} and 5 more)" in says
    assert "the first output that is not finite is that of first;" in says
    assert says.endswith("try a lower learning rate, or nonfinite skip")
    assert weights_of(runner.model).equal(before[3])
    assert (runner.progress.step, runner.progress.batch, runner.progress.epoch) == (4, 1, 1)
    assert len(runner.history.step_losses) == 4


def test_a_few_samples_are_all_listed():
    says, _ = stopped(a_runner(Breaks(at=3)))
    places = ", ".join(map(str, shuffled(23, torch.Generator().manual_seed(0))[20:].tolist()))
    assert f"(batch 3, samples {places})" in says


@pytest.mark.parametrize("accumulate", [1, 2, 3])
def test_a_stop_names_a_bad_input(accumulate):
    """In whichever of a step's batches it is."""
    examples = some_examples()
    order = shuffled(23, torch.Generator().manual_seed(0))
    for place in (0, 7, 12, 22):
        inputs = examples.inputs.clone()
        inputs[order[place], 2] = math.inf
        says, _ = stopped(a_runner(accumulate=accumulate), Examples(inputs, examples.targets))
        count = 3 if place >= 20 else 10
        assert (
            f"the input of 1 of its {count} samples is not finite, the first that of the batch at {place % 10} " in says
        )
        assert f"at step {place // (10 * accumulate) + 1} " in says


def test_a_stop_names_a_bad_parameter():
    runner = a_runner()
    nn.init.constant_(runner.model.bias, math.nan)
    says, _ = stopped(runner)
    assert "the parameter bias is not finite" in says


def test_a_stop_names_a_bad_gradient():
    class Root(nn.Module):
        """Finite forward, infinite backward: the square root of 0."""

        def __init__(self):
            super().__init__()
            self.early, self.late = nn.Parameter(torch.ones(4)), nn.Parameter(torch.zeros(2))

        def forward(self, inputs):
            return (inputs * self.early).sum(1, keepdim=True) + self.late.sqrt()

    says, before = stopped(a_runner(Root()))
    assert re.search(r"the loss is \d.* and the gradient's norm (inf|nan) in epoch 1 at step 1 ", says)
    assert "backward reached first the gradient of late that is not finite" in says
    assert before == []


def test_a_stop_names_squares_that_overflow():
    runner = a_runner(loss=lambda outputs, targets: outputs.mean() * 1e30)
    says, _ = stopped(runner)
    assert "the gradient's norm inf" in says
    assert "every number is finite, but the gradient's squares overflow" in says


def test_a_skip_is_counted_and_changes_neither_weights_nor_moments():
    model = Breaks(at=2)
    runner = a_runner(model, optimizer="adam", nonfinite="skip", epochs=1)
    states = []

    def note(runner):
        moments, _ = runner.state()
        states.append({n: t.clone() for n, t in moments.items() if n.startswith(("model.", "optimizer."))})
        model.at = 99 if model.calls >= 2 else model.at

    runner.train(some_examples(), None, [Hears(note)])
    first, skipped, last = states
    assert first.keys() == skipped.keys()
    assert all(skipped[name].equal(tensor) for name, tensor in first.items())
    assert not last["model.first.weight"].equal(first["model.first.weight"])
    assert (runner.progress.skipped, runner.progress.step) == (1, 3)
    assert len(runner.history.step_losses) == 2
    assert runner.history.evaluations[0].scores["train"].samples == 13


@pytest.mark.parametrize("nonfinite", ["stop", "skip"])
def test_running_means_of_a_model_are_not_spoilt_either(nonfinite):
    examples = some_examples(20)
    examples.inputs[shuffled(20, torch.Generator().manual_seed(0))[13], 1] = math.nan
    model = nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 2))
    runner, seen = a_runner(model, nonfinite=nonfinite, epochs=1), []
    note = Hears(lambda runner: seen.append({name: buffer.clone() for name, buffer in model.named_buffers()}))
    if nonfinite == "stop":
        with pytest.raises(DivergenceError, match="the input of 1 of its 10 samples"):
            runner.train(examples, None, [note])
    else:
        runner.train(examples, None, [note])
    assert seen[0]["0.num_batches_tracked"] == 1
    assert all(buffer.equal(seen[0][name]) for name, buffer in model.named_buffers())


def test_a_skip_before_the_first_look_at_dev():
    """There is nothing of training to say then; the next look says it."""
    model = Breaks(at=1)
    runner = a_runner(model, nonfinite="skip", epochs=1, dev_every=1)
    mends = Hears(lambda runner: setattr(model, "at", 99))
    runner.train(some_examples(), {"dev": some_examples(5)}, [mends])
    assert [(e.step, e.whole) for e in runner.history.evaluations] == [(2, False), (3, False), (3, True)]


def test_an_epoch_of_skips_ends_the_training():
    with pytest.raises(DivergenceError, match="every step of epoch 1 was left out, as none was finite: try a lower"):
        trained(Breaks(at=1), nonfinite="skip")


def test_an_evaluation_that_is_not_finite_is_named_too():
    bad = Examples(torch.full((3, 4), math.inf), torch.zeros(3, dtype=torch.int64))
    with pytest.raises(DivergenceError, match=r"the loss on the dev samples is nan after step 3, needed is a finite"):
        trained(others={"dev": bad})
