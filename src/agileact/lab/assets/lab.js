/* Tabs, sliders with numbers, steps of numbers, the clock of a run, files that are too large, and names for the parts of controls that Dash gives none. */
(function () {
  "use strict";

  const PAUSE_MS = 40;
  const TABS = ["activation", "xor", "step", "live", "network"];
  /* Of each tab with a clock: whether it runs, and where its run is. */
  const clocks = {};
  for (const name of ["xor", "live"]) clocks[name] = { name: name, timer: 0, running: false, clicksSeen: 0, epoch: 0 };

  /* The clock whose button, choice or state called. */
  function ofCall() {
    return clocks[window.dash_clientside.callback_context.inputs_list[0].id.split("-")[0]];
  }

  /* Ask for the picture after the one that is there. */
  function goOn(clock) {
    window.clearTimeout(clock.timer);
    if (!clock.running) return;
    clock.timer = window.setTimeout(function () {
      window.dash_clientside.set_props(clock.name + "-go", { data: { epoch: clock.epoch, at: Date.now() } });
    }, PAUSE_MS);
  }

  const label = (clock) => (clock.running ? "Pause" : "Start");

  window.dash_clientside = window.dash_clientside || {};
  window.dash_clientside.lab = {
    /* Show one panel; the address says which, so that it can be kept and sent. */
    tabs: function (...given) {
      const first = given[given.length - 1];
      const by = window.dash_clientside.callback_context.triggered_id;
      const hash = window.location.hash.slice(1);
      let chosen = TABS.includes(hash) ? hash : first;
      if (by) {
        chosen = by.replace("tab-", "");
        window.history.replaceState(null, "", "#" + chosen);
      }
      return [
        ...TABS.map((name) => name !== chosen),
        ...TABS.map((name) => (name === chosen ? "tab selected" : "tab")),
        ...TABS.map((name) => String(name === chosen)),
      ];
    },

    /* Of a slider and the number beside it, the one that was moved tells the other. A number that the slider has no
       place for stays as it was typed: the server says what would fit. */
    pair: function (dragged, typed, least, most) {
      const keep = window.dash_clientside.no_update;
      const by = String(window.dash_clientside.callback_context.triggered_id);
      if (by.endsWith("-slider")) return [keep, dragged];
      const fits = typeof typed === "number" && least <= typed && typed <= most;
      return [fits ? typed : keep, keep];
    },

    /* Start and pause; a reset and another choice stop the run. This waits for no answer of the server: what is
       clicked while a picture is on its way counts at once. Two clicks can come as one call. */
    press: function (clicks) {
      const clock = ofCall();
      const pressed = (clicks || 0) - clock.clicksSeen;
      clock.clicksSeen = clicks || 0;
      clock.running = pressed % 2 !== 0 && !clock.running;
      goOn(clock);
      return label(clock);
    },

    /* A picture has come. */
    arrived: function (state) {
      if (!state) return;
      const clock = ofCall();
      clock.epoch = state.epoch;
      if (state.ended) clock.running = false;
      window.dash_clientside.set_props(clock.name + "-toggle", { children: label(clock) });
      goOn(clock);
    },
  };

  /* The arrow keys go from tab to tab, as a screen reader's user expects. */
  document.addEventListener("keydown", function (event) {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step || event.target.getAttribute("role") !== "tab") return;
    const tabs = TABS.map((name) => document.getElementById("tab-" + name));
    const next = tabs[(tabs.indexOf(event.target) + step + tabs.length) % tabs.length];
    next.focus();
    next.click();
  });

  /* One step of a number that may be any: its buttons and the arrow keys would go by 1, from a rate of 0.05 to 1. Rates
     go along 1, 2, 5 of each power of ten; what stands beside a slider goes by the slider's step. */
  function nextRate(value, up) {
    if (!(value > 0)) return up ? 0.001 : 0;
    const power = Math.floor(Math.log10(value) - 1e-9);
    const places = [power - 1, power, power + 1].flatMap((p) => ["1e" + p, "2e" + p, "5e" + p].map(Number));
    // A number that is a place of its own but for rounding is not its own neighbour.
    return up ? places.find((one) => one > value * (1 + 1e-9)) : places.reverse().find((one) => one < value * (1 - 1e-9));
  }

  function stepped(event, input, up) {
    const by = input && input.step === "any" && input.closest("[data-by]");
    if (!by) return;
    event.preventDefault();
    event.stopPropagation();
    const least = Number(by.dataset.least);
    const most = Number(by.dataset.most);
    const value = Number(input.value);
    const step = Number(by.dataset.by);
    const next = by.dataset.by === "rate" ? nextRate(value, up) : Math.round((value + (up ? step : -step)) / step) * step;
    const kept = Number(Math.min(Math.max(next, least), most).toPrecision(12));
    // What was typed and not yet taken may step to the value that Dash has already: it would draw nothing anew.
    input.value = String(kept);
    // The id of an option of f is an object.
    window.dash_clientside.set_props(input.id.startsWith("{") ? JSON.parse(input.id) : input.id, { value: kept });
  }

  document.addEventListener("keydown", function (event) {
    const up = { ArrowUp: true, ArrowDown: false }[event.key];
    if (up !== undefined && event.target.type === "number") stepped(event, event.target, up);
  }, true);
  document.addEventListener("click", function (event) {
    const button = event.target instanceof Element && event.target.closest(".dash-input-stepper");
    if (!button) return;
    stepped(event, button.parentElement.querySelector("input"), button.classList.contains("dash-stepper-increment"));
  }, true);

  /* A file that is too large to be sent: dcc.Upload drops it and says nothing, so the page tells the server its size. */
  function tooLarge(event) {
    const place = event.target instanceof Element && event.target.closest("[data-most]");
    const files = event.type === "drop" ? event.dataTransfer && event.dataTransfer.files : event.target.files;
    if (!place || !files) return;
    const large = Array.from(files).find((file) => file.size > Number(place.dataset.most));
    if (!large) return;
    const data = { name: large.name, size: large.size, at: Date.now() };
    window.dash_clientside.set_props("network-too-large", { data: data });
  }
  document.addEventListener("change", tooLarge, true);
  document.addEventListener("drop", tooLarge, true);

  /* A slider's thumb, the number beside it, and a dropdown's button carry the label of their control. */
  const PARTS = "[role=slider], input[type=number], input[type=file], button[aria-haspopup]";
  let count = 0;
  function name() {
    waiting = false;
    document.querySelectorAll(".control[data-label]").forEach(function (control) {
      const label = control.querySelector("label");
      if (!label.id) label.id = "label-" + ++count;
      // Parts come one by one, and again when Dash draws them anew.
      control.querySelectorAll(PARTS).forEach(function (part) {
        const named = part.getAttribute("aria-labelledby") || "";
        if (named.split(" ").includes(label.id)) return;
        // A dropdown's button says its value, too.
        const rest = part.tagName === "BUTTON" ? " " + named : "";
        part.setAttribute("aria-labelledby", label.id + rest);
      });
    });
  }
  let waiting = false;
  new MutationObserver(function () {
    if (waiting) return;
    waiting = true;
    window.requestAnimationFrame(name);
  }).observe(document.documentElement, { childList: true, subtree: true });
})();
