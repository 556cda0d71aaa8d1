"""Kill a training at random instants, go on with it each time, and compare the weights with an undisturbed one's.

Each training is a process of its own that is killed (SIGKILL) at a moment drawn from the time that the whole training
takes, then resumed, and killed again, until it comes to its end. Its weights, the best and the last, must then be those
of a training that was never disturbed, byte for byte: the SHA-256 of the files are compared.

    python benchmarks/kills.py --kills 200
    python benchmarks/kills.py --kills 5 --epochs 10 --seed 1
"""

import argparse
import hashlib
import multiprocessing
import os
import random
import sys
import tempfile
import time
from pathlib import Path

import torch

from gatewise.bench.options import at_least
from gatewise.tasks.digit_sum import TASK, DigitSumConfig
from gatewise.tasks.sequence_sum import train
from gatewise.tasks.task import Report


def run(config: DigitSumConfig, folder: Path) -> None:
    """Train, or go on."""
    train(TASK, config, folder, Report(), resume=(folder / "config.toml").is_file())


def sums(folder: Path) -> list[str]:
    return [hashlib.sha256((folder / f"{name}.safetensors").read_bytes()).hexdigest() for name in ("best", "last")]


def started(config: DigitSumConfig, folder: Path) -> multiprocessing.Process:
    """A training in a process of its own, which has torch already."""
    process = multiprocessing.get_context("fork").Process(target=run, args=(config, folder))
    process.start()
    return process


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=at_least(1), default=200, help="how many (default: 200)")
    parser.add_argument("--epochs", type=at_least(1), default=60, help="of each training (default: 60)")
    parser.add_argument("--seed", type=int, default=0, help="draws the moments (default: 0)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    moments = random.Random(options.seed)
    config = DigitSumConfig(epochs=options.epochs, dropout=0.2, num_layers=2, checkpoint_seconds=0.02, threads=1)
    with tempfile.TemporaryDirectory() as below:
        start = time.perf_counter()
        process = started(config, Path(below) / "undisturbed")
        process.join()
        whole = time.perf_counter() - start
        expected = sums(Path(below) / "undisturbed")
        print(f"undisturbed: {whole:.1f} s, SHA-256 of the last weights {expected[1]}", flush=True)
        kills = trainings = 0
        while kills < options.kills:
            folder, here = Path(below) / str(trainings), 0
            while True:
                process = started(config, folder)
                process.join(moments.uniform(0, whole) if kills < options.kills else None)
                if process.exitcode is not None:
                    break
                process.kill()
                process.join()
                kills, here = kills + 1, here + 1
            if process.exitcode != 0:
                sys.exit(f"kills: training {trainings} failed after {here} kills")
            if sums(folder) != expected:
                sys.exit(f"kills: training {trainings} ended with other weights after {here} kills: {sums(folder)}")
            trainings += 1
            print(f"training {trainings}: {here} kills, the same weights ({kills} kills so far)", flush=True)
    print(f"{kills} kills in {trainings} trainings: the same weights each time")


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
