"""The page of a report: its numbers, its safety, and how it behaves in a real browser."""

import base64
import hashlib
import itertools
import json
import math
import re
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from browser import browser_or_skip
from gatewise.insight.gradient_flow import gradient_flow
from gatewise.insight.report.charts import class_bars, confusion, constant_bars, curve
from gatewise.insight.report.flow import ALL, flow_blocks, meaning
from gatewise.insight.report.gates import CELLS, Looked, gate_blocks, thinning
from gatewise.insight.report.page import (
    Card,
    Cards,
    Chart,
    Charts,
    Chosen,
    Folded,
    Page,
    Rows,
    Section,
    Table,
    Text,
    When,
    _charts_in,
    as_json,
    render,
)
from gatewise.insight.trace import record
from gatewise.nn import LSTM

HOSTILE = [
    "</script><script>window.hacked=1</script>",
    '"><img src=x onerror="window.hacked=1">',
    "${window.hacked=1} {{7*7}} {% raw %}",
    "' || (window.hacked=1) || '\u2028\u2029<!--",
]
PIXEL = base64.b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQAAAABJRU5ErkJggg==")


def looked(model, steps=6, name="a sequence", seed=0, reads=()):
    x = torch.randn(steps, 1, 4, generator=torch.Generator().manual_seed(seed))
    with record(model) as traces, torch.no_grad():
        model(x)
    return Looked(name, Card([name], text="1 2 3"), traces, reads)


def a_lstm(hidden=5, layers=2, **options):
    torch.manual_seed(0)
    return LSTM(4, hidden, layers, **options)


def a_flow(model, steps=6):
    x = torch.randn(steps, 3, 4, generator=torch.Generator().manual_seed(1))
    return gradient_flow(model, x, lambda output: output[0][-1].sum())


def a_page(names=HOSTILE):
    """All kinds of blocks, with texts that would run if any of them were taken for code."""
    model = a_lstm()
    sequences = [looked(model, name=name, seed=seed, reads=list("abcdef")) for seed, name in enumerate(names)]
    matrix = np.diag([3, 2, 1, 1]) + np.eye(4, k=1, dtype=int)
    lines = {"train": [(1, 2.0), (2, 1.0), (3, 0.5)], "dev": [(1, 2.5), (2, 1.5)]}
    blocks = [
        *map(Text, names),
        Table(names[0], names, [names, names], names[2:]),
        Folded(names[1], [Table("folded", ("a", "b"), [names[:2]])]),
        Cards([Card(names, PIXEL, names[1]), Card(names, text=names[0])]),
        Charts([curve("loss", "nats", lines, 2), class_bars("By class", "class", names, [3, 2, 1, 1], [4, 3, 2, 1])]),
        confusion("class", names, matrix),
    ]
    gates, flow = gate_blocks(sequences), flow_blocks(a_flow(model))
    return Page(names[0], names, [Section(names[1], blocks), Section("Gates", gates), Section("Flow", flow)])


class Elements(HTMLParser):
    """Lists the elements of a page and the content of those that hold scripts and styles."""

    def __init__(self, content):
        super().__init__()
        self.tags, self.attributes, self.raw, self.inside = [], [], [], None
        self.feed(content)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag in ("script", "style"):
            self.inside = (tag, dict(attrs).get("type"))
            self.raw.append([*self.inside, ""])

    def handle_endtag(self, tag):
        self.inside = None

    def handle_data(self, data):
        if self.inside:
            self.raw[-1][2] += data


@pytest.fixture(scope="module")
def content():
    return render(a_page()).decode()


def chart_rows(blocks, name):
    return next(rows.rows for chart in _charts_in(blocks) for rows in chart.data if rows.name == name)


# --- what is in the file ------------------------------------------------------------------------------------


def test_no_text_becomes_an_element(content):
    plain = render(a_page(["one", "two", "three", "four"])).decode()
    assert Elements(content).tags == Elements(plain).tags
    assert not [name for name, _ in Elements(content).attributes if name.startswith("on")]


def test_the_policy_lets_run_what_is_in_the_page_and_nothing_else(content):
    found = Elements(content)
    meta = re.search(r'Content-Security-Policy" content="([^"]*)"', content)[1].replace("&#39;", "'")
    rules = dict(part.split(" ", 1) for part in meta.split("; "))

    def hashes(tag):
        texts = [text for name, kind, text in found.raw if name == tag and kind is None]
        return {f"'sha256-{base64.b64encode(hashlib.sha256(t.encode()).digest()).decode()}'" for t in texts}

    assert rules["default-src"] == "'none'"
    assert set(rules["script-src"].split()) == hashes("script")
    assert set(rules["style-src"].split()) == hashes("style")
    assert set(rules) == {"default-src", "script-src", "style-src", "img-src", "base-uri", "form-action"}


def test_nothing_in_the_file_is_fetched(content):
    for name, value in Elements(content).attributes:
        if name in ("src", "href", "action", "srcset", "data"):
            assert value.startswith(("data:", "#")), (name, value)
    assert "url(" not in Elements(content).raw[0][2]
    assert len(content) < 1_500_000


@pytest.mark.parametrize("character", ["<", ">", "&", "\u2028", "\u2029"])
def test_json_that_no_text_can_end(character):
    written = as_json({"a": f"x{character}y"})
    assert character not in written
    assert json.loads(written) == {"a": f"x{character}y"}


def test_json_of_numbers_that_are_none():
    with pytest.raises(ValueError, match="not JSON compliant"):
        as_json({"a": math.nan})


def test_a_page_without_charts_has_no_script():
    plain = Elements(render(Page("a", ["b"], [Section("c", [Text("d"), Cards([]), Charts([])])])).decode())
    assert "script" not in plain.tags


# --- the numbers --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("steps", "hidden"), [(6, 5), (600, 150)])
def test_the_heat_maps_hold_the_trace(steps, hidden):
    model = a_lstm(hidden, bidirectional=True)
    sequences = [looked(model, steps), looked(model, steps // 2, seed=1)]
    blocks = gate_blocks(sequences)
    for name in "ifgoch":
        rows = chart_rows(blocks, f"gate {name}")
        assert [(row["sample"], row["layer"]) for row in rows] == [(s, n) for s in range(2) for n in range(4)]
        for row in rows:
            (trace,) = sequences[row["sample"]].traces[""]
            whole = getattr(trace.layers[row["layer"]], name)[:, 0]
            shown = whole[:: row["every"]][:, row["units"]]
            torch.testing.assert_close(torch.tensor(row["values"]), shown.flatten(), atol=5.1e-4, rtol=0)
            assert shown.numel() <= CELLS
    texts = " ".join(block.text for block in blocks if isinstance(block, Text))
    assert ("every second step and every 6th unit is shown" in texts) == (steps == 600)
    assert ("more than can be drawn" in texts) == (steps == 600)


@pytest.mark.parametrize("steps", [1, 28, 513, 1000, 100_000])
@pytest.mark.parametrize("units", [1, 128, 4096])
def test_no_more_is_drawn_than_there_is_room_for(steps, units):
    for room in (64, CELLS):
        every_step, every_unit = thinning(steps, units, room)
        drawn = -(-steps // every_step) * -(-units // every_unit)
        assert 0 < drawn <= room
        assert steps * units > room or steps > 512 or (every_step, every_unit) == (1, 1)


def test_the_lags_are_those_of_the_flow():
    flow = a_flow(a_lstm())
    blocks = flow_blocks(flow)
    for row in chart_rows(blocks, "lags"):
        layer = flow.layers[row["layer"]]
        if row["path"] == ALL:
            expected = layer.decay
        else:
            name = {"along c alone": "cell"}.get(row["path"], row["path"].removeprefix("through "))
            whole = torch.linalg.vector_norm(layer.lags[0]) / math.sqrt(3)
            expected = layer.lag_paths[:, layer.names.index(name)] / whole
        torch.testing.assert_close(torch.tensor(row["values"]), expected.float(), rtol=1e-3, atol=1e-30)
    of_first = [row["units"] for row in chart_rows(blocks, "constants") if row["layer"] == 0]
    assert sum(of_first) == 5


@pytest.mark.parametrize(("cell", "charts"), [(nn.GRU, 2), (nn.RNN, 1), (LSTM, 2)])
def test_a_flow_of_each_cell(cell, charts):
    torch.manual_seed(0)
    blocks = flow_blocks(a_flow(cell(4, 3)))
    assert len(list(_charts_in(blocks))) == charts
    (table,) = [block for block in blocks if isinstance(block, Table)]
    assert len(table.rows) == 1 and all(len(row) == len(table.columns) for row in table.rows)


def test_layers_that_get_no_gradient_are_said_to_learn_nothing():
    model = nn.Sequential(a_lstm(3, 1))
    for weight in model.parameters():
        nn.init.zeros_(weight)
    x = torch.zeros(4, 2, 4)
    flow = gradient_flow(model, x, lambda output: (0 * output[0]).sum())
    assert meaning(flow.layers[0]) == "So nothing is learned through it."
    assert not [chart for chart in _charts_in(flow_blocks(flow)) if chart.title == "Gradient over lag"]


def test_the_horizon_in_plain_words():
    torch.manual_seed(0)
    model = LSTM(4, 3)
    with torch.no_grad():
        for weight in model.parameters():
            weight.zero_()
        short = meaning(a_flow(model, steps=9).layers[0])
        model.gates().f.bias_ih.fill_(5)
        long = meaning(a_flow(model, steps=9).layers[0])
        model.gates().g.weight_hh.fill_(5)
        grown = meaning(a_flow(model, steps=9).layers[0])
    assert "hardly teaches" in short
    assert "even what it read first can teach it" in long
    assert "grown on its way" in grown


def test_long_curves_are_thinned_and_keep_their_end():
    points = [(epoch, 1.0) for epoch in range(1, 5001)]
    chart = curve("loss", "nats", {"train": points}, None)
    epochs = [row["epoch"] for row in chart.data[0].rows]
    assert len(epochs) <= 2000 and epochs[-1] == 5000
    assert "Every third point is drawn." in chart.caption


def test_a_loss_of_zero_has_no_logarithm():
    chart = curve("loss", "nats", {"train": [(1, 1.0), (2, 0.0)]}, None)
    assert '"log"' not in json.dumps(chart.spec)


def test_values_that_are_all_the_same_have_their_tick():
    chart = curve("accuracy", "share", {"train": [(1, 1 / 6), (2, 1 / 6)]}, None)
    y = chart.spec["layer"][0]["encoding"]["y"]
    low, high = y["scale"]["domain"]
    assert low < 1 / 6 < high and y["axis"]["values"] == [1 / 6]


# --- in a browser -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser():
    browser = browser_or_skip()
    yield browser
    browser.close()


@pytest.fixture(scope="module")
def path(content, tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(content, encoding="utf-8")
    return path


@pytest.fixture
def opened(browser, path):
    browser.complaints.clear()
    browser.requests.clear()
    browser.open(path)
    return browser


PICTURES = """[...document.querySelectorAll("[data-chart]")].map(
    (chart) => chart.querySelector("canvas")?.toDataURL() ?? chart.querySelector("svg").outerHTML
)"""


def titles_changed(browser, action):
    """The titles of the charts that are drawn otherwise after something is done."""
    before = browser.run(PICTURES)
    action()
    browser.wait_for("document.documentElement.dataset.drawn === 'all'")
    titles = browser.run("[...document.querySelectorAll('.chart h3')].map(title => title.textContent)")
    assert len(titles) == len(before)
    return {title for title, old, new in zip(titles, before, browser.run(PICTURES), strict=True) if old != new}


def choose(browser, parameter, value):
    browser.run(
        f"""(() => {{
            const list = document.querySelector("[data-parameter={parameter}]");
            list.value = "{value}";
            list.dispatchEvent(new Event("change"));
        }})()"""
    )


def test_it_renders_without_a_complaint_and_without_a_request(opened):
    charts = opened.run("document.querySelectorAll('[data-chart]').length")
    assert charts == 3 + 8 + 2
    assert min(map(len, opened.run(PICTURES))) > 3000  # an empty one is smaller
    assert opened.complaints == []
    assert {address.split(":")[0] for address in opened.requests} == {"file", "data"}
    assert len([address for address in opened.requests if address.startswith("file")]) == 1


def test_hostile_texts_are_shown_and_do_not_run(opened):
    assert opened.run("window.hacked") is None
    shown = opened.run("document.body.innerText")
    for text in HOSTILE:
        assert " ".join(text.split()) in " ".join(shown.split())
    assert opened.run("document.title") == HOSTILE[0]


def test_the_policy_stops_what_is_not_the_page_s_own(opened):
    opened.run(
        """(() => {
            const script = document.createElement("script");
            script.textContent = "window.hacked = 1";
            document.body.append(script);
            document.body.insertAdjacentHTML("beforeend", "<img src=x onerror='window.hacked=1'>");
        })()"""
    )
    assert opened.run("fetch('https://example.org').then(() => 'fetched', () => 'refused')") == "refused"
    assert opened.run("window.hacked") is None
    assert len([line for line in opened.complaints if "Content Security Policy" in line]) >= 3


LINES = {"The unit's gates", "What the unit writes, keeps and shows"}
MAPS = {"Input gate i", "Forget gate f", "Candidate g", "Output gate o", "Cell state c", "Hidden state h"}


@pytest.mark.parametrize(
    ("parameter", "value", "changed"),
    [
        ("chosen_sample", 2, LINES | MAPS),
        ("chosen_layer", 1, LINES | MAPS),
        ("chosen_unit", 3, LINES),
        ("flow_layer", 1, {"Gradient over lag", "Time constants"}),
    ],
)
def test_each_list_changes_what_it_is_for(opened, parameter, value, changed):
    assert titles_changed(opened, lambda: choose(opened, parameter, value)) == changed
    assert titles_changed(opened, lambda: choose(opened, parameter, 0)) == changed
    assert opened.complaints == []


def test_the_chosen_sequence_is_seen(opened):
    seen = "[...document.querySelectorAll('[data-when]')].filter(b => b.offsetHeight > 0).map(b => b.dataset.value)"
    assert opened.run(seen) == ["0"]
    choose(opened, "chosen_sample", 3)
    opened.wait_for("document.documentElement.dataset.drawn === 'all'")
    assert opened.run(seen) == ["3"]


def test_lists_can_be_reached_and_changed_by_the_keyboard(opened):
    opened.run("document.querySelector('[data-parameter=chosen_unit]').focus()")

    def press_down():
        for kind in ("keyDown", "keyUp"):
            opened("Input.dispatchKeyEvent", type=kind, key="ArrowDown", code="ArrowDown", windowsVirtualKeyCode=40)

    assert titles_changed(opened, press_down) == LINES


def centre_of(browser, title):
    """Where the middle of a chart is in the window, a little above it: in a cell rather than between two."""
    return browser.run(
        f"""(() => {{
            const titles = [...document.querySelectorAll(".chart h3")];
            const chart = titles.find((one) => one.textContent === "{title}").parentElement;
            const canvas = chart.querySelector("canvas");
            canvas.scrollIntoView({{ block: "center" }});
            const box = canvas.getBoundingClientRect();
            return [box.x + 0.45 * box.width, box.y + 0.47 * box.height];
        }})()"""
    )


def tooltip(browser, place):
    browser.run("document.getElementById('vg-tooltip-element')?.classList.remove('visible')")
    browser.point_at(*place)
    browser.wait_for("document.querySelector('#vg-tooltip-element.visible') !== null")
    text = browser.run("document.getElementById('vg-tooltip-element').innerText")
    return dict(re.findall(r"(\w+):?\s+(\S+)", text))


def test_hovering_shows_the_value_of_a_cell(opened):
    choose(opened, "chosen_layer", 1)
    opened.wait_for("document.documentElement.dataset.drawn === 'all'")
    for title, name in (("Forget gate f", "f"), ("Cell state c", "c")):
        shown = tooltip(opened, centre_of(opened, title))
        (trace,) = looked(a_lstm()).traces[""]
        step, unit = int(shown["step"]), int(shown["unit"])
        value = float(shown["value"].replace("−", "-"))
        assert value == pytest.approx(float(getattr(trace.layers[1], name)[step, 0, unit]), abs=6e-4)
        assert shown["read"] == "abcdef"[step]


def test_a_click_on_a_cell_chooses_its_unit(opened):
    place = centre_of(opened, "Output gate o")
    unit = tooltip(opened, place)["unit"]
    assert unit != "0"
    assert titles_changed(opened, lambda: opened.point_at(*place, click=True)) == LINES
    assert opened.run("document.querySelector('[data-parameter=chosen_unit]').value") == unit


@pytest.mark.parametrize(("width", "phone"), [(1280, False), (390, True), (320, True)])
def test_the_page_never_scrolls_sideways(browser, path, width, phone):
    browser.open(path, width, 844, phone)
    assert browser.run("document.documentElement.scrollWidth") == width
    wide = browser.run(
        "[...document.querySelectorAll('canvas, svg')].filter(c => c.getBoundingClientRect().right > innerWidth).length"
    )
    assert wide == 0


def test_charts_follow_the_width_of_the_window(browser, path):
    browser.open(path, 1280)
    widest = "Math.max(...[...document.querySelectorAll('canvas, svg')].map(c => c.getBoundingClientRect().right))"
    assert browser.run(widest) > 600
    browser("Emulation.setDeviceMetricsOverride", width=600, height=900, deviceScaleFactor=1, mobile=False)
    browser.wait_for(f"{widest} <= 600")
    assert browser.run(widest) <= 600


def page_with(browser, folder, *blocks, width=1280):
    """Open a page that has these blocks alone."""
    (folder / "some.html").write_bytes(render(Page("some", ["some"], [Section("some", [*blocks, Chosen([], [])])])))
    browser.complaints.clear()
    browser.open(folder / "some.html", width)
    assert browser.complaints == []


TICKS = (
    """[...document.querySelectorAll("svg .role-axis-label text")].filter((t) => t.getAttribute("opacity") !== "0")"""
)


def test_labels_of_an_axis_never_touch(browser, tmp_path):
    for low, high in ((2.9, 3.7), (1.01, 1.9), (1, 1000), (2.95, 3.02)):
        edges = np.geomspace(low, high, 9)
        rows = [{"layer": 0, "from": start, "to": end, "units": 3} for start, end in itertools.pairwise(edges.tolist())]
        for width in (390, 1280):
            page_with(browser, tmp_path, constant_bars(Rows("constants", rows)), width=width)
            boxes = browser.run(f"{TICKS}.map((t) => t.getBoundingClientRect()).map((b) => [b.left, b.right, b.top])")
            along = sorted((left, right) for left, right, top in boxes if top == max(box[2] for box in boxes))
            assert len(along) > 1
            assert all(after[0] - before[1] > 4 for before, after in itertools.pairwise(along)), (low, high, width)


def test_a_curve_of_one_point_has_its_value_and_is_whole(browser, tmp_path):
    page_with(browser, tmp_path, curve("accuracy", "share", {"train": [(1, 1 / 6)]}, None))
    assert "0.1667" in browser.run(f"{TICKS}.map((t) => t.textContent)")
    inside = """(() => {
        const points = [...document.querySelectorAll("svg .mark-symbol.role-mark path")];
        const box = document.querySelector("svg").getBoundingClientRect();
        return points.map((p) => box.right - p.getBoundingClientRect().right);
    })()"""
    assert min(browser.run(inside)) >= 2


@pytest.mark.parametrize("width", [1280, 700, 390, 391])
def test_a_table_has_a_shadow_where_it_goes_on_alone(browser, tmp_path, width):
    narrow = Table("narrow", ("a", "b"), [("1", "2")])
    wide = Table("wide", [f"column {n}" for n in range(40)], [["1234567"] * 40])
    chart = curve("loss", "nats", {"train": [(1, 1.0)]}, None)
    page_with(browser, tmp_path, narrow, wide, chart, width=width)
    browser.picture(tmp_path / "page.png")
    with Image.open(tmp_path / "page.png") as image:
        pixels = np.asarray(image.convert("L"))
    boxes = browser.run(
        "[...document.querySelectorAll('.scrolls')].map(e => e.getBoundingClientRect()).map(b => [b.right, b.top])"
    )
    darkest = [pixels[round(top) + 2 : round(top) + 6, round(right) - 24 : round(right)].min() for right, top in boxes]
    assert darkest[0] == 255 and darkest[1] < 230


def test_headings_labels_and_descriptions(opened):
    levels = opened.run("[...document.querySelectorAll('h1, h2, h3, h4')].map(h => Number(h.tagName[1]))")
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    assert opened.run("[...document.querySelectorAll('select')].every(s => s.labels.length === 1)")
    assert opened.run("[...document.querySelectorAll('img')].every(i => i.alt !== '')")
    charts = "[...document.querySelectorAll('[data-chart]')]"
    described = "d.getAttribute('role') === 'graphics-document' && d.getAttribute('aria-label')"
    assert opened.run(f"{charts}.every(e => [e, ...e.querySelectorAll('*')].some(d => {described}))")


def test_a_chart_that_cannot_be_drawn_says_so(browser, tmp_path):
    bad = Chart("bad", "", {"mark": "no such mark", "data": {"name": "rows"}, "encoding": {}}, [Rows("none", [])])
    path = tmp_path / "bad.html"
    path.write_bytes(render(Page("bad", ["bad"], [Section("bad", [bad, Chosen([], [When("x", 0, Text("seen"))])])])))
    browser.complaints.clear()
    browser.open(path)
    assert "This chart could not be drawn" in browser.run("document.body.innerText")
    assert browser.complaints
