"""Time the whole memory experiment: `gatewise memory`, and the same in the loop that one would write with torch.

The loop is nn.Embedding, nn.LSTM (or nn.RNN), nn.Linear, torch.optim.Adam and a DataLoader, with a look at the dev
split every 100 steps that keeps the best weights, and no engine, log, or checkpoint. Data, batches, steps and looks are
the same as gatewise's, as many runs at a time, one thread each; the accuracies of both are printed, so that one sees
that both learn the same. With --turns each half is done so many times, in turns.

    python benchmarks/digit_sums.py                                (the textbook's: 60 runs each, a quarter of an hour)
    python benchmarks/digit_sums.py --lengths 10 --seeds 2 --turns 3
"""

import argparse
import copy
import itertools
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from gatewise.bench.options import at_least
from gatewise.data.digit_sum import CLASSES, DIGITS, DigitSums, make_digit_sums
from gatewise.tasks.digit_sum import DigitSumConfig


class Network(nn.Module):
    def __init__(self, cell: type[nn.Module]) -> None:
        super().__init__()
        self.embedding = nn.Embedding(DIGITS, 32)
        self.cell = cell(32, 32, batch_first=True)
        self.linear = nn.Linear(32, CLASSES)

    def forward(self, digits: torch.Tensor) -> torch.Tensor:
        output, _ = self.cell(self.embedding(digits))
        logits: torch.Tensor = self.linear(output[:, -1])
        return logits


def dataset(sums: DigitSums) -> TensorDataset:
    return TensorDataset(torch.from_numpy(sums.sequences), torch.from_numpy(sums.labels))


@torch.no_grad()
def evaluate(model: Network, loader: DataLoader[tuple[torch.Tensor, ...]]) -> tuple[float, float]:
    """The mean loss and the accuracy."""
    model.eval()
    loss, right, count = 0.0, 0, 0
    for digits, labels in loader:
        logits = model(digits)
        loss += nn.functional.cross_entropy(logits, labels, reduction="sum").item()
        right += int((logits.argmax(1) == labels).sum())
        count += len(labels)
    model.train()
    return loss / count, right / count


def by_hand(cell: str, length: int, seed: int, epochs: int) -> float:
    """Train, and return the test accuracy of the weights that dev chose."""
    torch.set_num_threads(1)
    config = DigitSumConfig(length=length, seed=seed)
    data = make_digit_sums(length, seed)
    torch.manual_seed(seed)
    model = Network(nn.LSTM if cell == "lstm" else nn.RNN)
    optimizer = torch.optim.Adam(model.parameters(), lr=config.learning_rate)
    shuffled = torch.Generator().manual_seed(seed)
    train = DataLoader(dataset(data["train"]), batch_size=config.batch_size, shuffle=True, generator=shuffled)
    dev = DataLoader(dataset(data["dev"]), batch_size=100)
    best, kept, step = -1.0, model.state_dict(), 0
    for _ in range(epochs):
        for digits, labels in train:
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(digits), labels)
            loss.backward()
            optimizer.step()
            step += 1
            if step % config.dev_every == 0:
                _, accuracy = evaluate(model, dev)
                if accuracy > best:
                    best, kept = accuracy, copy.deepcopy(model.state_dict())
    if step % config.dev_every:
        _, accuracy = evaluate(model, dev)
        if accuracy > best:
            kept = model.state_dict()
    model.load_state_dict(kept)
    _, accuracy = evaluate(model, DataLoader(dataset(data["test"]), batch_size=100))
    return accuracy


def all_by_hand(options: argparse.Namespace) -> tuple[float, dict[str, list[float]]]:
    """The seconds that all runs take, and the accuracies of each cell and length."""
    start = time.perf_counter()
    cases = list(itertools.product(options.cells, options.lengths))
    with ProcessPoolExecutor(options.processes, mp_context=multiprocessing.get_context("spawn")) as pool:
        waiting = {
            (cell, length, seed): pool.submit(by_hand, cell, length, seed, options.epochs)
            for cell, length in cases
            for seed in range(options.seeds)
        }
        found = {
            f"{cell} {length}": [waiting[cell, length, seed].result() for seed in range(options.seeds)]
            for cell, length in cases
        }
    return time.perf_counter() - start, found


def by_gatewise(options: argparse.Namespace) -> tuple[float, dict[str, list[float]]]:
    """The same by the command."""
    with tempfile.TemporaryDirectory() as below:
        start = time.perf_counter()
        words = ["memory", "--run", f"{below}/memory", "--epochs", options.epochs, "--seeds", options.seeds]
        words += ["--processes", options.processes, "--cells", *options.cells, "--lengths", *options.lengths]
        done = subprocess.run([sys.executable, "-m", "gatewise.cli", *map(str, words)], stdout=subprocess.PIPE)
        seconds = time.perf_counter() - start
        if done.returncode != 0:
            sys.exit("digit_sums: gatewise memory failed")
        results = json.loads((Path(below) / "memory" / "results.json").read_text())
    found: dict[str, list[float]] = {}
    for result in results:
        found.setdefault(f"{result['cell']} {result['length']}", []).append(result["test"])
    return seconds, found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", nargs="+", choices=("srn", "lstm"), default=["srn", "lstm"], help="default: both")
    parser.add_argument("--lengths", nargs="+", type=at_least(3), default=[10, 15, 20, 25, 30, 35], metavar="L")
    parser.add_argument("--seeds", type=at_least(1), default=5, help="runs of each (default: 5)")
    parser.add_argument("--epochs", type=at_least(1), default=500, help="of each run (default: 500)")
    parser.add_argument("--turns", type=at_least(1), default=1, help="times that everything is done (default: 1)")
    parser.add_argument(
        "--processes", type=at_least(1), default=len(os.sched_getaffinity(0)), help="at a time (default: all cores)"
    )
    options = parser.parse_args()
    ratios = []
    for turn in range(options.turns):
        theirs, accuracies = all_by_hand(options)
        ours, own = by_gatewise(options)
        ratios.append(theirs / ours)
        if turn == 0:
            print("cell, length   torch by hand    gatewise memory    (test accuracy, mean over seeds)")
            for name, values in accuracies.items():
                print(f"{name:<12} {statistics.fmean(values):10.3f} {statistics.fmean(own[name]):16.3f}")
        print(f"torch by hand {theirs:.0f} s, gatewise memory {ours:.0f} s: {theirs / ours:.2f}x", flush=True)
    if options.turns > 1:
        print(f"median of {options.turns} turns: {statistics.median(ratios):.2f}x")


if __name__ == "__main__":
    main()
