"""All layers of a network by one of the paths: dropout between them, and dtypes that are computed in float32."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn

from gatewise.errors import ArgumentError
from gatewise.nn.call import Three
from gatewise.nn.composite import composite_lstm, in_float32
from gatewise.nn.dropped import drop_weights
from gatewise.nn.masks import masks_of_call
from gatewise.nn.operators import lstm
from gatewise.nn.paths import KERNEL_DTYPES, NARROW_DTYPES, Path
from gatewise.nn.recorded import Recorded, recorded_by_composite, recorded_by_kernel
from gatewise.nn.segments import segmented_lstm
from gatewise.reference.variant import PLAIN, Variant


@dataclass(frozen=True)
class Network:
    """What is computed: the arguments of `gatewise.nn.composite.composite_lstm` but the tensors that gradients go to.

    Parameters
    ----------
    num_layers, bidirectional, batch_first, lengths, reset, batch_sizes
        As there.
    dropout
        Probability with which each number between two layers is zeroed; 0 in evaluation.
    checkpoint_every
        Steps of a segment that is computed anew on the way back; 0: everything is kept.
    variant
        The cell.
    draws
        Whether the variant's masks are drawn, as they are in training.
    masks
        Those that were drawn.
    """

    num_layers: int
    bidirectional: bool
    batch_first: bool
    lengths: Tensor | None = None
    reset: Tensor | None = None
    batch_sizes: Tensor | None = None
    dropout: float = 0.0
    checkpoint_every: int = 0
    variant: Variant = PLAIN
    draws: bool = False
    masks: Mapping[str, Tensor] | None = None

    def run(self, path: Path, x: Tensor, h_0: Tensor | None, c_0: Tensor | None, weights: Sequence[Tensor]) -> Three:
        """Compute output, h_n and c_n by the code that a path names.

        Examples
        --------
        >>> weights = [torch.zeros(12, 4), torch.zeros(12, 3)]
        >>> Network(1, False, False).run(Path("kernel", ""), torch.zeros(5, 2, 4), None, None, weights)[0].shape
        torch.Size([5, 2, 3])
        """
        if self.draws:
            return replace(self, draws=False, masks=self._masks(x, weights)).run(path, x, h_0, c_0, weights)
        if self.checkpoint_every and self._is_differentiated(x, h_0, c_0, *weights):
            if path.name != "kernel":
                raise ArgumentError(
                    f"checkpoint_every is {self.checkpoint_every}, which is for gatewise's kernels alone, and this "
                    f"call goes by {path.name} ({path.why}): make the LSTM with checkpoint_every=0"
                )
            return self._by_our_own(partial(segmented_lstm, self.checkpoint_every), path, x, h_0, c_0, weights)
        if path.name == "torch":
            dropped, _ = drop_weights(weights, self.masks or {})
            return self._by_torch(x, h_0, c_0, dropped)
        return self._by_our_own(lstm if path.name == "kernel" else composite_lstm, path, x, h_0, c_0, weights)

    def record(
        self, path: Path, x: Tensor, h_0: Tensor | None, c_0: Tensor | None, weights: Sequence[Tensor]
    ) -> tuple[Three, list[Recorded]]:
        """Compute the same and keep all gates, by the kernels or, where a path leads elsewhere, by torch's operations.

        Masks are no longer drawn here: what they are is for whoever reads the gates, and `drawn` tells it.

        Returns
        -------
        results, recorded
            As of `run`, and one `Recorded` for each layer and direction, at l·D + d.

        Examples
        --------
        >>> weights = [torch.zeros(12, 4), torch.zeros(12, 3)]
        >>> network = Network(1, False, False)
        >>> _, (layer,) = network.record(Path("kernel", ""), torch.zeros(5, 2, 4), None, None, weights)
        >>> layer.activations().shape
        torch.Size([5, 5, 2, 3])
        """
        found: list[Recorded] = []
        function = recorded_by_kernel if path.name == "kernel" else recorded_by_composite
        return self._by_our_own(partial(function, found), path, x, h_0, c_0, weights), found

    def drawn(self, x: Tensor, weights: Sequence[Tensor]) -> tuple[Network, list[Tensor]]:
        """Draw the masks, if any are to be, for a call that is read afterwards: weights have theirs in them.

        Examples
        --------
        >>> network = Network(1, False, False, variant=Variant(recurrent_dropout=0.5), draws=True)
        >>> network, _ = network.drawn(torch.zeros(5, 2, 4), [torch.zeros(12, 4), torch.zeros(12, 3)])
        >>> network.draws, network.masks["candidate"].shape
        (False, torch.Size([1, 5, 2, 3]))
        """
        if not self.draws:
            return self, list(weights)
        weights, masks = drop_weights(weights, self._masks(x, weights))
        return replace(self, draws=False, masks=masks), weights

    def _masks(self, x: Tensor, weights: Sequence[Tensor]) -> dict[str, Tensor]:
        if self.batch_sizes is not None:
            time, batch = len(self.batch_sizes), int(self.batch_sizes[0])
        else:
            time, batch = (x.size(1), x.size(0)) if self.batch_first else (x.size(0), x.size(1))
        cells = self.num_layers * (2 if self.bidirectional else 1)
        return masks_of_call(self.variant, x, weights, cells=cells, time=time, batch=batch)

    @staticmethod
    def _is_differentiated(*tensors: Tensor | None) -> bool:
        return torch.is_grad_enabled() and any(tensor is not None and tensor.requires_grad for tensor in tensors)

    def _by_our_own(
        self,
        function: Callable[..., Three],
        path: Path,
        x: Tensor,
        h_0: Tensor | None,
        c_0: Tensor | None,
        weights: Sequence[Tensor],
    ) -> Three:
        if x.dtype in NARROW_DTYPES and not (path.name == "kernel" and x.dtype in KERNEL_DTYPES):
            return in_float32(partial(self._layers, function), x, h_0, c_0, weights)
        return self._layers(function, x, h_0, c_0, weights)

    def _by_torch(self, x: Tensor, h_0: Tensor | None, c_0: Tensor | None, weights: list[Tensor]) -> Three:
        """By what torch.nn.LSTM itself calls: cuDNN, on a GPU."""
        directions = 2 if self.bidirectional else 1
        per_direction = len(weights) // (self.num_layers * directions)
        if h_0 is None or c_0 is None:
            batch = x.size(0 if self.batch_first else 1) if self.batch_sizes is None else int(self.batch_sizes[0])
            rows = self.num_layers * directions
            h_0 = x.new_zeros(rows, batch, weights[1].size(1))
            c_0 = x.new_zeros(rows, batch, weights[0].size(0) // 4)
        # cuDNN drops, and keeps what backward needs, in training mode only. Gradients may be asked for in evaluation
        # too: there the dropout is 0.
        training = torch.is_grad_enabled() or self.dropout > 0
        network = (per_direction > 3, self.num_layers, self.dropout, training, self.bidirectional)
        if self.batch_sizes is not None:
            return torch._VF.lstm(x, self.batch_sizes, (h_0, c_0), weights, *network)
        return torch._VF.lstm(x, (h_0, c_0), weights, *network, self.batch_first)

    def _layers(
        self,
        function: Callable[..., Three],
        x: Tensor,
        h_0: Tensor | None,
        c_0: Tensor | None,
        weights: Sequence[Tensor],
    ) -> Three:
        if not self.dropout or self.num_layers == 1:
            return function(
                x,
                h_0,
                c_0,
                weights,
                self.num_layers,
                self.bidirectional,
                self.batch_first,
                self.lengths,
                self.reset,
                self.batch_sizes,
                variant=self.variant,
                masks=self.masks,
            )
        # Layer by layer; between them as (T, B, ·), as torch draws its masks.
        directions = 2 if self.bidirectional else 1
        per_layer = len(weights) // self.num_layers
        across = self.batch_first and self.batch_sizes is None
        reset = self.reset.transpose(0, 1) if across and self.reset is not None else self.reset
        x = x.transpose(0, 1) if across else x
        states: list[tuple[Tensor, Tensor]] = []
        for layer in range(self.num_layers):
            if layer > 0:
                x = nn.functional.dropout(x, self.dropout, training=True)
            own = slice(layer * directions, (layer + 1) * directions)
            masks = {name: mask[own] for name, mask in (self.masks or {}).items()}
            one = replace(self, num_layers=1, batch_first=False, reset=reset, masks=masks)
            x, h_n, c_n = one._layers(
                function,
                x,
                None if h_0 is None else h_0[own],
                None if c_0 is None else c_0[own],
                weights[layer * per_layer : (layer + 1) * per_layer],
            )
            states.append((h_n, c_n))
        output = x.transpose(0, 1) if across else x
        return output, torch.cat([h for h, _ in states]), torch.cat([c for _, c in states])
