/* The page as a whole: its head, the bar, news while a study runs, light and dark, print. */

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
    status.textContent = news.trouble || (state.document.finished ? "The study is finished." : "Live: the page updates itself while the study runs.");
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
(window.requestIdleCallback || setTimeout)(drawRest);
if (live) poll();
