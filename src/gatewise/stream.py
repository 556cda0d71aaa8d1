"""`Stream`: an LSTM, or a model with LSTMs in it, that takes one step at a time and keeps its state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from gatewise.errors import ArgumentError, RunError, ShapeError
from gatewise.insight.swap import swapped
from gatewise.nn import LSTM, LSTMCell
from gatewise.nn.steps import State, Steps, as_rows
from gatewise.train.tensors import read_tensors, write_tensors

_ALONE = (LSTM.forward, nn.LSTM.forward, LSTMCell.forward, nn.LSTMCell.forward)


class Stream:
    """Run an LSTM one step at a time, for what comes as it happens; the state stays here between the steps.

    Below, L, B, I, H are layers, batch rows, ``input_size`` and ``hidden_size``; P is ``proj_size`` if that is not 0,
    else H.

    Parameters
    ----------
    model : torch.nn.Module
        A gatewise.LSTM, torch.nn.LSTM, gatewise.LSTMCell or torch.nn.LSTMCell; or any model with such LSTMs in it whose
        other modules work step by step, such as an embedding, the LSTM and a linear layer. It lives on the CPU, in
        float32, float64 or bfloat16, and its LSTMs are not bidirectional: the reverse direction would need the future.
    batch_size : int or None, default 1
        Rows that go side by side (B); None: there is no batch axis.

    Raises
    ------
    ArgumentError
        There is no LSTM, one is bidirectional, or other modules have a state: RNNs, GRUs, or cells in a model.
    DtypeError, KernelError
        An LSTM is of another dtype, or not on the CPU.

    Notes
    -----
    T steps give what one call of gatewise.LSTM gives for the sequence, bit for bit in every dtype: in bfloat16 c stays
    in float32 between the steps, as it does there. (A torch.nn.LSTM is computed by gatewise's kernels: the results
    agree with its own to rounding.)

    A stream looks for the weights at each step. Those that were written to by way of torch (an optimizer's step,
    ``load_state_dict``) are used at once. Writes that torch does not count (by ``weight.data``, or through NumPy) are
    found by comparing some numbers: of a matrix with N bytes, 16 cache lines at each step, others each time, so that
    what changes all of it is used at once, and what changes a few numbers after N / 1024 steps at the latest.

    It keeps no gradients. It is neither copied nor pickled: its state is, by ``state`` or by `save` and `restore`. A
    step of an LSTM or a cell holds Python's lock, and so is whole for other threads. A step of a whole model takes the
    place of its LSTMs' forwards meanwhile: as long as one goes on, no other thread may call the model or step another
    stream of it. Give each thread a copy of the model.

    Examples
    --------
    >>> lstm = LSTM(4, 3)
    >>> stream = Stream(lstm)
    >>> x = torch.randn(5, 1, 4)
    >>> steps = torch.stack([stream(x_t) for x_t in x])
    >>> torch.equal(steps, lstm(x)[0])
    True
    """

    def __init__(self, model: nn.Module, batch_size: int | None = 1) -> None:
        if not isinstance(model, nn.Module):
            raise ArgumentError(f"model is a {type(model).__name__}, needed a torch.nn.Module with an LSTM in it")
        is_whole = isinstance(batch_size, int) and not isinstance(batch_size, bool) and batch_size > 0
        if batch_size is not None and not is_whole:
            raise ArgumentError(
                f"batch_size is {batch_size!r}, needed a whole number from 1 on, or None where there is no batch axis"
            )
        self.model, self.batch_size = model, batch_size
        # (A subclass may do more than its LSTM.)
        self._alone = type(model).forward in _ALONE
        if self._alone:
            self._steps = {"": Steps(model, batch_size, "lstm", alone=True)}
            return
        modules = dict(model.named_modules())
        other = [name for name, module in modules.items() if isinstance(module, (nn.RNN, nn.GRU, nn.RNNCellBase))]
        if other:
            raise ArgumentError(
                f"{other[0] or 'model'} is a {type(modules[other[0]]).__name__}, whose state a stream does not carry: "
                "it carries those of gatewise.LSTM and torch.nn.LSTM"
            )
        self._steps = {
            name: Steps(module, batch_size, name or "model", alone=False)
            for name, module in modules.items()
            if _is_lstm(module)
        }
        if not self._steps:
            raise ArgumentError(
                f"model is a {type(model).__name__} without an LSTM, needed at least one gatewise.LSTM or torch.nn.LSTM"
            )

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Take one step.

        Parameters
        ----------
        *args, **kwargs
            Of an LSTM or a cell: x, (B, I), or (I,) without a batch axis. Of a whole model: what the model takes, with
            one step along time.

        Returns
        -------
        Tensor
            Of an LSTM or a cell: the last layer's h (B, P), or (P,), in memory of its own. Of a whole model: what it
            gives.

        Raises
        ------
        ShapeError, DtypeError, KernelError
            The input does not fit, or a weight is no longer what it was when the stream was made.
        ArgumentError
            The input requires a gradient where these are recorded; autocast or a transform is on; the model is in
            training, or the LSTM is and has dropout; the LSTM has forward hooks. Of a model: an LSTM in it is called
            twice, with a state of its own, or with more than one step.

            Whatever is raised, the state stays as it was before the step.

        Examples
        --------
        >>> model = nn.Sequential(nn.Embedding(10, 4), LSTM(4, 3, batch_first=True)).eval()
        >>> stream = Stream(model)
        >>> for token in (3, 1, 4):
        ...     output, _ = stream(torch.tensor([[token]]))
        >>> torch.equal(output[0, 0], model(torch.tensor([[3, 1, 4]]))[0][0, 2])
        True
        """
        if self._alone:
            return self._steps[""].step(*args, **kwargs)
        return self._run(args, kwargs)

    @property
    def state(self) -> Any:
        """The state after the last step: copies of h (L, B, P) and c (L, B, H), or both without B.

        Of a whole model a dict of such pairs, by the LSTMs' names. c of a bfloat16 LSTM is float32. It can be set, to
        the same or to what an LSTM returned; what does not fit is refused (ShapeError, DtypeError, ArgumentError).

        Examples
        --------
        >>> lstm = LSTM(4, 3)
        >>> _, state = lstm(torch.randn(100, 1, 4))
        >>> stream = Stream(lstm)
        >>> stream.state = state
        >>> torch.equal(stream.state[1], state[1])
        True
        """
        states = {name: steps.state for name, steps in self._steps.items()}
        return states[""] if self._alone else states

    @state.setter
    def state(self, state: Any) -> None:
        if not self._alone and not isinstance(state, Mapping):
            raise ArgumentError(f"state is a {type(state).__name__}, needed a dict: of each LSTM's name, a pair (h, c)")
        self._set({"": state} if self._alone else state)

    def _set(self, states: Mapping[str, State]) -> None:
        if states.keys() != self._steps.keys():
            raise ArgumentError(f"state is of {sorted(states)}, needed those of all LSTMs: {sorted(self._steps)}")
        for name, steps in self._steps.items():
            steps.check(states[name])
        for name, steps in self._steps.items():
            steps.set_state(states[name])

    def reset(self, rows: Tensor | Sequence[int] | Sequence[bool] | None = None) -> None:
        """Begin anew: zero the state.

        Parameters
        ----------
        rows
            Which rows of the batch, as whole numbers or (B,) bool. Default: all.

        Raises
        ------
        ArgumentError, ShapeError, DtypeError
            There are no such rows, or no batch axis.

        Examples
        --------
        >>> stream = Stream(LSTM(4, 3), batch_size=2)
        >>> h = stream(torch.ones(2, 4))
        >>> stream.reset(rows=[1])
        >>> h, c = stream.state
        >>> c[0].count_nonzero(dim=-1)
        tensor([3, 0])
        """
        index = None if rows is None else as_rows(rows, self.batch_size)
        for steps in self._steps.values():
            steps.reset(index)

    def save(self, path: Path | str) -> None:
        """Write the state to a file, which is whole or the old one whenever the machine stops.

        Parameters
        ----------
        path : path
            It becomes a safetensors file with a checksum; one that exists is replaced.

        Raises
        ------
        RunError
            The file cannot be written: its folder is not there, is not ours to write to, or is full.
        """
        tensors = {
            f"{name}.{kind}".lstrip("."): state
            for name, steps in self._steps.items()
            for kind, state in zip(("h", "c"), steps.state, strict=True)
        }
        try:
            write_tensors(Path(path), tensors, {})
        except OSError as error:
            raise RunError(
                f"{path} cannot be written ({error.strerror or error}): make its folder, make room, or name another "
                "place"
            ) from error

    def restore(self, path: Path | str) -> None:
        """Go on from the state in a file.

        Parameters
        ----------
        path : path
            A file that `save` wrote.

        Raises
        ------
        RunError
            The file is missing, damaged, or of other LSTMs.
        ShapeError, DtypeError
            It is of other sizes, or of another dtype.

        Examples
        --------
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "state.safetensors"
        >>> stream, other = Stream(lstm := LSTM(4, 3)), Stream(lstm)
        >>> h = stream(torch.ones(1, 4))
        >>> stream.save(path)
        >>> other.restore(path)
        >>> torch.equal(other(torch.ones(1, 4)), stream(torch.ones(1, 4)))
        True
        """
        tensors, _ = read_tensors(Path(path), again="save a stream there")
        needed = [f"{name}.{kind}".lstrip(".") for name in self._steps for kind in ("h", "c")]
        if tensors.keys() != set(needed):
            raise RunError(f"{path} holds {sorted(tensors)}, needed the state of this stream: {sorted(needed)}")
        pairs = zip(needed[::2], needed[1::2], strict=True)
        self._set({name: (tensors[h], tensors[c]) for name, (h, c) in zip(self._steps, pairs, strict=True)})

    def __reduce__(self) -> NoReturn:
        """Refuse to be copied or pickled: what the steps are taken with lives in this process, beside its model."""
        raise ArgumentError(
            "a Stream is neither copied nor pickled: make another Stream of the model, or of its copy, and set its "
            "state, or save and restore it"
        )

    def _run(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Take one step of a whole model."""
        if self.model.training:
            raise ArgumentError("model is in training, where modules may drop and average: call model.eval() first")
        if torch.is_grad_enabled() and any(
            isinstance(arg, Tensor) and arg.requires_grad for arg in (*args, *kwargs.values())
        ):
            raise ArgumentError(
                "input requires a gradient, and a stream keeps none: give input.detach(), or call it under "
                "torch.no_grad(), or call the model itself"
            )
        before = {name: steps.state for name, steps in self._steps.items()}
        called: set[str] = set()

        def stepping(name: str, module: nn.Module, forward: Any) -> Any:
            steps = self._steps.get(name)
            if steps is None or steps.module is not module:
                raise ArgumentError(f"{name or 'model'} is an LSTM that was not in the model before: make a new Stream")

            def stepped(input: Any, hx: Any = None, **others: Any) -> tuple[Tensor, State]:
                if name in called:
                    raise ArgumentError(f"{steps.name} is called twice in a step, and a stream keeps one state for it")
                called.add(name)
                return _step_of_sequence(steps, input, hx, others)

            return stepped

        try:
            with torch.no_grad(), swapped(self.model, _is_lstm, stepping):
                return self.model(*args, **kwargs)
        except BaseException:
            self._set(before)
            raise


def _is_lstm(module: nn.Module) -> bool:
    return isinstance(module, (LSTM, nn.LSTM))


def _step_of_sequence(steps: Steps, input: Any, hx: Any, others: dict[str, Any]) -> tuple[Tensor, State]:
    """What an LSTM's forward returns for a sequence of one step."""
    given = ["hx"] * (hx is not None) + [name for name, value in others.items() if value is not None]
    if given:
        raise ArgumentError(f"{steps.name} is called with {given[0]}, and its state is the stream's: leave it out")
    batched = steps.batch_size is not None
    time = 1 if batched and steps.module.batch_first else 0
    axes = ("B", "T", "I") if time else ("T", "B", "I") if batched else ("T", "I")
    if not isinstance(input, Tensor) or input.dim() != len(axes) or input.size(time) != 1:
        what = f"of shape {tuple(input.shape)}" if isinstance(input, Tensor) else f"a {type(input).__name__}"
        needed = f"({', '.join(axes)}), T = 1"
        raise ShapeError(f"{steps.name} is given an input {what}, needed one step at a time: {needed}")
    h = steps.step(input.squeeze(time))
    h_n, c_n = steps.state
    return h.unsqueeze(time), (h_n, c_n.to(h.dtype))
