"""Time in turns: who is measured comes again and again, so that what disturbs the machine disturbs all of them."""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

FEWEST_TURNS = 5

SETTLING = 0.02
"""Seconds of rest before each turn: threads that have just finished spin for a while in wait of more work, and one
library's would take the cores from the next one's turn."""


@dataclass(frozen=True)
class Timing:
    """The times of one peer.

    Parameters
    ----------
    milliseconds : tuple of float
        Of one call, the mean within each turn.
    rounds : tuple of int
        In which round each turn was.
    calls : int
        In the first turn.

    Examples
    --------
    >>> t = Timing((1.0, 2.0, 4.0), (0, 1, 2), 10)
    >>> t.median, t.quartiles
    (2.0, (1.5, 3.0))
    """

    milliseconds: tuple[float, ...]
    rounds: tuple[int, ...]
    calls: int

    @property
    def median(self) -> float:
        """Milliseconds of a call."""
        return statistics.median(self.milliseconds)

    @property
    def quartiles(self) -> tuple[float, float]:
        """The first and the third."""
        return _quartiles(self.milliseconds)

    @property
    def spread(self) -> float:
        """Half the range between the quartiles, as a share of the median."""
        low, high = self.quartiles
        return (high - low) / 2 / self.median

    def ratio(self, own: "Timing") -> float:
        """Tell how many times as long this takes as `own`, by the medians."""
        return self.median / own.median

    def paired(self, own: "Timing") -> "Ratio":
        """Tell how many times as long this takes as `own` within each round that both took a turn in.

        Where the machine is slower for a while, both are, and their ratio stays.

        Examples
        --------
        >>> Timing((2.0, 8.0), (0, 2), 1).paired(Timing((1.0, 1.0, 2.0), (0, 1, 2), 1))
        Ratio(values=(2.0, 4.0))
        """
        others = dict(zip(own.rounds, own.milliseconds, strict=True))
        pairs = zip(self.rounds, self.milliseconds, strict=True)
        return Ratio(tuple(t / others[r] for r, t in pairs if r in others))

    def ratio_quartiles(self, own: "Timing") -> tuple[float, float]:
        """Give the quartiles of the ratio within each round that both took a turn in.

        Examples
        --------
        >>> Timing((2.0, 8.0), (0, 2), 1).ratio_quartiles(Timing((1.0, 1.0, 2.0), (0, 1, 2), 1))
        (2.5, 3.5)
        """
        return _quartiles(self.paired(own).values or (self.ratio(own),))


@dataclass(frozen=True)
class Ratio:
    """Ratios of two that took turns, round by round.

    Parameters
    ----------
    values : tuple of float
        One for each round, at least one.

    Examples
    --------
    >>> r = Ratio((1.0, 2.0, 3.0))
    >>> r.median, r.quartiles, r.spread
    (2.0, (1.5, 2.5), 0.25)
    """

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        """The ratio in the middle."""
        return statistics.median(self.values)

    @property
    def quartiles(self) -> tuple[float, float]:
        """The first and the third."""
        return _quartiles(self.values)

    @property
    def spread(self) -> float:
        """Half the range between the quartiles, as a share of the median."""
        low, high = self.quartiles
        return (high - low) / 2 / self.median


def measure(
    calls: Mapping[str, Callable[[], object]],
    repeats: int,
    turn: float,
    seconds: float,
    clock: Callable[[], float] = time.perf_counter,
    prepare: Callable[[str], object] = lambda name: None,
) -> dict[str, Timing]:
    """Time calls in turns. Each must have been called before.

    A turn is as many calls as fill `turn`, timed together, after one that is not timed where a call is shorter than the
    turn. In every second round the order is reversed, so that nobody always comes after the same one.

    Parameters
    ----------
    calls : mapping of str to callable
        Who takes turns.
    repeats : int
        Rounds.
    turn : float
        Seconds that a turn takes at least.
    seconds : float
        Whose turns would take longer than this takes fewer, spread over the rounds, but `FEWEST_TURNS`.
    clock : callable
        Tells the time in seconds.
    prepare : callable
        Takes the name of who comes next before each turn, untimed, such as to set its number of threads.

    Returns
    -------
    dict of str to Timing
        The times of each.

    Examples
    --------
    >>> len(measure({"nothing": lambda: None}, repeats=3, turn=1e-4, seconds=1)["nothing"].milliseconds)
    3
    """
    chunks, turns = {}, {}
    for name, call in calls.items():
        prepare(name)
        chunks[name], length = _calibrate(call, turn, clock)
        affordable = int(seconds / max(length, turn))
        turns[name] = min(repeats, max(affordable, FEWEST_TURNS))
    times: dict[str, list[float]] = {name: [] for name in calls}
    rounds: dict[str, list[int]] = {name: [] for name in calls}
    counts: dict[str, int] = {}
    names = list(calls)
    for at in range(repeats):
        for name in reversed(names) if at % 2 else names:
            if not _takes_turn(at, turns[name], repeats):
                continue
            prepare(name)
            took, count = _take_turn(calls[name], chunks[name], turn, clock)
            times[name].append(took * 1e3)
            rounds[name].append(at)
            counts.setdefault(name, count)
    return {name: Timing(tuple(times[name]), tuple(rounds[name]), counts[name]) for name in calls}


def _calibrate(call: Callable[[], object], turn: float, clock: Callable[[], float]) -> tuple[int, float]:
    """How many calls to make between two looks at the clock, and how long one takes."""
    count = 1
    while True:
        start = clock()
        for _ in range(count):
            call()
        took = clock() - start
        if took >= turn / 8:
            return count, took / count
        count *= 2


def _take_turn(call: Callable[[], object], chunk: int, turn: float, clock: Callable[[], float]) -> tuple[float, int]:
    """Seconds of one call, and how many there were."""
    if chunk > 1:
        call()
    count = 0
    start = clock()
    while True:
        for _ in range(chunk):
            call()
        count += chunk
        took = clock() - start
        if took >= turn:
            return took / count, count


def _takes_turn(at: int, turns: int, repeats: int) -> bool:
    """Whether one of so many turns, spread evenly over the rounds, falls on this one."""
    return (at + 1) * turns // repeats > at * turns // repeats


def _quartiles(values: list[float] | tuple[float, ...]) -> tuple[float, float]:
    if len(values) == 1:
        return values[0], values[0]
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, high
