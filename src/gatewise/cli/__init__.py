"""The command line: parses, calls, prints. Nothing is computed here.

A mistake in what was given ends with one line on stderr and exit status 2; a traceback is a bug.
"""

import dataclasses
import errno
import io
import json
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

from gatewise import __version__
from gatewise.bench.config import BenchConfig
from gatewise.cli import experiments, runs, texts
from gatewise.cli.parsing import parse
from gatewise.cli.words import (
    Compare,
    Doctor,
    Evaluate,
    Generate,
    Horizon,
    Inspect,
    Predict,
    Resume,
    Runs,
    Train,
    Tune,
)
from gatewise.errors import ArgumentError, GatewiseError
from gatewise.experiments.memory import MemoryConfig


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    argv : sequence of str, default: the process's own
        The words after ``gatewise``.

    Returns
    -------
    int
        The exit status: 0, or 1 if the doctor has found something, 2 for a mistake in what was given, 130 after
        Ctrl-C, 141 where nobody reads the output any more.

    Examples
    --------
    >>> main(["--version"])
    gatewise 0.1.0
    0
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # as stderr does: a name that cannot be printed is no bug
    try:
        status = _run(sys.argv[1:] if argv is None else argv)
        sys.stdout.flush()
        return status
    except BrokenPipeError:
        # Python flushes stdout once more when it ends; let that go nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except KeyboardInterrupt:
        print("gatewise: interrupted", file=sys.stderr)
        return 130
    except GatewiseError as error:
        print(f"gatewise: error: {_one_line(str(error))}", file=sys.stderr)
        return 2
    except OSError as error:
        what = f"{error.filename} cannot be read or written" if error.filename else "the output cannot be written"
        remedy = "make room" if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) else "name another place"
        print(f"gatewise: error: {what} ({error.strerror}): {remedy}", file=sys.stderr)
        return 2


def _run(argv: Sequence[str]) -> int:
    if list(argv) == ["--version"]:
        print(f"gatewise {__version__}")
        return 0
    command = parse(argv)
    return COMMANDS[type(command)](command) if command else 0


def _doctor(command: Doctor) -> int:
    from gatewise.insight.doctor.source import visit

    if not command.targets:
        raise ArgumentError("PATH_OR_MODULE is missing: name what to read; see gatewise doctor --help")
    seen = visit(*command.targets)
    if command.json:
        print(json.dumps([dataclasses.asdict(finding) for finding in seen.findings]))
    else:
        for finding in seen.findings:
            print(finding)
        files = f"{seen.files:,} file{'s' * (seen.files != 1)}"
        print(f"{len(seen.findings) or 'no'} finding{'s' * (len(seen.findings) != 1)} in {files}")
    for line in seen.unread:
        print(f"gatewise: error: {_one_line(line)}", file=sys.stderr)
    return 2 if seen.unread else int(bool(seen.findings))


def _bench(config: BenchConfig) -> int:
    from gatewise.bench.run import check_isa, run

    check_isa(config)
    run(config)
    return 0


def _one_line(text: str) -> str:
    return " ".join(text.split())


COMMANDS: dict[type, Callable[[Any], int]] = {
    Train: runs.train,
    Tune: experiments.tune,
    Resume: runs.resume,
    Evaluate: runs.evaluate,
    Predict: runs.predict,
    Generate: texts.generate,
    Inspect: experiments.inspect,
    Horizon: experiments.horizon,
    Runs: runs.runs,
    Compare: runs.compare,
    MemoryConfig: experiments.memory,
    Doctor: _doctor,
    BenchConfig: _bench,
}
