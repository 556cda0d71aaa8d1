"""What is measured, metrics.jsonl and the figure of it."""

import json
import math

import numpy as np
import pytest
import torch
from PIL import Image

from gatewise.errors import RunError
from gatewise.train import curves
from gatewise.train.curves import draw_curves
from gatewise.train.metrics import (
    Metric,
    MetricsLog,
    correct_by_argmax,
    correct_by_logit,
    correct_by_probability,
    read_metrics,
)
from training import some_examples, trained

# --- accuracy -----------------------------------------------------------------------------------------------


def test_accuracy_of_many_classes_is_by_the_highest_score():
    outputs = torch.tensor([[-3.0, -1.0, -2.0], [0.2, 0.3, 0.5], [1.0, 1.0, 0.0]])
    assert correct_by_argmax(outputs, torch.tensor([1, 2, 0])).item() == 3
    assert correct_by_argmax(outputs, torch.tensor([0, 2, 1])).item() == 1


@pytest.mark.parametrize("shape", [(5,), (5, 1)])
@pytest.mark.parametrize("kind", [torch.float32, torch.int64, torch.bool])
def test_accuracy_of_two_classes_is_by_the_side_of_the_threshold(shape, kind):
    """On the threshold itself it is class 1."""
    targets = torch.tensor([0, 1, 1, 0, 1]).reshape(shape).to(kind)
    logits = torch.tensor([-2.0, -1e-9, 0.0, 1e-9, 3.0]).reshape(shape)
    assert correct_by_logit(logits, targets).item() == 3
    probabilities = torch.tensor([0.1, 0.499, 0.5, 0.501, 0.9]).reshape(shape)
    assert correct_by_probability(probabilities, targets).item() == 3


def test_one_output_and_a_column_of_targets_do_not_spread_over_each_other():
    """(B, 1) against (B,) is B comparisons, not B × B."""
    assert correct_by_logit(torch.ones(6, 1), torch.ones(6)).item() == 6
    assert correct_by_logit(torch.ones(6), torch.ones(6, 1)).item() == 6


# --- metrics.jsonl ------------------------------------------------------------------------------------------

METRICS = [
    Metric(3, 0.5, "train", 0.5, 1.0, {"accuracy": 0.75}, gradient_norm=0.125),
    Metric(6, 1.0, "test", 0.25, 0.5, {"accuracy": 0.5, "other": 2.0}),
    Metric(6, 1.0, "dev", 0.1, 0.5),
]


def test_each_metric_is_a_line_at_once(tmp_path):
    path = tmp_path / "metrics.jsonl"
    with MetricsLog(path) as log:
        for number, metric in enumerate(METRICS, start=1):
            log.write(metric)
            assert len(path.read_text().splitlines()) == number
            assert log.sync() == path.stat().st_size
    with MetricsLog(path) as log:
        log.write(METRICS[0])
    assert read_metrics(path) == [*METRICS, METRICS[0]]
    assert [list(json.loads(line)) for line in path.read_text().splitlines()[:2]] == [
        ["step", "epoch", "split", "loss", "accuracy", "gradient_norm", "seconds"],
        ["step", "epoch", "split", "loss", "accuracy", "other", "seconds"],
    ]


def test_a_metric_is_read_by_name():
    assert (METRICS[0]["loss"], METRICS[0]["accuracy"]) == (0.5, 0.75)
    with pytest.raises(KeyError):
        METRICS[2]["accuracy"]
    score = trained(others={"dev": some_examples(5)}).history.evaluations[0].scores["dev"]
    assert (score["loss"], score["accuracy"]) == (score.loss, score.measures["accuracy"])


def test_metrics_are_finite(tmp_path):
    with MetricsLog(tmp_path / "metrics.jsonl") as log, pytest.raises(ValueError, match="not JSON compliant"):
        log.write(Metric(3, 1, "train", math.nan, 0.75))


@pytest.mark.parametrize(
    "line", ['{"step": 1', '{"step": 1}', "[]", "3", '{"step":1,"epoch":1,"split":"a","loss":1,"seconds":1,"x":[]}']
)
def test_a_line_that_is_no_metric_is_named(tmp_path, line):
    good = json.dumps(METRICS[0].to_json())
    (tmp_path / "metrics.jsonl").write_text(f"{good}\n{line}\n")
    with pytest.raises(RunError, match=r"metrics.jsonl, line 2 is no JSON object of step, epoch, split, loss, seconds"):
        read_metrics(tmp_path / "metrics.jsonl")


def test_missing_metrics(tmp_path):
    with pytest.raises(RunError, match="cannot be read"):
        read_metrics(tmp_path / "metrics.jsonl")
    (tmp_path / "metrics.jsonl").write_bytes(b"\xff")
    with pytest.raises(RunError, match="cannot be read"):
        read_metrics(tmp_path / "metrics.jsonl")


# --- the figure ---------------------------------------------------------------------------------------------


def some_curves(epochs=3):
    splits = ("train", "dev", "test")
    return [Metric(e, e, s, 1 / e, 0.1, {"accuracy": 1 - 1 / (e + 1)}) for e in range(1, epochs + 1) for s in splits]


def test_curves_are_drawn_and_are_the_same_each_time(tmp_path):
    for name in ("a.png", "b.png"):
        draw_curves(tmp_path / name, some_curves(), best_epoch=2, title="a title")
    with Image.open(tmp_path / "a.png") as image:
        pixels = np.asarray(image.convert("RGB")).reshape(-1, 3)
    assert len(np.unique(pixels, axis=0)) > 50
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_a_figure_that_cannot_be_written_leaves_the_old_one(tmp_path, monkeypatch):
    path = tmp_path / "curves.png"
    draw_curves(path, some_curves(), best_epoch=2, title="a title")
    before = path.read_bytes()
    monkeypatch.setattr("os.fsync", lambda descriptor: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space left"):
        draw_curves(path, some_curves(4), best_epoch=2, title="another")
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_of_training_only_whole_epochs_are_drawn_if_there_are_any():
    """Their means begin anew with each epoch; the others' are drawn wherever they were taken."""
    metrics = [Metric(n, n / 2, split, n, 0.1) for n in range(1, 5) for split in ("train", "dev")]
    assert curves._values(metrics, "train", "loss") == {1.0: 2, 2.0: 4}
    assert curves._values(metrics, "dev", "loss") == {0.5: 1, 1.0: 2, 1.5: 3, 2.0: 4}
    assert curves._values(metrics[:2], "train", "loss") == {0.5: 1}
    assert curves._values(metrics, "test", "loss") == {}


@pytest.mark.parametrize("value", ["NaN", "Infinity"])
def test_a_line_with_what_is_no_number_is_refused(tmp_path, value):
    path = tmp_path / "metrics.jsonl"
    path.write_text(f'{{"step": 1, "epoch": 1.0, "split": "dev", "loss": {value}, "seconds": 1.0}}\n')
    with pytest.raises(RunError, match=r"metrics.jsonl, line 1 is no JSON object of step"):
        read_metrics(path)


def test_a_loss_of_zero_is_drawn_without_a_warning(tmp_path):
    path = tmp_path / "curves.png"
    draw_curves(path, [Metric(1, 1.0, "train", 0.0, 1.0), Metric(2, 2.0, "train", 0.0, 1.0)], 1.0, title="the same")
    assert path.read_bytes()[1:4] == b"PNG"
