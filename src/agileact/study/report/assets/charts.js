/* Charts: drawn by Plotly when they come near the view, and again when what they show has changed. */

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
  const switched = ["lines", "parallel"].includes(block.form) && arms.length > 0;
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
  const tools = element("span", { class: "tools" });
  if (block.log_y) {
    if (state.log[block.id] === undefined) state.log[block.id] = true;
    const toggle = button("logarithmic", `${block.id}/log`, () => {
      state.log[block.id] = !state.log[block.id];
      toggle.setAttribute("aria-pressed", String(state.log[block.id]));
      draw(chart);
    }, { "aria-pressed": String(state.log[block.id]) });
    tools.append(toggle);
  }
  if (block.log_x !== undefined) {
    state.logX[block.id] ??= block.log_x;
    const toggle = button("logarithmic x", `${block.id}/logx`, () => {
      state.logX[block.id] = !state.logX[block.id];
      toggle.setAttribute("aria-pressed", String(state.logX[block.id]));
      draw(chart);
    }, { "aria-pressed": String(state.logX[block.id]) });
    tools.append(toggle);
  }
  if (block.bands) {
    const select = element("select", { "data-key": `${block.id}/band`, "aria-label": `Spread of the seeds: ${block.title}`, on: { change: () => {
      state.band[block.id] = select.value;
      draw(chart);
    } } }, [["range", "range"], ["quartiles", "middle half"], ["seeds", "each seed"]].map(([value, text]) => element("option", { value, text })));
    select.value = state.band[block.id] || "range";
    tools.append(select);
  }
  for (const format of ["SVG", "PNG", "CSV"]) {
    tools.append(button(format, `${block.id}/${format}`, () => save(chart, format.toLowerCase()), { "aria-label": `${format}: download ${block.title}` }));
  }
  caption.append(tools);
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

/* A figure as it is drawn now, or the numbers that it is drawn from. */
async function save(chart, format) {
  const name = chart.block.id.replaceAll(/[^\w-]+/g, "_").slice(0, 80);
  if (chart.stale) draw(chart);
  const link = element("a", { download: `${name}.${format}` });
  if (format === "csv") link.href = URL.createObjectURL(new Blob([drawnNumbers(chart.block)], { type: "text/csv" }));
  else link.href = await Plotly.toImage(chart.plot, { format, width: chart.plot.clientWidth, height: chart.plot.clientHeight, scale: format === "png" ? 2 : 1 });
  link.click();
  if (format === "csv") setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

/* A row a point of a line; of other charts the table. What a spreadsheet would run as a formula stays text. */
function drawnNumbers(block) {
  const quoted = (value) => {
    if (value === null || value === undefined) return "";
    if (typeof value === "number") return String(value);
    const text = /^[=+\-@\t\r]/.test(value) && Number.isNaN(Number(value)) ? `'${value}` : value;
    return `"${text.replaceAll('"', '""')}"`;
  };
  const rows = [];
  if (block.form === "lines") {
    rows.push(["series", "run", block.x, "value", "low", "high", "first quartile", "third quartile"]);
    for (const one of block.series) {
      const x = one.x || block.shared_x;
      const said = (at) => (block.x_ticks || []).find(([place]) => place === at)?.[1] ?? at;
      x.forEach((at, place) => rows.push([one.name, "mean", said(at), ...[one.y, one.low, one.high, one.lower, one.upper].map((values) => values && values[place])]));
      (one.runs || []).forEach((run, number) => one.runs_x.forEach((at, place) => rows.push([one.name, String(number + 1), at, run[place]])));
    }
  } else if (block.table) {
    rows.push(block.table.columns.map((column) => column.title));
    for (const row of block.table.rows) rows.push(row.map((entry) => (typeof entry === "string" ? entry : entry.value ?? entry.text)));
  }
  return rows.map((row) => row.map(quoted).join(",")).join("\n") + "\n";
}

/* What is not near the view is drawn when the page has nothing else to do: a picture of the whole page is complete. */
function drawRest() {
  const next = [...charts.values()].find((chart) => chart.stale && isVisible(chart) && chart.plot.clientWidth);
  if (!next) return;
  draw(next);
  (window.requestIdleCallback || setTimeout)(drawRest);
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

/* A range with room beside its ends, where lines would stop at the frame as if they were cut. */
function roomy(values, share) {
  const [low, high] = [values.reduce((a, b) => Math.min(a, b)), values.reduce((a, b) => Math.max(a, b))];
  const room = share * (high - low || 1);
  return [low - room, high + room];
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
    paper_bgcolor: theme.ground, plot_bgcolor: theme.ground, uirevision: `${state.log[block.id]} ${state.logX[block.id]}`,
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

const FORMS = { parallel: drawParallel, lines: drawLines, intervals: drawIntervals, bars: drawBars };

function drawLines(block, theme, layout, narrow) {
  const traces = [];
  const shown = block.series.filter((one) => one.arm === undefined || armIsShown(one.arm));
  if (block.log_x !== undefined && state.logX[block.id]) logarithmic(layout.xaxis, shown.flatMap((one) => one.x), narrow);
  if (block.log_y && state.log[block.id]) logarithmic(layout.yaxis, shown.flatMap((one) => [...(one.y || []), ...(one.low || []), ...(one.high || [])]), narrow);
  if (block.x_ticks?.length && (block.log_x === undefined || state.logX[block.id])) {
    // Names, or a zero, which a logarithmic axis has no place for.
    layout.xaxis.tickvals = [...block.x_ticks.map(([at]) => at), ...(layout.xaxis.tickvals || [])];
    layout.xaxis.ticktext = [...block.x_ticks.map(([, text]) => plain(text)), ...(layout.xaxis.ticktext || [])];
  }
  if (block.unit_y) {
    Object.assign(layout.yaxis, { range: [-0.03, 1.05], tickformat: ".0%" });
    // The baseline may get there with its last step: what rises at the frame itself would not be seen.
    if (shown.length) layout.xaxis.range = [0, 1.02 * Math.max(...shown.map((one) => one.x[one.x.length - 1]))];
  }
  if (!shown.length) layout.annotations.push(note("No arm is chosen.", theme));
  for (const one of shown) {
    const number = one.arm ?? one.line ?? 0;
    const colour = one.start ? theme.muted : theme.arms[number % COLOURS];
    const dash = one.start ? "dash" : DASHES[look(number).dash];
    const name = plain(short(one.name, 60));
    const x = one.x || block.shared_x;
    const hover = `%{y:.4g} at %{x:~g}<extra>${name}</extra>`;
    if (block.points) { traces.push(...tuningTraces(one, shown, colour, dash, name, theme, layout)); continue; }
    const spread = one.runs ? state.band[block.id] || "range" : "range";
    if (spread === "seeds") {
      for (const run of one.runs) traces.push({ x: one.runs_x, y: run, mode: "lines", line: { width: 1, color: clear(colour, 0.45), dash }, hovertemplate: `one seed: ${hover}` });
    } else if (one.low) {
      const [low, high] = spread === "quartiles" ? [one.lower, one.upper] : [one.low, one.high];
      const edge = one.y ? 0 : 1.5;
      const shared = { x, mode: "lines", line: { width: edge, color: colour, dash }, hovertemplate: hover, hoverinfo: one.y ? "skip" : undefined };
      if (one.y) delete shared.hovertemplate;
      traces.push({ ...shared, y: low }, { ...shared, y: high, fill: "tonexty", fillcolor: clear(colour, one.y ? 0.13 : 0.18) });
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
  // Losses that lie close together may have none of these between them.
  if (ticks.filter((value) => value >= low && value <= high).length < 2) {
    ticks.length = 0;
    const step = even((high - low) / (narrow ? 3 : 5) || high);
    for (let count = Math.max(Math.floor(low / step), 1); count * step <= high + step; count += 1) ticks.push(count * step);
  }
  Object.assign(axis, { tickvals: ticks, ticktext: ticks.map((value) => (value >= 1e5 || value < 1e-4 ? value.toExponential(0) : String(Number(value.toPrecision(6))))) });
}

/* The next of 1, 2, 5, 10, ... */
function even(step) {
  const power = Math.pow(10, Math.floor(Math.log10(step)));
  return power * [1, 2, 5, 10].find((one) => one * power >= step * 0.999);
}

function tuningTraces(one, shown, colour, dash, name, theme, layout) {
  const scores = shown.flatMap((other) => other.y).filter((value) => value !== null);
  const high = scores.length ? Math.max(...scores) : 1;
  const low = scores.length ? Math.min(...scores) : 1;
  if (!scores.length) layout.yaxis.showticklabels = false;
  // Each arm that has lost a point has a row of its own for its crosses, above all that was reached.
  const lost = shown.filter((other) => other.y.includes(null));
  const row = 0.12 + Math.max(lost.indexOf(one), 0) * Math.min(0.08, 0.6 / (lost.length || 1));
  const top = layout.yaxis.type === "log" ? high * Math.pow(Math.max(high / low, 1.2), row) : high + row * (high - low || 1);
  const pick = (keep) => one.x.map((_, place) => place).filter(keep);
  const trace = (places, more, values = one.y) => ({
    x: places.map((place) => one.x[place]), y: places.map((place) => values[place] ?? top), text: places.map((place) => plain(one.text[place])),
    hovertemplate: `%{y:.4g}, %{text}<extra>${name}</extra>`, ...more,
  });
  const symbol = SYMBOLS[look(one.arm).dash];
  // Over another number than the rate, of which each point has its own, there is no order to join points in.
  const joined = one.factor || one.x.map(() => 1);
  const traces = [
    trace(pick((place) => joined[place] === 1 && one.y[place] !== null), { mode: one.factor ? "lines+markers" : "markers", line: { color: colour, dash, width: one.arm === 0 ? 3 : 2 }, marker: { color: colour, size: 7, symbol } }),
    trace(pick((place) => joined[place] !== 1 && one.y[place] !== null), { mode: "markers", marker: { color: colour, size: 8, symbol: `${symbol}-open` } }),
    trace(pick((place) => one.y[place] === null), { mode: "markers", marker: { color: colour, size: 9, symbol: "x" }, hovertemplate: `diverged, %{text}<extra>${name}</extra>` }),
    trace([one.chosen], { mode: "markers", marker: { color: theme.text, size: 16, symbol: "circle-open", line: { width: 2 } }, hovertemplate: `chosen: %{y:.4g}, %{text}<extra>${name}</extra>` }),
  ];
  return traces.filter((made) => made.x.length);
}

/* A line a trial over as many axes, each from 0 (its lowest value) to 1; what diverged ends above. */
function drawParallel(block, theme, layout) {
  const shown = block.series.filter((one) => armIsShown(one.arm));
  const share = (value, axis) => {
    if (value === null) return axis === block.axes[block.axes.length - 1] ? 1.12 : null;
    const scale = axis.log ? Math.log : (number) => number;
    return axis.high === axis.low ? 0.5 : (scale(value) - scale(axis.low)) / (scale(axis.high) - scale(axis.low));
  };
  Object.assign(layout.xaxis, { range: [-0.4, block.axes.length - 0.6], ticklabeloverflow: "allow", tickvals: block.axes.map((_, place) => place), ticktext: block.axes.map((axis) => plain(axis.title)), showgrid: false, fixedrange: true });
  Object.assign(layout.yaxis, { range: [-0.12, 1.22], showticklabels: false, showgrid: false, fixedrange: true });
  block.axes.forEach((axis, place) => {
    layout.shapes.push({ type: "line", x0: place, x1: place, y0: 0, y1: 1, line: { color: theme.muted, width: 1.5 } });
    for (const [value, y] of [[axis.low, -0.06], [axis.high, 1.06]]) layout.annotations.push({ text: String(Number(value.toPrecision(3))), x: place, y, showarrow: false, bgcolor: theme.ground, font: { color: theme.muted } });
  });
  return shown.map((one) => ({
    x: block.axes.map((_, place) => place), y: one.values.map((value, place) => share(value, block.axes[place])), connectgaps: true,
    mode: "lines+markers", line: { width: 1.3, color: clear(theme.arms[one.arm % COLOURS], 0.7), dash: DASHES[look(one.arm).dash] }, marker: { size: 5, color: theme.arms[one.arm % COLOURS] },
    text: one.values.map((value) => (value === null ? "none" : String(value))), hovertemplate: `%{text}<extra>${plain(short(one.name, 60))}</extra>`,
  }));
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
  // Plotly leaves room for points, not for lines; and without any it would invent numbers.
  const known = block.series.filter((one) => one.mean !== null).flatMap((one) => [one.mean, ...one.points, ...(one.interval || []), ...(one.second || [])]);
  layout.xaxis.range = roomy([0, ...known], 0.04);
  if (!known.length) layout.xaxis.showticklabels = false;
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
