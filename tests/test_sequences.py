"""Labelled sequences of different length: what is read and refused, how they are divided, trained, told and written."""

import dataclasses
import json
import re

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import gatewise
from gatewise.cli import main
from gatewise.data.sequences import Form, Layout, make_form, read_sequences
from gatewise.data.ts_file import read_ts
from gatewise.errors import ArgumentError, DataError, RunError
from gatewise.tasks import labelling
from gatewise.tasks.sequences import SequencesConfig, splits
from gatewise.tasks.task import task_of, tasks
from gatewise.train import keeper
from gatewise.train.config import read_config, write_config
from gatewise.train.run import Run
from of_tasks import ended, predicted, same_bytes_however_trained, train, write

SMALL = {"hidden_size": 6, "threads": 1, "epochs": 2, "batch_size": 8}
WORDS = ["--hidden-size", "6", "--threads", "1", "--epochs", "2", "--batch-size", "8"]
COLUMNS = {"id": "who", "step": "at", "target": "kind"}
NAMED = ["--id", "who", "--step", "at", "--target", "kind"]


@pytest.fixture(autouse=True)
def _no_curves(monkeypatch):
    """The curves of a training take longer to draw than such a training does; other tests look at them."""
    monkeypatch.setattr(keeper, "draw_curves", lambda *args, **kwargs: None)


def table(count=40, seed=0, **changes):
    """Sequences of 1 to 9 steps that go up or down, with a tag for each step: the columns as lists."""
    draws = np.random.default_rng(seed)
    columns = {name: [] for name in ("who", "at", "x", "y", "kind", "tag", "remark")}
    for number in range(count):
        kind = "up" if number % 2 else "down"
        x = np.cumsum(draws.normal(1 if kind == "up" else -1, 0.3, draws.integers(1, 10)))
        for step, value in enumerate(x.tolist()):
            row = (f"s{number}", 10 * step, value, draws.normal(), kind, "high" if value > 0 else "low", "a note")
            for column, cell in zip(columns.values(), row, strict=True):
                column.append(cell)
    return {name: list(changes.get(name, values)) for name, values in columns.items()}


def write_ts(path, sequences, labels, classes="a b"):
    lines = [":".join(",".join(map(str, column)) for column in np.transpose(one).tolist()) for one in sequences]
    ended = [f"{line}:{label}" for line, label in zip(lines, labels, strict=True)]
    head = ["# made for a test", f"@dimensions {len(sequences[0][0])}", f"@classLabel true {classes}", "@data"]
    path.write_text("\n".join([*head, *ended]))
    return path


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """A file that no test changes."""
    return write(tmp_path_factory.mktemp("data") / "taps.csv", table())


@pytest.fixture(scope="module")
def run(file, tmp_path_factory):
    """A run that nobody changes."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    words = ["train", "sequences", "--data", str(file), *NAMED, *WORDS]
    assert main([*words, "--epochs", "6", "--learning-rate", "0.02", "--run", str(folder)]) == 0
    return folder


@pytest.fixture(scope="module")
def tagged(file, tmp_path_factory):
    """A run with a label for each step, that nobody changes."""
    folder = tmp_path_factory.mktemp("runs") / "tagged"
    words = ["train", "sequences", "--data", str(file), "--id", "who", "--target", "tag", "--features", "x", "y"]
    assert main([*words, "--per-step", *WORDS, "--run", str(folder)]) == 0
    return folder


def config_of(file, **changes):
    return SequencesConfig(data=file, **COLUMNS | SMALL | changes)


# --- what is read -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_columns_of_a_file(tmp_path, ending):
    columns = {"who": [2, 10, 2, 10, 2], "at": [1, 1, 2, 5, 3], "x": [1.5, 2, 3, 4, 5], "kind": list("abaca")}
    columns |= {"note": list("vwxyz"), "y": [True, False, True, True, True] if ending == "parquet" else [1, 0, 1, 1, 1]}
    path = write(tmp_path / f"a.{ending}", columns | {"kind": [7, 8, 7, 8, 7]})
    found = read_sequences(path, Layout("who", "kind", "at"))
    assert (found.ids, found.classes, found.features, found.left_out) == (
        ("2", "10"),
        ("7", "8"),
        ("x", "y"),
        ("note",),
    )
    assert found.values.tolist() == [[1.5, 1], [3, 1], [5, 1], [2, 0], [4, 1]]
    assert (found.lengths.tolist(), found.labels.tolist()) == ([3, 2], [0, 1])
    assert found.clock.column().to_list() == [1, 2, 3, 1, 5]
    write(path, columns)
    found = read_sequences(path, Layout("who", "kind", features=("x",), per_step=True))
    assert [found.classes[label] for label in found.labels] == list("aaabc")
    assert found.clock.column().to_list() == [1, 2, 3, 1, 2]


@settings(deadline=None, max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.randoms(use_true_random=False))
def test_the_order_of_ids_in_a_file_changes_nothing(tmp_path, random):
    """Rows of a sequence stay in order; those of others may come between."""
    columns = table(12)
    left = {name: [row for row, own in enumerate(columns["who"]) if own == name] for name in columns["who"]}
    rows = []
    while left:
        name = random.choice(sorted(left))
        rows.append(left[name].pop(0))
        if not left[name]:
            del left[name]
    plain = write(tmp_path / "a.csv", columns)
    mixed = write(tmp_path / "b.csv", {name: [values[row] for row in rows] for name, values in columns.items()})
    for per_step in (False, True):
        layout = Layout("who", "tag" if per_step else "kind", "at", per_step=per_step)
        one, other = read_sequences(plain, layout), read_sequences(mixed, layout)
        assert one.sha256() == other.sha256()
        assert [rows[row] for row in other.rows] == one.rows.tolist()


def test_a_ts_file(tmp_path):
    path = tmp_path / "a.ts"
    path.write_text(
        "\ufeff#about\n\n%more\n@problemName a b\n@timeStamps false\n@missing False\n@univariate false\n"
        "@dimensions 2\n@equalLength false\n@classLabel true b a\n@DATA\n1,2.5,-3e1:4,5,6: a\n7:8:b\n"
    )
    found = read_sequences(path, Layout(None, None))
    assert (found.ids, found.classes, found.features) == (("1", "2"), ("a", "b"), ("dimension 1", "dimension 2"))
    assert found.values.tolist() == [[1, 4], [2.5, 5], [-30, 6], [7, 8]]
    assert (found.lengths.tolist(), found.labels.tolist()) == ([3, 1], [0, 1])
    path.write_text("@univariate true\n@equalLength true\n@seriesLength 2\n@classLabel false\n@data\n1,2\n3,4\n")
    found = read_sequences(path, Layout(None, None), labelled=False)
    assert (found.values.tolist(), found.labels.tolist()) == ([[1], [2], [3], [4]], [-1, -1])
    with pytest.raises(DataError, match=r"has no labels \(@classLabel\), needed is one of each sequence"):
        read_sequences(path, Layout(None, None))


# --- what is refused ----------------------------------------------------------------------------------------

FIVE = {"who": list("aabbb"), "at": [1, 2, 1, 2, 3], "x": [1, 2, 3, 4, 5], "kind": list("uuddd")}
BAD = {
    "no column": ({}, ["--target", "sort"], r"taps.csv has no column 'sort', there are who, at, x, kind: name one"),
    "no id column": ({}, ["--id", "id"], r"taps.csv has no column 'id'"),
    "not numeric": ({"x": [1, "two", 3, 4, 5]}, [], r"row 2: x is 'two', needed is a number: mend the file"),
    "not numeric at all": ({}, ["--features", "kind", "--target", "x"], r"row 1: kind is 'u', needed is a number"),
    "nan": ({"x": [1, 2, float("nan"), 4, 5]}, [], r"row 3: x is 'NaN', needed is a finite number: mend the file"),
    "infinity": ({"x": [1, 2, 3, float("-inf"), 5]}, [], r"row 4: x is '-inf', needed is a finite number: mend"),
    "too large": ({"x": [1, 2, 3, 4, 1e200]}, [], r"row 5: x is '1e\+200', needed is a number up to 1e\+150"),
    "empty": ({"x": [1, None, 3, 4, 5]}, [], r"row 2: x is empty, needed is a number: fill it, or remove the row"),
    "nothing to read": ({"x": list("abcde")}, [], r"taps.csv has no column of numbers beside who, kind, at: add what"),
    "steps go back": (
        {"at": [1, 2, 1, 3, 2]},
        [],
        r"row 5: at is 2 after 3, needed are steps that increase in b: sort",
    ),
    "a step twice": ({"at": [1, 1, 1, 2, 3]}, [], r"row 2: at is 1 a second time, needed are steps that increase in a"),
    "no step": (
        {"at": [1, 2, "soon", 2, 3]},
        [],
        r"row 1: at is '1', needed is a number or a date .*, or give --step-f",
    ),
    "an empty id": ({"who": ["a", "a", None, "b", "b"]}, [], r"row 3: who is empty, needed is a name"),
    "no label": ({"kind": ["u", "u", "d", "", "d"]}, [], r"row 4: kind is empty, needed is a name"),
    "two labels": ({"kind": list("uuddu")}, [], r"row 5: kind is 'u' and was 'd' in the sequence's first row, needed"),
    "numbers as labels": (
        {"kind": [0.5, 0.5, 1, 1, 1]},
        [],
        r"row 1: kind is '0.5', needed are names or whole numbers",
    ),
    "a column twice": ({}, ["--features", "x", "kind"], r"the column 'kind' is given twice, needed is one use of each"),
    "too few of a class": (
        {},
        [],
        r"the class 'd' has 1 sequence, needed are at least 6 for some in each part \(test_fr",
    ),
    "too few to tag": ({}, ["--per-step"], r"there are 2 sequences, needed are at least 6 for some in each part"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_file_that_is_not_in_order_is_a_line(tmp_path, capsys, name):
    changes, words, says = BAD[name]
    path = write(tmp_path / "taps.csv", FIVE | changes)
    ended(["train", "sequences", "--data", path, *NAMED, *WORDS, "--run", tmp_path / "run", *words], capsys, says)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"who,kind,x\n\xff\xfe,a,1\n", r"cannot be read as a table \(invalid utf-8 sequence\): give CSV in UTF-8"),
        (b"", r"cannot be read as a table \(empty CSV\)"),
        (b"who,kind,at,x,x\na,u,1,2,3\n", r"has two columns 'x', needed is one: rename the other"),
        (b"who;kind;at;x\n", r"begins with 'who;kind;at;x', needed are columns with commas between: convert it"),
        (None, "is no file: give the path of a CSV or Parquet file"),
    ],
)
def test_bytes_that_are_no_table(tmp_path, capsys, content, says):
    if content is not None:
        (tmp_path / "a.csv").write_bytes(content)
    ended(["train", "sequences", "--data", tmp_path / "a.csv", *NAMED, "--run", tmp_path / "run"], capsys, says)
    with pytest.raises(DataError, match=r"a.arff is of no known kind, needed is a file that ends in .csv, .parquet or"):
        read_sequences(tmp_path / "a.arff", Layout("who", "kind"))


def test_labels_of_a_type_that_has_no_names(tmp_path):
    path = write(tmp_path / "a.parquet", FIVE | {"kind": [1.0, 1.0, 2.0, 2.0, 2.0]})
    with pytest.raises(DataError, match=r"kind holds values of type Float64, needed are names or whole numbers"):
        read_sequences(path, Layout("who", "kind"))


HEAD = "@dimensions 2\n@classLabel true a b\n@data\n"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"\xff\xfe", r"a.ts cannot be read as text \(.*utf-8.*\): give a .ts file in UTF-8"),
        (None, "a.ts is no file: give the path of a .ts file"),
        ("", "a.ts has no line @data, needed is one before the sequences"),
        (HEAD, "a.ts holds no sequences after @data"),
        ("@relation x\n" + HEAD, r"line 1: '@relation x' is no line of a .ts header, needed is one of @problemname, "),
        ("1,2:a\n", r"line 1: '1,2:a' is no line of a .ts header"),
        ("@timestamps true\n", r"line 1: @timestamps true says that there are time stamps, which are not read here"),
        ("@missing true\n", r"line 1: @missing true says that there are missing values, which are not read here"),
        ("@targetlabel true\n", r"says that there are targets that are numbers"),
        ("@univariate yes\n", r"line 1: @univariate yes is neither true nor false: mend the file"),
        ("@dimensions none\n", r"line 1: @dimensions none has no number from 1 on"),
        ("@classLabel true\n", r"@classLabel true names no class"),
        (HEAD + "1:2:c\n", r"line 4: the label is 'c', needed is one of a, b, as @classLabel says: mend the file"),
        (HEAD + "1:a\n", r"line 4 has 1 dimensions, needed are 2"),
        (HEAD + "1,2:3:a\n", r"line 4: the dimensions have 1 to 2 steps, needed are as many in each"),
        (HEAD + "1,?:3,4:a\n", r"line 4, dimension 1, step 2 is missing \('\?'\), needed is a number: fill it"),
        (HEAD + "1,2:3,:a\n", r"line 4, dimension 2, step 2 is missing \(''\)"),
        (HEAD + "1,2:3,x:a\n", r"line 4, dimension 2, step 2 is 'x', needed is a number: mend the file"),
        (HEAD + "1,NaN:3,4:a\n", r"line 4, dimension 1, step 2 is NaN, needed is a finite number up to 1e\+150"),
        (HEAD + "1,2:3,inf:a\n", r"line 4, dimension 2, step 2 is inf, needed is a finite number"),
        (
            "@equalLength true\n" + HEAD + "1,2:3,4:a\n1:2:b\n",
            r"line 6 has 1 steps, needed are 2, as @equalLength says",
        ),
    ],
)
def test_a_ts_file_that_is_not_in_order(tmp_path, content, says):
    if content is not None:
        (tmp_path / "a.ts").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError, match=says):
        read_ts(tmp_path / "a.ts")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"id": None}, "id is None, needed is the name of a column, as data is no .ts file"),
        ({"target": None}, "target is None, needed is the name of a column"),
        ({"id": "probability"}, "id is probability, needed is another name, as predictions have such a column"),
        ({"step": None, "step_format": "%Y"}, "step_format is %Y, needed is left out where there is no step"),
        ({"per_step": True, "read": "last"}, "read is last, needed is left out where each step has a label"),
        ({"test_fraction": 0.0}, "test_fraction is 0.0, needed is a number above 0 and below 1"),
        ({"dev_fraction": 0.8}, "dev_fraction is 0.8, needed is below 0.8, as test_fraction is the rest"),
    ],
)
def test_settings_out_of_range(file, changes, says):
    with pytest.raises(ArgumentError, match=says):
        config_of(file, **changes)


def test_settings_of_a_ts_file_and_of_a_test_file(file, tmp_path):
    for name in ("id", "target", "step"):
        with pytest.raises(ArgumentError, match=f"{name} is x, needed is left out where data is a .ts file"):
            SequencesConfig(data=tmp_path / "a.ts", **{name: "x"})
    with pytest.raises(ArgumentError, match=r"test is .*, needed is another file than data"):
        config_of(file, test=file)
    with pytest.raises(ArgumentError, match=r"test_fraction is 0.1, needed is left out where there is a file for the"):
        config_of(file, test=tmp_path / "b.csv", test_fraction=0.1)


# --- how they are divided -----------------------------------------------------------------------------------


def test_parts_are_of_whole_sequences_and_of_each_class(file):
    parts = splits(config_of(file, dev_fraction=0.2))
    assert {name: len(part) for name, part in parts.items()} == {"train": 24, "dev": 8, "test": 8}
    ids = [name for part in parts.values() for name in part.ids]
    assert sorted(ids) == sorted(set(table()["who"]))
    for part in parts.values():
        assert np.bincount(part.labels).tolist() == [len(part) / 2] * 2
    again, other = splits(config_of(file, dev_fraction=0.2)), splits(config_of(file, dev_fraction=0.2, seed=1))
    assert again["dev"].ids == parts["dev"].ids != other["dev"].ids
    assert "dev" not in splits(config_of(file, dev_fraction=0.0))


def test_the_scaling_is_that_of_the_training_part(file):
    parts = splits(config_of(file))
    form = make_form(parts["train"])
    scaled = form.scaled(parts["train"])
    np.testing.assert_allclose(scaled.mean(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(scaled.std(axis=0), 1, atol=1e-6)
    assert abs(form.scaled(parts["test"]).mean(axis=0)).max() > 1e-3
    assert Form.from_json(form.to_json()) == form


def test_labels_that_the_training_part_has_not(file, tmp_path):
    other = write(tmp_path / "b.csv", table(6, kind=["sideways"] * len(table(6)["who"])))
    says = r"b.csv: the label 'sideways' of s0 is none of the 2 that are trained on \(down, up\): remove the sequence"
    with pytest.raises(DataError, match=says):
        splits(config_of(file, test=other))
    columns = table()
    columns["tag"][columns["who"].index("s7")] = "once"
    config = config_of(write(tmp_path / "c.csv", columns), target="tag", per_step=True, features=("x",))
    assert "s7" in splits(config)["train"].ids
    with pytest.raises(DataError, match="the label 'once' of s7 is none of the 2 that are trained on"):
        splits(dataclasses.replace(config, seed=6))
    with pytest.raises(DataError, match=r"has the label 'note' alone, needed are at least two: give other data"):
        splits(config_of(write(tmp_path / "d.csv", table(kind=["note"] * len(table()["who"])))))


# --- training and afterwards --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {"accumulate": 2},
        {"per_step": True, "target": "tag", "features": ("x",)},
        {"read": "last", "bidirectional": False},
    ],
)
def test_repeated_and_resumed_runs_give_the_same_bytes(file, tmp_path, changes):
    config = config_of(file, batch_size=4, num_layers=2, dropout=0.2, **changes)
    same_bytes_however_trained(config, tmp_path, 3)


def test_other_data_are_not_resumed_nor_evaluated(tmp_path):
    path = write(tmp_path / "a.csv", table())
    config = config_of(path)
    train(config, tmp_path / "run")
    write(path, table(seed=1))
    with pytest.raises(RunError, match="is of other data than are there now"):
        train(config, tmp_path / "run", resume=True)
    with pytest.raises(DataError, match=r"the test part has other sequences than at the training, and may have some"):
        labelling.evaluate(tasks()["sequences"], config, Run(tmp_path / "run"), "best")


def test_settings_come_back_from_the_file(file, tmp_path):
    for each in (config_of(file), config_of(file, test=tmp_path / "b.csv", features=("x", "y"))):
        write_config(tmp_path / "config.toml", "sequences", each)
        assert read_config(tmp_path / "config.toml", {"sequences": SequencesConfig}) == ("sequences", each)


def test_up_and_down_are_learned(tmp_path):
    config = config_of(write(tmp_path / "a.csv", table(120)), epochs=15, learning_rate=0.02)
    train(config, tmp_path / "run")
    score = labelling.evaluate(tasks()["sequences"], config, Run(tmp_path / "run"), "best")
    assert (score.samples, score["accuracy"] > 0.9) == (24, True)
    high = dataclasses.replace(config, target="tag", per_step=True, features=("x",))
    train(high, tmp_path / "tags")
    score = labelling.evaluate(tasks()["sequences"], high, Run(tmp_path / "tags"), "best")
    assert (score.samples, score["accuracy"] > 0.9) == (24, True)


def test_an_evaluation(run, tmp_path, capsys):
    assert main(["evaluate", str(run), "--json", "--figure", str(tmp_path / "a.png")]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["samples"], found["of"], found["classes"]) == (8, "sequence", ["down", "up"])
    matrix = np.array(found["confusion"])
    assert matrix.sum(axis=1).tolist() == [4, 4]
    assert found["accuracy"] == pytest.approx(np.trace(matrix) / 8)
    assert len(found["mistakes"]) == 8 - np.trace(matrix)
    assert (tmp_path / "a.png").read_bytes()[1:4] == b"PNG"
    assert main(["evaluate", str(run)]) == 0
    out = capsys.readouterr().out
    assert f"loss {found['loss']:.4f}, accuracy {found['accuracy']:.2%} of 8 sequences" in out
    assert re.search(r"^class +sequences +right +share \(recall\) +taken for it +right of those", out, re.MULTILINE)
    assert re.search(rf"^up +4 +{matrix[1, 1]} +{matrix[1, 1] / 4:.2%} +{matrix[:, 1].sum()} ", out, re.MULTILINE)


def test_an_evaluation_of_steps(tagged, capsys):
    assert main(["evaluate", str(tagged), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    _, config = task_of(Run.open(tagged))
    tested = splits(config)["test"]
    assert (found["samples"], found["of"], np.sum(found["confusion"])) == (8, "step", tested.lengths.sum())
    verdicts = labelling.judge(tasks()["sequences"], config, Run(tagged), "best")
    right = (verdicts.taken_for == verdicts.truth).astype(float)
    means = [own.mean() for own in np.split(right, tested.starts[1:])]
    assert found["accuracy"] == pytest.approx(np.mean(means))
    losses = -verdicts.log_scores[np.arange(len(right)), verdicts.truth]
    assert found["loss"] == pytest.approx(
        np.mean([own.mean() for own in np.split(losses, tested.starts[1:])]), rel=1e-5
    )
    assert re.fullmatch(r"sequence s\d+, step \d+", found["mistakes"][0]["file"])


def test_predictions_for_a_file(run, tmp_path, capsys):
    columns = {name: values[::-1] for name, values in table(9, seed=3).items()}  # the last one first
    columns["at"] = [-at for at in columns["at"]]
    del columns["kind"]
    path = write(tmp_path / "new.csv", columns)
    lines = predicted(run, path, capsys).out.splitlines()
    assert lines[0] == "who,kind,probability"
    assert [line.split(",")[0] for line in lines[1:]] == [f"s{n}" for n in range(8, -1, -1)]
    written = tmp_path / "labels.parquet"
    assert predicted(run, path, capsys, "--out", str(written)).err == f"wrote {written}\n"
    frame = pl.read_parquet(written)
    assert [f"{who},{kind}" for who, kind in frame.select("who", "kind").rows()] == [
        line.rsplit(",", 1)[0] for line in lines[1:]
    ]
    found = json.loads(predicted(run, path, capsys, "--json").out)["labels"]
    assert found[0] == {"who": "s8", "kind": frame["kind"][0], "probability": pytest.approx(frame["probability"][0])}
    # Each alone in a file: the same, within what float32 sums of another order differ by.
    for row in frame.rows():
        rows = [place for place, who in enumerate(columns["who"]) if who == row[0]]
        write(path, {name: [values[place] for place in rows] for name, values in columns.items()})
        (alone,) = json.loads(predicted(run, path, capsys, "--json").out)["labels"]
        assert (alone["kind"], alone["probability"]) == (row[1], pytest.approx(row[2], rel=1e-5))


def test_predictions_for_steps(tagged, tmp_path, capsys):
    columns = {"who": list("baabb"), "x": [1, 2, 3, 4, 5.0], "y": [0.1] * 5, "tag": ["low", None, None, "", ""]}
    path = write(tmp_path / "new.csv", columns)
    rows = [line.split(",") for line in predicted(tagged, path, capsys).out.splitlines()]
    assert rows[0] == ["who", "step", "tag", "probability"]
    assert [row[:2] for row in rows[1:]] == [["b", "1"], ["a", "1"], ["a", "2"], ["b", "2"], ["b", "3"]]
    model = gatewise.load(tagged)
    form = json.loads(gatewise.train.tensors.read_tensors(Run(tagged).weights("best"))[1]["form"])
    x = (np.array([[1, 0.1], [4, 0.1], [5, 0.1]]) - form["mean"]) / form["deviation"]
    scores = model(torch.tensor(x, dtype=torch.float32)[None]).softmax(2)[0]
    for row, score in zip([rows[1], rows[4], rows[5]], scores, strict=True):
        assert row[2] == form["classes"][int(score.argmax())]
        assert float(row[3]) == pytest.approx(score.max().item(), rel=1e-5)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"y": None}, r"new.csv has no column 'y', there are who, at, x, kind, tag, remark: name one of them"),
        ({"kind": ["up", "sideways"] * 2}, r"new.csv: the label 'sideways' of s1 is none of the 2 that are trained on"),
        (
            {"at": [1, 1, 1, 1], "who": ["s0"] * 4},
            r"row 2: at is 1 a second time, needed are steps that increase in s0",
        ),
        ({"x": [1, 2, "", 3]}, r"row 3: x is empty, needed is a number: fill it, or remove the row"),
    ],
)
def test_a_file_that_cannot_be_labelled_is_a_line(run, tmp_path, capsys, changes, says):
    columns = {"who": ["s0", "s1", "s2", "s3"], "at": [1] * 4, "x": [1.0] * 4, "y": [1.0] * 4, "kind": ["up"] * 4}
    columns |= {"tag": ["high"] * 4, "remark": [""] * 4} | changes
    path = write(tmp_path / "new.csv", {name: values for name, values in columns.items() if values is not None})
    ended(["predict", run, path], capsys, says)


def test_a_ts_file_with_its_test_file(tmp_path, capsys):
    draws = np.random.default_rng(0)
    labels = ["a", "b"] * 12
    sequences = [
        draws.normal(1 if label == "a" else -1, 0.5, (draws.integers(1, 7), 2)).round(3).tolist() for label in labels
    ]
    data = write_ts(tmp_path / "a.ts", sequences[:20], labels[:20])
    test = write_ts(tmp_path / "b.ts", sequences[20:], labels[20:])
    words = ["train", "sequences", "--data", str(data), "--test", str(test), *WORDS, "--run", str(tmp_path / "run")]
    assert main(words) == 0
    assert "data    18 train, 2 dev, 4 test sequences of 1 to 6 steps" in capsys.readouterr().out
    moved = test.rename(tmp_path / "c.ts")
    assert main(["evaluate", str(tmp_path / "run"), "--data", str(moved), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["samples"] == 4
    lines = predicted(tmp_path / "run", moved, capsys).out.splitlines()
    assert lines[0] == "id,label,probability"
    assert [line.split(",")[0] for line in lines[1:]] == ["1", "2", "3", "4"]
    bare = tmp_path / "bare.ts"
    bare.write_text("@dimensions 1\n@classLabel false\n@data\n1,2\n")
    ended(["predict", tmp_path / "run", bare], capsys, "has 1 dimensions, needed are the 2 features of the training")
    csv = write(tmp_path / "a.csv", FIVE)
    ended(["predict", tmp_path / "run", csv], capsys, "a.csv is a table, needed is a .ts file, as at the training")


def test_a_ts_file_where_the_training_had_a_table(run, tmp_path, capsys):
    two = write_ts(tmp_path / "a.ts", [np.ones((3, 2)), np.ones((2, 2))], "ab")
    ended(["predict", run, two], capsys, "a.ts is a .ts file, needed is a table, as at the training: give one")


# --- the command line ---------------------------------------------------------------------------------------


def test_options_that_do_not_fit(run, tagged, file, capsys):
    ended(["predict", run, file, "--out", "a.txt"], capsys, "out is a.txt, needed is a name that ends in .csv or")
    ended(["predict", run, file, "--figure", "a.png"], capsys, "figure is for forecasts of series, and sequences have")
    ended(["evaluate", run, "--figure", "a.gif"], capsys, "figure is a.gif, needed")
    ended(["inspect", tagged], capsys, "gatewise inspect is for one label a sequence, and the run has one a step")
    ended(["inspect", run, file], capsys, "gatewise inspect shows the test part of sequences, and '.*' is given")


def test_inspect_shows_sequences_of_different_length(run, tmp_path, capsys):
    pytest.importorskip("altair")
    assert main(["inspect", str(run), "--json", "--out", str(tmp_path / "a.html")]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["samples"] == 8
    assert all(re.fullmatch(r"sequence s\d+", one["name"]) for one in found["sequences"])
    assert [layer["layer"] for layer in found["flow"]] == ["lstm.l0", "lstm.l0_reverse"]


def test_runs_compare_and_tune_know_sequences(run, file, tmp_path, capsys):
    config = task_of(Run.open(run))[1]
    train(dataclasses.replace(config, seed=1), tmp_path / "other")
    assert main(["runs", str(run.parent)]) == 0
    assert re.search(r"sequences +ended +6/6", capsys.readouterr().out)
    assert main(["compare", str(run), str(tmp_path / "other"), "--figure", str(tmp_path / "a.png")]) == 0
    assert "seed 1" in capsys.readouterr().out


def test_tune_searches_settings_of_sequences(file, tmp_path, capsys):
    pytest.importorskip("optuna")
    words = ["tune", "sequences", "--data", str(file), *NAMED, *WORDS, "--search", "hidden_size=4,6"]
    assert main([*words, "--trials", "2", "--processes", "1", "--run", str(tmp_path / "search")]) == 0
    assert (tmp_path / "search" / "best.toml").is_file()


def test_the_training_says_what_it_reads(file, tmp_path, capsys):
    words = ["train", "sequences", "--data", str(file), "--id", "who", "--target", "kind", *WORDS]
    assert main([*words, "--run", str(tmp_path / "run")]) == 0
    out = capsys.readouterr().out
    assert re.search(r"data    28 train, 4 dev, 8 test sequences of 1 to 9 steps, \d+ in all\n", out)
    assert "read    at, x, y; left out, as they begin with no number: tag, remark\n" in out
    assert "classes down, up\n" in out
    assert "model   LSTM 3→6, both directions, 1 layer, 2 classes, " in out
