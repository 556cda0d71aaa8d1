"""The run folder: files that are whole or not there, checkpoints, and who may write them."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from gatewise.errors import RunError
from gatewise.train.keeper import train_in
from gatewise.train.run import Run, truncate
from gatewise.train.state import fill_weights, random_state
from gatewise.train.tensors import read_tensors, write_tensors
from gatewise.whole import write_whole
from training import a_runner, some_examples, trained


def some_tensors():
    return {
        "a": torch.arange(3.0),
        "b.empty": torch.tensor([], dtype=torch.float64),
        "c": torch.tensor(7),
        "d": torch.tensor([[True], [False]]),
        "ä": torch.tensor([1.5, -2.5], dtype=torch.bfloat16),
    }


def names(folder):
    return sorted(path.name for path in folder.iterdir())


# --- tensors in files ---------------------------------------------------------------------------------------


def test_tensors_round_trip_and_the_same_ones_make_the_same_bytes(tmp_path):
    tensors, metadata = some_tensors(), {"task": "digits", "epoch": "7", "ü": '"{}\n'}
    write_tensors(tmp_path / "a", tensors, metadata)
    write_tensors(tmp_path / "b", dict(reversed(tensors.items())), dict(reversed(metadata.items())))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert names(tmp_path) == ["a", "b"]
    back, kept = read_tensors(tmp_path / "a")
    assert kept == metadata
    assert back.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert back[name].dtype == tensor.dtype
        assert back[name].equal(tensor)


def test_weights_of_a_model_go_into_another(tmp_path):
    one, two = nn.LSTM(3, 4, num_layers=2), nn.LSTM(3, 4, num_layers=2)
    write_tensors(tmp_path / "a", one.state_dict(), {})
    fill_weights(two, read_tensors(tmp_path / "a")[0], tmp_path / "a")
    assert all(mine.equal(other) for mine, other in zip(one.parameters(), two.parameters(), strict=True))


def test_views_and_parameters_are_written_as_they_are_seen(tmp_path):
    whole = torch.arange(6.0).reshape(2, 3)
    write_tensors(
        tmp_path / "a", {"across": whole.T, "part": whole[1:], "weight": nn.Parameter(whole)}, {"tied": "all three"}
    )
    back, _ = read_tensors(tmp_path / "a")
    assert back["across"].equal(whole.T)
    assert back["part"].equal(whole[1:])
    assert not back["weight"].requires_grad


def test_any_changed_byte_and_any_truncation_is_noticed(tmp_path):
    path = tmp_path / "a"
    write_tensors(path, some_tensors(), {"epoch": "7"})
    content = path.read_bytes()
    assert len(content) > 400
    for place in range(len(content)):
        for bit in (1, 128):
            changed = bytearray(content)
            changed[place] ^= bit
            path.write_bytes(changed)
            with pytest.raises(RunError) as caught:
                read_tensors(path)
            assert "\n" not in str(caught.value)
        path.write_bytes(content[:place])
        with pytest.raises(RunError):
            read_tensors(path)
    path.write_bytes(content + b"\0")
    with pytest.raises(RunError):
        read_tensors(path)


def test_missing_files_and_pickles_are_refused(tmp_path):
    with pytest.raises(RunError, match="is missing"):
        read_tensors(tmp_path / "a")
    torch.save(nn.Linear(2, 3).state_dict(), tmp_path / "a")
    with pytest.raises(RunError, match="cannot be read as tensors"):
        read_tensors(tmp_path / "a")
    with pytest.raises(RunError, match="cannot be read as tensors"):
        read_tensors(tmp_path)


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"weight": torch.zeros(3, 2)}, r"a: bias is missing, needed is shape \(3,\): take the model's own"),
        (
            {"weight": torch.zeros(3, 2), "bias": torch.zeros(2)},
            r"a: bias has shape \(2,\), needed is shape \(3,\): take the model's own",
        ),
        (
            {"weight": torch.zeros(3, 2), "bias": torch.zeros(3), "more": torch.zeros(1)},
            r"a: more has shape \(1,\), needed is none, as the model has no such weight: take the model's own",
        ),
    ],
)
def test_weights_of_another_model_are_refused(tensors, message):
    with pytest.raises(RunError, match=message):
        fill_weights(nn.Linear(2, 3), tensors, Path("a"))


@pytest.mark.parametrize("where", ["os.fsync", "pathlib.Path.replace"])
@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(errno.ENOSPC, "No space left on device")])
def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, where, error):
    path = tmp_path / "a"
    write_tensors(path, some_tensors(), {"epoch": "1"})
    before = path.read_bytes()

    def fail(*args):
        assert names(tmp_path) == [".a.part", "a"]
        raise error

    monkeypatch.setattr(where, fail)
    with pytest.raises(type(error)):
        write_tensors(path, some_tensors(), {"epoch": "2"})
    assert path.read_bytes() == before
    assert names(tmp_path) == ["a"]


def test_a_file_is_on_disk_before_it_has_its_name_and_the_name_after(tmp_path, monkeypatch):
    did = []
    fsync, replace = os.fsync, Path.replace
    monkeypatch.setattr("os.fsync", lambda fd: (did.append("fsync"), fsync(fd))[1])
    monkeypatch.setattr("pathlib.Path.replace", lambda path, other: (did.append("replace"), replace(path, other))[1])
    write_whole(tmp_path / "a", b"all")
    assert did == ["fsync", "replace", "fsync"]


def test_what_is_no_file_is_written_to_and_a_link_leads_on(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with open(os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK), "rb") as reader:
        write_whole(tmp_path / "pipe", b"all")
        assert reader.read() == b"all"
    assert (tmp_path / "pipe").is_fifo()
    (tmp_path / "target").write_bytes(b"old")
    (tmp_path / "link").symlink_to("target")
    write_whole(tmp_path / "link", b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "target").read_bytes() == b"new"
    with pytest.raises(OSError, match=r"No space left on device: '/dev/full'"):
        write_whole(Path("/dev/full"), b"all")
    assert Path("/dev/full").is_char_device()


# --- the folder ---------------------------------------------------------------------------------------------


def test_run_folders(tmp_path):
    run = Run.create(tmp_path / "deep" / "run")
    (run.folder / ".config.toml.part").touch()  # of one that was killed
    assert Run.create(run.folder) == run  # still empty
    with pytest.raises(RunError, match=r"is no run folder \(no config.toml\)"):
        Run.open(run.folder)
    run.config.write_text("")
    assert Run.open(run.folder) == run
    with pytest.raises(RunError, match="is not empty, needed is a new folder"):
        Run.create(run.folder)
    with pytest.raises(RunError, match="is a file, needed is a new folder"):
        Run.create(run.config)
    with pytest.raises(RunError, match="cannot be made"):
        Run.create(run.config / "below")


def test_a_folder_is_locked_while_it_is_written_and_no_longer(tmp_path):
    run = Run(tmp_path)
    with (
        run.locked(),
        pytest.raises(RunError, match="is being written by another process: wait for it, or"),
        run.locked(),
    ):
        pytest.fail("it was locked")
    with run.locked():
        pass


LOCKS = """import sys; from pathlib import Path; from gatewise.train.run import Run
with Run(Path(sys.argv[1])).locked(): print("locked", flush=True); sys.stdin.read()"""


def test_two_processes_cannot_write_one_run_and_a_killed_one_leaves_no_lock(tmp_path):
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", LOCKS, tmp_path], **pipes) as first:
        assert first.stdout.readline() == "locked\n"
        with pytest.raises(RunError, match="is being written by another process"), Run(tmp_path).locked():
            pytest.fail("another process has it")
        with pytest.raises(RunError, match="is being written by another process"):
            train_in(Run(tmp_path), a_runner(), some_examples(), {}, about={}, title="")
        assert names(tmp_path) == [".lock"]
        first.send_signal(signal.SIGKILL)
    with Run(tmp_path).locked():
        pass


# --- checkpoints --------------------------------------------------------------------------------------------


def with_checkpoints(folder, *steps):
    run = Run(folder)
    for step in steps:
        run.write_checkpoint(step, {"x": torch.tensor([float(step)])}, {"step": step, "list": [1, 2.5, None, "ü"]})
    return run


def damage(path, content=None):
    whole = bytearray(path.read_bytes())
    whole[-1] ^= 1
    path.write_bytes(whole if content is None else content)


def test_the_two_newest_checkpoints_are_kept(tmp_path):
    run = with_checkpoints(tmp_path, 1, 2, 30, 30, 1_000_000_000)
    assert names(tmp_path) == ["checkpoint-000000030.safetensors", "checkpoint-1000000000.safetensors"]
    said = []
    path, tensors, kept = run.read_checkpoint(said.append)
    assert (path, said) == (tmp_path / "checkpoint-1000000000.safetensors", [])
    assert tensors["x"].item() == 1e9
    assert kept == {"step": 1_000_000_000, "list": [1, 2.5, None, "ü"]}


@pytest.mark.parametrize("content", [None, b"", b"\0" * 100])
def test_where_the_newest_is_damaged_the_one_before_is_taken_and_said(tmp_path, content):
    run = with_checkpoints(tmp_path, 10, 20)
    damage(tmp_path / "checkpoint-000000020.safetensors", content)
    said = []
    path, tensors, kept = run.read_checkpoint(said.append)
    assert (path.name, tensors["x"].item(), kept["step"]) == ("checkpoint-000000010.safetensors", 10.0, 10)
    (line,) = said
    assert "checkpoint-000000020.safetensors" in line
    assert line.endswith("; going on from the one before, checkpoint-000000010.safetensors")


def test_the_next_checkpoint_replaces_a_damaged_one_of_a_later_step(tmp_path):
    run = with_checkpoints(tmp_path, 10, 20)
    damage(tmp_path / "checkpoint-000000020.safetensors")
    run = with_checkpoints(tmp_path, 15)
    assert [path.name for path in run.checkpoints()] == [f"checkpoint-0000000{n}.safetensors" for n in (15, 10)]


def test_where_all_are_damaged_there_is_nothing_to_go_on_from(tmp_path):
    run = with_checkpoints(tmp_path, 10, 20)
    for path in run.checkpoints():
        damage(path)
    with pytest.raises(RunError, match=r"no checkpoint is whole \(.*20.safetensors .*; .*10.safetensors .*train again"):
        run.read_checkpoint(pytest.fail)


def test_a_file_of_tensors_that_is_no_checkpoint(tmp_path):
    run = with_checkpoints(tmp_path, 10)
    write_tensors(tmp_path / "checkpoint-000000020.safetensors", some_tensors(), {})
    said = []
    assert run.read_checkpoint(said.append)[0].name == "checkpoint-000000010.safetensors"
    assert "20.safetensors is no checkpoint; going on" in said[0]


def test_without_a_checkpoint_there_is_none(tmp_path):
    (tmp_path / "checkpoint-old.safetensors").touch()
    assert Run(tmp_path).read_checkpoint(pytest.fail) is None


def test_a_checkpoint_that_cannot_be_written_leaves_the_older_ones(tmp_path, monkeypatch):
    run = with_checkpoints(tmp_path, 10, 20)

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        with_checkpoints(tmp_path, 30)
    assert names(tmp_path) == ["checkpoint-000000010.safetensors", "checkpoint-000000020.safetensors"]
    assert run.read_checkpoint(pytest.fail)[2]["step"] == 20


def test_what_a_killed_process_left_is_cleared(tmp_path):
    (tmp_path / ".checkpoint-000000010.safetensors.part").touch()
    (tmp_path / "mine.part").touch()
    Run(tmp_path).clear()
    assert names(tmp_path) == ["mine.part"]


def test_a_file_is_cut_back_and_never_made_longer(tmp_path):
    path = tmp_path / "metrics.jsonl"
    truncate(path, 0)
    assert not path.exists()
    path.write_text("one\ntwo\n")
    truncate(path, 4)
    assert path.read_text() == "one\n"
    with pytest.raises(RunError, match="has 4 bytes, the checkpoint knows of 5: restore the file or train again"):
        truncate(path, 5)
    with pytest.raises(RunError, match="has 0 bytes, the checkpoint knows of 1"):
        truncate(tmp_path / "none", 1)


# --- what a checkpoint holds --------------------------------------------------------------------------------


def test_a_state_goes_through_a_file_unchanged(tmp_path):
    run = Run(tmp_path)
    runner = trained(others={"dev": some_examples(5)}, optimizer="adam")
    tensors, kept = runner.state()
    run.write_checkpoint(6, tensors, kept)
    path, tensors, kept = run.read_checkpoint(pytest.fail)
    other = a_runner(nn.Linear(4, 2), optimizer="adam")
    other.restore(tensors, kept, path)
    assert other.progress == runner.progress
    assert other.history == runner.history
    again, kept_again = other.state()
    assert {"kept": kept_again} == {"kept": kept}
    assert again.keys() == tensors.keys()
    assert all(again[name].equal(tensor) for name, tensor in tensors.items())


def test_every_generator_is_in_the_state():
    """With none of NumPy's and Python's second halves of a pair of normal numbers forgotten."""
    import random

    import numpy as np

    from gatewise.train.state import restore_random

    own = torch.Generator().manual_seed(3)
    draws = [
        lambda: torch.rand(1).item(),
        lambda: torch.randn(1).item(),
        np.random.rand,
        np.random.randn,
        random.random,
        lambda: random.gauss(0, 1),
        lambda: torch.rand(1, generator=own).item(),
    ]
    for draw in draws[3:6]:
        draw()  # of a pair the first
    kept = random_state({"own": own})
    first = [draw() for draw in draws * 3]
    restore_random(kept, {"own": own})
    assert [draw() for draw in draws * 3] == first


def test_a_checkpoint_of_another_model_is_refused(tmp_path):
    run = Run(tmp_path)
    run.write_checkpoint(6, *trained().state())
    path, tensors, kept = run.read_checkpoint(pytest.fail)
    with pytest.raises(RunError, match=r"checkpoint-000000006.safetensors: bias has shape"):
        a_runner(nn.Linear(4, 3)).restore(tensors, kept, path)
