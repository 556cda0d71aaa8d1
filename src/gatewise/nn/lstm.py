"""`LSTM`: a drop-in for torch.nn.LSTM on gatewise's own kernels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Self, overload

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.utils.rnn import PackedSequence

from gatewise.errors import ArgumentError, ShapeError
from gatewise.nn.checks import as_lengths, check_input, check_packed, check_reset, check_state
from gatewise.nn.direct import Codes, directly, one_by_one
from gatewise.nn.gates import Gates, split_gates, stack_gates
from gatewise.nn.network import Network
from gatewise.nn.operators import lstm, packed_lstm, plain_lstm
from gatewise.nn.paths import Path, path_of, plainly_served, under_autocast
from gatewise.nn.recorded import Recorded
from gatewise.reference.variant import PLAIN, GateActivation, Kind, Squash, Variant

State = tuple[Tensor, Tensor]


class LSTM(nn.RNNBase):
    r"""A multi-layer long short-term memory network (Hochreiter & Schmidhuber 1997, with the forget gate of Gers et al.
    2000), on gatewise's own CPU kernels.

    Arguments, shapes, parameter names, gate order and initial weights are those of `torch.nn.LSTM`: with the same seed
    both start from the same weights, and either's ``state_dict`` loads into the other. Each layer computes, at every
    step (equations 1.1 to 1.7 of docs/equations.md)::

        i, f, g, o = σ, σ, tanh, σ of (weight_ih x + bias_ih + weight_hh h + bias_hh)
        c = f c + i g
        h = o tanh(c)

    and with ``proj_size`` (Sak et al. 2014) ``h = weight_hr (o tanh c)``.

    Below, T, B, I, H are steps, batch rows, ``input_size`` and ``hidden_size``; L is ``num_layers`` and D is 2 if
    ``bidirectional``, else 1; P is ``proj_size`` if that is not 0, else H.

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
        torch's generator gives each mask its seed: the same seed gives the same masks.
    bidirectional : bool, default False
        Whether a second set of weights reads the sequence backwards; the output holds both, forward first.
    proj_size : int, default 0
        Width of h (P), less than H; 0: h is not projected.
    checkpoint_every : int, default 0
        Steps of a segment whose gates are not kept for the backward pass but computed anew there: for one forward pass
        more, a sequence of T steps takes the room for the gates of so many. Some hundreds do well. The results are the
        same bit for bit, the weights' gradients to rounding. It is for the CPU, without gradients of gradients, and
        torch.compile does not look into it. In bfloat16 the cells are rounded from segment to segment, which without
        segments they never are. 0: everything is kept.
    cell : {"lstm", "slstm"}, default "lstm"
        The LSTM, or the sLSTM (Beck et al. 2024, equations 8 to 17; here 7.24 to 7.28): its input gate is an
        exponential, and its state is ``(h, c, n, m)``, c divided by the normalizer n where it is shown, both as the
        stabilizer m scales them. States that are all zero are its beginning.
    peephole : bool, default False
        Whether the gates see the cell state of their unit, i and f before the step and o after it (Gers & Schmidhuber
        2000; equations 7.5 and 7.6): i = σ(… + p_i c) and so on, with the weights ``weight_ch``.
    coupled : bool, default False
        Whether f = 1 - i, one gate for both (Greff et al. 2017, CIFG; equation 7.9): the weights and biases have the
        rows of i, g and o alone.
    layer_norm : bool, default False
        Whether weight_ih x and weight_hh h are normalized, each over all of its rows, and c over its units on its way
        to h (Ba et al. 2016, supplement, equations 20 to 22; equations 7.20 and 7.21): with the gains ``gain_ih``,
        ``gain_hh`` and ``gain_c``, with ``bias_ih``, ``bias_hh`` and ``bias_c`` after them, and 1e-5 added to each
        variance.
    gate_activation : {"sigmoid", "hardsigmoid", "step", "exp"}, default "sigmoid"
        What i, f and o go through: σ; `torch.nn.functional.hardsigmoid` (equation 7.1); or 1 above 0 and 0 elsewhere,
        with the gradient of the identity (Bengio et al. 2013; equation 7.2). In an sLSTM f alone: σ or the exponential.
    candidate_activation, cell_activation : {"tanh", "linear"}, default "tanh"
        What g goes through, and c on its way to h (equation 7.4).
    zoneout : float or (float, float), default 0
        In training mode the rate with which each number of h, and of c, stays what it was before the step; in
        evaluation the expectation of that (Krueger et al. 2017; equation 7.17). A pair is for h and c, in this order.
    recurrent_dropout : float, default 0
        In training mode the rate with which each number of g is zeroed, at each step anew (Semeniuta et al. 2016;
        equation 7.11); what is left grows by 1 / (1 - rate), here and below.
    variational_dropout : float, default 0
        In training mode the rate with which each number of h is zeroed on its way into the gates, the same ones at
        every step (Gal & Ghahramani 2016; equation 7.13).
    weight_dropout : float, default 0
        In training mode the rate with which each entry of ``weight_hh`` is zeroed, the same ones for the whole call
        (DropConnect: Wan et al. 2013, Merity et al. 2018; equation 7.15).
    device, dtype
        As in torch. `gatewise.explain_path` tells which code serves a call. In bfloat16, and under `torch.autocast` to
        it, sums and the cells from step to step are float32.

    Attributes
    ----------
    weight_ih_l0 : Parameter
        (4H, I), and (4H, D·P) in the layers after the first: the rows of i, f, g and o, in this order.
    weight_hh_l0 : Parameter
        (4H, P).
    bias_ih_l0, bias_hh_l0 : Parameter
        (4H,) each, if ``bias``.
    weight_hr_l0 : Parameter
        (P, H), if h is projected.
    weight_ch_l0 : Parameter
        (3H,), if ``peephole``: of i, f and o, in this order. (ONNX's P holds i, o and f.)
    gain_ih_l0, gain_hh_l0, gain_c_l0, bias_c_l0 : Parameter
        (4H,), (4H,), (H,) and (H,), if ``layer_norm``; the last if ``bias``, too. Gains start at 1, ``bias_c`` at 0.
    variant : Variant
        What is changed of the plain cell. Another one may take its place (rates that grow, say) if it has the same
        parameters and states.

    (It is a `torch.nn.RNNBase` and no `torch.nn.LSTM`, because torch.compile stops at each of these.)

    Those of layer k end in ``_lk``, those of its reverse direction in ``_lk_reverse``. All start uniform in
    ±1/√H. With ``coupled`` read 3H for 4H, and 2H for 3H.

    Examples
    --------
    >>> lstm = LSTM(28, 128, num_layers=2, batch_first=True)
    >>> output, (h_n, c_n) = lstm(torch.zeros(100, 28, 28))
    >>> output.shape, h_n.shape
    (torch.Size([100, 28, 128]), torch.Size([2, 100, 128]))
    """

    _varied = False  # torch's __init__ asks before there is a variant

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        checkpoint_every: int = 0,
        cell: Kind = "lstm",
        peephole: bool = False,
        coupled: bool = False,
        layer_norm: bool = False,
        gate_activation: GateActivation = "sigmoid",
        candidate_activation: Squash = "tanh",
        cell_activation: Squash = "tanh",
        zoneout: float | tuple[float, float] = 0.0,
        recurrent_dropout: float = 0.0,
        variational_dropout: float = 0.0,
        weight_dropout: float = 0.0,
    ) -> None:
        if type(checkpoint_every) is not int or checkpoint_every < 0:
            raise ArgumentError(
                f"checkpoint_every is {checkpoint_every!r}, needed a whole number of steps, or 0 to keep everything"
            )
        variant = Variant(
            cell=cell,
            peephole=peephole,
            coupled=coupled,
            layer_norm=layer_norm,
            gate_activation=gate_activation,
            candidate_activation=candidate_activation,
            cell_activation=cell_activation,
            zoneout=zoneout,
            recurrent_dropout=recurrent_dropout,
            variational_dropout=variational_dropout,
            weight_dropout=weight_dropout,
        )
        varied = variant != PLAIN
        super().__init__(
            "LSTM",
            input_size,
            hidden_size,
            num_layers,
            bias,
            batch_first,
            dropout,
            bidirectional,
            proj_size,
            device="meta" if varied else device,  # of what has parameters of its own
            dtype=dtype,
        )
        self.checkpoint_every = checkpoint_every
        self._take_variant(variant)
        if varied:
            self._take_parameters(device, dtype)

    @property
    def variant(self) -> Variant:
        """What is changed of the plain cell."""
        return self._variant

    @variant.setter
    def variant(self, variant: Variant) -> None:
        if not isinstance(variant, Variant):
            raise ArgumentError(
                f"variant is {variant!r}, needed a Variant: make one by dataclasses.replace(lstm.variant, zoneout=0.2)"
            )
        shapes = [one.shapes(inputs=1, hidden=2, projection=1, bias=True) for one in (self._variant, variant)]
        if shapes[0] != shapes[1] or self._variant.states != variant.states:
            raise ArgumentError(
                f"variant is {variant.changes()}, and this LSTM has the parameters and states of "
                f"{self._variant.changes()}: make a new LSTM"
            )
        self._take_variant(variant)

    def _take_variant(self, variant: Variant) -> None:
        self._variant, self._varied, self._codes = variant, variant != PLAIN, Codes.of(variant)

    def flatten_parameters(self) -> None:
        """Bring weights on a GPU into one piece of memory for torch's own LSTM; a variant's stay where they are."""
        if not self._varied:
            super().flatten_parameters()

    def extra_repr(self) -> str:
        """The arguments, where they are not the defaults."""
        checkpoint = {"checkpoint_every": self.checkpoint_every} if self.checkpoint_every else {}
        ours = (checkpoint | self.variant.changes()).items()
        return super().extra_repr() + "".join(f", {name}={value!r}" for name, value in ours)

    def reset_parameters(self) -> None:
        """Draw the weights and biases as torch does; gains are 1, and what is added after that of the cell is 0."""
        super().reset_parameters()
        for name, parameter in self.named_parameters():
            if name.startswith("gain"):
                nn.init.ones_(parameter)
            elif name.startswith("bias_c"):
                nn.init.zeros_(parameter)

    def _take_parameters(self, device: torch.device | str | None, dtype: torch.dtype | None) -> None:
        """Put the variant's parameters in the place of torch's."""
        self._parameters.clear()
        self._flat_weights_names, self._all_weights = [], []
        directions = ["", "_reverse"] if self.bidirectional else [""]
        for layer in range(self.num_layers):
            above = (self.proj_size or self.hidden_size) * len(directions)
            shapes = self.variant.shapes(
                inputs=above if layer else self.input_size,
                hidden=self.hidden_size,
                projection=self.proj_size,
                bias=self.bias,
            )
            for direction in directions:
                named = {f"{kind}_l{layer}{direction}": shape for kind, shape in shapes.items()}
                for name, shape in named.items():
                    setattr(self, name, nn.Parameter(torch.empty(shape, device=device, dtype=dtype)))
                self._flat_weights_names += named
                self._all_weights.append(list(named))
        self._init_flat_weights()
        self.reset_parameters()

    @classmethod
    def from_gates(
        cls, layers: Gates | Sequence[Gates | Sequence[Gates]], *, batch_first: bool = False, dropout: float = 0.0
    ) -> Self:
        """Make an LSTM from the weights of its gates.

        Parameters
        ----------
        layers
            The gates of each layer, from the lowest on; a pair of them for a layer of two directions. One `Gates` alone
            is a single layer. The weights are copied.
        batch_first, dropout
            As in the class.

        Returns
        -------
        LSTM
            Of the sizes, the dtype and the device of the weights; with biases if the gates have them.

        Raises
        ------
        ArgumentError
            There is no layer, or not as many directions in each.
        ShapeError
            Weights do not fit one another.

        Examples
        --------
        One step by hand: W = [[.1, .2], [.1, .2]], U = [[0, .1], [.1, 0]] and b = .1 in every gate, written for
        x W + h U as in many texts. torch multiplies from the other side, hence the transpose.

        >>> from gatewise.nn import Gate, Gates
        >>> W, U = torch.tensor([[0.1, 0.2], [0.1, 0.2]]), torch.tensor([[0.0, 0.1], [0.1, 0.0]])
        >>> gate = Gate(weight_ih=W.T, weight_hh=U.T, bias_ih=torch.full((2,), 0.1), bias_hh=torch.zeros(2))
        >>> lstm = LSTM.from_gates(Gates(i=gate, f=gate, g=gate, o=gate))
        >>> output, (h_n, c_n) = lstm(torch.tensor([[[1.0, 0.0]]]))
        >>> h_n.detach()
        tensor([[[0.0594, 0.0952]]])
        """
        given = [layers] if isinstance(layers, Gates) else list(layers)
        by_layer = [[layer] if isinstance(layer, Gates) else list(layer) for layer in given]
        directions = {len(layer) for layer in by_layer}
        if len(directions) != 1 or not directions <= {1, 2}:
            raise ArgumentError(
                f"the layers have {[len(layer) for layer in by_layer]} directions, needed at least one layer and 1 or "
                "2 directions, the same in each: give a Gates, or a pair of them, for each layer"
            )
        stacked = [stack_gates(gates) for layer in by_layer for gates in layer]
        weight_ih, weight_hh, *biases = stacked[0]
        module = cls(
            weight_ih.shape[1],
            weight_hh.shape[1],
            len(by_layer),
            bias=bool(biases),
            batch_first=batch_first,
            dropout=dropout,
            bidirectional=directions == {2},
            device=weight_ih.device,
            dtype=weight_ih.dtype,
        )
        new = [weight for weights in stacked for weight in weights]
        if len(new) != len(module._flat_weights_names):
            raise ShapeError("some gates have biases and some have none: give all of them biases, or none")
        with torch.no_grad():
            for name, weight in zip(module._flat_weights_names, new, strict=True):
                own: Tensor = getattr(module, name)
                if own.shape != weight.shape:
                    raise ShapeError(
                        f"{name} has shape {tuple(weight.shape)} from its gates, needed {tuple(own.shape)} to fit the "
                        "first layer's: give all layers gates of the same H"
                    )
                own.copy_(weight)
        return module

    def gates(self, layer: int = 0, direction: int = 0) -> Gates:
        """Give the weights of one layer and direction gate by gate.

        Parameters
        ----------
        layer
            From 0 to L - 1.
        direction
            0 forward, 1 reverse.

        Returns
        -------
        Gates
            Views, not copies: what is written into them, under `torch.no_grad`, the LSTM computes with. (Of a weight
            that is parametrized or pruned they are views of what was just computed: write to its originals.)

        Raises
        ------
        ArgumentError
            There is no such layer or direction, h is projected, or the weights of the cell are not those of four gates:
            with peepholes and a layer norm there are more, and coupled gates have none for f, which is 1 - i.

        Examples
        --------
        A forget gate that begins open (Jozefowicz et al. 2015):

        >>> lstm = LSTM(4, 3)
        >>> with torch.no_grad():
        ...     _ = lstm.gates().f.bias_hh.fill_(1)
        >>> lstm.bias_hh_l0[3:6]
        tensor([1., 1., 1.], grad_fn=<SliceBackward0>)
        """
        directions = 2 if self.bidirectional else 1
        if not (0 <= layer < self.num_layers and 0 <= direction < directions):
            raise ArgumentError(
                f"layer is {layer} and direction {direction}, needed a layer below {self.num_layers} and a direction "
                f"below {directions}"
            )
        if self.proj_size:
            raise ArgumentError(
                f"proj_size is {self.proj_size}, needed is 0: with weight_hr there is more than four gates"
            )
        for name in ("peephole", "coupled", "layer_norm"):
            if getattr(self.variant, name):
                raise ArgumentError(f"{name} is True, and its weights are not those of four gates: read them by name")
        suffix = f"_l{layer}" + "_reverse" * direction
        weight_ih, weight_hh = getattr(self, f"weight_ih{suffix}"), getattr(self, f"weight_hh{suffix}")
        if not self.bias:
            return split_gates(weight_ih, weight_hh, None, None)
        return split_gates(weight_ih, weight_hh, getattr(self, f"bias_ih{suffix}"), getattr(self, f"bias_hh{suffix}"))

    def init_state(self, batch_size: int | None = None) -> State:
        """Make the state that a call without one begins with.

        Parameters
        ----------
        batch_size
            B; None: for a single sequence without a batch axis.

        Returns
        -------
        h_0, c_0 : Tensor
            Zeros, (L·D, B, P) and (L·D, B, H), or without B, of the weights' dtype and device.

        Examples
        --------
        >>> h_0, c_0 = LSTM(4, 3, num_layers=2).init_state(8)
        >>> h_0.shape
        torch.Size([2, 8, 3])
        """
        rows = self.num_layers * (2 if self.bidirectional else 1)
        batch = () if batch_size is None else (batch_size,)
        weight, cells = self._weights()[0], self.variant.states[1:]
        h_0 = weight.new_zeros(rows, *batch, self.proj_size or self.hidden_size)
        return h_0, *(weight.new_zeros(rows, *batch, self.hidden_size) for _ in cells)  # type: ignore[return-value]

    @overload
    def forward(
        self, input: Tensor, hx: State | None = None, *, lengths: Any = None, reset: Tensor | None = None
    ) -> tuple[Tensor, State]: ...

    @overload
    def forward(self, input: PackedSequence, hx: State | None = None) -> tuple[PackedSequence, State]: ...

    def forward(self, input: Any, hx: State | None = None, *, lengths: Any = None, reset: Tensor | None = None) -> Any:
        """Run the network over a batch of sequences.

        Parameters
        ----------
        input
            (T, B, I); (B, T, I) if ``batch_first``; (T, I) for a single sequence without a batch axis; or a
            `PackedSequence`.
        hx
            The initial state (h_0, c_0), (L·D, B, P) and (L·D, B, H), or without B for a single sequence; of an sLSTM
            (h_0, c_0, n_0, m_0), the last two as c_0. Default: zeros.
        lengths
            (B,) whole numbers from 0 to T, in any order, as a tensor or a list: the steps of each sequence. The work
            grows with their sum. Default: T for all.
        reset
            (T, B), or (B, T) if ``batch_first``, or (T,) for a single sequence, bool: where it is true a new sequence
            begins, and neither state nor gradient passes between that step and the one before it, in either direction.
            At the first step it drops the forward direction's initial state. Default: nowhere.

        Returns
        -------
        output : Tensor or PackedSequence
            The last layer's h at every step: (T, B, D·P); (B, T, D·P) if ``batch_first``; (T, D·P) for a single
            sequence; packed if the input is. Past a sequence's length it is zero.
        (h_n, c_n) : tuple of Tensor
            Every layer's and direction's state after its last step, shaped as `hx`: with lengths, each sequence's own
            last step. ``output[-1]`` equals ``h_n[-1]`` only where the network is not bidirectional and all sequences
            are equally long: the reverse direction ends at the first step.

        Raises
        ------
        ShapeError
            An axis has a wrong size, or there is no step.
        DtypeError
            The input or the state is not of the weights' dtype, `lengths` are no whole numbers, or `reset` is not bool.
        ArgumentError
            `hx` is no pair, a length is not from 0 to T, or a packed input comes with lengths or reset.
        KernelError
            Tensors are on different devices, or not dense.

        Examples
        --------
        >>> lstm = LSTM(4, 3, bidirectional=True)
        >>> output, (h_n, c_n) = lstm(torch.ones(5, 2, 4), lengths=[5, 2])
        >>> output[2:, 1].abs().sum(), torch.equal(h_n[0, 1], output[1, 1, :3])
        (tensor(0., grad_fn=<SumBackward0>), True)
        """
        if hx is not None and not self._varied:
            check_state(hx)
        if lengths is not None or reset is not None or self.checkpoint_every or (self.dropout and self.training):
            return self._any(input, hx, lengths, reset)
        if self._varied:
            return self._by_changed_cells(input, hx)
        h_0, c_0 = (None, None) if hx is None else hx
        try:
            if torch.compiler.is_compiling():  # which cannot look into plain_lstm
                if plainly_served(input) and input.dim() == 3:
                    network = (self.num_layers, self.bidirectional, self.batch_first)
                    call = (input, h_0, c_0, self._weights(), *network, None, None, None)
                    output, h_n, c_n = lstm(*call, variant=PLAIN, masks=None)
                    return output, (h_n, c_n)
            elif forward_ad._current_level < 0:
                weights, layers = self._weights(), self.num_layers
                if isinstance(input, PackedSequence):
                    results = packed_lstm(*input, h_0, c_0, weights, layers, self.bidirectional)
                    if results is not None:
                        return PackedSequence(results[0], *input[1:]), results[1]
                else:
                    results = plain_lstm(input, h_0, c_0, weights, layers, self.bidirectional, self.batch_first)
                    if results is not None:
                        return results
        except (RuntimeError, TypeError):
            # The operator checks all that it needs in no time; in words it is said here.
            self.prepare(input, hx, None, None)
            raise
        return self._any(input, hx, lengths, reset)

    def _by_changed_cells(self, input: Any, hx: State | None) -> Any:
        """Serve the common call of changed cells."""
        try:
            results = directly(self, input, hx)
        except (RuntimeError, TypeError):
            self.prepare(input, hx, None, None)  # which checks the same, and says it in words
            raise
        return self._any(input, hx, None, None) if results is None else results

    def _any(self, input: Any, hx: State | None, lengths: Any, reset: Any) -> Any:
        """Serve any call: check it in words, choose a path, and bring input and output into its form."""
        call = self.prepare(input, hx, lengths, reset)
        return self._as_input(input, call.network.run(call.path, call.x, call.h_0, call.c_0, call.weights))

    def _as_input(self, input: Any, results: tuple[Tensor, Tensor, Tensor]) -> Any:
        """Bring what a path computes into the form that the input has."""
        output, *states = results
        if len(self.variant.states) > 2:
            states = [states[0], *one_by_one(states[1], len(self.variant.states) - 1)]
        if isinstance(input, PackedSequence):
            packed = PackedSequence(output, input.batch_sizes, input.sorted_indices, input.unsorted_indices)
            return packed, tuple(_in_order(state, input.unsorted_indices) for state in states)
        if input.dim() == 2:
            return output.squeeze(0 if self.batch_first else 1), tuple(state.squeeze(1) for state in states)
        return output, tuple(states)

    def record(
        self, input: Any, hx: State | None = None, *, lengths: Any = None, reset: Tensor | None = None
    ) -> tuple[Any, Prepared, list[Recorded]]:
        """Run the network as `forward` does and keep its gates to be read: what `gatewise.trace` is made of.

        Parameters
        ----------
        input, hx, lengths, reset
            As in `forward`.

        Returns
        -------
        results
            As of `forward`.
        call
            The call as it was prepared, and in training the masks that were drawn for it.
        recorded : list of Recorded
            One for each layer and direction, at l·D + d.

        Examples
        --------
        >>> _, _, (layer,) = LSTM(4, 3).record(torch.zeros(5, 2, 4))
        >>> i, f, g, o, c = layer.activations()
        >>> f.shape
        torch.Size([5, 2, 3])
        """
        call = self.prepare(input, hx, lengths, reset)
        network, weights = call.network.drawn(call.x, call.weights)
        call = call._replace(network=network, weights=weights)
        results, recorded = call.network.record(call.path, call.x, call.h_0, call.c_0, call.weights)
        return self._as_input(input, results), call, recorded

    def prepare(self, input: Any, hx: State | None, lengths: Any, reset: Any) -> Prepared:
        """Check a call in words, choose its path, and bring what it has into that path's form.

        Parameters
        ----------
        input, hx, lengths, reset
            As in `forward`.

        Returns
        -------
        Prepared
            What `forward` runs.

        Examples
        --------
        >>> LSTM(4, 3).prepare(torch.zeros(5, 2, 4), None, None, None).path.name
        'kernel'
        """
        names = self.variant.states
        if hx is not None:
            check_state(hx, names)
        packed = input if isinstance(input, PackedSequence) else None
        x, batch_sizes = input, None
        states = {f"{name}_0": None if hx is None else hx[number] for number, name in enumerate(names)}
        if packed is not None:
            if lengths is not None or reset is not None:
                raise ArgumentError("input is packed and has lengths of its own: pad it to use lengths and reset")
            check_packed(packed)
            x, batch_sizes = packed.data, packed.batch_sizes
        variant = self.variant if self.training else self.variant.in_evaluation()
        walked = lengths is not None or reset is not None
        weights = self._weights()
        elsewhere = isinstance(x, Tensor) and path_of(x, walked=walked, variant=variant).name == "torch"
        casts = isinstance(x, Tensor) and not x.is_meta and torch.is_autocast_enabled(x.device.type)
        if casts and not elsewhere:  # torch's own LSTM casts for itself
            x, *weights = (under_autocast(t) for t in (x, *weights))
            states = {name: under_autocast(state) for name, state in states.items()}
        if not (casts and elsewhere):
            check_input(self, x, states, weights[0], batch_sizes)
        h_0, *cells = states.values()
        c_0 = cells[0] if len(cells) == 1 or hx is None else torch.cat(cells, dim=-1)  # type: ignore[arg-type]
        path = path_of(x, walked=walked, variant=variant)
        if packed is not None:
            h_0, c_0 = _in_order(h_0, packed.sorted_indices), _in_order(c_0, packed.sorted_indices)
        batch = 0 if self.batch_first else 1
        if packed is None and x.dim() == 2:
            if lengths is not None:
                raise ShapeError(f"input has shape {tuple(x.shape)}, needed a batch axis for lengths: cut the sequence")
            if reset is not None:
                check_reset(reset, x, T=x.size(0))
                reset = reset.unsqueeze(batch)
            x = x.unsqueeze(batch)
            h_0, c_0 = (None if t is None else t.unsqueeze(1) for t in (h_0, c_0))
        elif reset is not None:
            axes = ("B", "T") if self.batch_first else ("T", "B")
            check_reset(reset, x, **dict(zip(axes, x.shape[:2], strict=True)))
        if lengths is not None:
            lengths = as_lengths(lengths, T=x.size(1 - batch), B=x.size(batch))
        network = Network(
            self.num_layers,
            self.bidirectional,
            self.batch_first,
            lengths,
            reset,
            batch_sizes,
            self.dropout if self.training else 0.0,
            self.checkpoint_every,
            variant,
            draws=self._varied and self.training,
        )
        return Prepared(path, network, x, h_0, c_0, weights)

    def _weights(self) -> list[Tensor]:
        """List the weights in torch's order, whatever they are parametrized by."""
        # A look into _parameters first: nn.Module's getattr takes a microsecond per weight. What is pruned, normalised
        # or otherwise parametrized is not there under its own name, and getattr computes it.
        own: Mapping[str, Tensor | None] = self._parameters
        return [
            getattr(self, name) if (weight := own.get(name)) is None else weight for name in self._flat_weights_names
        ]


class Prepared(NamedTuple):
    """A call of an LSTM that has been checked: its path, what it computes, and the tensors in that path's form."""

    path: Path
    network: Network
    x: Tensor
    h_0: Tensor | None
    c_0: Tensor | None
    weights: list[Tensor]


def _in_order(state: Any, order: Tensor | None) -> Any:
    """A state with its batch rows in another order."""
    return state if state is None or order is None else state.index_select(1, order)
