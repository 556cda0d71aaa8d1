"""A run of the benchmark: compare, time, print, write."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path

import torch

from gatewise import kernels
from gatewise.bench import grid
from gatewise.bench.ceiling import products
from gatewise.bench.check import PeerError, disagreement
from gatewise.bench.config import BenchConfig, FormName, Kind
from gatewise.bench.figure import draw_figure
from gatewise.bench.grid import Size
from gatewise.bench.jax_peer import Jax
from gatewise.bench.machine import describe
from gatewise.bench.malloc import TUNED, check_tunable, run_tuned
from gatewise.bench.onnx_peer import OnnxRuntime
from gatewise.bench.peers import CellLoop, GateLoop, Gatewise, Peer, Results, Torch
from gatewise.bench.probe import fork_join
from gatewise.bench.progress import hearing, showing
from gatewise.bench.protocol import mean_of_hundred
from gatewise.bench.report import OWN, Report, Row
from gatewise.bench.summary import summary_lines
from gatewise.bench.table import Table, legend, notes_lines, overhead_lines, reasons
from gatewise.bench.timing import SETTLING, measure
from gatewise.bench.variants.figure import draw_variants
from gatewise.bench.variants.row import LOOP
from gatewise.bench.variants.run import measure_variants
from gatewise.bench.work import Work, arguments, draw, proj_size
from gatewise.errors import ArgumentError
from gatewise.nn import LSTM, explain_path

PEERS: dict[str, Peer] = {peer.name: peer for peer in (Torch(), CellLoop(), GateLoop(), OnnxRuntime(), Jax())}


def run(config: BenchConfig, say: Callable[[str], None] | None = None, peers: Sequence[Peer] | None = None) -> Report:
    """Measure what a configuration asks for, and print the table as it grows.

    Parameters
    ----------
    config : BenchConfig
        The settings.
    say : callable, default print
        Takes each line.
    peers : sequence of Peer, default those of `config`
        Who stands beside gatewise; none beside variants.

    Returns
    -------
    Report
        All that was measured; its files are written.

    Raises
    ------
    ArgumentError
        A file cannot be written, or this machine's memory is too little for a size.
    KernelError
        This machine lacks the instruction set.
    PeerError
        Somebody computed something else than torch.nn.LSTM, or a variant than its loop in Python. All others have been
        timed, and the files written.

    Examples
    --------
    >>> report = run(BenchConfig(sizes=("2,3,4,5,1",), quick=True, threads=1), say=lambda line: None)
    >>> report.rows[0].timings.keys()
    dict_keys(['gatewise', 'torch'])
    """
    config.check_files()
    _need_memory(config)
    if config.chosen_variants() and peers is not None:
        raise ArgumentError("variants are asked for and peers are given, which have none: leave one out")
    if config.malloc != "default":
        check_tunable()
        if peers is not None:
            raise ArgumentError(
                f"malloc is {config.malloc} and peers are given as objects, which a process of its own cannot have: "
                "name them in the configuration"
            )
    say = _print if say is None else say
    say(config.command())
    reports: list[Report] = []
    try:
        if config.malloc != "tuned":
            run_here(config, say, peers, reports.append)
        if config.malloc != "default":
            for line in ("", f"malloc tuned, in a process with {' '.join(f'{n}={v}' for n, v in TUNED.items())}"):
                say(line)
            run_tuned(config, say, reports.append)
    finally:  # what was measured before Ctrl-C is kept
        if reports:
            report = reports[0]
            report.tuned = reports[1] if reports[1:] else None
            written = _write(config, report)
    summary = summary_lines({run.malloc: run.summary() for run in report.runs()})
    for line in ("", *summary) if summary else ():
        say(line)
    for path in written:
        say(f"wrote {path}")
    differs = [line for run in report.runs() for line in run.differs]
    if differs:
        others = f" (and {len(differs) - 1} more)" if len(differs) > 1 else ""
        whom = "the loop in Python" if config.chosen_variants() else "torch.nn.LSTM"
        raise PeerError(f"not timed, as it differs from {whom}: {differs[0]}{others}")
    return report


def check_isa(config: BenchConfig) -> None:
    """Refuse an instruction set that this machine lacks, as the command line does before anything is printed.

    Raises
    ------
    ArgumentError
        There is no such instruction set, or this machine lacks it.

    Examples
    --------
    >>> check_isa(BenchConfig())
    >>> check_isa(BenchConfig(isa="mmx"))  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    gatewise.errors.ArgumentError: isa is mmx, needed is one of ...: change it; see gatewise bench --help
    """
    has = kernels.available()
    if config.isa and config.isa not in has:
        raise ArgumentError(
            f"isa is {config.isa}, needed is one of {', '.join(has)}, which this machine has: change it; "
            "see gatewise bench --help"
        )


def run_here(
    config: BenchConfig, say: Callable[[str], None], peers: Sequence[Peer] | None, keep: Callable[[Report], None]
) -> None:
    """Measure in this process, with malloc as it is.

    Parameters
    ----------
    config : BenchConfig
        What to measure; files are left to the caller.
    say : callable
        Takes each line.
    peers : sequence of Peer or None
        Who stands beside gatewise; None: those of `config`.
    keep : callable
        Takes the report before it is filled, so that an interrupted run leaves what it has.
    """
    chosen = [PEERS[name] for name in config.chosen_peers()] if peers is None else list(peers)
    with _settings(config):
        if config.chosen_variants():
            report = Report(config, describe(), {LOOP: "torch's"})
            keep(report)
            for line in report.machine.lines():
                say(line)
            measure_variants(report, say)
            return
        missing = {peer.name: peer.missing() for peer in chosen}
        here = [peer for peer in chosen if not missing[peer.name]]
        report = Report(config, describe(), {p.name: missing[p.name] or p.version() or "torch's" for p in chosen})
        keep(report)
        for line in _opening(report, chosen, missing):
            say(line)
        _smallest(report, here, say)
        _notes(report, here, say)
        _table(report, here, say)


def _write(config: BenchConfig, report: Report) -> list[Path]:
    """Write the files that a configuration names."""
    written = []
    if config.json is not None:
        report.write_json(config.json)
        written.append(config.json)
    for run in report.runs():
        path = config.figures().get(run.malloc)
        if path is not None and (run.rows or run.variants):
            machine = run.machine
            threads = f"{machine.threads} thread{'s' * (machine.threads != 1)}"
            title = f"{machine.cpu}, {threads}, {machine.isa}; torch {machine.torch}, {machine.torch_isa}"
            title += "; malloc tuned" * (run.malloc == "tuned")
            if run.variants:
                draw_variants(path, run.variants, title)
            else:
                draw_figure(path, run.rows, title)
            written.append(path)
    return written


def _need_memory(config: BenchConfig) -> None:
    """Refuse sizes that this machine cannot hold, before the time is spent on those before them."""
    has = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for form in config.chosen_forms():
        for size in config.chosen_sizes():
            needed = grid.least_bytes(size, proj_size(size, form))
            if needed > has:
                raise ArgumentError(
                    f"sizes has {size}, which takes {needed / 2**30:,.1f} GiB at least, {form}, and this machine has "
                    f"{has / 2**30:.1f}: give a smaller one"
                )


def _print(line: str) -> None:
    print(line, flush=True)


@contextmanager
def _settings(config: BenchConfig) -> Iterator[None]:
    """Have the threads and the instruction set of a configuration, and afterwards those of before."""
    before = torch.get_num_threads()
    with kernels.using(config.isa) if config.isa else nullcontext():
        try:
            if config.threads:
                torch.set_num_threads(config.threads)
            yield
        finally:
            torch.set_num_threads(before)


def _opening(report: Report, chosen: Sequence[Peer], missing: Mapping[str, str]) -> Iterator[str]:
    yield from report.machine.lines()
    for peer in chosen:
        version = "" if missing[peer.name] else f"{peer.version()} ".lstrip()
        yield f"peer      {peer.name} {version}({peer.what})" + f": {missing[peer.name]}" * bool(missing[peer.name])
    yield from legend(*report.config.turns())


def _differing(report: Report, row: Row) -> list[str]:
    """Note in the report who differed in a row, and say it."""
    found = [f"{peer} in {row.kind} at {row.size}, {row.form}: {what}" for peer, what in row.wrong.items()]
    report.differs += found
    return [f"differs  {line}" for line in found]


def _smallest(report: Report, peers: Sequence[Peer], say: Callable[[str], None]) -> None:
    for kind in report.config.kinds:
        with hearing(say), showing(f"overhead {kind} ..."):
            row = _row(report.config, grid.SMALLEST, "plain", kind, peers, with_products=False)
        report.overhead.append(row)
        for line in _differing(report, row):
            say(line)
    for line in ("", *overhead_lines(report.overhead), *reasons(report.overhead)):
        say(line)


def _notes(report: Report, peers: Sequence[Peer], say: Callable[[str], None]) -> None:
    """The study notes' own operator beside the built-in one and gatewise, as they time it: one after another."""
    work = draw(grid.NOTES, "plain")
    expected = _reference(work, "recorded")
    for peer in (GateLoop(), CellLoop(), Torch(), Gatewise()):
        call = peer.calls(work)["recorded"]
        if what := disagreement(expected, call.once(), work.dtype)[0]:
            report.differs.append(f"{peer.name} with gradients recorded at {grid.NOTES}: {what}")
        else:
            report.notes[peer.name] = mean_of_hundred(call.run)
    for line in notes_lines(grid.NOTES, report.notes):
        say(line)


def _table(report: Report, peers: Sequence[Peer], say: Callable[[str], None]) -> None:
    config = report.config
    for form in config.chosen_forms():
        columns = [peer.name for peer in peers if not all(peer.refuses(form, kind) for kind in config.kinds)]
        table = Table(columns, config.turns()[0])
        say("")
        found: list[Row] = []
        for size in config.chosen_sizes():
            if form == "projected" and size.H < 2:
                say(f"     {size} is left out: proj_size is H/2, needed H of at least 2")
                continue
            for kind in config.kinds:
                with hearing(say), showing(f"{form} {size} {kind} ..."):
                    row = _row(config, size, form, kind, peers)
                report.rows.append(row)
                if not found:
                    for line in table.head(row):
                        say(line)
                say(table.line(row))
                for line in _differing(report, row):
                    say(line)
                found.append(row)
        for line in reasons(found):
            say(line)


def _row(
    config: BenchConfig, size: Size, form: FormName, kind: Kind, peers: Sequence[Peer], with_products: bool = True
) -> Row:
    """Compare and time one size, form and kind."""
    work = draw(size, form)
    P = proj_size(size, form)
    path = explain_path(LSTM(**arguments(size, form)).to(work.dtype), work.as_input(work.x))
    row = Row(form, kind, size, grid.flops(size, kind, work.steps, P), str(path), {})
    expected = _reference(work, kind)
    calls: dict[str, Callable[[], object]] = {}
    for peer in (Gatewise(), *peers):
        if why := peer.refuses(form, kind):
            row.absent[peer.name] = why
            continue
        try:
            call = peer.calls(work)[kind]
            if peer.compiles:
                call.run()
            start = time.perf_counter()
            given = call.once()
            took = time.perf_counter() - start
        except Exception as error:  # each library raises as it likes
            if peer.name == OWN:
                raise
            row.absent[peer.name] = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
            continue
        what, row.errors[peer.name] = disagreement(expected, given, work.dtype)
        if what:
            row.wrong[peer.name] = what
        elif took > config.seconds and peer.name != OWN:
            row.absent[peer.name] = f"its first call alone took {took:.0f} s, more than --seconds {config.seconds:g}"
        else:
            calls[peer.name] = call.run
    del expected
    if OWN not in calls:
        return row
    bounds = products(size, work.steps, P or size.H, work.dtype) if with_products else ()
    for product in bounds:
        calls[product.label] = product.call()
        calls[product.label]()
    repeats, turn = config.turns()
    row = replace(row, fork_join=fork_join())
    timings = measure(calls, repeats, turn, config.seconds, prepare=lambda name: time.sleep(SETTLING))
    for product in bounds:
        gflops = product.flops / timings.pop(product.label).median / 1e6
        row.ceilings[product.name] = max(gflops, row.ceilings.get(product.name, 0.0))
    row.timings.update(timings)
    return row


def _reference(work: Work, kind: str) -> Results:
    """What torch.nn.LSTM gives, for 16 bits in float32."""
    return Torch().calls(work.in_float32() if work.dtype.itemsize < 4 else work)[kind].once()
