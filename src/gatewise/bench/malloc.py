"""The same run with malloc tuned: in a process of its own, as malloc reads its variables when a process starts.

An LSTM's training allocates tens of megabytes in each call and frees them again. As glibc's malloc comes, it gives them
back to the system each time, and every page of the next call is a page fault: 71,000 of them, a third of the time and
more, in a training call of torch.nn.LSTM at (64, 512, 128, 128, 1). Tuned, malloc keeps the memory, and there are none.
gatewise has a pool of its own and hardly notices.
"""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from gatewise import kernels
from gatewise.bench.config import BenchConfig
from gatewise.bench.report import Report
from gatewise.errors import ArgumentError, GatewiseError

# A raised MALLOC_MMAP_THRESHOLD_ would read better than no mmap at all, but before 2.35 glibc takes no more than 32 MiB
# there, and keeps 128 KiB where it was asked for more.
TUNED = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TOP_PAD_": str(64 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(4 << 30),
}
"""What has glibc keep freed memory in the process: all comes from the heap, which grows by 64 MiB and never shrinks."""


class ChildError(GatewiseError, RuntimeError):
    """The process with malloc tuned ended without its results."""


def check_tunable() -> None:
    """Refuse where glibc's variables would change nothing.

    Raises
    ------
    ArgumentError
        The C library is not glibc, or another malloc stands in its place.
    """
    library = _c_library()
    if not library.startswith("glibc"):
        raise ArgumentError(f"malloc tuned needs glibc, and this C library is {library}: leave it at default")
    preloaded = os.environ.get("LD_PRELOAD", "")
    if "malloc" in preloaded:
        raise ArgumentError(f"malloc tuned needs glibc's malloc, and LD_PRELOAD is {preloaded}: unset it")


def _c_library() -> str:
    """Name and version, such as glibc 2.36."""
    try:
        return os.confstr("CS_GNU_LIBC_VERSION") or "unknown"
    except (AttributeError, ValueError, OSError):  # no such name, or no such function, elsewhere
        return "another"


def run_tuned(config: BenchConfig, say: Callable[[str], None], keep: Callable[[Report], None]) -> None:
    """Measure in a child process with `TUNED` in its environment.

    Parameters
    ----------
    config : BenchConfig
        What to measure; files are left to the caller.
    say : callable
        Takes each line.
    keep : callable
        Takes the report, also that of a run that was interrupted.

    Raises
    ------
    GatewiseError
        Whatever the run raised.
    ChildError
        The process ended by itself; what it wrote to stderr says why.
    """
    alike = replace(
        config,
        malloc="default",
        json=None,
        figure=None,
        threads=torch.get_num_threads() if config.threads == 0 else config.threads,
        isa=config.isa or kernels.instruction_set(),
    )
    with TemporaryDirectory(prefix="gatewise-bench-") as folder:
        asked, found = Path(folder, "config"), Path(folder, "report")
        asked.write_bytes(pickle.dumps(alike))
        words = [sys.executable, "-P", "-m", "gatewise.bench.child", str(asked), str(found)]
        environment = os.environ | TUNED
        child = subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, encoding="utf-8")
        assert child.stdout is not None
        error: GatewiseError | None = None
        with child:
            try:
                for line in child.stdout:
                    say(line.rstrip("\n"))
            except BaseException:  # Ctrl-C, above all: the child is to write what it has
                child.send_signal(signal.SIGINT)
                raise
            finally:
                child.stdout.close()
                status = child.wait()
                if found.exists():
                    report, error = pickle.loads(found.read_bytes())
                    if report is not None:
                        report.config, report.malloc = config, "tuned"
                        keep(report)
        if error is not None:
            raise error
        if status:
            raise ChildError(f"the process with malloc tuned ended with status {status}, needed is 0: see what it said")
