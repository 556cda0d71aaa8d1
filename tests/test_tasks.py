"""The tasks: their recipes, their splits, and what a training leaves behind."""

import dataclasses
import os
import shutil
import signal
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn.functional import cross_entropy

from gatewise.data.idx import write_idx
from gatewise.data.images import load_mnist
from gatewise.errors import ArgumentError, DataError, DivergenceError, RunError
from gatewise.tasks import rows
from gatewise.tasks.augment import random_shift
from gatewise.tasks.digits import DigitsConfig
from gatewise.tasks.mnist import RECIPES, MnistConfig
from gatewise.tasks.rows import RowClassifier
from gatewise.tasks.task import Report, task_of, tasks
from gatewise.train.metrics import correct_by_argmax, read_metrics
from gatewise.train.run import Run
from gatewise.train.runner import Runner
from gatewise.train.samples import Examples
from gatewise.train.tensors import read_tensors
from of_tasks import train

MNIST = Path(os.environ.get("GATEWISE_MNIST", Path(__file__).parents[2] / "shared/data/mnist"))
SMALL = {"hidden_size": 8, "num_layers": 1, "dropout": 0.0, "threads": 1}


@pytest.fixture(scope="session")
def mnist_like(tmp_path_factory):
    """A folder in MNIST's files: 120 and 40 images of 28×28, the label in the place of a bright bar."""
    folder = tmp_path_factory.mktemp("mnist")
    generator = np.random.default_rng(0)
    for name, count in (("train", 120), ("t10k", 40)):
        labels = (np.arange(count) % 10).astype(np.uint8)
        images = generator.integers(0, 60, (count, 28, 28), dtype=np.uint8)
        images[np.arange(count), :, labels * 2] = 255
        write_idx(folder / f"{name}-images-idx3-ubyte.gz", images)
        write_idx(folder / f"{name}-labels-idx1-ubyte", labels)
    return folder


# --- recipes ------------------------------------------------------------------------------------------------


def test_the_recipe_of_mnist():
    config = MnistConfig(data=Path("mnist"))
    assert (config.hidden_size, config.num_layers, config.dropout) == (128, 2, 0.0)
    assert (config.optimizer, config.learning_rate, config.schedule) == ("adam", 1e-3, "constant")
    assert (config.batch_size, config.epochs, config.dev_fraction) == (100, 30, 0.0)
    assert (config.normalize, config.max_shift) == ((0.0, 1.0), 0)
    assert config.data.is_absolute()


def test_the_parameters_of_mnist():
    # Layer 1: 4·128·(28 + 128 + 2), layer 2: 4·128·(128 + 128 + 2), linear: 10·(128 + 1).
    model = RowClassifier(28, 128, 2, 10)
    assert sum(parameter.numel() for parameter in model.parameters()) == 80_896 + 132_096 + 1_290


def test_the_digits_are_divided_once_for_all_by_the_seed():
    sets = tasks()["digits"].splits(DigitsConfig(seed=3))
    assert {name: len(images) for name, images in sets.items()} == {"train": 1259, "dev": 179, "test": 359}
    everything = np.concatenate([images.images.reshape(-1, 64) for images in sets.values()])
    assert len(everything) == 1797
    assert len(np.unique(everything, axis=0)) == len(everything)  # no image is in two splits
    for images in sets.values():
        shares = np.bincount(images.labels) / len(images)
        assert shares.min() > 0.085
        assert shares.max() < 0.115
    other = tasks()["digits"].splits(DigitsConfig(seed=3, dev_fraction=0.0))
    assert "dev" not in other
    np.testing.assert_array_equal(other["test"].images, sets["test"].images)
    np.testing.assert_array_equal(tasks()["digits"].test_set(DigitsConfig(seed=3)).images, sets["test"].images)


def test_mnist_trains_on_everything_unless_told_otherwise(mnist_like):
    sets = tasks()["mnist"].splits(MnistConfig(data=mnist_like))
    assert {name: len(images) for name, images in sets.items()} == {"train": 120, "test": 40}
    sets = tasks()["mnist"].splits(MnistConfig(data=mnist_like, dev_fraction=0.25))
    assert {name: len(images) for name, images in sets.items()} == {"train": 90, "dev": 30, "test": 40}
    with pytest.raises(ArgumentError, match="leaves a part of the 120 samples empty"):
        tasks()["mnist"].splits(MnistConfig(data=mnist_like, dev_fraction=0.001))


def test_mnist_halves_of_different_sizes(tmp_path):
    for name, size in (("train", 28), ("t10k", 20)):
        write_idx(tmp_path / f"{name}-images-idx3-ubyte", np.zeros((10, size, size), np.uint8))
        write_idx(tmp_path / f"{name}-labels-idx1-ubyte", np.arange(10, dtype=np.uint8))
    with pytest.raises(DataError, match="training images have 28×28 pixels, the test images 20×20"):
        tasks()["mnist"].splits(MnistConfig(data=tmp_path))


# --- the model ----------------------------------------------------------------------------------------------


def test_the_model_reads_rows_and_answers_after_the_last():
    model = RowClassifier(5, 4, 2, 3, lstm=nn.LSTM)
    images = torch.randn(2, 7, 5)
    output, (h_n, _) = nn.LSTM.forward(model.lstm, images)
    torch.testing.assert_close(model(images), model.linear(h_n[-1]))
    torch.testing.assert_close(output[:, -1], h_n[-1])


def test_torch_s_own_lstm_can_stand_in():
    """The same loop, the same seed: gatewise's LSTM and torch's reach the same loss."""
    losses = []
    config = DigitsConfig(hidden_size=16, num_layers=1, dropout=0.0, epochs=2, batch_size=50)
    sets = tasks()["digits"].splits(config)
    examples = rows.examples(sets["train"], config)
    for lstm in (rows.LSTM, nn.LSTM):
        torch.manual_seed(0)
        model = RowClassifier(8, 16, 1, 10, lstm=lstm)
        runner = Runner(model, cross_entropy, config)
        runner.train(examples)
        losses.append(runner.history.epoch_losses()[-1])
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


# --- training -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", ["digits", "mnist"])
def test_same_settings_same_bytes(tmp_path, mnist_like, task):
    changes = {"data": mnist_like} if task == "mnist" else {}
    config = tasks()[task].config(epochs=2, **SMALL | {"num_layers": 2, "dropout": 0.1}, **changes)
    for name in ("a", "b"):
        train(config, tmp_path / name)
    for weights in ("best.safetensors", "last.safetensors"):
        assert (tmp_path / "a" / weights).read_bytes() == (tmp_path / "b" / weights).read_bytes()
    train(dataclasses.replace(config, seed=1), tmp_path / "c")
    assert (tmp_path / "a" / "last.safetensors").read_bytes() != (tmp_path / "c" / "last.safetensors").read_bytes()


def test_what_a_run_holds(tmp_path, mnist_like):
    config = MnistConfig(data=mnist_like, epochs=3, batch_size=10, log_every=5, dev_fraction=0.25, **SMALL)
    outcome = train(config, tmp_path / "run")
    run = Run.open(tmp_path / "run")
    assert sorted(path.name for path in run.folder.iterdir()) == [
        ".lock",
        "best.safetensors",
        "checkpoint-000000027.safetensors",
        "config.toml",
        "curves.png",
        "last.safetensors",
        "metrics.jsonl",
    ]
    task, kept = task_of(run)
    assert (task.name, kept) == ("mnist", config)
    lines = [(metric.step, metric.epoch, metric.split) for metric in read_metrics(run.metrics)]
    assert lines[:4] == [(5, round(5 / 9, 6), "train"), (9, 1, "train"), (9, 1, "dev"), (9, 1, "test")]
    assert len(lines) == 12
    _, metadata = read_tensors(run.weights("last"))
    assert (metadata["task"], metadata["epoch"], metadata["rows"], metadata["columns"]) == ("mnist", "3", "28", "28")
    _, metadata = read_tensors(run.weights("best"))
    assert metadata["epoch"] == str(outcome.progress.best.epoch)
    assert outcome.chosen_by == "lowest dev loss"
    with Image.open(run.curves) as image:
        assert image.width > 800


def test_evaluation_repeats_the_score_of_the_training(tmp_path):
    config = DigitsConfig(epochs=3, **SMALL)
    outcome = train(config, tmp_path / "run")
    run = Run.open(tmp_path / "run")
    task, kept = task_of(run)
    score = task.runner().evaluate(task, kept, run, "best")
    needed = outcome.progress.best.scores["test"]
    assert (score["accuracy"], score.samples) == (needed["accuracy"], needed.samples)
    assert score.loss == pytest.approx(needed.loss, rel=1e-6)


@pytest.mark.parametrize(
    ("changes", "chosen_by"),
    [
        ({}, "lowest dev loss"),
        ({"best_by": "accuracy"}, "highest dev accuracy"),
        ({"dev_fraction": 0.0}, "lowest training loss"),
        ({"dev_fraction": 0.0, "best_by": "accuracy"}, "highest training accuracy"),
    ],
)
def test_the_outcome_says_what_chose_the_best(tmp_path, changes, chosen_by):
    outcome = train(DigitsConfig(epochs=1, **SMALL | changes), tmp_path / "run")
    assert (outcome.chosen_by, outcome.signal) == (chosen_by, 0)


def test_what_a_shift_lets_in_is_background(tmp_path, monkeypatch):
    seen = set()

    def note(images, most, background, generator):
        seen.add((most, background))
        return random_shift(images, most, background, generator)

    monkeypatch.setattr(rows, "random_shift", note)
    config = DigitsConfig(epochs=1, normalize=(0.5, 0.25), max_shift=2, **SMALL)
    train(config, tmp_path / "shifted")
    assert seen == {(2, -2.0)}  # a pixel of 0, normalized
    seen.clear()
    train(dataclasses.replace(config, max_shift=0), tmp_path / "still")
    assert seen == set()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_training_which_goes_on_later(tmp_path, number):
    class Impatient(Report):
        def step(self, runner):
            if runner.progress.step == 90:
                signal.raise_signal(number)

    config = DigitsConfig(epochs=3, **SMALL)
    outcome = train(config, tmp_path / "stopped", Impatient())
    assert (outcome.signal, outcome.progress.step, outcome.progress.epoch) == (number, 90, 2)
    assert not outcome.progress.ended
    assert (tmp_path / "stopped" / "curves.png").exists()
    outcome = train(config, tmp_path / "stopped", Report(), resume=True)
    assert (outcome.signal, outcome.progress.ended) == (0, True)
    train(config, tmp_path / "whole")
    for name in ("last.safetensors", "best.safetensors"):
        assert (tmp_path / "stopped" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_a_signal_s_old_meaning_comes_back(tmp_path):
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    train(DigitsConfig(epochs=1, **SMALL), tmp_path / "run")
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_a_second_ctrl_c_interrupts_at_once(tmp_path):
    class Insists(Report):
        def step(self, runner):
            signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGTERM)  # no more than one
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train(DigitsConfig(epochs=1, **SMALL), tmp_path / "run", Insists())


def test_a_training_outside_the_main_thread_hears_no_signals(tmp_path):
    outcomes = []
    config = DigitsConfig(epochs=1, **SMALL)
    thread = threading.Thread(target=lambda: outcomes.append(train(config, tmp_path / "run")))
    thread.start()
    thread.join()
    assert outcomes[0].progress.ended


def test_other_data_are_not_trained_on(tmp_path, mnist_like):
    class Stops(Report):
        def step(self, runner):
            runner.stop()

    folder = tmp_path / "mnist"
    shutil.copytree(mnist_like, folder)
    config = MnistConfig(data=folder, epochs=1, **SMALL)
    train(config, tmp_path / "run", Stops())
    write_idx(folder / "train-labels-idx1-ubyte", (np.arange(120) % 9).astype(np.uint8))
    with pytest.raises(RunError, match="is of other data than are there now: restore the data"):
        train(config, tmp_path / "run", resume=True)


def test_what_is_not_finite_leaves_the_weights_before_the_step(tmp_path):
    config = DigitsConfig(epochs=2, optimizer="sgd", learning_rate=1e38, **SMALL)
    with pytest.raises(DivergenceError, match=r"at step \d+ \(batch \d+, samples [\d, ]+ and 27 more\)"):
        train(config, tmp_path / "run")
    tensors, metadata = read_tensors(tmp_path / "run" / "last.safetensors")
    assert all(tensor.isfinite().all() for tensor in tensors.values())
    assert metadata["step"] != "0"


def test_bad_data_leave_no_folder(tmp_path):
    with pytest.raises(DataError):
        train(MnistConfig(data=tmp_path / "nowhere"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_older_recipe(tmp_path, mnist_like):
    config = MnistConfig(data=mnist_like, **RECIPES["sgd"])
    assert (config.hidden_size, config.num_layers, config.optimizer, config.learning_rate) == (100, 2, "sgd", 0.01)
    assert (config.batch_size, config.eval_batch_size, config.epochs) == (64, 50, 20)
    assert (config.normalize, config.seed, config.schedule) == ((0.1307, 0.3081), 0, "constant")
    outcome = train(dataclasses.replace(config, epochs=1), tmp_path / "run")
    assert outcome.progress.best.scores["test"].loss == pytest.approx(2.3, abs=0.1)


def test_the_fast_recipe_trains_the_same_model(mnist_like):
    config = MnistConfig(data=mnist_like, **RECIPES["fast"])
    assert (config.hidden_size, config.num_layers, config.read) == (128, 2, "rows")
    torch.manual_seed(0)
    lstm = rows.problem(tasks()["mnist"], config).model.lstm
    recurrent = lstm.weight_hh_l1[256:384]
    torch.testing.assert_close(recurrent @ recurrent.T, torch.eye(128), rtol=0, atol=1e-5)
    assert torch.equal(lstm.bias_ih_l0, torch.cat([torch.zeros(128), torch.ones(128), torch.zeros(256)]))


def test_a_model_that_does_not_fit_into_memory(tmp_path):
    with pytest.raises(ArgumentError, match="hidden_size is 1000000000, needed is a model that fits into memory"):
        train(DigitsConfig(**SMALL | {"hidden_size": 10**9}), tmp_path / "run")


# --- afterwards ---------------------------------------------------------------------------------------------


def test_predict_reads_an_image_as_the_training_did(tmp_path):
    config = DigitsConfig(epochs=2, **SMALL)
    train(config, tmp_path / "run")
    run = Run.open(tmp_path / "run")
    test = tasks()["digits"].test_set(config)
    sixteen_bits = np.round(test.pixels()[0] * 65535).astype(np.uint16)
    Image.fromarray(sixteen_bits).save(tmp_path / "a.png")
    prediction = rows.predict(config, run, "best", str(tmp_path / "a.png"))
    shades = rows.SHADES
    drawn = [
        [(shades.index(line[place]) / (len(shades) - 1)) for place in range(0, 16, 2)]
        for line in (line.ljust(16) for line in prediction.shown)
    ]
    np.testing.assert_allclose(drawn, test.pixels()[0], atol=0.5 / (len(shades) - 1) + 1e-5)
    assert sum(prediction.scores) == pytest.approx(1.0)
    assert prediction.label == int(np.argmax(prediction.scores))
    model, form, _ = rows._load(config, run.weights("best"))
    assert (form.rows, form.columns) == (8, 8)
    with torch.no_grad():
        needed = model(rows.examples(test, config).inputs[:1]).softmax(1)[0]
    torch.testing.assert_close(torch.tensor(prediction.scores), needed, atol=1e-4, rtol=0)


def test_data_of_another_size_are_refused(tmp_path, mnist_like):
    config = MnistConfig(data=mnist_like, epochs=1, **SMALL)
    train(config, tmp_path / "run")
    write_idx(tmp_path / "t10k-images-idx3-ubyte", np.zeros((4, 20, 28), np.uint8))
    write_idx(tmp_path / "t10k-labels-idx1-ubyte", np.zeros(4, np.uint8))
    task = tasks()["mnist"]
    moved = task.with_data(config, tmp_path)
    with pytest.raises(DataError, match=r"20×28 pixels \(rows × columns\), needed are 28×28"):
        task.runner().evaluate(task, moved, Run.open(tmp_path / "run"), "best")


def test_weights_that_do_not_belong_to_the_settings(tmp_path):
    config = DigitsConfig(epochs=1, **SMALL)
    train(config, tmp_path / "run")
    other = dataclasses.replace(config, hidden_size=9)
    with pytest.raises(
        RunError, match=r"linear.weight has shape \(10, 8\), needed is shape \(10, 9\): take the model's own"
    ):
        rows._load(other, tmp_path / "run" / "best.safetensors")


def test_the_digits_take_no_other_data():
    with pytest.raises(ArgumentError, match="come with gatewise: leave it out"):
        tasks()["digits"].with_data(DigitsConfig(), Path("elsewhere"))


def test_the_digits_are_learned(tmp_path):
    """A short form of the recipe: far above chance, on images never seen."""
    outcome = train(DigitsConfig(num_layers=1, dropout=0.0, epochs=12, threads=1), tmp_path / "run")
    assert outcome.progress.best.scores["test"]["accuracy"] > 0.9


@pytest.mark.skipif(not MNIST.is_dir(), reason=f"MNIST is not at {MNIST} (GATEWISE_MNIST names another folder)")
def test_mnist_is_learned(tmp_path):
    """A twentieth of an epoch of the recipe's: far above chance on images never seen."""
    config = MnistConfig(data=MNIST, learning_rate=3e-3, epochs=1, batch_size=50)
    images = load_mnist(MNIST, "train").take(np.arange(6000))
    held_out = load_mnist(MNIST, "test").take(np.arange(1000))
    torch.manual_seed(0)
    model = RowClassifier(28, 64, 1, 10)
    runner = Runner(model, cross_entropy, config, measures={"accuracy": correct_by_argmax})
    runner.train(rows.examples(images, config), {"test": rows.examples(held_out, config)})
    ((_, score),) = runner.history.scores("test")
    assert score["accuracy"] > 0.6


def test_examples_are_normalized_floats():
    config = DigitsConfig(normalize=(0.5, 0.25))
    examples = rows.examples(tasks()["digits"].test_set(config), config)
    assert isinstance(examples, Examples)
    assert (examples.inputs.dtype, examples.targets.dtype) == (torch.float32, torch.int64)
    assert (examples.inputs.min().item(), examples.inputs.max().item()) == (-2.0, 2.0)


def test_settings_that_have_nothing_to_choose_by_leave_no_folder(tmp_path):
    config = DigitsConfig(epochs=1, **SMALL | {"dev_fraction": 0.0, "patience": 1})
    with pytest.raises(ArgumentError, match="patience is 1 and there is no dev split"):
        train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()
