"""A character model trained with gatewise.LSTM and with torch.nn.LSTM: bits per character, seconds per million of them.

Both are the model of `gatewise train text` without a dev part, from the same weights, in the same engine, over the same
chunks. First the gradients of a chunk are compared. Then they are trained in turns, a piece of an epoch each, so that
what else the machine does meets both; the seconds are those of the training steps. In the end each reads the test part
from its beginning to its end.

    python benchmarks/text.py FILE [--epochs 1] [--run FOLDER]
"""

import argparse
import dataclasses
import math
import statistics
import time
from pathlib import Path

import torch
from torch import nn

import gatewise
from gatewise.bench.options import at_least
from gatewise.tasks.language import LanguageModel, build, document_of, lanes_of, loss_of, measures_of
from gatewise.tasks.text import TASK, TextConfig
from gatewise.train.callback import Callback
from gatewise.train.carried import through
from gatewise.train.config import write_config
from gatewise.train.lanes import Lanes
from gatewise.train.run import Run
from gatewise.train.runner import Runner

LSTMS = {"gatewise": gatewise.LSTM, "torch": nn.LSTM}


class Pauses(Callback):
    """Stops a training after so many steps; the next call goes on."""

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def step(self, runner: Runner) -> None:
        if runner.progress.step % self.steps == 0:
            runner.stop()


def compare(models: dict[str, LanguageModel], lanes: Lanes, config: TextConfig) -> float:
    """The largest difference of gradients after the first chunk, beside the largest gradient."""
    batch = next(lanes.batches(config.batch_size, torch.Generator()))
    found = {}
    for name, model in models.items():
        loss_of(model.vocabulary)(through(model, batch, None)[0], batch.targets).backward()
        found[name] = torch.cat([parameter.grad.flatten() for parameter in model.parameters()])
        model.zero_grad()
    differs = (found["gatewise"] - found["torch"]).abs().max() / found["torch"].abs().max()
    if not differs < 1e-3:  # float32 sums of some thousand products, in another order
        raise SystemExit(f"text: the gradients differ by {differs:.1e} of the largest")
    return float(differs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, help="a text in UTF-8")
    parser.add_argument("--epochs", type=at_least(1), default=1, help="of each (default: 1)")
    parser.add_argument("--hidden-size", type=at_least(1), default=256, help="default: 256")
    parser.add_argument("--num-layers", type=at_least(1), default=1, help="default: 1")
    parser.add_argument("--batch-size", type=at_least(1), default=16, help="lanes (default: 16)")
    parser.add_argument("--bptt", default="64", help="as of gatewise train text (default: 64)")
    parser.add_argument("--piece", type=at_least(1), default=50, help="steps of a turn (default: 50)")
    parser.add_argument("--threads", type=at_least(1), default=2, help="default: 2")
    parser.add_argument("--run", type=Path, help="keep gatewise's model in this new folder, for gatewise generate")
    options = parser.parse_args()
    config = TextConfig(
        data=options.file,
        dev_fraction=0.0,
        hidden_size=options.hidden_size,
        num_layers=options.num_layers,
        batch_size=options.batch_size,
        bptt=options.bptt,
        epochs=options.epochs,
        threads=options.threads,
        eval_batch_size=1,
    )
    torch.set_num_threads(config.threads)
    document = document_of(config)
    lanes, vocabulary = lanes_of(document, config), document.vocabulary
    models = {}
    for name, lstm in LSTMS.items():
        torch.manual_seed(config.seed)
        models[name] = build(vocabulary, config, lstm)
    print(f"the largest difference of gradients is {compare(models, lanes['train'], config):.1e} of the largest one")
    loss, measures = loss_of(vocabulary), measures_of(vocabulary)
    runners = {name: Runner(model, loss, config, measures=measures, carries=True) for name, model in models.items()}
    pieces: dict[str, list[float]] = {name: [] for name in LSTMS}
    began, names = time.perf_counter(), list(LSTMS)
    while not all(runner.progress.ended for runner in runners.values()):
        for name in names:
            runner, pauses = runners[name], Pauses(options.piece)
            step, seconds = runner.progress.step, runner.progress.seconds
            runner.train(lanes["train"], callbacks=[pauses])
            if runner.progress.step - step == options.piece:  # the last may be shorter
                characters = options.piece * config.batch_size * config.chunked.length
                pieces[name].append((runner.progress.seconds - seconds) / characters * 1e6)
        names.reverse()  # each goes first as often as the other
    print(f"{len(lanes['train']):,} characters {config.epochs} times with each: {time.perf_counter() - began:.0f} s")
    for name, runner in runners.items():
        quarters = statistics.quantiles(pieces[name], n=4)
        train = runner.history.evaluations[-1].scores["train"].loss / math.log(2)
        test = runner.evaluate(lanes["test"])
        bits = next(iter(test.measures.values()))
        print(
            f"{name:<9} {statistics.median(pieces[name]):6.1f} s per million characters (quarters {quarters[0]:.1f} "
            f"and {quarters[2]:.1f}, of {len(pieces[name])} pieces), last epoch {train:.4f} bits, test {bits:.4f} bits "
            f"per character of {test.samples:,}",
            flush=True,
        )
    ratios = [other / own for own, other in zip(pieces["gatewise"], pieces["torch"], strict=True)]
    print(f"torch over gatewise, piece by piece: {statistics.median(ratios):.2f} in the median")
    if options.run is not None:
        run = Run.create(options.run)
        write_config(run.config, TASK.name, dataclasses.replace(config, eval_batch_size=32))
        for which in ("best", "last"):
            about = {"characters": vocabulary.characters, "task": TASK.name}
            runners["gatewise"].save(run.weights(which), about)


if __name__ == "__main__":
    main()
