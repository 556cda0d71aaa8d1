"""gatewise inspect: what is gathered from a run and its task, and what it looks like in a browser."""

import importlib.util
import json
import re

import numpy as np
import pytest
import torch
from PIL import Image

from browser import browser_or_skip
from gatewise.cli import main
from gatewise.experiments.inspection import shared
from gatewise.experiments.inspection.classes import choose, picture_of, worst
from gatewise.experiments.inspection.report import inspect
from gatewise.insight.trace import trace
from gatewise.tasks.sequence_sum import look
from gatewise.tasks.task import Subject, task_of
from gatewise.train.run import Run

SMALL = ["--hidden-size", "6", "--threads", "1"]
NAMES = ['"><img src=x onerror=window.hacked=1>', "<script>window.hacked=1<", "{{7*7}}' || (window.hacked=1) || '"]


def run_of(folder, *words):
    assert main(["train", *map(str, words), "--run", str(folder), *SMALL]) == 0
    return folder


@pytest.fixture(scope="module")
def digits_run(tmp_path_factory):
    return run_of(tmp_path_factory.mktemp("runs") / "digits", "digits", "--epochs", 2)


@pytest.fixture(scope="module")
def sum_runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    words = ["digit-sum", "--length", 6, "--epochs", 3]
    return {cell: run_of(folder / cell, *words, "--cell", cell) for cell in ("lstm", "gru", "srn")}


@pytest.fixture(scope="module")
def images_run(tmp_path_factory):
    """A run on classes and files whose names would run, were they taken for code."""
    folder, generator = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for name in NAMES:
        (folder / "data" / name).mkdir(parents=True)
        for number in range(10):
            pixels = generator.integers(0, 256, (7, 9, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(folder / "data" / name / f'"><svg onload=window.hacked=1>{number}.png')
    return run_of(folder / "a <b>run", "images", "--data", folder / "data", "--colour", "--epochs", 2)


@pytest.fixture(scope="module")
def browser():
    browser = browser_or_skip()
    yield browser
    browser.close()


def printed(capsys, *words):
    capsys.readouterr()
    assert main([str(word) for word in words]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return out


def refused(capsys, *words):
    capsys.readouterr()
    assert main([str(word) for word in words]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1
    return err


def opened(browser, path):
    browser.complaints.clear()
    browser.requests.clear()
    browser.open(path)
    assert browser.complaints == []
    assert {address.split(":")[0] for address in browser.requests} <= {"file", "data"}
    return " ".join(browser.run("document.body.innerText").split())


def options(browser, parameter):
    return browser.run(f"[...document.querySelectorAll('[data-parameter={parameter}] option')].map(o => o.textContent)")


# --- what is found ------------------------------------------------------------------------------------------


def test_what_it_prints_and_writes(digits_run, capsys):
    out = printed(capsys, "inspect", digits_run).splitlines()
    assert re.fullmatch(r".*digits, best weights: test loss \d\.\d{4}, accuracy \d+\.\d\d% of 359", out[0])
    assert out[1].startswith("lstm.l0 (lstm): ") and out[2].startswith("lstm.l1 (lstm): ")
    assert out[3:] == [f"wrote {digits_run / 'report.html'}"]
    assert (digits_run / "report.html").read_text(encoding="utf-8").startswith("<!DOCTYPE html>")


@pytest.mark.parametrize("weights", ["best", "last"])
def test_json_agrees_with_evaluate(digits_run, tmp_path, capsys, weights):
    words = [digits_run, "--weights", weights, "--json"]
    evaluated = json.loads(printed(capsys, "evaluate", *words, "--figure", tmp_path / "mistakes.svg"))
    found = json.loads(printed(capsys, "inspect", *words, "docs/seven.png", "--out", tmp_path / "a.html"))
    assert found["report"] == str(tmp_path / "a.html") and found["weights"] == weights
    assert found["score"] == {"loss": evaluated["loss"], "accuracy": evaluated["accuracy"]}
    for mine, theirs in zip(found["mistakes"], evaluated["mistakes"], strict=True):
        assert mine["name"] == f"test image {theirs['place']}"
        assert (mine["truth"], mine["taken_for"]) == (theirs["truth"], theirs["taken_for"])
        assert mine["loss"] == pytest.approx(theirs["loss"], abs=1e-5)
    predicted = json.loads(printed(capsys, "predict", digits_run, "docs/seven.png", "--weights", weights, "--json"))
    first = found["sequences"][0]
    assert first["name"] == "docs/seven.png" and first["truth"] is None
    assert first["taken_for"] == str(predicted["label"])
    assert first["probability"] == pytest.approx(max(predicted["scores"]), abs=1e-5)
    assert len(found["sequences"]) == 8
    assert [layer["layer"] for layer in found["flow"]] == ["lstm.l0", "lstm.l1"]


def test_digits_given_to_a_sum(sum_runs, tmp_path, capsys):
    given = ["6 7 0 0 1 0 0 0", "9 9"]
    words = ["inspect", sum_runs["lstm"], *given, "--out", tmp_path / "a.html", "--json"]
    found = json.loads(printed(capsys, *words))
    assert [sequence["name"] for sequence in found["sequences"][:2]] == given
    label = json.loads(printed(capsys, "predict", sum_runs["lstm"], given[0], "--json"))["label"]
    assert found["sequences"][0]["taken_for"] == str(label)


def test_the_gates_are_those_of_the_given_sequence(sum_runs, tmp_path):
    run = Run.open(sum_runs["lstm"])
    inspect(run.folder, ["6 7 0 0 1"], out=tmp_path / "a.html")
    content = (tmp_path / "a.html").read_text(encoding="utf-8")
    numbers = json.loads(re.search(r'<script type="application/json" id="numbers">(.*?)</script>', content)[1])
    row = next(row for row in numbers["data"]["gate f"] if row["sample"] == 0)
    model = look(*task_of(run), run, "best", []).model
    expected = trace(model.cell, model.embedding(torch.tensor([[6, 7, 0, 0, 1]]))).f[0, 0, :, 0]
    torch.testing.assert_close(torch.tensor(row["values"]).reshape(5, 6), expected, atol=5.1e-4, rtol=0)
    assert row["reads"] == list("67001")


@pytest.mark.parametrize("cell", ["peephole", "cifg", "layer-norm", "slstm"])
def test_changed_cells_are_looked_into_as_the_plain_one(cell, tmp_path, capsys):
    run = run_of(tmp_path / cell, "digit-sum", "--length", 6, "--epochs", 1, "--cell", cell)
    found = json.loads(printed(capsys, "inspect", run, "6 7 0 0 1 0", "--out", tmp_path / "a.html", "--json"))
    assert found["flow"][0]["sentence"].startswith("cell.l0 (lstm): ")
    paths = re.findall(r'"path":\s*"(along|through|past)([^"]*)"', (tmp_path / "a.html").read_text(encoding="utf-8"))
    assert (("through", " f") in paths) == (cell != "cifg")
    assert (("through", " the peepholes") in paths) == (cell == "peephole")


def a_subject(truth, taken_for, classes=3):
    """Of samples that were taken for what is said, the later the surer."""
    scores = np.full((len(truth), classes), 0.1)
    scores[np.arange(len(truth)), taken_for] = 1 + np.arange(len(truth))
    logs = np.log(scores / scores.sum(axis=1, keepdims=True)).astype(np.float32)
    return Subject(None, None, None, "abc", None, np.array(truth), logs, "row", None, [])


def test_the_worst_mistakes_come_first_then_right_ones_of_each_class():
    subject = a_subject([0, 0, 1, 1, 2, 2, 0, 1], [0, 0, 1, 0, 2, 0, 1, 1])
    assert worst(subject) == [6, 5, 3]
    assert choose(subject, 8) == [6, 5, 3, 0, 2, 4, 1, 7]
    assert choose(subject, 4) == [6, 5, 0, 2]
    assert choose(subject, 0) == []
    assert choose(a_subject([0, 1], [0, 1]), 8) == [0, 1]
    assert choose(a_subject([0] * 9, [1] * 9), 8) == [8, 7, 6, 5, 4, 3, 2, 1]


def test_pictures_are_as_the_pixels_and_large_ones_shrink(tmp_path):
    pixels = np.random.default_rng(0).random((5, 7, 3)).astype(np.float32)
    (tmp_path / "a.png").write_bytes(picture_of(pixels))
    with Image.open(tmp_path / "a.png") as image:
        assert np.abs(np.asarray(image) / 255 - pixels).max() < 0.51 / 255
    (tmp_path / "b.png").write_bytes(picture_of(np.zeros((1000, 500), dtype=np.float32)))
    with Image.open(tmp_path / "b.png") as image:
        assert image.size == (128, 256)


def test_long_and_wide_models_have_their_gradient_followed_on_fewer_samples(sum_runs, tmp_path, monkeypatch):
    monkeypatch.setattr(shared, "FLOW_NUMBERS", 6 * 6 * 3)
    inspect(sum_runs["lstm"], out=tmp_path / "a.html")
    assert "on 3 of the test samples" in (tmp_path / "a.html").read_text(encoding="utf-8")


# --- what is refused ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (["no/such.png"], "no/such.png is no file: give the path of an image"),
        (["docs/seven.png"] * 9, "9 inputs are given, a report shows at most 8: give fewer"),
        (["--data", "x"], "the data of digits come with gatewise: leave it out"),
        (["--out", "no/such/folder/report.html"], "no/such/folder/report.html cannot be read or written"),
    ],
)
def test_refusals(digits_run, capsys, given, says):
    assert says in refused(capsys, "inspect", digits_run, *given)


def test_more_refusals(sum_runs, tmp_path, capsys, monkeypatch):
    assert "'6 x' is no sequence of digits" in refused(capsys, "inspect", sum_runs["lstm"], "6 x")
    assert "is no run folder" in refused(capsys, "inspect", tmp_path)
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "altair" else find_spec(name))
    said = refused(capsys, "inspect", sum_runs["lstm"])
    assert "needs packages that are not installed (altair): pip install 'gatewise[report]'" in said


def test_the_old_report_stays_where_no_new_one_comes(digits_run, tmp_path, capsys, monkeypatch):
    path = tmp_path / "a.html"
    path.write_text("old")
    refused(capsys, "inspect", digits_run, "no/such.png", "--out", path)
    monkeypatch.setattr("os.fsync", lambda descriptor: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    assert "make room" in refused(capsys, "inspect", digits_run, "--out", path)
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


# --- in a browser -------------------------------------------------------------------------------------------


def test_a_page_about_images(browser, digits_run, tmp_path):
    found = inspect(digits_run, ["docs/seven.png"], out=tmp_path / "a.html")
    shown = opened(browser, tmp_path / "a.html")
    titles = [
        "Settings and curves",
        "Results by class",
        "Worst mistakes",
        "Gates and memory",
        "How far back the gradient reaches",
    ]
    assert browser.run("[...document.querySelectorAll('h2')].map(h => h.textContent)") == titles
    assert browser.run("document.querySelector('h1').textContent") == "digits"
    right = round(found.score["accuracy"] * 359)
    assert f"{right} of 359 test samples are right ({right / 359:.2%})" in shown
    assert re.search(r"setting value default .*hidden_size 6 128 epochs 2 80", shown)
    assert "hidden_size" not in browser.run("document.querySelector('details').textContent")
    assert "learning_rate" in browser.run("document.querySelector('details').textContent")
    assert options(browser, "chosen_sample")[0].startswith("given: docs/seven.png, taken for ")
    assert options(browser, "chosen_layer") == ["lstm.l0", "lstm.l1"]
    assert options(browser, "chosen_unit") == list("012345")
    assert len(browser.run("[...document.querySelectorAll('.cards img')].map(i => i.naturalWidth)")) == 12
    assert browser.run("[...document.querySelectorAll('img')].every(i => i.naturalWidth === 8)")
    for layer in found.flow:
        assert layer["sentence"] in shown


@pytest.mark.parametrize("cell", ["lstm", "gru", "srn"])
def test_a_page_about_digit_sums(browser, sum_runs, tmp_path, cell):
    found = inspect(sum_runs[cell], ["6 7 0 0 1 0"], out=tmp_path / "a.html")
    shown = opened(browser, tmp_path / "a.html")
    assert "Results by sum" in shown and "6 7 0 0 1 0" in shown
    kind = {"gru": "a GRU", "srn": "a simple recurrent network (SRN)"}.get(cell)
    assert (f"The network is {kind}: it has no gates" in shown) == (cell != "lstm")
    assert bool(options(browser, "chosen_sample")) == (cell == "lstm")
    assert found.flow[0]["sentence"].startswith(f"cell.l0 ({cell}): ") and found.flow[0]["sentence"] in shown
    assert "Gradient over lag" in shown and ("Time constants" in shown) == (cell != "srn")


def test_names_of_classes_and_files_are_shown_and_never_run(browser, images_run, tmp_path):
    given = next((images_run.parent / "data" / NAMES[0]).iterdir())
    inspect(images_run, [str(given)], out=tmp_path / "a.html")
    shown = opened(browser, tmp_path / "a.html")
    assert browser.run("window.hacked") is None
    assert browser.run("document.querySelector('h1').textContent") == "a <b>run"
    everything = browser.run("document.body.textContent")
    for name in NAMES:
        assert name in everything
    assert str(given) in shown
    assert options(browser, "chosen_sample")[0].startswith("given: ")
    assert browser.run("document.documentElement.scrollWidth") == 1280
