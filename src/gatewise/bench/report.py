"""What a run of the benchmark found."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from gatewise.bench.config import BenchConfig, FormName, Kind
from gatewise.bench.grid import GRID, Size
from gatewise.bench.summary import Summary, summarize
from gatewise.bench.timing import Timing
from gatewise.bench.variants.row import VariantRow

if TYPE_CHECKING:
    from gatewise.bench.machine import Machine

OWN = "gatewise"


@dataclass(frozen=True)
class Row:
    """One size, form and kind.

    Parameters
    ----------
    form, kind, size
        What was measured.
    flops : int
        Floating-point operations of a call.
    path : str
        The code of gatewise that served it.
    timings : dict of str to Timing
        By peer, gatewise among them.
    ceilings : dict of str to float
        GFLOP/s of each matrix product in the same turns.
    absent : dict of str to str
        Why a peer was not timed.
    errors : dict of str to float
        By how much a peer differed from torch.nn.LSTM, as a share of a tensor's largest number.
    wrong : dict of str to str
        Who was not timed, as it differed by more than rounding excuses, and in what.
    fork_join : float or None
        Seconds of an empty parallel region just before the row was timed: the state that the machine was in.

    Examples
    --------
    >>> times = {"gatewise": Timing((2.0, 2.0), (0, 1), 5), "torch": Timing((3.0, 3.0), (0, 1), 5)}
    >>> row = Row("plain", "forward", Size(8, 20, 32, 32, 1, 1), 2_621_440, "kernel", times, {"square": 100.0})
    >>> row.number, round(row.gflops("torch"), 4), round(row.share("square"), 4), row.ratio("torch")
    (1, 0.8738, 0.0131, 1.5)
    """

    form: FormName
    kind: Kind
    size: Size
    flops: int
    path: str
    timings: dict[str, Timing]
    ceilings: dict[str, float] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)
    errors: dict[str, float] = field(default_factory=dict)
    wrong: dict[str, str] = field(default_factory=dict)
    fork_join: float | None = None

    @property
    def number(self) -> int | None:
        """The row of the grid; None for a size that is not in it."""
        return GRID.index(self.size) + 1 if self.size in GRID else None

    def gflops(self, peer: str = OWN) -> float:
        """Give the GFLOP/s of a peer."""
        return self.flops / self.timings[peer].median / 1e6

    def share(self, product: str, peer: str = OWN) -> float:
        """Give a peer's GFLOP/s as a share of a matrix product's."""
        return self.gflops(peer) / self.ceilings[product]

    def ratio(self, peer: str) -> float:
        """Tell how many times as long as gatewise a peer takes."""
        return self.timings[peer].ratio(self.timings[OWN])

    def ratios(self) -> dict[str, float]:
        """Give the ratio of each peer that was timed; none where gatewise was not."""
        return {peer: self.ratio(peer) for peer in self.timings if peer != OWN} if OWN in self.timings else {}

    def as_json(self) -> dict[str, Any]:
        """Give it as JSON takes it."""
        own = self.timings.get(OWN)
        peers = {
            name: {
                "median": t.median,
                "quartiles": t.quartiles,
                "ratio": t.ratio(own) if own else None,
                "gflops": self.gflops(name),
                "calls": t.calls,
                "rounds": t.rounds,
                "milliseconds": t.milliseconds,
            }
            for name, t in self.timings.items()
        }
        return {
            "row": self.number,
            "form": self.form,
            "kind": self.kind,
            "size": self.size._asdict(),
            "flops": self.flops,
            "path": self.path,
            "fork_join_us": None if self.fork_join is None else self.fork_join * 1e6,
            "peers": peers,
            "ceilings": self.ceilings,
            "absent": self.absent,
            "errors": self.errors,
            "wrong": self.wrong,
        }


@dataclass
class Report:
    """All that a run found, filled while it goes on.

    Parameters
    ----------
    config : BenchConfig
        What was asked for.
    machine : Machine
        Where it ran.
    peers : dict of str to str
        Each peer's version, or why it is missing.
    rows : list of Row
        The table.
    overhead : list of Row
        The smallest size, where a call's time is what surrounds the arithmetic.
    notes : dict of str to float
        Milliseconds by the protocol of the study notes.
    variants : list of VariantRow
        The table of the variants, where that was asked for instead.
    differs : list of str
        Who was not timed, as it differs from torch.nn.LSTM or from the loop in Python, and in what.
    malloc : {"default", "tuned"}
        As it comes, or in a process of its own with variables that have it keep freed memory.
    tuned : Report or None
        The same again with malloc tuned, where both were asked for.
    """

    config: BenchConfig
    machine: Machine
    peers: dict[str, str]
    rows: list[Row] = field(default_factory=list)
    overhead: list[Row] = field(default_factory=list)
    notes: dict[str, float] = field(default_factory=dict)
    variants: list[VariantRow] = field(default_factory=list)
    differs: list[str] = field(default_factory=list)
    malloc: Literal["default", "tuned"] = "default"
    tuned: Report | None = None

    def runs(self) -> list[Report]:
        """Give this run, and the one with malloc tuned if there is one."""
        return [self] if self.tuned is None else [self, self.tuned]

    def summary(self) -> list[Summary]:
        """Sum up the rows of this run."""
        return summarize(self.rows)

    def as_json(self) -> dict[str, Any]:
        """Give what this run found as JSON takes it."""
        return {
            "malloc": self.malloc,
            "machine": self.machine.as_json(),
            "peers": self.peers,
            "rows": [row.as_json() for row in self.rows],
            "overhead": [row.as_json() for row in self.overhead],
            "notes": self.notes,
            "summary": [summary.as_json() for summary in self.summary()],
            "variants": [row.as_json() for row in self.variants],
            "differs": self.differs,
        }

    def write_json(self, path: Path) -> None:
        """Write everything, turn by turn; a file that exists is replaced."""
        config = {name: str(v) if isinstance(v, Path) else v for name, v in asdict(self.config).items()}
        content = {
            "command": self.config.command(),
            "config": config,
            **self.as_json(),
            "tuned": None if self.tuned is None else self.tuned.as_json(),
        }
        # An infinite error, of a peer that gave no numbers, is none of JSON's.
        text = json.dumps(_finite(content), indent=1, allow_nan=False)
        path.write_text(text + "\n", encoding="utf-8")


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(v) for key, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(v) for v in value]
    return str(value) if isinstance(value, float) and value - value != 0 else value
