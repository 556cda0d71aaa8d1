"""Time one step of an LSTM from Python: gatewise.Stream, beside what there is without it.

Each takes one step after another from its own last state, without gradients: torch.nn.LSTM and gatewise.LSTM called
with a sequence of one step, torch.nn.LSTMCell, and a stream. Before that all take the same twenty steps: the stream's
must be those of gatewise.LSTM over the sequence bit for bit, and the others' agree to rounding.

They take turns, many and short, so that what else the machine does disturbs all of them: of each there are the fastest
turn and the median with half the range between the quartiles, and the median of the ratios within the rounds. The last
size has next to no arithmetic: what a step takes there is what surrounds it.

    python benchmarks/stream.py [--sizes 1,128,128 16,64,256] [--threads 1] [--rounds 201]
"""

import argparse
import statistics
import sys
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

import gatewise
from gatewise.bench.machine import describe
from gatewise.bench.options import at_least
from gatewise.bench.timing import measure

SIZES = (*((B, H, H) for B in (1, 16) for H in (32, 128, 512)), (1, 1, 1))
STEPS = 20


def sizes(word: str) -> tuple[int, int, int]:
    try:
        B, I, H = (int(number) for number in word.split(","))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{word!r} is no size, needed is B,I,H such as 1,128,128") from error
    return B, I, H


class ByCalls:
    """A module that is called with its own last state: a sequence of one step, or a cell."""

    def __init__(self, module: nn.Module) -> None:
        self.module, self.is_cell = module, isinstance(module, nn.LSTMCell)
        self.state = None

    def __call__(self, x: Tensor) -> Tensor:
        if self.is_cell:
            self.state = self.module(x, self.state)
            return self.state[0]
        output, self.state = self.module(x[None], self.state)
        return output[0]


def peers(B: int, I: int, H: int) -> dict[str, Callable[[Tensor], Tensor]]:
    """One step of each from the same weights, once all have been seen to agree."""
    torch.manual_seed(0)
    theirs, ours, cell = nn.LSTM(I, H), gatewise.LSTM(I, H), nn.LSTMCell(I, H)
    ours.load_state_dict(theirs.state_dict())
    cell.load_state_dict({name.removesuffix("_l0"): weight for name, weight in theirs.state_dict().items()})
    found: dict[str, Callable[[Tensor], Tensor]] = {
        "torch.nn.LSTM": ByCalls(theirs),
        "torch.nn.LSTMCell": ByCalls(cell),
        "gatewise.LSTM": ByCalls(ours),
        "gatewise.Stream": gatewise.Stream(ours, batch_size=B),
    }
    x = torch.randn(STEPS, B, I)
    expected, _ = ours(x)
    for name, step in found.items():
        output = torch.stack([step(x_t) for x_t in x])
        exactly = name == "gatewise.Stream"
        # Sums of I + H numbers in another order, over some steps.
        if not (torch.equal(output, expected) if exactly else torch.allclose(output, expected, atol=1e-5)):
            sys.exit(f"stream: {name} differs from gatewise.LSTM over the sequence: nothing was timed")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", type=sizes, default=SIZES, help="B,I,H (default: 7 of them)")
    parser.add_argument("--rounds", type=at_least(2), default=201, help="turns of each (default: 201)")
    parser.add_argument("--threads", type=at_least(1), default=1, help="default: 1")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(*describe().lines(), sep="\n")
    with torch.no_grad():
        for B, I, H in options.sizes:
            steps, x = peers(B, I, H), torch.randn(B, I)
            times = measure({name: partial(step, x) for name, step in steps.items()}, options.rounds, 1e-3, seconds=30)
            print(f"(B, I, H) = {(B, I, H)}", flush=True)
            own = times["gatewise.Stream"]
            for name, t in times.items():
                low, high = t.ratio_quartiles(own)
                ratio = statistics.median(
                    a / b for a, b in zip(t.milliseconds, own.milliseconds, strict=True)
                )  # all take a turn in each round
                print(
                    f"  {name:18} {1e3 * min(t.milliseconds):8.1f} µs at least, {1e3 * t.median:8.1f} ± {t.spread:4.0%}"
                    f"   {ratio:6.2f}x, quartiles {low:.2f} and {high:.2f}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
