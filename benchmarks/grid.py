"""Time gatewise.LSTM beside torch.nn.LSTM over a grid of sizes, in one process.

Both get the same weights and input; outputs and gradients are compared before anything is timed. The two are
interleaved call by call, and medians are given with their quartiles: on a shared machine only the ratio within one
run means something.

    python benchmarks/grid.py [--repeats 21] [--threads 2] [--only training] [--json FILE]
"""

import argparse
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable

import torch

import gatewise
from gatewise import kernels

# B, T, I, H, L, directions
GRID = [
    (8, 20, 32, 32, 1, 1),
    (8, 35, 32, 32, 1, 1),
    (64, 10, 1, 64, 2, 1),
    (64, 28, 28, 100, 2, 1),
    (100, 28, 28, 128, 2, 1),
    (64, 28, 28, 100, 2, 2),
    (1, 1, 128, 128, 1, 1),
    (1, 100, 128, 128, 1, 1),
    (256, 50, 64, 64, 1, 1),
    (64, 512, 128, 128, 1, 1),
    (32, 100, 256, 256, 1, 1),
    (16, 1000, 64, 256, 2, 1),
    (64, 100, 512, 512, 1, 1),
    (8, 200, 1024, 1024, 1, 1),
]

Call = Callable[[], list[torch.Tensor]]


def calls(lstm: torch.nn.RNNBase, size: tuple[int, ...]) -> dict[str, Call]:
    """Forward alone, and forward plus backward with gradients to input, states and all parameters."""
    B, T, I, H, L, D = size
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(T, B, I, generator=draw)
    state = [torch.randn(L * D, B, H, generator=draw) for _ in "hc"]
    d_output = torch.randn(T, B, D * H, generator=draw)
    leaves = [t.clone().requires_grad_() for t in (x, *state)]
    parameters = list(lstm.parameters())

    def forward() -> list[torch.Tensor]:
        with torch.no_grad():
            output, (h_n, c_n) = lstm(x, (state[0], state[1]))
        return [output, h_n, c_n]

    def training() -> list[torch.Tensor]:
        for leaf in (*leaves, *parameters):
            leaf.grad = None
        output, _ = lstm(leaves[0], (leaves[1], leaves[2]))
        output.backward(d_output)
        return [leaf.grad for leaf in (*leaves, *parameters)]

    return {"forward": forward, "training": training}


def validate(peers: dict[str, dict[str, Call]], kind: str, size: tuple[int, ...]) -> None:
    """Stop unless all peers agree: float32 sums of this length differ by far less than 1e-4 of the largest value."""
    expected, *others = [peer[kind]() for peer in peers.values()]
    for other in others:
        for a, b in zip(expected, other, strict=True):
            error = float((a - b).abs().max() / a.abs().max().clamp_min(1e-30))
            if not error < 1e-4:
                sys.exit(f"{kind} at {size}: the peers differ by {error:.1e}; nothing was timed")


def measure(peers: dict[str, Call], repeats: int) -> dict[str, list[float]]:
    """Milliseconds per call, in turns of at least 20 ms: a cheap call is one of many, as in a training."""
    for call in peers.values():
        call()
    start = time.perf_counter()
    for call in peers.values():
        call()
    inner = max(1, int(0.02 * len(peers) / (time.perf_counter() - start)))
    times: dict[str, list[float]] = {name: [] for name in peers}
    for _ in range(repeats):
        for name, call in peers.items():
            start = time.perf_counter()
            for _ in range(inner):
                call()
            times[name].append((time.perf_counter() - start) / inner * 1e3)
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=21)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--only", choices=["forward", "training"])
    parser.add_argument("--rows", help="comma-separated rows of the grid, counted from 0; all of them by default")
    parser.add_argument("--json", help="also write all times to this file")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(
        f"torch {torch.__version__}, {options.threads} threads, instruction set {kernels.instruction_set()} "
        f"(torch: {torch.backends.cpu.get_cpu_capability()}), {platform.machine()}"
    )
    print(f"{'':8} {'(B, T, I, H, L, D)':26} {'torch ms':>18} {'gatewise ms':>20} {'ratio':>7}")
    results = []
    rows = [int(r) for r in options.rows.split(",")] if options.rows else range(len(GRID))
    for size in (GRID[r] for r in rows):
        _, _, I, H, L, D = size
        torch.manual_seed(0)
        theirs = torch.nn.LSTM(I, H, L, bidirectional=D == 2)
        ours = gatewise.LSTM(I, H, L, bidirectional=D == 2)
        ours.load_state_dict(theirs.state_dict())
        peers = {"torch": calls(theirs, size), "gatewise": calls(ours, size)}
        for kind in ("forward", "training"):
            if options.only not in (None, kind):
                continue
            validate(peers, kind, size)
            times = measure({name: peer[kind] for name, peer in peers.items()}, options.repeats)
            medians = {name: statistics.median(t) for name, t in times.items()}
            quartiles = {name: statistics.quantiles(t, n=4) for name, t in times.items()}
            spread = {name: f"±{(q[2] - q[0]) / 2 / medians[name]:4.0%}" for name, q in quartiles.items()}
            print(
                f"{kind:8} {size!s:26} {medians['torch']:11.3f} {spread['torch']:>6} {medians['gatewise']:13.3f} "
                f"{spread['gatewise']:>6} {medians['torch'] / medians['gatewise']:6.2f}x",
                flush=True,
            )
            results.append({"kind": kind, "size": size, "milliseconds": times})
    if options.json:
        with open(options.json, "w") as file:
            json.dump(results, file)


if __name__ == "__main__":
    main()
