"""JAX: lax.scan over the steps, jitted."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gatewise.bench.peers import Call, Peer, Results
from gatewise.bench.work import Work

THREAD_VARIABLES = ("NPROC", "PJRT_NPROC")
"""The former is XLA's older name for the latter."""


class Jax(Peer):
    """JAX on the CPU, in float32: the input's product for all steps at once, then a scan; gradients by jax.vjp."""

    name = "jax"
    what = "JAX, lax.scan, jitted and compiled before; keeps the number of threads of its first use in a process"
    compiles = True

    def missing(self) -> str:
        """Need jax."""
        return "" if find_spec("jax") is not None else "not installed (pip install jax)"

    def version(self) -> str:
        """Tell JAX's."""
        return str(import_module("jax").__version__)

    def calls(self, work: Work) -> Mapping[str, Call]:
        """Make the calls ``forward`` and ``training``; their first run compiles."""
        jax, jnp = import_module("jax"), import_module("jax.numpy")
        with _asked_for_threads(torch.get_num_threads()):
            cpu = jax.devices("cpu")[0]
        _, _, _, _, L, D = work.size
        names = [name for name, _ in work.lstm.named_parameters()]

        def put(t: Tensor) -> Any:
            return jax.device_put(t.detach().numpy(), cpu)

        def layer(x: Any, h_0: Any, c_0: Any, weights: Any, reverse: bool) -> Any:
            weight_ih, weight_hh, bias_ih, bias_hh = weights

            def step(state: Any, a_x: Any) -> Any:
                h, c = state
                i, f, g, o = jnp.split(a_x + h @ weight_hh.T, 4, axis=-1)
                c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
                h = jax.nn.sigmoid(o) * jnp.tanh(c)
                return (h, c), h

            return jax.lax.scan(step, (h_0, c_0), x @ weight_ih.T + (bias_ih + bias_hh), reverse=reverse)

        def network(x: Any, h_0: Any, c_0: Any, weights: Any) -> Any:
            finals = []
            for k in range(L):
                outputs = []
                for d in range(D):
                    at = k * D + d
                    final, output = layer(x, h_0[at], c_0[at], weights[4 * at : 4 * at + 4], d == 1)
                    outputs.append(output)
                    finals.append(final)
                x = jnp.concatenate(outputs, axis=-1)
            return x, jnp.stack([h for h, _ in finals]), jnp.stack([c for _, c in finals])

        def train(d_output: Any, *inputs: Any) -> Any:
            output, back = jax.vjp(lambda *given: network(*given)[0], *inputs)
            return output, back(d_output)

        inputs = (put(work.x), put(work.h_0), put(work.c_0), [put(w) for w in work.lstm.parameters()])
        d_output = put(work.d_output)
        forward, training = jax.jit(network), jax.jit(train)

        def forward_results(returned: Any) -> Results:
            return dict(zip(("output", "h_n", "c_n"), map(_tensor, returned), strict=True))

        def gradients(returned: Any) -> Results:
            output, (*d_inputs, d_weights) = returned
            labels = ("output", "d_x", "d_h_0", "d_c_0", *(f"d_{name}" for name in names))
            return dict(zip(labels, map(_tensor, (output, *d_inputs, *d_weights)), strict=True))

        return {
            "forward": Call(lambda: jax.block_until_ready(forward(*inputs)), forward_results),
            "training": Call(lambda: jax.block_until_ready(training(d_output, *inputs)), gradients),
        }


@contextmanager
def _asked_for_threads(threads: int) -> Iterator[None]:
    """Ask for a number of threads, which JAX reads from the environment once, when its devices are first listed."""
    before = {name: os.environ.get(name) for name in THREAD_VARIABLES}
    os.environ.update((name, str(threads)) for name, value in before.items() if value is None)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]


def _tensor(array: Any) -> Tensor:
    return torch.from_numpy(np.array(array))
