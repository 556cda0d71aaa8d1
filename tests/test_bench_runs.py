"""Whole runs of the benchmark: that it compares, writes and says the right things, however fast the machine is."""

import json

import pytest
import torch
from PIL import Image

from benching import TINY, TINY_WORD, one_thread, small_ceiling, tiny  # noqa: F401 (fixtures of every test)
from gatewise import kernels
from gatewise.bench.check import PeerError
from gatewise.bench.grid import Size, flops
from gatewise.bench.machine import describe
from gatewise.bench.pair import compared
from gatewise.bench.peers import Call, Peer, Torch
from gatewise.bench.run import run
from gatewise.errors import GatewiseError, KernelError


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
