"""gatewise runs and gatewise compare: what run folders say of themselves."""

import json

import pytest
import torch
from PIL import Image

from gatewise.cli import main
from gatewise.errors import ArgumentError, RunError
from gatewise.tasks.runs import all_below, differing, standing
from gatewise.train.run import Run


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two that have ended, with different seeds."""
    threads = torch.get_num_threads()
    folder = tmp_path_factory.mktemp("runs")
    for seed in ("0", "1"):
        words = ["train", "digit-sum", "--epochs", "3", "--threads", "1", "--seed", seed, "--run", str(folder / seed)]
        assert main(words) == 0
    torch.set_num_threads(threads)
    return folder


def test_a_table_of_runs(runs, capsys):
    assert main(["runs", str(runs)]) == 0
    head, *rows = capsys.readouterr().out.splitlines()
    assert head.split() == ["run", "task", "state", "epoch", "train", "dev", "test"]
    assert [row.split()[:4] for row in rows] == [[str(runs / seed), "digit-sum", "ended", "3/3"] for seed in "01"]


def test_a_list_of_runs_for_scripts(runs, capsys):
    assert main(["runs", str(runs), "--json"]) == 0
    first, second = json.loads(capsys.readouterr().out)
    assert (first["state"], first["settings"]["seed"], second["settings"]["seed"]) == ("ended", 0, 1)
    last = standing(runs / "0").last("dev")
    assert first["dev"]["loss"] == last.loss
    assert "test" not in first


def test_a_run_is_running_while_somebody_writes_there(runs):
    with Run(runs / "0").locked():
        assert standing(runs / "0").state == "running"
    assert standing(runs / "0").state == "ended"


def test_a_run_that_was_stopped_can_go_on(tmp_path, capsys):
    folder = tmp_path / "run"
    words = ["train", "digit-sum", "--epochs", "2", "--threads", "1", "--run", str(folder)]
    assert main(words) == 0
    for path in Run(folder).checkpoints():
        path.unlink()
    assert standing(folder).state == "stopped"
    assert main(["resume", str(folder)]) == 0
    assert standing(folder).state == "ended"


def test_what_is_no_run_folder(tmp_path, capsys):
    with pytest.raises(RunError, match="holds no run folder: give the folder that your runs are in"):
        all_below(tmp_path)
    assert main(["runs", str(tmp_path)]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_runs_in_one_figure(runs, tmp_path, capsys):
    figure = tmp_path / "both.png"
    assert main(["compare", str(runs / "0"), str(runs / "1"), "--figure", str(figure)]) == 0
    assert capsys.readouterr().out.splitlines()[:2] == [f"{runs / '0'}: seed 0", f"{runs / '1'}: seed 1"]
    with Image.open(figure) as image:
        assert image.width > 800


def test_what_cannot_be_compared(runs, tmp_path, capsys):
    with pytest.raises(ArgumentError, match="one run alone cannot be compared"):
        differing([standing(runs / "0")])
    for words, says in (
        ([str(runs / "0")], "one run alone"),
        ([str(runs / "0"), str(tmp_path)], "is no run folder"),
        ([str(runs / "0"), str(runs / "1"), "--figure", "x.bmp"], "needed is a name that ends in .png, .pdf, .svg"),
    ):
        assert main(["compare", *words]) == 2
        assert says in capsys.readouterr().err
