"""The runs of an experiment: several at a time, each in a folder of its own, none twice."""

import json
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import asdict
from pathlib import Path

from gatewise.errors import RunError
from gatewise.experiments.memory import Case, Result
from gatewise.tasks.digit_sum import splits
from gatewise.whole import write_whole

Done = Callable[[Result], None]


def run_cases(cases: Sequence[Case], folder: Path, processes: int, done: Done) -> list[Result]:
    """Run what is not finished yet, and collect all results.

    Parameters
    ----------
    cases : sequence of Case
        Which runs.
    folder : path
        Holds a folder for each.
    processes : int
        At a time; 0 takes as many as there are cores.
    done : callable
        Takes each result as it comes; those of earlier calls first.

    Returns
    -------
    list of Result
        In the order of the cases.

    Raises
    ------
    KeyboardInterrupt
        Ctrl-C. The runs under way have written their checkpoints, and go on from there next time.
    DataError
        Files to read are missing or not in order.
    GatewiseError
        Of the first run that failed.
    """
    if (folder / "config.toml").exists():
        raise RunError(f"{folder} is a run, needed is a folder for many: give another --run")
    for config in {case.config.data: case.config for case in cases if case.config.data}.values():
        splits(config)  # refuses files that are not in order before anything is trained
    found: dict[str, Result] = {}
    for case in cases:
        result = read_result(folder / case.name, case)
        if result is not None:
            found[case.name] = result
            done(result)
    left = [case for case in cases if case.name not in found]
    if left:
        count = min(processes or len(os.sched_getaffinity(0)), len(left))
        context = multiprocessing.get_context("spawn")
        pool = ProcessPoolExecutor(count, mp_context=context, initializer=_end_with_parent)
        try:
            waiting: dict[Future[Result | None], Case] = {
                pool.submit(run_case, case, folder / case.name): case for case in left
            }
            for future in as_completed(waiting):
                result = future.result()
                if result is None:
                    raise KeyboardInterrupt
                found[waiting[future].name] = result
                done(result)
        finally:  # those under way have heard Ctrl-C too, and end after the step that they are in
            pool.shutdown(wait=True, cancel_futures=True)
    return [found[case.name] for case in cases]


def _end_with_parent() -> None:
    """Have this process end when its parent has, killed perhaps: a training under way writes its checkpoint first."""
    parent = multiprocessing.parent_process()

    def watch() -> None:
        if parent is not None:
            parent.join()
            while True:  # a training takes the first one as a wish to stop; afterwards one ends the process
                os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(0.5)

    threading.Thread(target=watch, daemon=True).start()


def run_case(case: Case, folder: Path) -> Result | None:
    """Train, or go on, and evaluate; None if Ctrl-C ended it."""
    from gatewise.tasks import sequence_sum
    from gatewise.tasks.digit_sum import TASK
    from gatewise.tasks.task import Report
    from gatewise.train.metrics import read_metrics
    from gatewise.train.run import Run

    run = Run(folder)
    outcome = sequence_sum.train(TASK, case.config, folder, Report(), resume=run.config.is_file())
    if outcome.signal:
        return None
    best = outcome.progress.best
    if best is None:
        raise RunError(f"{folder} has no best weights: remove it and train again")
    metrics = read_metrics(run.metrics)
    result = Result(
        case.cell,
        case.length,
        case.seed,
        dev=best.scores["dev"]["accuracy"],
        test=sequence_sum.evaluate(TASK, case.config, run, "best")["accuracy"],
        step=best.step,
        seconds=round(outcome.progress.seconds, 3),
        # A look at dev after an epoch's last step and the epoch's end are two lines with one epoch.
        losses=list({m.epoch: m.loss for m in metrics if m.split == "train" and m.epoch == int(m.epoch)}.values()),
        dev_losses=[(m.epoch, m.loss) for m in metrics if m.split == "dev"],
    )
    write_whole(folder / "result.json", json.dumps(asdict(result)).encode())
    return result


def read_result(folder: Path, case: Case) -> Result | None:
    """The result of a run; None if it is not finished.

    Raises
    ------
    RunError
        The folder is of other settings, or the result is no such file.
    """
    from gatewise.tasks.digit_sum import TASK
    from gatewise.train.config import read_config

    config = folder / "config.toml"
    if config.is_file():
        _, settings = read_config(config, {TASK.name: TASK.config})
        if settings != case.config:
            raise RunError(f"{folder} is a run of other settings: give another --run, or remove it")
    path = folder / "result.json"
    if not path.is_file():
        return None
    try:
        kept = json.loads(path.read_text())
        return Result(**kept | {"dev_losses": [(epoch, loss) for epoch, loss in kept["dev_losses"]]})
    except (ValueError, TypeError, KeyError) as error:
        raise RunError(f"{path} cannot be read as a result ({error}): remove it") from error
