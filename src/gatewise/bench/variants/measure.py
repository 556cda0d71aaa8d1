"""Compare and time a variant: gatewise, its plain cell and the loop in Python, in turns."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import torch

from gatewise.bench.check import disagreement
from gatewise.bench.config import BenchConfig
from gatewise.bench.grid import Size
from gatewise.bench.peers import Call, Results
from gatewise.bench.probe import fork_join
from gatewise.bench.timing import SETTLING, measure
from gatewise.bench.variants.loop import Loop
from gatewise.bench.variants.row import LOOP, OWN, PLAIN, VariantRow
from gatewise.bench.variants.work import ARGUMENTS, Name, Work, draw, of_module, training
from gatewise.bench.work import SEED
from gatewise.nn import explain_path


def measured(config: BenchConfig, size: Size, name: Name) -> VariantRow:
    """Compare and time one variant at one size.

    Parameters
    ----------
    config : BenchConfig
        How often and how long.
    size : Size
        The sizes; H is at least 2 where h is projected.
    name : str
        The variant. Of ``plain`` gatewise's plain cell is timed twice: how far that is from 1 is the machine's doing.

    Examples
    --------
    >>> row = measured(BenchConfig(quick=True), Size(2, 3, 4, 5, 1, 1), "peephole")
    >>> list(row.timings), row.wrong
    (['gatewise', 'plain', 'loop'], '')
    """
    with torch.random.fork_rng(devices=[]):
        return _measured(config, size, name)


def _measured(config: BenchConfig, size: Size, name: Name) -> VariantRow:
    work = draw(size, name, torch.float32)
    path = str(explain_path(work.lstm, work.x, work.states))
    wrong, error = _compared(size, name)
    row = VariantRow(name, size, path, error=error, wrong=wrong)
    if wrong:
        return row
    calls: dict[str, Callable[[], object]] = {}
    plain = draw(size, "plain", torch.float32)
    for who, call in ((OWN, _own(work)), (PLAIN, _own(plain)), (LOOP, _loop(work))):
        start = time.perf_counter()
        call.run()
        took = time.perf_counter() - start
        if who == LOOP and took > config.seconds:
            row.absent[who] = f"its first call alone took {took:.2g} s, more than --seconds {config.seconds:g}"
        else:
            calls[who] = call.run
    row = replace(row, fork_join=fork_join())

    def settle(name: str) -> None:
        time.sleep(SETTLING)
        calls[name]()  # or the first step of a turn would find the memory that the others left it

    row.timings.update(measure(calls, *config.turns(), config.seconds, prepare=settle))
    return row


def _own(work: Work) -> Call:
    return training(of_module(work.lstm), dict(work.lstm.named_parameters()), work)


def _loop(work: Work) -> Call:
    loop = Loop(work.lstm)
    return training(loop, loop.parameters, work)


def _compared(size: Size, name: Name) -> tuple[str, float]:
    """In what gatewise differs from the loop by more than rounding excuses, and by how much it does at all."""
    # A gate of 0 or 1 is turned over by a rounding where its pre-activation is next to 0: of millions at a size, one or
    # two in float32, and after that all is different. In float64 there is none.
    dtype = torch.float64 if ARGUMENTS[name].get("gate_activation") == "step" else torch.float32
    work = draw(size, name, dtype)
    expected, given = (_once(call) for call in (_loop(work), _own(work)))
    return disagreement(expected, given, dtype)


def _once(call: Call) -> Results:
    torch.manual_seed(SEED)  # the same masks
    return call.once()
