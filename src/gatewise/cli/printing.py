"""How numbers, trainings and tables are printed."""

import sys
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from gatewise.tasks.task import Report
from gatewise.train.progress import Evaluation, Score

if TYPE_CHECKING:
    from gatewise.train.runner import Runner

REDRAW_SECONDS = 0.2

PRINT_SECONDS = 1.0


class Printer(Report):
    """Prints how a training goes: a line an evaluation, and a progress bar where there is a terminal.

    Parameters
    ----------
    console : Console
        Where to.
    things : str, default "samples"
        What is counted.
    """

    def __init__(self, console: Console, things: str = "samples") -> None:
        self.console = console
        self.things = things
        self.bar = Progress(
            TextColumn("epoch {task.fields[epoch]}"),
            BarColumn(),
            TextColumn("{task.fields[means]}"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self.row = self.bar.add_task("", epoch="", means="")
        self.drawn = 0.0
        self.printed = 0.0
        self.unsaid = 0

    def about(self, lines: Mapping[str, str]) -> None:
        """Print each line after its name."""
        for name, line in lines.items():
            self.say(f"{name:<7} {line}")

    def step(self, runner: "Runner") -> None:
        """Move the bar, a few times a second."""
        now = time.perf_counter()
        if self.bar.disable or now - self.drawn < REDRAW_SECONDS or not runner.progress.sums.samples:
            return
        self.drawn = now
        score = runner.progress.sums.score()
        self.bar.update(
            self.row,
            total=runner.steps,
            completed=runner.progress.step,
            epoch=f"{runner.progress.epoch + 1}/{runner.config.epochs}",
            means=f"{means(score)}  {speed(score, self.things)}",
        )

    def evaluation(self, runner: "Runner", evaluation: Evaluation, is_best: bool) -> None:
        """Print the scores; a star where they are the best so far. Where they come fast, one a second is enough."""
        now = time.perf_counter()
        if now - self.printed < PRINT_SECONDS and not runner.progress.ended:
            self.unsaid += 1
            return
        unsaid = f"  ({self.unsaid} more before)" * bool(self.unsaid)
        self.printed, self.unsaid = now, 0
        splits = "   ".join(f"{name} {means(score)}" for name, score in evaluation.scores.items())
        place = f"{evaluation.epoch}/{runner.config.epochs}" if evaluation.whole else f"step {evaluation.step}"
        seconds = sum(score.seconds for score in evaluation.scores.values())
        fast = speed(evaluation.scores["train"], self.things)
        self.say(f"{place:>7} {splits}   {seconds:.1f} s   {fast}{' *' * is_best}{unsaid}")

    def say(self, line: str) -> None:
        """Print a line."""
        self.console.print(line, soft_wrap=True, markup=False, highlight=False)


def means(score: Score) -> str:
    """The loss and whatever else was measured."""
    measured = (f"{name.replace('_', ' ')} {measure(name, mean)}" for name, mean in score.measures.items())
    return ", ".join([f"loss {number(score.loss)}", *measured])


def measure(name: str, value: float) -> str:
    """What was measured: a share of 1 in percent, bits as a number."""
    return f"{value:.2%}" if name == "accuracy" else number(value)


def number(loss: float) -> str:
    """Four digits after the point, or the power of ten of what is too large for that."""
    return f"{loss:.4f}" if abs(loss) < 1e6 else f"{loss:.3e}"


def speed(score: Score, things: str = "samples") -> str:
    """How many samples, or whatever is counted, a second."""
    return f"{score.samples / score.seconds:,.0f} {things}/s"


def counting(what: str) -> Progress:
    """A bar on stderr that counts, and says what was `last`; nothing where that is no terminal."""
    console = Console(stderr=True)
    return Progress(
        TextColumn(f"{{task.completed}}/{{task.total}} {what}"),
        BarColumn(),
        TextColumn("{task.fields[last]}"),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )


def print_table(columns: Sequence[str], numbers: Collection[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table as wide as the terminal, or wide where there is none; columns of numbers to the right."""
    drawn = Table(box=None, pad_edge=False)
    for name in columns:
        drawn.add_column(name, justify="right" if name in numbers else "left", overflow="fold")
    for row in rows:
        drawn.add_row(*row)
    Console(width=None if sys.stdout.isatty() else 200).print(drawn, markup=False, highlight=False)
