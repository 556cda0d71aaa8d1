"""`gradient_flow`: how a loss's gradient travels back through the recurrent layers of a model, and how far."""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property, partial
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from gatewise.errors import ArgumentError
from gatewise.insight.calls import Call, Cell, Direction, calls_of, cell_of
from gatewise.insight.recurrence import Way

Of = Literal["c", "h"]


class Lags(NamedTuple):
    """A layer's gradient by the steps before the last at which it gets any, of the loss's last reading alone.

    Attributes
    ----------
    gradients : Tensor
        (N, B, H), N from 1 to T: the gradient of the state; 0 beyond a sequence's first step.
    paths : Tensor
        (N, K): the norm over units of each path's part of it, as root mean square over sequences, float64.
    counts : Tensor
        (N,): how many sequences are so long.
    """

    gradients: Tensor
    paths: Tensor
    counts: Tensor


@dataclass(frozen=True, eq=False)
class LayerFlow:
    """The gradient on its way back through one layer in one direction.

    Arrays have the input's steps, also in the reverse direction; past a sequence's length they are 0.

    Parameters
    ----------
    module : str
        The recurrent module's name in the model; "" if it is the model.
    cell : {"lstm", "gru", "srn"}
        What it is; "lstm" whatever is changed of the cell.
    layer, direction : int
        Layers from 0 on, direction 0 forward and 1 reverse.
    names : tuple of str
        The paths. The first ("cell" of an LSTM, "state" of the others) is what came from the loss, or the layer above,
        and then along the state alone, which the forget gates (the update gates of a GRU) let pass. Each other is what
        came last by way of h through the gate that it is named by, and along the state from there. Coupled gates have
        no path f: what goes through it goes by i. "peephole" is what came last from the gates straight to c, and
        "zoneout" what came last by way of the part of h that a step leaves as it was.
    paths : Tensor
        (T, K, B, H): the gradient of the state (c of an LSTM, h of the others) after each step, path by path. Where c
        is zoned out it is that of the c that is handed on, which h of the same step does not read.
    h_paths : Tensor
        (T, K, B, P): the gradient of h after each step; the first of the K is what the loss or the layer above sends to
        it directly, and each other what comes through a gate of the next step, or past it; 0 on "peephole".
    keeps : Tensor or None
        (T, B, H): what a step hands on of the state directly: the forget gates (a GRU's update gates), of an sLSTM the
        stabilized ones, and with zoneout z + (1 - z) f; None for a simple recurrent network.
    measure : callable
        Gives `by_lag`.
    one : Direction
        The layer's forward pass.

    Examples
    --------
    >>> flow = gradient_flow(nn.LSTM(4, 3), torch.ones(5, 2, 4), lambda output: output[0][-1].sum())
    >>> layer = flow.layers[0]
    >>> torch.allclose(layer.path("cell") + sum(layer.path(gate) for gate in "ifgo"), layer.d_c)
    True
    """

    module: str
    cell: Cell
    layer: int
    direction: int
    names: tuple[str, ...]
    paths: Tensor
    h_paths: Tensor
    keeps: Tensor | None
    measure: Callable[[], Lags]
    one: Direction

    @property
    def name(self) -> str:
        """The module, layer and direction, as torch names weights: lstm.l0, lstm.l1_reverse."""
        own = f"l{self.layer}" + "_reverse" * self.direction
        return f"{self.module}.{own}" if self.module else own

    @property
    def d_c(self) -> Tensor:
        """dL/dc after each step, (T, B, H); of cells that have one.

        Raises
        ------
        ArgumentError
            This one has no c.
        """
        if self.cell != "lstm":
            raise ArgumentError(f"{self.name} is a {self.cell}, which has no cell state c: take d_h")
        return self.d_state

    @cached_property
    def d_h(self) -> Tensor:
        """dL/dh after each step, (T, B, P)."""
        return self.h_paths.sum(1) if self.cell == "lstm" else self.d_state

    @cached_property
    def d_state(self) -> Tensor:
        """The gradient of what carries the memory, (T, B, H): dL/dc of an LSTM, dL/dh of the others."""
        return self.paths.sum(1)

    @cached_property
    def by_lag(self) -> Lags:
        """The gradient over the lag, computed when it is first asked for.

        The lag counts steps in the order in which this layer takes them, back from the last at which it gets any
        gradient. Where the loss reads several steps of a sequence, only its last reading counts: how far that one
        reaches. What reaches a lower layer at earlier steps may have come through the layers above.
        """
        return self.measure()

    @property
    def lags(self) -> Tensor:
        """(N, B, H), N from 1 to T: the gradient of the state so many steps back; 0 beyond a sequence's first step."""
        return self.by_lag.gradients

    @property
    def lag_paths(self) -> Tensor:
        """(N, K): the norm over units of each path's part of `lags`, as root mean square over sequences."""
        return self.by_lag.paths

    @property
    def lag_counts(self) -> Tensor:
        """(N,): how many sequences are so long."""
        return self.by_lag.counts

    def path(self, name: str) -> Tensor:
        """The part of `d_state` that came on one path, (T, B, H).

        Raises
        ------
        ArgumentError
            There is no such path.
        """
        if name not in self.names:
            raise ArgumentError(f"path is {name!r}, needed one of {', '.join(self.names)}")
        return self.paths[:, self.names.index(name)]

    def norms(self, of: Of = "h") -> Tensor:
        """The norm over units of dL/dh or dL/dc, for every step and sequence, (T, B).

        Raises
        ------
        ArgumentError
            It is of neither, or of a cell that has no c.
        """
        if of not in ("c", "h"):
            raise ArgumentError(f"of is {of!r}, needed 'c' or 'h'")
        norms: Tensor = torch.linalg.vector_norm(self.d_h if of == "h" else self.d_c, dim=2)
        return norms

    @cached_property
    def decay(self) -> Tensor:
        """How much is left of the gradient so many steps back, (N,): 1 at lag 0.

        The norm over units of `lags`, as root mean square over the sequences that are so long; float64, as the squares
        of a gradient that has vanished are too small for float32.
        """
        norms = torch.linalg.vector_norm(self.lags, dim=(1, 2), dtype=torch.float64)
        return _relative(norms / self.lag_counts.sqrt())

    @cached_property
    def unit_decay(self) -> Tensor:
        """The same for each unit by itself, (N, H); not a number for a unit that gets no gradient at lag 0."""
        norms = torch.linalg.vector_norm(self.lags, dim=1, dtype=torch.float64)
        return _relative(norms / self.lag_counts.sqrt()[:, None])

    def horizon(self, fraction: float = 0.1) -> float:
        """How many steps back until the gradient has fallen below a fraction for good.

        Parameters
        ----------
        fraction
            Of the norm at lag 0.

        Returns
        -------
        float
            A whole number of steps; infinite if the sequences are too short to tell, not a number where the loss sends
            this layer nothing, or where its gradient is not finite.

        Examples
        --------
        With all weights zero the forget gates are one half:

        >>> lstm = nn.LSTM(4, 3)
        >>> for weight in lstm.parameters():
        ...     _ = nn.init.zeros_(weight)
        >>> flow = gradient_flow(lstm, torch.ones(9, 1, 4), lambda output: output[0][-1].sum())
        >>> flow.layers[0].horizon(0.1)
        4.0
        """
        return float(_horizon(self.decay[:, None], _checked(fraction))[0])

    def unit_horizons(self, fraction: float = 0.1) -> Tensor:
        """The same for each unit, (H,)."""
        return _horizon(self.unit_decay, _checked(fraction))

    def time_constants(self) -> Tensor | None:
        """What the forget gates (a GRU's update gates) alone would let a unit remember, (H,), in steps.

        -1 over the mean logarithm of `keeps`, over all steps and sequences: after so many steps the gates let 1/e of
        the gradient pass. Infinite where they are 1 throughout, 0 where one is 0; None for a simple recurrent network.
        The steps with which an sLSTM's memory begins, whose forget gates are 0 as there is nothing yet, do not count:
        not a number where there are no others.
        """
        if self.keeps is None:
            return None
        T, B, _ = self.keeps.shape
        lengths = torch.full((B,), T) if self.one.lengths is None else self.one.lengths
        left_out = (torch.arange(T)[:, None] >= lengths).to(self.keeps.device)[:, :, None]
        if self.one.recurrence.begins is not None:
            left_out = left_out | self.one.turned(self.one.recurrence.begins)
        counts = (~left_out).sum((0, 1))
        return 1 / (self.keeps.masked_fill(left_out, 1).log().sum((0, 1)) / counts).abs()

    def singular_values(self) -> Tensor:
        """The largest singular value of each step's exact Jacobian, (T, B): of (c, h) for an LSTM, of h for the others.

        For an sLSTM it is of (c, n, m, h), c and n as m scales them.
        The forget gates are below 1 and yet it can exceed 1: docs/equations.md, (4.7) and (4.11). It takes a singular
        value decomposition of size H + P (H) for each step and sequence.

        Examples
        --------
        >>> flow = gradient_flow(nn.LSTM(4, 3), torch.ones(5, 2, 4), lambda output: output[0][-1].sum())
        >>> flow.layers[0].singular_values().shape
        torch.Size([5, 2])
        """
        jacobian = self.one.recurrence.jacobian
        largest = torch.stack([_largest(jacobian(t)) for t in range(len(self.paths))])
        return self.one.turned(largest[:, :, None])[:, :, 0]

    def __repr__(self) -> str:
        T, _, B, H = self.paths.shape
        return f"<LayerFlow {self.name}, {self.cell}: (T, B, H) = {(T, B, H)}, paths {', '.join(self.names)}>"


@dataclass(frozen=True)
class GradientFlow:
    """The gradient's way back through all recurrent layers of a model.

    Parameters
    ----------
    loss : float
        The loss whose gradient it is.
    layers : tuple of LayerFlow
        In the order in which the modules were called; in each, layer l, direction d at l·D + d.

    Examples
    --------
    >>> flow = gradient_flow(nn.GRU(4, 3), torch.ones(5, 2, 4), lambda output: output[0][-1].sum())
    >>> [layer.name for layer in flow.layers], flow.layers[0].names
    (['l0'], ('state', 'r', 'z', 'n'))
    """

    loss: float
    layers: tuple[LayerFlow, ...]

    def sentences(self, fraction: float = 0.1) -> list[str]:
        """Say how far back each layer's gradient reaches, in a sentence each."""
        return [sentence(layer, fraction) for layer in self.layers]

    def _repr_png_(self) -> bytes:
        """The gradient over the lag, for notebooks: of the first six layers, if there are more."""
        from gatewise.drawing import as_png
        from gatewise.insight.figures import MOST_LAYERS, draw_lags

        some = GradientFlow(self.loss, self.layers[:MOST_LAYERS])
        more = len(self.layers) - len(some.layers)
        return as_png(draw_lags(some, f"the first {MOST_LAYERS} of {len(self.layers)} layers" if more else ""))


def sentence(layer: LayerFlow, fraction: float = 0.1) -> str:
    """Say how far back a layer's gradient reaches.

    Examples
    --------
    >>> _ = torch.manual_seed(0)
    >>> flow = gradient_flow(nn.LSTM(4, 3), torch.ones(9, 2, 4), lambda output: output[0][-1].sum())
    >>> print(sentence(flow.layers[0]))
    l0 (lstm): 4 steps back the gradient has fallen below 10 %.
    """
    horizon = layer.horizon(fraction)
    who, share = f"{layer.name} ({layer.cell})", f"{100 * fraction:.3g} %"
    if not layer.lags[0].any():
        return f"{who}: the loss sends it no gradient."
    if math.isnan(horizon):
        return f"{who}: its gradient is not finite."
    longest = len(layer.decay) - 1
    if longest == 0:
        return f"{who}: its gradient reaches one step alone, so nothing is to be said of how it falls."
    if math.isinf(horizon):
        left = layer.decay[-1].item()
        how = (
            f"{100 * left:.3g} % of the gradient is left" if left <= 1 else f"the gradient is {left:.3g} times as large"
        )
        return f"{who}: {longest} steps back, at the first, {how}."
    steps = "1 step" if horizon == 1 else f"{horizon:.0f} steps"
    return f"{who}: {steps} back the gradient has fallen below {share}."


def gradient_flow(model: nn.Module, input: Any, loss: Callable[[Any], Tensor]) -> GradientFlow:
    """Follow a loss's gradient back through the recurrent layers of a model, step by step and path by path.

    Parameters
    ----------
    model : torch.nn.Module
        With a gatewise.LSTM, torch.nn.LSTM, torch.nn.GRU or torch.nn.RNN anywhere in it, or one itself. It is called
        once, as it is: in training mode dropout is drawn, but not between the layers of one module (call its `eval`).
        Any cell of gatewise.LSTM is followed, in training through the masks that were drawn for the call.
    input
        What the model is called with: one argument, or a tuple of them.
    loss : callable
        Makes a tensor with one number of what the model returns.

    Returns
    -------
    GradientFlow
        For each layer and direction the gradients of h and c after every step, what of them came along the cell state
        alone and what through each gate, and how far back they reach.

    Raises
    ------
    ArgumentError
        There is no recurrent module in the model, or none was called where gradients flow, or one has a forward of its
        own; the loss does not depend on one, or is no single finite real number; dropout is on between layers; or the
        model was compiled.

    Notes
    -----
    The paths are those of section 4 of docs/equations.md, of a changed cell (4.13) to (4.15). Nothing is approximated:
    their sum is autograd's gradient. (With gate_activation="step" that is no gradient of the loss, but
    what a training goes by: 7.2.)
    The parameters' own gradients are neither computed nor changed.

    Examples
    --------
    Where the forget gate is 1 and nothing comes through h, the cell keeps the gradient as it is:

    >>> from gatewise.nn import LSTM
    >>> lstm = LSTM(1, 1).double()
    >>> for weight in lstm.parameters():
    ...     _ = nn.init.zeros_(weight)
    >>> with torch.no_grad():
    ...     _ = lstm.gates().f.bias_ih.fill_(torch.inf)
    >>> flow = gradient_flow(lstm, torch.ones(4, 1, 1).double(), lambda output: output[1][1].sum())
    >>> flow.layers[0].path("cell").flatten()
    tensor([1., 1., 1., 1.], dtype=torch.float64)
    """
    if torch.is_inference_mode_enabled():
        raise ArgumentError("this is within torch.inference_mode, where nothing can be differentiated: call it outside")
    if isinstance(model, nn.Module) and not any(cell_of(module) for module in model.modules()):
        raise ArgumentError(
            f"model is a {type(model).__name__} without a gatewise.LSTM, torch.nn.LSTM, GRU or RNN, needed at least one"
        )
    if not callable(loss):
        raise ArgumentError(f"loss is a {type(loss).__name__}, needed a function of what the model returns")
    arguments = input if type(input) is tuple else (input,)  # a PackedSequence is a tuple too
    with torch.enable_grad():
        with calls_of(model) as calls:
            value = loss(model(*arguments))
        if not calls:
            raise ArgumentError(
                f"model is a {type(model).__name__} that called none of its recurrent modules, or none where gradients "
                "flow (not so are torch.no_grad and torch.utils.checkpoint with use_reentrant=True): call one there"
            )
        if not isinstance(value, Tensor) or value.numel() != 1:
            given = (
                f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
            )
            raise ArgumentError(f"loss made {given}, needed a tensor with one number: take its sum or its mean")
        if value.is_complex():
            raise ArgumentError("the loss is a complex number, needed a real one: take its real part or its size")
        if not value.isfinite().all():
            raise ArgumentError(f"the loss is {value.item():g}, needed a finite number: its gradient leads nowhere")
        results = [result for call in calls for result in call.results]
        reached = torch.autograd.grad(value.sum(), results, allow_unused=True) if value.requires_grad else [None]
    if all(gradient is None for gradient in reached):
        raise ArgumentError("the loss does not depend on any recurrent module's output: give one that does")
    gradients = iter(reached)
    layers: list[LayerFlow] = []
    for call in calls:
        own = [next(gradients) for _ in call.results]
        with torch.no_grad():
            layers.extend(_flows(call, own))
    return GradientFlow(value.item(), tuple(layers))


def _flows(call: Call, gradients: Sequence[Tensor | None]) -> Iterator[LayerFlow]:
    """The flows through the layers of one call, from the lowest on."""
    d_h, d_states = call.sources(gradients)
    ways = _back(call, d_h, d_states)

    @cache
    def last_ways() -> list[Way]:
        last = [_last_alone(*both) for both in zip(d_h, d_states, strict=True)]
        reads_once = all(
            torch.equal(own, of_all)
            for pair, *both in zip(last, d_h, d_states, strict=True)
            for own, of_all in zip(pair, both, strict=True)
        )
        return ways if reads_once else _back(call, [h for h, _ in last], [state for _, state in last])

    @torch.no_grad()
    def measured(number: int) -> Lags:
        return _by_lag(last_ways()[number].paths)

    for number, (one, way) in enumerate(zip(call.directions, ways, strict=True)):
        keeps = one.recurrence.keeps
        yield LayerFlow(
            call.module,
            call.cell,
            one.layer,
            one.direction,
            one.recurrence.names,
            one.turned(way.paths),
            one.turned(way.h_paths),
            None if keeps is None else one.turned(keeps),
            partial(measured, number),
            one,
        )


def _largest(jacobians: Tensor) -> Tensor:
    """The largest singular value of each (B, S, S); not a number where one has numbers that are not finite."""
    finite = jacobians.isfinite().all(2).all(1)
    largest = torch.linalg.matrix_norm(jacobians.where(finite[:, None, None], 0), 2)
    found: Tensor = largest.where(finite, torch.nan)
    return found


def _back(call: Call, d_h: list[Tensor], d_states: list[Tensor]) -> list[Way]:
    """From the top layer to the lowest: what each sends to its input reaches the hidden states of the one below."""
    D, from_above = call.num_directions, list(d_h)
    ways: list[Way] = []
    for number in reversed(range(len(call.directions))):
        ways.insert(0, call.directions[number].recurrence.back(from_above[number], d_states[number]))
        if number % D == 0 and number > 0:  # all directions of a layer are done
            both = [(call.directions[number + d], ways[d].d_a) for d in range(D)]
            d_x = torch.stack([one.turned(one.recurrence.to_input(d_a)) for one, d_a in both]).sum(0)
            for d, part in enumerate(d_x.chunk(D, dim=-1)):
                below = number - D + d
                from_above[below] = d_h[below] + call.directions[below].turned(part)
    return ways


def _last_alone(d_h: Tensor, d_state: Tensor) -> tuple[Tensor, Tensor]:
    """What the loss sends at the last step alone at which it sends a sequence anything."""
    last = _last_step((d_h != 0).any(2) | (d_state != 0).any(2))
    there = (torch.arange(len(d_h), device=last.device)[:, None] == last)[:, :, None]
    return d_h * there, d_state * there


def _last_step(where: Tensor) -> Tensor:
    """(B,): the last step of (T, B) at which it is true; -1: nowhere."""
    return (where * torch.arange(1, len(where) + 1, device=where.device)[:, None]).amax(0) - 1


def _by_lag(paths: Tensor) -> Lags:
    """(T, K, B, H) by steps before the last at which there is any gradient."""
    whole = paths.sum(1)
    last = _last_step((whole != 0).any(2))
    steps = last - torch.arange(max([1, *(last + 1).tolist()]), device=last.device)[:, None]  # (N, B)
    at, is_none = steps.clamp(min=0), steps < 0
    gradients = whole.gather(0, at[:, :, None].expand(-1, -1, whole.size(2))).masked_fill(is_none[:, :, None], 0)
    norms = torch.linalg.vector_norm(paths, dim=3, dtype=torch.float64)  # (T, K, B)
    of_lags = norms.gather(0, at[:, None].expand(-1, norms.size(1), -1)).masked_fill(is_none[:, None], 0)
    counts = (~is_none).sum(1).clamp(min=1)
    return Lags(gradients, torch.linalg.vector_norm(of_lags, dim=2) / counts.sqrt()[:, None], counts)


def _relative(curve: Tensor) -> Tensor:
    """By what it is at lag 0; not a number where that is nothing."""
    relative: Tensor = curve / curve[:1]
    return relative


def _horizon(decay: Tensor, fraction: float) -> Tensor:
    """(N, U) → (U,): the first lag from which on it stays below a fraction."""
    above = decay >= fraction
    first = _last_step(above).to(torch.float64) + 1
    first[first == len(decay)] = torch.inf
    first[~decay.isfinite().all(0)] = torch.nan
    return first


def _checked(fraction: float) -> float:
    if not isinstance(fraction, numbers.Real) or not 0 < fraction < 1:
        raise ArgumentError(f"fraction is {fraction!r}, needed a number between 0 and 1: give a share of the gradient")
    return fraction
