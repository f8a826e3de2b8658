/* The page of a report. Everything that a study brings along (names, notes, sentences) becomes text, never markup:
   elements get it by textContent, charts by plain(), which takes away what Plotly would read as a tag or a template. */
"use strict";

const DECISIONS = {
  better: "▼ lower loss",
  worse: "▲ higher loss",
  same: "≈ no difference",
  undecided: "? undecided",
  unstable: "! diverged",
};
const COLOURS = 8;
const DASHES = ["solid", "dash", "dot", "dashdot"];
const DASH_ARRAYS = ["", "6 3", "2 3", "7 3 2 3"];
const SYMBOLS = ["circle", "square", "diamond", "triangle-up"];
const NARROW = 600;
// What fits between the margins of A4 and letter: a chart or two in a row, and two rows with their text on a page; of
// charts with a row an arm one and the text, while there are not so many arms that their names would touch.
const PRINT = { width: 680, half: 325, height: 270, most: 760, row: 20 };
const island = document.getElementById("document");
const live = island.dataset.live === "true";

const state = {
  document: null,
  version: "",
  shown: null,      // names of the arms that are drawn
  task: "*",
  choices: {},      // what was chosen, by the choice's name
  sorts: {},        // column and direction, by the table's name
  log: {},          // whether an axis is logarithmic, by the chart's name
  open: new Set(),  // what is unfolded
  printing: false,
};
const charts = new Map();     // by name: block, plot, near (in or close to view), stale (drawn differently than it should be)
const sections = new Map();   // by name: element, text (the JSON that it was made of)

// -- elements -------------------------------------------------------------------------------------------

function element(tag, options = {}, children = []) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(options)) {
    if (name === "text") made.textContent = value;
    else if (name === "on") for (const [event, run] of Object.entries(value)) made.addEventListener(event, run);
    else if (value !== undefined && value !== null && value !== false) made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children);
  return made;
}

function button(text, key, run, options = {}) {
  return element("button", { type: "button", "data-key": key, on: { click: run }, ...options, text });
}

function look(number) {
  return {
    colour: `var(--c${number % COLOURS})`,
    dash: Math.floor(number / COLOURS) % DASHES.length,
  };
}

function swatch(entry) {
  const space = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(space, "svg");
  svg.setAttribute("class", "swatch");
  svg.setAttribute("viewBox", "0 0 26 12");
  svg.setAttribute("aria-hidden", "true");
  const line = document.createElementNS(space, "line");
  const { colour, dash } = entry.start ? { colour: "var(--muted)", dash: 1 } : look(entry.arm ?? entry.line);
  for (const [name, value] of Object.entries({ x1: 0, x2: 26, y1: 6, y2: 6, "stroke-width": 4 })) line.setAttribute(name, value);
  line.setAttribute("stroke-dasharray", DASH_ARRAYS[dash]);
  line.style.stroke = colour;
  svg.append(line);
  return svg;
}

// -- blocks ---------------------------------------------------------------------------------------------

const MAKERS = {
  paragraph: (block) => element("p", { class: block.tone || null, text: block.text }),
  code: (block) => element("pre", { tabindex: 0, role: "region", "aria-label": block.label, text: block.text }),
  grid: (block, path) => element("div", { class: block.wide ? "grid wide" : "grid" }, block.blocks.map((one) => make(one, path))),
  claim: (block) =>
    element("div", { class: "claim" }, [
      element("span", { class: `badge ${block.decision}`, text: DECISIONS[block.decision] }),
      element("div", {}, [element("p", { text: block.text }), ...(block.more ? [element("p", { class: "more", text: block.more })] : [])]),
    ]),
  details: (block, path) => folded(block.summary, `${path}/${block.summary}`, () => block.blocks.map((one) => make(one, path))),
  table: makeTable,
  choice: makeChoice,
  chart: makeChart,
};

function make(block, path) {
  const made = MAKERS[block.kind](block, path);
  if (block.task !== undefined) {
    made.dataset.task = state.document.tasks.indexOf(block.task);
    made.hidden = !taskIsShown(block.task);
  }
  return made;
}

function taskIsShown(task) {
  return state.task === "*" || state.task === task;
}

/* What is folded away is made when it is first asked for: a page of many arms opens sooner. */
function folded(summary, key, children) {
  const inside = element("div", { class: "folded" });
  const made = element("details", {}, [element("summary", { "data-key": key, text: summary }), inside]);
  const fill = () => { if (!inside.childElementCount) inside.append(...children()); };
  made.addEventListener("toggle", () => {
    if (made.open) fill();
    if (state.printing) return;
    if (made.open) state.open.add(key);
    else state.open.delete(key);
  });
  made.unfold = (open) => {
    if (open) fill();
    made.open = open || state.open.has(key);
  };
  if (state.open.has(key)) { fill(); made.open = true; }
  return made;
}

function makeTable(block) {
  const text = (entry) => (typeof entry === "string" ? entry : entry.text);
  const value = (entry) => (typeof entry === "string" ? null : entry.value);
  const body = element("tbody");
  const heads = [];

  function fill() {
    const sort = state.sorts[block.id];
    const rows = [...block.rows];
    if (sort) {
      const sign = sort.direction === "ascending" ? 1 : -1;
      const numeric = block.columns[sort.column].numeric;
      rows.sort((first, second) => {
        const [a, b] = [first[sort.column], second[sort.column]];
        if (!numeric) return sign * text(a).localeCompare(text(b), undefined, { numeric: true });
        // What has no number stands last in either direction.
        if (value(a) === null || value(b) === null) return (value(a) === null) - (value(b) === null);
        return sign * (value(a) - value(b));
      });
    }
    body.replaceChildren(...rows.map((row) => {
      const header = row.findIndex((entry) => entry.arm !== undefined);
      return element("tr", {}, row.map((entry, place) => {
        const heading = place === (header < 0 ? 0 : header);
        const wide = !block.columns[place].numeric && text(entry).length > 40;
        const options = { class: block.columns[place].numeric ? "numeric" : wide ? "wrap" : null, scope: heading ? "row" : null };
        const children = entry.arm === undefined ? [] : [swatch(entry)];
        return element(heading ? "th" : "td", options, [...children, text(entry)]);
      }));
    }));
    heads.forEach((head, place) => {
      const sorted = sort && sort.column === place ? sort.direction : "none";
      head.setAttribute("aria-sort", sorted);
      head.querySelector(".arrow").textContent = { none: "↕", ascending: "↑", descending: "↓" }[sorted];
    });
  }

  block.columns.forEach((column, place) => {
    const press = () => {
      const before = state.sorts[block.id];
      const again = before && before.column === place && before.direction === "ascending";
      state.sorts[block.id] = { column: place, direction: again ? "descending" : "ascending" };
      fill();
    };
    const press_me = button(`${column.title} `, `${block.id}/${place}`, press);
    press_me.append(element("span", { class: "arrow", "aria-hidden": "true" }));
    heads.push(element("th", { scope: "col", class: column.numeric ? "numeric" : null }, [press_me]));
  });
  fill();
  return element("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": block.caption }, [
    element("table", { id: block.id }, [
      element("caption", { text: block.caption }),
      element("thead", {}, [element("tr", {}, heads)]),
      body,
    ]),
  ]);
}

function makeChoice(block, path) {
  const names = block.options.map((option) => option.text);
  const groups = names.map(() => element("div"));
  const buttons = [];
  let select = null;
  const show = () => {
    const chosen = names.includes(state.choices[block.id]) ? state.choices[block.id] : names[0];
    groups.forEach((group, place) => {
      group.hidden = names[place] !== chosen;
      if (!group.hidden && !group.childElementCount) group.append(...block.options[place].blocks.map((one) => make(one, path)));
    });
    buttons.forEach((one, place) => one.setAttribute("aria-pressed", String(names[place] === chosen)));
    if (select) select.value = String(names.indexOf(chosen));
  };
  const choose = (name) => { state.choices[block.id] = name; show(); };
  const label = element("span", { class: "label", text: block.label });
  const bar = element("div", { class: "chooser", role: "group", "aria-label": block.label }, [label]);
  if (names.length <= 4) {
    names.forEach((name) => buttons.push(button(name, `${block.id}/${name}`, () => choose(name))));
    bar.append(...buttons);
  } else {
    select = element("select", { "data-key": block.id, "aria-label": block.label, on: { change: () => choose(names[Number(select.value)]) } },
      names.map((name, place) => element("option", { value: place, text: name })));
    bar.append(select);
  }
  show();
  return element("div", {}, [bar, ...groups]);
}

// -- arms -----------------------------------------------------------------------------------------------

function armIsShown(number) {
  return state.shown.has(state.document.arms[number]);
}

function chip(number, where) {
  const name = state.document.arms[number];
  const made = button("", `${where}/${name}`, () => {
    if (state.shown.has(name)) state.shown.delete(name);
    else state.shown.add(name);
    armsChanged();
  }, { class: "chip", "aria-pressed": String(armIsShown(number)), "data-arm": number });
  made.append(swatch({ arm: number }), element("span", { text: name }));
  return made;
}

function armsChanged() {
  for (const made of document.querySelectorAll("[data-arm]")) made.setAttribute("aria-pressed", String(armIsShown(Number(made.dataset.arm))));
  for (const chart of charts.values()) keepingFocus(chart.fillLegend);
  describeArms();
  refresh();
}

function describeArms() {
  const summary = document.querySelector("#arms > summary");
  if (summary) summary.textContent = `Arms: ${state.document.arms.filter((name) => state.shown.has(name)).length} of ${state.document.arms.length} shown`;
}

// -- charts ---------------------------------------------------------------------------------------------

const watcher = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    const chart = charts.get(entry.target.dataset.chart);
    if (!chart) continue;
    chart.near = entry.isIntersecting;
    if (chart.near && chart.stale) draw(chart);
  }
}, { rootMargin: "500px 0px" });

function makeChart(block) {
  let chart = charts.get(block.id);
  if (!chart) {
    const plot = element("div", { class: "plot", role: "img" });
    plot.dataset.chart = block.id;
    chart = { plot, near: false, stale: true };
    charts.set(block.id, chart);
  }
  Object.assign(chart, { block, stale: true });
  chart.plot.setAttribute("aria-label", block.label);
  const legend = element("ul", { class: "chips" });
  const arms = [...new Set(block.series.filter((one) => one.arm !== undefined).map((one) => one.arm))];
  const switched = block.form === "lines" && arms.length > 0;
  chart.fillLegend = () => {
    if (!switched) return;
    const few = state.document.arms.length <= 8;
    const hidden = arms.filter((number) => !armIsShown(number)).length;
    const items = arms.filter((number) => few || armIsShown(number)).map((number) => element("li", {}, [chip(number, block.id)]));
    if (!few) {
      const text = hidden ? `Choose arms (${hidden} more)` : "Choose arms";
      items.push(element("li", { class: "choose" }, [button(text, `${block.id}/choose`, () => {
        const panel = document.getElementById("arms");
        panel.open = true;
        panel.scrollIntoView({ block: "center" });
        panel.querySelector("summary").focus({ preventScroll: true });
      })]));
    }
    legend.replaceChildren(...items);
  };
  chart.fillLegend();
  for (const entry of block.legend || []) legend.append(element("li", { class: "chip" }, [swatch(entry), element("span", { text: entry.name })]));
  const caption = element("figcaption", {}, [element("span", { text: block.title })]);
  if (block.log_y) {
    if (state.log[block.id] === undefined) state.log[block.id] = true;
    const toggle = button("logarithmic", `${block.id}/log`, () => {
      state.log[block.id] = !state.log[block.id];
      toggle.setAttribute("aria-pressed", String(state.log[block.id]));
      draw(chart);
    }, { "aria-pressed": String(state.log[block.id]) });
    caption.append(toggle);
  }
  watcher.unobserve(chart.plot);
  watcher.observe(chart.plot);
  chart.plot.style.minHeight = `${height(block, chart.plot.clientWidth || 600)}px`;
  return element("figure", {}, [
    caption,
    chart.plot,
    ...(legend.childElementCount ? [legend] : []),
    ...(block.table ? [folded("Numbers", `${block.id}/numbers`, () => [makeTable(block.table)])] : []),
  ]);
}

function refresh() {
  for (const chart of charts.values()) {
    chart.stale = true;
    if (chart.near && isVisible(chart)) draw(chart);
  }
}

function isVisible(chart) {
  return chart.plot.isConnected && chart.plot.offsetParent !== null;
}

function height(block, width) {
  const rows = block.series.length;
  const fitting = (usual) => 70 + rows * (state.printing ? Math.max(PRINT.row, Math.min(usual, (PRINT.most - 70) / rows)) : usual);
  if (block.form === "intervals") return fitting(width < NARROW ? 52 : 34);
  if (block.form === "bars") return fitting(width < NARROW ? 40 : 28);
  if (block.small || (state.printing && width === PRINT.half)) return 220;
  if (state.printing) return PRINT.height;
  return width < NARROW ? 300 : 380;
}

/* Plotly reads <b>, <a href>, entities and %{...}: what came as text must stay text. */
function plain(text) {
  return String(text).replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;").replaceAll("%{", "%\u200b{").replaceAll(/[\r\n]+/g, " ");
}

function short(text, most) {
  const letters = [...String(text)];
  return letters.length <= most ? String(text) : `${letters.slice(0, most - 1).join("")}…`;
}

function colours() {
  const style = getComputedStyle(document.documentElement);
  const read = (name) => style.getPropertyValue(`--${name}`).trim();
  return {
    text: read("text"), muted: read("muted"), grid: read("grid"), line: read("line"), raised: read("raised"), ground: read("ground"),
    arms: Array.from({ length: COLOURS }, (_, place) => read(`c${place}`)),
  };
}

function clear(colour, alpha) {
  const [r, g, b] = [1, 3, 5].map((place) => parseInt(colour.slice(place, place + 2), 16));
  return `rgba(${r},${g},${b},${alpha})`;
}

function draw(chart) {
  const { block, plot } = chart;
  if (!plot.clientWidth) return;
  // A page is laid out after its charts are drawn, so that the window's width says nothing about the paper's.
  const width = !state.printing ? plot.clientWidth : plot.closest(".grid") ? PRINT.half : PRINT.width;
  chart.stale = false;
  const theme = colours();
  const narrow = width < NARROW;
  const fixed = narrow || window.matchMedia("(pointer: coarse)").matches;
  const axis = { gridcolor: theme.grid, linecolor: theme.line, zerolinecolor: theme.line, zeroline: false, automargin: true, fixedrange: fixed };
  const layout = {
    width, height: height(block, width), autosize: false, showlegend: false, hovermode: "closest", dragmode: fixed ? false : "zoom",
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", uirevision: String(state.log[block.id]),
    font: { family: "system-ui, sans-serif", size: 12, color: theme.text },
    margin: { l: 52, r: 14, t: 10, b: 44 },
    hoverlabel: { bgcolor: theme.raised, bordercolor: theme.line, font: { color: theme.text } },
    xaxis: { ...axis, title: { text: plain(block.x), standoff: 8 } },
    yaxis: { ...axis, title: { text: plain(block.y), standoff: 6 } },
    shapes: [], annotations: [],
  };
  const traces = FORMS[block.form](block, theme, layout, narrow);
  Plotly.react(plot, traces, layout, { displayModeBar: false, responsive: false, staticPlot: state.printing, showTips: false });
  plot.style.minHeight = "";
}

const FORMS = { lines: drawLines, intervals: drawIntervals, bars: drawBars };

function drawLines(block, theme, layout, narrow) {
  const traces = [];
  const shown = block.series.filter((one) => one.arm === undefined || armIsShown(one.arm));
  if (block.log_x) logarithmic(layout.xaxis, shown.flatMap((one) => one.x), narrow);
  if (block.log_y && state.log[block.id]) logarithmic(layout.yaxis, shown.flatMap((one) => [...(one.y || []), ...(one.low || []), ...(one.high || [])]), narrow);
  if (block.unit_y) Object.assign(layout.yaxis, { range: [-0.03, 1.05], tickformat: ".0%" });
  if (!shown.length) layout.annotations.push(note("No arm is chosen.", theme));
  for (const one of shown) {
    const number = one.arm ?? one.line ?? 0;
    const colour = one.start ? theme.muted : theme.arms[number % COLOURS];
    const dash = one.start ? "dash" : DASHES[look(number).dash];
    const name = plain(short(one.name, 60));
    const x = one.x || block.shared_x;
    const hover = `%{y:.4g} at %{x:~g}<extra>${name}</extra>`;
    if (block.points) { traces.push(...tuningTraces(one, shown, colour, dash, name, theme, layout)); continue; }
    if (one.low) {
      const edge = one.y ? 0 : 1.5;
      const shared = { x, mode: "lines", line: { width: edge, color: colour, dash }, hovertemplate: hover, hoverinfo: one.y ? "skip" : undefined };
      if (one.y) delete shared.hovertemplate;
      traces.push({ ...shared, y: one.low }, { ...shared, y: one.high, fill: "tonexty", fillcolor: clear(colour, one.y ? 0.13 : 0.18) });
    }
    if (one.y) {
      const thin = block.shared_x && !one.start;
      const line = { color: thin ? clear(colour, 0.55) : colour, width: one.arm === 0 ? 3 : thin ? 1.3 : 2, dash: thin ? "solid" : dash, shape: one.step ? "hv" : "linear" };
      traces.push({ x, y: one.y, mode: "lines", line, hovertemplate: hover });
    }
  }
  if (block.shared_x) {
    // The start lies on top, or the learned shapes would hide it.
    traces.push(...traces.splice(0, block.series.filter((one) => one.start).length));
  }
  return traces;
}

/* Ticks with whole numbers beside them: Plotly's own write small digits between the powers of ten. */
function logarithmic(axis, values, narrow) {
  const known = values.filter((value) => value > 0);
  axis.type = "log";
  if (!known.length) return;
  const low = known.reduce((a, b) => Math.min(a, b));
  const high = known.reduce((a, b) => Math.max(a, b));
  const decades = Math.log10(high / low);
  const steps = decades > 4 ? [1] : decades > (narrow ? 0.8 : 1.5) ? [1, 2, 5] : [1, 1.2, 1.5, 2, 3, 4, 5, 6, 8];
  const ticks = [];
  for (let power = Math.floor(Math.log10(low)) - 1; power <= Math.ceil(Math.log10(high)) + 1; power += 1) {
    for (const step of steps) ticks.push(step * Math.pow(10, power));
  }
  Object.assign(axis, { tickvals: ticks, ticktext: ticks.map((value) => (value >= 1e5 || value < 1e-4 ? value.toExponential(0) : String(Number(value.toPrecision(2))))) });
}

function tuningTraces(one, shown, colour, dash, name, theme, layout) {
  const scores = shown.flatMap((other) => other.y).filter((value) => value !== null);
  const high = scores.length ? Math.max(...scores) : 1;
  const low = scores.length ? Math.min(...scores) : 1;
  const top = layout.yaxis.type === "log" ? high * Math.pow(high / low || 1, 0.12) * 1.02 : high + 0.12 * (high - low || 1);
  const pick = (keep) => one.x.map((_, place) => place).filter(keep);
  const trace = (places, more, values = one.y) => ({
    x: places.map((place) => one.x[place]), y: places.map((place) => values[place] ?? top), text: places.map((place) => plain(one.text[place])),
    hovertemplate: `%{y:.4g}, %{text}<extra>${name}</extra>`, ...more,
  });
  const symbol = SYMBOLS[look(one.arm).dash];
  const traces = [
    trace(pick((place) => one.factor[place] === 1 && one.y[place] !== null), { mode: "lines+markers", line: { color: colour, dash, width: one.arm === 0 ? 3 : 2 }, marker: { color: colour, size: 7, symbol } }),
    trace(pick((place) => one.factor[place] !== 1 && one.y[place] !== null), { mode: "markers", marker: { color: colour, size: 8, symbol: `${symbol}-open` } }),
    trace(pick((place) => one.y[place] === null), { mode: "markers", marker: { color: colour, size: 9, symbol: "x" }, hovertemplate: `diverged, %{text}<extra>${name}</extra>` }),
    trace([one.chosen], { mode: "markers", marker: { color: theme.text, size: 16, symbol: "circle-open", line: { width: 2 } }, hovertemplate: `chosen: %{y:.4g}, %{text}<extra>${name}</extra>` }),
  ];
  return traces.filter((made) => made.x.length);
}

function note(text, theme) {
  return { text, showarrow: false, xref: "paper", yref: "paper", x: 0.5, y: 0.5, font: { color: theme.muted } };
}

/* Rows from top to bottom; where there is no room beside the chart, the names stand above their rows. */
function nameRows(block, layout, theme, narrow) {
  const count = block.series.length;
  const at = (place) => count - 1 - place;
  Object.assign(layout.yaxis, { range: [-0.7, count - 0.3], tickvals: block.series.map((_, place) => at(place)), ticktext: block.series.map((one) => plain(short(one.name, 32))), fixedrange: true });
  if (narrow) {
    Object.assign(layout.yaxis, { showticklabels: false });
    layout.margin.l = 10;
    for (const [place, one] of block.series.entries()) {
      layout.annotations.push({ text: plain(short(one.name, 44)), xref: "paper", x: 0, xanchor: "left", y: at(place) + 0.42, yanchor: "middle", showarrow: false, bgcolor: theme.ground, borderpad: 1 });
    }
  }
  return at;
}

function drawIntervals(block, theme, layout, narrow) {
  const at = nameRows(block, layout, theme, narrow);
  const traces = [];
  layout.shapes.push({ type: "line", x0: 0, x1: 0, yref: "paper", y0: 0, y1: 1, line: { color: theme.muted, width: 1.5, dash: "dot" } });
  const drop = narrow ? -0.15 : 0;
  const apart = narrow ? 0.19 : 0.24;
  for (const [place, one] of block.series.entries()) {
    const y = at(place) + drop;
    const colour = theme.arms[one.arm % COLOURS];
    const name = plain(short(one.name, 60));
    if (one.mean === null) {
      layout.annotations.push({ text: "a run diverged: no mean", xref: "paper", x: 0.98, xanchor: "right", y, showarrow: false, font: { color: theme.muted } });
      continue;
    }
    traces.push({ x: one.points, y: one.points.map(() => y + apart), mode: "markers", marker: { symbol: "line-ns-open", size: 7, color: colour, opacity: 0.75, line: { width: 1.5, color: colour } }, hovertemplate: `one seed: %{x:.4g}<extra>${name}</extra>` });
    if (one.interval) traces.push({ x: one.interval, y: [y, y], mode: "lines", line: { color: colour, width: 6 }, opacity: 0.65, hovertemplate: `Student: %{x:.4g}<extra>${name}</extra>` });
    if (one.second) traces.push({ x: one.second, y: [y - apart, y - apart], mode: "lines", line: { color: colour, width: 2 }, hovertemplate: `bootstrap: %{x:.4g}<extra>${name}</extra>` });
    traces.push({ x: [one.mean], y: [y], mode: "markers", marker: { color: theme.ground, size: 10, symbol: SYMBOLS[look(one.arm).dash], line: { color: theme.text, width: 2 } }, hovertemplate: `mean: %{x:.4g}<extra>${name}</extra>` });
  }
  return traces;
}

function drawBars(block, theme, layout, narrow) {
  const at = nameRows(block, layout, theme, narrow);
  const drop = narrow ? -0.12 : 0;
  layout.xaxis.rangemode = "tozero";
  layout.bargap = narrow ? 0.6 : 0.35;
  return [{
    type: "bar", orientation: "h",
    x: block.series.map((one) => one.value), y: block.series.map((_, place) => at(place) + drop),
    width: block.series.map(() => (narrow ? 0.4 : 0.65)),
    marker: { color: block.series.map((one) => clear(theme.arms[one.arm % COLOURS], 0.75)) },
    error_x: { type: "data", array: block.series.map((one) => one.spread ?? 0), color: theme.text, thickness: 1.5, width: 4 },
    customdata: block.series.map((one) => plain(short(one.name, 60))),
    hovertemplate: "%{x:.4g}<extra>%{customdata}</extra>",
  }];
}

// -- the page -------------------------------------------------------------------------------------------

function keepingFocus(change) {
  const key = document.activeElement && document.activeElement.dataset ? document.activeElement.dataset.key : undefined;
  change();
  if (key === undefined || (document.activeElement && document.activeElement.dataset.key === key)) return;
  for (const one of document.querySelectorAll("[data-key]")) {
    if (one.dataset.key === key) { one.focus({ preventScroll: true }); return; }
  }
}

function renderHead(found) {
  const parts = [element("h1", { text: found.name }), element("p", { class: "made", text: found.made })];
  if (!found.finished && found.most) {
    parts.push(element("progress", { max: found.most, value: found.done, "aria-label": `${found.done} of at most ${found.most} trials done` }));
  }
  document.getElementById("head").replaceChildren(...parts);
}

function renderBar(found) {
  const links = found.sections.map((one) => element("a", { href: `#${one.id}`, text: one.title }));
  const parts = [element("nav", { "aria-label": "Sections" }, links)];
  if (found.tasks.length > 1) {
    if (state.task !== "*" && !found.tasks.includes(state.task)) state.task = "*";
    const select = element("select", { id: "task", "data-key": "task", "aria-label": "Task", on: { change: () => {
      state.task = select.value === "*" ? "*" : found.tasks[Number(select.value)];
      for (const made of document.querySelectorAll("[data-task]")) made.hidden = !taskIsShown(found.tasks[Number(made.dataset.task)]);
      refresh();
    } } }, [element("option", { value: "*", text: "all tasks" }), ...found.tasks.map((name, place) => element("option", { value: place, text: name }))]);
    select.value = state.task === "*" ? "*" : String(found.tasks.indexOf(state.task));
    parts.push(select);
  }
  const theme = button("", "theme", () => {
    const order = ["auto", "light", "dark"];
    setTheme(order[(order.indexOf(themeChoice()) + 1) % order.length]);
  }, { id: "theme" });
  parts.push(theme);
  document.getElementById("bar").replaceChildren(...parts);
  nameTheme();
}

function renderArms(found) {
  const panel = document.getElementById("arms");
  panel.hidden = found.arms.length < 2;
  const set = (names) => () => { state.shown = new Set(names); armsChanged(); };
  const best = found.shown.map((number) => found.arms[number]);
  panel.replaceChildren(
    element("summary", { "data-key": "arms" }),
    element("div", { class: "chooser" }, [
      button("all", "arms/all", set(found.arms)),
      button("none", "arms/none", set([])),
      ...(best.length < found.arms.length ? [button("the baseline and the best", "arms/best", set(best))] : []),
    ]),
    element("ul", { class: "chips" }, found.arms.map((_, number) => element("li", {}, [chip(number, "arms")]))),
  );
  describeArms();
}

function render(found) {
  const known = state.document ? state.document.arms : [];
  const same = state.document && JSON.stringify([found.arms, found.tasks]) === JSON.stringify([state.document.arms, state.document.tasks]);
  if (!state.shown || !known.length) state.shown = new Set(found.shown.map((number) => found.arms[number]));
  state.document = found;
  document.title = `${found.name} – agileact study`;
  renderHead(found);
  if (!same) { renderBar(found); renderArms(found); }
  const main = document.getElementById("main");
  for (const one of found.sections) {
    const text = JSON.stringify(one);
    const before = sections.get(one.id);
    if (before && before.text === text && same) continue;
    const title = `${one.id}-title`;
    const made = element("section", { id: one.id, "aria-labelledby": title, tabindex: -1 }, [
      element("h2", { id: title, text: one.title }),
      ...one.blocks.map((block) => make(block, one.id)),
    ]);
    if (before) before.element.replaceWith(made);
    else main.append(made);
    sections.set(one.id, { element: made, text });
  }
  for (const [name, chart] of charts) {
    if (!chart.plot.isConnected) { watcher.unobserve(chart.plot); Plotly.purge(chart.plot); charts.delete(name); }
  }
  for (const chart of charts.values()) if (chart.stale && chart.near && isVisible(chart)) draw(chart);
}

/* New numbers without a jump: what was at the top of the window stays there, and so does the focus. */
function update(found) {
  // Of a page that nobody has scrolled that is the title: following a section instead would push the title out when
  // something comes above the sections, as links do with the first trials. The browser's own anchoring rests there, too.
  if (window.scrollY < 1) {
    keepingFocus(() => render(found));
    return;
  }
  const anchor = [...sections.values()].map((one) => one.element).find((one) => one.getBoundingClientRect().bottom > 0);
  const name = anchor && anchor.id;
  const top = anchor ? anchor.getBoundingClientRect().top : 0;
  keepingFocus(() => render(found));
  const now = name && document.getElementById(name);
  if (now) window.scrollBy(0, now.getBoundingClientRect().top - top);
}

// -- light and dark -------------------------------------------------------------------------------------

const system = window.matchMedia("(prefers-color-scheme: dark)");

function themeChoice() {
  return document.documentElement.dataset.choice || "auto";
}

function applyTheme() {
  const chosen = themeChoice();
  const dark = !state.printing && (chosen === "dark" || (chosen === "auto" && system.matches));
  document.documentElement.dataset.theme = dark ? "dark" : "light";
  document.documentElement.style.colorScheme = dark ? "dark" : "light";
}

function nameTheme() {
  document.getElementById("theme").textContent = `Theme: ${{ auto: "automatic", light: "light", dark: "dark" }[themeChoice()]}`;
}

function setTheme(chosen) {
  document.documentElement.dataset.choice = chosen;
  try { localStorage.setItem("agileact-theme", chosen); } catch { /* a file may have no storage */ }
  applyTheme();
  nameTheme();
  refresh();
}

// -- printing -------------------------------------------------------------------------------------------

function print(on) {
  if (state.printing === on) return;
  state.printing = on;
  applyTheme();
  // Sentences belong on paper; the numbers below the charts do not, unless they are unfolded.
  for (const one of document.querySelectorAll("#verdict details, #table details")) one.unfold(on);
  for (const chart of charts.values()) {
    chart.stale = true;
    if (isVisible(chart) && (on || chart.near)) draw(chart);
  }
}

// -- while a study runs ---------------------------------------------------------------------------------

async function poll() {
  const status = document.getElementById("status");
  let wait = 2000;
  try {
    const answer = await fetch(`state?version=${encodeURIComponent(state.version)}`, { cache: "no-store" });
    if (!answer.ok) throw new Error(String(answer.status));
    const news = await answer.json();
    state.version = news.version;
    if (news.document) update(news.document);
    status.textContent = state.document.finished ? "The study is finished." : news.trouble || "Live: the page updates itself while the study runs.";
    if (state.document.finished) wait = 10000;
  } catch {
    status.textContent = "The server does not answer: agileact study watch has ended. What is shown may be old.";
    wait = 5000;
  }
  setTimeout(poll, wait);
}

// -- start ----------------------------------------------------------------------------------------------

try { document.documentElement.dataset.choice = localStorage.getItem("agileact-theme") || "auto"; } catch { /* a file may have no storage */ }
applyTheme();
document.getElementById("page").append(
  element("header", { id: "head" }),
  ...(live ? [element("p", { id: "status", class: "status", role: "status" })] : []),
  element("div", { id: "bar", class: "bar" }),
  element("details", { id: "arms", class: "panel" }),
  element("main", { id: "main" }),
);
render(JSON.parse(island.textContent));
system.addEventListener("change", () => { applyTheme(); refresh(); });
window.addEventListener("beforeprint", () => print(true));
window.addEventListener("afterprint", () => print(false));
window.matchMedia("print").addEventListener("change", (event) => print(event.matches));
let lastWidth = document.documentElement.clientWidth;
let waiting = 0;
window.addEventListener("resize", () => {
  if (state.printing || document.documentElement.clientWidth === lastWidth) return;
  lastWidth = document.documentElement.clientWidth;
  clearTimeout(waiting);
  waiting = setTimeout(refresh, 150);
});
if (live) poll();
