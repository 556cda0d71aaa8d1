"""The benchmark: its sizes, counts, settings and turns. Nothing here depends on how fast."""

import math
import subprocess
import sys

import pytest

from benching import TINY, TINY_WORD, tiny
from gatewise.bench.config import PEERS, BenchConfig
from gatewise.bench.grid import GRID, Size, flops, read_sizes
from gatewise.bench.protocol import mean_of_hundred
from gatewise.bench.run import PEERS as PEER_OBJECTS
from gatewise.bench.run import run
from gatewise.bench.timing import Timing, measure
from gatewise.errors import ArgumentError


def test_the_grid_is_that_of_the_issue():
    assert len(GRID) == len(set(GRID)) == 14
    assert GRID[5] == Size(64, 28, 28, 100, 2, 2)
    assert [size.D for size in GRID].count(2) == 1
    assert read_sizes(["all"]) == GRID


def test_flops_are_those_of_the_products():
    B, T, I, H, _, D = TINY
    by_hand = sum(D * T * 2 * B * 4 * H * (inputs + H) for inputs in (I, D * H))
    assert flops(TINY, "forward") == by_hand
    assert flops(TINY, "training") == 3 * by_hand
    assert flops(TINY, "forward", steps=7) * T * B == by_hand * 7
    P = 3
    projected = sum(D * T * 2 * B * (4 * H * (inputs + P) + P * H) for inputs in (I, D * P))
    assert flops(TINY, "forward", proj_size=P) == projected


def test_sizes_by_number_by_hand_and_once():
    assert read_sizes(["2", "1,2,3,4,5", "2", TINY_WORD]) == (GRID[1], Size(1, 2, 3, 4, 5, 1), TINY)
    assert read_sizes(["all", "2"], every=GRID[:1]) == GRID[:2]
    assert len(BenchConfig(quick=True).chosen_sizes()) == 2


@pytest.mark.parametrize(
    "word", ["0", "15", "x", "", "1,2", "1,2,3,4,0", "1,2,3,4,5,3", "1,2,3,4,5,6,7", "-1", "1,,2,3,4"]
)
def test_other_sizes_are_refused_in_a_line(word):
    with pytest.raises(ArgumentError, match=r"^sizes has .*, needed a row from 1 to 14, .*: change it$"):
        BenchConfig(sizes=(word,))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"sizes": ()}, "sizes is empty"),
        ({"repeats": 1}, "repeats is 1"),
        ({"seconds": 0.0}, "seconds is 0.0"),
        ({"seconds": math.nan}, "seconds is nan"),
        ({"threads": -1}, "threads is -1"),
        ({"peers": ("keras",)}, "peers is keras, needed is one or more of torch, cell-loop, .*jax, all"),
        ({"kinds": ()}, "kinds is empty"),
        ({"forms": ("sideways",)}, "forms is sideways"),
        ({"malloc": "jemalloc"}, "malloc is jemalloc, needed is one of default, tuned, both: change it"),
    ],
)
def test_other_settings_are_refused_in_a_line(changes, says):
    with pytest.raises(ArgumentError, match=says) as caught:
        BenchConfig(**changes)
    assert "\n" not in str(caught.value)


def test_files_are_refused_before_the_time_is_spent(tmp_path):
    lines = []
    (tmp_path / "x-tuned.png").mkdir()
    for changes in (
        {"json": tmp_path / "none" / "x.json"},
        {"json": tmp_path},
        {"figure": tmp_path / "none" / "x.png"},
        {"figure": tmp_path / "x.png", "malloc": "both"},  # of the second run
    ):
        with pytest.raises(ArgumentError, match=r"change it$"):
            run(tiny(**changes), say=lines.append)
    with pytest.raises(ArgumentError, match=r"figure is .*x\.bmp, needed is a name that ends in \.png"):
        tiny(figure=tmp_path / "x.bmp")
    assert not lines


@pytest.mark.parametrize("figure", ["both.png", "here/../both.png"])
def test_two_files_of_one_name_are_refused(tmp_path, figure):
    (tmp_path / "here").mkdir()
    lines = []
    with pytest.raises(ArgumentError, match=r"json and figure are both .*both\.png, needed are two files: change one$"):
        run(tiny(json=tmp_path / "both.png", figure=tmp_path / figure), say=lines.append)
    assert not lines and [path.name for path in tmp_path.iterdir()] == ["here"]


@pytest.mark.parametrize("word", ["100000,100000,1000,10,1", "1,1,1000000,1000000,1", "1,1,1,2000000,1"])
@pytest.mark.parametrize("form", ["plain", "projected"])
def test_sizes_that_no_memory_holds_are_refused_in_a_line(word, form):
    lines = []
    with pytest.raises(
        ArgumentError, match=r"sizes has \(\d.*\), which takes [\d,.]+ GiB at least, \w+, and this"
    ) as caught:
        run(tiny(sizes=(TINY_WORD, word), forms=(form,)), say=lines.append)
    assert not lines and "\n" not in str(caught.value)


def test_the_command_says_the_same():
    config = BenchConfig(sizes=("1", "7"), peers=("all",), threads=2, quick=True)
    assert config.command() == "gatewise bench --sizes 1 7 --peers all --threads 2 --quick"
    assert config.chosen_peers() == PEERS
    assert BenchConfig().command() == "gatewise bench"
    assert tuple(PEER_OBJECTS) == PEERS


def test_the_settings_load_nothing_heavy():
    code = "import gatewise.bench.config, sys; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "numpy", "matplotlib", "jax", "onnxruntime"} & set(loaded)


# --- turns --------------------------------------------------------------------------------------------------


class Clock:
    """A clock that only the calls move."""

    def __init__(self):
        self.now = 0.0
        self.heard = []

    def __call__(self):
        return self.now

    def call(self, name, seconds):
        def run():
            self.now += seconds
            self.heard.append(name)

        return run


def test_turns_are_interleaved_and_long_enough():
    clock = Clock()
    calls = {"quick": clock.call("quick", 0.001), "slow": clock.call("slow", 0.05)}
    times = measure(calls, repeats=4, turn=0.02, seconds=1, clock=clock)
    assert times["quick"].median == pytest.approx(1)
    assert times["slow"].median == pytest.approx(50)
    assert times["quick"].calls >= 20
    assert times["slow"].calls == 1
    assert times["quick"].rounds == times["slow"].rounds == (0, 1, 2, 3)
    turns = "".join(b[0] for a, b in zip(["", *clock.heard], clock.heard, strict=False) if a != b)
    assert turns == "qsqsqsq"  # once to find how long they take, then forth and back: qs qs sq qs sq


def test_the_slow_take_fewer_turns_spread_over_the_rounds():
    clock = Clock()
    calls = {"quick": clock.call("quick", 0.02), "slow": clock.call("slow", 1.0), "slowest": clock.call("slowest", 9.0)}
    times = measure(calls, repeats=21, turn=0.02, seconds=10, clock=clock)
    assert [len(times[name].milliseconds) for name in calls] == [21, 10, 5]
    assert times["slowest"].rounds == (4, 8, 12, 16, 20)


def test_what_a_turn_needs_is_set_before_it_and_not_timed():
    clock = Clock()
    calls = {name: clock.call(name, 0.05) for name in ("one", "two")}

    def prepare(name):
        clock.now += 1
        clock.heard.append(f"set {name}")

    times = measure(calls, repeats=2, turn=0.02, seconds=1, clock=clock, prepare=prepare)
    assert times["one"].median == times["two"].median == pytest.approx(50)
    assert clock.heard == ["set one", "one", "set two", "two"] * 2 + ["set two", "two", "set one", "one"]


def test_ratios_of_made_up_times():
    own, other = Timing((1.0, 2.0, 3.0, 4.0, 5.0), (0, 1, 2, 3, 4), 7), Timing((6.0, 12.0, 60.0), (0, 2, 4), 7)
    assert own.median == 3
    assert own.quartiles == (2, 4)
    assert own.spread == pytest.approx(1 / 3)
    assert other.ratio(own) == 4
    assert other.ratio_quartiles(own) == (5.0, 9.0)  # of 6, 4 and 12


def test_the_notes_protocol_drops_the_first_ten():
    clock = Clock()
    slow_start = iter([1.0] * 10 + [0.002] * 90)

    def call():
        clock.now += next(slow_start)

    assert mean_of_hundred(call, clock) == pytest.approx(2)
    assert next(slow_start, None) is None
