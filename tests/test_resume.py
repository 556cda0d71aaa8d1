"""A training that is interrupted, however and whenever, and resumed ends with the same bytes."""

import contextlib
import errno
import itertools
import json
import multiprocessing
import os
import random
import re
import resource
import shutil
import signal
import sys
import time

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from gatewise.cli import main
from gatewise.errors import RunError
from gatewise.train import keeper
from gatewise.train.keeper import train_in
from gatewise.train.run import Run
from gatewise.train.tensors import read_tensors
from training import Hears, a_runner, some_examples

# --- in this process ----------------------------------------------------------------------------------------

# Steps an epoch: 3 of 10, 10 and 3 samples, or with accumulation 2, the last of a batch alone.
VARIANTS = {
    "sgd": {},
    "adam, cosine": {"optimizer": "adam", "schedule": "cosine", "clip_norm": 0.3},
    "one-cycle, accumulated": {"optimizer": "adam", "schedule": "one-cycle", "accumulate": 2},
    "looks within epochs": {"dev_every": 2, "best_by": "accuracy", "schedule": "cosine"},
    "early stopping": {"dev_every": 1, "patience": 3, "learning_rate": 3.0},
    "bfloat16": {"precision": "bfloat16", "optimizer": "adam", "batch_size": 4},
    "skips": {"nonfinite": "skip", "optimizer": "adam"},
}


@pytest.fixture(autouse=True)
def no_figure(request, monkeypatch):
    """Drawing takes longer than these trainings, and is tested elsewhere."""
    monkeypatch.setattr(keeper, "draw_curves", lambda *args, **kwargs: None)


def augment(inputs, generator):
    return inputs + 0.1 * torch.randn(inputs.shape, generator=generator)


def spoil(inputs, generator):
    """Now and then a batch is no number."""
    return augment(inputs, generator) * (torch.nan if torch.rand(1, generator=generator) < 0.2 else 1.0)


def disturb(runner, *heard):
    """Change a weight by what all the generators draw."""
    drawn = random.gauss(0, 1) + np.random.normal() + torch.randn(()).item()  # noqa: NPY002
    with torch.no_grad():
        runner.model[0].bias.add_(1e-2 * drawn)


class Steps:
    """A clock that a step moves on by one."""

    def __init__(self):
        self.now = 0.0

    def monotonic(self):
        return self.now

    def step(self, runner):
        self.now += 1


def go(folder, variant, *, resume=False, step=None, evaluation=None, every=0, train=None):
    """Train in a folder with a checkpoint every so many steps, from generators that begin elsewhere if resumed."""
    seed = 77 if resume and Run(folder).checkpoints() else 3
    for plant in (random.seed, np.random.seed, torch.manual_seed):
        plant(seed)
    model = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Dropout(0.4), nn.Linear(6, 2))
    config = {"epochs": 4, "log_every": 2, "checkpoint_seconds": every} | VARIANTS[variant]
    runner = a_runner(model, augment=spoil if variant == "skips" else augment, **config)
    folder.mkdir(exist_ok=True)
    callbacks = [Hears(disturb, disturb), Hears(step, evaluation)]
    others = {"dev": some_examples(9, seed=1), "test": some_examples(7, seed=2)}
    said = []
    about = {"task": "none"}
    train = train or some_examples()
    train_in(
        Run(folder), runner, train, others, about=about, title="", resume=resume, callbacks=callbacks, say=said.append
    )
    return runner, said


def kept(folder):
    """All that a training leaves, apart from how long it took."""
    run = Run(folder)
    lines = [json.loads(line) for line in run.metrics.read_text().splitlines()]
    for line in lines:
        del line["seconds"]
    tensors, metadata = read_tensors(run.checkpoints()[0])
    progress = json.loads(metadata["kept"])["runner"]["progress"]
    nobodys = ("random.numpy", "random.python") if "model.lstm.weight_ih_l0" in tensors else ()  # the tasks draw none
    state = {name: tensor.tolist() for name, tensor in tensors.items() if not name.startswith(nobodys)}
    weights = {which: run.weights(which).read_bytes() for which in ("best", "last")}
    counts = {name: progress[name] for name in ("epoch", "batch", "step", "skipped", "since_best", "ended")}
    return {"lines": lines, "state": state, "counts": counts, **weights}


def stop_at(*steps):
    return lambda runner: runner.stop() if runner.progress.step in steps else None


@pytest.mark.parametrize("variant", VARIANTS)
def test_killed_after_any_step(tmp_path, monkeypatch, variant):
    """What lies on the disk after each step is what a kill leaves: with lines younger than the last checkpoint."""
    clock = Steps()
    monkeypatch.setattr(keeper, "time", clock)

    def leave(runner):
        clock.step(runner)
        shutil.copytree(tmp_path / "whole", tmp_path / str(runner.progress.step))

    runner, _ = go(tmp_path / "whole", variant, step=leave, every=3)
    steps = runner.progress.step
    needed = kept(tmp_path / "whole")
    assert variant != "skips" or runner.progress.skipped > 0
    assert variant != "early stopping" or runner.progress.epoch < 4
    assert {key for line in needed["lines"] for key in line} >= {"accuracy", "gradient_norm"}
    for step in range(1, steps + 1):
        folder = tmp_path / str(step)
        _, (said,) = go(folder, variant, resume=True, step=clock.step, every=3)
        newest = (step - 1) // 3 * 3
        at = f"resumed checkpoint-{newest:09}.safetensors: step {newest}, epoch {epoch_of(runner, newest)}"
        assert said == (at if newest else "no checkpoint yet: from the start")
        assert kept(folder) == needed


def epoch_of(runner, step):
    """The epoch, from 1, that a checkpoint of a step is in: one at its last step comes before its evaluation."""
    return max(0, step - 1) // runner.steps_an_epoch + 1


@pytest.mark.parametrize("variant", VARIANTS)
def test_stopped_after_every_step(tmp_path, variant):
    """One process a step."""
    go(tmp_path / "whole", variant)
    folder = tmp_path / "stopped"
    runner, _ = go(folder, variant, step=lambda runner: runner.stop(), every=999)
    starts = 1
    while not runner.progress.ended:
        assert runner.progress.step == starts
        runner, _ = go(folder, variant, resume=True, step=lambda runner: runner.stop(), every=999)
        starts += 1
    assert starts > 3
    assert kept(folder) == kept(tmp_path / "whole")


@pytest.fixture(scope="module")
def wholes(tmp_path_factory):
    """What each variant leaves uninterrupted."""
    found = {}

    def whole(variant):
        if variant not in found:
            folder = tmp_path_factory.mktemp("whole")
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(keeper, "draw_curves", lambda *args, **kwargs: None)
                go(folder, variant)
            found[variant] = kept(folder)
        return found[variant]

    return whole


class KilledError(Exception):
    """Stands for a kill: nothing more is written."""


@settings(max_examples=30, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    variant=st.sampled_from(list(VARIANTS)),
    interruptions=st.lists(
        st.tuples(st.sampled_from(["stop", "stop evaluating", "kill"]), st.integers(1, 12)), max_size=5
    ),
    every=st.sampled_from([0, 999]),
)
def test_interrupted_in_any_way_and_more_than_once(tmp_path_factory, wholes, variant, interruptions, every):
    folder = tmp_path_factory.mktemp("run")
    resume = False
    for how, step in interruptions:

        def interrupt(runner, *heard, how=how, step=step):
            if runner.progress.step >= step:
                if how == "kill":
                    raise KilledError
                runner.stop()

        on_step, on_evaluation = (None, interrupt) if how == "stop evaluating" else (interrupt, None)
        with contextlib.suppress(KilledError):
            go(folder, variant, resume=resume, step=on_step, evaluation=on_evaluation, every=every)
        resume = True
    runner, _ = go(folder, variant, resume=resume, every=every)
    assert runner.progress.ended
    assert kept(folder) == wholes(variant)


def test_resuming_what_has_ended_says_so_and_changes_nothing(tmp_path):
    go(tmp_path, "early stopping")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    _, said = go(tmp_path, "early stopping", resume=True, step=pytest.fail, evaluation=pytest.fail)
    newest = Run(tmp_path).checkpoints()[0].name
    assert said == [f"resumed {newest}: the training has ended, nothing is left to do"]
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_changed_data_are_refused(tmp_path):
    go(tmp_path, "sgd", step=stop_at(4))
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(
        RunError, match=r"checkpoint-000000004.safetensors is of other data than are there now: restore"
    ):
        go(tmp_path, "sgd", resume=True, train=some_examples(23, seed=5))
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_metrics_shorter_than_the_checkpoint_knows_are_refused(tmp_path):
    go(tmp_path, "sgd", step=stop_at(5))
    metrics = Run(tmp_path).metrics
    metrics.write_bytes(metrics.read_bytes()[:-1])
    with pytest.raises(RunError, match=r"metrics.jsonl has \d+ bytes, the checkpoint knows of \d+: restore the file"):
        go(tmp_path, "sgd", resume=True)


def test_a_damaged_checkpoint_costs_the_steps_since_the_one_before(tmp_path):
    go(tmp_path / "whole", "sgd")
    folder = tmp_path / "run"
    go(folder, "sgd", step=stop_at(7))
    newest, before = Run(folder).checkpoints()
    newest.write_bytes(newest.read_bytes()[:-9])
    _, (damaged, resumed) = go(folder, "sgd", resume=True)
    assert newest.name in damaged
    assert damaged.endswith(f"going on from the one before, {before.name}")
    assert resumed == "resumed checkpoint-000000006.safetensors: step 6, epoch 2"
    assert kept(folder) == kept(tmp_path / "whole")


# --- through the command line -------------------------------------------------------------------------------

WORDS = ["--epochs", "3", "--batch-size", "100", "--hidden-size", "8", "--threads", "1", "--log-every", "5"]


def typed(words, out, limit):
    """In a process of its own: the command line, with what it prints in a file and files of so many bytes at most."""
    for number in (1, 2):
        os.dup2(os.open(out, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    if limit:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    sys.exit(main(words))


class Process:
    """The command line in a process that begins with torch already there."""

    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["pytest", "gatewise.cli", "gatewise.tasks.rows", "matplotlib.figure", "test_resume"]
    )

    def __init__(self, out, *words, limit=0):
        self.out = out
        self.process = self.context.Process(target=typed, args=([str(word) for word in words], str(out), limit))
        self.process.start()

    def ended(self):
        """The exit status, or minus a signal's number, and what was printed."""
        self.process.join(60)
        status = self.process.exitcode
        assert status is not None, "it did not end"
        self.process.close()
        return status, self.out.read_text()

    def send(self, number):
        os.kill(self.process.pid, number)

    def wait_for_step(self, folder, step):
        """Until a checkpoint is there of a step or a later one, or it has ended."""
        deadline = time.monotonic() + 60
        while self.process.is_alive() and not any(
            int(path.stem.partition("-")[2]) >= step for path in folder.glob("checkpoint-*.safetensors")
        ):
            assert time.monotonic() < deadline
            time.sleep(0.002)


def digits(folder, seconds=0):
    return ["train", "digits", "--run", str(folder), *WORDS, "--checkpoint-seconds", str(seconds)]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An uninterrupted run of the digits: three epochs of 13 steps."""
    folder = tmp_path_factory.mktemp("digits") / "whole"
    assert main(digits(folder)) == 0
    return kept(folder)


def test_kill_9_at_any_instant(tmp_path, whole):
    """Wherever in a step or in a write it falls, three times in one training."""
    chance = random.Random(0)
    folder, out = tmp_path / "run", tmp_path / "out"
    words = digits(folder)
    for step in sorted(chance.sample(range(1, 36), 3)):
        process = Process(out, *words)
        process.wait_for_step(folder, step)
        time.sleep(0.02 * chance.random())
        process.send(signal.SIGKILL)
        status, _ = process.ended()
        assert status in (-signal.SIGKILL, 0)
        words = ["resume", folder]
    status, said = Process(out, *words).ended()
    assert (status, "rror" in said) == (0, False), said
    assert re.search(r"^resumed checkpoint-0000000\d\d.safetensors: ", said, flags=re.MULTILINE)
    assert not list(folder.glob(".*.part"))
    assert kept(folder) == whole


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_sigterm_and_sigint_write_a_checkpoint_first(tmp_path, whole, number, status):
    """Without them there would be none for a long time."""
    folder, out = tmp_path / "run", tmp_path / "out"
    process = Process(out, *digits(folder, 3600))
    deadline = time.monotonic() + 60
    while not ((folder / "metrics.jsonl").exists() and (folder / "metrics.jsonl").read_text().count("\n") >= 3):
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.send(number)
    found, said = process.ended()
    assert found == status, said
    (checkpoint,) = Run(folder).checkpoints()
    step = int(checkpoint.stem.partition("-")[2])
    name = signal.Signals(number).name
    assert said.splitlines()[-2:] == [
        f"stopped by {name} after step {step}, {step // 13} whole epochs of 3",
        f"next    gatewise resume {folder}",
    ]
    assert "rror" not in said
    assert main(["resume", str(folder)]) == 0
    assert kept(folder) == whole


def test_killed_before_the_first_checkpoint(tmp_path, whole, capsys):
    folder, out = tmp_path / "run", tmp_path / "out"
    process = Process(out, *digits(folder, 3600))
    deadline = time.monotonic() + 60
    while not (folder / "config.toml").exists():
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.send(signal.SIGKILL)
    assert process.ended()[0] == -signal.SIGKILL
    assert main(["resume", str(folder)]) == 0
    assert "\nno checkpoint yet: from the start\n" in capsys.readouterr().out
    assert kept(folder) == whole


def test_a_run_that_has_ended_is_not_changed(tmp_path, capsys):
    folder = tmp_path / "run"
    assert main([*digits(folder), "--epochs", "1"]) == 0
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    capsys.readouterr()
    assert main(["resume", str(folder)]) == 0
    said = capsys.readouterr().out
    assert "\nresumed checkpoint-000000013.safetensors: the training has ended, nothing is left to do\n" in said
    assert said.splitlines()[-2] == f"next    gatewise evaluate {folder}"
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def refused(capsys, *words):
    """The one line on stderr of a command that ends with status 2."""
    capsys.readouterr()
    assert main([str(word) for word in words]) == 2
    err = capsys.readouterr().err
    assert err.startswith("gatewise: error: ")
    assert err.count("\n") == 1
    return err


def test_a_second_process_on_the_same_run_is_refused(tmp_path, capsys):
    folder, out = tmp_path / "run", tmp_path / "out"
    process = Process(out, *digits(folder), "--epochs", "100000")
    process.wait_for_step(folder, 1)
    err = refused(capsys, "resume", folder)
    assert "run is being written by another process: wait for it, or stop it with Ctrl-C" in err
    process.send(signal.SIGTERM)
    assert process.ended()[0] == 143


@pytest.mark.parametrize("at", [1, 3, 5, *range(97, 103)])
def test_a_full_disk_leaves_the_older_checkpoint_and_resumes_after(tmp_path, whole, capsys, monkeypatch, at):
    """At any of the writes, each of which asks the disk for all of it."""
    fsync, calls = os.fsync, itertools.count(1)

    def full(descriptor):
        if next(calls) >= at:
            raise OSError(errno.ENOSPC, "No space left on device")
        fsync(descriptor)

    folder = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        err = refused(capsys, *digits(folder))
    assert "No space left on device" in err
    assert not list(folder.glob(".*.part"))
    if at <= 2:  # not even the settings
        return
    assert "run cannot be written (No space left on device): make room, then go on with gatewise resume" in err
    checkpoints = Run(folder).checkpoints()
    assert len(checkpoints) in ((2, 3) if at > 90 else (0, 1))
    for path in checkpoints:
        read_tensors(path)
    assert main(["resume", str(folder)]) == 0
    assert kept(folder) == whole


def test_a_metrics_file_that_grows_too_large(tmp_path, whole):
    """The kernel's own refusal, in the middle of whatever write: RLIMIT_FSIZE cuts a file off at any byte."""
    folder, out = tmp_path / "run", tmp_path / "out"
    process = Process(out, *digits(folder))
    process.wait_for_step(folder, 10)
    process.send(signal.SIGTERM)
    assert process.ended()[0] in (143, 0)
    newest = Run(folder).checkpoints()[0]
    out.unlink()
    status, said = Process(out, "resume", folder, limit=newest.stat().st_size + 50).ended()
    assert status == 2, said
    errors = said[said.index("gatewise: error: ") :]
    assert errors.count("\n") == 1
    assert "run cannot be written (File too large): make room, then go on with gatewise resume" in errors
    assert len(Run(folder).checkpoints()) == 2
    assert not list(folder.glob(".*.part"))
    assert main(["resume", str(folder)]) == 0
    assert kept(folder) == whole
