// What plain forms and links cannot do: submit on change, draw figures, keys, the theme. No state of its own.
"use strict";

// -- forms ---------------------------------------------------------------------------------------

let typing = 0;

/** Send a form because of one of its controls. Another choice of rows starts at their first page; a tick does not. */
function submit(form, control) {
  if (!control.matches("[name=sel]")) form.querySelector("[name=page]")?.remove();
  form.requestSubmit();
}

document.addEventListener("change", (event) => {
  const form = event.target.form;
  if (form?.matches("[data-auto]") && !event.target.matches("[data-search]")) {
    submit(form, event.target);
  }
});

document.addEventListener("input", (event) => {
  const { form } = event.target;
  if (!form?.matches("[data-auto]")) return;
  if (event.target.type === "range") {
    const shown = form.querySelector(`output[for="${event.target.id}"]`);
    if (shown) shown.value = event.target.value;
  }
  if (!event.target.matches("[data-search]")) return;
  clearTimeout(typing);
  typing = setTimeout(() => event.target.isConnected && submit(form, event.target), 350);
});

document.addEventListener("submit", () => clearTimeout(typing), true);

// -- figures -------------------------------------------------------------------------------------

// No control may send a figure to Plotly's servers: neither its buttons, nor the link, nor an address to send to.
const NOTHING_LEAVES = { showSendToCloud: false, showEditInChartStudio: false, showLink: false, sendData: false,
  plotlyServerURL: "", modeBarButtonsToRemove: ["sendChartToCloud", "sendDataToCloud", "editInChartStudio"] };

let plotly = null;

function loadPlotly() {
  plotly ??= new Promise((resolve, reject) => {
    const script = document.createElement("script");
    script.src = "/static/plotly.min.js";
    script.onload = () => resolve(window.Plotly);
    script.onerror = () => reject(new Error("plotly.min.js did not load"));
    document.head.append(script);
  });
  return plotly;
}

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

function dress(layout, height, narrow) {
  const line = { gridcolor: colour("--line"), zerolinecolor: colour("--line-strong"), linecolor: colour("--line-strong"),
    automargin: true };
  const dressed = {
    ...layout, autosize: true, height: layout.height ?? height, paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)", colorway: layout.colorway ?? colour("--series").split(/\s*,\s*/),
    font: { ...layout.font, family: getComputedStyle(document.body).fontFamily, size: 12, color: colour("--ink") },
    hoverlabel: { bgcolor: colour("--panel"), bordercolor: colour("--line-strong"), font: { color: colour("--ink") },
      align: "left", ...layout.hoverlabel },
    legend: { ...layout.legend, bgcolor: "rgba(0,0,0,0)" },
    margin: { l: 48, r: 12, t: 28, b: 40, ...layout.margin },
  };
  if (narrow && dressed.legend.orientation === "h" && dressed.showlegend !== false) {  // a column of entries
    const entries = layout.entries ?? 3;
    if (dressed.legend.yref === "container") {
      dressed.margin.b = 52 + 29 * entries;
      dressed.height = 300 + 29 * entries;
    } else {
      Object.assign(dressed.legend, { y: -0.24, x: 0 });
      dressed.height = 340 + 21 * entries;
    }
  }
  if (narrow) dressed.margin = { ...dressed.margin, l: Math.min(dressed.margin.l, 44), r: Math.min(dressed.margin.r, 10) };
  if (layout.annotations) {  // "panel" stands for the page's own colour, which Python does not know
    dressed.annotations = layout.annotations.map((one) => (one.bgcolor === "panel" ? { ...one, bgcolor: colour("--panel") } : one));
  }
  for (const name of Object.keys(layout)) {
    if (/^[xy]axis\d*$/.test(name)) dressed[name] = { ...line, ...layout[name] };
  }
  dressed.xaxis ??= line;
  dressed.yaxis ??= line;
  return dressed;
}

async function draw(figure, again = false) {
  const text = figure.dataset.figure;
  if (figure.drawn === text && !again) return;
  figure.drawn = text;
  const Plotly = await loadPlotly();
  if (figure.drawn !== text || !figure.isConnected) return;
  const { data, layout } = JSON.parse(text);
  const canvas = figure.querySelector(".canvas");
  const entries = data.filter((trace) => trace.name && trace.showlegend !== false).length;
  await Plotly.react(canvas, data, dress({ ...layout, entries }, Number(figure.dataset.height), figure.clientWidth < 560),
    { responsive: true, displaylogo: false, ...NOTHING_LEAVES,
      modeBarButtonsToRemove: ["lasso2d", "select2d", "autoScale2d", ...NOTHING_LEAVES.modeBarButtonsToRemove] });
  figure.dataset.drawn = String(Number(figure.dataset.drawn ?? 0) + 1);
}

function drawAll(again = false) {
  for (const figure of document.querySelectorAll(".plot")) draw(figure, again);
}

// -- after every change of the page --------------------------------------------------------------

function settle() {
  // A box once ticked by hand no longer follows the page's `checked`; nor does a chosen option.
  for (const box of document.querySelectorAll("#app input[type=checkbox], #app input[type=radio]")) {
    box.checked = box.defaultChecked;
  }
  for (const select of document.querySelectorAll("#app select")) {
    const chosen = [...select.options].find((option) => option.defaultSelected);
    if (chosen && document.activeElement !== select) select.value = chosen.value;
  }
  for (const input of document.querySelectorAll("#app input[type=search], #app input[type=range]")) {
    if (document.activeElement !== input) input.value = input.defaultValue;
  }
  drawAll();
  showTheme();
}

document.addEventListener("DOMContentLoaded", settle);
document.addEventListener("htmx:after:swap", settle);
document.addEventListener("htmx:after:history:push", () => {
  document.title = document.querySelector("#app")?.dataset.title ?? document.title;
});

document.addEventListener("htmx:before:request", (event) => {
  if (document.hidden && event.target.id === "poll") event.preventDefault();
});
document.addEventListener("htmx:error", (event) => {
  if (event.target.id === "poll") document.querySelector("#lost").textContent = "server gone";
});
document.addEventListener("htmx:after:request", () => {
  const lost = document.querySelector("#lost");
  if (lost?.textContent) lost.textContent = "";
});

// -- theme ---------------------------------------------------------------------------------------

const THEMES = ["system", "light", "dark"];

function showTheme() {
  const theme = document.documentElement.dataset.theme ?? "system";
  const button = document.querySelector("#theme");
  button.textContent = { system: "◐", light: "☀", dark: "☾" }[theme];
  button.setAttribute("aria-label", `Colour theme: ${theme}`);
}

function turnTheme() {
  const now = document.documentElement.dataset.theme ?? "system";
  const next = THEMES[(THEMES.indexOf(now) + 1) % THEMES.length];
  if (next === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = next;
  try { localStorage.setItem("theme", next); } catch { /* not kept, then */ }
  showTheme();
  drawAll(true);
}

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => drawAll(true));

// -- clicks and keys -----------------------------------------------------------------------------

document.addEventListener("click", async (event) => {
  const button = event.target.closest("button");
  if (button?.id === "theme") turnTheme();
  if (button?.id === "help-open") document.querySelector("#help").showModal();
  if (button?.matches("[data-copy]")) {
    const source = document.getElementById(button.dataset.copy);
    try {
      await navigator.clipboard.writeText(source.textContent);
      button.textContent = "Copied";
    } catch {  // without the clipboard's permission: mark it, so that Ctrl-C takes it
      getSelection().selectAllChildren(source);
      button.textContent = "Marked: press Ctrl-C";
    }
    setTimeout(() => { button.textContent = "Copy"; }, 1500);
  }
  for (const menu of document.querySelectorAll("details.menu[open]")) {
    if (!menu.contains(event.target)) menu.open = false;
  }
});

function rowNow() {
  return document.querySelector("[data-row].at");
}

function moveRow(by) {
  const rows = [...document.querySelectorAll("[data-row]")];
  if (!rows.length) return;
  const at = rows.indexOf(rowNow());
  const next = rows[at < 0 ? (by > 0 ? 0 : rows.length - 1) : Math.min(Math.max(at + by, 0), rows.length - 1)];
  for (const row of rows) row.classList.toggle("at", row === next);
  (next.querySelector("[data-open]") ?? next).focus({ preventScroll: true });
  next.scrollIntoView({ block: "nearest" });
}

const KEYS = {
  j: () => moveRow(1),
  k: () => moveRow(-1),
  x: () => rowNow()?.querySelector("input[type=checkbox]")?.click(),
  n: () => document.querySelector("[data-next]")?.click(),
  p: () => document.querySelector("[data-prev]")?.click(),
  t: turnTheme,
  "?": () => document.querySelector("#help").showModal(),
  "/": () => { const box = document.querySelector("[data-search]"); box?.focus(); box?.select(); },
};

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const typed = event.target.matches("input:not([type=checkbox]):not([type=radio]):not([type=range]), textarea, select");
  if (event.key === "Escape") {
    for (const menu of document.querySelectorAll("details.menu[open]")) menu.open = false;
    if (typed) event.target.blur();
    return;
  }
  if (typed || document.querySelector("dialog[open]")) return;
  const page = document.querySelector(`nav [data-key="${CSS.escape(event.key)}"]`);
  const act = page ? () => page.click() : KEYS[event.key];
  if (act) {
    event.preventDefault();
    act();
  }
});
