"""How far back does a trained network's gradient reach? The memory horizons of a `gatewise memory` folder, in a table.

Of each run the first weights (the seed draws them again) and the best ones are asked, on 64 of its test sequences, by
the run's own loss at the last step: how many steps back the gradient of the state (c of an LSTM, h of the others) has
fallen below a fraction of what it is at the last step, for good. Mean and standard deviation over seeds; where it has
not fallen so far at a sequence's first step, the sequence's length counts, and a plus says that it is more.

    gatewise memory --cells srn gru lstm --lengths 35 300 --run runs/memory
    python benchmarks/horizons.py runs/memory [--fraction 0.1] [--figure horizons.png]
"""

import argparse
import math
import statistics
import sys
from collections import defaultdict
from pathlib import Path

import torch
from torch.nn.functional import cross_entropy

from gatewise.drawing import save
from gatewise.errors import GatewiseError
from gatewise.insight.figures import draw_comparison
from gatewise.insight.gradient_flow import LayerFlow, gradient_flow
from gatewise.tasks.digit_sum import DigitSumConfig, splits
from gatewise.tasks.sequence_sum import examples, problem
from gatewise.tasks.task import task_of
from gatewise.train.run import Run
from gatewise.train.state import fill_weights
from gatewise.train.tensors import read_tensors

SEQUENCES = 64


def flows(run: Run) -> tuple[str, int, dict[str, LayerFlow]]:
    """The cell, the length, and the flow before and after training."""
    task, config = task_of(run)
    if not isinstance(config, DigitSumConfig):
        raise GatewiseError(f"{run.folder} is a run of {task.name}, needed is one of digit-sum")
    torch.manual_seed(config.seed)  # as the training did
    model = problem(config).model.eval()
    test = examples(splits(config)["test"])
    sequences, labels = test.inputs[:SEQUENCES], test.targets[:SEQUENCES]
    found = {"before": gradient_flow(model, sequences, lambda logits: cross_entropy(logits, labels)).layers[0]}
    path = run.weights("best")
    fill_weights(model, read_tensors(path)[0], path)
    found["after"] = gradient_flow(model, sequences, lambda logits: cross_entropy(logits, labels)).layers[0]
    return config.cell, config.length, found


def in_words(horizons: list[float], length: int) -> str:
    known = [min(horizon, length) for horizon in horizons]
    more = "+" if any(math.isinf(horizon) for horizon in horizons) else " "
    deviation = statistics.stdev(known) if len(known) > 1 else 0.0
    return f"{statistics.mean(known):6.1f}{more}± {deviation:5.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="of gatewise memory --run")
    parser.add_argument("--fraction", type=float, default=0.1, help="of the gradient at the last step (default: 0.1)")
    parser.add_argument("--figure", type=Path, help="draw seed 0's decay at the longest length")
    options = parser.parse_args()
    runs = sorted(path.parent for path in options.folder.glob("*/config.toml"))
    if not runs:
        sys.exit(f"horizons: {options.folder} holds no runs: give a folder that gatewise memory made")
    table: dict[tuple[str, int, str], list[float]] = defaultdict(list)
    curves: dict[tuple[str, int], dict[str, LayerFlow]] = {}
    try:
        for number, folder in enumerate(runs, start=1):
            print(f"\r{number}/{len(runs)} {folder.name:<20}", end="", file=sys.stderr, flush=True)
            cell, length, found = flows(Run.open(folder))
            curves.setdefault((cell, length), found)
            for when, flow in found.items():
                table[cell, length, when].append(flow.horizon(options.fraction))
        print(file=sys.stderr)
        print(f"steps until less than {options.fraction:g} of the gradient is left (mean ± deviation over seeds)")
        print(f"{'cell':<6}{'length':>6}{'before training':>20}{'after training':>20}   seeds")
        for cell, length in sorted({(cell, length) for cell, length, _ in table}, key=lambda both: (both[1], both[0])):
            before, after = (in_words(table[cell, length, when], length) for when in ("before", "after"))
            print(f"{cell:<6}{length:>6}{before:>20}{after:>20}{len(table[cell, length, 'after']):>8}")
        if options.figure:
            longest = max(length for _, length in curves)
            own = {
                f"{cell.upper()}, {when} training": flow
                for (cell, length), found in curves.items()
                if length == longest
                for when, flow in found.items()
            }
            save(draw_comparison(own, f"{longest} digits, seed 0", options.fraction), options.figure)
            print(f"figure: {options.figure}")
    except GatewiseError as error:
        sys.exit(f"horizons: {error}")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
