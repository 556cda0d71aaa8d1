"""`LSTM`: a drop-in for torch.nn.LSTM on gatewise's own kernels."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from gatewise.errors import ShapeError
from gatewise.nn.checks import check_numbers, check_shape, check_state
from gatewise.nn.operators import lstm


class LSTM(nn.RNNBase):
    r"""A multi-layer long short-term memory network (Hochreiter & Schmidhuber 1997, with the forget gate of Gers et al.
    2000), on gatewise's own CPU kernels.

    Arguments, shapes, parameter names, gate order and initial weights are those of `torch.nn.LSTM`: with the same seed
    both start from the same weights, and either's ``state_dict`` loads into the other. Each layer computes, at every
    step (equations 1.1 to 1.7 of docs/equations.md)::

        i, f, g, o = σ, σ, tanh, σ of (weight_ih x + bias_ih + weight_hh h + bias_hh)
        c = f c + i g
        h = o tanh(c)

    Below, T, B, I, H are steps, batch rows, ``input_size`` and ``hidden_size``; L is ``num_layers`` and D is 2 if
    ``bidirectional``, else 1.

    Parameters
    ----------
    input_size : int
        Numbers per step of the input (I).
    hidden_size : int
        Hidden units per layer and direction (H).
    num_layers : int, default 1
        Layers, each reading the output of the one before (L).
    bias : bool, default True
        Whether there are ``bias_ih`` and ``bias_hh``.
    batch_first : bool, default False
        Whether input and output are (B, T, ·) instead of (T, B, ·). The states are (L·D, B, H) in either case.
    dropout : float, default 0
        Probability with which, in training mode, each number of every layer's output but the last layer's is zeroed.
        The masks are drawn by torch's generator.
    bidirectional : bool, default False
        Whether a second set of weights reads the sequence backwards; the output holds both, forward first.
    device, dtype
        As in torch; float32 and float64 on the CPU are what the kernels have code for.

    Attributes
    ----------
    weight_ih_l0 : Parameter
        (4H, I), and (4H, D·H) in the layers after the first: the rows of i, f, g and o, in this order.
    weight_hh_l0 : Parameter
        (4H, H).
    bias_ih_l0, bias_hh_l0 : Parameter
        (4H,) each.

    Those of layer k end in ``_lk``, those of its reverse direction in ``_lk_reverse``. All start uniform in
    ±1/√H.

    Examples
    --------
    >>> lstm = LSTM(28, 128, num_layers=2, batch_first=True)
    >>> output, (h_n, c_n) = lstm(torch.zeros(100, 28, 28))
    >>> output.shape, h_n.shape
    (torch.Size([100, 28, 128]), torch.Size([2, 100, 128]))
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(
            "LSTM",
            input_size,
            hidden_size,
            num_layers,
            bias,
            batch_first,
            dropout,
            bidirectional,
            device=device,
            dtype=dtype,
        )

    def forward(self, input: Tensor, hx: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Run the network over a batch of sequences.

        Parameters
        ----------
        input
            (T, B, I); (B, T, I) if ``batch_first``; (T, I) for a single sequence without a batch axis.
        hx
            The initial state (h_0, c_0), each (L·D, B, H), or (L·D, H) for a single sequence. Default: zeros.

        Returns
        -------
        output : Tensor
            The last layer's h at every step: (T, B, D·H); (B, T, D·H) if ``batch_first``; (T, D·H) for a single
            sequence.
        (h_n, c_n) : tuple of Tensor
            Every layer's and direction's state after its last step, shaped as `hx`. ``output[-1]`` equals
            ``h_n[-1]`` only where the network is not bidirectional: the reverse direction ends at the first step.

        Raises
        ------
        ShapeError
            An axis has a wrong size, or there is no step.
        DtypeError
            The input or the state is not of the weights' dtype.
        ArgumentError
            `hx` is no pair.
        KernelError
            A tensor is not on the CPU, or not dense.
        """
        weights = self._weights()
        if hx is None:
            h_0 = c_0 = None
        else:
            check_state(hx)
            h_0, c_0 = hx
        try:
            if isinstance(input, Tensor) and input.dim() == 2:
                self._check(input, hx, weights)
                output, h_n, c_n = self._run(
                    input.unsqueeze(0 if self.batch_first else 1),
                    None if h_0 is None else h_0.unsqueeze(1),
                    None if c_0 is None else c_0.unsqueeze(1),
                    weights,
                )
                return output.squeeze(0 if self.batch_first else 1), (h_n.squeeze(1), c_n.squeeze(1))
            output, h_n, c_n = self._run(input, h_0, c_0, weights)
        except (RuntimeError, TypeError):
            # The operator checks all that it needs in no time; in words it is said here.
            self._check(input, hx, weights)
            raise
        return output, (h_n, c_n)

    def _run(
        self, x: Tensor, h_0: Tensor | None, c_0: Tensor | None, weights: list[Tensor]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Run all layers on (T, B, I), or (B, T, I), and states (L·D, B, H)."""
        if self.dropout and self.training and self.num_layers > 1:
            return self._layer_by_layer(x, h_0, c_0, weights)
        return lstm(x, h_0, c_0, weights, self.num_layers, self.bidirectional, self.batch_first)

    def _check(self, input: Tensor, hx: tuple[Tensor, Tensor] | None, weights: list[Tensor]) -> None:
        """Refuse an input or a state that does not fit, naming the axes."""
        check_numbers("input", input, weights[0])
        axes = ("B", "T", "I") if self.batch_first else ("T", "B", "I")
        if input.dim() not in (2, 3) or input.size(-1) != self.input_size:
            raise ShapeError(
                f"input has shape {tuple(input.shape)}, needed ({', '.join(axes)}), or (T, I) for a single sequence, "
                f"with I = {self.input_size} (input_size)"
            )
        batched = input.dim() == 3
        if input.size(axes.index("T") if batched else 0) == 0:
            raise ShapeError(f"input has shape {tuple(input.shape)}, needed at least one step along T")
        sizes = {"L·D": self.num_layers * (2 if self.bidirectional else 1), "H": self.hidden_size}
        if batched:
            sizes = {"L·D": sizes["L·D"], "B": input.size(axes.index("B")), "H": self.hidden_size}
        for name, state in zip(("h_0", "c_0"), hx or (), strict=False):
            check_numbers(name, state, weights[0])
            check_shape(name, state, **sizes)

    def _weights(self) -> list[Tensor]:
        """List the weights in torch's order, whatever they are parametrized by."""
        # A look into _parameters first: nn.Module's getattr takes a microsecond per weight. What is pruned, normalised
        # or otherwise parametrized is not there under its own name, and getattr computes it.
        own: Mapping[str, Tensor | None] = self._parameters
        return [
            getattr(self, name) if (weight := own.get(name)) is None else weight for name in self._flat_weights_names
        ]

    def _layer_by_layer(
        self, x: Tensor, h_0: Tensor | None, c_0: Tensor | None, weights: list[Tensor]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Run the layers one at a time, with dropout between them drawn over (T, B, D·H) as torch draws it."""
        directions = 2 if self.bidirectional else 1
        per_layer = directions * (4 if self.bias else 2)
        states: list[tuple[Tensor, Tensor]] = []
        x = x.transpose(0, 1) if self.batch_first else x
        for layer in range(self.num_layers):
            last = layer == self.num_layers - 1
            number = slice(layer * directions, (layer + 1) * directions)
            x, h_n, c_n = lstm(
                x,
                None if h_0 is None else h_0[number],
                None if c_0 is None else c_0[number],
                weights[layer * per_layer : (layer + 1) * per_layer],
                1,
                self.bidirectional,
                False,
            )
            if not last:
                x = nn.functional.dropout(x, self.dropout, training=True)
            states.append((h_n, c_n))
        output = x.transpose(0, 1) if self.batch_first else x
        return output, torch.cat([h for h, _ in states]), torch.cat([c for _, c in states])
