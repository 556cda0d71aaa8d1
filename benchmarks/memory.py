"""Measure the peak resident memory and the time of a training step of gatewise.LSTM and of torch.nn.LSTM.

A step is forward and backward with gradients to all parameters, the input and the initial states. Module, input, states
and the gradient of the output are there and touched before it; what is printed is by how much the process grows beyond
them at its peak: what the step keeps for backward, the gradients and all scratch memory. Each runs its steps in a fresh
process, after a tiny one that loads what is loaded late: gatewise as it is, gatewise with checkpoint_every, and torch.
How busy the machine is matters to the times only, which are the least of some steps.

    python benchmarks/memory.py                                    (B,T,I,H,L = 8,10000,64,256,1)
    python benchmarks/memory.py --steps 100000                     (ten times as long; torch needs about 13 GiB)
    python benchmarks/memory.py --size 64,512,128,128,2 --threads 2
"""

import argparse
import json
import resource
import subprocess
import sys
import time

from gatewise.bench.grid import Size, read_sizes
from gatewise.bench.options import at_least
from gatewise.errors import ArgumentError, GatewiseError

NAMES = ("gatewise", "segments", "torch")
UNIT = 1 if sys.platform == "darwin" else 1024
"""Bytes in which the system counts resident memory."""


def peak() -> float:
    """MiB that this process has had at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * UNIT / 2**20


def one_step(name: str, size: Size, threads: int | None, every: int, repeats: int) -> dict[str, float]:
    """MiB before and after a step, in this process, and the least of the seconds that it and its repeats take."""
    # Here and no earlier: a process starts with its parent's peak, which torch would make larger than what is measured.
    import torch

    import gatewise

    module = torch.nn.LSTM if name == "torch" else gatewise.LSTM
    segments = {"checkpoint_every": every} if name == "segments" else {}
    torch.set_num_threads(threads or torch.get_num_threads())

    def make(size):
        B, T, I, H, L, D = size
        torch.manual_seed(0)
        lstm = module(I, H, num_layers=L, bidirectional=D == 2, **segments)
        x, h_0, c_0 = (torch.randn(s, requires_grad=True) for s in ((T, B, I), (L * D, B, H), (L * D, B, H)))
        return lstm, x, (h_0, c_0), torch.randn(T, B, D * H)

    def step(lstm, x, state, d_output):
        lstm(x, state)[0].backward(d_output)
        return x, *state, *lstm.parameters()

    step(*make(Size(1, 1, 1, 1, 1, 1)))
    given = make(size)
    before = peak()
    start = time.perf_counter()
    leaves = step(*given)
    seconds = [time.perf_counter() - start]
    after = peak()
    for _ in range(repeats):
        start = time.perf_counter()
        step(*given)
        seconds.append(time.perf_counter() - start)
    if not all(leaf.grad.isfinite().all() for leaf in leaves):
        raise ArithmeticError(f"{name} gave a gradient that is no number")
    return {"before": before, "after": after, "seconds": min(seconds)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="8,10000,64,256,1", help="B,T,I,H,L or B,T,I,H,L,D (default: %(default)s)")
    parser.add_argument("--steps", type=at_least(1), metavar="T", help="another T for the size")
    parser.add_argument("--threads", type=at_least(1), help="default: as many as torch finds")
    parser.add_argument("--every", type=at_least(1), default=100, help="steps of a segment (default: 100)")
    parser.add_argument(
        "--repeats", type=at_least(0), default=2, help="steps that are timed beside the first (default: 2)"
    )
    parser.add_argument("--only", choices=NAMES, help="measure this one in this process, and print its MiB as JSON")
    options = parser.parse_args()
    sizes = read_sizes([options.size])
    if len(sizes) != 1:
        raise ArgumentError(f"size is {options.size}, needed is one: give B,T,I,H,L")
    size = sizes[0] if options.steps is None else sizes[0]._replace(T=options.steps)
    if options.only:
        print(json.dumps(one_step(options.only, size, options.threads, options.every, options.repeats)))
        return
    words = [sys.executable, *sys.argv]
    found = {}
    for name in NAMES:
        child = subprocess.run([*words, "--only", name], stdout=subprocess.PIPE)
        if child.returncode:
            sys.exit(f"memory: {name}'s process ended with status {child.returncode} (-9: memory ran out, mostly)")
        found[name] = json.loads(child.stdout)

    from gatewise.bench.machine import describe

    for line in describe().lines():
        print(line)
    print(f"a training step at (B, T, I, H, L, D) = {size}, float32: MiB of resident memory")
    print(f"(segments: gatewise with checkpoint_every={options.every})")
    print(f"{'':9} {'before':>10} {'peak':>10} {'the step':>10} {'of torch':>10} {'seconds':>10} {'of gatewise':>12}")
    steps = {name: mib["after"] - mib["before"] for name, mib in found.items()}
    for name, mib in found.items():
        share = f"{steps[name] / steps['torch']:10.2f}" if steps["torch"] else f"{'n/a':>10}"
        time_share = mib["seconds"] / found["gatewise"]["seconds"]
        print(f"{name:9} {mib['before']:10.1f} {mib['after']:10.1f} {steps[name]:10.1f} {share}", end="")
        print(f" {mib['seconds']:10.2f} {time_share:12.2f}")


if __name__ == "__main__":
    try:
        main()
    except GatewiseError as error:
        sys.exit(f"memory: {error}")
