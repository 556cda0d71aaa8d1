"""Several processes that train one model, as torchrun starts them, beside one process with the same batches."""

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from gatewise.cli import main
from gatewise.errors import ArgumentError
from gatewise.train.config import TrainConfig
from gatewise.train.metrics import correct_by_argmax
from gatewise.train.parallel import Alone, Together, processes
from gatewise.train.run import Run
from gatewise.train.runner import Runner
from gatewise.train.samples import Examples
from gatewise.train.tensors import read_tensors, write_tensors

try:
    import lightning_fabric  # noqa: F401

    HAS_FABRIC = True
except ImportError:
    HAS_FABRIC = False

needs_fabric = pytest.mark.skipif(not HAS_FABRIC, reason="lightning_fabric is not installed (gatewise[parallel])")

# Two processes add up a batch's gradient in two halves, one process in one: some float32 epsilons (1.2e-7) of a
# gradient a step. Adam divides by the gradient's size, so they become some 1e-5 of a step of 2e-3 where a gradient is
# near 0, and the training carries them on.
TOLERANCE = 2e-4

WORDS = ["--hidden-size", "8", "--num-layers", "1", "--dropout", "0", "--threads", "1", "--log-every", "3"]


PROGRAM = Path(__file__).parents[1] / "src" / "gatewise" / "cli" / "__main__.py"


def torchrun(*words, count=2, **more):
    """Start so many processes on this machine; what they print comes through.

    Without the two dashes torchrun would take --run for a short form of its own --run-path.
    """
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count), "--"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([*start, *map(str, words)], env=environment, **pipes, **more)


def ended(process, status=0):
    out, err = process.communicate(timeout=120)
    assert process.returncode == status, out + err
    return out, err


def metrics(folder):
    lines = [json.loads(line) for line in Run(folder).metrics.read_text().splitlines()]
    for line in lines:
        del line["seconds"]
    return lines


def assert_same_training(folder, other):
    for which in ("last", "best"):
        (ours, about), (theirs, about_theirs) = (read_tensors(Run(f).weights(which)) for f in (folder, other))
        assert about == about_theirs
        torch.testing.assert_close(ours, theirs, rtol=TOLERANCE, atol=TOLERANCE)
    ours, theirs = metrics(folder), metrics(other)
    assert [list(line) for line in ours] == [list(line) for line in theirs]
    for mine, its in zip(ours, theirs, strict=True):
        assert mine.pop("split") == its.pop("split")
        assert mine.pop("accuracy") == pytest.approx(its.pop("accuracy"), abs=0.004)  # one sample of 359 at most
        assert mine == pytest.approx(its, rel=1e-3)


@needs_fabric
def test_two_processes_train_as_one_and_one_of_them_writes_and_prints(tmp_path):
    """1,259 samples in batches of 2 × 34: each step the last of which has a batch, one of 34 and one of 1 sample."""
    words = ["train", "digits", *WORDS, "--epochs", "2", "--batch-size", "34", "--accumulate", "2"]
    process = torchrun(PROGRAM, *words, "--run", tmp_path / "two")
    assert main([*words, "--run", str(tmp_path / "one")]) == 0
    out, err = ended(process)
    assert_same_training(tmp_path / "two", tmp_path / "one")
    assert (
        out.count("shared  by 2 processes\n") == out.count("model   LSTM 8→8") == out.count("next    gatewise ev") == 1
    )
    assert len([line for line in out.splitlines() if line.lstrip().startswith("2/2 train")]) == 1
    assert "gatewise" not in err


@needs_fabric
def test_interrupted_and_resumed_by_two_processes(tmp_path):
    """SIGTERM to torchrun goes to both, which end after the same step. The same two end with the same bytes."""
    words = ["train", "digits", *WORDS, "--epochs", "6", "--num-layers", "2", "--dropout", "0.2"]
    whole = torchrun(PROGRAM, *words, "--run", tmp_path / "whole")
    folder = tmp_path / "stopped"
    process = torchrun(PROGRAM, *words, "--run", folder)
    deadline = time.monotonic() + 100
    while not (Run(folder).metrics.exists() and Run(folder).metrics.read_text().count("\n") >= 20):
        assert time.monotonic() < deadline
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=100)
    (checkpoint,) = Run(folder).checkpoints()
    assert int(checkpoint.stem.partition("-")[2]) < 240
    out, _ = ended(torchrun(PROGRAM, "resume", folder))
    assert out.count(f"resumed {checkpoint.name}: ") == 1
    ended(whole)
    for which in ("last", "best"):
        assert Run(folder).weights(which).read_bytes() == Run(tmp_path / "whole").weights(which).read_bytes()
    assert metrics(folder) == metrics(tmp_path / "whole")


class Noting(nn.Module):
    """Notes which samples it is given; each is a number."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(1, 2)
        self.seen = []

    def forward(self, inputs):
        if self.training:
            self.seen.append(inputs.flatten().tolist())
        return self.linear(inputs / 30)


def numbered(folder, together, accumulate):
    """Train on samples 0 to 20 in batches of 4 (the last has one), and write down what was seen and what came out."""
    torch.manual_seed(0)
    model = Noting()
    config = TrainConfig(epochs=2, batch_size=4, accumulate=accumulate, learning_rate=0.1, optimizer="sgd")
    runner = Runner(model, cross_entropy, config, measures={"accuracy": correct_by_argmax}, processes=together)
    inputs = torch.arange(21.0)[:, None]
    targets = (inputs.flatten() > 10).long()
    runner.train(Examples(inputs, targets), {"dev": Examples(inputs[:3], targets[:3])})
    scores = [evaluation.scores[split].loss for evaluation in runner.history.evaluations for split in ("train", "dev")]
    samples = [
        evaluation.scores[split].samples for evaluation in runner.history.evaluations for split in ("train", "dev")
    ]
    written = {"seen": model.seen, "scores": scores, "samples": samples, "steps": runner.history.step_losses}
    write_tensors(folder / f"{accumulate}-{together.rank}", model.state_dict(), {"written": json.dumps(written)})


def written(path):
    tensors, metadata = read_tensors(path)
    return tensors, json.loads(metadata["written"])


@needs_fabric
def test_each_sample_is_seen_once_an_epoch_also_where_some_get_none(tmp_path):
    """Of three processes, a batch of 4 samples gives one two of them, and one of 1 sample two none."""
    program = f"""
import pathlib, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_parallel import numbered, processes
together = processes()
for accumulate in (1, 2, 4):
    numbered(pathlib.Path({str(tmp_path)!r}), together, accumulate)
"""
    (tmp_path / "program.py").write_text(program)
    process = torchrun(tmp_path / "program.py", count=3)
    (tmp_path / "one").mkdir()
    for accumulate in (1, 2, 4):
        numbered(tmp_path / "one", Alone(), accumulate)
    ended(process)
    for accumulate in (1, 2, 4):
        weights, alone = written(tmp_path / "one" / f"{accumulate}-0")
        ranks = [written(tmp_path / f"{accumulate}-{rank}") for rank in range(3)]
        for own, found in ranks:  # one step of SGD differs by the order of a sum
            torch.testing.assert_close(own, weights, rtol=1e-5, atol=1e-6)
            assert {name: tensor.tolist() for name, tensor in own.items()} == {
                name: tensor.tolist() for name, tensor in ranks[0][0].items()
            }
            assert found["scores"] == pytest.approx(alone["scores"], rel=1e-5)
            assert found["steps"] == pytest.approx(alone["steps"], rel=1e-5)
            assert found["samples"] == alone["samples"] == [21, 3] * 2
        for place, batch in enumerate(alone["seen"]):
            parts = [found["seen"][place] for _, found in ranks]
            assert parts == [batch[rank::3] or batch[:1] for rank in range(3)]  # the first stands in, with no weight
        assert sorted(itertools.chain(*alone["seen"])) == sorted(2 * list(range(21)))


# --- in this process ----------------------------------------------------------------------------------------


def test_alone_unless_torchrun_says_otherwise(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert (processes().rank, processes().count) == (0, 1)
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert isinstance(processes(), Alone)


def test_without_lightning_fabric_several_processes_are_refused_in_words(monkeypatch, capsys):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setitem(sys.modules, "lightning_fabric", None)
    with pytest.raises(ArgumentError, match=r"not installed: pip install 'gatewise\[parallel\]'"):
        processes()
    assert main(["train", "digits", *WORDS, "--run", "never"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not Path("never").exists()


class Half(Together):
    """One of some processes, with no other there."""

    def __init__(self, rank, count):
        self.rank, self.count = rank, count


@pytest.mark.parametrize("samples", [1, 2, 3, 5, 8])
@pytest.mark.parametrize("count", [2, 3, 4])
def test_the_mean_of_the_weighted_losses_is_the_mean_over_the_batch(samples, count):
    inputs, losses = torch.arange(float(samples)), torch.randn(samples, generator=torch.Generator().manual_seed(0))
    shares = [Half(rank, count).share((inputs,), losses, samples) for rank in range(count)]
    assert sum(own.mean() * weight for _, own, weight in shares) / count == pytest.approx(
        losses.mean().item(), rel=1e-5
    )
    seen = torch.cat([own for (own,), _, weight in shares if weight])
    assert seen.sort().values.equal(inputs)
    assert all(len(own) > 0 for (own,), _, _ in shares)


def test_each_process_draws_its_own_and_the_same_again():
    def draw(rank, step, seed=5):
        Half(rank, 2).begin_step(seed, step)
        return torch.rand(3).tolist()

    assert draw(0, 7) == draw(0, 7)
    drawn = [draw(rank, step, seed) for rank in (0, 1) for step in (7, 8) for seed in (5, 6)]
    assert len(set(map(tuple, drawn))) == 8
    draw(0, 0, 2**63 - 1)


def test_a_stop_is_agreed_on():
    """Where one of several is asked to stop, all end after the same step, which is the next that begins."""
    said = []

    class Asked(Half):
        def share_gradients(self, model):
            return model

        def gradients_wait(self, model, wait):
            return Alone().gradients_wait(model, wait)

        def backward(self, loss):
            loss.backward()

        def total(self, values):
            said.append(values[1])
            return [values[0], float(len(said) == 4 or values[1]), *values[2:]]  # at the fourth step another says so

    def run(asks_at):
        said.clear()
        config = TrainConfig(epochs=9, batch_size=2, learning_rate=0.1)
        runner = Runner(nn.Linear(1, 2), cross_entropy, config, processes=Asked(0, 2))
        inputs = torch.arange(4.0)[:, None]

        class Asks:
            start = evaluation = staticmethod(lambda *heard: None)

            def step(self, runner):
                if runner.progress.step == asks_at:
                    runner.stop()

        runner.train(Examples(inputs, inputs.flatten().long() % 2), None, [Asks()])
        return runner.progress.step, list(said)

    assert run(99) == (4, [0.0] * 4)
    assert run(2) == (3, [0.0, 0.0, 1.0])
