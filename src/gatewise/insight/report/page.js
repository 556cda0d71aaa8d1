"use strict";
// Draws the charts of the page, and hands them what is chosen in the lists.
{
  const { charts, data } = JSON.parse(document.getElementById("numbers").textContent);

  async function draw(element) {
    const chart = charts[element.dataset.chart];
    // Vega writes what it computes into its rows: each chart has copies.
    const rows = chart.data.flatMap((name) => data[name]).map((row) => ({ ...row }));
    try {
      const { view } = await vegaEmbed(element, chart.spec, {
        actions: false,
        ast: true, // expressions are interpreted: the page's policy allows no text to become code
        defaultStyle: false, // page.css has what is needed
        patch: (spec) => {
          spec.data.find((source) => source.name === "rows").values = rows;
          return spec;
        },
        renderer: chart.renderer,
        tooltip: { disableDefaultStyle: true },
      });
      return { chart, view };
    } catch (error) {
      element.classList.add("failed");
      element.textContent = `This chart could not be drawn: ${error.message}`;
      console.error(error);
      return null;
    }
  }

  async function drawAll(group) {
    return (await Promise.all([...group.querySelectorAll("[data-chart]")].map(draw))).filter((drawn) => drawn !== null);
  }

  async function choose(group, drawn, control) {
    const parameter = control.dataset.parameter;
    const value = Number(control.value);
    for (const block of group.querySelectorAll(`[data-when="${parameter}"]`)) {
      block.hidden = Number(block.dataset.value) !== value;
    }
    const changed = drawn.filter(({ chart }) => chart.spec.params?.some(({ name }) => name === parameter));
    await Promise.all(changed.map(({ view }) => view.signal(parameter, value).runAsync()));
  }

  // For whoever waits until all is drawn, such as a test.
  async function say(drawing) {
    document.documentElement.dataset.drawn = "some";
    await drawing;
    document.documentElement.dataset.drawn = "all";
  }

  async function listen(group) {
    const drawn = await drawAll(group);
    const controls = [...group.querySelectorAll("[data-parameter]")];
    for (const control of controls) {
      control.addEventListener("change", () => say(choose(group, drawn, control)));
      await choose(group, drawn, control); // which block is seen; and a browser may remember an earlier choice
    }
    for (const { chart, view } of drawn.filter(({ chart }) => chart.picks !== null)) {
      const [parameter, field] = chart.picks;
      const control = controls.find((one) => one.dataset.parameter === parameter);
      view.addEventListener("click", (event, item) => {
        if (item?.datum?.[field] !== undefined) {
          control.value = item.datum[field];
          say(choose(group, drawn, control));
        }
      });
    }
  }

  const groups = [...document.querySelectorAll(".chosen")];
  const others = [...document.querySelectorAll("[data-chart]")].filter((element) => element.closest(".chosen") === null);
  say(Promise.all([...groups.map(listen), ...others.map(draw)]));
}
