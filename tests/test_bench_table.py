"""The table, summary and figure of a benchmark."""

import math

import pytest

from gatewise.bench.figure import draw_figure
from gatewise.bench.grid import GRID
from gatewise.bench.report import Row
from gatewise.bench.summary import FASTEST, summarize, summary_lines
from gatewise.bench.table import Table, overhead_lines, reasons
from gatewise.bench.timing import Timing


def made_up(kind="forward", **changes):
    own = Timing((2.0,) * 21, tuple(range(21)), 9)
    timings = {
        "gatewise": own,
        "torch": Timing((5.0,) * 21, own.rounds, 9),
        "jax": Timing((1.0,) * 5, own.rounds[:5], 9),
    }
    given = {"fork_join": 4.2e-6, "absent": {"onnxruntime": "inference only"} if kind == "training" else {}} | changes
    ceilings = {"square": 100.0, "layer": 50.0, "step": 10.0}
    return Row("plain", kind, GRID[8], 200_000_000, "kernel: why", timings, ceilings, **given)


def test_the_table_divides_and_says_what_is_missing():
    row = made_up("training", wrong={"gate-loop": "d_x is off"})
    assert row.gflops() == pytest.approx(100)
    assert row.share("square") == pytest.approx(1)
    line = Table(["torch", "jax", "onnxruntime", "gate-loop"], repeats=21).line(row)
    assert line.split() == (
        [
            "9",
            "(256,",
            "50,",
            "64,",
            "64,",
            "1,",
            "1)",
            "training",
            "4.2",
            "2.000",
            "±",
            "0%",
            "100.0",
            "100%",
            "200%",
            "1000%",
            "2.50x",
            "0.50x",
            "(5)",
            "n/a",
            "differs",
        ]
    )
    heads = Table(["torch", "jax"], repeats=21).head(row)
    assert len(heads[1]) == len(Table(["torch", "jax"], repeats=21).line(row))


def test_a_row_without_gatewise_has_no_numbers():
    row = made_up(wrong={"gatewise": "output is off"})
    row.timings.clear()
    assert Table(["torch"], 21).line(row).endswith("not timed: it differs")
    assert overhead_lines([row])[1].endswith("not timed: it differs")


def test_each_reason_is_given_once():
    rows = [made_up(), made_up("training"), made_up("training")]
    assert reasons(rows) == ["n/a  onnxruntime: inference only (every training row)"]
    rows[0].absent["jax"] = "RuntimeError: no"
    assert reasons(rows)[0] == "n/a  jax: RuntimeError: no (every forward row)"
    rows.append(made_up())
    assert reasons(rows)[0] == "n/a  jax: RuntimeError: no (forward (256, 50, 64, 64, 1, 1))"


def ratios(form, kind, size, **times):
    return Row(form, kind, size, 1, "", {name: Timing((t,), (0,), 1) for name, t in times.items()})


def test_the_summary_of_made_up_rows():
    rows = [
        ratios("plain", "forward", GRID[0], gatewise=1.0, torch=2.0, jax=3.0),
        ratios("plain", "forward", GRID[1], gatewise=2.0, torch=16.0, jax=3.0),
        ratios("plain", "forward", GRID[2], torch=1.0),  # gatewise was not timed
        ratios("plain", "training", GRID[0], gatewise=1.0, torch=0.5),
        ratios("packed", "forward", GRID[0], gatewise=1.0, torch=2.0, jax=0.5),
    ]
    found = {(s.form, s.kind, s.peer): s for s in summarize(rows)}
    assert list(found) == [
        ("plain", "forward", "torch"),
        ("plain", "forward", "jax"),
        ("plain", "forward", FASTEST),
        ("plain", "training", "torch"),  # the only one, and so the fastest
        ("packed", "forward", "torch"),
        ("packed", "forward", "jax"),
    ]
    torch_s, jax_s, fastest = (found["plain", "forward", name] for name in ("torch", "jax", FASTEST))
    assert (torch_s.rows, torch_s.mean, torch_s.lowest, torch_s.at) == (2, pytest.approx(4), 2, GRID[0])
    assert (jax_s.mean, jax_s.lowest, jax_s.at) == (pytest.approx(math.sqrt(4.5)), 1.5, GRID[1])
    assert (fastest.mean, fastest.lowest, fastest.at) == (pytest.approx(math.sqrt(3)), 1.5, GRID[1])
    assert found["plain", "training", "torch"].lowest == 0.5
    lines = summary_lines({"default": summarize(rows), "tuned": summarize(rows[:1])})
    assert [line.split()[3] for line in lines[2:5]] == ["default", "tuned", "default"]
    assert summary_lines({"default": []}) == []


@pytest.mark.parametrize("ending", ["png", "pdf", "svg"])
def test_a_figure_of_all_peers(tmp_path, ending):
    path = tmp_path / f"figure.{ending}"
    draw_figure(path, [made_up(), made_up("training")], "a machine")
    assert path.stat().st_size > 5000
