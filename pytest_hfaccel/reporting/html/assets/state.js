// What is shown, as signals; all of it stands in the address after `#`, so a link leads to the same view.

import { batch, computed, effect, html, render, signal } from "./data.js";
import { parseQuery } from "./query.js";

export const run = signal(null);
export const view = signal("matrix");
export const query = signal("");
export const show = signal("status");
export const group = signal("");
export const sort = signal("");
export const pins = signal([]);
export const open = signal("");
export const model = signal("");
export const release = signal("");
export const since = signal("");
export const theme = signal("");

const IN_ADDRESS = { q: query, show, group, sort, pin: pins, open, model, release, since };
const DEFAULTS = { q: "", show: "status", group: "", sort: "", pin: [], open: "", model: "", release: "", since: "" };
let views = [];

function readHash() {
  const [name, parameters] = location.hash.slice(1).split("?");
  const values = new URLSearchParams(parameters ?? "");
  batch(() => {
    view.value = views.includes(name) ? name : "matrix";
    for (const [key, field] of Object.entries(IN_ADDRESS)) {
      const text = values.get(key);
      const value = text === null ? DEFAULTS[key] : Array.isArray(DEFAULTS[key]) ? text.split(",") : text;
      if (String(field.peek()) !== String(value)) field.value = value;
    }
  });
}

export function address(changes = {}) {
  const values = new URLSearchParams();
  for (const [key, field] of Object.entries(IN_ADDRESS)) {
    const value = String(key in changes ? changes[key] : field.value);
    if (value && value !== String(DEFAULTS[key])) values.set(key, value);
  }
  const text = values.toString();
  return `#${changes.view ?? view.value}${text ? `?${text}` : ""}`;
}

let before = { view: "matrix", open: "" };

function followAddress() {
  readHash();
  before = { view: view.peek(), open: open.peek() };
  window.addEventListener("hashchange", readHash);
  window.addEventListener("popstate", readHash);
  effect(() => {
    const next = address();
    if (next === location.hash || (next === "#matrix" && !location.hash)) return;
    // Another view, or a cell that opens, is a step to go back from; a letter typed into the filter is not.
    const isStep = view.value !== before.view || (open.value !== before.open && open.value !== "");
    before = { view: view.value, open: open.value };
    history[isStep ? "pushState" : "replaceState"](null, "", next);
  });
}

/** The parsed query. While a query is wrong, the last right one stays in force and `problem` says what is wrong. */
let lastGood = null;
const parsed = computed(() => {
  if (!run.value) return { node: null, problem: "" };
  try {
    lastGood = parseQuery(run.value.terms.clean(query.value), run.value);
    return { node: lastGood, problem: "" };
  } catch (error) {
    return { node: lastGood ?? parseQuery("", run.value), problem: error.message };
  }
});
export const problem = computed(() => parsed.value.problem);

/** The cells that the query finds, the rows that have one, and the columns that the query does not exclude. */
export const found = computed(() => {
  const { node } = parsed.value;
  if (!node) return null;
  const all = run.value;
  const cells = node.isEmpty ? all.cells : all.cells.filter((cell) => node.test(cell));
  const set = node.isEmpty ? null : new Set(cells);
  const rows = node.isEmpty ? all.rows : all.rows.filter((row) => row.cells.some((cell) => set.has(cell)));
  const columns = all.columns.filter((column) => node.column(column) !== false);
  return { cells, rows, columns, has: set ? (cell) => set.has(cell) : () => true, isAll: node.isEmpty };
});

/** The address of another run's page, from wherever this one lies: in its run's folder, or at the top of the reports. */
export function runAddress(id) {
  return /\/runs\/[^/]+\/[^/]*$/.test(location.pathname) ? `../${encodeURIComponent(id)}/index.html` : `runs/${encodeURIComponent(id)}/index.html`;
}

let opener = null;

/** Open a cell or a row by its key; the focus goes back when it is closed. */
export function openPanel(key) {
  if (!open.peek()) opener = document.activeElement;
  open.value = key;
}

export function closePanel() {
  open.value = "";
  if (opener?.isConnected) opener.focus({ preventScroll: true });
  opener = null;
}

function applyTheme() {
  try { theme.value = localStorage.getItem("hfaccel-theme") ?? ""; } catch { /* storage may be switched off */ }
  effect(() => {
    if (theme.value) document.documentElement.dataset.theme = theme.value;
    else delete document.documentElement.dataset.theme;
    try { localStorage.setItem("hfaccel-theme", theme.value); } catch { /* likewise */ }
  });
}

export const isDark = () => (theme.value ? theme.value === "dark" : matchMedia("(prefers-color-scheme: dark)").matches);

export const ThemePicker = () => html`<label class="theme"><span class="only-heard">Colours</span><select value=${theme.value} onChange=${(event) => { theme.value = event.target.value; }}><option value="">System</option><option value="light">Light</option><option value="dark">Dark</option></select></label>`;

/**
 * Load the data, then draw the page and follow its address.
 *
 * `names` are those of the views; `elsewhere` is the file that has the data for a browser that cannot unpack it.
 */
export async function startPage(App, names, elsewhere, load) {
  const root = document.getElementById("app");
  try {
    views = names;
    applyTheme();
    await load();
    followAddress();
    root.textContent = "";
    render(html`<${App} />`, root);
    document.documentElement.dataset.ready = "true";
  } catch (error) {
    root.innerHTML = "";
    const text = document.createElement("p");
    text.className = "loading";
    text.textContent = typeof DecompressionStream === "undefined"
      ? `This browser is too old for this page: it needs DecompressionStream (Chrome 80, Firefox 113, Safari 16.4). ${elsewhere}, beside it, has the results as text.`
      : `The page cannot show its data: ${error.message}`;
    root.append(text);
    throw error;
  }
}
