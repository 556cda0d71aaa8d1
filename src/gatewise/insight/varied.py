"""The way back through one layer of a changed LSTM, path by path.

Nothing here is written for one variant. All of a step acts within each unit but the products with weight_hh and
weight_hr and the normalizations. What acts within a unit is differentiated by torch, in `gatewise.nn.step`, for all
steps at once from the state that was recorded before each; the rest is linear, or (7.22). Time runs as in
`gatewise.insight.recurrence`. The numbers in the comments are equations of docs/equations.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from gatewise.insight.recurrence import Way
from gatewise.nn.step import from_hidden, from_input, shown, step
from gatewise.reference.layer_norm import EPSILON
from gatewise.reference.variant import Variant


class Taken(NamedTuple):
    """What a layer did in one direction, in the order of its steps.

    Attributes
    ----------
    x, h, c : Tensor
        (T, B, I), (T, B, P) and (T, B, H): what it read, and what was recorded after each step; 0 past a length.
    h_0, c_0 : Tensor
        (B, P) and (B, S·H): the state that it began with; S is 1, and 3 in an sLSTM, whose c, n and m are one tensor.
    masks : mapping of str to Tensor
        The layer's own, without the axis of layers.
    cut : Tensor or None
        (T, B), bool: where a step was handed no state.
    taken : Tensor or None
        (T, B), bool: the steps that each sequence has; None: all.
    """

    x: Tensor
    h: Tensor
    c: Tensor
    h_0: Tensor
    c_0: Tensor
    masks: Mapping[str, Tensor]
    cut: Tensor | None
    taken: Tensor | None


class VariedRecurrence:
    """A changed LSTM: the state is c.

    Parameters
    ----------
    variant : Variant
        The cell.
    own : mapping of str to Tensor
        The parameters of the layer and direction, by name.
    did : Taken
        Its forward pass.

    Attributes
    ----------
    names : tuple of str
        "cell", the gates, and where there are some "peephole" and "zoneout", as `LayerFlow` says.
    """

    def __init__(self, variant: Variant, own: Mapping[str, Tensor], did: Taken) -> None:
        self._variant, self._own, self._cut, self._taken = variant, own, did.cut, did.taken
        z_h, z_c = variant.zoneout  # type: ignore[misc]
        self.names = ("cell", *variant.gates, *["peephole"] * variant.peephole, *["zoneout"] * bool(z_h))
        self._z_h = did.masks.get("zoneout_h", did.h.new_tensor(z_h)).expand_as(did.h)
        self._z_c = did.masks.get("zoneout_c", did.c.new_tensor(z_c)).expand_as(did.c)
        self._peephole = variant.blocks(own, did.c.size(-1))
        self._masks = {name: mask for name, mask in did.masks.items() if name == "hidden"}
        candidate = {name: mask for name, mask in did.masks.items() if name == "candidate"}
        h_prev = self._before(did.h, did.h_0)
        a = from_input(own, did.x) + from_hidden(own, h_prev, self._masks)  # (1.1)
        unit = _Unit(variant)
        if variant.cell == "slstm":
            c_prev = self._cells_before(unit, a, did.c_0, candidate)
            self.begins: Tensor | None = c_prev.chunk(3, dim=-1)[1] == 0  # n: nothing is there to be kept (7.26)
        else:
            c_prev, self.begins = self._before(did.c, did.c_0), None
        if variant.layer_norm:
            raw = {name: weight for name, weight in own.items() if not name.startswith(("gain", "bias"))}
            self._norm_x = _Norm(from_input(raw, did.x), own["gain_ih"])
            self._norm_h = _Norm(from_hidden(raw, h_prev, self._masks), own["gain_hh"])
        self._differentiate(unit, a, c_prev, candidate)
        keeps = self._z_c + (1 - self._z_c) * self._c_along[:, :, 0, 0]  # (4.14)
        self.keeps = keeps if did.taken is None else keeps.masked_fill(~did.taken[:, :, None], 0)

    def _before(self, states: Tensor, first: Tensor) -> Tensor:
        """The state before each step, from those after them."""
        before = torch.cat([first[None], states[:-1]])
        return before if self._cut is None else before.masked_fill(self._cut[:, :, None], 0)

    def _cells_before(self, unit: _Unit, a: Tensor, c: Tensor, candidate: Mapping[str, Tensor]) -> Tensor:
        """c, n and m before each step, (T, B, 3H): n and m are recorded nowhere."""
        before = []
        for t in range(len(a)):
            if self._cut is not None:
                c = c.masked_fill(self._cut[t, :, None], 0)
            before.append(c)
            c, _ = unit(a[t], c, {name: mask[t] for name, mask in candidate.items()})
        return torch.stack(before)

    def _differentiate(self, unit: _Unit, a: Tensor, c_prev: Tensor, candidate: Mapping[str, Tensor]) -> None:
        """All that acts within a unit, for all steps at once: a derivative of a sum is then that of each number."""
        H = self._z_c.size(-1)
        G, S = len(self._variant.gates), c_prev.size(-1) // H
        blocks = dict(zip(self._variant.gates, a.chunk(G, dim=-1), strict=True))
        for gate in self._peephole.keys() - {"o"}:
            blocks[gate] = blocks[gate] + self._peephole[gate] * c_prev  # (7.5)
        if "o" in self._peephole:
            c, _ = unit(torch.cat([*blocks.values()], dim=-1), c_prev, candidate)
            blocks["o"] = blocks["o"] + self._peephole["o"] * c  # (7.6)
        with torch.enable_grad():
            a = torch.cat([*blocks.values()], dim=-1).requires_grad_()
            c_prev = c_prev.detach().requires_grad_()
            c, o = unit(a, c_prev, candidate)
            of_cells = [torch.autograd.grad(one.sum(), (a, c_prev), retain_graph=True) for one in c.chunk(S, dim=-1)]
            (of_o,) = torch.autograd.grad(o.sum(), a)
            seen, o = c.detach(), o.detach().requires_grad_()
            if self._variant.layer_norm:
                self._norm_c = _Norm(seen, self._own["gain_c"])
                seen = self._norm_c.normalized * self._own["gain_c"] + self._own.get("bias_c", 0)  # (7.21)
            seen.requires_grad_()
            reads, of_shown = torch.autograd.grad(shown(self._variant, o, seen).sum(), (seen, o))
        # (T, B, S, G, H) and (T, B, S, S, H): of each cell after the step by what it is made of.
        self._c_from_a = _apart(torch.stack([d_a for d_a, _ in of_cells], dim=2), G)
        self._c_along = _apart(torch.stack([d_c for _, d_c in of_cells], dim=2), S)
        self._reads = _apart(reads, S)  # R of (4.6)
        self._into_o = of_shown * of_o[..., -H:]  # before the weights in P^o of (4.6)

    # Each of the following takes a step t or a slice of steps, and gradients with any axes before those of t.

    def _to_cells(self, t: int | slice, d_h: Tensor) -> tuple[Tensor, Tensor]:
        """From h, (…, B, P), to the cells as the step makes them, (…, B, S, H), and to the output gate, (…, B, H)."""
        d_shown = (1 - self._z_h[t]) * d_h  # (7.18)
        if "weight_hr" in self._own:
            d_shown = d_shown @ self._own["weight_hr"]
        d_c = self._reads[t] * d_shown[..., None, :]
        if self._variant.layer_norm:
            d_c = self._norm_c.back(t, d_c[..., 0, :])[..., None, :]
        return d_c, self._into_o[t] * d_shown

    def _to_hidden(self, t: int | slice, d_a: Tensor) -> Tensor:
        """From the pre-activations, (…, B, G, H), to the h that they are made of, (…, B, P)."""
        d = d_a.flatten(-2)
        if self._variant.layer_norm:
            d = self._norm_h.back(t, d)
        d = d @ self._own["weight_hh"]
        return d * self._masks["hidden"] if self._masks else d  # (7.14)

    def _through_peepholes(self, d_a: Tensor) -> Tensor:
        """From the pre-activations, (…, B, G, H), to the cell that the gates see before the step, (…, B, H)."""
        gates = self._variant.gates
        seen = [self._peephole[gate] * d_a[..., gates.index(gate), :] for gate in self._peephole if gate != "o"]
        return torch.stack(seen).sum(0)  # (7.7)

    def _step_back(self, t: int, d_h: Tensor, d_cells: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Send a gradient of the state after step t, (…, B, P) and (…, B, S, H), to that before it.

        Returns what reaches h and the cells before the step, the cells as the step makes them, and its pre-activations.
        """
        d_new, d_o = self._to_cells(t, d_h)
        if "o" in self._peephole:
            d_new = d_new + (self._peephole["o"] * d_o)[..., None, :]  # (7.7)
        z_c = self._z_c[t][:, None]
        d_new = d_new + (1 - z_c) * d_cells
        d_a = (self._c_from_a[t] * d_new[..., None, :]).sum(-3)
        d_a[..., -1, :] += d_o  # no cell is made of the output gate
        d_h_prev = self._z_h[t] * d_h + self._to_hidden(t, d_a)
        d_c_prev = z_c * d_cells + (self._c_along[t] * d_new[..., None, :]).sum(-3)
        if self._peephole:
            d_c_prev = d_c_prev + self._through_peepholes(d_a)[..., None, :]
        if self._cut is not None:
            d_h_prev = d_h_prev.masked_fill(self._cut[t, :, None], 0)
            d_c_prev = d_c_prev.masked_fill(self._cut[t, :, None, None], 0)
        return d_h_prev, d_c_prev, d_new, d_a

    def back(self, d_h: Tensor, d_state: Tensor) -> Way:
        """As `Recurrence.back`: the whole, step by step, and then each path by itself."""
        T, B, H = self._z_c.shape
        K, gates = len(self.names), self._variant.gates
        d_state = _apart(d_state, d_state.size(-1) // H)
        whole_h, d_a = torch.empty_like(d_h), d_h.new_empty(T, B, len(gates), H)
        d_h_next, d_c_next = torch.zeros_like(d_h[0]), torch.zeros_like(d_state[0])
        for t in reversed(range(T)):
            whole_h[t] = d_h[t] + d_h_next
            d_h_next, d_c_next, _, d_a[t] = self._step_back(t, whole_h[t], d_state[t] + d_c_next)
        # What came to h through each gate, and past the step, of all steps at once (4.13).
        h_paths = d_h.new_zeros(K, *d_h.shape)
        h_paths[0] = d_h
        for place, name in enumerate(self.names[1:], 1):
            if name in gates:
                alone = torch.zeros_like(d_a)
                alone[:, :, gates.index(name)] = d_a[:, :, gates.index(name)]
                h_paths[place, :-1] = self._to_hidden(slice(1, None), alone[1:])
            elif name == "zoneout":
                h_paths[place, :-1] = self._z_h[1:] * whole_h[1:]
        if self._cut is not None:
            h_paths[1:, :-1] = h_paths[1:, :-1].masked_fill(self._cut[1:, :, None], 0)
        # And what of it reaches c, with what comes by peepholes (4.15); then along c alone: no n or m is made of it.
        made, d_o = self._to_cells(slice(None), h_paths)
        made = made[..., 0, :]
        seen = None
        if self._peephole:
            place = self.names.index("peephole")
            made[place] = made[place] + self._peephole["o"] * d_o.sum(0)
            seen = self._through_peepholes(d_a)
        paths, onward = torch.empty_like(made), torch.zeros_like(made[:, 0])
        is_zoned = bool(self._variant.zoneout[1])  # type: ignore[index]
        for t in reversed(range(T)):
            onward[0] += d_state[t, :, 0]
            new = made[:, t] + (1 - self._z_c[t]) * onward
            # Where a cell may stay what it was, h reads what the step makes and not what is handed on.
            paths[:, t] = onward if is_zoned else new
            onward = self._z_c[t] * onward + self._c_along[t, :, 0, 0] * new
            if seen is not None:
                onward[place] += seen[t]
            if self._cut is not None:
                onward = onward.masked_fill(self._cut[t, :, None], 0)
        return Way(paths.transpose(0, 1), h_paths.transpose(0, 1), d_a.flatten(2))

    def to_input(self, d_a: Tensor) -> Tensor:
        """As `Recurrence.to_input`."""
        d = self._norm_x.back(slice(None), d_a) if self._variant.layer_norm else d_a
        return d @ self._own["weight_ih"]

    def jacobian(self, t: int) -> Tensor:
        """As `Recurrence.jacobian`: a row is what a number of the state after the step sends back (4.16)."""
        (B, S, H), P = self._reads[t].shape, self._z_h.size(-1)
        each = torch.eye(S * H + P, dtype=self._reads.dtype, device=self._reads.device)[:, None].expand(-1, B, -1)
        d_h, d_c, *_ = self._step_back(t, each[..., S * H :], _apart(each[..., : S * H], S))
        whole = torch.cat([d_c.flatten(-2), d_h], dim=-1).transpose(0, 1)
        return whole if self._taken is None else whole.masked_fill(~self._taken[t, :, None, None], 0)


def _apart(x: Tensor, blocks: int) -> Tensor:
    """(…, blocks·H) as (…, blocks, H)."""
    return x.reshape(*x.shape[:-1], blocks, x.size(-1) // blocks)


class _Unit:
    """The step within a unit: from pre-activations and cells to the cells as the step makes them, and the output gate.

    Everything else of the variant is added to the pre-activations before it or follows it.
    """

    def __init__(self, variant: Variant) -> None:
        self._variant = Variant(
            cell=variant.cell,
            coupled=variant.coupled,
            gate_activation=variant.gate_activation,
            candidate_activation=variant.candidate_activation,
        )

    def __call__(self, a: Tensor, c_prev: Tensor, candidate: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        no_h, no_weights = a.new_zeros(*a.shape[:-1], 0), {"weight_hh": a.new_zeros(a.size(-1), 0)}
        new = step(self._variant, a, no_h, c_prev, no_weights, candidate)
        return new.c, new.o


class _Norm:
    """A normalization (7.19) and its way back."""

    def __init__(self, v: Tensor, gain: Tensor) -> None:
        apart = v - v.mean(-1, keepdim=True)
        self._scale, self._gain = (apart.square().mean(-1, keepdim=True) + EPSILON).rsqrt(), gain
        self.normalized = apart * self._scale

    def back(self, t: int | slice, d: Tensor) -> Tensor:
        """(7.22)."""
        n, d_n = self.normalized[t], self._gain * d
        return self._scale[t] * (d_n - d_n.mean(-1, keepdim=True) - n * (d_n * n).mean(-1, keepdim=True))
