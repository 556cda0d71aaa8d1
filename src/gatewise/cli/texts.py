"""The command generate, and what evaluate does where the task is text."""

import json
from typing import TYPE_CHECKING

from gatewise.cli.printing import number, speed
from gatewise.cli.words import Evaluate, Generate
from gatewise.errors import ArgumentError
from gatewise.tasks.task import task_of
from gatewise.tasks.text import TextConfig

if TYPE_CHECKING:
    from gatewise.train.run import Run


def evaluate(command: Evaluate, config: TextConfig, run: "Run") -> int:
    """Read the test part of a text, and print how well it was foretold."""
    from gatewise.tasks.language import foretell

    found = foretell(config, run, command.weights)
    score, unit = found.score, config.unit
    if command.json:
        shown = {"loss": score.loss, **score.measures, "perplexity": found.perplexity}
        print(json.dumps(shown | {"unknown": found.unknown, "samples": score.samples}))
        return 0
    ((name, bits),) = score.measures.items()
    unknown = f", {found.unknown:,} of them never seen in training" if found.unknown else ""
    print(
        f"{command.run}, {command.weights} weights, test part: {number(bits)} {name.replace('_', ' ')}, loss "
        f"{number(score.loss)} nats, perplexity {number(found.perplexity)} of {score.samples:,} {unit}{unknown}, "
        f"{speed(score, unit)}"
    )
    return 0


def generate(command: Generate) -> int:
    """Go on with a text, and print it as it comes."""
    from gatewise.train.run import Run

    run = Run.open(command.run)
    task, config = task_of(run)
    if not isinstance(config, TextConfig):
        raise ArgumentError(f"{command.run} is a run of {task.name}, needed is one of text: see gatewise predict")
    if not 1 <= command.length < 2**31:
        raise ArgumentError(f"length is {command.length}, needed is a number from 1 to below 2^31: change it")
    from gatewise.tasks import generation, language

    sampling = generation.Sampling(command.temperature, command.top_p, command.seed)
    model = language.model(config, run, command.weights).eval()
    prompt = generation.prompt_numbers(model.vocabulary, command.prompt)
    given = command.prompt.encode("utf-8", "surrogateescape").decode("utf-8", "replace")  # as its bytes are read
    pieces = generation.written(model.vocabulary, generation.generate(model, prompt, command.length, sampling))
    if command.json:
        settings = {name: getattr(command, name) for name in ("length", "temperature", "top_p", "seed")}
        print(json.dumps({"prompt": given, "text": "".join(pieces), **settings}))
        return 0
    print(given, end="", flush=True)
    for piece in pieces:
        print(piece, end="", flush=True)
    print()
    return 0
