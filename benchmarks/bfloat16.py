"""Show how far 16 bits take an LSTM from float32: gatewise as a bfloat16 module and under autocast, beside torch.

Weights, input, states and the gradient of the output are rounded to bfloat16 before, for float32 as well: what differs
is the arithmetic and what is kept between the steps. The numbers are relative errors, the L2 norm of the difference
from torch.nn.LSTM in float32 over the norm of its result: of the output, the last states, and the gradients of the
input, the initial states and the parameters (the worst of them). bfloat16 has 8 bits: rounding a result alone makes
0.0017. gatewise in float32 stands below for scale. Nothing is timed.

    python benchmarks/bfloat16.py
    python benchmarks/bfloat16.py --sizes 5 13 8,100,64,128,2,2      (rows of gatewise bench, or B,T,I,H,L,D)
    python benchmarks/bfloat16.py --quick
"""

import argparse
import sys

import torch

from gatewise.bench.grid import Size, read_sizes
from gatewise.bench.machine import describe
from gatewise.bench.options import at_least
from gatewise.bench.peers import Gatewise, ModulePeer, Results, Torch
from gatewise.bench.work import Work, draw
from gatewise.errors import GatewiseError

SIZES = ("1", "4", "6", "8", "9", "10")
QUICK = ("1", "2,5,6,7,2,2")
COLUMNS = ("output", "h_n", "c_n", "d_x", "d_h_0", "d_c_0", "d_weights")


def results(peer: ModulePeer, work: Work) -> Results:
    calls = peer.calls(work)
    return {name: t.detach() for name, t in (calls["forward"].once() | calls["training"].once()).items()}


class UnderAutocast(ModulePeer):
    """A module in float32 whose calls torch.autocast brings to bfloat16; backward runs outside, as torch advises."""

    def __init__(self, peer: ModulePeer) -> None:
        self.peer = peer

    def build(self, work):
        network, parameters, named = self.peer.build(work)

        def cast(x, h_0, c_0):
            with torch.autocast("cpu", torch.bfloat16):
                return network(x, h_0, c_0)

        return cast, parameters, named


def errors(expected: Results, given: Results) -> dict[str, float]:
    """Give the relative L2 error of each column."""
    found = dict.fromkeys(COLUMNS, 0.0)
    for name, exact in expected.items():
        column = name if name in COLUMNS else "d_weights"
        error = float((given[name].double() - exact.double()).norm() / exact.double().norm())
        found[column] = max(found[column], error)
    return found


def table(size: Size) -> list[str]:
    work = draw(size, "bfloat16")
    exact = work.in_float32()
    expected = results(Torch(), exact)
    who = {
        "gatewise module": (Gatewise(), work),
        "gatewise autocast": (UnderAutocast(Gatewise()), exact),
        "torch module": (Torch(), work),
        "torch autocast": (UnderAutocast(Torch()), exact),
        "gatewise float32": (Gatewise(), exact),
    }
    lines = []
    for name, (peer, given) in who.items():
        try:
            found = errors(expected, results(peer, given))
        except RuntimeError as error:  # torch under autocast, on a CPU without instructions for 16 bits
            if "gatewise" in name:
                raise
            cells = f" fails: {str(error).split('.')[0]}"
        else:
            cells = "".join(f" {found[column]:9.1e}" for column in COLUMNS)
        lines.append(f"{size!s:26} {name:18}{cells}")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", help=f"rows of the grid or B,T,I,H,L,D (default: {' '.join(SIZES)})")
    parser.add_argument(
        "--threads", type=at_least(1), default=torch.get_num_threads(), help="default: as many as torch finds"
    )
    parser.add_argument("--quick", action="store_true", help="two small sizes unless others are given")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    sizes = read_sizes(options.sizes or (QUICK if options.quick else SIZES))
    for line in describe().lines():
        print(line)
    print("relative L2 errors against torch.nn.LSTM in float32")
    print(f"{'(B, T, I, H, L, D)':26} {'':18}" + "".join(f" {column:>9}" for column in COLUMNS))
    for size in sizes:
        print(*table(size), sep="\n", flush=True)


if __name__ == "__main__":
    try:
        main()
    except GatewiseError as error:
        sys.exit(f"bfloat16: {error}")
