"""Runs of the benchmark with malloc as it comes, tuned, and in both states."""

import json
import os
import platform
import subprocess
import sys

import pytest

from benching import TINY_WORD, one_thread, small_ceiling, tiny  # noqa: F401 (fixtures of every test)
from gatewise.bench.malloc import TUNED, ChildError, check_tunable
from gatewise.bench.peers import Torch
from gatewise.bench.run import run
from gatewise.errors import ArgumentError, KernelError

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
