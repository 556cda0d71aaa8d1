"""The programs of benchmarks/: each says what it measured, and refuses in words what it cannot."""

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn

from gatewise.bench.grid import Size
from gatewise.bench.timing import Timing
from gatewise.cli import main
from gatewise.errors import ArgumentError

PROGRAMS = Path(__file__).parents[1] / "benchmarks"


def program(name, *words):
    """What a program prints, which ends well."""
    done = subprocess.run([sys.executable, PROGRAMS / name, *map(str, words)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def module(name):
    """A program as a module, for what is not its command line."""
    spec = importlib.util.spec_from_file_location(name, PROGRAMS / f"{name}.py")
    loaded = importlib.util.module_from_spec(spec)
    sys.modules[name] = loaded  # where a dataclass looks for its own module
    try:
        spec.loader.exec_module(loaded)
    finally:
        del sys.modules[name]
    return loaded


def test_sweep(tmp_path):
    json_path, figure = tmp_path / "sweep.json", tmp_path / "sweep.png"
    printed = program("sweep.py", "--quick", "--threads", 1, "--repeats", 2, "--json", json_path, "--figure", figure)
    assert printed.startswith("machine   ")
    for kind in ("forward", "training"):
        for peer in ("torch", "gatewise"):
            assert re.search(
                rf"^H = 100  {kind} +{peer} +\d\.\d+ of the straight line from 96 to 112", printed, flags=re.MULTILINE
            )
    written = json.loads(json_path.read_text())
    assert len(written["curves"]) == 5 * 2 * 2
    assert {curve["axis"] for curve in written["curves"]} == set("TBLH")
    for curve in written["curves"]:
        assert all(len(point["turns"]) == 2 for point in curve["points"])
        assert [curve["points"][end]["over_the_line"] for end in (0, -1)] == pytest.approx([1, 1])
    with Image.open(figure) as image:
        assert image.width > 1000


def test_the_line_through_the_ends():
    sweep = module("sweep")
    closely = sweep.Sweep("", "H", (96, 100, 112))
    assert closely.place(100) == 100 * (64 + 100)
    exact = [Timing((5.0 + 0.001 * closely.place(value),), (0,), 1) for value in closely.values]
    assert sweep.Curve(closely, "forward", "torch", tuple(exact)).over_the_line() == pytest.approx([1, 1, 1])
    exact[1] = Timing((exact[1].median * 1.2,), (0,), 1)
    assert " 1.200 of the straight line" in sweep.between(sweep.Curve(closely, "forward", "torch", tuple(exact)))


def test_memory():
    printed = program("memory.py", "--size", "4,10,8,64,2,2", "--steps", 2000, "--threads", 1)
    rows = {line.split()[0]: [float(n) for n in line.split()[1:]] for line in printed.splitlines()[-3:]}
    assert list(rows) == ["gatewise", "segments", "torch"]
    for before, peak, step, _, seconds, _ in rows.values():
        assert 50 < before < peak
        assert step == pytest.approx(peak - before, abs=0.2)
        assert seconds > 0
    gates = 2 * 2 * 4 * 64 * 2000 * 4 * 4 / 2**20
    # Some of it can lie where importing and warming up have left room: 31.25 of 31.8 MiB were seen.
    assert min(rows["gatewise"][2], rows["torch"][2]) > max(0.9 * gates, rows["segments"][2])
    assert rows["torch"][3] == 1
    assert rows["gatewise"][5] == 1
    assert "(4, 2000, 8, 64, 2, 2)" in printed


def test_threads():
    printed = program("threads.py", "--quick", "--sizes", "2,3,4,5,1,2", "--repeats", 2)
    for kind in ("forward", "training"):
        for peer in ("torch", "gatewise"):
            assert re.search(rf"^  {kind} +{peer} .* ms ± *\d+% over .*: \d+\.\d\dx$", printed, flags=re.MULTILINE)
    assert re.search(
        r"^  gatewise .* ms over lstm .* \+ head .* \+ adam .* = .* ms: \d+\.\d+$", printed, flags=re.MULTILINE
    )
    assert re.search(r"^fork-join \d+\.\d µs; OpenMP: \S+", printed, flags=re.MULTILINE)


def test_the_parts_of_a_training_step_are_those_of_the_whole():
    calls = module("threads").step_and_parts(Size(3, 4, 5, 6, 2, 2), nn.LSTM(5, 6, num_layers=2, bidirectional=True))
    assert list(calls) == ["whole", "lstm", "head", "adam"]
    for call in calls.values():
        call()


def test_bfloat16():
    printed = program("bfloat16.py", "--quick", "--threads", 1)
    rows = [re.fullmatch(r"\(.*\) +(gatewise|torch) (\w+) +(.*)", line) for line in printed.splitlines()[-10:]]
    assert [row.groups()[:2] for row in rows[:5]] == [
        ("gatewise", "module"),
        ("gatewise", "autocast"),
        ("torch", "module"),
        ("torch", "autocast"),
        ("gatewise", "float32"),
    ]
    for row in rows:
        who, how, cells = row.groups()
        if who == "gatewise":
            errors = [float(cell) for cell in cells.split()]
            assert len(errors) == 7
            assert max(errors) < (1e-5 if how == "float32" else 1e-2)
            assert min(errors) > (0 if how == "float32" else 1e-4)  # else it did not compute in bfloat16


def test_relative_errors_of_made_up_results():
    errors = module("bfloat16").errors
    exact = {"output": torch.tensor([3.0, 4.0]), "d_a": torch.ones(1), "d_b": torch.ones(1)}
    given = {"output": torch.tensor([3.0, 4.5]), "d_a": torch.tensor([1.25]), "d_b": torch.tensor([0.5])}
    found = errors(exact, given)
    assert (found["output"], found["d_weights"], found["d_x"]) == (pytest.approx(0.1), 0.5, 0)


@pytest.mark.parametrize(
    ("name", "words", "says"),
    [
        ("sweep", ["--repeats", "0"], r"argument --repeats: given is '0', needed is a whole number from 1 on$"),
        ("sweep", ["--json", "none/x.json"], r"^sweep: none/x.json cannot be written, needed is a file"),
        ("sweep", ["--figure", "x.bmp"], r"^sweep: figure is x.bmp, needed is a name that ends in .png"),
        ("memory", ["--steps", "x"], r"argument --steps: given is 'x'"),
        ("memory", ["--size", "1,2"], r"^memory: sizes has '1,2', needed"),
        ("memory", ["--size", "all"], r"^memory: size is all, needed is one"),
        ("memory", ["--only", "jax"], r"argument --only: invalid choice: 'jax'"),
        ("threads", ["--threads", "1"], r"argument --threads: given is '1', needed is a whole number from 2 on$"),
        ("threads", ["--sizes", "99"], r"^threads: sizes has '99', needed a row from 1 to 14"),
        ("insight", ["--size", "1,2"], r"argument --size: '1,2' is no size, needed is B,T,I,H such as 64,100,128,128"),
        ("stream", ["--sizes", "1,2"], r"argument --sizes: '1,2' is no size, needed is B,I,H such as 1,128,128"),
        ("horizons", ["/nowhere"], r"^horizons: /nowhere holds no runs: give a folder that gatewise memory made"),
        ("bfloat16", ["--sizes", "1,2"], r"^bfloat16: sizes has '1,2'"),
        ("ragged", ["--longest", "5"], r"^ragged: longest is 5, needed is at least shortest, 10: change one"),
    ],
)
def test_what_the_programs_refuse(monkeypatch, capsys, name, words, says):
    monkeypatch.setattr("sys.argv", [name, *words])
    with pytest.raises((SystemExit, ArgumentError)) as caught:
        module(name).main()
    message = (
        f"{name}: {caught.value}" if caught.type is ArgumentError else capsys.readouterr().err or caught.value.code
    )
    assert re.search(says, message.strip())


def test_insight():
    printed = program("insight.py", "--size", "2,3,4,5", "--rounds", 2, "--threads", 1)
    assert re.search(r"^trace +\d+\.\d ms   \d+\.\d\d of the training forward$", printed, flags=re.MULTILINE)
    assert re.search(
        r"^gradient flow, all steps +\d+\.\d ms   \d+\.\d\d of the training step$", printed, flags=re.MULTILINE
    )


def test_stream():
    printed = program("stream.py", "--sizes", "1,4,3", "2,3,5", "--rounds", 3)
    for name in ("torch.nn.LSTM", "torch.nn.LSTMCell", "gatewise.LSTM", "gatewise.Stream"):
        found = re.findall(rf"^  {name} +\d+\.\d µs at least, .* +(\d+\.\d\d)x, quartiles", printed, flags=re.MULTILINE)
        assert len(found) == 2
    assert found == ["1.00", "1.00"]  # the stream beside itself


def test_a_stream_that_differs_is_not_timed(monkeypatch):
    timed = module("stream")
    monkeypatch.setattr(timed.gatewise, "Stream", lambda lstm, batch_size: lambda x: torch.zeros(batch_size, 3))
    with pytest.raises(SystemExit, match=r"^stream: gatewise.Stream differs from gatewise.LSTM over the sequence"):
        timed.peers(2, 4, 3)


def test_ragged():
    words = ["--sequences", 20, "--shortest", 2, "--longest", 30, "--hidden-size", 4, "--repeats", 2, "--threads", 1]
    printed = program("ragged.py", *words)
    assert printed.startswith("20 sequences of 2 to 30 steps, ")
    rows = re.findall(r"^(\w.*?)  +\d+\.\d ± +\d+% .* (\d\.\d\d) of those there are$", printed, flags=re.MULTILINE)
    padding = {name: float(share) for name, share in rows}
    assert len(padding) == 8
    assert padding["torch, padded, similar"] == padding["gatewise, lengths, similar"] >= 1
    assert padding["torch, padded to all's longest"] > padding["torch, padded, random"]
    assert padding["torch, padded, random"] > padding["torch, padded, similar"]


def test_horizons(tmp_path):
    for cell in ("lstm", "gru"):
        words = [
            "--cell",
            cell,
            "--length",
            "6",
            "--epochs",
            "1",
            "--run",
            str(tmp_path / "all" / cell),
            "--threads",
            "1",
        ]
        assert main(["train", "digit-sum", *words]) == 0
    figure = tmp_path / "horizons.png"
    printed = program("horizons.py", tmp_path / "all", "--fraction", 0.5, "--figure", figure)
    for cell in ("gru", "lstm"):
        assert re.search(rf"^{cell} +6 +\d\.\d[+ ]± +0\.0 +\d\.\d[+ ]± +0\.0 +1$", printed, flags=re.MULTILINE)
    with Image.open(figure) as image:
        assert image.width > 700


def test_text(tmp_path):
    book = tmp_path / "book.txt"
    book.write_text("In the beginning was the Word. " * 40)
    sizes = ["--hidden-size", 8, "--batch-size", 2, "--bptt", 8, "--piece", 5, "--threads", 1]
    printed = program("text.py", book, *sizes, "--run", tmp_path / "run")
    assert printed.startswith("the largest difference of gradients is ")
    for name in ("gatewise", "torch"):
        assert re.search(
            rf"^{name} +\d+\.\d s per million characters .*, test \d\.\d{{4}} bits per character of 124$",
            printed,
            flags=re.MULTILINE,
        )
    assert main(["generate", str(tmp_path / "run"), "--prompt", "In", "--length", "9"]) == 0
