"""What the loop over time asks of a cell: a step, and the step's gradient.

`Plain` is the cell of equations (1.1) to (1.7), by `gatewise.reference.step`; the variants have pairs of their own. The
numbers in the comments are the equations of docs/equations.md.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np

from gatewise.reference.step import Array, Step, step, step_backward

State = tuple[Array, ...]
"""What is handed from step to step: h, (B, H) or with a projection (B, P), and c, (B, H); then what else there is."""


class StepGradients(NamedTuple):
    """What a step sends back.

    Attributes
    ----------
    d_x : ndarray, (B, I)
    d_state : tuple of ndarray
        By the state before the step.
    d_parameters : dict of str to ndarray
        By each parameter: what this step adds to its gradient.
    """

    d_x: Array
    d_state: State
    d_parameters: dict[str, Array]


class Cell(Protocol):
    """A step pair.

    Attributes
    ----------
    step_type : type
        A named tuple of what `step` returns: gates, candidate and the new state.
    """

    step_type: Any

    def step(self, x: Array, state: State, parameters: Mapping[str, Array], masks: Mapping[str, Array]) -> Any:
        """Take one step.

        Parameters
        ----------
        x : ndarray, (B, I)
            The input of this step.
        state : tuple of ndarray
            The state before it.
        parameters : mapping of str to ndarray
            Those of one layer and direction, by their names without its ending.
        masks : mapping of str to ndarray
            Those of this step, layer and direction, by the names of `Variant.masks`, without the axes before B; none
            in evaluation.
        """
        ...

    def step_backward(
        self,
        d_state: State,
        now: Any,
        x: Array,
        state: State,
        parameters: Mapping[str, Array],
        masks: Mapping[str, Array],
    ) -> StepGradients:
        """Carry the gradient back through one step.

        Parameters
        ----------
        d_state : tuple of ndarray
            The whole gradient of h_t, equation (2.1), and what reaches c_t from step t+1.
        now
            What `step` returned.
        x, state, parameters, masks
            What `step` was given.
        """
        ...


class Plain:
    """The cell that is torch's, with its projection if the parameters have one."""

    step_type = Step

    def step(self, x: Array, state: State, parameters: Mapping[str, Array], masks: Mapping[str, Array]) -> Step:
        """Take one step, as `Cell` says; there are no masks."""
        return step(x, *state, **parameters)

    def step_backward(
        self,
        d_state: State,
        now: Step,
        x: Array,
        state: State,
        parameters: Mapping[str, Array],
        masks: Mapping[str, Array],
    ) -> StepGradients:
        """Carry the gradient back through one step, as `Cell` says."""
        (d_h, d_c), (h_prev, c_prev) = d_state, state
        d_a, d_c_prev = step_backward(d_h, d_c, now, c_prev, parameters.get("weight_hr"))
        d_parameters = of_products(d_a, d_a, x, h_prev)
        d_parameters |= {bias: d_a.sum(axis=0) for bias in ("bias_ih", "bias_hh") if bias in parameters}  # (3.5)
        if "weight_hr" in parameters:
            m = now.o * np.tanh(now.c)  # (1.16)
            d_parameters["weight_hr"] = d_h.T @ m  # (3.10)
        return StepGradients(d_a @ parameters["weight_ih"], (d_a @ parameters["weight_hh"], d_c_prev), d_parameters)


def of_products(d_from_x: Array, d_from_h: Array, x: Array, h_prev: Array) -> dict[str, Array]:
    """Return what a step adds to the gradients of the two matrices.

    Parameters
    ----------
    d_from_x, d_from_h : ndarray, (B, 4H)
        The gradients of W_ih x and of W_hh h: both that of the pre-activations, where they are only added.
    x, h_prev : ndarray, (B, I) and (B, H)
        What the matrices multiply.
    """
    return {"weight_ih": d_from_x.T @ x, "weight_hh": d_from_h.T @ h_prev}  # (3.3), (3.4)
