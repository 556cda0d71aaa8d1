"""Other code in place of some modules' forward while a block runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from gatewise.errors import ArgumentError


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
        The model was compiled: torch.compile does not run its modules' own code.

    Examples
    --------
    >>> layer = nn.Linear(2, 2)
    >>> with swapped(layer, lambda module: True, lambda name, module, forward: lambda x: x + 1):
    ...     layer(torch.zeros(1))
    tensor([1.])
    """
    compiled = [
        module
        for module in model.modules()
        if isinstance(module, torch._dynamo.eval_frame.OptimizedModule) or module._compiled_call_impl is not None
    ]
    if compiled:
        raise ArgumentError("model was compiled, and what its modules do is not to be seen: give the one it is made of")
    found = {name: module for name, module in model.named_modules() if which(module)}
    before = {name: module.__dict__.get("forward") for name, module in found.items()}
    try:
        for name, module in found.items():
            module.__dict__["forward"] = instead(name, module, module.forward)
        yield
    finally:
        for name, module in found.items():
            if before[name] is None:
                module.__dict__.pop("forward", None)
            else:
                module.__dict__["forward"] = before[name]
