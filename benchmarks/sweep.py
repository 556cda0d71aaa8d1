"""Show how the cost of gatewise.LSTM and torch.nn.LSTM grows with steps, batch rows, layers and hidden units.

Each is swept alone around the middle (B, T, I, H, L) = (32, 50, 64, 64, 1). Steps, rows and layers should cost in
proportion, hidden units in proportion to H·(I + H); the figure has the straight line through the ends of each sweep,
and what lies above it costs more than the sizes around it. H is swept coarsely, and closely around 100, which no vector
divides: for it the cost over the line from H = 96 to H = 112 is printed. All results are compared before they are
timed, and all points of a sweep take turns with each other. Medians.

    python benchmarks/sweep.py [--json sweep.json] [--figure sweep.png]      (a minute or two)
    python benchmarks/sweep.py --quick                                       (shows that it works, not how fast it is)
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from matplotlib.lines import Line2D

from gatewise.bench.config import KINDS
from gatewise.bench.grid import Size
from gatewise.bench.machine import describe
from gatewise.bench.options import at_least
from gatewise.bench.pair import compared
from gatewise.bench.probe import fork_join
from gatewise.bench.timing import Timing, measure
from gatewise.drawing import BLUE, check_ending, new_figure, save
from gatewise.errors import ArgumentError, GatewiseError

MIDDLE = Size(B=32, T=50, I=64, H=64, L=1, D=1)
WITHIN = (96, 100, 112)
"""What is printed: the one in the middle over the line through the others."""

STYLES = {
    "gatewise": {"color": BLUE, "marker": "o"},
    "torch": {"color": "0.45", "marker": "s", "markerfacecolor": "white"},
}
DASHED = {"linewidth": 0.8, "linestyle": (0, (4, 3))}


@dataclass(frozen=True)
class Sweep:
    """One axis and its values."""

    title: str
    axis: str
    values: tuple[int, ...]

    def size(self, value):
        return MIDDLE._replace(**{self.axis: value})

    def place(self, value):
        """Where a value stands on the axis: as far from 0 as it should cost."""
        return value * (MIDDLE.I + value) if self.axis == "H" else value


SWEEPS = (
    Sweep("steps", "T", (10, 25, 50, 75, 100, 150, 200)),
    Sweep("batch rows", "B", (1, 4, 8, 16, 24, 32, 48, 64, 96, 128)),
    Sweep("layers", "L", (1, 2, 3, 4, 6)),
    Sweep("hidden units", "H", (1, 8, 16, 24, 32, 48, 64, 80, 96, 112, 128, 144, 160)),
    Sweep("hidden units, closely", "H", (*range(96, 105), 106, 108, 110, 112)),
)
QUICK = (
    Sweep("steps", "T", (5, 10)),
    Sweep("batch rows", "B", (1, 4, 8)),
    Sweep("layers", "L", (1, 2)),
    Sweep("hidden units", "H", (1, 16, 32)),
    Sweep("hidden units, closely", "H", WITHIN),
)


def on_the_line(places: Sequence[float], times: Sequence[float], place: float) -> float:
    """What a place would cost on the straight line through the first and the last."""
    slope = (times[-1] - times[0]) / (places[-1] - places[0])
    return times[0] + slope * (place - places[0])


@dataclass(frozen=True)
class Curve:
    """The times of one peer over one sweep."""

    sweep: Sweep
    kind: str
    peer: str
    timings: tuple[Timing, ...]

    @property
    def times(self) -> list[float]:
        return [timing.median for timing in self.timings]

    @property
    def places(self) -> list[int]:
        return [self.sweep.place(value) for value in self.sweep.values]

    def over_the_line(self) -> list[float]:
        return [t / on_the_line(self.places, self.times, p) for t, p in zip(self.times, self.places, strict=True)]

    def as_json(self):
        points = zip(self.sweep.values, self.timings, self.over_the_line(), strict=True)
        return {
            "sweep": self.sweep.title,
            "axis": self.sweep.axis,
            "kind": self.kind,
            "peer": self.peer,
            "points": [
                {
                    "value": v,
                    "median": t.median,
                    "quartiles": t.quartiles,
                    "over_the_line": ratio,
                    "turns": t.milliseconds,
                }
                for v, t, ratio in points
            ],
        }


def run(sweep: Sweep, kind: str, repeats: int, turn: float) -> list[Curve]:
    calls = {(peer, value): call for value in sweep.values for peer, call in compared(sweep.size(value), kind).items()}
    times = measure(calls, repeats, turn, seconds=30)
    return [Curve(sweep, kind, peer, tuple(times[peer, value] for value in sweep.values)) for peer in STYLES]


def table(curves: Sequence[Curve]) -> list[str]:
    first = curves[0]
    lines = [
        f"{first.sweep.title}, {first.kind}",
        f"{first.sweep.axis:>6}" + "".join(f" {f'{curve.peer} ms':>12} {'over line':>10}" for curve in curves),
    ]
    for at, value in enumerate(first.sweep.values):
        cells = (f" {curve.times[at]:12.3f} {curve.over_the_line()[at]:9.2f}x" for curve in curves)
        lines.append(f"{value:6}{''.join(cells)}")
    return lines


def between(curve: Curve) -> str:
    """How the cost at 100 compares with that of a size between 96 and 112."""
    low, at, high = (curve.sweep.values.index(value) for value in WITHIN)
    places, times = curve.places, curve.times
    ratio = times[at] / on_the_line((places[low], places[high]), (times[low], times[high]), places[at])
    line = f"the straight line from {WITHIN[0]} to {WITHIN[2]} in H·(I+H)"
    return f"H = {WITHIN[1]}  {curve.kind:9} {curve.peer:9} {ratio:.3f} of {line}"


def draw(path: Path, curves: Sequence[Curve], title: str) -> None:
    kinds, sweeps = (list(dict.fromkeys(getattr(c, name) for c in curves)) for name in ("kind", "sweep"))
    figure = new_figure(2.9 * len(sweeps) + 0.6, 2.6 * len(kinds) + 1.1)
    figure.suptitle(title, fontsize=10)
    panels = figure.subplots(len(kinds), len(sweeps), squeeze=False)
    for row, kind in zip(panels, kinds, strict=True):
        for axes, sweep in zip(row, sweeps, strict=True):
            found = [curve for curve in curves if (curve.kind, curve.sweep) == (kind, sweep)]
            for curve in found:
                style = STYLES[curve.peer]
                (first, *_, last), (low, *_, high) = curve.places, curve.times
                axes.plot([first, last], [low, high], color=style["color"], zorder=1, **DASHED)
                axes.plot(curve.places, curve.times, linewidth=1.4, markersize=4.5, label=curve.peer, **style)
            ticks(axes, sweep)
            if sweep.place(sweep.values[0]) <= sweep.place(sweep.values[-1]) / 2:  # a close sweep shows its steps
                axes.set_ylim(bottom=0)
            axes.grid(color="0.92", linewidth=0.6)
            axes.set_axisbelow(True)
            axes.spines[["top", "right"]].set_visible(False)
            axes.tick_params(labelsize=8)
            if axes in panels[0]:
                axes.set_title(sweep.title, fontsize=10)
            if axes in panels[-1]:
                axes.set_xlabel("H, spaced as H·(I + H)" if sweep.axis == "H" else sweep.axis, fontsize=9)
        row[0].set_ylabel(f"{kind}, ms", fontsize=9)
    handles, labels = panels[0, 0].get_legend_handles_labels()
    handles.append(Line2D([], [], color="0.2", **DASHED))
    labels.append("straight through the ends")
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False, fontsize=9)
    save(figure, path)


def ticks(axes, sweep: Sweep) -> None:
    """Name values, not places, where they have room."""
    places = [sweep.place(value) for value in sweep.values]
    room = (places[-1] - places[0]) / 9
    shown = [len(places) - 1]
    for at in reversed(range(len(places) - 1)):
        if places[shown[-1]] - places[at] >= room:
            shown.append(at)
    axes.set_xticks([places[at] for at in shown], [str(sweep.values[at]) for at in shown])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, default=Path("sweep.json"), help="the file for all times, turn by turn")
    parser.add_argument("--figure", type=Path, default=Path("sweep.png"), help="the figure's file, .png, .pdf or .svg")
    parser.add_argument("--repeats", type=at_least(1), help="turns of each point (default: 11, quick 3)")
    parser.add_argument(
        "--threads", type=at_least(1), default=torch.get_num_threads(), help="default: as many as torch finds"
    )
    parser.add_argument("--quick", action="store_true", help="few and small points, turns of 2 ms in place of 20")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    for path in (options.json, options.figure):
        if not path.parent.is_dir() or path.is_dir():
            raise ArgumentError(f"{path} cannot be written, needed is a file in a folder that exists: change it")
    check_ending(options.figure)
    repeats, turn, sweeps = (3, 0.002, QUICK) if options.quick else (11, 0.02, SWEEPS)
    repeats = options.repeats or repeats
    machine = describe()
    for line in machine.lines():
        print(line)
    probe = fork_join()
    print(f"fork-join {probe * 1e6:.1f} µs; the middle is (B, T, I, H, L) = {MIDDLE[:5]}")
    curves: list[Curve] = []
    for sweep in sweeps:
        for kind in KINDS:
            found = run(sweep, kind, repeats, turn)
            print("", *table(found), sep="\n", flush=True)
            curves += found
    print()
    for curve in curves:
        if set(WITHIN) <= set(curve.sweep.values):
            print(between(curve))
    content = {
        "machine": machine.as_json(),
        "fork_join_us": probe * 1e6,
        "middle": MIDDLE._asdict(),
        "curves": [curve.as_json() for curve in curves],
    }
    options.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    threads = f"{machine.threads} thread{'s' * (machine.threads != 1)}"
    draw(options.figure, curves, f"around (B, T, I, H, L) = {MIDDLE[:5]}; {machine.cpu}, {threads}, {machine.isa}")
    print(f"wrote {options.json} and {options.figure}")


if __name__ == "__main__":
    try:
        main()
    except GatewiseError as error:
        sys.exit(f"sweep: {error}")
