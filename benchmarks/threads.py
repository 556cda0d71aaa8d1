"""Show what a second thread brings, and whether torch's threads and gatewise's disturb each other.

First the time with one thread over the time with more, forward and training, gatewise and torch, all in turns, with
torch.set_num_threads between the turns. Results are compared before they are timed. Medians.

Then a training step as a model has it: an LSTM, Linear, LayerNorm, ReLU, Linear, cross-entropy at each step, and a
fused Adam. The whole step takes turns with its parts alone: the LSTM, what stands on it, Adam, each with the numbers
that it has in the whole. Where two pools of threads fight for the cores, one still spinning while the other begins, the
whole takes longer than its parts together. The same with torch.nn.LSTM, all of whose threads are of one pool, shows
what else there is: caches that the parts leave warm for themselves.

    python benchmarks/threads.py
    python benchmarks/threads.py --sizes 5 64,100,512,512,1 --threads 2      (rows of gatewise bench, or B,T,I,H,L)
    python benchmarks/threads.py --quick                                     (shows that it works, not how fast it is)
"""

import argparse
import re
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

import gatewise
from gatewise.bench.config import KINDS
from gatewise.bench.grid import Size, read_sizes
from gatewise.bench.machine import describe
from gatewise.bench.options import at_least
from gatewise.bench.pair import compared
from gatewise.bench.probe import fork_join
from gatewise.bench.timing import measure
from gatewise.errors import GatewiseError

SIZES = ("64,100,512,512,1", "100,28,28,128,2")
QUICK = ("8,20,32,32,1",)
CLASSES = 10
LSTMS = {"gatewise": gatewise.LSTM, "torch": nn.LSTM}
PARTS = ("lstm", "head", "adam")


def pools() -> str:
    """Name the OpenMP libraries of this process: with one, torch and gatewise share their threads."""
    maps = Path("/proc/self/maps")
    if not maps.exists():
        return "unknown"
    paths = set(re.findall(r"/.*/lib(?:gomp|omp|iomp5)\b[^/\n]*$", maps.read_text(), flags=re.MULTILINE))
    return ", ".join(sorted(Path(path).name for path in paths)) or "none"


def speedups(size: Size, threads: int, repeats: int, turn: float) -> None:
    calls = {
        (peer, kind, count): call
        for kind in KINDS
        for peer, call in compared(size, kind).items()
        for count in (1, threads)
    }
    times = measure(calls, repeats, turn, seconds=30, prepare=lambda name: torch.set_num_threads(name[2]))
    print(f"\n{size}: one thread over {threads}")
    for kind in KINDS:
        for peer in LSTMS:
            alone, shared = (times[peer, kind, count] for count in (1, threads))
            print(
                f"  {kind:9} {peer:9} {alone.median:10.3f} ms ±{alone.spread:4.0%} over {shared.median:10.3f} ms "
                f"±{shared.spread:4.0%}: {alone.ratio(shared):.2f}x"
            )


def step_and_parts(size: Size, lstm: nn.RNNBase) -> dict[str, Callable[[], object]]:
    """Make a training step and its parts, with weights of their own each, all drawn alike."""
    B, T, I, H, _, D = size
    torch.manual_seed(0)
    x, target = torch.randn(T, B, I), torch.randint(CLASSES, (T * B,))
    head = nn.Sequential(nn.Linear(D * H, H), nn.LayerNorm(H), nn.ReLU(), nn.Linear(H, CLASSES))
    parameters = [*lstm.parameters(), *head.parameters()]
    adam = torch.optim.Adam(parameters, lr=1e-4, fused=True)

    def loss_of(output):
        return nn.functional.cross_entropy(head(output).flatten(0, 1), target)

    def clear(leaves):
        for leaf in leaves:
            leaf.grad = None

    def whole():
        adam.zero_grad()
        loss_of(lstm(x)[0]).backward()
        adam.step()

    leaf = lstm(x)[0].detach().requires_grad_()
    loss_of(leaf).backward()
    d_output = leaf.grad.clone()

    def lstm_alone():
        clear(lstm.parameters())
        lstm(x)[0].backward(d_output)

    def head_alone():
        clear((leaf, *head.parameters()))
        loss_of(leaf).backward()

    lstm_alone()
    return {"whole": whole, "lstm": lstm_alone, "head": head_alone, "adam": adam.step}


def loops(size: Size, repeats: int, turn: float) -> None:
    """Time a step and its parts for both LSTMs, and print the whole over the sum."""
    torch.manual_seed(0)
    weights = nn.LSTM(size.I, size.H, num_layers=size.L, bidirectional=size.D == 2).state_dict()
    calls = {}
    for peer, make in LSTMS.items():
        lstm = make(size.I, size.H, num_layers=size.L, bidirectional=size.D == 2)
        lstm.load_state_dict(weights)
        calls |= {(peer, part): call for part, call in step_and_parts(size, lstm).items()}
    for call in calls.values():
        call()
    times = measure(calls, repeats, turn, seconds=60)
    print(f"\n{size}: a training step over the sum of its parts alone, {torch.get_num_threads()} threads")
    for peer in LSTMS:
        whole = times[peer, "whole"].median
        parts = {part: times[peer, part].median for part in PARTS}
        shown = " + ".join(f"{part} {t:.3f}" for part, t in parts.items())
        total = sum(parts.values())
        print(f"  {peer:9} {whole:10.3f} ms over {shown} = {total:.3f} ms: {whole / total:.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", help=f"rows of the grid or B,T,I,H,L (default: {' '.join(SIZES)})")
    parser.add_argument("--threads", type=at_least(2), default=2, help="the number beside 1 (default: %(default)s)")
    parser.add_argument("--repeats", type=at_least(1), help="turns of each (default: 21, quick 3)")
    parser.add_argument("--quick", action="store_true", help="a small size, turns of 2 ms in place of 20")
    options = parser.parse_args()
    sizes, repeats, turn = (QUICK, 3, 0.002) if options.quick else (SIZES, 21, 0.02)
    sizes, repeats = read_sizes(options.sizes or sizes), options.repeats or repeats
    torch.set_num_threads(options.threads)
    for line in describe().lines():
        print(line)
    print(f"fork-join {fork_join() * 1e6:.1f} µs; OpenMP: {pools()}")
    for size in sizes:
        speedups(size, options.threads, repeats, turn)
    torch.set_num_threads(options.threads)
    for size in sizes:
        loops(size, repeats, turn)


if __name__ == "__main__":
    try:
        main()
    except GatewiseError as error:
        sys.exit(f"threads: {error}")
