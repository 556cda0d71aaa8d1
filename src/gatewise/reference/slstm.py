"""One step of the sLSTM cell and its gradient: section 7 of docs/equations.md."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from gatewise.reference.activations import SQUASHES
from gatewise.reference.cell import State, StepGradients, of_products
from gatewise.reference.step import Array, sigmoid
from gatewise.reference.variant import Variant


class SStep(NamedTuple):
    """A step's gates, stabilized, its candidate and the new state.

    Attributes
    ----------
    i, f, g, o : ndarray, (B, H)
        Input gate, forget gate, candidate, output gate.
    c, h : ndarray, (B, H)
        Cell state and hidden state after the step; with a projection h is (B, P).
    n, m : ndarray, (B, H)
        Normalizer and stabilizer after the step.
    """

    i: Array
    f: Array
    g: Array
    o: Array
    c: Array
    h: Array
    n: Array
    m: Array


class SLSTM:
    """The step pair of the sLSTM, whose state is h, c, n and m.

    Parameters
    ----------
    variant : Variant
        Its options.

    Examples
    --------
    With all weights zero each step weighs as much as all before it, and the cell is the mean of the candidates.

    >>> own = {"weight_ih": np.zeros((4, 1)), "weight_hh": np.zeros((4, 1))}
    >>> state = (np.zeros((1, 1)),) * 4
    >>> now = SLSTM(Variant(cell="slstm", gate_activation="exp")).step(np.zeros((1, 1)), state, own, {})
    >>> print(now.n, now.i)
    [[1.]] [[1.]]
    """

    step_type = SStep

    def __init__(self, variant: Variant) -> None:
        self._is_exp = variant.gate_activation == "exp"
        self._candidate = SQUASHES[variant.candidate_activation]

    def step(self, x: Array, state: State, parameters: Mapping[str, Array], masks: Mapping[str, Array]) -> SStep:
        """Take one step, as `gatewise.reference.cell.Cell` says."""
        h_prev, c_prev, n_prev, m_prev = state
        a_i, a_f, a_g, a_o = self._pre_activations(x, h_prev, parameters, masks)
        log_f = a_f if self._is_exp else np.minimum(a_f, 0) - np.log1p(np.exp(-np.abs(a_f)))  # (7.24)
        begun = n_prev != 0
        m = np.where(begun, np.maximum(log_f + m_prev, a_i), a_i)  # (7.25)
        i = np.exp(a_i - m)  # (7.26)
        f = np.where(begun, np.exp(np.where(begun, log_f + m_prev - m, 0)), 0)  # (7.26)
        g, o = self._candidate.value(a_g), sigmoid(a_o)  # (1.4), (1.5)
        c = f * c_prev + i * masks.get("candidate", 1) * g  # (7.27)
        n = f * n_prev + i  # (7.27)
        m_t = o * c / n  # (7.28)
        h = m_t @ parameters["weight_hr"].T if "weight_hr" in parameters else m_t  # (1.17)
        return SStep(i, f, g, o, c, h, n, m)

    def step_backward(
        self,
        d_state: State,
        now: SStep,
        x: Array,
        state: State,
        parameters: Mapping[str, Array],
        masks: Mapping[str, Array],
    ) -> StepGradients:
        """Carry the gradient back through one step, as `gatewise.reference.cell.Cell` says."""
        (d_h, d_c, d_n, d_m), (h_prev, c_prev, n_prev, m_prev) = d_state, state
        i, f, g, o, c, _, n, _ = now
        n = np.where(n == 0, 1, n)  # where no step is taken, to which nothing is sent
        kept_g, kept_h = masks.get("candidate", 1), masks.get("hidden", 1)
        a_i, a_f, _, _ = self._pre_activations(x, h_prev, parameters, masks)
        d_shown = d_h @ parameters["weight_hr"] if "weight_hr" in parameters else d_h  # (2.13)
        d_o = d_shown * c / n  # (7.29)
        d_c = d_c + d_shown * o / n  # (7.29)
        d_n = d_n - d_shown * o * c / n**2  # (7.29)
        d_log_i = (d_c * kept_g * g + d_n) * i  # (7.30)
        d_log_f = (d_c * c_prev + d_n * n_prev) * f  # (7.30)
        d_g = d_c * i * kept_g  # (7.30)
        d_c_prev, d_n_prev = d_c * f, d_n * f  # (7.30)
        rest = d_m - d_log_i - d_log_f  # (7.31)
        log_f = a_f if self._is_exp else np.minimum(a_f, 0) - np.log1p(np.exp(-np.abs(a_f)))  # (7.24)
        kept = (n_prev != 0) & (log_f + m_prev >= a_i)
        d_a_i, d_m_prev = d_log_i + np.where(kept, 0, rest), d_log_f + np.where(kept, rest, 0)  # (7.31)
        d_a_f = d_m_prev if self._is_exp else d_m_prev * sigmoid(-a_f)  # (7.32)
        d_a = np.concatenate([d_a_i, d_a_f, d_g * self._candidate.slope(g), d_o * o * (1 - o)], axis=1)  # (2.12)
        d_parameters = of_products(d_a, d_a, x, kept_h * h_prev)
        d_parameters["weight_hh"] = masks.get("weight_hh", 1) * d_parameters["weight_hh"]  # (7.16)
        d_parameters |= {bias: d_a.sum(axis=0) for bias in ("bias_ih", "bias_hh") if bias in parameters}  # (3.5)
        if "weight_hr" in parameters:
            d_parameters["weight_hr"] = d_h.T @ (o * c / n)  # (3.10)
        d_h_prev = kept_h * (d_a @ (masks.get("weight_hh", 1) * parameters["weight_hh"]))  # (3.1), (7.14)
        return StepGradients(d_a @ parameters["weight_ih"], (d_h_prev, d_c_prev, d_n_prev, d_m_prev), d_parameters)

    @staticmethod
    def _pre_activations(
        x: Array, h_prev: Array, parameters: Mapping[str, Array], masks: Mapping[str, Array]
    ) -> list[Array]:
        weight_hh = masks.get("weight_hh", 1) * parameters["weight_hh"]  # (7.15)
        a = x @ parameters["weight_ih"].T + (masks.get("hidden", 1) * h_prev) @ weight_hh.T  # (1.1), (7.13)
        return np.split(a + parameters.get("bias_ih", 0) + parameters.get("bias_hh", 0), 4, axis=1)  # (1.9)
