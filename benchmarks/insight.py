"""Time what it costs to look inside: a trace beside a training forward, a gradient flow beside a training step.

`gatewise.trace` with all of i, f, g, o and c read; `gatewise.gradient_flow` with a loss that reads the last step, with
one that reads all, and with the horizon asked for too (for which the last reading is followed by itself). Beside them
the same module's forward pass in training and its whole step: zero_grad, forward, backward, Adam's fused step. They
take turns; the ratios are medians of the rounds' own. Before that, the trace's output is held against the module's,
and the flow's first gradient against autograd's.

    python benchmarks/insight.py [--size 64,100,128,128] [--rounds 20] [--threads 2]
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable

import torch

import gatewise
from gatewise.bench.options import at_least


def sizes(word: str) -> tuple[int, int, int, int]:
    try:
        B, T, I, H = (int(number) for number in word.split(","))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{word!r} is no size, needed is B,T,I,H such as 64,100,128,128") from error
    return B, T, I, H


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=sizes, default=(64, 100, 128, 128), help="B,T,I,H (default: 64,100,128,128)")
    parser.add_argument("--rounds", type=at_least(2), default=20, help="of each (default: 20)")
    parser.add_argument("--threads", type=at_least(1), default=2, help="default: 2")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    B, T, I, H = options.size
    lstm = gatewise.LSTM(I, H)
    x = torch.randn(T, B, I)
    optimizer = torch.optim.Adam(lstm.parameters(), fused=True)

    def last(returned: tuple[torch.Tensor, object]) -> torch.Tensor:
        return returned[0][-1].sum()

    def every(returned: tuple[torch.Tensor, object]) -> torch.Tensor:
        return returned[0].sum()

    def trace() -> None:
        found = gatewise.trace(lstm, x).layers[0]
        _ = found.i, found.f, found.g, found.o, found.c

    def step() -> None:
        optimizer.zero_grad()
        last(lstm(x)).backward()
        optimizer.step()

    if not torch.equal(gatewise.trace(lstm, x).output[0], lstm(x)[0]):
        sys.exit("insight: the trace's output is not the module's")
    begun = torch.zeros(1, B, H), torch.zeros(1, B, H, requires_grad=True)
    (d_c_0,) = torch.autograd.grad(last(lstm(x, begun)), [begun[1]])
    flow = gatewise.gradient_flow(lstm, x, last).layers[0]
    error = (flow.keeps[0] * flow.d_c[0] - d_c_0[0]).abs().max() / d_c_0.abs().max()  # (2.7)
    if error > 1e-4:
        sys.exit(f"insight: the flow's first gradient is off by {error:.1e}, relative")

    of: dict[str, Callable[[], object]] = {
        "training forward": lambda: lstm(x),
        "trace": trace,
        "training step": step,
        "gradient flow, last step": lambda: gatewise.gradient_flow(lstm, x, last),
        "gradient flow, all steps": lambda: gatewise.gradient_flow(lstm, x, every),
        "all steps, and horizon": lambda: gatewise.gradient_flow(lstm, x, every).layers[0].horizon(),
    }
    milliseconds: dict[str, list[float]] = {name: [] for name in of}
    for _ in range(options.rounds):
        for name, function in of.items():
            start = time.perf_counter()
            function()
            milliseconds[name].append(1e3 * (time.perf_counter() - start))
    print(f"(B, T, I, H) = {options.size}, {options.threads} threads, {options.rounds} rounds")
    for name, values in milliseconds.items():
        beside = "training forward" if name == "trace" else "training step"
        ratio = statistics.median(v / b for v, b in zip(values, milliseconds[beside], strict=True))
        print(f"{name:<26}{statistics.median(values):8.1f} ms", end="")
        print(f"   {ratio:.2f} of the {beside}" if name not in (beside, "training forward") else "")


if __name__ == "__main__":
    main()
