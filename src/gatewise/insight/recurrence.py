"""The way back through one recurrent layer, path by path: plain LSTM, GRU and the simple recurrent network.

Here time runs in the order in which the layer takes its steps: for a reverse direction from a sequence's last step to
its first. What stands past a sequence's length is zero. The numbers in the comments are equations of docs/equations.md.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch
from torch import Tensor


class Way(NamedTuple):
    """The gradient on its way back through a layer.

    Attributes
    ----------
    paths : Tensor
        (T, K, B, H): the gradient of the state after each step, by the K paths on which it came; their sum is whole.
    h_paths : Tensor
        (T, K, B, P): likewise of the hidden state, by the gate of the next step that it came through; the first is what
        the loss, or the layer above, sends to it directly.
    d_a : Tensor
        (T, B, G·H): the gradient of what the gates make of the input, weight_ih x + bias_ih, in the order of its rows.
    """

    paths: Tensor
    h_paths: Tensor
    d_a: Tensor


class Recurrence(Protocol):
    """A layer in one direction after its forward pass.

    Attributes
    ----------
    names : tuple of str
        Of the paths. The first is the one that never left the state: what came from the loss and then along the state
        alone. Each other is what came last by way of h through the gate that it is named by, and from there along the
        state.
    keeps : Tensor or None
        (T, B, H), what share of the state a step hands on directly; None: there is no such path.
    begins : Tensor or None
        (T, B, H), bool: where there was no state yet of which to hand on a share; None: everywhere there was one.
    """

    @property
    def names(self) -> tuple[str, ...]: ...  # noqa: D102
    @property
    def keeps(self) -> Tensor | None: ...  # noqa: D102
    @property
    def begins(self) -> Tensor | None: ...  # noqa: D102

    def back(self, d_h: Tensor, d_state: Tensor) -> Way:
        """Send gradients back through all steps.

        Parameters
        ----------
        d_h
            (T, B, P): what the loss or the layer above sends to each hidden state.
        d_state
            (T, B, H): what the loss sends to the state itself; of a cell, which nobody else sees, only to its last. Of
            an sLSTM's c, n and m it is (T, B, 3H).
        """
        ...

    def to_input(self, d_a: Tensor) -> Tensor:
        """From `Way.d_a` to the layer's input, (T, B, I)."""
        ...

    def jacobian(self, t: int) -> Tensor:
        """The Jacobian of step t, (B, S, S): of an LSTM's (c, h), S = H + P; of the others' h, S = H.

        Of an sLSTM it is that of (c, n, m, h), S = 3H + P.
        """
        ...


class LSTMRecurrence:
    """The plain LSTM: the state is c.

    Parameters
    ----------
    activations : Tensor
        i, f, g, o and c, (5, T, B, H).
    c_0 : Tensor
        (B, H).
    weight_ih, weight_hh, weight_hr : Tensor
        (4H, I), (4H, P), and (P, H) where h is projected, else None.
    cut : Tensor or None
        (T, B), bool: where a step was handed no state.
    """

    names = ("cell", "i", "f", "g", "o")
    begins = None

    def __init__(
        self,
        activations: Tensor,
        c_0: Tensor,
        weight_ih: Tensor,
        weight_hh: Tensor,
        weight_hr: Tensor | None,
        cut: Tensor | None,
    ) -> None:
        i, f, g, o, c = activations
        c_prev = torch.cat([c_0[None], c[:-1]])
        if cut is not None:
            c_prev = c_prev.masked_fill(cut[:, :, None], 0)
        tanh_c = c.tanh()
        self.keeps = f  # (4.1)
        self._reads = o * (1 - tanh_c * tanh_c)  # R of (4.6)
        # What stands before the weights in (4.3), (4.2), (4.4) and in P^o of (4.6), in torch's order i, f, g, o.
        self._into_c = torch.stack([g * i * (1 - i), c_prev * f * (1 - f), i * (1 - g * g)], dim=2)  # (T, B, 3, H)
        self._into_o = tanh_c * o * (1 - o)
        self._weight_ih, self._weight_hr, self._cut = weight_ih, weight_hr, cut
        self._recurrent = weight_hh.reshape(4, -1, weight_hh.size(1))  # (4, H, P)

    def back(self, d_h: Tensor, d_state: Tensor) -> Way:
        """As `Recurrence.back`: the transpose of (4.7), and then each path by itself."""
        T, B, H = d_state.shape
        P = d_h.size(2)
        keeps, cut = self.keeps, self._cut
        if cut is not None:
            keeps = keeps.masked_fill(cut[:, :, None], 0)
        # The whole, step by step, in few operations: a step of a small layer takes no longer than they do.
        d_a = d_h.new_empty(T, B, 4, H)
        weight, d_next = self._recurrent.reshape(4 * H, P), d_h.new_zeros(B, 4 * H)
        d_c = d_state[T - 1]
        for t in reversed(range(T)):
            through = torch.addmm(d_h[t], d_next, weight)
            if self._weight_hr is not None:
                through = through @ self._weight_hr
            whole = torch.addcmul(d_c, through, self._reads[t])
            torch.mul(self._into_c[t], whole[:, None], out=d_a[t, :, :3])
            torch.mul(self._into_o[t], through, out=d_a[t, :, 3])
            d_next = d_a[t].flatten(1)
            if cut is not None:
                d_next = d_next.masked_fill(cut[t, :, None], 0)
            if t > 0:
                d_c = torch.addcmul(d_state[t - 1], keeps[t], whole)
        # Then what came through each gate, of all steps at once, and what of it the cell hands on.
        h_paths = d_h.new_empty(5, T, B, P)
        h_paths[0] = d_h
        h_paths[1:, T - 1] = 0
        onward = d_a if cut is None else d_a.masked_fill(cut[:, :, None, None], 0)
        gates = onward[1:].flatten(0, 1).transpose(0, 1)  # (4, (T - 1) B, H)
        torch.bmm(gates, self._recurrent, out=h_paths[1:].flatten(1, 2)[:, : (T - 1) * B])
        paths = self._reads * (h_paths if self._weight_hr is None else h_paths @ self._weight_hr)
        paths[0] += d_state
        for t in reversed(range(T - 1)):
            paths[:, t].addcmul_(keeps[t + 1], paths[:, t + 1])
        return Way(paths.transpose(0, 1), h_paths.transpose(0, 1), d_a.flatten(2))

    def to_input(self, d_a: Tensor) -> Tensor:
        """As `Recurrence.to_input`."""
        return d_a @ self._weight_ih

    def jacobian(self, t: int) -> Tensor:
        """As `Recurrence.jacobian`, (4.7)."""
        kept = torch.diag_embed(self.keeps[t])
        into_c = torch.einsum("bkh,khp->bhp", self._into_c[t], self._recurrent[:3])  # (4.5)
        reads = torch.diag_embed(self._reads[t])
        into_h = self._into_o[t][:, :, None] * self._recurrent[3]  # P^o of (4.6)
        if self._weight_hr is not None:
            reads, into_h = self._weight_hr @ reads, self._weight_hr @ into_h
        whole = torch.cat([torch.cat([kept, into_c], 2), torch.cat([reads @ kept, reads @ into_c + into_h], 2)], 1)
        return whole if self._cut is None else whole.masked_fill(self._cut[t, :, None, None], 0)


class GRURecurrence:
    """torch.nn.GRU: r, z = σ(…), n = tanh(W x + b + r (U h + b')), h = (1 - z) n + z h; the state is h.

    Parameters
    ----------
    x : Tensor
        (T, B, I).
    h_0 : Tensor
        (B, H).
    weights : sequence of Tensor
        weight_ih and weight_hh, (3H, ·) by rows r, z, n, and bias_ih and bias_hh or nothing.
    taken : Tensor or None
        (T, B), bool: the steps that each sequence has; None: all.

    Attributes
    ----------
    h : Tensor
        (T, B, H): after each step.
    """

    names = ("state", "r", "z", "n")
    begins = None

    def __init__(self, x: Tensor, h_0: Tensor, weights: list[Tensor], taken: Tensor | None) -> None:
        weight_ih, weight_hh, *biases = weights
        bias_ih, bias_hh = biases or (None, None)
        from_input = torch.nn.functional.linear(x, weight_ih, bias_ih)
        h, states, slopes, keeps, resets = h_0, [], [], [], []
        for t in range(x.size(0)):
            x_r, x_z, x_n = from_input[t].chunk(3, dim=1)
            h_r, h_z, h_n = torch.nn.functional.linear(h, weight_hh, bias_hh).chunk(3, dim=1)
            r, z = (x_r + h_r).sigmoid(), (x_z + h_z).sigmoid()
            n = (x_n + r * h_n).tanh()
            into_n = (1 - z) * (1 - n * n)  # of its pre-activation
            # What a gradient of h_t is multiplied by on its way to U h_{t-1} of r, z and n.
            slopes.append(torch.stack([into_n * h_n * r * (1 - r), (h - n) * z * (1 - z), into_n * r]))
            resets.append(into_n)
            keeps.append(z)
            now = (1 - z) * n + z * h
            h = now if taken is None else torch.where(taken[t, :, None], now, h)
            states.append(h)
        self.h, self.keeps = torch.stack(states), torch.stack(keeps)
        self._slopes, self._into_n = torch.stack(slopes), torch.stack(resets)
        if taken is not None:
            self.h = self.h * taken[:, :, None]
            self.keeps = self.keeps * taken[:, :, None]
            self._slopes = self._slopes * taken[:, None, :, None]
            self._into_n = self._into_n * taken[:, :, None]
        self._weight_ih, self._recurrent = weight_ih, weight_hh.reshape(3, -1, weight_hh.size(1))

    def back(self, d_h: Tensor, d_state: Tensor) -> Way:
        """As `Recurrence.back`."""
        T, B, H = d_h.shape
        paths, h_paths = d_h.new_empty(T, 4, B, H), d_h.new_empty(T, 4, B, H)
        d_a = d_h.new_empty(T, 3, B, H)
        along = d_h.new_zeros(4, B, H)
        for t in reversed(range(T)):
            into_h = h_paths[t]
            into_h[0] = d_h[t] + d_state[t]
            if t + 1 < T:
                torch.bmm(self._slopes[t + 1] * paths[t + 1].sum(0), self._recurrent, out=into_h[1:])
            else:
                into_h[1:] = 0
            torch.add(along, into_h, out=paths[t])
            whole = paths[t].sum(0)
            torch.mul(self._slopes[t, :2], whole, out=d_a[t, :2])
            torch.mul(self._into_n[t], whole, out=d_a[t, 2])
            along = self.keeps[t] * paths[t]
        return Way(paths, h_paths, d_a.transpose(1, 2).flatten(2))

    def to_input(self, d_a: Tensor) -> Tensor:
        """As `Recurrence.to_input`."""
        return d_a @ self._weight_ih

    def jacobian(self, t: int) -> Tensor:
        """As `Recurrence.jacobian`."""
        return torch.diag_embed(self.keeps[t]) + torch.einsum("kbh,khp->bhp", self._slopes[t], self._recurrent)


class SRNRecurrence:
    """torch.nn.RNN: h = tanh(W x + U h + b), or the greater of 0 and that; the state is h.

    Parameters
    ----------
    x, h_0, weights, taken
        As of `GRURecurrence`, with weights (H, ·).
    relu : bool
        Whether max(0, ·) stands in place of tanh.
    """

    names = ("state", "h")
    keeps = begins = None

    def __init__(self, x: Tensor, h_0: Tensor, weights: list[Tensor], taken: Tensor | None, relu: bool) -> None:
        weight_ih, weight_hh, *biases = weights
        from_input = torch.nn.functional.linear(x, weight_ih, biases[0] + biases[1] if biases else None)
        h, states = h_0, []
        for t in range(x.size(0)):
            a = from_input[t] + h @ weight_hh.T
            now = a.relu() if relu else a.tanh()
            h = now if taken is None else torch.where(taken[t, :, None], now, h)
            states.append(h)
        self.h = torch.stack(states)
        self._slopes = (self.h > 0).to(x.dtype) if relu else 1 - self.h * self.h
        if taken is not None:
            self.h, self._slopes = self.h * taken[:, :, None], self._slopes * taken[:, :, None]
        self._weight_ih, self._weight_hh = weight_ih, weight_hh

    def back(self, d_h: Tensor, d_state: Tensor) -> Way:
        """As `Recurrence.back`."""
        T, B, H = d_h.shape
        paths, d_a = d_h.new_empty(T, 2, B, H), d_h.new_empty(T, B, H)
        for t in reversed(range(T)):
            paths[t, 0] = d_h[t] + d_state[t]
            if t + 1 < T:
                torch.mm(d_a[t + 1], self._weight_hh, out=paths[t, 1])
            else:
                paths[t, 1] = 0
            torch.mul(self._slopes[t], paths[t].sum(0), out=d_a[t])
        return Way(paths, paths, d_a)

    def to_input(self, d_a: Tensor) -> Tensor:
        """As `Recurrence.to_input`."""
        return d_a @ self._weight_ih

    def jacobian(self, t: int) -> Tensor:
        """As `Recurrence.jacobian`."""
        return self._slopes[t][:, :, None] * self._weight_hh
