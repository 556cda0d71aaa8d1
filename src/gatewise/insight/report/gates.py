"""What the gates did, as blocks of a report: choose the sequence, the layer, the unit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gatewise.insight.report.charts import heat_map, nth, unit_lines
from gatewise.insight.report.page import Card, Chart, Charts, Choice, Chosen, Rows, Text, When
from gatewise.insight.trace import NAMES, Traces

CELLS = 8_192
"""Of one heat map, at most: a browser draws all six at once."""

STEPS = 512
"""Columns of one heat map, at most: about the pixels that it is wide."""

NUMBERS = 2_000_000
"""In all heat maps of a report together, at most: about 12 MB."""

WORDS = {
    "i": ("Input gate i", "How much of the candidate is written"),
    "f": ("Forget gate f", "How much of the cell is kept"),
    "g": ("Candidate g", "What would be written"),
    "o": ("Output gate o", "How much of the cell is shown"),
    "c": ("Cell state c", "The memory after the step"),
    "h": ("Hidden state h", "What is shown of the memory"),
}
"""The name of each and what it is, in the order of `gatewise.insight.trace.NAMES`."""


@dataclass(frozen=True, eq=False)
class Looked:
    """A sequence and what the LSTMs did with it.

    Parameters
    ----------
    name : str
        As it is called in the list to choose from.
    card : Card
        It itself, to look at.
    traces : Traces
        Of a call of the model with this sequence alone.
    reads : sequence of str, default: none
        What is read at each step, where that can be said in a word.
    """

    name: str
    card: Card
    traces: Traces
    reads: Sequence[str] = ()


def gate_blocks(sequences: Sequence[Looked], above: Sequence[Chart] = ()) -> list[Any]:
    """Heat maps of all gates over time and units, and lines of one unit.

    Where there are more steps and units than can be drawn, every so many of them are, and a paragraph says so.

    Parameters
    ----------
    sequences : sequence of Looked
        By the same model, at least one.
    above : sequence of Chart, default: none
        Of the chosen sequence (`chosen_sample`), above those of its gates.

    Returns
    -------
    list
        Blocks of a section.
    """
    layers = [one for calls in sequences[0].traces.values() for call in calls for one in call.layers]
    names = layer_names(sequences[0].traces)
    room = min(CELLS, NUMBERS // (len(NAMES) * len(names) * len(sequences)))
    most_units = max(layer.c.size(2) for layer in layers)
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in NAMES}
    every_step, every_unit = 1, 1
    for looked in sequences:
        steps = max(layer.c.size(0) for layer in _layers(looked.traces))
        one_step, one_unit = thinning(steps, most_units, room)
        every_step, every_unit = max(every_step, one_step), max(every_unit, one_unit)
    for sample, looked in enumerate(sequences):
        for number, layer in enumerate(_layers(looked.traces)):
            for name in NAMES:
                values = getattr(layer, name)[::every_step, 0, ::every_unit].float().numpy()
                rows[name].append(
                    {
                        "sample": sample,
                        "layer": number,
                        "name": name,
                        "every": every_step,
                        "units": list(range(0, getattr(layer, name).size(2), every_unit)),
                        "reads": list(looked.reads[::every_step]),
                        "values": rounded(values),
                    }
                )
    reads = sequences[0].reads
    largest = max((abs(v) for row in rows["c"] for v in row["values"] if v is not None), default=0.0) or 1.0
    domains = {"i": (0.0, 1.0), "f": (0.0, 1.0), "o": (0.0, 1.0), "c": (-largest, largest)}
    datasets = {name: Rows(f"gate {name}", rows[name]) for name in NAMES}
    maps = [
        heat_map(
            WORDS[name][0],
            f"{WORDS[name][1]}. {_reading(name, largest)}",
            datasets[name],
            domains.get(name, (-1.0, 1.0)),
            reads,
        )
        for name in NAMES
    ]
    lines = [
        unit_lines("The unit's gates", "From 0, shut, to 1, open.", [datasets[n] for n in "ifo"], "ifo", (0, 1), reads),
        unit_lines(
            "What the unit writes, keeps and shows",
            "The candidate g and the hidden state h lie between -1 and 1; the cell state c may go beyond.",
            [datasets[n] for n in "gch"],
            "gch",
            None,
            reads,
        ),
    ]
    choices = [
        Choice("chosen_sample", "Sequence", [(n, looked.name) for n, looked in enumerate(sequences)]),
        Choice("chosen_layer", "Layer", list(enumerate(names))),
        Choice("chosen_unit", "Unit", [(n, str(n)) for n in range(0, most_units, every_unit)]),
    ]
    seen = [When("chosen_sample", n, looked.card) for n, looked in enumerate(sequences)]
    thinned = [
        f"every {nth(every)} {what}" for what, every in (("step", every_step), ("unit", every_unit)) if every > 1
    ]
    note = [Text(f"There is more than can be drawn: {' and '.join(thinned)} is shown.")] if thinned else []
    return [
        Text(
            "A row of each map is a unit, a column a step; both are numbered from 0, as in the arrays of "
            "gatewise.trace. Hover over a cell for its value; click on it to choose its unit."
        ),
        *note,
        Chosen(choices, [*seen, *([Charts(above)] if above else []), Charts(lines), Charts(maps)]),
    ]


def layer_names(traces: Traces) -> list[str]:
    """What the layers of a model's LSTMs are called, in the order of `gate_blocks`.

    Examples
    --------
    >>> import torch
    >>> from gatewise.insight.trace import record
    >>> from gatewise.nn import LSTM
    >>> model = torch.nn.ModuleDict({"lstm": LSTM(4, 3, num_layers=2)})
    >>> with record(model) as traces:
    ...     _ = model["lstm"](torch.zeros(5, 1, 4))
    >>> layer_names(traces)
    ['lstm.l0', 'lstm.l1']
    """
    return [
        f"{module}.{layer.name}{f', call {number}' if number > 1 else ''}".removeprefix(".")
        for module, calls in traces.items()
        for number, call in enumerate(calls, start=1)
        for layer in call.layers
    ]


def thinning(steps: int, units: int, room: int) -> tuple[int, int]:
    """Every how many steps and units are drawn so that no more cells than there is room for are.

    All steps stay, up to `STEPS`, before all units do.

    Examples
    --------
    >>> thinning(28, 128, 8192), thinning(1000, 256, 8192), thinning(100, 2048, 8192)
    ((1, 1), (2, 16), (1, 26))
    """
    most_steps = min(steps, STEPS, room)
    every_step = -(-steps // most_steps)
    most_units = min(units, room // -(-steps // every_step))
    return every_step, -(-units // most_units)


def rounded(values: NDArray[Any]) -> list[float | None]:
    """Numbers to three decimals, row by row; None where one is not finite.

    Examples
    --------
    >>> rounded(np.array([[0.12345, -1e-9], [np.nan, 2.0]]))
    [0.123, 0.0, None, 2.0]
    """
    flat = np.round(values.astype(np.float64).ravel(), 3) + 0.0  # no -0.0
    return [value if np.isfinite(value) else None for value in flat.tolist()]


def _layers(traces: Traces) -> list[Any]:
    return [layer for calls in traces.values() for call in calls for layer in call.layers]


def _reading(name: str, largest: float) -> str:
    if name in "ifo":
        return "The lightest is 0, shut; the darkest is 1, open."
    if name == "c":
        return f"White is 0, blue is below it and orange above, to ±{largest:.3g}, the largest here."
    return "White is 0, blue is below it and orange above, to ±1."
