"""The training loop, without any task and without a folder."""

import copy
import re
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, mse_loss
from torch.utils.data import DataLoader

from gatewise.errors import ArgumentError, RunError
from gatewise.nn import LSTM
from gatewise.train.config import TrainConfig
from gatewise.train.metrics import correct_by_logit
from gatewise.train.runner import Runner, make_optimizer
from gatewise.train.samples import Examples, shuffled
from gatewise.train.schedule import learning_rate
from training import Hears, a_runner, some_examples, trained, weights_of


class Spy(nn.Module):
    """Notes what it is given and in which mode."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 2)
        self.seen = []

    def forward(self, inputs):
        self.seen.append((self.training, torch.is_grad_enabled(), inputs.detach().clone()))
        return self.linear(inputs)


# --- batches and means --------------------------------------------------------------------------------------


def test_the_order_is_that_of_torchs_own_loader():
    loader = DataLoader(range(17), batch_size=5, shuffle=True, generator=torch.Generator().manual_seed(3))
    generator = torch.Generator().manual_seed(3)
    for _ in range(3):
        assert shuffled(17, generator).tolist() == torch.cat(list(loader)).tolist()


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_a_plain_torch_script_with_the_same_seed_gets_the_same_weights(optimizer):
    examples = some_examples()
    runner = a_runner(epochs=3, seed=5, optimizer=optimizer)
    model = copy.deepcopy(runner.model)
    runner.train(examples)
    steps = make_optimizer(model, runner.config)
    data = torch.utils.data.TensorDataset(examples.inputs, examples.targets)
    loader = DataLoader(data, batch_size=10, shuffle=True, generator=torch.Generator().manual_seed(5))
    for _ in range(3):
        for inputs, targets in loader:
            steps.zero_grad()
            cross_entropy(model(inputs), targets).backward()
            steps.step()
    assert weights_of(runner.model).equal(weights_of(model))


@pytest.mark.parametrize("batch_size", [1, 7, 10, 23, 100])
def test_means_are_over_samples_whatever_the_batches(batch_size):
    examples = some_examples()
    runner = a_runner(eval_batch_size=batch_size)
    with torch.no_grad():
        outputs = runner.model(examples.inputs)
    score = runner.evaluate(examples)
    assert score.loss == pytest.approx(cross_entropy(outputs, examples.targets).item(), rel=1e-6)
    assert score["accuracy"] == (outputs.argmax(1) == examples.targets).sum().item() / 23
    assert score.samples == 23
    assert score.seconds > 0
    torch.testing.assert_close(runner.predict(examples.inputs), outputs)


@pytest.mark.parametrize(("batch_size", "accumulate"), [(10, 1), (4, 3), (100, 1), (23, 2)])
def test_the_training_loss_is_a_mean_over_samples_with_a_ragged_last_batch(batch_size, accumulate):
    examples = some_examples()
    runner = a_runner(epochs=1, learning_rate=1e-12, batch_size=batch_size, accumulate=accumulate)
    needed = runner.evaluate(examples)
    runner.train(examples)
    (score,) = (evaluation.scores["train"] for evaluation in runner.history.evaluations)
    assert score.loss == pytest.approx(needed.loss, rel=1e-6)
    assert (score["accuracy"], score.samples) == (needed["accuracy"], 23)


def test_every_sample_once_an_epoch_in_another_order_each_time():
    model, examples = Spy(), Examples(torch.arange(23.0)[:, None].expand(23, 4), torch.zeros(23, dtype=torch.int64))
    trained(model, examples, learning_rate=1e-9)
    assert [len(inputs) for _, _, inputs in model.seen] == [10, 10, 3] * 2
    order = torch.cat([inputs[:, 0] for _, _, inputs in model.seen]).tolist()
    first, second = order[:23], order[23:]
    assert sorted(first) == sorted(second) == list(range(23))
    assert first != second
    assert first != sorted(first)


def test_the_order_depends_on_the_seed_and_nothing_else():
    def order(seed, model, **changes):
        trained(model, seed=seed, **changes)
        return torch.cat([inputs for _, _, inputs in model.seen])

    class Noisy(Spy):
        def forward(self, inputs):
            torch.rand(3)  # as another model's dropout would
            return super().forward(inputs)

    def augment(inputs, generator):
        torch.rand(5, generator=generator)
        return inputs

    plain = order(0, Spy())
    assert order(0, Noisy()).equal(plain)
    assert order(0, Spy(), augment=augment).equal(plain)
    assert order(0, Spy(), optimizer="adam", schedule="cosine", batch_size=3).equal(plain)
    assert not order(1, Spy()).equal(plain)


# --- modes --------------------------------------------------------------------------------------------------


def test_modes_are_set_before_each_pass():
    class Careless(Spy):
        def forward(self, inputs):
            outputs = super().forward(inputs)
            if not self.training:
                self.train()  # whoever changes the mode inside does not change the next pass
            return outputs

    for model in (Spy(), Careless()):
        runner = trained(model, others={"dev": some_examples(5)})
        assert [seen[:2] for seen in model.seen] == ([(True, True)] * 3 + [(False, False)]) * 2
    runner.predict(torch.zeros(1, 4))
    assert model.seen[-1][:2] == (False, False)


def test_training_goes_on_in_its_mode_after_a_look_in_the_middle_of_an_epoch():
    model = Spy()
    trained(model, others={"dev": some_examples(5)}, dev_every=1, epochs=1)
    assert [training for training, _, _ in model.seen] == [True, False, True, False, True, False, False]


def test_same_seed_same_weights_and_dropout_is_off_in_evaluation():
    def weights(seed):
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 2))
        runner = trained(model, others={"dev": some_examples(seed=1)}, seed=seed)
        last = runner.history.evaluations[-1].scores["dev"]
        assert runner.evaluate(some_examples(seed=1)).loss == last.loss
        return weights_of(model)

    assert weights(0).equal(weights(0))
    assert not weights(0).equal(weights(1))


def test_evaluation_changes_no_weights_and_no_training():
    alone = trained()
    watched = trained(others={"dev": some_examples(9), "test": some_examples(11)}, dev_every=2)
    assert weights_of(alone.model).equal(weights_of(watched.model))


def test_augmentation_is_of_training_inputs_only():
    model = Spy()
    trained(model, others={"dev": some_examples()}, epochs=1, augment=lambda inputs, generator: inputs + 100)
    means = [(training, inputs.mean().item() > 50) for training, _, inputs in model.seen]
    assert set(means) == {(True, True), (False, False)}


def test_no_graph_is_kept():
    """Nothing of the runner, and no number of its history, holds on to a step's graph."""
    runner = trained(others={"dev": some_examples(5)})
    assert all(type(loss) is float for loss in runner.history.step_losses)
    tensors, _ = runner.state()
    assert not any(tensor.requires_grad for tensor in tensors.values() if tensor.is_floating_point())
    assert not any(tensor.requires_grad for tensor in runner.best.values())
    assert not runner.predict(torch.zeros(1, 4)).requires_grad


# --- what is heard and kept ---------------------------------------------------------------------------------


def test_callbacks_hear_each_step_and_each_evaluation_in_their_order():
    heard = []

    def step(runner):
        progress = runner.progress
        heard.append((progress.epoch, progress.batch, progress.step, progress.sums.samples))

    runner = trained(
        others={"dev": some_examples(5)},
        callbacks=[
            Hears(
                step, lambda runner, evaluation, is_best: heard.append(evaluation), lambda runner: heard.append("go")
            ),
            Hears(lambda runner: heard.append("second")),
        ],
    )
    first, second = runner.history.evaluations
    assert heard[:8] == ["go", (0, 1, 1, 10), "second", (0, 2, 2, 20), "second", (0, 3, 3, 23), "second", first]
    assert heard[8:] == [(1, 1, 4, 10), "second", (1, 2, 5, 20), "second", (1, 3, 6, 23), "second", second]
    assert [(e.step, e.epoch, e.whole, list(e.scores)) for e in (first, second)] == [
        (3, 1, True, ["train", "dev"]),
        (6, 2, True, ["train", "dev"]),
    ]


def test_the_history_is_of_steps_epochs_and_splits():
    runner = trained(others={"dev": some_examples(5)})
    history = runner.history
    assert len(history.step_losses) == 6
    assert history.epoch_losses() == pytest.approx(
        [sum(n * x for n, x in zip((10, 10, 3), history.step_losses[i : i + 3], strict=True)) / 23 for i in (0, 3)]
    )
    assert [step for step, _ in history.scores("dev")] == [3, 6]
    assert history.scores("test") == []
    assert (runner.steps_an_epoch, runner.steps) == (3, 6)
    assert (runner.progress.epoch, runner.progress.step, runner.progress.ended) == (2, 6, True)


def test_a_callback_can_stop_and_train_goes_on_from_there():
    whole = trained(epochs=3)
    for stop_at in range(1, 10):
        runner = a_runner(epochs=3)
        stop = Hears(lambda runner, stop_at=stop_at: runner.stop() if runner.progress.step == stop_at else None)
        runner.train(some_examples(), None, [stop])
        assert runner.progress.step == stop_at
        runner.train(some_examples(), None, [stop])
        assert weights_of(runner.model).equal(weights_of(whole.model))
        assert runner.history.step_losses == whole.history.step_losses
        assert runner.history.epoch_losses() == whole.history.epoch_losses()


def test_a_stop_that_comes_in_the_middle_of_a_step_or_before_the_first_is_heard():
    """As a signal's does."""

    class Signalled(nn.Linear):
        def forward(self, inputs):
            runner.stop()
            return super().forward(inputs)

    runner = a_runner(Signalled(4, 2))
    runner.train(some_examples())
    assert runner.progress.step == 1
    before, total = runner.progress.step, runner.processes.total
    runner.model.forward = lambda inputs: nn.Linear.forward(runner.model, inputs)

    def signalled(values):
        runner.stop()
        return total([*values[:1], 0.0, *values[2:]])  # it came too late to be told to the others

    runner.processes.total = signalled
    runner.train(some_examples())
    assert runner.progress.step == before + 1
    runner.stop()
    runner.train(some_examples())
    assert runner.progress.step == before + 1


# --- learning rates, clipping, accumulation, precision ------------------------------------------------------


def rates(schedule, steps, highest):
    """Those of the steps of a training, and those of torch's own scheduler."""
    seen = []
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=highest)
    if schedule == "cosine":
        theirs = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    else:
        theirs = torch.optim.lr_scheduler.OneCycleLR(optimizer, highest, total_steps=steps, cycle_momentum=False)
    for step in range(steps):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if step < steps - 1:
            theirs.step()
    return [learning_rate(schedule, highest, step, steps) for step in range(steps)], seen


@pytest.mark.parametrize("schedule", ["cosine", "one-cycle"])
@pytest.mark.parametrize("steps", [1, 2, 3, 4, 7, 10, 99, 1000])
def test_schedules_are_torchs_own(schedule, steps):
    ours, theirs = rates(schedule, steps, 0.3)
    assert ours == pytest.approx(theirs, rel=1e-6)


@pytest.mark.parametrize("schedule", ["constant", "cosine", "one-cycle"])
def test_each_step_has_its_rate(schedule):
    seen = []
    runner = trained(
        schedule=schedule,
        learning_rate=0.3,
        epochs=4,
        callbacks=[Hears(lambda runner: seen.append(runner.optimizer.param_groups[0]["lr"]))],
    )
    assert runner.steps == 12
    assert seen == ([0.3] * 12 if schedule == "constant" else pytest.approx(rates(schedule, 12, 0.3)[1], rel=1e-6))
    assert (seen[0] == seen[1]) is (schedule == "constant")


def test_a_gradient_is_clipped_by_its_norm_over_all_parameters():
    """A step of rate 1 of plain gradient descent is the gradient itself."""
    examples = some_examples(10)

    def gradient(clip_norm):
        runner = a_runner(epochs=1, learning_rate=1.0, clip_norm=clip_norm)
        before = weights_of(runner.model)
        runner.train(examples)
        return before - weights_of(runner.model), runner.progress.gradient_norm

    whole, norm = gradient(0.0)
    assert norm == pytest.approx(whole.norm().item(), rel=1e-5)
    clipped, said = gradient(norm / 3)
    assert said == norm  # before clipping
    assert clipped.norm().item() == pytest.approx(norm / 3, rel=1e-5)
    torch.testing.assert_close(clipped, whole / 3)
    below, _ = gradient(norm * 1.01)
    assert below.equal(whole)  # what is smaller stays as it is, bit for bit


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_accumulated_batches_are_one_big_batch(optimizer):
    """23 samples: groups of 12 and of 11, the last with a last batch of 3. Sums in another order, some epsilons."""
    big = trained(batch_size=12, optimizer=optimizer, clip_norm=0.3)
    small = trained(batch_size=4, accumulate=3, optimizer=optimizer, clip_norm=0.3)
    assert (small.progress.step, small.steps) == (big.progress.step, big.steps) == (4, 4)
    torch.testing.assert_close(weights_of(small.model), weights_of(big.model), rtol=1e-5, atol=1e-6)
    assert small.history.step_losses == pytest.approx(big.history.step_losses, rel=1e-5)
    assert small.history.epoch_losses() == pytest.approx(big.history.epoch_losses(), rel=1e-5)


def test_bfloat16_computes_in_bfloat16_and_keeps_weights_and_moments_in_float32():
    types = set()

    class Typed(nn.Linear):
        def forward(self, inputs):
            outputs = super().forward(inputs)
            types.add((self.training, outputs.dtype))
            return outputs

    def losses(precision):
        torch.manual_seed(0)
        runner = trained(Typed(4, 2), others={"dev": some_examples(9)}, precision=precision, optimizer="adam", epochs=5)
        moments = runner.optimizer.state_dict()["state"][0]
        assert {p.dtype for p in runner.model.parameters()} == {moments["exp_avg"].dtype} == {torch.float32}
        return runner.history.epoch_losses()

    exact = losses("float32")
    assert types == {(True, torch.float32), (False, torch.float32)}
    types.clear()
    rough = losses("bfloat16")
    assert types == {(True, torch.bfloat16), (False, torch.bfloat16)}
    assert rough != exact
    assert rough == pytest.approx(exact, rel=2e-2)  # bfloat16 keeps 8 bits


def test_an_lstm_trains_in_bfloat16():
    class Last(nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm, self.linear = LSTM(4, 8, batch_first=True), nn.Linear(8, 2)

        def forward(self, inputs):
            return self.linear(self.lstm(inputs)[0][:, -1])

    examples = some_examples(40)
    examples = Examples(examples.inputs[:, None].repeat(1, 3, 1), examples.targets)
    torch.manual_seed(0)
    runner = trained(Last(), examples, precision="bfloat16", optimizer="adam", learning_rate=0.02, epochs=20)
    assert runner.history.epoch_losses()[-1] < 0.5 * runner.history.epoch_losses()[0]


# --- the best weights and early stopping --------------------------------------------------------------------


class Scripted(nn.Module):
    """Whose evaluations go as they are told: its one weight counts the steps, and the loss looks it up."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, inputs):
        return self.weight.expand(len(inputs))


def scripted(losses, accuracies=(), **changes):
    """A runner of one step an epoch, whose n-th look at dev, of one sample, finds the n-th loss and accuracy."""

    def loss(outputs, targets):
        if torch.is_grad_enabled():
            return -outputs.mean()  # gradient -1: with rate 1 each step adds 1
        return torch.tensor(losses[round(outputs[0].item()) - 1])

    def accuracy(outputs, targets):
        return torch.tensor(accuracies[round(outputs[0].item()) - 1] if len(outputs) == 1 else 0.0)

    config = {"epochs": len(losses), "batch_size": 5, "learning_rate": 1.0, "optimizer": "sgd"} | changes
    runner = Runner(Scripted(), loss, TrainConfig(**config), measures={"accuracy": accuracy} if accuracies else {})
    heard = []
    hears = Hears(evaluation=lambda runner, evaluation, is_best: heard.append(is_best))
    samples, dev = (Examples(torch.zeros(count, 1), torch.zeros(count)) for count in (5, 1))
    runner.train(samples, {"dev": dev}, [hears])
    return runner, heard


def test_the_best_is_the_first_of_the_lowest_losses_on_dev():
    runner, heard = scripted([0.5, 0.6, 0.4, 0.4, 0.7])
    assert heard == [True, False, True, False, False]
    assert (runner.progress.best.epoch, runner.best["weight"].item(), runner.model.weight.item()) == (3, 3.0, 5.0)
    runner.use_best()
    assert runner.model.weight.item() == 3.0


def test_the_best_can_be_the_first_of_the_highest_accuracies():
    runner, heard = scripted([0.5, 0.4, 0.3, 0.2], [0.25, 0.75, 0.5, 0.75], best_by="accuracy")
    assert heard == [True, True, False, False]
    assert runner.best["weight"].item() == 2.0


def test_no_split_but_dev_chooses_and_without_it_the_training_loss():
    dev, test = some_examples(9, seed=1), some_examples(9, seed=2)
    runner = trained(others={"dev": dev, "test": test}, epochs=6, learning_rate=2.0)
    assert runner.progress.best.scores["dev"].loss == min(score.loss for _, score in runner.history.scores("dev"))
    runner = trained(others={"test": test}, epochs=6, learning_rate=2.0)
    assert runner.progress.best.scores["train"].loss == min(runner.history.epoch_losses())


def test_there_is_no_best_before_the_first_evaluation():
    with pytest.raises(RunError, match="there are no best weights yet: train first"):
        a_runner().use_best()


@pytest.mark.parametrize(("patience", "epochs"), [(0, 7), (1, 2), (2, 5), (3, 6), (4, 7)])
def test_early_stopping_counts_the_evaluations_that_were_no_better(patience, epochs):
    runner, heard = scripted([0.5, 0.6, 0.4, 0.4, 0.7, 0.6, 0.3], patience=patience)
    assert (runner.progress.epoch, len(heard), runner.progress.ended) == (epochs, epochs, True)


def test_dev_every_looks_in_the_middle_of_an_epoch():
    runner = trained(others={"dev": some_examples(5), "test": some_examples(7)}, dev_every=2, epochs=3)
    looks = [(e.step, e.epoch, e.whole, list(e.scores)) for e in runner.history.evaluations]
    everything = ["train", "dev", "test"]
    assert looks == [
        (2, 1, False, everything),
        (3, 1, True, ["train"]),
        (4, 2, False, everything),
        (6, 2, False, everything),
        (6, 2, True, ["train"]),
        (8, 3, False, everything),
        (9, 3, True, everything),  # the last weights are always looked at
    ]
    assert [e.scores["train"].samples for e in runner.history.evaluations] == [20, 23, 10, 23, 23, 20, 23]
    assert len(runner.history.epoch_losses()) == 3


def test_early_stopping_in_the_middle_of_an_epoch():
    runner = trained(others={"dev": some_examples(5)}, dev_every=1, patience=1, learning_rate=1e-30, epochs=9)
    assert (runner.progress.step, runner.progress.since_best, runner.progress.ended) == (2, 1, True)


@pytest.mark.parametrize("name", ["patience", "dev_every"])
def test_what_needs_a_dev_split_says_so(name):
    with pytest.raises(ArgumentError, match=rf"{name} is 1 and there is no dev split: set some samples aside"):
        trained(others={"test": some_examples(5)}, **{name: 1})


# --- optimizers, tasks, weights -----------------------------------------------------------------------------


def test_the_optimizers_are_fused():
    for name, kind in (("adam", torch.optim.Adam), ("sgd", torch.optim.SGD)):
        optimizer = make_optimizer(nn.Linear(4, 2), TrainConfig(optimizer=name, learning_rate=0.01))
        assert type(optimizer) is kind
        assert optimizer.defaults["fused"]
        assert optimizer.defaults["lr"] == 0.01


def test_an_optimizer_of_ones_own():
    model = nn.Linear(4, 2)
    before = weights_of(model)
    runner = trained(model, own_optimizer=torch.optim.AdamW(model.parameters(), lr=9.0), learning_rate=0.05)
    assert type(runner.optimizer) is torch.optim.AdamW
    assert runner.optimizer.param_groups[0]["lr"] == 0.05  # the settings' at each step
    assert not weights_of(model).equal(before)


def test_two_classes_by_one_logit_and_regression():
    inputs = some_examples(60).inputs
    config = TrainConfig(epochs=30, batch_size=10, learning_rate=0.1)
    torch.manual_seed(0)
    binary = Runner(
        nn.Sequential(nn.Linear(4, 1), nn.Flatten(0)),
        binary_cross_entropy_with_logits,
        config,
        measures={"accuracy": correct_by_logit},
    )
    examples = Examples(inputs, (inputs[:, 0] > 0).float())
    binary.train(examples)
    assert binary.evaluate(examples)["accuracy"] > 0.9
    wanted = torch.tensor([[1.0, -2.0, 0.5, 0.0]])
    line = Runner(nn.Linear(4, 1), mse_loss, config)
    line.train(Examples(inputs, inputs @ wanted.T))
    torch.testing.assert_close(line.model.weight.detach(), wanted, atol=0.02, rtol=0)
    assert line.evaluate(Examples(inputs, inputs @ wanted.T)).measures == {}


def test_weights_are_saved_and_loaded(tmp_path):
    runner, other = a_runner(), a_runner(nn.Linear(4, 2))
    runner.save(tmp_path / "a", {"what": "a line"})
    assert not weights_of(runner.model).equal(weights_of(other.model))
    assert other.load(tmp_path / "a") == {"what": "a line"}
    assert weights_of(runner.model).equal(weights_of(other.model))
    with pytest.raises(RunError, match=r"a: bias has shape \(2,\), needed is shape \(3,\): take the model's own"):
        a_runner(nn.Linear(4, 3)).load(tmp_path / "a")


def test_what_is_kept_of_the_data_tells_one_set_from_another():
    examples = some_examples()
    other = examples.inputs.clone()
    other[3, 1] = other[3, 1].nextafter(torch.tensor(9.0))
    swapped = examples.targets.clone()
    swapped[0] = 1 - swapped[0]
    sums = {
        Examples(examples.inputs, examples.targets).sha256(),
        Examples(other, examples.targets).sha256(),
        Examples(examples.inputs, swapped).sha256(),
        Examples(examples.inputs.double(), examples.targets).sha256(),
        Examples(examples.inputs.reshape(23, 2, 2), examples.targets).sha256(),
    }
    assert len(sums) == 5
    assert some_examples().sha256() in sums


def test_the_page_about_training():
    page = (Path(__file__).parents[1] / "docs" / "training.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    names = {}
    with torch.random.fork_rng():
        exec(code, names)  # with checks of its own
    assert names["outputs"].shape == (200, 2)
    assert names["runner"].progress.ended


def test_what_chooses_the_best_must_be_measured():
    runner = Runner(nn.Linear(4, 2), cross_entropy, TrainConfig(epochs=1, best_by="accuracy"))
    with pytest.raises(
        ArgumentError, match=r"^best_by is accuracy, which is not measured: give it as one of the measures$"
    ):
        runner.train(some_examples())


def test_samples_that_do_not_fit_together():
    with pytest.raises(ArgumentError, match="there are 3 inputs and 4 targets, needed are as many of both"):
        Examples(torch.zeros(3, 2), torch.zeros(4))
    with pytest.raises(ArgumentError, match="0 inputs and 0 targets, needed are as many of both, and at least one"):
        Examples(torch.zeros(0, 2), torch.zeros(0))


def test_words_that_are_no_choice():
    with pytest.raises(ArgumentError, match="schedule is foo, needed is one of 'constant', 'cosine', 'one-cycle'"):
        TrainConfig(schedule="foo")


def test_parameters_of_the_loss_that_the_optimizer_holds_are_trained_by_each_step_s_gradient_alone():
    torch.manual_seed(0)
    model, scale = nn.Linear(4, 2), nn.Parameter(torch.ones(()))
    optimizer = torch.optim.SGD([*model.parameters(), scale], lr=0.0)
    gradients = []

    def loss(outputs, targets):
        return scale * cross_entropy(outputs, targets)

    runner = Runner(model, loss, TrainConfig(epochs=1, batch_size=5, learning_rate=1e-30), optimizer=optimizer)
    runner.train(some_examples(), None, [Hears(lambda runner: gradients.append(float(scale.grad)))])
    torch.testing.assert_close(gradients, runner.history.step_losses, rtol=1e-6, atol=0)  # loss = scale * the rest
