"""The loop, the settings, the metrics and the checkpoints, without any task."""

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader

from gatewise.errors import ArgumentError, DivergenceError, GatewiseError, RunError
from gatewise.train.checkpoint import Run, fill_weights, read_weights, save_weights
from gatewise.train.config import ImageConfig, TrainConfig, read_config, write_config
from gatewise.train.curves import draw_curves
from gatewise.train.loop import Examples, Pass, evaluate, fit, predict, shuffled
from gatewise.train.metrics import Metric, MetricsLog, correct_by_argmax, read_metrics


def some_examples(count=23, seed=0):
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(count, 4, generator=generator)
    return Examples(inputs, (inputs[:, 0] > 0).long())


def fitted(model, train=None, others=None, **changes):
    """Train a model by plain gradient descent; the epochs."""
    settings = {"epochs": 2, "batch_size": 10, "eval_batch_size": 10, "seed": 0} | changes
    optimizer = torch.optim.SGD(model.parameters(), lr=settings.pop("lr", 0.1), fused=True)
    return fit(model, optimizer, cross_entropy, train or some_examples(), others or {}, **settings)


def test_batches_are_those_of_torchs_own_loader():
    loader = DataLoader(range(17), batch_size=5, shuffle=True, generator=torch.Generator().manual_seed(3))
    generator = torch.Generator().manual_seed(3)
    for _ in range(3):
        assert shuffled(17, generator).tolist() == torch.cat(list(loader)).tolist()


class Spy(nn.Module):
    """Notes what it is given and in which mode."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 2)
        self.seen = []

    def forward(self, inputs):
        self.seen.append((self.training, torch.is_grad_enabled(), inputs.detach().clone()))
        return self.linear(inputs)


# --- the loop -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [1, 7, 10, 23, 100])
def test_means_are_over_samples_whatever_the_batches(batch_size):
    model, examples = nn.Linear(4, 2), some_examples()
    with torch.no_grad():
        outputs = model(examples.inputs)
    score = evaluate(model, cross_entropy, examples, batch_size)
    assert score.loss == pytest.approx(cross_entropy(outputs, examples.targets).item(), rel=1e-6)
    assert score.accuracy == (outputs.argmax(1) == examples.targets).sum().item() / 23
    assert score.samples == 23
    assert score.seconds > 0
    torch.testing.assert_close(predict(model, examples.inputs, batch_size), outputs)


def test_the_training_loss_is_a_mean_over_samples_with_a_ragged_last_batch():
    model, examples = nn.Linear(4, 2), some_examples()
    with torch.no_grad():
        needed = cross_entropy(model(examples.inputs), examples.targets).item()
    (epoch,) = fitted(model, examples, epochs=1, lr=0.0)
    assert epoch.scores["train"].loss == pytest.approx(needed, rel=1e-6)
    assert epoch.scores["train"].samples == 23


def test_every_sample_once_an_epoch_in_another_order_each_time():
    model, examples = Spy(), Examples(torch.arange(23.0)[:, None].expand(23, 4), torch.zeros(23, dtype=torch.int64))
    fitted(model, examples)
    sizes = [len(inputs) for _, _, inputs in model.seen]
    assert sizes == [10, 10, 3] * 2
    order = torch.cat([inputs[:, 0] for _, _, inputs in model.seen]).tolist()
    first, second = order[:23], order[23:]
    assert sorted(first) == sorted(second) == list(range(23))
    assert first != second
    assert first != sorted(first)


def test_the_order_depends_on_the_seed_and_nothing_else():
    def order(seed, model, **changes):
        fitted(model, seed=seed, **changes)
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
    assert not order(1, Spy()).equal(plain)


def test_modes_are_set_before_each_pass():
    class Careless(Spy):
        def forward(self, inputs):
            outputs = super().forward(inputs)
            self.train(not self.training)  # whoever changes the mode inside does not change the next pass
            return outputs

    for model in (Spy(), Careless()):
        fitted(model, others={"dev": some_examples(5)})
        modes = [(training, grad) for training, grad, _ in model.seen]
        assert modes[0] == modes[4] == (True, True)
        assert modes[3] == modes[7] == (False, False)
    predict(model, torch.zeros(1, 4), 1)
    assert model.seen[-1][:2] == (False, False)


def test_same_seed_same_weights_and_dropout_is_off_in_evaluation():
    def weights(seed):
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 2))
        (*_, last) = fitted(model, others={"dev": some_examples(seed=1)}, seed=seed)
        assert evaluate(model, cross_entropy, some_examples(seed=1), 10).loss == last.scores["dev"].loss
        return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])

    assert weights(0).equal(weights(0))
    assert not weights(0).equal(weights(1))


def test_evaluation_changes_no_weights_and_no_training():
    torch.manual_seed(0)
    alone = nn.Linear(4, 2)
    watched = nn.Linear(4, 2)
    watched.load_state_dict(alone.state_dict())
    fitted(alone)
    fitted(watched, others={"dev": some_examples(9), "test": some_examples(11)})
    assert alone.weight.equal(watched.weight)


def test_hooks_hear_each_step_and_each_epoch():
    heard = []
    history = fitted(
        nn.Linear(4, 2),
        others={"dev": some_examples(5)},
        on_batch=lambda running: heard.append((running.epoch, running.first_step, len(running.sizes), running.samples)),
        on_epoch=lambda epoch: heard.append(epoch),
    )
    assert heard[:4] == [(1, 0, 1, 10), (1, 0, 2, 20), (1, 0, 3, 23), history[0]]
    assert heard[4:] == [(2, 3, 1, 10), (2, 3, 2, 20), (2, 3, 3, 23), history[1]]
    assert [epoch.step for epoch in history] == [3, 6]


def test_no_graph_is_kept():
    losses = []
    fitted(nn.Linear(4, 2), on_batch=lambda running: losses.extend(running.losses + running.correct))
    assert losses
    assert not any(tensor.requires_grad for tensor in losses)


def test_the_schedule_steps_after_each_batch():
    model = nn.Linear(4, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 6)
    rates = []
    fit(
        model,
        optimizer,
        cross_entropy,
        some_examples(),
        {},
        epochs=2,
        batch_size=10,
        eval_batch_size=10,
        seed=0,
        schedule=schedule,
        on_batch=lambda running: rates.append(optimizer.param_groups[0]["lr"]),
    )
    assert rates == pytest.approx([(1 + math.cos(math.pi * step / 6)) / 2 for step in range(1, 7)])


def test_augmentation_is_of_training_inputs_only():
    model = Spy()
    fitted(model, others={"dev": some_examples()}, epochs=1, augment=lambda inputs, generator: inputs + 100)
    means = [(training, inputs.mean().item() > 50) for training, _, inputs in model.seen]
    assert set(means) == {(True, True), (False, False)}


def test_a_loss_that_is_not_finite_is_named_by_epoch_and_step():
    class Breaks(nn.Linear):
        calls = 0

        def forward(self, inputs):
            self.calls += 1
            return super().forward(inputs) * (math.nan if self.calls == 5 else 1.0)

    ended = []
    with pytest.raises(
        DivergenceError, match=r"the loss is nan in epoch 2 at step 5, .* lower learning rate"
    ) as caught:
        fitted(Breaks(4, 2), on_epoch=ended.append)
    assert isinstance(caught.value, GatewiseError)
    assert [epoch.number for epoch in ended] == [1]


def test_an_evaluation_that_is_not_finite_is_named_too():
    bad = Examples(torch.full((3, 4), math.inf), torch.zeros(3, dtype=torch.int64))
    with pytest.raises(DivergenceError, match=r"on the dev samples after epoch 1 \(step 3\)"):
        fitted(nn.Linear(4, 2), others={"dev": bad})


def test_a_pass_weighs_batches_by_their_size():
    running = Pass(total=4)
    running.add(torch.tensor([[1.0, 0.0]] * 3), torch.tensor([0, 0, 1]), torch.tensor(1.0))
    running.add(torch.tensor([[1.0, 0.0]]), torch.tensor([1]), torch.tensor(5.0))
    score = running.score()
    assert (score.loss, score.accuracy, score.samples) == (2.0, 0.5, 4)


def test_accuracy_is_by_the_highest_score():
    outputs = torch.tensor([[-3.0, -1.0, -2.0], [0.2, 0.3, 0.5], [1.0, 1.0, 0.0]])
    assert correct_by_argmax(outputs, torch.tensor([1, 2, 0])).item() == 3
    assert correct_by_argmax(outputs, torch.tensor([0, 2, 1])).item() == 1


# --- the settings -------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, kw_only=True)
class PathConfig(ImageConfig):
    data: Path


CONFIGS = {"plain": TrainConfig, "images": ImageConfig, "paths": PathConfig}


@pytest.mark.parametrize(
    ("task", "config"),
    [
        ("plain", TrainConfig()),
        ("plain", TrainConfig(dropout=0.25, learning_rate=3e-5, optimizer="sgd", seed=2**63 - 1)),
        ("images", ImageConfig(normalize=(0.1307, 0.3081), max_shift=2)),
        ("paths", PathConfig(data=Path('/a folder/of "quotes" \\ and\tumlauts äöü'))),
    ],
)
def test_settings_round_trip(tmp_path, task, config):
    write_config(tmp_path / "config.toml", task, config)
    name, back = read_config(tmp_path / "config.toml", CONFIGS)
    assert (name, back) == (task, config)
    assert {f.name: type(getattr(back, f.name)) for f in dataclasses.fields(back)} == {
        f.name: type(getattr(config, f.name)) for f in dataclasses.fields(config)
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('task = "plain"\nhiden_size = 3', "hiden_size is no setting of plain, the nearest is hidden_size"),
        ('task = "plane"', "the task is 'plane', needed is one of plain, images, paths"),
        ("epochs = 3", "the task is None"),
        ('task = "plain"\nepochs = "3"', "epochs is '3', needed is a whole number"),
        ('task = "plain"\nepochs = 1.5', "epochs is 1.5, needed is a whole number"),
        ('task = "plain"\nepochs = true', "epochs is True, needed is a whole number"),
        ('task = "plain"\noptimizer = "adma"', r"optimizer is 'adma', needed is one of 'adam', 'sgd'"),
        ('task = "images"\nnormalize = [0.1]', r"normalize is \[0.1\], needed is an array of a number and a number"),
        ('task = "plain"\nepochs = 3', "lacks hidden_size, num_layers, .*, which plain needs"),
        ("task = plain", "cannot be read"),
        ("task = \udcff", "cannot be read"),
    ],
)
def test_settings_that_are_wrong_are_refused(tmp_path, text, message):
    path = tmp_path / "config.toml"
    path.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(RunError, match=message) as caught:
        read_config(path, CONFIGS)
    assert "\n" not in str(caught.value)


def change(path, old, new):
    """Write the settings of a run and change one line of them."""
    write_config(path, "plain", TrainConfig())
    text = path.read_text()
    assert text.count(old) == 1
    path.write_text(text.replace(old, new))


def test_a_setting_out_of_range_is_refused(tmp_path):
    change(tmp_path / "config.toml", "epochs = 30", "epochs = 0")
    with pytest.raises(RunError, match=r"epochs is 0, needed is a number from 1 to below 2\^31"):
        read_config(tmp_path / "config.toml", CONFIGS)


def test_a_setting_that_is_missing_gets_no_default(tmp_path):
    change(tmp_path / "config.toml", "epochs = 30\n", "")
    with pytest.raises(RunError, match="lacks epochs, which plain needs"):
        read_config(tmp_path / "config.toml", CONFIGS)


def test_a_whole_number_is_taken_where_a_fraction_may_stand(tmp_path):
    change(tmp_path / "config.toml", "learning_rate = 0.001", "learning_rate = 1")
    _, config = read_config(tmp_path / "config.toml", CONFIGS)
    assert type(config.learning_rate) is float


@pytest.mark.parametrize(
    "changes",
    [
        {"hidden_size": 0},
        {"num_layers": -1},
        {"dropout": 1.0},
        {"dropout": math.nan},
        {"dropout": 0.1, "num_layers": 1},
        {"learning_rate": 0.0},
        {"learning_rate": math.inf},
        {"batch_size": 0},
        {"eval_batch_size": 0},
        {"epochs": 0},
        {"dev_fraction": 1.0},
        {"seed": -1},
        {"seed": 2**63},
        {"log_every": 0},
        {"threads": -1},
        {"normalize": (0.0, 0.0)},
        {"normalize": (math.nan, 1.0)},
        {"max_shift": -1},
    ],
)
def test_values_out_of_range_are_refused_by_name(changes):
    with pytest.raises(ArgumentError, match=rf"{next(iter(changes))} is .*, needed is"):
        ImageConfig(**changes)


# --- metrics ------------------------------------------------------------------------------------------------


def test_each_metric_is_a_line_at_once(tmp_path):
    path = tmp_path / "metrics.jsonl"
    metrics = [Metric(3, 1, "train", 0.5, 0.75, 1.0), Metric(3, 1, "test", 0.25, 0.5, 0.5)]
    with MetricsLog(path) as log:
        for number, metric in enumerate(metrics, start=1):
            log.write(metric)
            assert len(path.read_text().splitlines()) == number
    with MetricsLog(path) as log:
        log.write(metrics[0])
    assert read_metrics(path) == [*metrics, metrics[0]]
    assert list(json.loads(path.read_text().splitlines()[0])) == [
        "step",
        "epoch",
        "split",
        "loss",
        "accuracy",
        "seconds",
    ]


def test_metrics_are_finite(tmp_path):
    with MetricsLog(tmp_path / "metrics.jsonl") as log, pytest.raises(ValueError, match="not JSON compliant"):
        log.write(Metric(3, 1, "train", math.nan, 0.75, 1.0))


@pytest.mark.parametrize("line", ['{"step": 1', '{"step": 1}', "[]", "3"])
def test_a_line_that_is_no_metric_is_named(tmp_path, line):
    (tmp_path / "metrics.jsonl").write_text(line + "\n")
    with pytest.raises(RunError, match=r"metrics.jsonl, line 1 is no JSON object"):
        read_metrics(tmp_path / "metrics.jsonl")


def test_missing_metrics(tmp_path):
    with pytest.raises(RunError, match="cannot be read"):
        read_metrics(tmp_path / "metrics.jsonl")


def test_curves_are_drawn_and_are_the_same_each_time(tmp_path):
    metrics = [
        Metric(e, e, split, 1 / e, 1 - 1 / (e + 1), 0.1) for e in (1, 2, 3) for split in ("train", "dev", "test")
    ]
    for name in ("a.png", "b.png"):
        draw_curves(tmp_path / name, metrics, best_epoch=2, title="a title")
    with Image.open(tmp_path / "a.png") as image:
        pixels = np.asarray(image.convert("RGB")).reshape(-1, 3)
    assert len(np.unique(pixels, axis=0)) > 50
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


# --- checkpoints --------------------------------------------------------------------------------------------


def test_weights_round_trip_and_same_weights_same_bytes(tmp_path):
    model = nn.LSTM(3, 4, num_layers=2)
    metadata = {"task": "digits", "epoch": "7", "rows": "8"}
    save_weights(tmp_path / "a", model, metadata)
    save_weights(tmp_path / "b", model, dict(reversed(metadata.items())))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]
    tensors, kept = read_weights(tmp_path / "a")
    assert kept == metadata
    other = nn.LSTM(3, 4, num_layers=2)
    fill_weights(other, tensors, tmp_path / "a")
    assert all(one.equal(two) for one, two in zip(model.parameters(), other.parameters(), strict=True))


def test_any_changed_byte_and_any_truncation_is_noticed(tmp_path):
    path = tmp_path / "a"
    save_weights(path, nn.Linear(2, 3), {"epoch": "7"})
    content = path.read_bytes()
    for place in range(len(content)):
        changed = bytearray(content)
        changed[place] ^= 1
        path.write_bytes(changed)
        with pytest.raises(RunError) as caught:
            read_weights(path)
        assert "\n" not in str(caught.value)
        path.write_bytes(content[:place])
        with pytest.raises(RunError):
            read_weights(path)


def test_missing_weights_and_pickles_are_refused(tmp_path):
    with pytest.raises(RunError, match="is missing"):
        read_weights(tmp_path / "a")
    torch.save(nn.Linear(2, 3).state_dict(), tmp_path / "a")
    with pytest.raises(RunError, match="cannot be read as weights"):
        read_weights(tmp_path / "a")
    with pytest.raises(RunError, match="cannot be read as weights"):
        read_weights(tmp_path)


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"weight": torch.zeros(3, 2)}, r"bias is missing, and in the model of config.toml has shape \(3,\)"),
        (
            {"weight": torch.zeros(3, 2), "bias": torch.zeros(2)},
            r"bias has shape \(2,\), and in the model of config.toml has shape \(3,\)",
        ),
        (
            {"weight": torch.zeros(3, 2), "bias": torch.zeros(3), "more": torch.zeros(1)},
            r"more has shape \(1,\), and in the model of config.toml is missing",
        ),
    ],
)
def test_weights_of_another_model_are_refused(tensors, message):
    with pytest.raises(RunError, match=message):
        fill_weights(nn.Linear(2, 3), tensors, Path("a"))


def test_a_write_that_fails_leaves_the_old_weights(tmp_path, monkeypatch):
    path = tmp_path / "a"
    save_weights(path, nn.Linear(2, 3), {"epoch": "1"})
    before = path.read_bytes()

    def stop(descriptor):
        raise KeyboardInterrupt

    monkeypatch.setattr("os.fsync", stop)
    with pytest.raises(KeyboardInterrupt):
        save_weights(path, nn.Linear(2, 3), {"epoch": "2"})
    assert path.read_bytes() == before
    assert [one.name for one in tmp_path.iterdir()] == ["a"]


def test_run_folders(tmp_path):
    run = Run.create(tmp_path / "deep" / "run")
    assert Run.create(run.folder) == run  # still empty
    with pytest.raises(RunError, match=r"is no run folder \(no config.toml\)"):
        Run.open(run.folder)
    run.config.write_text("")
    assert Run.open(run.folder) == run
    with pytest.raises(RunError, match="is not empty, needed is a new folder"):
        Run.create(run.folder)
    with pytest.raises(RunError, match="is a file, needed is a new folder"):
        Run.create(run.config)
