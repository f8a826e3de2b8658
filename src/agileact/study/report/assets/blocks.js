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
  sorts: {},        // the column's title and the direction, by the table's name
  band: {},         // how the spread of the seeds is drawn, by the chart's name
  logX: {},         // whether the horizontal axis is logarithmic, by the chart's name
  log: {},          // whether an axis is logarithmic, by the chart's name
  open: new Set(),  // what is unfolded
  printing: false,
};
const charts = new Map();     // by name: block, plot, near (in or close to view), stale (drawn differently than it should be)
const sections = new Map();   // by name: element, text (the JSON that it was made of)

/* A name in a script that is written from right to left, or with marks that turn the direction, would rearrange the
   sentence around it, its numbers above all: such names stand between the marks that keep them to themselves. */
const TURNS = /[\u0590-\u08ff\u200e\u200f\u202a-\u202e\u2066-\u2069\ufb1d-\ufdff\ufe70-\ufefc]/;

function isolated(text) {
  if (!TURNS.test(text) || !state.document) return text;
  const names = [state.document.name, ...state.document.arms, ...state.document.tasks].filter((name) => TURNS.test(name));
  if (names.includes(text)) return text;
  return names.sort((a, b) => b.length - a.length).reduce((found, name) => found.replaceAll(name, `\u2068${name}\u2069`), text);
}

// -- elements -------------------------------------------------------------------------------------------

function element(tag, options = {}, children = []) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(options)) {
    if (name === "text") made.textContent = isolated(value);
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

/* A small chart of an interval in a table's cell, which says the same in numbers. */
function interval(bar) {
  const space = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(space, "svg");
  for (const [name, value] of Object.entries({ class: "interval", viewBox: "0 0 120 14", width: 120, height: 14, "aria-hidden": "true" })) svg.setAttribute(name, value);
  const at = (value) => 4 + 112 * (value - bar.from) / (bar.to - bar.from || 1);
  const add = (tag, attributes) => {
    const part = document.createElementNS(space, tag);
    for (const [name, value] of Object.entries(attributes)) part.setAttribute(name, value);
    svg.append(part);
  };
  const [good, bad] = bar.higher ? ["above", "below"] : ["below", "above"];
  const side = { [good]: "good", [bad]: "bad", across: "across" }[bar.high < 0 ? "below" : bar.low > 0 ? "above" : "across"];
  add("line", { class: "zero", x1: at(0), x2: at(0), y1: 0, y2: 14 });
  add("line", { class: side, x1: at(bar.low), x2: at(bar.high), y1: 7, y2: 7 });
  add("circle", { class: side, cx: at(bar.mean), cy: 7, r: 3.5 });
  return svg;
}

// -- blocks ---------------------------------------------------------------------------------------------

const MAKERS = {
  paragraph: (block) => element("p", { class: block.tone || null, text: block.text }),
  code: (block) => element("pre", { tabindex: 0, role: "region", "aria-label": block.label }, [block.text]),
  grid: (block, path) => element("div", { class: block.wide ? "grid wide" : "grid" }, block.blocks.map((one) => make(one, path))),
  claim: (block) =>
    element("div", { class: "claim" }, [
      element("span", { class: `badge ${block.decision}`, text: DECISIONS[block.decision] }),
      element("div", {}, [
        element("p", { text: block.text }),
        ...(block.more ? [folded("p-value and interval", `claim/${block.text}`, () => [element("p", { class: "more", text: block.more })])] : []),
      ]),
    ]),
  group: (block, path) => element("div", { class: "study" }, [element("h3", { text: block.title }), ...block.blocks.map((one) => make(one, path))]),
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
    // By its title, as a column may come with the first result that has it.
    const sort = state.sorts[block.id];
    const by = sort ? block.columns.findIndex((column) => column.title === sort.title) : -1;
    const rows = [...block.rows];
    if (by >= 0) {
      const sign = sort.direction === "ascending" ? 1 : -1;
      const numeric = block.columns[by].numeric;
      rows.sort((first, second) => {
        const [a, b] = [first[by], second[by]];
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
        const wide = text(entry).length > 40;
        const options = { class: [block.columns[place].numeric && "numeric", wide && "wrap"].filter(Boolean).join(" ") || null, scope: heading ? "row" : null, "data-label": block.columns[place].title };
        const children = entry.arm === undefined ? [] : [swatch(entry)];
        if (entry.best) children.unshift(element("strong", { class: "best", role: "img", "aria-label": "best", title: "best", text: "★ " }));
        if (entry.bar) children.push(interval(entry.bar));
        // An interval and a count such as (9 of 10) stay in one line.
        const whole = text(entry).replace(/\[[^\]]*\]|\(\d+ of \d+\)/g, (part) => part.replaceAll(" ", "\u00a0"));
        return element(heading ? "th" : "td", options, [...children, whole]);
      }));
    }));
    heads.forEach((head, place) => {
      const sorted = by === place ? sort.direction : "none";
      head.setAttribute("aria-sort", sorted);
      head.querySelector(".arrow").textContent = { none: "↕", ascending: "↑", descending: "↓" }[sorted];
    });
  }

  block.columns.forEach((column, place) => {
    const press = () => {
      const before = state.sorts[block.id];
      const again = before && before.title === column.title && before.direction === "ascending";
      state.sorts[block.id] = { title: column.title, direction: again ? "descending" : "ascending" };
      fill();
    };
    const press_me = button(`${column.title} `, `${block.id}/${place}`, press);
    press_me.append(element("span", { class: "arrow", "aria-hidden": "true" }));
    heads.push(element("th", { scope: "col", class: column.numeric ? "numeric" : null }, [press_me]));
  });
  fill();
  return element("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": block.caption }, [
    // A wide one is stacked on a phone, where its titles stay as buttons to sort by.
    element("table", { id: block.id, class: block.columns.length > 3 ? "stacks" : null }, [
      element("caption", {}, [element("span", { text: block.caption })]),
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
