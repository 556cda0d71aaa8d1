"""The figures of traces and gradient flows: what is drawn is what was measured, at any size, in any file."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from gatewise.drawing import as_png, save
from gatewise.errors import ArgumentError
from gatewise.insight.figures import (
    draw_cell,
    draw_comparison,
    draw_gates,
    draw_lags,
    draw_time_constants,
)
from gatewise.insight.gradient_flow import GradientFlow, Lags, gradient_flow
from gatewise.insight.trace import Trace, trace

NAMES = "ifogch"


def traced(T=7, B=3, H=5, lengths=None, **options):
    torch.manual_seed(T + H)
    return trace(nn.LSTM(4, H, **options), torch.randn(T, B, 4), lengths=lengths)


def flow_of(kind=nn.LSTM, T=12, **options):
    torch.manual_seed(T)
    return gradient_flow(kind(4, 6, **options), torch.randn(T, 3, 4), lambda output: output[0][-1].square().sum())


def with_lags(layer, lags):
    """The same layer with other gradients: (N, H) of a single sequence, all of them along the first path."""
    lags = torch.as_tensor(lags, dtype=torch.float64)
    paths = torch.zeros(len(lags), len(layer.names), dtype=torch.float64)
    paths[:, 0] = torch.linalg.vector_norm(lags, dim=1)
    counts = torch.ones(len(lags), dtype=torch.int64)
    return dataclasses.replace(layer, measure=lambda: Lags(lags[:, None], paths, counts))


def with_keeps(layer, keeps):
    """The same layer with other forget gates: one row of (H,), at all steps."""
    return dataclasses.replace(layer, keeps=torch.as_tensor(keeps).expand(len(layer.paths), 1, -1))


def maps(figure):
    """The arrays of the heat maps, (units, T), by name."""
    return {axes.get_title()[0]: axes.images[0].get_array() for axes in figure.axes if axes.images}


def curves(axes):
    return {line.get_label(): np.asarray(line.get_ydata(), dtype=float) for line in axes.lines}


def legend(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def looks(axes):
    """Of the lines with a marker: what tells them apart in grey."""
    lines = [line for line in axes.lines if line.get_marker() not in ("", "None")]
    return [(line.get_marker(), str(line._unscaled_dash_pattern)) for line in lines]


# Gates and cells


def test_the_maps_are_the_trace_with_the_lasting_units_on_top():
    found = traced(num_layers=2, bidirectional=True)
    figure = draw_gates(found, layer=1, direction=1, sequence=2)
    order = found.f[1, 1, :, 2].mean(0).argsort(descending=True)
    drawn = maps(figure)
    assert list(drawn) == list(NAMES)
    for name in NAMES:
        np.testing.assert_allclose(drawn[name], getattr(found, name)[1, 1, :, 2][:, order].T, rtol=0)
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == [str(int(unit)) for unit in order]
    assert figure.get_suptitle() == "layer 1, reverse direction, sequence 2"


def test_the_panels_say_what_they_show():
    found = traced()
    figure = draw_gates(found, title="a title")
    panels = [axes for axes in figure.axes if axes.images]
    titles = [axes.get_title() for axes in panels]
    assert titles[:4] == ["i: input gate", "f: forget gate", "o: output gate", "g: candidate, −1 to 1"]
    assert figure.get_suptitle() == "a title"
    assert "sorted by the mean of their forget gate" in figure.get_supxlabel()
    assert {axes.get_ylabel() for axes in panels} == {"unit (sorted by mean f)", ""}
    assert {axes.get_xlabel() for axes in panels} == {"step t", ""}
    for axes in panels[1:]:
        assert axes.get_shared_x_axes().joined(axes, panels[0]) and axes.get_shared_y_axes().joined(axes, panels[0])
    limits = {axes.get_title()[0]: axes.images[0].get_clim() for axes in panels}
    assert {limits[name] for name in "ifo"} == {(0, 1)} and limits["g"] == (-1, 1)
    for name in "ch":
        most = float(getattr(found, name)[0, 0, :, 0].abs().max())
        assert limits[name] == pytest.approx((-most, most))


def test_every_map_goes_from_dark_to_light_throughout():
    """So that no two values look the same in grey."""
    figure = draw_gates(traced())
    for axes in figure.axes:
        for image in axes.images:
            grey = image.cmap(np.linspace(0, 1, 50))[:, :3] @ (0.299, 0.587, 0.114)
            assert (np.diff(grey) > 0).all()


def test_steps_past_the_length_are_blank_and_do_not_count():
    figure = draw_gates(traced(T=6, lengths=[6, 2, 0]), sequence=1)
    for array in maps(figure).values():
        assert np.ma.getmaskarray(array)[:, 2:].all() and not np.ma.getmaskarray(array)[:, :2].any()
    f = maps(figure)["f"]
    assert (np.diff(f[:, :2].mean(axis=1)) <= 0).all()
    as_png(figure)


def test_a_sequence_without_steps_is_drawn_blank():
    found = traced(T=6, lengths=[6, 2, 0])
    assert all(np.ma.getmaskarray(array).all() for array in maps(draw_gates(found, sequence=2)).values())
    for figure in (draw_gates(found, sequence=2), draw_cell(found, sequence=2)):
        assert len(as_png(figure)) > 1000


@pytest.mark.parametrize(("T", "H"), [(1, 1), (1, 9), (1000, 1), (1000, 512)])
def test_figures_of_a_trace_of_any_size(T, H):
    arrays = {name: np.full((1, 1, T, 1, H), 0.5, dtype=np.float32) for name in NAMES}
    arrays |= {name: np.zeros((1, 1, 1, H), dtype=np.float32) for name in ("h_0", "c_0")}
    found = Trace.from_numpy(arrays)
    assert maps(draw_gates(found))["c"].shape == (H, T)
    assert len(draw_cell(found).axes[0].lines) == min(6, H) + 1
    for figure in (draw_gates(found), draw_cell(found)):
        assert len(as_png(figure)) > 1000


def test_a_cell_that_stays_at_zero_or_is_no_number_is_drawn():
    arrays = traced(T=4, B=1).to_numpy()
    arrays["c"] = np.zeros_like(arrays["c"])
    zero = draw_gates(Trace.from_numpy(arrays))
    assert [axes.images[0].get_clim() for axes in zero.axes if axes.get_title().startswith("c")] == [(-1, 1)]
    arrays["c"][..., 2, 0, :2] = np.nan, np.inf
    found = Trace.from_numpy(arrays)
    assert np.ma.getmaskarray(maps(draw_gates(found))["c"]).sum() == 2
    as_png(draw_cell(found))


def test_a_projected_h_has_rows_of_its_own():
    found = traced(H=6, proj_size=2)
    figure = draw_gates(found)
    np.testing.assert_allclose(maps(figure)["h"], found.h[0, 0, :, 0].T, rtol=0)
    h = next(axes for axes in figure.axes if axes.get_title().startswith("h"))
    assert h.get_ylabel() == "unit of the projection" and not h.get_shared_y_axes().joined(h, figure.axes[0])


def test_the_lines_are_the_cells_and_their_gates():
    found = traced(lengths=[7, 4, 7])
    figure = draw_cell(found, sequence=1, units=[3, 0])
    for axes, name in zip(figure.axes, "cfi", strict=True):
        assert axes.get_ylabel().startswith(f"{name}: ")
        for unit in (3, 0):
            np.testing.assert_allclose(curves(axes)[f"unit {unit}"], getattr(found, name)[0, 0, :, 1, unit], rtol=0)
    assert figure.axes[-1].get_xlabel() == "step t"
    assert legend(figure) == ["unit 3", "unit 0"]
    assert figure.axes[0].get_xlim()[1] > 6  # also past the length


def test_the_units_drawn_are_those_whose_cell_moves_most():
    found = traced(H=9)
    arrays = found.to_numpy()
    arrays["c"] = arrays["c"] * 0 + 1
    arrays["c_0"] = np.ones_like(arrays["c_0"])
    arrays["c"][0, 0, 3, 0, [4, 7, 1]] = 9, -9, 5
    arrays["c_0"][0, 0, 0, 2] = 20
    assert legend(draw_cell(Trace.from_numpy(arrays)))[:4] == ["unit 2", "unit 7", "unit 4", "unit 1"]
    assert len(legend(draw_cell(found))) == 6


def test_lines_differ_in_grey():
    found = looks(draw_cell(traced(H=9), units=range(7)).axes[0])
    assert len(found) == len({marker for marker, _ in found}) == len({dashes for _, dashes in found}) == 7


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"layer": 1}, "layer is 1"),
        ({"direction": 1}, "direction 1"),
        ({"sequence": 3}, "sequence is 3, needed one from 0 to 2"),
        ({"sequence": -1}, "sequence is -1"),
    ],
)
@pytest.mark.parametrize("draw", [draw_gates, draw_cell])
def test_what_a_trace_has_not_is_refused(draw, wrong, words):
    with pytest.raises(ArgumentError, match=words):
        draw(traced(), **wrong)


@pytest.mark.parametrize("units", [[], [5], [-1], [1, 1], [0, 1, 2, 3, 4, 5, 6, 7]])
def test_units_that_cannot_be_drawn_are_refused(units):
    with pytest.raises(ArgumentError, match=r"units are .*, needed from 1 to 7 different numbers from 0 to "):
        draw_cell(traced(H=5 if len(units) < 8 else 9), units=units)


# Gradients


@pytest.mark.parametrize(
    ("kind", "labels", "of"),
    [
        (nn.LSTM, ["cell alone", *(f"by way of {gate}" for gate in "ifgo")], "c"),
        (nn.GRU, ["state alone", *(f"by way of {gate}" for gate in "rzn")], "h"),
        (nn.RNN, ["state alone", "by way of h"], "h"),
    ],
)
def test_the_lines_are_the_paths_and_their_whole(kind, labels, of):
    flow = flow_of(kind)
    (layer,) = flow.layers
    figure = draw_lags(flow, "a title", fraction=0.3)
    (axes,) = figure.axes
    assert legend(figure) == ["whole gradient", *labels]
    assert figure.get_suptitle() == "a title" and axes.get_yscale() == "log"
    assert axes.get_xlabel() == "steps before the loss" and f"dL/d{of}" in axes.get_ylabel()
    drawn = curves(axes)
    at_lag_0 = layer.lags[0].double().square().sum().div(layer.lag_counts[0]).sqrt()
    np.testing.assert_allclose(drawn["whole gradient"], layer.decay * at_lag_0, rtol=1e-5)
    for place, label in enumerate(labels):
        expected = layer.lag_paths[:, place].numpy()
        np.testing.assert_allclose(drawn[label], np.where(expected > 0, expected, np.nan), rtol=1e-6)
    assert len(set(looks(axes))) == len(labels)


def test_the_horizon_is_marked_with_its_steps():
    flow = flow_of(nn.RNN)
    layer = flow.layers[0]
    assert 1 < layer.horizon(0.3) < 12
    (axes,) = draw_lags(flow, fraction=0.3).axes
    words = f"horizon: below 30 % after {layer.horizon(0.3):.0f} steps"
    assert [text.get_text() for text in axes.get_legend().get_texts()] == [words]
    np.testing.assert_allclose(
        next(line for line in axes.lines if line.get_label() == words).get_xdata(), 2 * [layer.horizon(0.3)]
    )


def test_a_panel_for_each_layer_and_six_at_most():
    one = flow_of().layers[0]
    for count, shape in {1: (1, 1), 2: (1, 2), 3: (1, 3), 4: (2, 2), 5: (2, 3), 6: (2, 3)}.items():
        layers = tuple(dataclasses.replace(one, layer=number) for number in range(count))
        axes = [axes for axes in draw_lags(GradientFlow(1.0, layers)).axes if axes.get_visible()]
        assert [panel.get_title(loc="left") for panel in axes] == [f"l{number} (lstm)" for number in range(count)]
        assert axes[0].get_gridspec().get_geometry() == shape
    with pytest.raises(
        ArgumentError, match=r"flow has 7 layers, needed from 1 to 6: give fewer, as with .*layers\[:6\]"
    ):
        draw_lags(GradientFlow(1.0, 7 * (one,)))
    with pytest.raises(ArgumentError, match="flow has 0 layers"):
        draw_lags(GradientFlow(1.0, ()))


@pytest.mark.parametrize(
    ("norms", "words"),
    [
        ([1, 0.5, 0, 0.2, 0], "below 10 % after 4 steps"),
        ([0, 0, 0], "none, as the gradient is 0 at lag 0"),
        ([np.nan, 1, 1], "none, as the gradient is 0 at lag 0, or somewhere not finite"),
        ([1, np.inf, 1], "none, as the gradient is 0 at lag 0, or somewhere not finite"),
        ([1, 1e-300, 0], "below 10 % after 1 step"),
        ([1, 1e30, 1e200], "not below 10 % within 2 steps"),
        ([1], "not below 10 % within 0 steps"),
        ([5, 5, 5], "not below 10 % within 2 steps"),
    ],
)
def test_zeros_and_what_is_no_number_leave_gaps(norms, words):
    layer = with_lags(flow_of().layers[0], [[norm] for norm in norms])
    figure, together = draw_lags(GradientFlow(1.0, (layer,))), draw_comparison({"one": layer})
    whole = curves(figure.axes[0])["whole gradient"]
    finite = [norm if 0 < norm < np.inf else np.nan for norm in norms]
    if max(norms, default=0) < 1e100:  # squares have no room for more
        np.testing.assert_allclose(whole, finite)
    assert figure.axes[0].get_legend().get_texts()[0].get_text().startswith(f"horizon: {words}")
    assert legend(together)[0].startswith(f"one: {words}")
    assert [text.get_text() for text in figure.axes[0].texts] == ["no gradient to draw"] * bool(np.isnan(whole).all())
    for each in (figure, together):
        assert len(as_png(each)) > 1000


@pytest.mark.parametrize(
    ("norms", "low", "high"), [([2, 1e-5, 1e-20], 2e-12, 2), ([2, 4, 8], 2, 8), ([1e-3, 1e-9, 1e20], 1e-9, 1e20)]
)
def test_the_axis_ends_twelve_powers_of_ten_below_the_loss(norms, low, high):
    layer = with_lags(flow_of().layers[0], [[norm] for norm in norms])
    limits = draw_lags(GradientFlow(1.0, (layer,))).axes[0].get_ylim()
    room = max((high / low) ** 0.06, 1.3)
    np.testing.assert_allclose(limits, (low / room, high * room))
    (together,) = draw_comparison({"one": layer}, fraction=0.1).axes
    bottom, top = together.get_ylim()
    assert bottom < 0.1 and top > high / norms[0]


def test_layers_together_are_their_decays():
    flows = {
        f"the {kind.__name__}": flow_of(kind, T=T).layers[0] for kind, T in [(nn.RNN, 20), (nn.GRU, 9), (nn.LSTM, 5)]
    }
    figure = draw_comparison(flows, "a title", fraction=0.02)
    (axes,) = figure.axes
    drawn = curves(axes)
    assert axes.get_title() == "a title" and axes.get_yscale() == "log"
    assert axes.get_xlabel() == "steps before the loss" and axes.get_ylabel() == "share of the gradient that is left"
    for label, (name, layer) in zip(legend(figure), flows.items(), strict=True):
        horizon = layer.horizon(0.02)
        assert label.startswith(f"{name}: ") and (math.isinf(horizon) or f"after {horizon:.0f} step" in label)
        np.testing.assert_allclose(drawn[label], layer.decay, rtol=1e-6)
    assert len(set(looks(axes))) == 3
    assert [0.02, 0.02] in [list(line.get_ydata()) for line in axes.lines]


def test_from_one_to_seven_layers_together():
    layer = flow_of().layers[0]
    assert len(legend(draw_comparison({str(number): layer for number in range(7)}))) == 7
    for count in (0, 8):
        with pytest.raises(ArgumentError, match=f"flows are {count}, needed from 1 to 7"):
            draw_comparison({str(number): layer for number in range(count)})


# Time constants


def test_the_histograms_count_every_unit():
    layer = flow_of(T=60).layers[0]
    measured = layer.unit_horizons(0.2) / math.log(5)
    figure = draw_time_constants(layer, fraction=0.2)
    assert figure.get_suptitle() == "l0 (lstm)" and figure.axes[1].get_xlabel() == "time constant (steps)"
    for axes, values in zip(figure.axes, (layer.time_constants().numpy(), measured.numpy()), strict=True):
        bars = axes.patches
        assert axes.get_xscale() == "log" and axes.get_ylabel() == "number of units"
        assert sum(bar.get_height() for bar in bars) == np.isfinite(values).sum()
        for bar in bars:
            left, right = bar.get_x(), bar.get_x() + bar.get_width()
            inside = ((values > left * 1.0001) & (values < right / 1.0001)).sum()
            assert inside <= bar.get_height()
        median = np.median(values[np.isfinite(values)])
        np.testing.assert_allclose(axes.lines[0].get_xdata(), 2 * [median])
        assert f"median (dashed) {median:.3g} steps" in axes.get_title(loc="left")


def test_infinite_and_missing_ones_are_counted_in_words():
    layer = flow_of().layers[0]
    layer = with_keeps(layer, [0.9, 1.0, 0.0, 0.5, 1.0, 0.99])
    lags = np.stack([[1.0, 1, 1, 1, 0, 0], [0.5, 1, 0.01, 1, 0, 0], [0.01, 1, 0, 1, 0, 0]])
    figure = draw_time_constants(with_lags(layer, lags), title="a title")
    above, below = (axes.get_title(loc="left") for axes in figure.axes)
    assert "3 of 6 units" in above
    assert "not drawn: 2 with forget gates of 1 throughout; 1 with a forget gate of 0" in above
    assert "2 of 6 units" in below
    assert "not drawn: 2 still above 10 % 2 steps back; 2 without gradient at lag 0" in below
    assert figure.get_suptitle() == "a title"
    assert len(as_png(figure)) > 1000


@pytest.mark.parametrize("keeps", [[1.0], [0.5], [0.0], [1e-30], [1 - 1e-7], [0.2, 0.2, 0.2], [1e-30, 1 - 1e-7]])
def test_time_constants_of_any_kind_have_an_axis(keeps):
    layer = with_keeps(flow_of().layers[0], torch.tensor(keeps))
    figure = draw_time_constants(layer)
    low, high = figure.axes[0].get_xlim()
    assert high / low >= 9.99
    assert any(low <= tick <= high for tick in figure.axes[1].get_xticks())
    assert figure.axes[0].get_ylim()[0] == 0
    assert len(as_png(figure)) > 1000


def test_a_gru_has_update_gates_and_a_simple_network_none():
    figure = draw_time_constants(flow_of(nn.GRU).layers[0])
    assert "update gates" in figure.axes[0].get_title(loc="left")
    with pytest.raises(ArgumentError, match="l0 is a srn, which has no gates and so no time constants"):
        draw_time_constants(flow_of(nn.RNN).layers[0])


@pytest.mark.parametrize("fraction", [0, 1, -0.1, math.nan])
def test_fractions_that_are_none_are_refused(fraction):
    flow = flow_of()
    for draw, given in (
        (draw_lags, flow),
        (draw_comparison, {"": flow.layers[0]}),
        (draw_time_constants, flow.layers[0]),
    ):
        with pytest.raises(ArgumentError, match="fraction is"):
            draw(given, fraction=fraction)


# Files


@pytest.mark.parametrize(
    ("ending", "magic"), [("png", b"\x89PNG"), ("pdf", b"%PDF"), ("svg", b"<?xml"), ("PNG", b"\x89PNG")]
)
def test_the_ending_says_the_kind_of_file(tmp_path, ending, magic):
    path = tmp_path / f"figure.{ending}"
    path.write_bytes(b"an old one")
    save(draw_cell(traced()), str(path))
    assert path.read_bytes().startswith(magic)
    assert list(tmp_path.iterdir()) == [path]


def test_other_endings_are_refused(tmp_path):
    with pytest.raises(ArgumentError, match=r"needed is a name that ends in \.png"):
        save(draw_cell(traced()), tmp_path / "figure.jpg")


def test_a_file_that_cannot_be_written_leaves_the_old_one_and_is_named(tmp_path):
    path = tmp_path / "figure.png"
    path.mkdir()
    (path / "kept").touch()
    with pytest.raises(IsADirectoryError) as raised:
        save(draw_cell(traced()), path)
    assert raised.value.filename == str(path)
    assert list(tmp_path.iterdir()) == [path] and (path / "kept").exists()


def test_a_png_has_the_figures_size(tmp_path):
    figure = draw_gates(traced())
    path = tmp_path / "figure.png"
    path.write_bytes(as_png(figure))
    with Image.open(path) as image:
        assert image.size == (1320, 672)


@pytest.mark.parametrize("name", ["$x^{$", "_猫"])
def test_names_that_a_figure_could_take_for_something_else(tmp_path, name):
    flow = flow_of(nn.GRU)
    layer = dataclasses.replace(flow.layers[0], module=name)
    together = draw_comparison({name: layer, "other": layer}, title=name)
    assert len(legend(together)) == 2
    for figure in (together, draw_cell(traced(), title=name), draw_lags(GradientFlow(1.0, (layer,)), title=name)):
        as_png(figure)
    save(draw_time_constants(layer), tmp_path / "figure.svg")
    assert f"{name}.l0 (gru)" in (tmp_path / "figure.svg").read_text()


def test_notebooks_show_them():
    assert traced()._repr_png_().startswith(b"\x89PNG")
    assert flow_of()._repr_png_().startswith(b"\x89PNG")


def test_of_an_empty_batch_nothing_is_drawn():
    with pytest.raises(ArgumentError, match="the trace has no sequence, needed at least one to draw"):
        draw_gates(traced(B=0))
