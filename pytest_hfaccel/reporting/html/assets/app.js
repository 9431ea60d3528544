// The frame of the page: what the run found in one sentence, the views, and the panel.

import { computed, format, html, loadRun, words } from "./data.js";
import { Charts } from "./charts.js";
import { Panel } from "./details.js";
import { FilterBar, Matrix } from "./matrix.js";
import { Changes, Problems, RunFacts, problemGroups } from "./views.js";
import { ThemePicker, address, run, startPage, view } from "./state.js";

const sentence = computed(() => {
  const all = run.value;
  const failing = all.cells.filter((cell) => all.bad.has(cell.status));
  const models = new Set(failing.map((cell) => cell.row)).size;
  if (all.run.ended === "running") return ["odd", "This run is still going on, or was killed"];
  if (!all.cells.length) return ["none", "This run tested no cell"];
  const cut = all.run.ended === "interrupted" ? "; the run was interrupted" : "";
  if (failing.length) return ["bad", `${format.count(failing.length)} of ${format.plural(all.cells.length, "cell")} failed, in ${format.plural(models, "model")}${cut}`];
  const passed = all.counts.passed ?? 0;
  if (passed === all.cells.length) return ["good", `All ${format.plural(passed, "cell")} passed${cut}`];
  const others = all.worstFirst.filter((status) => status !== "passed" && all.counts[status]).map((status) => `${format.count(all.counts[status])} ${words(status)}`);
  return [all.run.passed ? "good" : "odd", `Nothing failed: ${format.count(passed)} passed, ${others.join(", ")}${cut}`];
});
const worseThanBaseline = ({ worse }) => Object.values(worse).reduce((sum, many) => sum + many, 0);

/** What the tabs count. */
const counted = computed(() => ({
  problems: problemGroups(run.value.cells).filter((group) => run.value.bad.has(group.status)).length,
  // With a baseline: what is worse by more than noise. A median alone moves with whatever else the machine does.
  changes: run.value.comparison ? worseThanBaseline(run.value.comparison) : run.value.cells.filter((cell) => cell.change && cell.change !== "new").length,
}));

function duration({ started, finished }) {
  const seconds = (new Date(finished) - new Date(started)) / 1000;
  return seconds > 0 ? format.seconds(seconds) : "";
}

function Top() {
  const all = run.value, [tone, says] = sentence.value;
  const packages = ["transformers", "torch", "openvino", "onnxruntime"].filter((name) => all.versions[name] && (name === "transformers" || name === "torch" || all.kinds.has(name)));
  const facts = [format.time(all.run.started), duration(all.run), all.machine_name, ...packages.map((name) => `${name} ${all.versions[name].replace(/\+.*/, "")}`)].filter(Boolean);
  const tabs = [["matrix", "Matrix"], ["problems", "Problems", counted.value.problems], ["changes", "Changes", counted.value.changes], ["charts", "Charts"], ["run", "Run"]];
  return html`<header class="top">
    <div class="headline"><p class="product">pytest-hfaccel</p>
      <h1 class="tone-${tone}">${says}</h1>
      <p class="facts-line">${facts.map((fact) => html`<span>${fact}</span>`)}</p></div>
    <nav aria-label="Views">${tabs.map(([name, label, count]) => html`<a key=${name} href=${address({ view: name, open: "" })} aria-current=${view.value === name ? "page" : undefined}>${label}${count ? html`<b>${format.count(count)}</b>` : null}</a>`)}
      <${ThemePicker} /></nav>
  </header>`;
}

const VIEW = { matrix: Matrix, problems: Problems, changes: Changes, charts: Charts, run: RunFacts };

function App() {
  const name = view.value, View = VIEW[name];
  return html`<${Top} /><main class="view-${name}">${name === "run" ? null : html`<${FilterBar} />`}<div class="body"><div class="content"><${View} key=${name} /></div><${Panel} /></div></main>`;
}

startPage(App, Object.keys(VIEW), "summary.json", async () => { run.value = await loadRun(); });
