// Problems by their reason, what changed since earlier runs, and the facts of the run.

import { MEANT, STATUS, columnName, format, html, useState, words } from "./data.js";
import { Badge, CHANGES, Icon } from "./matrix.js";
import { RunBars } from "./charts.js";
import { Command } from "./details.js";
import { address, found, run, runAddress } from "./state.js";

function CellLink({ cell }) {
  return html`<a class="cell-link" href=${address({ open: cell.key })}><bdi>${cell.row.model}</bdi><span>${columnName(cell.column)}</span></a>`;
}

function CellList({ cells, extra }) {
  const [limit, setLimit] = useState(12);
  return html`<ul class="cell-list">${cells.slice(0, limit).map((cell) => html`<li key=${cell.key}><span class="mark tone-${STATUS[cell.status].tone}"><${Icon} name=${cell.status} /></span><${CellLink} cell=${cell} />${extra?.(cell)}</li>`)}</ul>
    ${cells.length > limit ? html`<button type="button" class="more" onClick=${() => setLimit(limit + 200)}>Show ${format.count(Math.min(200, cells.length - limit))} more</button>` : null}`;
}

// Problems --------------------------------------------------------------------------------------------------------

/** A reason without what differs from cell to cell, so that the same problem is listed once. */
function kindOf(cell, problem) {
  let text = problem.reason.split("\n")[0];
  for (const name of [cell.row.architecture, cell.row.model]) if (name.length > 3) text = text.replaceAll(name, "…");
  return text.replace(/-?\d+(\.\d+)?(e[+-]?\d+)?/gi, "#").replace(/\s+\[[^\]]*\]$/, "");
}

export function problemGroups(cells) {
  const groups = new Map();
  for (const cell of cells) {
    const { problem } = cell;
    if (!problem || cell.status === "skipped" || cell.status === "incomplete") continue;
    // The same exception is one problem, in whichever check it came first.
    const where = cell.status === "error" && problem.reason ? [] : [problem.name, problem.blame || problem.cause];
    const key = [cell.status, ...where, kindOf(cell, problem)].join("\n");
    if (!groups.has(key)) groups.set(key, { status: cell.status, checks: [], cause: problem.cause, stage: problem.stage, cells: [] });
    const group = groups.get(key);
    group.cells.push(cell);
    if (!group.checks.includes(problem.name)) group.checks.push(problem.name);
  }
  const order = (group) => (run.value.bad.has(group.status) ? 0 : group.status === "unavailable" ? 2 : 1);
  return [...groups.values()].sort((a, b) => order(a) - order(b) || b.cells.length - a.cells.length);
}

export function ProblemCard({ group }) {
  const { cells, status, checks, cause } = group;
  const { blame } = cells[0].problem;
  const reason = cells[0].problem.reason.split("\n")[0];
  const columns = run.value.columns.filter((column) => cells.some((cell) => cell.column === column));
  // What fails once per device of a model is one problem of the model.
  return html`<details class="problem tone-${STATUS[status].tone}" open=${cells.length <= 3 && run.value.bad.has(status)}>
    <summary><span class="many">${format.count(cells.length)}</span>
      <span class="what"><b>${checks.map(words).join(", ")}</b> <${Badge} status=${status} />${checks.length === 1 && MEANT[checks[0]] ? html` <span class="meaning">${MEANT[checks[0]][1]}</span>` : null}${blame || cause ? html`<span class="tag" title=${run.value.causes[cause]}>${blame || `cause: ${cause}`}</span>` : null}
        <span class="where">${columns.map((column) => columnName(column)).join(", ")}</span>
        <span class="reason">${reason || STATUS[status].says}</span></span></summary>
    <${CellList} cells=${cells} />
  </details>`;
}

export function Problems() {
  const groups = problemGroups(found.value.cells);
  const isBad = (group) => run.value.bad.has(group.status);
  const sections = [
    ["Failures", groups.filter(isBad), "These fail the run."],
    ["Expected failures", groups.filter((group) => group.status === "xfailed"), "The registry says that these fail, and why."],
    ["Not here", groups.filter((group) => group.status === "unavailable"), "A device, a precision or a package is missing on this machine."],
  ];
  if (!groups.length) return html`<div class="page"><div class="nothing"><p>${found.value.isAll ? "No problems: every cell passed." : "No cell of this filter has a problem."}</p></div></div>`;
  return html`<div class="page problems">${sections.map(([title, members, lead]) => (members.length ? html`<section key=${title}><h2>${title} <small>${format.plural(members.reduce((sum, group) => sum + group.cells.length, 0), "cell")}</small></h2><p class="lead">${lead}</p>
    ${members.map((group) => html`<${ProblemCard} key=${group.cells[0].key} group=${group} />`)}</section>` : null))}</div>`;
}

// The baseline ----------------------------------------------------------------------------------------------------

const VERDICT_ORDER = ["newly failing", "other failure", "no longer tested", "newly passing", "other verdict", "newly tested"];
const VERDICT_TONE = { "newly failing": "bad", "other failure": "odd", "newly passing": "good" };
const KINDS = { verdicts: "newly failing", missing: "no longer tested", drift: "numeric drift", speed: "slower", memory: "more memory" };

/** Where a difference is: a link where the cell is one of this run. */
function Place({ of }) {
  const cell = run.value.byKey.get(of.cell) ?? run.value.byKey.get(`${of.module}::${of.cell}`);
  return html`${cell ? html`<${CellLink} cell=${cell} />` : html`<bdi>${of.model}</bdi> <span>${columnName(of)}</span>`}${of.check ? html` <b>${words(of.check)}</b>` : null}`;
}

/** Checks of a cell that changed for the same reason, such as those that a failed load left out, are one entry. */
function together(entries) {
  const groups = new Map();
  for (const of of entries) {
    const why = of.run?.reason?.includes(run.value.not_reached) ? run.value.not_reached : null;
    const key = why === null ? of : [of.module, of.cell, of.change, of.baseline?.status, of.run.status].join("\n");
    if (groups.has(key)) groups.get(key).check += `, ${words(of.check)}`;
    else groups.set(key, why === null ? of : { ...of, run: { ...of.run, reason: why } });
  }
  return [...groups.values()];
}

const Ended = ({ of }) => (of ? html`<${Badge} status=${of.status} />` : html`<span>not run</span>`);
const percent = (share) => `${share >= 0 ? "+" : "−"}${format.number(Math.abs(share) * 100, 2)} %`;
const point = (of) => `b${of.batch}${of.length ? `-s${of.length}` : ""}`;
const limitOf = (of) => (of.limit > 1 ? "more than 100 %" : `${format.number(of.limit * 100, 2)} %`);

function Differences({ label, tone, entries, show, shown = entries }) {
  if (!entries.length) return null;
  return html`<h3><span class="mark tone-${tone}"></span> ${label} <small>${format.count(entries.length)}</small></h3>
    <${Shortened} entries=${shown} show=${show} />`;
}

function Shortened({ entries, show }) {
  const [limit, setLimit] = useState(12);
  return html`<ul class="cell-list">${entries.slice(0, limit).map((of) => html`<li>${show(of)}</li>`)}</ul>
    ${entries.length > limit ? html`<button type="button" class="more" onClick=${() => setLimit(limit + 200)}>Show ${format.count(Math.min(200, entries.length - limit))} more</button>` : null}`;
}

const shownVerdict = (of) => html`<${Place} of=${of} /><span class="delta"><${Ended} of=${of.baseline} /> → <${Ended} of=${of.run} /> ${of.run?.reason ? html`<span class="reason">${of.run.reason.split("\n")[0]}</span>` : null}</span>`;
const shownDrift = (of) => html`<${Place} of=${of} /><span class="delta">${of.leaf === "rel_l2" ? "" : `${of.leaf}: `}rel-L2 ${typeof of.baseline === "number" ? format.error(of.baseline) : of.baseline} → <b>${typeof of.run === "number" ? format.error(of.run) : of.run}</b>${of.tolerance ? html` <small>allowed ${format.error(of.tolerance)}</small>` : null}</span>`;
const shownSpeed = (of) => html`<bdi>${of.model}</bdi> <span>${columnName(of)} ${point(of)}</span><span class="delta">${format.latency(of.baseline_ms)} → <b>${format.latency(of.run_ms)}</b> <small>${percent(of.change)}${Math.abs(of.change - of.own_change) < 0.005 ? "" : ` (${percent(of.own_change)} beside the others)`}, limit ${limitOf(of)}, p ${format.number(of.p_adjusted, 2)}${of.comparable ? "" : `; not comparable: ${of.note}`}</small></span>`;
const shownMemory = (of) => html`<${Place} of=${of} /><span class="delta">${of.what}: ${format.memory(of.baseline_bytes)} → <b>${format.memory(of.run_bytes)}</b></span>`;

function Baseline({ of }) {
  const { baseline, worse } = of;
  const known = run.value.earlier.some((one) => one.id === baseline.id);
  const name = baseline.kind === "history" ? `${baseline.source} (${format.plural(baseline.runs, "run")})` : baseline.id;
  const told = Object.entries(worse).map(([kind, many]) => `${format.count(many)} ${KINDS[kind]}`).join(", ");
  const changed = (verdict) => of.speed.filter((one) => one.verdict === verdict);
  const devices = (verdict) => of.devices.filter((one) => one.verdict === verdict);
  const cut = Object.entries(of.numbers).filter(([list, many]) => many > of[list].length).length > 0;
  return html`<section class="baseline"><h2>What changed since the baseline</h2>
    <p class="lead">Compared with ${known ? html`<a href=${runAddress(baseline.id)}>${name}</a>` : name}${baseline.started ? `, ${format.time(baseline.started)}` : ""}${baseline.commit ? html`, commit <code>${baseline.commit.slice(0, 10)}</code>` : ""}: ${format.plural(baseline.cells, "cell")}, ${format.plural(of.compared, "measurement")} on both sides.
      <b> ${told ? `Worse: ${told}.` : "Nothing is worse."}</b>${of.passed ? (of.fail_on.length ? ` What would fail the run: ${of.fail_on.join(", ")}.` : told ? " It does not fail the run." : "") : " This fails the run."}</p>
    ${VERDICT_ORDER.map((change) => { const entries = of.verdicts.filter((one) => one.change === change); return html`<${Differences} key=${change} label=${change} tone=${VERDICT_TONE[change] ?? "none"} entries=${entries} shown=${together(entries)} show=${shownVerdict} />`; })}
    <${Differences} label="numeric drift" tone="bad" entries=${of.drift.filter((one) => one.worse)} show=${shownDrift} />
    <${Differences} label="closer to the reference" tone="good" entries=${of.drift.filter((one) => !one.worse)} show=${shownDrift} />
    ${["slower", "faster"].map((verdict) => html`<${Differences} key=${verdict} label=${`all of a device ${verdict}`} tone=${verdict === "slower" ? "bad" : "good"} entries=${devices(verdict)} show=${(one) => html`<bdi>${one.device}</bdi><span class="delta">${percent(one.shift)}</span>`} />
      <${Differences} label=${verdict} tone=${verdict === "slower" ? "bad" : "good"} entries=${changed(verdict)} show=${shownSpeed} />`)}
    <${Differences} label="speed unclear: within the noise of these runs" tone="none" entries=${changed("unclear")} show=${shownSpeed} />
    <${Differences} label="more memory" tone="bad" entries=${of.memory.filter((one) => one.worse)} show=${shownMemory} />
    <${Differences} label="less memory" tone="good" entries=${of.memory.filter((one) => !one.worse)} show=${shownMemory} />
    ${cut ? html`<p class="lead">comparison.json, beside this page, has all of them.</p>` : null}
    ${of.devices.length ? html`<p class="lead">Changes of speed that can be seen: ${of.devices.map((one) => `on ${one.device} from ${format.number(one.least_visible * 100, 2)} %`).join(", ")}.</p>` : null}
    ${of.surroundings.length ? html`<details><summary>Not the same in both <small>${format.count(of.surroundings.length)}</small></summary><ul class="cell-list">${of.surroundings.map((text) => html`<li>${text}</li>`)}</ul></details>` : null}
  </section>`;
}

// Changes ---------------------------------------------------------------------------------------------------------

const speed = (cell) => {
  const [, before, now] = cell.speed, ratio = now / before;
  return html`<span class="delta">${format.latency(before)} → <b>${format.latency(now)}</b> <small>${ratio > 1 ? "+" : "−"}${format.number(Math.abs(ratio - 1) * 100, 2)} %</small></span>`;
};
const status = (cell) => html`<span class="delta"><${Badge} status=${cell.last.status} /> → <${Badge} status=${cell.status} /> ${cell.problem?.reason ? html`<span class="reason">${cell.problem.reason.split("\n")[0]}</span>` : null}${cell.last.weights !== cell.row.weights ? html`<small> ${cell.last.weights} → ${cell.row.weights} weights</small>` : null}</span>`;

export function Changes() {
  const all = run.value, last = all.earlier.at(-1);
  const baseline = all.comparison ? html`<${Baseline} of=${all.comparison} />` : null;
  if (!last && baseline) return html`<div class="page changes">${baseline}</div>`;
  if (!last) return html`<div class="page"><div class="nothing"><p>There is no earlier run in this directory of reports to compare with.</p></div></div>`;
  // The largest moves of speed come first.
  const move = (cell) => (cell.change === "slower" || cell.change === "faster" ? Math.abs(Math.log(cell.speed[2] / cell.speed[1])) : 0);
  const of = (change) => found.value.cells.filter((cell) => cell.change === change).sort((a, b) => move(b) - move(a) || a.at - b.at);
  const sections = [["broken", status], ["fixed", status], ["other", status], ["slower", speed], ["faster", speed], ["new", null]]
    .map(([change, extra]) => [change, of(change), extra]).filter(([, cells]) => cells.length);
  const names = [...new Set([...Object.keys(all.versions), ...Object.keys(last.versions)])].filter((name) => all.versions[name] !== last.versions[name]);
  const compared = found.value.cells.filter((cell) => cell.last);
  const moved = compared.filter((cell) => cell.change);
  return html`<div class="page changes">
    ${baseline}
    ${baseline ? html`<h2>What changed since the last time each cell ran</h2>` : null}<p class="lead">Each cell is compared with the last earlier run that has it${compared.length ? html`; the last run is <a href=${runAddress(last.id)}>run ${last.id.split("-")[0]}</a>, ${format.time(last.started)}` : ""}.
      <b> ${moved.length ? `${format.count(moved.length)} of ${format.plural(compared.length, "compared cell")} changed.` : `None of ${format.plural(compared.length, "compared cell")} changed.`}</b></p>
    ${sections.map(([change, cells, extra]) => html`<section key=${change}><h2><span class="mark tone-${CHANGES[change].tone}"></span>${CHANGES[change].label} <small>${format.plural(cells.length, "cell")}</small></h2><p class="lead">${CHANGES[change].says[0].toUpperCase()}${CHANGES[change].says.slice(1)}.</p><${CellList} cells=${cells} extra=${extra} /></section>`)}
    ${all.gone.number ? html`<section><h2>Gone <small>${format.plural(all.gone.number, "cell")}</small></h2><p class="lead">In the last run, and not in this one: not selected, or not there any more.</p>
      <details><summary>Show them</summary><ul class="cell-list">${all.gone.cells.map(([name, device, dtype, state]) => html`<li><span class="mark tone-${STATUS[state].tone}"><${Icon} name=${state} /></span><bdi>${name}</bdi> ${columnName({ device, dtype })}</li>`)}</ul></details></section>` : null}
    <section><h2>What else differs from the last run</h2>
      ${names.length || all.machine_name !== last.machine || all.commit !== last.commit || all.run.command !== last.command ? html`<table><thead><tr><td></td><th scope="col">last run</th><th scope="col">this run</th></tr></thead><tbody>
        ${names.map((name) => html`<tr><th scope="row">${name}</th><td>${last.versions[name] ?? "–"}</td><td>${all.versions[name] ?? "–"}</td></tr>`)}
        ${all.machine_name !== last.machine ? html`<tr><th scope="row">machine</th><td>${last.machine}</td><td>${all.machine_name}</td></tr>` : null}
        ${all.commit !== last.commit ? html`<tr><th scope="row">commit</th><td><code>${last.commit?.slice(0, 10) ?? "–"}</code></td><td><code>${all.commit?.slice(0, 10) ?? "–"}</code></td></tr>` : null}
        ${all.run.command !== last.command ? html`<tr><th scope="row">command</th><td><code>${last.command}</code></td><td><code>${all.run.command}</code></td></tr>` : null}
      </tbody></table>` : html`<p>Nothing: the same versions, machine, commit and command.</p>`}</section>
    <section><h2>The runs so far</h2><${RunBars} /></section>
  </div>`;
}

// The run ---------------------------------------------------------------------------------------------------------

const isPlain = (value) => value === null || typeof value !== "object";

function Facts({ of }) {
  return html`<dl class="facts">${Object.entries(of).filter(([, value]) => value !== null && value !== "" && !(Array.isArray(value) && !value.length) && !(typeof value === "object" && !Array.isArray(value) && !Object.keys(value).length)).map(([name, value]) => html`<dt>${words(name)}</dt><dd>${
    /bytes$/.test(name) && typeof value === "number" ? format.memory(value) : isPlain(value) ? (value === true ? "yes" : value === false ? "no" : String(value))
      : Array.isArray(value) ? (value.every(isPlain) ? value.join(", ") : value.map((item) => html`<${Facts} of=${item} />`)) : html`<${Facts} of=${value} />`}</dd>`)}</dl>`;
}

export function RunFacts() {
  const all = run.value;
  const { versions, ...machine } = all.machine;
  return html`<div class="page facts-page">
    <section><h2>Command</h2>${all.run.command ? html`<${Command} text=${all.run.command} />` : null}
      <${Facts} of=${{ run: all.run.id, began: format.time(all.run.started), ended: `${all.run.ended}${all.run.finished ? `, ${format.time(all.run.finished)}` : ""}`, continues: all.run.resumed, workers: all.run.workers || null, commit: all.commit }} /></section>
    <section><h2>Machine</h2><${Facts} of=${machine} /></section>
    <section><h2>Versions</h2><${Facts} of=${all.versions} /></section>
    ${Object.keys(all.absent).length ? html`<section><h2>Devices that are not here</h2><dl class="facts">${Object.entries(all.absent).map(([name, why]) => html`<dt>${name}</dt><dd>${why}</dd>`)}</dl></section>` : null}
    <section><h2>Options</h2><${Facts} of=${all.options} /></section>
    <section><h2>The runs so far</h2><${RunBars} /></section>
  </div>`;
}
