"""How far a run's gradient reaches back, beside how far training let it: is the truncation long enough?"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gatewise.errors import ArgumentError
from gatewise.tasks.task import task_of
from gatewise.train.run import Run

if TYPE_CHECKING:
    from gatewise.insight.gradient_flow import GradientFlow, LayerFlow


@dataclass(frozen=True)
class LayerReach:
    """What was found of a recurrent layer.

    Parameters
    ----------
    layer, cell : str
        Its name, and what it is.
    horizon : int or None
        Steps back until the gradient has fallen below the fraction for good; None: not within the sequences, or it gets
        none.
    left : float or None
        The share of the gradient that is left at the step where training cut it off, of what it is at lag 0; None where
        nothing was cut off, or the sequences end before.
    longest : int
        The longest lag that could be measured.
    sentence : str
        What that means.
    """

    layer: str
    cell: str
    horizon: int | None
    left: float | None
    longest: int
    sentence: str


@dataclass(frozen=True, eq=False)
class Horizons:
    """What was found of a run.

    Parameters
    ----------
    run, task, weights : str
        What was looked at.
    fraction : float
        Of the gradient.
    sequences, steps : int
        On how many test sequences, and how long they are.
    step : str
        What a step is.
    reach : int or None
        Through how many steps gradients flowed in training at the most; None: through whole sequences.
    layers : tuple of LayerReach
        Layer by layer.
    flow : GradientFlow
        The gradients.
    """

    run: str
    task: str
    weights: str
    fraction: float
    sequences: int
    steps: int
    step: str
    reach: int | None
    layers: tuple[LayerReach, ...]
    flow: "GradientFlow"

    def to_json(self) -> Mapping[str, Any]:
        """As JSON knows it, without the gradients themselves."""
        names = ("run", "task", "weights", "fraction", "sequences", "steps", "step", "reach")
        return {name: getattr(self, name) for name in names} | {"layers": [asdict(layer) for layer in self.layers]}


def horizons(folder: Path, weights: str = "best", fraction: float = 0.1, steps: int | None = None) -> Horizons:
    """Measure how far back a run's gradient reaches on some of its test sequences.

    Parameters
    ----------
    folder : path
        Of the run.
    weights : {"best", "last"}, default "best"
        Which ones.
    fraction : float, default 0.1
        The share of the gradient that counts as nothing, between 0 and 1.
    steps : int, default: four times the truncation, or the sequences' own length
        How long the sequences are, where the state was carried on in training.

    Raises
    ------
    ArgumentError
        The fraction is not between 0 and 1, or the task has no sequences of so many steps.
    RunError, DataError
        The run or its data are missing or not in order.
    """
    from gatewise.insight.gradient_flow import gradient_flow

    if not 0 < fraction < 1:
        raise ArgumentError(f"fraction is {fraction:g}, needed a number between 0 and 1: give a share of the gradient")
    if steps is not None and steps < 2:
        raise ArgumentError(f"steps is {steps}, needed are at least 2: make it larger")
    run = Run.open(folder)
    task, config = task_of(run)
    probe = task.runner().probe(task, config, run, weights, steps)
    flow = gradient_flow(probe.model, probe.inputs, probe.loss)
    layers = tuple(reach_of(layer, probe.reach, fraction) for layer in flow.layers)
    about = (str(folder), task.name, weights, fraction, probe.sequences, probe.steps, probe.step, probe.reach)
    return Horizons(*about, layers, flow)


def reach_of(layer: "LayerFlow", reach: int | None, fraction: float) -> LayerReach:
    """Hold a layer's horizon against how far training let gradients flow.

    Parameters
    ----------
    layer : LayerFlow
        Of a loss at the sequences' ends.
    reach : int or None
        Steps through which gradients flowed; None: all.
    fraction : float
        Of the gradient.

    Examples
    --------
    >>> import torch
    >>> from gatewise.insight.gradient_flow import gradient_flow
    >>> lstm = torch.nn.LSTM(4, 3)
    >>> for weight in lstm.parameters():
    ...     _ = torch.nn.init.zeros_(weight)
    >>> flow = gradient_flow(lstm, torch.ones(9, 1, 4), lambda output: output[0][-1].sum())
    >>> found = reach_of(flow.layers[0], 3, 0.1)
    >>> found.horizon, found.left
    (4, 0.125)
    >>> print(found.sentence)
    3 steps back, where training cut it off, 12.5 % of the gradient is left: a longer truncation could teach it more.
    """
    from gatewise.insight.gradient_flow import sentence

    horizon, longest = layer.horizon(fraction), len(layer.decay) - 1
    whole = int(horizon) if math.isfinite(horizon) else None
    left = layer.decay[reach].item() if reach is not None and reach <= longest else None
    left = left if left is not None and math.isfinite(left) else None
    if left is None:
        said = sentence(layer, fraction).split(": ", 1)[1]
        said = said[0].upper() + said[1:]
    else:
        step = "step" if reach == 1 else "steps"
        said = f"{reach} {step} back, where training cut it off, {100 * left:.3g} % of the gradient is left: " + (
            "a longer truncation could teach it more." if left >= fraction else "the truncation costs it little."
        )
    return LayerReach(layer.name, layer.cell, whole, left, longest, said)
