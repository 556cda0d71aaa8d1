"""The variants' part of a run: size by size and cell by cell, said as it goes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from gatewise.bench.progress import hearing, showing
from gatewise.bench.variants.measure import measured
from gatewise.bench.variants.table import head, legend, line
from gatewise.bench.variants.work import Name

if TYPE_CHECKING:
    from gatewise.bench.report import Report


def measure_variants(report: Report, say: Callable[[str], None]) -> None:
    """Measure the variants that a report's configuration names, and the plain cell before them, at each size.

    Parameters
    ----------
    report : Report
        It is filled while this goes on.
    say : callable
        Takes each line.
    """
    config = report.config
    names: tuple[Name, ...] = ("plain", *config.chosen_variants())
    repeats, turn = config.turns()
    for text in legend(repeats, turn):
        say(text)
    for size in config.chosen_sizes():
        for text in ("", *head(size)):
            say(text)
        for name in names:
            if name == "projection" and size.H < 2:
                say(f"{name:20}is left out: proj_size is H/2, needed H of at least 2")
                continue
            with hearing(say), showing(f"{size} {name} ..."):
                row = measured(config, size, name)
            report.variants.append(row)
            say(line(row, repeats))
            for who, why in row.absent.items():
                say(f"n/a  {who}: {why}")
            if row.wrong:
                report.differs.append(f"{name} at {size}: {row.wrong}")
                say(f"differs  {report.differs[-1]}")
