"""One step of every variant of the LSTM cell, and its gradient: section 7 of docs/equations.md.

What a variant leaves as it is reads as in `gatewise.reference.step`. A peephole that is not there is 0, a mask that is
not there is 1, and zoneout without its mask is the expectation over it.
"""

from collections.abc import Mapping

import numpy as np

from gatewise.reference.activations import GATES, SQUASHES
from gatewise.reference.cell import State, StepGradients, of_products
from gatewise.reference.layer_norm import normalized, normalized_backward
from gatewise.reference.step import Array, Step
from gatewise.reference.variant import Variant


class Varied:
    """The step pair of a variant.

    Parameters
    ----------
    variant : Variant
        What is changed of the plain cell.

    Examples
    --------
    With all weights zero but the peepholes, a forget gate that sees 1 in the cell keeps more than one half of it.

    >>> parameters = {"weight_ih": np.zeros((4, 1)), "weight_hh": np.zeros((4, 1))}
    >>> parameters["weight_ch"] = np.array([0.0, 2.0, 0.0])
    >>> state = np.zeros((1, 1)), np.ones((1, 1))
    >>> now = Varied(Variant(peephole=True)).step(np.zeros((1, 1)), state, parameters, {})
    >>> print(now.f.round(2), now.c.round(2))
    [[0.88]] [[0.88]]
    """

    step_type = Step

    def __init__(self, variant: Variant) -> None:
        self._variant = variant
        self._gate = GATES[variant.gate_activation]
        self._candidate, self._shown = SQUASHES[variant.candidate_activation], SQUASHES[variant.cell_activation]

    def step(self, x: Array, state: State, parameters: Mapping[str, Array], masks: Mapping[str, Array]) -> Step:
        """Take one step, as `gatewise.reference.cell.Cell` says."""
        h_prev, c_prev = state
        gate, peephole = self._gate.value, self._variant.blocks(parameters, c_prev.shape[1])
        weight_hh = masks.get("weight_hh", 1) * parameters["weight_hh"]  # (7.15)
        seen = masks.get("hidden", 1) * h_prev  # (7.13)
        from_x = normalized(x @ parameters["weight_ih"].T, parameters.get("gain_ih"))  # (7.20)
        from_h = normalized(seen @ weight_hh.T, parameters.get("gain_hh"))  # (7.20)
        stacked = from_x + from_h + parameters.get("bias_ih", 0) + parameters.get("bias_hh", 0)  # (1.1)
        a = dict(zip(self._variant.gates, np.split(stacked, len(self._variant.gates), axis=1), strict=True))  # (1.9)
        i = gate(a["i"] + peephole.get("i", 0) * c_prev)  # (7.5)
        f = 1 - i if self._variant.coupled else gate(a["f"] + peephole.get("f", 0) * c_prev)  # (7.9), (7.5)
        g = self._candidate.value(a["g"])
        c = f * c_prev + i * masks.get("candidate", 1) * g  # (1.6), (7.11)
        o = gate(a["o"] + peephole.get("o", 0) * c)  # (7.6)
        read = normalized(c, parameters.get("gain_c")) + parameters.get("bias_c", 0)  # (7.21)
        m = o * self._shown.value(read)  # (7.4)
        h = m @ parameters["weight_hr"].T if "weight_hr" in parameters else m  # (1.17)
        z_h, z_c = self._zoneout(masks)
        return Step(i, f, g, o, z_c * c_prev + (1 - z_c) * c, z_h * h_prev + (1 - z_h) * h)  # (7.17)

    def step_backward(
        self,
        d_state: State,
        now: Step,
        x: Array,
        state: State,
        parameters: Mapping[str, Array],
        masks: Mapping[str, Array],
    ) -> StepGradients:
        """Carry the gradient back through one step, as `gatewise.reference.cell.Cell` says."""
        (d_h_zoned, d_c_zoned), (h_prev, c_prev), (i, f, g, o, *_) = d_state, state, now
        slope, peephole = self._gate.slope, self._variant.blocks(parameters, c_prev.shape[1])
        weight_hh = masks.get("weight_hh", 1) * parameters["weight_hh"]  # (7.15)
        kept_h, kept_g = masks.get("hidden", 1), masks.get("candidate", 1)
        z_h, z_c = self._zoneout(masks)
        d_h, d_c = (1 - z_h) * d_h_zoned, (1 - z_c) * d_c_zoned  # (7.18)
        c = f * c_prev + i * kept_g * g  # (7.11); now.c may be zoned out
        read = normalized(c, parameters.get("gain_c")) + parameters.get("bias_c", 0)  # (7.21)
        shown = self._shown.value(read)
        d_m = d_h @ parameters["weight_hr"] if "weight_hr" in parameters else d_h  # (2.13)
        d_a_o = d_m * shown * slope(o)  # (2.2), (7.3)
        d_read = d_m * o * self._shown.slope(shown)  # (2.3)
        d_from_read, d_gain_c = normalized_backward(d_read, c, parameters.get("gain_c"))
        d_c = d_c + d_from_read + peephole.get("o", 0) * d_a_o  # (2.3), (7.7)
        d_f = d_c * c_prev  # (2.5)
        d_i = d_c * kept_g * g - (d_f if self._variant.coupled else 0)  # (2.4), (7.12), (7.10)
        d_a = {
            "i": d_i * slope(i),
            "f": d_f * slope(f),
            "g": d_c * i * kept_g * self._candidate.slope(g),  # (2.6), (7.12)
            "o": d_a_o,
        }
        seen = {"i": c_prev, "f": c_prev, "o": c}
        d_c_prev = d_c * f + sum(peephole.get(gate, 0) * d_a[gate] for gate in "if")  # (2.7), (7.7)
        d_c_prev = d_c_prev + z_c * d_c_zoned  # (7.18)
        d_stacked = np.concatenate([d_a[gate] for gate in self._variant.gates], axis=1)  # (2.12)
        seen_h = kept_h * h_prev  # (7.13)
        gain_ih, gain_hh = parameters.get("gain_ih"), parameters.get("gain_hh")
        d_from_x, d_gain_ih = normalized_backward(d_stacked, x @ parameters["weight_ih"].T, gain_ih)
        d_from_h, d_gain_hh = normalized_backward(d_stacked, seen_h @ weight_hh.T, gain_hh)
        d_parameters = of_products(d_from_x, d_from_h, x, seen_h)  # (7.14)
        d_parameters["weight_hh"] = masks.get("weight_hh", 1) * d_parameters["weight_hh"]  # (7.16)
        d_parameters |= {bias: d_stacked.sum(axis=0) for bias in ("bias_ih", "bias_hh") if bias in parameters}  # (3.5)
        if peephole:
            d_each = [(d_a[gate] * seen[gate]).sum(axis=0) for gate in self._variant.peepholes]
            d_parameters["weight_ch"] = np.concatenate(d_each)  # (7.8)
        if "weight_hr" in parameters:
            d_parameters["weight_hr"] = d_h.T @ (o * shown)  # (3.10)
        d_gains = {"gain_ih": d_gain_ih, "gain_hh": d_gain_hh, "gain_c": d_gain_c}
        d_parameters |= {name: d_gain for name, d_gain in d_gains.items() if d_gain is not None}
        if "bias_c" in parameters:
            d_parameters["bias_c"] = d_read.sum(axis=0)  # (7.23)
        d_x = d_from_x @ parameters["weight_ih"]  # (3.2)
        d_h_prev = kept_h * (d_from_h @ weight_hh) + z_h * d_h_zoned  # (3.1), (7.14), (7.18)
        return StepGradients(d_x, (d_h_prev, d_c_prev), d_parameters)

    def _zoneout(self, masks: Mapping[str, Array]) -> tuple[Array | float, Array | float]:
        """Return where h and c stay what they were, or how much of them does in evaluation."""
        of_h, of_c = self._variant.zoneout  # type: ignore[misc]
        return masks.get("zoneout_h", of_h), masks.get("zoneout_c", of_c)
