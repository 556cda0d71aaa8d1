"""The metrics for TensorBoard, as TensorBoard's own reader reads them."""

import itertools
import os
import sys

import pytest
import torch
from torch import nn

from gatewise.cli import main
from gatewise.train import keeper, tensorboard
from gatewise.train.keeper import train_in
from gatewise.train.metrics import read_metrics
from gatewise.train.run import Run
from gatewise.train.tensorboard import TensorBoard
from training import Hears, a_runner, some_examples

event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
event_file_writer = pytest.importorskip("tensorboard.summary.writer.event_file_writer")


def points(folder):
    """All points of a folder, by split and tag: lists of (step, value)."""
    found = {}
    for split in sorted(path for path in folder.iterdir()):
        reader = event_accumulator.EventAccumulator(str(split), size_guidance={"scalars": 0})
        reader.Reload()
        for tag in reader.Tags()["scalars"]:
            found[split.name, tag] = [(event.step, event.value) for event in reader.Scalars(tag)]
    return found


class Killed(Exception):
    """Stands for a kill: nothing more is written."""


def go(folder, *, resume=False, die_at=None, **changes):
    """Train for three epochs of three steps, with a checkpoint after each step; or be killed after one of them."""
    torch.manual_seed(0)
    runner = a_runner(nn.Linear(4, 2), **{"epochs": 3, "log_every": 1, "checkpoint_seconds": 0} | changes)
    others = {"dev": some_examples(9, seed=1)}
    seen = itertools.count(1)

    def die(*heard):
        if next(seen) == die_at:
            raise Killed

    folder.mkdir(exist_ok=True)
    with TensorBoard(folder / "tensorboard") as board:
        train_in(
            Run(folder),
            runner,
            some_examples(),
            others,
            about={"task": "none"},
            title="",
            resume=resume,
            callbacks=[board, Hears(die, die)],
            say=lambda line: None,
        )


class Clock:
    """Time that passes only where it is waited for."""

    def __init__(self):
        self.now = 1_800_000_000.25

    def time(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Drawing, waiting and the disk take longer than these trainings."""
    monkeypatch.setattr(os, "fsync", lambda file: None)
    monkeypatch.setattr(keeper, "draw_curves", lambda *args, **kwargs: None)
    clock = Clock()
    monkeypatch.setattr(tensorboard, "time", clock)
    monkeypatch.setattr(event_file_writer, "time", clock)


def test_the_points_are_those_of_the_metrics(tmp_path):
    go(tmp_path, log_every=2, schedule="cosine")
    found = points(tmp_path / "tensorboard")
    assert sorted(found) == [
        ("dev", "accuracy"),
        ("dev", "loss"),
        *(("train", name) for name in ("accuracy", "gradient_norm", "learning_rate", "loss")),
    ]
    metrics = read_metrics(tmp_path / "metrics.jsonl")
    for (split, tag), values in found.items():
        if tag != "learning_rate":
            lines = [metric for metric in metrics if metric.split == split]
            expected = [(m.step, m.gradient_norm if tag == "gradient_norm" else m[tag]) for m in lines]
            assert values == [(step, pytest.approx(value)) for step, value in expected]
    rates = found["train", "learning_rate"]
    assert [step for step, _ in rates] == [2, 3, 5, 6, 8, 9]
    assert all(later[1] < earlier[1] for earlier, later in itertools.pairwise(rates))


@pytest.mark.parametrize("changes", [{}, {"dev_every": 3}, {"dev_every": 2}, {"log_every": 2}], ids=str)
def test_no_point_is_lost_or_doubled_by_a_resumption(tmp_path, changes):
    """Killed after each thing that is heard, before or after the checkpoint that it leads to."""
    go(tmp_path / "whole", **changes)
    whole = points(tmp_path / "whole/tensorboard")
    assert len(whole) == 6
    for die_at in (1, 3, 4, 5, 9):
        folder = tmp_path / str(die_at)
        with pytest.raises(Killed):
            go(folder, die_at=die_at, **changes)
        go(folder, resume=True, **changes)
        assert points(folder / "tensorboard") == whole


def test_twice_killed(tmp_path):
    go(tmp_path / "whole")
    for die_at, resume in ((8, False), (3, True)):
        with pytest.raises(Killed):
            go(tmp_path / "killed", die_at=die_at, resume=resume)
    go(tmp_path / "killed", resume=True)
    assert points(tmp_path / "killed/tensorboard") == points(tmp_path / "whole/tensorboard")


def test_from_the_command_line(tmp_path, capsys):
    small = ["--epochs", "1", "--hidden-size", "4", "--num-layers", "1", "--dropout", "0", "--threads", "1"]
    assert main(["train", "digits", "--run", str(tmp_path / "run"), "--tensorboard", *small]) == 0
    found = points(tmp_path / "run/tensorboard")
    assert {split for split, _ in found} == {"train", "dev", "test"}
    assert main(["train", "digits", "--run", str(tmp_path / "plain"), *small]) == 0
    assert not (tmp_path / "plain/tensorboard").exists()


def test_refused_where_the_package_is_missing(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    assert main(["train", "digits", "--run", str(tmp_path / "run"), "--tensorboard"]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert "pip install 'gatewise[tensorboard]'" in err
    assert not (tmp_path / "run").exists()
