"""What was found of a variant at a size."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from gatewise.bench.grid import Size
from gatewise.bench.timing import Ratio, Timing
from gatewise.bench.variants.work import Name, options

OWN, PLAIN, LOOP = "gatewise", "plain", "loop"
"""Who takes turns: the variant by gatewise, gatewise's plain cell, and the variant as a loop in Python."""


@dataclass(frozen=True)
class VariantRow:
    """One variant at one size.

    Parameters
    ----------
    name, size
        What was measured.
    path : str
        The code of gatewise that serves it.
    timings : dict of str to Timing
        By `OWN`, `PLAIN` and `LOOP`.
    absent : dict of str to str
        Why one of them was not timed.
    error : float
        By how much gatewise differed from the loop, as a share of a tensor's largest number.
    wrong : str
        In what, where that is more than rounding excuses: then nothing was timed. Else empty.
    fork_join : float or None
        Seconds of an empty parallel region just before the row was timed: the state that the machine was in.

    Examples
    --------
    >>> times = {name: Timing((t,) * 3, (0, 1, 2), 5) for name, t in (("gatewise", 2.0), ("plain", 1.6), ("loop", 9.0))}
    >>> row = VariantRow("peephole", Size(8, 20, 32, 32, 1, 1), "kernel: why", times)
    >>> row.over_plain().median, row.loop_over().median
    (1.25, 4.5)
    """

    name: Name
    size: Size
    path: str
    timings: dict[str, Timing] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)
    error: float = 0.0
    wrong: str = ""
    fork_join: float | None = None

    def over_plain(self) -> Ratio:
        """Tell how many times as long as gatewise's plain cell its variant takes."""
        return self.timings[OWN].paired(self.timings[PLAIN])

    def loop_over(self) -> Ratio:
        """Tell how many times as long as gatewise the loop takes."""
        return self.timings[LOOP].paired(self.timings[OWN])

    def as_json(self) -> dict[str, Any]:
        """Give it as JSON takes it."""
        return {
            "variant": self.name,
            "arguments": options(self.size, self.name),
            "size": self.size._asdict(),
            "path": self.path,
            "fork_join_us": None if self.fork_join is None else self.fork_join * 1e6,
            "over_plain": _ratio(self.over_plain()) if self.timings else None,
            "loop_over": _ratio(self.loop_over()) if LOOP in self.timings else None,
            "turns": {
                name: {"median": t.median, "quartiles": t.quartiles, **asdict(t)} for name, t in self.timings.items()
            },
            "absent": self.absent,
            "error": self.error,
            "wrong": self.wrong,
        }


def _ratio(ratio: Ratio) -> dict[str, Any]:
    return {"median": ratio.median, "quartiles": ratio.quartiles, "rounds": len(ratio.values)}
