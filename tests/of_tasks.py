"""What the tests of several tasks do: write a table, train by settings, predict, and be refused."""

import re

import polars as pl

from gatewise.cli import main
from gatewise.tasks.task import Report, tasks


def write(path, columns):
    """Write columns as CSV or Parquet, as the path ends."""
    frame = pl.DataFrame(columns, strict=False)
    frame.write_parquet(path) if path.suffix == ".parquet" else frame.write_csv(path)
    return path


def train(config, folder, report=None, resume=False):
    """Train what the settings are of."""
    task = next(task for task in tasks().values() if task.config is type(config))
    return task.runner().train(task, config, folder, report or Report(), resume)


def same_bytes_however_trained(config, folder, stop_after):
    """Whole, once more, and stopped after some steps and resumed, a training leaves the same weights."""

    class Stops(Report):
        def step(self, runner):
            if runner.progress.step == stop_after:
                runner.stop()

    train(config, folder / "whole")
    assert not train(config, folder / "stopped", Stops()).progress.ended
    assert train(config, folder / "stopped", resume=True).progress.ended
    train(config, folder / "again")
    for name in ("last.safetensors", "best.safetensors"):
        whole = (folder / "whole" / name).read_bytes()
        assert (folder / "stopped" / name).read_bytes() == whole
        assert (folder / "again" / name).read_bytes() == whole


def predicted(run, path, capsys, *words):
    """What gatewise predict prints."""
    assert main(["predict", str(run), str(path), *words]) == 0
    return capsys.readouterr()


def ended(words, capsys, says):
    """A line on stderr, and nothing on stdout."""
    assert main([str(word) for word in words]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert re.fullmatch(f"gatewise: error: .*{says}.*\n", err), err
