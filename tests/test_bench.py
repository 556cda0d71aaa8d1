"""The benchmark: that it compares, counts, divides and says the right things. Nothing here depends on how fast."""

import json
import math
import os
import platform
import subprocess
import sys
import warnings

import pytest
import torch
from PIL import Image

from gatewise import kernels
from gatewise.bench.ceiling import products
from gatewise.bench.check import PeerError, difference, tolerance
from gatewise.bench.config import FORMS, PEERS, BenchConfig
from gatewise.bench.figure import draw_figure
from gatewise.bench.grid import GRID, Size, flops, read_sizes
from gatewise.bench.machine import describe
from gatewise.bench.malloc import TUNED, ChildError, check_tunable
from gatewise.bench.pair import compared
from gatewise.bench.peers import Call, CellLoop, GateLoop, Gatewise, Peer, Torch
from gatewise.bench.protocol import mean_of_hundred
from gatewise.bench.report import Row
from gatewise.bench.run import PEERS as PEER_OBJECTS
from gatewise.bench.run import run
from gatewise.bench.summary import FASTEST, summarize, summary_lines
from gatewise.bench.table import Table, overhead_lines, reasons
from gatewise.bench.timing import Timing, measure
from gatewise.bench.work import draw
from gatewise.errors import ArgumentError, GatewiseError, KernelError

TINY = Size(3, 4, 5, 6, 2, 2)
TINY_WORD = "3,4,5,6,2,2"


@pytest.fixture(autouse=True)
def one_thread():
    """Several threads for tiny sizes wait for one another where the machine is busy."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def tiny(**changes):
    return BenchConfig(**{"sizes": (TINY_WORD,), "quick": True} | changes)


# --- sizes and counts ---------------------------------------------------------------------------------------


def test_the_grid_is_that_of_the_issue():
    assert len(GRID) == len(set(GRID)) == 14
    assert GRID[5] == Size(64, 28, 28, 100, 2, 2)
    assert [size.D for size in GRID].count(2) == 1
    assert read_sizes(["all"]) == GRID


def test_flops_are_those_of_the_products():
    B, T, I, H, _, D = TINY
    by_hand = sum(D * T * 2 * B * 4 * H * (inputs + H) for inputs in (I, D * H))
    assert flops(TINY, "forward") == by_hand
    assert flops(TINY, "training") == 3 * by_hand
    assert flops(TINY, "forward", steps=7) * T * B == by_hand * 7
    P = 3
    projected = sum(D * T * 2 * B * (4 * H * (inputs + P) + P * H) for inputs in (I, D * P))
    assert flops(TINY, "forward", proj_size=P) == projected


def test_sizes_by_number_by_hand_and_once():
    assert read_sizes(["2", "1,2,3,4,5", "2", TINY_WORD]) == (GRID[1], Size(1, 2, 3, 4, 5, 1), TINY)
    assert read_sizes(["all", "2"], every=GRID[:1]) == GRID[:2]
    assert len(BenchConfig(quick=True).chosen_sizes()) == 2


@pytest.mark.parametrize(
    "word", ["0", "15", "x", "", "1,2", "1,2,3,4,0", "1,2,3,4,5,3", "1,2,3,4,5,6,7", "-1", "1,,2,3,4"]
)
def test_other_sizes_are_refused_in_a_line(word):
    with pytest.raises(ArgumentError, match=r"^sizes has .*, needed a row from 1 to 14, .*: change it$"):
        BenchConfig(sizes=(word,))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"sizes": ()}, "sizes is empty"),
        ({"repeats": 1}, "repeats is 1"),
        ({"seconds": 0.0}, "seconds is 0.0"),
        ({"seconds": math.nan}, "seconds is nan"),
        ({"threads": -1}, "threads is -1"),
        ({"peers": ("keras",)}, "peers is keras, needed is one or more of torch, cell-loop, .*jax, all"),
        ({"kinds": ()}, "kinds is empty"),
        ({"forms": ("sideways",)}, "forms is sideways"),
        ({"malloc": "jemalloc"}, "malloc is jemalloc, needed is one of default, tuned, both: change it"),
    ],
)
def test_other_settings_are_refused_in_a_line(changes, says):
    with pytest.raises(ArgumentError, match=says) as caught:
        BenchConfig(**changes)
    assert "\n" not in str(caught.value)


def test_files_are_refused_before_the_time_is_spent(tmp_path):
    lines = []
    (tmp_path / "x-tuned.png").mkdir()
    for changes in (
        {"json": tmp_path / "none" / "x.json"},
        {"json": tmp_path},
        {"figure": tmp_path / "none" / "x.png"},
        {"figure": tmp_path / "x.png", "malloc": "both"},  # of the second run
    ):
        with pytest.raises(ArgumentError, match=r"change it$"):
            run(tiny(**changes), say=lines.append)
    with pytest.raises(ArgumentError, match=r"figure is .*x\.bmp, needed is a name that ends in \.png"):
        tiny(figure=tmp_path / "x.bmp")
    assert not lines


@pytest.mark.parametrize("figure", ["both.png", "here/../both.png"])
def test_two_files_of_one_name_are_refused(tmp_path, figure):
    (tmp_path / "here").mkdir()
    lines = []
    with pytest.raises(ArgumentError, match=r"json and figure are both .*both\.png, needed are two files: change one$"):
        run(tiny(json=tmp_path / "both.png", figure=tmp_path / figure), say=lines.append)
    assert not lines and [path.name for path in tmp_path.iterdir()] == ["here"]


@pytest.mark.parametrize("word", ["100000,100000,1000,10,1", "1,1,1000000,1000000,1", "1,1,1,2000000,1"])
@pytest.mark.parametrize("form", ["plain", "projected"])
def test_sizes_that_no_memory_holds_are_refused_in_a_line(word, form):
    lines = []
    with pytest.raises(
        ArgumentError, match=r"sizes has \(\d.*\), which takes [\d,.]+ GiB at least, \w+, and this"
    ) as caught:
        run(tiny(sizes=(TINY_WORD, word), forms=(form,)), say=lines.append)
    assert not lines and "\n" not in str(caught.value)


def test_the_command_says_the_same():
    config = BenchConfig(sizes=("1", "7"), peers=("all",), threads=2, quick=True)
    assert config.command() == "gatewise bench --sizes 1 7 --peers all --threads 2 --quick"
    assert config.chosen_peers() == PEERS
    assert BenchConfig().command() == "gatewise bench"
    assert tuple(PEER_OBJECTS) == PEERS


def test_the_settings_load_nothing_heavy():
    code = "import gatewise.bench.config, sys; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "numpy", "matplotlib", "jax", "onnxruntime"} & set(loaded)


# --- turns --------------------------------------------------------------------------------------------------


class Clock:
    """A clock that only the calls move."""

    def __init__(self):
        self.now = 0.0
        self.heard = []

    def __call__(self):
        return self.now

    def call(self, name, seconds):
        def run():
            self.now += seconds
            self.heard.append(name)

        return run


def test_turns_are_interleaved_and_long_enough():
    clock = Clock()
    calls = {"quick": clock.call("quick", 0.001), "slow": clock.call("slow", 0.05)}
    times = measure(calls, repeats=4, turn=0.02, seconds=1, clock=clock)
    assert times["quick"].median == pytest.approx(1)
    assert times["slow"].median == pytest.approx(50)
    assert times["quick"].calls >= 20
    assert times["slow"].calls == 1
    assert times["quick"].rounds == times["slow"].rounds == (0, 1, 2, 3)
    turns = "".join(b[0] for a, b in zip(["", *clock.heard], clock.heard, strict=False) if a != b)
    assert turns == "qsqsqsq"  # once to find how long they take, then forth and back: qs qs sq qs sq


def test_the_slow_take_fewer_turns_spread_over_the_rounds():
    clock = Clock()
    calls = {"quick": clock.call("quick", 0.02), "slow": clock.call("slow", 1.0), "slowest": clock.call("slowest", 9.0)}
    times = measure(calls, repeats=21, turn=0.02, seconds=10, clock=clock)
    assert [len(times[name].milliseconds) for name in calls] == [21, 10, 5]
    assert times["slowest"].rounds == (4, 8, 12, 16, 20)


def test_what_a_turn_needs_is_set_before_it_and_not_timed():
    clock = Clock()
    calls = {name: clock.call(name, 0.05) for name in ("one", "two")}

    def prepare(name):
        clock.now += 1
        clock.heard.append(f"set {name}")

    times = measure(calls, repeats=2, turn=0.02, seconds=1, clock=clock, prepare=prepare)
    assert times["one"].median == times["two"].median == pytest.approx(50)
    assert clock.heard == ["set one", "one", "set two", "two"] * 2 + ["set two", "two", "set one", "one"]


def test_ratios_of_made_up_times():
    own, other = Timing((1.0, 2.0, 3.0, 4.0, 5.0), (0, 1, 2, 3, 4), 7), Timing((6.0, 12.0, 60.0), (0, 2, 4), 7)
    assert own.median == 3
    assert own.quartiles == (2, 4)
    assert own.spread == pytest.approx(1 / 3)
    assert other.ratio(own) == 4
    assert other.ratio_quartiles(own) == (5.0, 9.0)  # of 6, 4 and 12


def test_the_notes_protocol_drops_the_first_ten():
    clock = Clock()
    slow_start = iter([1.0] * 10 + [0.002] * 90)

    def call():
        clock.now += next(slow_start)

    assert mean_of_hundred(call, clock) == pytest.approx(2)
    assert next(slow_start, None) is None


# --- the table ----------------------------------------------------------------------------------------------


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


# --- peers --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["forward", "training", "recorded"])
@pytest.mark.parametrize("peer", [Gatewise(), CellLoop(), GateLoop()], ids=lambda peer: peer.name)
@pytest.mark.parametrize("size", [TINY, Size(1, 1, 4, 4, 1, 1)], ids=str)
def test_peers_compute_what_torch_does(size, peer, kind):
    work = draw(size, "plain")
    expected, given = (p.calls(work)[kind].once() for p in (Torch(), peer))
    assert list(given) == list(expected)
    name, error = difference(expected, given)
    assert error < 1e-5, name
    if kind == "training":
        assert len(given) == 4 + 4 * size.L * size.D
        assert not any((gradient == 0).all() for gradient in given.values())


@pytest.mark.parametrize("kind", ["forward", "training"])
@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_the_same_work_for_both(form, kind):
    work = draw(TINY, form)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch has no oneDNN code for proj_size, and says so
        expected, given = (p.calls(work)[kind].once() for p in (Torch(), Gatewise()))
    assert [t.shape for t in given.values()] == [t.shape for t in expected.values()]
    assert {t.dtype for t in given.values()} == {work.dtype}
    assert difference(expected, given)[1] < tolerance(work.dtype)
    if form == "packed":
        assert work.steps < TINY.T * TINY.B
    else:
        assert work.steps == TINY.T * TINY.B


def test_the_same_work_each_time():
    state = torch.get_rng_state()
    first, second = (draw(TINY, "packed") for _ in range(2))
    assert torch.equal(first.x, second.x)
    assert torch.equal(first.lstm.weight_hh_l1, second.lstm.weight_hh_l1)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("name", ["onnxruntime", "jax"])
@pytest.mark.parametrize("size", [TINY, Size(2, 3, 4, 5, 1, 1)], ids=str)
def test_foreign_peers_where_they_are_installed(name, size):
    peer = PEER_OBJECTS[name]
    if peer.missing():
        pytest.skip(peer.missing())
    work = draw(size, "plain")
    calls = peer.calls(work)
    assert set(calls) == {kind for kind in ("forward", "training") if not peer.refuses("plain", kind)}
    for kind, call in calls.items():
        label, error = difference(Torch().calls(work)[kind].once(), call.once())
        assert error < 1e-5, label


def test_a_difference_is_found_wherever_it_is():
    expected = {"output": torch.ones(3), "d_x": torch.tensor([2.0, -4.0])}
    assert difference(expected, expected)[1] == 0
    assert difference(expected, expected | {"d_x": torch.tensor([2.0, -3.0])}) == ("d_x", 0.25)
    assert difference(expected, expected | {"d_x": torch.ones(3)}) == ("d_x", math.inf)
    assert difference(expected, {"output": torch.ones(3)}) == ("d_x", math.inf)
    assert difference(expected, expected | {"d_x": torch.tensor([math.nan, -4.0])}) == ("d_x", math.inf)


def test_the_products_are_the_layers_own():
    float32, bfloat16 = (products(GRID[5], 28 * 64, 100, dtype) for dtype in (torch.float32, torch.bfloat16))
    assert [(p.m, p.k, p.n) for p in float32] == [(1024, 1024, 1024), (1792, 300, 400), (64, 100, 400)]
    assert len({p.label for p in bfloat16}) == 6
    float64 = products(GRID[5], 28 * 64, 100, torch.float64)
    assert {p.dtype for p in float64} == {torch.float64}  # float32's are no bound of it


# --- runs ---------------------------------------------------------------------------------------------------


def test_a_run_from_end_to_end(tmp_path):
    lines = []
    config = tiny(
        peers=("torch", "gate-loop"),
        forms=("plain", "packed", "projected"),
        threads=1,
        isa="baseline",
        json=tmp_path / "bench.json",
        figure=tmp_path / "bench.png",
    )
    before = kernels.instruction_set()
    report = run(config, say=lines.append)
    assert kernels.instruction_set() == before
    assert torch.get_num_threads() == 1
    assert report.machine.isa == "baseline"
    assert "instruction set baseline; 1 thread " in "\n".join(lines)

    assert [(row.form, row.kind) for row in report.rows] == [
        (form, kind) for form in ("plain", "packed", "projected") for kind in ("forward", "training")
    ]
    for row in report.rows:
        assert list(row.timings) == ["gatewise", "torch", *["gate-loop"] * (row.form == "plain")]
        assert all(len(t.milliseconds) == 5 for t in row.timings.values())
        assert set(row.ceilings) == {"square", "layer", "step"}
    assert [row.size for row in report.overhead] == [Size(1, 1, 4, 4, 1, 1)] * 2
    assert list(report.notes) == ["gate-loop", "cell-loop", "torch", "gatewise"]
    assert all(0 < row.fork_join < 1 for row in (*report.rows, *report.overhead))
    assert "n/a  gate-loop: stands beside gatewise in the plain form only" in lines
    assert any(line.startswith("packed; gatewise by kernel: ") for line in lines)

    written = json.loads((tmp_path / "bench.json").read_text())
    assert written["command"] == config.command() == lines[0]
    assert written["machine"]["threads"] == 1
    assert len(written["rows"]) == 6
    assert written["rows"][0]["row"] is None
    assert len(written["rows"][0]["peers"]["torch"]["milliseconds"]) == 5
    assert written["rows"][1]["flops"] == flops(TINY, "training")
    assert written["rows"][2]["flops"] < written["rows"][0]["flops"]  # no work on padding is counted
    assert written["rows"][0]["fork_join_us"] == report.rows[0].fork_join * 1e6
    assert written["overhead"][0]["fork_join_us"] > 0
    assert written["differs"] == []
    assert [(s["form"], s["kind"], s["peer"]) for s in written["summary"]] == [
        (s.form, s.kind, s.peer) for s in report.summary()
    ]
    assert len(written["summary"]) == 2 * 3 + 2 + 2  # torch everywhere, gate-loop and the fastest in the plain rows
    assert written["malloc"] == "default"
    assert written["tuned"] is None
    assert written["variants"] == []
    with Image.open(tmp_path / "bench.png") as figure:
        assert figure.width > 500
    assert lines[-2:] == [f"wrote {tmp_path / 'bench.json'}", f"wrote {tmp_path / 'bench.png'}"]


class Broken(Peer):
    """Computes something else, or nothing, or is not there."""

    name = "broken"
    what = "made for a test"

    def __init__(self, change=None, refuses="", missing="", error=None):
        self.change, self.refusal, self.absence, self.error = change, refuses, missing, error

    def missing(self):
        return self.absence

    def refuses(self, form, kind):
        return self.refusal

    def calls(self, work):
        if self.error:
            raise self.error

        def altered(call):
            return Call(call.run, lambda returned: self.change(call.results(returned)))

        return {kind: altered(call) for kind, call in Torch().calls(work).items()}


@pytest.mark.parametrize("wrong", ["output", "d_bias_hh_l1_reverse"])
def test_a_wrong_peer_is_not_timed_and_ends_the_run_with_an_error(tmp_path, wrong):
    def change(results):
        return results | ({wrong: results[wrong].roll(1, 0)} if wrong in results else {})

    lines = []
    path = tmp_path / "bench.json"
    with pytest.raises(
        PeerError, match=f"^not timed, as it differs from torch.nn.LSTM: broken in .*{wrong} is off"
    ) as caught:
        run(tiny(kinds=("training",), json=path), say=lines.append, peers=[Torch(), Broken(change)])
    assert isinstance(caught.value, GatewiseError)
    assert "\n" not in str(caught.value)
    row = json.loads(path.read_text())["rows"][0]
    assert list(row["peers"]) == ["gatewise", "torch"]  # the others are timed
    assert row["wrong"]["broken"].startswith(wrong)
    assert any(line.startswith(f"differs  broken in training at {TINY}") for line in lines)
    assert any(line.endswith(" differs") for line in lines)


@pytest.mark.parametrize(
    ("peer", "says"),
    [
        (Broken(refuses="inference only"), "n/a  broken: inference only"),
        (
            Broken(error=RuntimeError("no bfloat16\n  on this CPU")),
            "n/a  broken: RuntimeError: no bfloat16 on this CPU",
        ),
        (
            Broken(missing="not installed (pip install broken)"),
            "peer      broken (made for a test): not installed (pip install broken)",
        ),
    ],
    ids=["refuses", "fails", "missing"],
)
def test_a_peer_that_cannot_is_named_with_its_reason(peer, says):
    lines = []
    report = run(tiny(kinds=("forward",)), say=lines.append, peers=[peer])
    assert says in lines
    assert list(report.rows[0].timings) == ["gatewise"]


def test_a_peer_too_slow_for_the_budget_is_named_with_its_time():
    report = run(tiny(kinds=("forward",), seconds=1e-9), say=lambda line: None)
    assert list(report.rows[0].timings) == ["gatewise"]
    assert "more than --seconds 1e-09" in report.rows[0].absent["torch"]


def test_a_wrong_gatewise_leaves_no_row(monkeypatch):
    monkeypatch.setattr("gatewise.bench.check.tolerance", lambda dtype: -1.0)
    lines = []
    with pytest.raises(PeerError, match="gatewise"):
        run(tiny(kinds=("forward",)), say=lines.append)
    assert any("not timed: it differs" in line for line in lines)


def test_an_interrupted_run_keeps_what_it_has(tmp_path):
    path = tmp_path / "bench.json"

    def say(line):
        if line.lstrip().startswith("·") and " training " in line:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tiny(sizes=(TINY_WORD, "1"), json=path), say=say)
    assert [row["kind"] for row in json.loads(path.read_text())["rows"]] == ["forward", "training"]


def test_an_instruction_set_that_is_none_is_refused():
    with pytest.raises(KernelError, match="instruction set 'mmx' is unknown"):
        run(tiny(isa="mmx"), say=lambda line: None)


def test_the_machine_is_described_with_what_changes_the_speed(monkeypatch):
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "1")
    monkeypatch.setattr("os.getloadavg", lambda: (99.0, 0, 0))
    lines = describe().lines()
    assert any("MALLOC_TRIM_THRESHOLD_=1" in line for line in lines)
    assert lines[-1].startswith("load      99.00: other work runs here")


def test_a_pair_is_compared_before_it_is_timed(monkeypatch):
    assert list(compared(TINY, "forward")) == ["gatewise", "torch"]
    monkeypatch.setattr("gatewise.bench.check.tolerance", lambda dtype: -1.0)
    with pytest.raises(PeerError, match=r"^nothing was timed: at \(3, 4, 5, 6, 2, 2\) gatewise differs from torch: "):
        compared(TINY, "training")


# --- malloc -------------------------------------------------------------------------------------------------

glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")


@glibc
def test_both_states_of_malloc_in_one_run(tmp_path):
    lines = []
    config = tiny(kinds=("forward",), threads=1, malloc="both", json=tmp_path / "b.json", figure=tmp_path / "b.png")
    report = run(config, say=lines.append)
    assert (report.malloc, report.tuned.malloc) == ("default", "tuned")
    assert report.tuned.machine.environment.items() >= TUNED.items()
    assert report.tuned.machine.threads == 1
    assert not TUNED.keys() & report.machine.environment.keys()
    assert len([line for line in lines if line.startswith("  · (3, 4, 5, 6, 2, 2)")]) == 2
    summary = [line.split()[:5] for line in lines if line.startswith("plain ")]
    assert summary == [["plain", "forward", "torch", malloc, "1"] for malloc in ("default", "tuned")]
    written = json.loads((tmp_path / "b.json").read_text())
    assert written["config"]["malloc"] == "both"
    assert [len(r["rows"]) for r in (written, written["tuned"])] == [1, 1]
    assert written["tuned"]["machine"]["environment"].items() >= TUNED.items()
    assert lines[-3:] == [f"wrote {tmp_path / name}" for name in ("b.json", "b.png", "b-tuned.png")]
    assert (tmp_path / "b-tuned.png").exists()


@glibc
def test_an_error_in_the_process_with_malloc_tuned_is_the_runs(monkeypatch):
    with pytest.raises(KernelError, match="instruction set 'mmx' is unknown"):
        run(tiny(isa="mmx", malloc="tuned"), say=lambda line: None)
    monkeypatch.setattr("sys.executable", "/bin/false")
    with pytest.raises(ChildError, match=r"^the process with malloc tuned ended with status 1, needed is 0: "):
        run(tiny(malloc="tuned"), say=lambda line: None)


@glibc
def test_an_interrupted_process_with_malloc_tuned_leaves_what_it_has(tmp_path):
    path = tmp_path / "bench.json"

    def say(line):
        if line.lstrip().startswith("·"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tiny(sizes=(TINY_WORD, "14"), malloc="tuned", json=path), say=say)
    written = json.loads(path.read_text())
    assert written["malloc"] == "tuned"
    assert 1 <= len(written["rows"]) < 4


@glibc
def test_malloc_tuned_spares_page_faults():
    code = """
import resource, torch
for at in range(24):
    if at == 20:  # until the holes are large enough, the heap grows
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(12 << 20)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""

    def faults(**changes):
        environment = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")} | changes
        return int(subprocess.check_output([sys.executable, "-c", code], env=environment))

    assert faults(**TUNED) < 100
    assert faults() > 4 * 100


def test_malloc_tuned_is_refused_where_it_would_change_nothing(monkeypatch):
    monkeypatch.setenv("LD_PRELOAD", "/usr/lib/libjemalloc.so.2")
    monkeypatch.setattr("os.confstr", lambda name: "glibc 2.36", raising=False)
    with pytest.raises(ArgumentError, match=r"^malloc tuned needs glibc's malloc, and LD_PRELOAD is .*: unset it$"):
        run(tiny(malloc="both"), say=lambda line: None)
    monkeypatch.delenv("LD_PRELOAD")
    check_tunable()
    with pytest.raises(ArgumentError, match="peers are given as objects"):
        run(tiny(malloc="both"), say=lambda line: None, peers=[Torch()])
    monkeypatch.delattr("os.confstr")
    with pytest.raises(ArgumentError, match=r"^malloc tuned needs glibc, and this C library is another: leave it at"):
        run(tiny(malloc="tuned"), say=lambda line: None)
