"""Who is measured: gatewise, and what stands beside it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from gatewise.bench.config import FormName
from gatewise.bench.work import Work, arguments
from gatewise.nn import LSTM

Results = dict[str, Tensor]


@dataclass(frozen=True)
class Call:
    """What is timed, and how its results are read afterwards, untimed.

    Parameters
    ----------
    run : callable
        Does the work.
    results : callable
        Makes of what `run` returned the results by name, as torch.nn.LSTM lays them out: output, h_n and c_n, or, in
        training, output and the gradients d_x, d_h_0, d_c_0 and d_ of each parameter.
    """

    run: Callable[[], Any]
    results: Callable[[Any], Results]

    def once(self) -> Results:
        """Run and read."""
        return self.results(self.run())


class Peer(ABC):
    """Someone to measure."""

    name: ClassVar[str]
    what: ClassVar[str]
    """In a phrase, with what is to be known of its conditions."""
    compiles: ClassVar[bool] = False
    """Whether the first run is longer than the others."""

    def missing(self) -> str:
        """Tell why it cannot be had at all; empty if it can."""
        return ""

    def version(self) -> str:
        """Tell its version, as far as it is not torch's."""
        return ""

    def refuses(self, form: FormName, kind: str) -> str:
        """Tell why it does not take a form or a kind; empty if it does."""
        return "" if form == "plain" else "stands beside gatewise in the plain form only"

    @abstractmethod
    def calls(self, work: Work) -> Mapping[str, Call]:
        """Make the calls ``forward`` and, unless it is refused, ``training``."""


Network = Callable[[Any, Tensor, Tensor], tuple[Any, tuple[Tensor, Tensor]]]


class TorchPeer(Peer):
    """One that computes with torch's tensors; its call ``recorded`` is forward with what backward would need."""

    @abstractmethod
    def build(self, work: Work) -> tuple[Network, Sequence[Tensor], Callable[[Callable[[Tensor], Tensor]], Results]]:
        """Make the network, its parameters, and what lays their gradients out as torch.nn.LSTM's parameters.

        The last one takes a function from a parameter to its gradient.
        """

    def calls(self, work: Work) -> Mapping[str, Call]:
        """Make the calls ``forward``, ``training`` and ``recorded``."""
        network, parameters, named = self.build(work)
        x, h_0, c_0 = work.as_input(work.x), work.h_0, work.c_0
        x_leaf, h_leaf, c_leaf = (t.clone().requires_grad_() for t in (work.x, h_0, c_0))
        leaves = (x_leaf, h_leaf, c_leaf, *parameters)
        input_leaf = work.as_input(x_leaf)
        d_output = work.d_output

        def forward() -> Any:
            with torch.no_grad():
                return network(x, h_0, c_0)

        def recorded() -> Any:
            return network(x, h_0, c_0)

        def training() -> Tensor:
            for leaf in leaves:
                leaf.grad = None
            output: Tensor = _numbers(network(input_leaf, h_leaf, c_leaf)[0])
            output.backward(d_output)  # type: ignore[no-untyped-call]
            return output

        def gradients(output: Tensor) -> Results:
            inputs = {"d_x": _grad(x_leaf), "d_h_0": _grad(h_leaf), "d_c_0": _grad(c_leaf)}
            return {"output": output.detach()} | inputs | {f"d_{name}": g for name, g in named(_grad).items()}

        return {
            "forward": Call(forward, _forward_results),
            "recorded": Call(recorded, _forward_results),
            "training": Call(training, gradients),
        }


def _numbers(output: Any) -> Any:
    """The tensor of an output that may be packed."""
    return getattr(output, "data", output) if isinstance(output, tuple) else output


def _grad(parameter: Tensor) -> Tensor:
    return torch.zeros_like(parameter) if parameter.grad is None else parameter.grad


def _forward_results(returned: Any) -> Results:
    output, (h_n, c_n) = returned
    return {"output": _numbers(output), "h_n": h_n, "c_n": c_n}


class ModulePeer(TorchPeer):
    """A module with torch.nn.LSTM's arguments, parameters and call; it takes every form."""

    module: ClassVar[Callable[..., nn.RNNBase]]

    def refuses(self, form: FormName, kind: str) -> str:
        """Refuse nothing."""
        return ""

    def build(self, work: Work) -> tuple[Network, Sequence[Tensor], Callable[[Callable[[Tensor], Tensor]], Results]]:
        """Make the module with the work's weights."""
        module = work.fill(self.module(**arguments(work.size, work.form)))

        def network(x: Any, h_0: Tensor, c_0: Tensor) -> Any:
            return module(x, (h_0, c_0))

        def named(grad: Callable[[Tensor], Tensor]) -> Results:
            return {name: grad(parameter) for name, parameter in module.named_parameters()}

        return network, list(module.parameters()), named


class Gatewise(ModulePeer):
    """gatewise.LSTM."""

    name = "gatewise"
    what = "gatewise.LSTM"
    module = LSTM


class Torch(ModulePeer):
    """torch.nn.LSTM."""

    name = "torch"
    what = "torch.nn.LSTM, called as gatewise.LSTM is"
    module = nn.LSTM


class CellLoop(TorchPeer):
    """A Python loop over torch.nn.LSTMCell."""

    name = "cell-loop"
    what = "a Python loop over torch.nn.LSTMCell"

    def build(self, work: Work) -> tuple[Network, Sequence[Tensor], Callable[[Callable[[Tensor], Tensor]], Results]]:
        """Make a cell for each layer and direction."""
        names, cells = [], []
        for suffix, weights in _by_cell(work):
            cell = nn.LSTMCell(weights[0].size(1), work.size.H)
            with torch.no_grad():
                for own, weight in zip(cell.parameters(), weights, strict=True):
                    own.copy_(weight)
            cells.append(cell)
            names += [name + suffix for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
        parameters = [parameter for cell in cells for parameter in cell.parameters()]

        def step(k: int, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
            state: tuple[Tensor, Tensor] = cells[k](x, (h, c))
            return state

        def named(grad: Callable[[Tensor], Tensor]) -> Results:
            return {name: grad(parameter) for name, parameter in zip(names, parameters, strict=True)}

        return _unrolled(work, step), parameters, named


class GateLoop(TorchPeer):
    """A Python loop over gates written out, each x W + h U + b: the operator of the study notes."""

    name = "gate-loop"
    what = "a Python loop over gates written out by hand, x W + h U + b each"

    def build(self, work: Work) -> tuple[Network, Sequence[Tensor], Callable[[Callable[[Tensor], Tensor]], Results]]:
        """Make W (I, H), U (H, H) and b (1, H) for each gate of each layer and direction."""
        suffixes, gates = [], []
        for suffix, (weight_ih, weight_hh, bias_ih, bias_hh) in _by_cell(work):
            suffixes.append(suffix)
            per_gate = (w.detach().chunk(4) for w in (weight_ih, weight_hh, bias_ih + bias_hh))
            gates.append([_gate(W, U, b) for W, U, b in zip(*per_gate, strict=True)])

        def step(k: int, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
            (W_i, U_i, b_i), (W_f, U_f, b_f), (W_g, U_g, b_g), (W_o, U_o, b_o) = gates[k]
            i = torch.sigmoid(x @ W_i + h @ U_i + b_i)
            f = torch.sigmoid(x @ W_f + h @ U_f + b_f)
            g = torch.tanh(x @ W_g + h @ U_g + b_g)
            o = torch.sigmoid(x @ W_o + h @ U_o + b_o)
            c = f * c + i * g
            return o * torch.tanh(c), c

        def named(grad: Callable[[Tensor], Tensor]) -> Results:
            results = {}
            for suffix, cell in zip(suffixes, gates, strict=True):
                results[f"weight_ih{suffix}"] = torch.cat([grad(W).T for W, _, _ in cell])
                results[f"weight_hh{suffix}"] = torch.cat([grad(U).T for _, U, _ in cell])
                bias = torch.cat([grad(b)[0] for _, _, b in cell])
                results |= {f"bias_ih{suffix}": bias, f"bias_hh{suffix}": bias}  # one b stands for their sum
            return results

        return _unrolled(work, step), [weight for cell in gates for gate in cell for weight in gate], named


def _gate(weight_ih: Tensor, weight_hh: Tensor, bias: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """W, U and b for x W + h U + b, as leaves."""
    W, U, b = (t.detach().clone(memory_format=torch.contiguous_format) for t in (weight_ih.T, weight_hh.T, bias[None]))
    return W.requires_grad_(), U.requires_grad_(), b.requires_grad_()


def _by_cell(work: Work) -> list[tuple[str, list[Tensor]]]:
    """The end of the names, and the four weights, of each layer and direction in the order of the states."""
    suffixes = [f"_l{layer}{'_reverse' * d}" for layer in range(work.size.L) for d in range(work.size.D)]
    names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    return [(suffix, [work.lstm.get_parameter(name + suffix) for name in names]) for suffix in suffixes]


def _unrolled(work: Work, step: Callable[[int, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]) -> Network:
    """All layers and directions of (T, B, I), a step at a time."""
    _, T, _, _, L, D = work.size

    def network(x: Tensor, h_0: Tensor, c_0: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        finals = []
        for layer in range(L):
            outputs = []
            for d in range(D):
                k = layer * D + d
                h, c = h_0[k], c_0[k]
                steps = []
                for t in reversed(range(T)) if d else range(T):
                    h, c = step(k, x[t], h, c)
                    steps.append(h)
                outputs.append(torch.stack(steps[::-1] if d else steps))
                finals.append((h, c))
            x = outputs[0] if D == 1 else torch.cat(outputs, dim=-1)
        return x, (torch.stack([h for h, _ in finals]), torch.stack([c for _, c in finals]))

    return network
