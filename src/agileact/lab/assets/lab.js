/* Tabs, the clock of a run, and names for the parts of controls that Dash gives none. */
(function () {
  "use strict";

  const PAUSE_MS = 40;
  const TABS = ["activation", "xor", "step", "network"];
  let timer = 0;

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

    /* Start and pause; and ask for the next picture once the last one has come. */
    clock: function (clicks, state, running) {
      const by = window.dash_clientside.callback_context.triggered_id;
      let next = Boolean(running);
      if (by === "xor-toggle") next = !next;
      else if (state && state.stop) next = false;
      window.clearTimeout(timer);
      if (next) {
        timer = window.setTimeout(function () {
          window.dash_clientside.set_props("xor-go", { data: Date.now() });
        }, PAUSE_MS);
      }
      return [next, next ? "Pause" : "Start"];
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

  /* A slider's thumb and its number, and a dropdown's button, carry the label of their control. */
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
