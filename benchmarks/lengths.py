"""Time sequences of different lengths, and resets: gatewise with `lengths`, padded, packed, and torch's PackedSequence.

Training: forward and backward with gradients to input and all parameters, of 64 sequences of 50 to 200 steps. All are
compared before anything is timed, and take turns within one process.

    python benchmarks/lengths.py [--repeats 21] [--threads 2]
"""

import argparse
import statistics
import sys

import torch
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import gatewise
from gatewise.bench.timing import measure

B, T, I, H = 64, 200, 64, 128


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=21)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    theirs, ours = torch.nn.LSTM(I, H), gatewise.LSTM(I, H)
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(T, B, I, requires_grad=True)
    lengths = torch.randint(T // 4, T + 1, (B,))
    reset = torch.rand(T, B) < 0.05
    d_output = torch.randn(T, B, H).masked_fill((torch.arange(T)[:, None] >= lengths)[:, :, None], 0)

    def training(module, run):
        leaves = [x, *module.parameters()]

        def call():
            for leaf in leaves:
                leaf.grad = None
            output = run()
            output.backward(d_output)
            return [output, *(leaf.grad for leaf in leaves)]

        return call

    def packed(module):
        output, _ = module(pack_padded_sequence(x, lengths, enforce_sorted=False))
        return pad_packed_sequence(output, total_length=T)[0]

    peers = {
        "torch, packed": training(theirs, lambda: packed(theirs)),
        "gatewise, packed": training(ours, lambda: packed(ours)),
        "gatewise, lengths": training(ours, lambda: ours(x, lengths=lengths)[0]),
        "gatewise, padded": training(ours, lambda: ours(x)[0]),
        "gatewise, resets": training(ours, lambda: ours(x, reset=reset)[0]),
    }
    expected = peers["torch, packed"]()
    for name in ("gatewise, packed", "gatewise, lengths"):
        for a, b in zip(expected, peers[name](), strict=True):
            if not (a - b).abs().max() < 1e-4 * a.abs().max():
                sys.exit(f"{name} differs from torch: nothing was timed")
    times = measure(peers, options.repeats, turn=0.02, seconds=60)
    print(f"(B, T, I, H) = {(B, T, I, H)}, {int(lengths.sum()) / (B * T):.0%} of the steps, {options.threads} threads")
    padded = statistics.median(times["gatewise, padded"].milliseconds)
    for name, timing in times.items():
        t = timing.milliseconds
        median, quartiles = statistics.median(t), statistics.quantiles(t, n=4)
        spread = (quartiles[2] - quartiles[0]) / 2 / median
        print(f"{name:20} {median:8.2f} ms ± {spread:4.0%}   {median / padded:5.2f} of padded")


if __name__ == "__main__":
    main()
