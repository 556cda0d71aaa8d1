"""Other code in place of some modules' forward while a block runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from inspect import signature
from types import MethodType
from typing import Any

import torch
from torch import nn

from gatewise.errors import ArgumentError
from gatewise.nn import LSTM

_KNOWN = (LSTM.forward, nn.LSTM.forward, nn.GRU.forward, nn.RNN.forward)


@contextmanager
def swapped(
    model: nn.Module,
    which: Callable[[nn.Module], bool],
    instead: Callable[[str, nn.Module, Callable[..., Any]], Callable[..., Any]],
) -> Iterator[None]:
    """Give modules anywhere inside a model another forward, and their own back at the block's end.

    Parameters
    ----------
    model
        The model.
    which
        Tells whether a module is meant.
    instead
        Makes the other forward from the module's name in the model, the module and its own forward.

    Raises
    ------
    ArgumentError
        It is no module, or was compiled (torch.compile does not run its modules' own code), or one that is meant has a
        forward that is not its class's own in torch or gatewise: it would be left out.

    Examples
    --------
    >>> gru = nn.GRU(2, 2)
    >>> with swapped(gru, lambda module: True, lambda name, module, forward: lambda x: x + 1):
    ...     gru(torch.zeros(1))
    tensor([1.])
    """
    if not isinstance(model, nn.Module):
        raise ArgumentError(f"model is a {type(model).__name__}, needed a torch.nn.Module")
    compiled = [
        module
        for module in model.modules()
        if isinstance(module, torch._dynamo.eval_frame.OptimizedModule) or module._compiled_call_impl is not None
    ]
    if compiled:
        raise ArgumentError("model was compiled, and what its modules do is not to be seen: give the one it is made of")
    found = {name: module for name, module in model.named_modules() if which(module)}
    for name, module in found.items():
        if not _as_its_class_has_it(module):
            raise ArgumentError(
                f"{name or 'model'} is a {type(module).__name__} whose forward is not torch's or gatewise's own, or is "
                "being recorded already: give a model without, or end that first"
            )
    try:
        for name, module in found.items():
            module.__dict__["forward"] = _Instead(module, instead(name, module, module.forward))
        yield
    finally:
        for module in found.values():
            other = module.__dict__.pop("forward", None)
            if isinstance(other, _Instead):
                other.end()


class _Instead:
    """The other forward of a module, which is its alone: a deep copy or a file of it has its class's own.

    A shallow copy, which has the very weights of the module, has this one too: at the block's end it becomes the own.
    """

    def __init__(self, module: nn.Module, call: Callable[..., Any]) -> None:
        self._module = module
        self._own = module.forward
        self._call = call

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return self._call(*args, **kwargs)
        except TypeError:
            signature(self._own).bind(*args, **kwargs)  # what does not fit is refused as the module itself would
            raise

    def end(self) -> None:
        self._call = self._own

    def __reduce__(self) -> tuple[Any, ...]:
        return getattr, (self._module, "forward")  # of a module that is being made, and has nothing of its own yet


def _as_its_class_has_it(module: nn.Module) -> bool:
    """Whether a module's forward is torch's or gatewise's own."""
    own = module.__dict__.get("forward")  # what a copy that was made while the module was watched has there is the same
    same = own is None or (isinstance(own, MethodType) and own == MethodType(type(module).forward, module))
    return same and type(module).forward in _KNOWN
