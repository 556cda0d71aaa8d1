"""gatewise horizon: how far a trained model's gradient reaches, beside how far training let it."""

import json

import pytest
import torch

from gatewise.cli import main
from gatewise.errors import ArgumentError
from gatewise.experiments.horizon import horizons, reach_of
from gatewise.insight.gradient_flow import gradient_flow
from gatewise.tasks.load import load
from gatewise.train import keeper
from gatewise.train.run import Run
from of_tasks import write
from waves import WORDS, table


@pytest.fixture(scope="module", autouse=True)
def _no_curves():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keeper, "draw_curves", lambda *args, **kwargs: None)
        yield


def run_of(tmp_path_factory, *words):
    folder = tmp_path_factory.mktemp("runs") / "run"
    assert main(["train", *words, "--threads", "1", "--run", str(folder)]) == 0
    return folder


@pytest.fixture(scope="module")
def carried(tmp_path_factory):
    file = write(tmp_path_factory.mktemp("data") / "load.csv", table())
    words = ["--data", str(file), "--target", "kw", "--time", "day", *WORDS, "--batch-size", "4"]
    return run_of(tmp_path_factory, "series", *words, "--bptt", "4/6", "--epochs", "4")


@pytest.fixture(scope="module")
def sums(tmp_path_factory):
    return run_of(tmp_path_factory, "digit-sum", "--length", "12", "--epochs", "1", "--hidden-size", "8")


def test_what_is_left_where_training_cut_it_off(carried):
    found = horizons(carried, steps=20)
    assert (found.reach, found.steps, found.step, found.sequences > 10) == (6, 20, "row", True)
    (layer,) = found.layers
    decay = found.flow.layers[0].decay
    assert layer.left == decay[6].item() and layer.longest == 19
    assert f"{100 * layer.left:.3g} % of the gradient is left" in layer.sentence
    assert layer.horizon is None or (decay[layer.horizon :] < 0.1).all()
    assert horizons(carried).steps == 24  # four times the truncation
    assert horizons(carried, steps=6).layers[0].left is None  # nothing to be seen beyond


@pytest.mark.parametrize("forget", [-2.0, 3.0])
def test_a_cell_that_keeps_is_told_from_one_that_forgets(forget):
    lstm = torch.nn.LSTM(2, 3)
    for weight in lstm.parameters():
        torch.nn.init.zeros_(weight)
    with torch.no_grad():
        lstm.bias_ih_l0[3:6] = forget
    flow = gradient_flow(lstm, torch.ones(12, 2, 2), lambda output: output[1][1].sum())
    found = reach_of(flow.layers[0], 5, 0.1)
    assert found.left == pytest.approx(torch.tensor(forget).sigmoid().item() ** 5, rel=1e-5)
    wanted = "a longer truncation could teach it more" if forget > 0 else "the truncation costs it little"
    assert found.sentence.endswith(f"{wanted}.")


def test_whole_sequences_are_not_cut(sums):
    found = horizons(sums)
    assert (found.reach, found.steps, found.step) == (None, 12, "digit")
    assert found.layers[0].left is None
    with pytest.raises(ArgumentError, match="steps is 5, and the sequences have 12 digits: leave it out"):
        horizons(sums, steps=5)


def test_by_the_command_line(carried, tmp_path, capsys):
    figure = tmp_path / "horizon.png"
    assert main(["horizon", str(carried), "--figure", str(figure), "--fraction", "0.2"]) == 0
    printed = capsys.readouterr().out
    assert "gradients flowed through 6 steps in training" in printed and "lstm.l0 (lstm)" in printed
    assert figure.read_bytes()[1:4] == b"PNG"
    assert main(["horizon", str(carried), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["reach"] == 6 and set(told["layers"][0]) == {"layer", "cell", "horizon", "left", "longest", "sentence"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--fraction", "1"], "fraction is 1, needed a number between 0 and 1"),
        (["--steps", "1"], "steps is 1, needed are at least 2"),
        (["--steps", "500"], "steps is 500, and there are"),
        (["--figure", "horizon.gif"], "figure is horizon.gif, needed is a name that ends in"),
    ],
)
def test_what_cannot_be_measured_is_refused(carried, words, said, capsys):
    assert main(["horizon", str(carried), *words]) == 2
    printed = capsys.readouterr().err
    assert said in printed and printed.count("\n") == 1


def test_the_probe_is_the_runs_own_model(sums):
    from gatewise.tasks.task import task_of

    task, config = task_of(Run.open(sums))
    probe = task.runner().probe(task, config, Run(sums), "best", None)
    own = load(sums)
    for one, other in zip(probe.model.parameters(), own.parameters(), strict=True):
        assert one.equal(other)
    assert probe.loss(probe.model(*probe.inputs)).dim() == 0


def test_a_truncation_longer_than_the_lanes_is_theirs(tmp_path_factory, capsys):
    """84 rows are trained on, in 4 lanes of 21; and a lane of the text has 405 characters."""
    file = write(tmp_path_factory.mktemp("data") / "load.csv", table())
    words = ["--data", str(file), "--target", "kw", "--time", "day", *WORDS, "--batch-size", "4"]
    assert horizons(run_of(tmp_path_factory, "series", *words, "--bptt", "1000")).reach == 21
    capsys.readouterr()
    one = run_of(tmp_path_factory, "series", *words, "--bptt", "1")
    capsys.readouterr()
    assert main(["horizon", str(one)]) == 0
    said = capsys.readouterr().out
    assert "gradients flowed through 1 step in training; looked at on" in said
    assert "1 step back, where training cut it off, " in said
    book = file.with_name("book.txt")
    book.write_text("the cat sat on the mat and looked at the rat. " * 40)
    words = ["--data", str(book), "--hidden-size", "8", "--num-layers", "1", "--batch-size", "4", "--epochs", "1"]
    found = horizons(run_of(tmp_path_factory, "text", *words, "--bptt", "5/1000"), steps=20)
    assert found.reach == -(-(int(0.85 * len(book.read_text())) - 1) // 4)


def test_of_a_text(tmp_path_factory):
    file = tmp_path_factory.mktemp("data") / "book.txt"
    file.write_text("the cat sat on the mat and looked at the rat. " * 40)
    words = ["--data", str(file), "--hidden-size", "8", "--num-layers", "1", "--batch-size", "4", "--bptt", "5/10"]
    folder = run_of(tmp_path_factory, "text", *words, "--epochs", "1")
    found = horizons(folder, steps=30)
    assert (found.reach, found.steps, found.step) == (10, 30, "character")
    assert found.layers[0].left == found.flow.layers[0].decay[10].item()
    with pytest.raises(ArgumentError, match="steps is 500, and the test part has"):
        horizons(folder, steps=500)


@pytest.mark.parametrize("per_step", [False, True])
def test_of_sequences_of_different_length(tmp_path_factory, per_step):
    rows = [(name, value) for name in range(20) for value in range(3 + name % 4)]
    columns = {"id": [n for n, _ in rows], "x": [v for _, v in rows], "who": ["ab"[n % 2] for n, _ in rows]}
    file = write(tmp_path_factory.mktemp("data") / "taps.csv", columns)
    words = ["--data", str(file), "--id", "id", "--target", "who", "--hidden-size", "4", "--epochs", "1"]
    folder = run_of(tmp_path_factory, "sequences", *words, "--dev-fraction", "0.2", *["--per-step"] * per_step)
    found = horizons(folder)
    assert found.reach is None and 3 <= found.steps <= 6 and found.step == "step"
    assert [layer.layer for layer in found.layers] == ["lstm.l0", "lstm.l0_reverse"]
    with pytest.raises(ArgumentError, match="steps is 3, and the sequences are as long as they are"):
        horizons(folder, steps=3)
