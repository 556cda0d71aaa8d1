"""A variant as a loop in Python: what one writes who has a changed cell and no kernel for it.

It is written with care, for nothing here is to make gatewise look better than it is: the input's product is taken for
all steps at once, steps are taken apart by ``unbind`` (the gradient of an ``x[t]`` has the size of all steps, zeros but
for one, and so many of them took more than half of the training step), masks are drawn for the whole sequence before it
begins, and each operation is the one that torch has for it. The numbers in the comments are the equations of
docs/equations.md.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn.functional import hardsigmoid, layer_norm, linear, logsigmoid

from gatewise.nn import LSTM
from gatewise.nn.masks import draw_masks
from gatewise.reference.layer_norm import EPSILON
from gatewise.reference.variant import Variant

State = tuple[Tensor, ...]


def _step(a: Tensor) -> Tensor:
    return (a > 0).to(a.dtype) + (a - a.detach())  # (7.2): what is added is 0 with the gradient of the identity


GATES: dict[str, Callable[[Tensor], Tensor]] = {
    "sigmoid": torch.sigmoid,
    "hardsigmoid": hardsigmoid,  # (7.1)
    "step": _step,
}


class Loop:
    """The cell of an LSTM, step by step in torch's operations, with a copy of its weights.

    Parameters
    ----------
    lstm : LSTM
        In training mode, with biases and without dropout between its layers; an sLSTM with nothing else changed.

    Attributes
    ----------
    parameters : dict of str to Tensor
        By the LSTM's names.

    Examples
    --------
    >>> lstm = LSTM(4, 3, peephole=True)
    >>> x, h, c = torch.randn(5, 2, 4), torch.zeros(1, 2, 3), torch.zeros(1, 2, 3)
    >>> torch.allclose(Loop(lstm)(x, (h, c)), lstm(x)[0], atol=1e-6)
    True
    """

    def __init__(self, lstm: LSTM) -> None:
        self.variant = lstm.variant
        self.hidden, self.width = lstm.hidden_size, lstm.proj_size or lstm.hidden_size
        self.suffixes = [
            [f"_l{layer}{'_reverse' * d}" for d in range(1 + lstm.bidirectional)] for layer in range(lstm.num_layers)
        ]
        self.parameters = {name: p.detach().clone().requires_grad_() for name, p in lstm.named_parameters()}

    def __call__(self, x: Tensor, states: State) -> Tensor:
        """Compute the output, (T, B, D·P)."""
        # Drawn as gatewise draws them: the same seed has the same masks.
        sizes = {"cells": len(states[0]), "time": x.size(0), "batch": x.size(1)}
        masks = draw_masks(self.variant.masks(**sizes, hidden=self.hidden, width=self.width), x)
        k = 0
        for of_layer in self.suffixes:
            outputs = []
            for d, suffix in enumerate(of_layer):
                own = {n.removesuffix(suffix): p for n, p in self.parameters.items() if n.endswith(suffix)}
                of_cell = {name: mask[k] for name, mask in masks.items()}
                outputs.append(_direction(self.variant, own, of_cell, x, tuple(s[k] for s in states), d == 1))
                k += 1
            x = outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim=-1)
        return x


def _direction(
    variant: Variant, own: Mapping[str, Tensor], masks: Mapping[str, Tensor], x: Tensor, state: State, reverse: bool
) -> Tensor:
    """One layer in one direction: every h, (T, B, P)."""
    weight_hh = own["weight_hh"] * masks["weight_hh"] if "weight_hh" in masks else own["weight_hh"]  # (7.15)
    bias = own["bias_ih"] + own["bias_hh"]
    if variant.layer_norm:
        from_x = _normalized(linear(x, own["weight_ih"]), own["gain_ih"], bias)  # (7.20)
    else:
        from_x = linear(x, own["weight_ih"], bias)
    cell = _slstm if variant.cell == "slstm" else _lstm(variant, own)
    seen = masks.get("hidden")
    steps = {name: mask.unbind() for name, mask in masks.items() if name not in ("hidden", "weight_hh")}
    outputs = []
    parts = list(enumerate(from_x.unbind()))
    for t, a in reversed(parts) if reverse else parts:
        h = state[0] if seen is None else state[0] * seen  # (7.13)
        from_h = linear(h, weight_hh)
        if variant.layer_norm:
            from_h = _normalized(from_h, own["gain_hh"], None)  # (7.20)
        state = cell(a + from_h, state, {name: mask[t] for name, mask in steps.items()})  # (1.1)
        outputs.append(state[0])
    return torch.stack(outputs[::-1] if reverse else outputs)


Cell = Callable[[Tensor, State, Mapping[str, Tensor]], State]
"""Makes of the pre-activations, the state and a step's masks the state after the step."""


def _lstm(variant: Variant, own: Mapping[str, Tensor]) -> Cell:
    sigma = GATES[variant.gate_activation]
    count = len(variant.gates)
    peepholes = own["weight_ch"].chunk(len(variant.peepholes)) if variant.peephole else ()

    def cell(a: Tensor, state: State, masks: Mapping[str, Tensor]) -> State:
        h_prev, c_prev = state
        *a_if, a_g, a_o = a.chunk(count, -1)  # i alone where the gates are coupled
        if variant.peephole:
            a_if = [a_gate + p * c_prev for a_gate, p in zip(a_if, peepholes, strict=False)]  # (7.5)
        i = sigma(a_if[0])  # (1.2)
        f = 1 - i if variant.coupled else sigma(a_if[1])  # (7.9), (1.3)
        g = a_g if variant.candidate_activation == "linear" else torch.tanh(a_g)  # (7.4), (1.4)
        if "candidate" in masks:
            g = g * masks["candidate"]  # (7.11)
        c = f * c_prev + i * g  # (1.6)
        o = sigma(a_o + peepholes[-1] * c if variant.peephole else a_o)  # (7.6), (1.5)
        shown = _normalized(c, own["gain_c"], own["bias_c"]) if variant.layer_norm else c  # (7.21)
        h = o * (shown if variant.cell_activation == "linear" else torch.tanh(shown))  # (7.4), (1.7)
        if "weight_hr" in own:
            h = linear(h, own["weight_hr"])  # (1.17)
        if "zoneout_h" in masks:
            h = torch.where(masks["zoneout_h"].bool(), h_prev, h)  # (7.17)
        if "zoneout_c" in masks:
            c = torch.where(masks["zoneout_c"].bool(), c_prev, c)  # (7.17)
        return h, c

    return cell


def _slstm(a: Tensor, state: State, masks: Mapping[str, Tensor]) -> State:
    _, c_prev, n_prev, m_prev = state
    a_i, a_f, a_g, a_o = a.chunk(4, -1)
    kept = logsigmoid(a_f) + m_prev  # (7.24)
    m = torch.maximum(kept, a_i)  # (7.25)
    i, f = torch.exp(a_i - m), torch.exp(kept - m)  # (7.26)
    c = f * c_prev + i * torch.tanh(a_g)  # (7.27)
    n = f * n_prev + i  # (7.27)
    return torch.sigmoid(a_o) * c / n, c, n, m  # (7.28)


def _normalized(v: Tensor, gain: Tensor, bias: Tensor | None) -> Tensor:
    return layer_norm(v, gain.shape, gain, bias, EPSILON)  # (7.19)
