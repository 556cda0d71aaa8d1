"""Everything that a training is, as named tensors and JSON; and back, so that it goes on bit for bit."""

import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gatewise.errors import RunError

Tensors = dict[str, Tensor]


def under(prefix: str, tensors: Mapping[str, Tensor]) -> Tensors:
    """The same tensors, each name with the prefix and a point before it."""
    return {f"{prefix}.{name}": tensor for name, tensor in tensors.items()}


def of(prefix: str, tensors: Mapping[str, Tensor]) -> Tensors:
    """The tensors below a prefix, by the rest of their names.

    Examples
    --------
    >>> of("model", under("model", {"weight": torch.ones(1)}))
    {'weight': tensor([1.])}
    """
    return {name[len(prefix) + 1 :]: tensor for name, tensor in tensors.items() if name.startswith(f"{prefix}.")}


def optimizer_state(optimizer: torch.optim.Optimizer) -> tuple[Tensors, list[dict[str, Any]]]:
    """An optimizer's moments and its settings.

    Returns
    -------
    tensors : dict of str to tensor
        Named by the place of the parameter and what it is, such as "3.exp_avg".
    groups : list of dict
        The settings of each group of parameters, as JSON knows them.

    Examples
    --------
    >>> weight = torch.ones(1, requires_grad=True)
    >>> adam = torch.optim.Adam([weight], lr=0.5)
    >>> weight.sum().backward()
    >>> adam.step()
    >>> tensors, groups = optimizer_state(adam)
    >>> sorted(tensors), groups[0]["lr"]
    (['0.exp_avg', '0.exp_avg_sq', '0.step'], 0.5)
    """
    state = optimizer.state_dict()
    tensors = {}
    for place, values in state["state"].items():
        for name, value in values.items():
            if value is not None:
                tensors[f"{place}.{name}"] = value
    return tensors, state["param_groups"]


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Tensors, groups: list[dict[str, Any]]) -> None:
    """Put back what `optimizer_state` gave."""
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        place, _, rest = name.partition(".")
        state.setdefault(int(place), {})[rest] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def random_state(generators: Mapping[str, torch.Generator]) -> Tensors:
    """The state of every generator of random numbers: torch's, NumPy's, Python's, and some of one's own.

    Parameters
    ----------
    generators : mapping of str to Generator
        One's own.

    Returns
    -------
    dict of str to tensor
        For `restore_random`.

    Examples
    --------
    >>> kept = random_state({})
    >>> first = torch.rand(1), np.random.rand(), random.random()
    >>> restore_random(kept, {})
    >>> (torch.rand(1), np.random.rand(), random.random()) == first
    True
    """
    _, keys, position, has_gauss, gauss = np.random.get_state(legacy=True)  # noqa: NPY002
    _, words, gauss_next = random.getstate()
    tensors = {
        "torch": torch.get_rng_state(),
        "numpy.keys": torch.from_numpy(np.array(keys, dtype=np.int64)),
        "numpy.position": torch.tensor([position, has_gauss]),
        "numpy.gauss": torch.tensor(gauss, dtype=torch.float64),
        "python.words": torch.tensor(words, dtype=torch.int64),
        "python.gauss": torch.tensor([] if gauss_next is None else [gauss_next], dtype=torch.float64),
    }
    for device in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        tensors[f"cuda.{device}"] = torch.cuda.get_rng_state(device)
    return tensors | {f"own.{name}": generator.get_state() for name, generator in generators.items()}


def restore_random(tensors: Tensors, generators: Mapping[str, torch.Generator]) -> None:
    """Put back what `random_state` gave.

    Raises
    ------
    RunError
        The state is of more GPUs than there are here.
    """
    torch.set_rng_state(tensors["torch"])
    position, has_gauss = tensors["numpy.position"].tolist()
    keys = tensors["numpy.keys"].numpy().astype(np.uint32)
    np.random.set_state(("MT19937", keys, position, has_gauss, tensors["numpy.gauss"].item()))  # noqa: NPY002
    gauss = tensors["python.gauss"].tolist()
    random.setstate((3, tuple(tensors["python.words"].tolist()), gauss[0] if gauss else None))
    for name, state in of("cuda", tensors).items():
        if int(name) >= torch.cuda.device_count():
            raise RunError(f"the run had {int(name) + 1} GPUs, here are {torch.cuda.device_count()}: resume it there")
        torch.cuda.set_rng_state(state, int(name))
    for name, generator in generators.items():
        generator.set_state(tensors[f"own.{name}"])


def fill_weights(model: nn.Module, tensors: Mapping[str, Tensor], source: object) -> None:
    """Put weights into a model.

    Parameters
    ----------
    model : Module
        Changed in place.
    tensors : mapping of str to tensor
        A tensor for each of the model's, of the same shape.
    source : object
        Where they come from, for messages.

    Raises
    ------
    RunError
        A name or a shape is another than the model's.

    Examples
    --------
    >>> fill_weights(nn.Linear(2, 1), {"weight": torch.ones(1, 3), "bias": torch.ones(1)}, "best.safetensors")
    Traceback (most recent call last):
    gatewise.errors.RunError: best.safetensors: weight has shape (1, 3), needed is shape (1, 2): take the model's own
    """
    own = model.state_dict()
    for name in sorted(own.keys() | tensors.keys()):
        given = f"has shape {tuple(tensors[name].shape)}" if name in tensors else "is missing"
        needed = f"shape {tuple(own[name].shape)}" if name in own else "none, as the model has no such weight"
        if given != f"has {needed}":
            raise RunError(f"{source}: {name} {given}, needed is {needed}: take the model's own")
    model.load_state_dict(dict(tensors))
