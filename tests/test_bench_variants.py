"""The benchmark of the variants: that it compares, pairs and says the right things, however fast the machine is."""

import json
import platform

import pytest
import torch
from PIL import Image

from benching import TINY, TINY_WORD, one_thread  # noqa: F401 (a fixture of every test)
from gatewise.bench.check import PeerError, difference, disagreement
from gatewise.bench.config import VARIANTS, BenchConfig
from gatewise.bench.grid import GRID, Size
from gatewise.bench.peers import Torch
from gatewise.bench.run import run
from gatewise.bench.timing import Timing
from gatewise.bench.variants.figure import draw_variants
from gatewise.bench.variants.loop import Loop
from gatewise.bench.variants.row import VariantRow
from gatewise.bench.variants.table import head, legend, line
from gatewise.bench.variants.work import ARGUMENTS, draw, of_module, options, training
from gatewise.errors import ArgumentError
from gatewise.nn import LSTM

MASKED = [name for name in ARGUMENTS if name.endswith(("dropout", "zoneout"))]


def tiny(*variants, **changes):
    return BenchConfig(**{"variants": variants, "sizes": (TINY_WORD,), "quick": True, "threads": 1} | changes)


# --- settings -----------------------------------------------------------------------------------------------


def test_each_name_is_a_cell_of_its_own():
    assert tuple(ARGUMENTS) == ("plain", *VARIANTS)
    cells = {name: LSTM(**options(TINY, name)) for name in ARGUMENTS}
    assert len({repr(cell) for cell in cells.values()}) == len(ARGUMENTS)
    assert cells["projection"].proj_size == 3
    assert BenchConfig(variants=("step", "all")).chosen_variants() == VARIANTS
    assert BenchConfig(variants=("slstm", "peephole")).chosen_variants() == ("peephole", "slstm")
    assert BenchConfig().chosen_variants() == ()


def test_their_sizes_are_those_of_the_issue_or_ones_own():
    sizes = BenchConfig(variants=("all",)).chosen_sizes()
    assert sizes == (Size(8, 20, 32, 32, 1, 1), Size(64, 100, 128, 128, 1, 1))
    assert BenchConfig(variants=("all",), quick=True).chosen_sizes() == sizes[:1]
    assert BenchConfig(variants=("all",), sizes=("3", TINY_WORD)).chosen_sizes() == (GRID[2], TINY)


def test_the_command_says_the_same():
    config = BenchConfig(variants=("peephole+coupled", "step"), threads=2)
    assert config.command() == "gatewise bench --variants peephole+coupled step --threads 2"


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"variants": ()}, r"^variants is empty, needed is none, all, or one or more of peephole, .*: change it$"),
        ({"variants": ("gru",)}, r"^variants is gru, needed is none, all"),
        ({"variants": ("none", "step")}, r"^variants is none step, needed is none, all"),
        ({"kinds": ("forward",)}, r"^kinds is forward and variants are asked for, .*: leave out kinds or variants$"),
        ({"forms": ("packed",)}, r"^forms is packed and variants"),
        ({"peers": ("torch", "jax")}, r"^peers is torch jax and variants"),
    ],
)
def test_what_does_not_go_with_variants_is_refused_in_a_line(changes, says):
    with pytest.raises(ArgumentError, match=says) as caught:
        BenchConfig(**{"variants": ("all",)} | changes)
    assert "\n" not in str(caught.value)


def test_training_may_be_asked_for_by_name():
    assert BenchConfig(variants=("all",), kinds=("training",)).chosen_variants() == VARIANTS


def test_peers_as_objects_are_refused():
    lines = []
    with pytest.raises(ArgumentError, match=r"^variants are asked for and peers are given, which have none: leave one"):
        run(tiny("step"), say=lines.append, peers=[Torch()])
    assert not lines


# --- the loop -----------------------------------------------------------------------------------------------


def both(name, seeds=(0, 0), dtype=torch.float64, size=TINY):
    """The results of gatewise and of the loop, each with masks of its seed."""
    work = draw(size, name, dtype)
    loop = Loop(work.lstm)
    found = []
    for seed, network, parameters in (
        (seeds[0], of_module(work.lstm), dict(work.lstm.named_parameters())),
        (seeds[1], loop, loop.parameters),
    ):
        torch.manual_seed(seed)
        found.append(training(network, parameters, work).once())
    return work, *found


@pytest.mark.parametrize("name", ARGUMENTS)
def test_the_loop_computes_what_gatewise_does(name):
    work, own, loop = both(name)
    assert own.keys() == loop.keys()
    of_states = {f"d_{state}_0" for state in work.lstm.variant.states}
    assert own.keys() == {"output", "d_x", *of_states, *(f"d_{n}" for n, _ in work.lstm.named_parameters())}
    assert not any((result == 0).all() for result in own.values())
    # Some hundred sums and products in a row in float64, each off by at most 1.1e-16, relative. The sixth in torch's
    # hardsigmoid is one of float32 and off by 3e-8, relative.
    where, error = difference(loop, own)
    assert error < (1e-6 if name == "hard-sigmoid" else 1e-12), where


@pytest.mark.parametrize("name", MASKED)
def test_other_masks_are_seen(name):
    assert both(name, seeds=(0, 0), dtype=torch.float32)[1]["output"].isfinite().all()
    _, own, loop = both(name, seeds=(0, 1), dtype=torch.float32)
    assert disagreement(loop, own, torch.float32)[0]


def test_a_step_draws_its_masks_anew():
    work = draw(TINY, "zoneout", torch.float32)
    for network in (of_module(work.lstm), Loop(work.lstm)):
        call = training(network, {}, work)
        assert not torch.equal(call.run(), call.run())


# --- the table ----------------------------------------------------------------------------------------------


def made_up(name="peephole", path="kernel: why", **changes):
    rounds = tuple(range(21))
    times = {
        "gatewise": Timing((2.0,) * 10 + (6.0,) * 11, rounds, 9),  # the machine is slower from the eleventh round on
        "plain": Timing((1.6,) * 10 + (4.8,) * 11, rounds, 9),
        "loop": Timing((9.0, 9.0, 27.0, 27.0, 27.0), (4, 8, 12, 16, 20), 1),
    }
    return VariantRow(name, GRID[0], path, **{"timings": times} | changes)


def test_ratios_are_of_the_same_round():
    row = made_up()
    assert row.over_plain().values == pytest.approx((1.25,) * 21)
    assert row.loop_over().values == pytest.approx((4.5,) * 5)
    assert row.over_plain().spread == pytest.approx(0)
    written = row.as_json()
    assert written["over_plain"]["median"] == pytest.approx(1.25)
    assert written["loop_over"]["rounds"] == 5
    assert written["arguments"]["peephole"] is True


def test_the_table_says_what_is_missing_and_fits_a_terminal():
    said = line(made_up(), repeats=21)
    assert said.split() == ["peephole", "kernel", "6.000", "±", "33%", "1.25x", "±", "0%", "4.50x", "±", "0%", "(5)"]
    row = made_up()
    del row.timings["loop"]
    assert line(row, 21).endswith("  n/a")
    assert len(line(row, 21)) == len(head(row.size)[1])
    assert line(made_up(timings={}, wrong="d_x is off"), 21).split()[2:] == ["not", "timed:", "it", "differs"]
    longest = max(ARGUMENTS, key=len)
    words = [*legend(21, 0.02), *head(GRID[5]), line(made_up(longest, path="composite: why"), 21)]
    assert max(map(len, words)) <= 80


@pytest.mark.parametrize("ending", ["png", "pdf", "svg"])
def test_a_figure_of_rows_with_gaps(tmp_path, ending):
    path = tmp_path / f"figure.{ending}"
    alone = made_up("step")
    del alone.timings["loop"]
    draw_variants(path, [made_up(), alone, made_up("slstm", timings={}, wrong="d_x is off")], "a machine")
    assert path.stat().st_size > 5000


# --- runs ---------------------------------------------------------------------------------------------------


def test_a_run_from_end_to_end(tmp_path):
    lines = []
    config = tiny("peephole", "step", json=tmp_path / "b.json", figure=tmp_path / "b.png", isa="baseline")
    before = torch.random.get_rng_state()
    report = run(config, say=lines.append)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert lines[0] == config.command()
    assert [row.name for row in report.variants] == ["plain", "peephole", "step"]
    for row in report.variants:
        assert [len(t.milliseconds) for t in row.timings.values()] == [5, 5, 5]
        assert row.error < 1e-5
        assert 0 < row.fork_join < 1
    assert not report.rows and not report.overhead and not report.notes
    assert report.machine.isa == "baseline"
    written = json.loads((tmp_path / "b.json").read_text())
    assert [row["variant"] for row in written["variants"]] == ["plain", "peephole", "step"]
    assert {name: len(turns["milliseconds"]) for name, turns in written["variants"][1]["turns"].items()} == {
        "gatewise": 5,
        "plain": 5,
        "loop": 5,
    }
    assert written["config"]["variants"] == ["peephole", "step"]
    with Image.open(tmp_path / "b.png") as figure:
        assert figure.width > 500
    assert lines[-2:] == [f"wrote {tmp_path / 'b.json'}", f"wrote {tmp_path / 'b.png'}"]


def test_what_differs_from_the_loop_is_not_timed_and_ends_the_run_with_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr("gatewise.bench.variants.loop.EPSILON", 0.1)
    lines = []
    path = tmp_path / "b.json"
    says = r"^not timed, as it differs from the loop in Python: layer-norm at \(3, 4, 5, 6, 2, 2\): \w+ is off by "
    with pytest.raises(PeerError, match=says):
        run(tiny("layer-norm", "step", json=path), say=lines.append)
    of_layer_norm, of_step = json.loads(path.read_text())["variants"][1:]
    assert of_layer_norm["turns"] == {} and " is off by " in of_layer_norm["wrong"]
    assert of_layer_norm["over_plain"] is None
    assert of_step["turns"]  # the others are timed
    assert any(said.startswith("differs  layer-norm at (3, 4, 5, 6, 2, 2): ") for said in lines)


def test_a_loop_too_slow_for_the_budget_is_named_with_its_time():
    lines = []
    report = run(tiny("peephole", seconds=1e-9), say=lines.append)
    assert list(report.variants[1].timings) == ["gatewise", "plain"]
    assert lines[-1].startswith("n/a  loop: its first call alone took ") and lines[-1].endswith("--seconds 1e-09")


def test_a_projection_of_a_single_unit_is_left_out():
    lines = []
    report = run(tiny("projection", "step", sizes=("2,3,4,1,1",)), say=lines.append)
    assert [row.name for row in report.variants] == ["plain", "step"]
    assert any(said.startswith("projection ") and "needed H of at least 2" in said for said in lines)


def test_an_interrupted_run_keeps_what_it_has(tmp_path):
    path = tmp_path / "b.json"

    def say(said):
        if said.startswith("peephole "):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tiny("all", json=path), say=say)
    assert [row["variant"] for row in json.loads(path.read_text())["variants"]] == ["plain", "peephole"]


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
def test_both_states_of_malloc_in_one_run(tmp_path):
    lines = []
    config = tiny("coupled", malloc="both", json=tmp_path / "b.json", figure=tmp_path / "b.png")
    report = run(config, say=lines.append)
    assert [[row.name for row in one.variants] for one in report.runs()] == [["plain", "coupled"]] * 2
    assert len([said for said in lines if said.startswith("coupled ")]) == 2
    assert (tmp_path / "b-tuned.png").exists()
