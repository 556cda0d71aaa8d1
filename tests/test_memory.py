"""The digit-sum task and the memory experiment: what is drawn, read and refused, and what a grid of runs leaves."""

import dataclasses
import json
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from gatewise.cli import main
from gatewise.data.digit_sum import DigitSums, make_digit_sums, read_digit_sums, write_digit_sums
from gatewise.errors import ArgumentError, DataError, RunError
from gatewise.experiments.grid import read_result, run_cases
from gatewise.experiments.memory import MemoryConfig, Result, Summary, summarize, table
from gatewise.experiments.memory_figures import STYLES
from gatewise.nn import LSTM
from gatewise.tasks.digit_sum import RECIPES, DigitSumConfig
from gatewise.tasks.sequence_sum import SumClassifier, problem, swap_tails


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


# --- the data -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [3, 10, 35])
def test_every_pair_is_in_every_split_and_one_place_distracts(length):
    splits = make_digit_sums(length, seed=4)
    for name, draws in {"train": 3, "dev": 1, "test": 1}.items():
        split = splits[name]
        assert split.sequences.shape == (100 * draws, length)
        pairs, counts = np.unique(split.sequences[:, :2], axis=0, return_counts=True)
        assert len(pairs) == 100
        assert set(counts) == {draws}
        assert np.array_equal(split.labels, split.sequences[:, :2].sum(axis=1))
        assert (split.sequences[:, 2:] != 0).sum(axis=1).max() == 1
    tails = splits["train"].sequences[:, 2:]
    assert set(np.unique(tails)) == set(range(10))
    assert set(np.nonzero(tails)[1]) == set(range(length - 2))


def test_a_draw_depends_on_the_seed_and_the_length_and_nothing_else():
    def draw(length, seed):
        np.random.seed(7)  # noqa: NPY002
        return make_digit_sums(length, seed)["train"].sequences

    assert np.array_equal(draw(10, 0), draw(10, 0))
    assert not np.array_equal(draw(10, 0), draw(10, 1))
    assert not np.array_equal(draw(10, 0)[:, :9], draw(9, 0))
    with pytest.raises(ArgumentError, match="length is 2, needed is at least 3"):
        make_digit_sums(2, 0)


def test_the_files_round_trip(tmp_path):
    splits = make_digit_sums(12, seed=1)
    write_digit_sums(tmp_path, splits)
    for name, split in read_digit_sums(tmp_path).items():
        assert np.array_equal(split.sequences, splits[name].sequences)
        assert np.array_equal(split.labels, splits[name].labels)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("1 2 0 3\n", "line 1 has no tab"),
        ("1 2 0\t3\n1 x 0\t3\n", "line 2 has 'x' among its digits"),
        ("1 12 0\t3\n", "line 1 has '12' among its digits"),
        ("1 ² 0\t3\n", "is no plain text"),
        ("1 2 0\t19\n", "line 1 has the label '19', needed is 0 to 18"),
        ("1 2 0\t-1\n", "line 1 has the label '-1'"),
        ("1 2 0\t\n", "line 1 has the label ''"),
        ("1 2\t3\n", "line 1 has 2 digits, needed are at least 3"),
        ("1 2 0\t3\n1 2 0 0\t3\n", "sequence 2 has 4 digits, the first has 3"),
        ("\n", "has no line"),
    ],
)
def test_lines_that_are_none_are_named(tmp_path, text, says):
    write_digit_sums(tmp_path, make_digit_sums(3, seed=0))
    (tmp_path / "dev.txt").write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=re.escape(says)) as caught:
        read_digit_sums(tmp_path)
    assert "dev.txt" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_of_different_lengths_are_refused(tmp_path):
    write_digit_sums(tmp_path, make_digit_sums(5, seed=0) | {"test": make_digit_sums(6, seed=0)["test"]})
    with pytest.raises(DataError, match=r"test\.txt has sequences of 6 digits, train\.txt of 5"):
        read_digit_sums(tmp_path)


# --- the task -----------------------------------------------------------------------------------------------


def test_the_textbook_s_recipe():
    config = DigitSumConfig()
    assert (config.hidden_size, config.batch_size, config.epochs, config.dev_every) == (32, 8, 500, 100)
    assert (config.optimizer, config.learning_rate, config.best_by) == ("adam", 1e-3, "accuracy")
    model = SumClassifier(config)
    assert model.embedding.weight.shape == (10, 32)
    assert isinstance(model.cell, LSTM)
    assert model.linear.out_features == 19


def test_as_published_the_cell_begins_at_zero_and_the_vectors_stay():
    config = DigitSumConfig(**RECIPES["published"], epochs=1, dev_every=0, threads=1)
    made = problem(config)
    assert all(not weight.any() for weight in made.model.cell.parameters())
    assert not made.model.embedding.weight.requires_grad
    assert made.model.embedding.weight.any()
    assert "embedding.weight" in made.model.state_dict()  # saved and moved all the same


@pytest.mark.parametrize("cell", ["peephole", "cifg", "layer-norm", "slstm"])
@pytest.mark.parametrize("recipe", RECIPES)
def test_variants_of_the_cell_learn_under_every_recipe(cell, recipe):
    case = MemoryConfig(cells=(cell,), lengths=(5,), seeds=1, recipe=recipe).cases()[0]
    assert case.config.initial == RECIPES[recipe].get("initial", "torch")
    torch.manual_seed(0)
    model, digits = SumClassifier(case.config), torch.randint(10, (8, 5))
    optimizer = torch.optim.Adam(model.parameters(), 0.05)
    losses = []
    for _ in range(20):
        losses.append(torch.nn.functional.cross_entropy(model(digits), digits[:, :2].sum(dim=1)))
        optimizer.zero_grad()
        losses[-1].backward()
        optimizer.step()
    assert losses[-1] < losses[0] - 0.1
    assert STYLES[cell]


def test_chrono_biases_last_as_long_as_the_sequence():
    torch.manual_seed(0)
    lstm = SumClassifier(DigitSumConfig(initial="chrono", length=100)).cell
    i, f, g, o = lstm.bias_ih_l0.detach().view(4, -1)
    assert torch.equal(i, -f)
    assert not g.any()
    assert not o.any()
    assert not lstm.bias_hh_l0.any()
    assert f.min() >= 0
    assert np.log(30) < f.max() < np.log(99)
    with pytest.raises(ArgumentError, match="initial is chrono, needed is torch or zeros where the cell is no LSTM"):
        DigitSumConfig(initial="chrono", cell="gru")


def test_tails_are_exchanged_and_moved_around_and_nothing_is_lost():
    digits = torch.from_numpy(make_digit_sums(5, seed=0)["train"].sequences)
    swapped = swap_tails(digits, torch.Generator().manual_seed(0))
    assert torch.equal(swapped[:, :2], digits[:, :2])
    assert not torch.equal(swapped, digits)
    tails = digits[:, 2:]
    for place in range(3):  # each digit comes to each place
        assert set(swapped[:, 2 + place].tolist()) == set(tails.flatten().tolist())
    assert torch.equal(swapped[:, 2:].sort().values.sum(0), tails.sort().values.sum(0))
    assert torch.equal(swapped[:, 2:].flatten().bincount(), tails.flatten().bincount())


def test_the_test_split_is_not_looked_at_while_training():
    assert set(problem(DigitSumConfig()).splits) == {"train", "dev"}


def test_a_run_from_the_command_line(tmp_path, capsys):
    run = str(tmp_path / "run")
    words = ["train", "digit-sum", "--recipe", "remember", "--epochs", "20", "--threads", "1", "--run", run]
    assert main(words) == 0
    assert f"gatewise predict {run} '6 7 0 0 1 0'" in capsys.readouterr().out
    assert main(["evaluate", run, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["samples"] == 100
    assert main(["predict", run, "6 7 0 0 1 0 0 0 0 0", "--json"]) == 0
    prediction = json.loads(capsys.readouterr().out)
    assert len(prediction["scores"]) == 19
    assert sum(prediction["scores"]) == pytest.approx(1)
    for given in ("6 x", "", "67 0"):
        assert main(["predict", run, given]) == 2
        assert "is no sequence of digits" in capsys.readouterr().err


def test_files_of_one_s_own(tmp_path, capsys):
    write_digit_sums(tmp_path / "data", make_digit_sums(6, seed=0))
    words = ["train", "digit-sum", "--data", str(tmp_path / "data"), "--run", str(tmp_path / "run"), "--epochs", "1"]
    assert main([*words, "--length", "10"]) == 2
    assert "length is 10, and " in capsys.readouterr().err
    assert main([*words, "--length", "6"]) == 0


# --- the experiment -----------------------------------------------------------------------------------------


def small(folder, **changes):
    return MemoryConfig(**{"lengths": (5, 6), "seeds": 2, "epochs": 2, "run": folder, "processes": 1} | changes)


def test_a_grid_of_runs_is_run_once(tmp_path, capsys):
    words = ["memory", "--cells", "srn", "lstm", "--lengths", "5", "6", "--seeds", "2", "--epochs", "2"]
    words += ["--processes", "2", "--run", str(tmp_path / "grid")]
    assert main([*words, "--json"]) == 0
    first = json.loads(capsys.readouterr().out)
    assert [(r["cell"], r["length"], r["seed"]) for r in first[:3]] == [("srn", 5, 0), ("srn", 5, 1), ("srn", 6, 0)]
    assert len(first) == 8
    assert all(len(r["losses"]) == 2 for r in first)
    changed = {path: path.stat().st_mtime_ns for path in (tmp_path / "grid").glob("*/last.safetensors")}
    (tmp_path / "grid" / "lstm-6-1" / "result.json").unlink()  # killed just before its end
    assert main(words) == 0
    printed = capsys.readouterr().out
    assert "lstm       6" in printed
    again = json.loads((tmp_path / "grid" / "results.json").read_text())
    assert [r | {"seconds": 0} for r in again] == [r | {"seconds": 0} for r in first]
    for path, when in changed.items():
        assert path.stat().st_mtime_ns == when or path.parent.name == "lstm-6-1"
    for name in ("accuracy", "losses"):
        assert (tmp_path / "grid" / f"{name}.pdf").read_bytes().startswith(b"%PDF")
        with Image.open(tmp_path / "grid" / f"{name}.png") as image:
            assert image.width > 500


def test_the_experiment_on_files(tmp_path, capsys):
    words = ["memory", "--data", str(tmp_path / "sums"), "--cells", "srn", "--lengths", "5", "7", "--seeds", "1"]
    words += ["--epochs", "1", "--processes", "1", "--run", str(tmp_path / "run"), "--json"]
    write_digit_sums(tmp_path / "sums" / "5", make_digit_sums(5, seed=3))
    assert main(words) == 2
    assert "sums/7/train.txt cannot be read" in capsys.readouterr().err
    assert not (tmp_path / "run" / "srn-5-0").exists()
    write_digit_sums(tmp_path / "sums" / "7", make_digit_sums(7, seed=3))
    assert main(words) == 0
    assert [result["length"] for result in json.loads(capsys.readouterr().out)] == [5, 7]
    assert f'data = "{tmp_path}/sums/7"' in (tmp_path / "run" / "srn-7-0" / "config.toml").read_text()


def is_running(pid):
    status = Path(f"/proc/{pid}/status")
    return status.is_file() and "State:\tZ" not in status.read_text()


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_no_training_goes_on_when_the_experiment_is_killed(tmp_path):
    words = ["memory", "--cells", "lstm", "--lengths", "5", "6", "--seeds", "1", "--epochs", "100000"]
    words += ["--processes", "2", "--run", str(tmp_path)]
    process = subprocess.Popen([sys.executable, "-m", "gatewise.cli", *words], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 100
    while len(list(tmp_path.glob("*/metrics.jsonl"))) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    assert len(children) >= 2
    process.kill()
    process.wait()
    while any(map(is_running, children)):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert len(list(tmp_path.glob("*/checkpoint-*"))) == 2


def test_an_epoch_has_one_loss_where_dev_is_looked_at_after_its_last_step(tmp_path):
    (case,) = small(tmp_path, cells=("srn",), lengths=(5,), seeds=1, epochs=3).cases()
    often = dataclasses.replace(case, config=dataclasses.replace(case.config, dev_every=19))  # of 38 an epoch
    (result,) = run_cases([often], tmp_path, 1, lambda result: None)
    assert len(result.losses) == 3
    assert sorted({epoch for epoch, _ in result.dev_losses}) == [0.5, 1, 1.5, 2, 2.5, 3]


def test_a_run_of_other_settings_is_no_result(tmp_path):
    cases = small(tmp_path, cells=("lstm",), lengths=(5,), seeds=1).cases()
    done = []
    run_cases(cases, tmp_path, 1, done.append)
    assert [result.seed for result in done] == [0]
    other = small(tmp_path, cells=("lstm",), lengths=(5,), seeds=1, epochs=3).cases()
    with pytest.raises(RunError, match="is a run of other settings"):
        run_cases(other, tmp_path, 1, done.append)
    (tmp_path / "lstm-5-0" / "result.json").write_text("{}")
    with pytest.raises(RunError, match=r"result\.json cannot be read as a result"):
        read_result(tmp_path / "lstm-5-0", cases[0])


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"seeds": 0}, "seeds is 0, needed is a number from 1 on"),
        ({"lengths": ()}, "lengths is empty"),
        ({"lengths": (5, 5)}, "lengths is 5 5, needed are some, each once"),
        ({"lengths": (2,)}, "length is 2, needed is a number from 3"),
    ],
)
def test_experiments_that_make_no_sense_are_refused(tmp_path, changes, says):
    with pytest.raises(ArgumentError, match=says):
        small(tmp_path, **changes)


def test_recipes_go_to_the_cells_that_they_are_for(tmp_path):
    by_cell = {case.cell: case.config.initial for case in small(tmp_path, recipe="remember").cases()}
    assert by_cell == {"srn": "torch", "lstm": "chrono"}
    assert {case.config.threads for case in small(tmp_path).cases()} == {1}


def test_means_and_spread_of_made_up_results():
    results = [Result("lstm", 10, seed, 0.9, test, 1, 1.0, [1.0], []) for seed, test in enumerate((0.7, 0.8, 0.9))]
    (summary,) = summarize(results)
    assert summary == Summary("lstm", 10, [0.9] * 3, [0.7, 0.8, 0.9])
    assert (summary.mean("test"), summary.deviation("test")) == (pytest.approx(0.8), pytest.approx(0.1))
    assert table(results)[1] == "lstm      10   0.900 ± 0.000  0.800 ± 0.100      3             0.95, 0.93"


def test_lengths_are_those_of_the_sequences():
    assert DigitSums(np.zeros((2, 7), np.int64), np.zeros(2, np.int64)).length == 7


def test_a_run_is_no_place_for_an_experiment(tmp_path, capsys):
    (tmp_path / "config.toml").touch()
    assert main(["memory", "--cells", "srn", "--lengths", "5", "--seeds", "1", "--run", str(tmp_path)]) == 2
    assert "is a run, needed is a folder for many: give another --run" in capsys.readouterr().err
