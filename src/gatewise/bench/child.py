"""The program of the process with malloc tuned: it measures, prints the lines and leaves the report in a file.

python -m gatewise.bench.child CONFIG REPORT, both pickled; `gatewise bench --malloc` starts it.
"""

import io
import pickle
import signal
import sys
from pathlib import Path

from gatewise.bench.report import Report
from gatewise.bench.run import run_here
from gatewise.errors import GatewiseError


def main(asked: Path, found: Path) -> int:
    """Measure what the one file asks for, and write the other.

    Parameters
    ----------
    asked : path
        A `BenchConfig`, pickled.
    found : path
        The `Report` or None, and the error or None.

    Returns
    -------
    int
        The exit status: 0, or 130 after Ctrl-C.

    Examples
    --------
    >>> import tempfile
    >>> from gatewise.bench.config import BenchConfig
    >>> folder = Path(tempfile.mkdtemp())
    >>> config = BenchConfig(sizes=("2,3,4,5,1",), kinds=("forward",), quick=True, threads=1, isa="mmx")
    >>> _ = (folder / "asked").write_bytes(pickle.dumps(config))
    >>> main(folder / "asked", folder / "found")
    0
    >>> pickle.loads((folder / "found").read_bytes())[0] is None  # there is no such instruction set
    True
    """
    reports: list[Report] = []
    error: GatewiseError | None = None
    status = 0
    try:
        run_here(pickle.loads(asked.read_bytes()), lambda line: print(line, flush=True), None, reports.append)
    except GatewiseError as raised:
        error = raised
    except KeyboardInterrupt:
        status = 130
    finally:
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C would leave half a file
        found.write_bytes(pickle.dumps((reports[0] if reports else None, error)))
        signal.signal(signal.SIGINT, before)
    return status


if __name__ == "__main__":
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8")
    sys.exit(main(*map(Path, sys.argv[1:])))
