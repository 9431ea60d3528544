// The support site: can this class be used on this device, at this precision, with this release of transformers?

import { DTYPES, MEANT, STATUS, arrange, columnName, computed, effect, format, html, makeColumn, readChecks, readNumbers, signal, unpack, useState, words } from "./data.js";
import { Badge, FilterBar, Icon, Matrix, SHAPES, Weights } from "./matrix.js";
import { Command, Gauge, Header, PanelFrame } from "./details.js";
import { ProblemCard } from "./views.js";
import { ThemePicker, address, found, open, query, release, run, since, startPage, view } from "./state.js";

const site = signal(null);

// The verdict -----------------------------------------------------------------------------------------------------

/** What a result says to somebody who wants to use the class; on this site it is the status of a result. */
const VERDICTS = {
  does_not_work: { tone: "bad", icon: "failed", rank: 0, says: "cannot be loaded, converted or run, or its results are wrong" },
  works_in_part: { tone: "odd", icon: "error", rank: 1, says: "runs with right results, but fails a check such as batches or generation" },
  not_tested: { tone: "none", icon: "unavailable", rank: null, says: "a package or a precision is missing, or our tiny checkpoint does not fit" },
  works: { tone: "good", icon: "passed", rank: 2, says: "runs with right results" },
};
for (const [name, { tone, icon, says }] of Object.entries(VERDICTS)) {
  STATUS[name] = { tone, says };
  SHAPES[name] = SHAPES[icon];
}
const STATUSES = Object.entries(VERDICTS).map(([name, { rank }]) => [name, rank === 0 || rank === 1]);
/** Without these a model is of no use; what else fails, such as batches, limits its use. */
const ESSENTIAL = new Set(["resolves", "from_pretrained", "placement", "forward", "parity"]);
/** Causes that say nothing of the class: the result is missing. */
const NOT_ITS_DOING = new Set(["factory", "ours", "package", "time"]);
const NOT_RUN = new Set(["unavailable", "gated", "hub_error", "infra_error", "incomplete", "skipped"]);

const STAGES = { convert: "cannot be converted", compile: "cannot be compiled", run: "cannot be run" };
const inShort = (check) => (ESSENTIAL.has(check.name) && check.name !== "parity" && STAGES[check.stage]) || MEANT[check.name]?.[0] || words(check.name);

/** The checks that failed, without those that only refer to another one. */
const fallen = (record) => record.checks.filter((check) => check.status !== "passed" && check.status !== "skipped" && check.status !== "xpassed" && !check.reason?.includes(site.value.not_reached));

const isAgainst = (check) => !NOT_ITS_DOING.has(check.cause) && !NOT_RUN.has(check.status);

/** The check that decides the verdict. */
function decisive(record) {
  const failed = fallen(record);
  return failed.find((check) => isAgainst(check) && ESSENTIAL.has(check.name)) ?? failed.find(isAgainst) ?? failed[0] ?? null;
}

function verdictOf(record) {
  if (NOT_RUN.has(record.status)) return "not_tested";
  const failed = fallen(record);
  if (!failed.length) return "works";
  const counting = failed.filter(isAgainst);
  if (counting.some((check) => ESSENTIAL.has(check.name) && check.cause !== "numerics")) return "does_not_work";
  if (failed.some((check) => ESSENTIAL.has(check.name) && NOT_ITS_DOING.has(check.cause))) return "not_tested";
  return counting.length ? "works_in_part" : "works";
}

const at = (name) => `transformers ${name}`;
const day = (iso) => format.time(iso).replace(/,? \d\d:\d\d$/, "");

// The data --------------------------------------------------------------------------------------------------------

async function loadSite() {
  const index = await unpack("index");
  const statuses = index.statuses.map(([name]) => name);
  const lists = index.check_lists.map((list) => readChecks(list, index, statuses));
  const records = index.records.map(([row, column, at, model, weights, status, implementation, checks, numbers, runs, isOneOf, before, command]) => ({
    row, column, at, model: index.texts[model], weights, status: statuses[status], implementation, checks: lists[checks],
    numbers: readNumbers(numbers, index), runs: index.sources[runs].map((number) => index.runs[number]), isOneOf: isOneOf === 1,
    before: before.map(([number, state]) => ({ run: index.runs[number], status: statuses[state] })), command,
  }));
  const kinds = new Map(), byClass = new Map();
  const rows = index.rows.map(([name, types, task, family, ids, shared], number) => {
    byClass.set(name, number);
    for (const type of types) kinds.set(type, [...(kinds.get(type) ?? []), number]);
    const known = [types, ids, shared].map((list) => new Set(list.map((id) => id.toLowerCase())));
    return { name, types, task, family, ids, shared, known, text: [name, ...types, task, family, ...ids, ...shared].join("\n").toLowerCase() };
  });
  site.value = { ...index, rows, records, kinds, byClass };
  for (const record of records) record.verdict = verdictOf(record);
}

/** Which models a class's results are of: trained weights say more than tiny ones. */
const WEIGHTS = ["pretrained", "random", "tiny"];

/** The results of one column of one class with one release: of several models that ran, the worst speaks for the class. */
function cellOf(records) {
  const ran = records.filter((record) => !NOT_RUN.has(record.status));
  const worst = (ran.length ? ran : records).reduce((one, other) => (site.value.worst_first.indexOf(other.status) < site.value.worst_first.indexOf(one.status) ? other : one));
  return { ...worst, records, verdict: worst.verdict };
}

/** Classes, devices and results as the views of a run expect them; `name` is a release, or empty for the newest results. */
function runOf(name) {
  const all = site.value, wanted = all.releases.indexOf(name);
  const columns = all.columns.map(makeColumn);
  for (const column of columns) if (column.device === "class") column.title = "loading";
  const byCell = new Map();
  for (const record of all.records) {
    const key = record.row * columns.length + record.column;
    if (!byCell.has(key)) byCell.set(key, []);
    byCell.get(key).push(record);
  }
  const rows = all.rows.map((row, at) => ({
    ...row, at, key: `class:${row.name}`, model: row.name, architecture: row.name, module: "", owner: "", weights: "tiny", why: "",
    about: [row.types.slice(0, 2).join(", "), words(row.task)].filter((text) => text && text !== "base-model").join(" · "), cells: [], byColumn: new Map(),
  }));
  const cells = [];
  for (const [key, records] of byCell) {
    const row = rows[Math.floor(key / columns.length)], column = columns[key % columns.length];
    const inOrder = [...new Set(records.map((record) => record.at))].sort((a, b) => a - b).filter((at) => wanted < 0 || at <= wanted);
    if (!inOrder.length || (wanted >= 0 && inOrder.at(-1) !== wanted)) continue;
    const steps = inOrder.map((at) => cellOf(records.filter((record) => record.at === at)));
    const now = steps.at(-1), last = steps.at(-2) ?? null;
    const cell = {
      ...now, row, column, key: `${row.name}/${column.key}`, id: "", points: [], steps, last,
      status: now.verdict, problem: decisive(now), change: last ? changeBetween(last, now) : "",
    };
    cell.says = cell.status === "works" ? "" : cell.status === "not_tested" ? "not tested" : cell.problem ? inShort(cell.problem) : "";
    cells.push(cell);
  }
  for (const row of rows) row.weights = "";
  for (const cell of cells) {
    const { row } = cell;
    for (const { weights } of cell.records) if (!row.weights || WEIGHTS.indexOf(weights) < WEIGHTS.indexOf(row.weights)) row.weights = weights;
  }
  const inUse = new Set(cells.flatMap((cell) => [cell.row, cell.column]));
  const present = rows.filter((row) => inUse.has(row));
  const index = { ...all, statuses: STATUSES, worst_first: Object.keys(VERDICTS) };
  const found = arrange(index, present, columns.filter((column) => inUse.has(column)), cells, { terms: TERMS_OF_SITE, Nothing, earlier: [], order: relevance, run: { ended: "finished" } });
  // What most is known of comes first; what was tried nowhere, last.
  const tested = (column) => column.cells.filter((cell) => cell.status !== "not_tested").length;
  found.columns.sort((one, other) => (other.device === "class") - (one.device === "class") || tested(other) - tested(one));
  return found;
}

function changeBetween(before, after) {
  const [one, other] = [VERDICTS[before.verdict].rank, VERDICTS[after.verdict].rank];
  if (one === other) return "";
  if (one === null || other === null) return "other";
  return other < one ? "broken" : "fixed";
}

// Searching -------------------------------------------------------------------------------------------------------

/** A query without what belongs to the address of a model's page on the hub. */
const withoutAddress = (text) => text.replace(/^\s*https?:\/\/(?:www\.)?(?:huggingface\.co|hf\.co)\/([^\s?#]*)\S*/, (_, path) => path.replace(/\/(?:tree|blob|resolve)\/.*$/, "").replace(/\/$/, ""));
const idIn = (text) => withoutAddress(text).trim().replace(/^"|"$/g, "").toLowerCase();

const FILLERS = new Set("can i we you use run does do work works is it there a an the class model on at in with using as".split(" "));
/**
 * A question about one class or hub id on devices or precisions, however it is put: `can I use BertForMaskedLM on onnxruntime
 * at fp16?` Null for everything else.
 */
function questionOf(text) {
  const all = run.value;
  if (!all) return null;
  const said = withoutAddress(text).replace(/[?.!]+\s*$/, "").toLowerCase().split(/[\s,]+/).filter((word) => word && !FILLERS.has(word));
  const isDevice = (word) => all.device_kinds.includes(word.split(":")[0]);
  const dtypes = said.filter((word) => DTYPES.includes(word)), devices = said.filter(isDevice);
  const names = said.filter((word) => !DTYPES.includes(word) && !isDevice(word));
  if (names.length !== 1 || said.length === 1) return null;
  const rows = all.rows.filter((row) => row.name.toLowerCase() === names[0] || row.known[1].has(names[0]));
  const isMeant = ({ column }) => column.device !== "class" && (!dtypes.length || dtypes.includes(column.dtype)) && (!devices.length || devices.some((device) => [column.kind, column.device.toLowerCase()].includes(device)));
  return rows.length ? { name: names[0], rows, devices, dtypes, isMeant } : null;
}

function cleanQuery(text) {
  const asked = questionOf(text);
  if (!asked) return withoutAddress(text);
  const field = (name, values) => (values.length ? ` ${name}:${values.join(",")}` : "");
  return `"${asked.name}"${field("device", asked.devices)}${field("dtype", asked.dtypes)}`;
}

const TERMS_OF_SITE = {
  clean: cleanQuery, since: "since the release before", opensFirst: true, hidesUnmeasured: true,
  says: { passed: "works", pass: "works", passes: "works", passing: "works", works: "works", work: "works" },
  row: "class", rows: "classes", cell: "result", head: "Class", once: "on no device",
  hint: "A class or a hub id: BertForMaskedLM, google-bert/bert-base-uncased …",
  examples: [
    ["BertForMaskedLM", "a class, by its name or a part of it"],
    ["BertForMaskedLM on onnxruntime at fp16", "a class on a device, at a precision"],
    ["openai-community/gpt2", "the classes of a model on the hub"],
    ["works everywhere", "classes that work wherever they were tested"],
    ["works on cpu but fails on openvino", "works on the CPU, and not, or in part, on OpenVINO"],
    ["status:does_not_work device:openvino", "does not work on OpenVINO"],
    ["cause:exporter", "the conversion is to blame"],
    ["changed:broken", "worked with the release before"],
    ["family:audio device:cpu error>1e-6", "audio classes whose results are off by more than 1e-6"],
  ],
  orders: { "": "best match", name: "name", changed: "changes first" },
  groups: { "": "nothing", family: "family", task: "task" },
};

const question = computed(() => questionOf(query.value));
const wantedId = computed(() => question.value?.name ?? idIn(query.value));

/** Where a row stands among those that were found: the class of that name, then its models, then names that begin so. */
function relevance(row) {
  const wanted = wantedId.value, name = row.name.toLowerCase(), [types, ids, shared] = row.known;
  const place = !wanted || name === wanted ? 0 : ids.has(wanted) ? 1 : name.startsWith(wanted) ? 2 : types.has(wanted) ? 3 : shared.has(wanted) ? 4 : name.includes(wanted) ? 5 : 6;
  return `${place}${String(place > 1 && place < 6 ? name.length : 0).padStart(3, "0")}${name}`;
}

/** Classes whose model type stands in a hub id that nobody tested; the longest type says most. */
function guesses(id) {
  const text = id.replace(/^.*\//, "").replace(/[^a-z0-9]/g, "");
  const types = [...site.value.kinds.keys()].filter((type) => type.length > 2 && text.includes(type.replace(/[^a-z0-9]/g, "").toLowerCase()));
  return types.sort((a, b) => b.length - a.length).slice(0, 3);
}

function Nothing() {
  if (question.value) return null; // which is answered above
  const id = wantedId.value, isId = /^[\w.-]+\/[\w.-]+$/.test(id), types = isId ? guesses(id) : [];
  return html`<div class="nothing">
    <p>${isId ? html`No result names <b>${id}</b>.` : release.value ? `Nothing here with ${at(release.value)} matches.` : "Nothing here matches."}</p>
    ${isId ? html`<p>The file <a href=${`https://huggingface.co/${id}/blob/main/config.json`} rel="noreferrer">config.json</a> of the model says its class under <code>architectures</code>; search for that.</p>` : null}
    ${types.length ? html`<p>By its name it may be ${types.map((type, number) => html`${number ? ", " : ""}<a href=${address({ q: type })}>${type}</a>`)}.</p>` : null}
    <button type="button" onClick=${() => { query.value = ""; }}>Show all classes</button></div>`;
}

/** What was searched, answered in a sentence for each of the few classes that it names. */
function Answers() {
  const { rows, isAll } = found.value, asked = question.value;
  if (asked && !open.value) return html`<div class="site-answers" role="status">${asked.rows.slice(0, 3).map((row) => html`<${Answer} key=${row.key} row=${row} asked=${asked} />`)}</div>`;
  if (isAll || !rows.length || open.value) return null; // the panel says it, too
  const wanted = wantedId.value;
  const exact = rows.filter((row) => row.name.toLowerCase() === wanted || row.known[1].has(wanted));
  const ofType = exact.length ? [] : rows.filter((row) => row.known[2].has(wanted));
  const shown = exact.length ? exact : rows.length <= 3 ? rows : [];
  if (!shown.length && !ofType.length) return null;
  return html`<div class="site-answers" role="status">
    ${ofType.length ? html`<p><b>${wanted}</b> has the model type ${[...new Set(ofType.flatMap((row) => row.types))].join(", ")}. Which of its ${format.plural(ofType.length, "class", "classes")} do you load it with?</p>` : null}
    ${shown.slice(0, 3).map((row) => html`<p key=${row.key}><a href=${address({ open: row.key })}><b>${row.name}</b></a> <${Sentence} row=${row} /></p>`)}
    ${shown.length ? html`<p class="quiet-text">${shown.slice(0, 3).every((row) => row.weights === shown[0].weights) ? ON_WEIGHTS[shown[0].weights] : ON_WEIGHTS.pretrained}</p>` : null}</div>`;
}

/** A class on what was asked for, and where else it was tested if it was not there. */
function Answer({ row, asked }) {
  const isKnown = row.cells.some(asked.isMeant);
  const where = [asked.devices.join(" or "), asked.dtypes.join(" or ")].filter(Boolean).join(" at ");
  const name = html`<a href=${address({ open: row.key })}><b>${row.name}</b></a>`;
  return html`<p>${isKnown ? html`${name} <${Sentence} row=${row} isMeant=${asked.isMeant} />` : html`No run has tested ${name} on ${where}: there is no result${release.value ? ` with ${at(release.value)}` : ""}. It <${Sentence} row=${row} />`}</p>
    <p class="quiet-text">${ON_WEIGHTS[row.weights]}</p>`;
}

const SAYS = { works: "works on ", works_in_part: "works in part on ", does_not_work: "does not work on ", not_tested: "is not tested on " };

/** Why a result is not a plain `works`, in a few words. */
function whyOf(cell) {
  return [reasonOf(cell), cell.implementation === "emulated" ? "emulated hardware" : ""].filter(Boolean).join(", ");
}

function reasonOf({ status, problem, steps, ...cell }) {
  if (status === "works" || !problem) return "";
  if (status === "works_in_part") return [...new Set(fallen(cell).map(inShort))].join(", ");
  if (status === "does_not_work") return [inShort(problem), problem.cause].filter(Boolean).join(": ");
  const earlier = steps.findLast((step) => step.verdict !== "not_tested");
  return [problem.cause || words(problem.name), earlier ? `${words(earlier.verdict)} with ${site.value.releases[earlier.at]}` : ""].filter(Boolean).join("; ");
}

/** Where a class works and where not, and with which release. */
function Sentence({ row, isMeant = () => true }) {
  const cells = run.value.columns.map((column) => row.byColumn.get(column)).filter((cell) => cell && isMeant(cell) && (cell.column.device !== "class" || cell.status === "does_not_work"));
  const releases = [...new Set(cells.map((cell) => cell.at))].sort((a, b) => b - a);
  const parts = Object.entries(SAYS).map(([status, says]) => [status, says, cells.filter((cell) => cell.status === status)]).filter(([, , list]) => list.length);
  const link = (cell) => { const why = whyOf(cell); return html`<a href=${address({ open: cell.key })}>${columnName(cell.column)}</a>${why ? html` <small>(${why})</small>` : ""}`; };
  const joined = (list) => list.map((one, number) => html`${number ? ", " : ""}${one}`);
  return html`${parts.map(([status, says, list], number) => html`${number ? "; " : ""}<span class="says-verdict tone-${VERDICTS[status].tone}">${says}</span>${joined(releases
    .map((at) => [at, list.filter((cell) => cell.at === at)]).filter(([, those]) => those.length)
    .map(([at, those]) => html`${joined(those.map(link))}${site.value.releases.length > 1 ? html` <small>with ${site.value.releases[at]}</small>` : null}`))}`)}.`;
}

const ON_WEIGHTS = {
  tiny: "Tested on tiny checkpoints: the same class and code, with small dimensions and random weights.",
  random: "Tested at its real dimensions, with random weights.",
  pretrained: "Tested on trained weights; where no result says so, on tiny checkpoints.",
};

function Search() {
  return html`<${Answers} /><${Matrix} />`;
}

// The panel -------------------------------------------------------------------------------------------------------

const sourceOf = (record) => (record.isOneOf
  ? html`one of ${format.plural(record.runs.length, "run")}, ${day(record.runs[0].started)}${day(record.runs[0].started) === day(record.runs.at(-1).started) ? "" : ` to ${day(record.runs.at(-1).started)}`}`
  : html`${format.time(record.runs.at(-1)?.started)}`);

function Evidence({ record }) {
  const last = record.runs.at(-1), failed = fallen(record), { numbers } = record;
  const passed = record.checks.filter((check) => check.status === "passed").map((check) => words(check.name));
  const left = record.checks.filter((check) => check.status !== "passed" && !failed.includes(check)).map((check) => `${words(check.name)} (${words(check.status)})`);
  const measured = { latency: "latency", throughput: "throughput", memory: "memory", seconds: "the checks took" };
  return html`<div class="evidence">
    <p class="evidence-head"><${Badge} status=${record.verdict} /> <b><bdi>${record.model}</bdi></b> <${Weights} name=${record.weights} />${record.implementation === "emulated" ? html` <span class="tag impl-emulated">emulated</span>` : null}</p>
    ${failed.map((check) => html`<div class="why"><span class="mark tone-${STATUS[check.status].tone}"><${Icon} name=${check.status} /></span> <b>${words(check.name)}</b> ${words(check.status)}${MEANT[check.name] ? `: ${MEANT[check.name][1]}` : ""}${check.stage ? ` at stage ${check.stage}` : ""}${check.cause ? html`, cause <span class="tag" title=${site.value.causes[check.cause]}>${check.cause}</span> <small>${site.value.causes[check.cause]}</small>` : null}
      ${check.reason ? html`<p class="reason">${check.reason}</p>` : null}</div>`)}
    <dl class="facts">
      ${passed.length ? html`<dt>passed</dt><dd>${passed.join(", ")}</dd>` : null}
      ${left.length ? html`<dt>the others</dt><dd>${left.join(", ")}</dd>` : null}
      ${numbers.error !== null ? html`<dt>error</dt><dd>${format.error(numbers.error)} <small>relative to the fp64 reference${numbers.tolerance ? `, tolerance ${format.error(numbers.tolerance)}` : ""}</small> <${Gauge} error=${numbers.error} tolerance=${numbers.tolerance} /></dd>` : null}
      ${Object.entries(measured).map(([name, label]) => (numbers[name] ? html`<dt>${label}</dt><dd>${format[name](numbers[name])}</dd>` : null))}
      <dt>run</dt><dd>${sourceOf(record)}${last?.machine ? html`, ${last.machine}` : null} <a href=${address({ view: "runs", open: "" })}>${record.isOneOf ? "the runs" : "this run"}</a></dd>
      <dt>with</dt><dd>${last ? packagesOf(last, record).join(", ") : "unknown versions"}</dd>
      ${record.before.length ? html`<dt>before</dt><dd>${record.before.map(({ run: earlier, status }) => `${words(status)}, ${format.time(earlier.started)}`).join("; ")}</dd>` : null}
    </dl>
    <${Command} text=${record.command} /></div>`;
}

const RUNTIMES = { openvino: ["openvino", "nncf"], onnxruntime: ["onnxruntime"], executorch: ["executorch"] };
function packagesOf(one, record) {
  const kind = record ? site.value.columns[record.column][0].split(":")[0] : "";
  const names = record ? ["transformers", "torch", ...(RUNTIMES[kind] ?? [])] : ["transformers", "torch", ...Object.values(RUNTIMES).flat()];
  return names.filter((name) => one.versions[name]).map((name) => `${name} ${one.versions[name]}`);
}

function CellEvidence({ cell }) {
  const steps = [...cell.steps].reverse();
  return html`<${Header} title=${cell.row.name} to=${cell.row.key}>
      <p class="sub"><b>${columnName(cell.column)}${cell.column.device === "class" ? ", the checks that need no device" : ""}</b></p><//>
    ${steps.map((step, number) => html`<section key=${step.at}><h4>${at(site.value.releases[step.at])}${number === 0 ? "" : html` <small>${changeBetween(step, steps[number - 1]) ? "" : "the same verdict"}</small>`}</h4>
      ${[...step.records].sort((a, b) => WEIGHTS.indexOf(a.weights) - WEIGHTS.indexOf(b.weights)).map((record) => html`<${Evidence} key=${record.model + record.weights} record=${record} />`)}</section>`)}`;
}

function ClassPanel({ row }) {
  const all = site.value, cells = run.value.columns.map((column) => row.byColumn.get(column)).filter(Boolean);
  const releases = [...new Set(cells.flatMap((cell) => cell.steps.map((step) => step.at)))].sort((a, b) => b - a);
  const [isLong, setLong] = useState(false);
  const ids = [...row.ids, ...row.shared];
  const problems = cells.flatMap((cell) => fallen(cell).map((check) => ({ cell, check })));
  const grouped = new Map();
  for (const { cell, check } of problems) {
    const key = `${check.name}\n${check.cause}\n${check.reason}`;
    if (!grouped.has(key)) grouped.set(key, { check, cells: [] });
    grouped.get(key).cells.push(cell);
  }
  return html`<${Header} title=${row.name}><p class="sub">${[row.types.length ? `model type ${row.types.join(", ")}` : "", words(row.task), words(row.family)].filter(Boolean).join(" · ")}</p><//>
    <div class="answers"><p>${row.name} <${Sentence} row=${row} /></p><p class="quiet-text">${ON_WEIGHTS[row.weights]}</p></div>
    <section class="wide" tabIndex="0" aria-label="Devices and releases"><table class="devices"><thead><tr><th scope="col">Device</th>${releases.map((number) => html`<th scope="col">${all.releases[number]}</th>`)}</tr></thead>
      <tbody>${cells.map((cell) => html`<tr key=${cell.key}><th scope="row"><a href=${address({ open: cell.key })}>${columnName(cell.column)}</a></th>
        ${releases.map((number) => { const step = cell.steps.find((one) => one.at === number); return html`<td>${step ? html`<${Badge} status=${step.verdict} />` : html`<span class="quiet-text" title="no result">–</span>`}</td>`; })}</tr>`)}</tbody></table></section>
    ${grouped.size ? html`<section><h4>What fails, and whose doing it is</h4>${[...grouped.values()].map(({ check, cells: where }) => html`<div class="why">${where.map((cell, number) => html`${number ? ", " : ""}<a href=${address({ open: cell.key })}>${columnName(cell.column)}</a>`)}: <b>${words(check.name)}</b>${MEANT[check.name] ? `, ${MEANT[check.name][1]}` : ""}${check.cause ? html` <span class="tag">${check.cause}</span> <small>${all.causes[check.cause]}</small>` : null}
      <p class="reason">${check.reason}</p></div>`)}</section>` : null}
    ${ids.length ? html`<section><h4>Models</h4><p class="quiet-text">${(isLong ? ids : ids.slice(0, 8)).join(", ")}${ids.length > 8 && !isLong ? html` <button type="button" class="quiet" onClick=${() => setLong(true)}>and ${ids.length - 8} more</button>` : null}</p></section>` : null}`;
}

function panelOf(key) {
  const all = run.value;
  if (key.startsWith("class:")) {
    const row = all.rows.find((one) => one.key === key);
    return row ? html`<${ClassPanel} row=${row} />` : missing(key.slice(6));
  }
  const cell = all.byKey.get(key);
  return cell ? html`<${CellEvidence} cell=${cell} />` : missing(key);
}

const missing = (name) => html`<${Header} title=${name.replaceAll("/", " ")}><p class="sub">There is no result ${release.value ? `with ${at(release.value)}` : "here"}. ${release.value ? html`<a href=${address({ release: "" })}>Show the newest results</a>` : null}</p><//>`;

// What is broken, what changed, the runs --------------------------------------------------------------------------

const BLAMED = ["transformers", "exporter", "runtime", "driver", "numerics", "undecided", "time", "factory", "ours", "package", ""];

function Broken() {
  const all = run.value;
  const groups = new Map();
  for (const cell of found.value.cells) {
    const { problem } = cell;
    if (!problem) continue;
    const key = [cell.status, problem.name, problem.cause, problem.reason.replaceAll(cell.row.name, "…").replace(/\b[a-z]+\/…/g, "…")].join("\n");
    if (!groups.has(key)) groups.set(key, { status: cell.status, checks: [problem.name], cause: problem.cause, cells: [] });
    groups.get(key).cells.push(cell);
  }
  const sections = BLAMED.map((cause) => [cause, [...groups.values()].filter((group) => (group.cause ?? "") === cause).sort((a, b) => b.cells.length - a.cells.length)]).filter(([, list]) => list.length);
  if (!sections.length) return html`<div class="page"><div class="nothing"><p>Nothing that is shown fails.</p></div></div>`;
  const many = (list) => format.plural(list.reduce((sum, group) => sum + group.cells.length, 0), "result");
  return html`<div class="page problems">
    <p class="lead">What did not pass, by the component that is responsible.</p>
    <ul class="jumps">${sections.map(([cause, list]) => html`<li><a href=${address({ q: `${query.value} cause:${cause}`.trim() })}>${cause || "no cause recorded"}</a> <small>${many(list)}</small></li>`)}</ul>
    ${sections.map(([cause, list]) => html`<section key=${cause}><h2>${cause || "No cause recorded"} <small>${many(list)}</small></h2><p class="lead">${all.causes[cause] ?? ""}</p>
      ${list.map((group) => html`<${ProblemCard} key=${group.cells[0].key} group=${group} />`)}</section>`)}</div>`;
}

const compared = computed(() => {
  const all = site.value;
  if (!all || all.releases.length < 2) return null;
  const chosen = all.releases.indexOf(release.value), named = all.releases.indexOf(since.value);
  // The oldest release has none before it: the next one is compared with it.
  const to = chosen < 0 ? all.releases.length - 1 : chosen === 0 && named < 0 ? 1 : chosen;
  const from = named >= 0 && named !== to ? named : to > 0 ? to - 1 : 1;
  const side = (number) => {
    const cells = new Map();
    for (const record of all.records) {
      if (record.at !== number) continue;
      const key = record.row * all.columns.length + record.column;
      cells.set(key, [...(cells.get(key) ?? []), record]);
    }
    return new Map([...cells].map(([key, records]) => [key, cellOf(records)]));
  };
  return { from, to, old: side(from), now: side(to) };
});

const CHANGED = {
  broken: { tone: "bad", label: "Worse", says: "It worked, or more of it did, before." },
  fixed: { tone: "good", label: "Better", says: "It did not work, or less of it did, before." },
  other: { tone: "odd", label: "No verdict with one of the two", says: "With one of the releases a package was missing, or our tiny checkpoint could not be made." },
};

function ReleaseChanges() {
  const all = site.value, pair = compared.value;
  if (!pair) return html`<div class="page"><div class="nothing"><p>All results are of one release, so there is nothing to compare.</p></div></div>`;
  const { from, to, old, now } = pair;
  const shown = new Set(found.value.rows.map((row) => row.name));
  const isWhole = found.value.isAll;
  const changed = { broken: [], fixed: [], other: [] };
  let common = 0;
  for (const [key, after] of now) {
    const before = old.get(key), row = all.rows[after.row];
    if (!before || (!isWhole && !shown.has(row.name))) continue;
    common += 1;
    const change = changeBetween(before, after);
    if (change) changed[change].push({ row, before, after });
  }
  const classes = (side) => new Set([...side.values()].map((cell) => cell.row));
  const [earlier, later] = [classes(old), classes(now)];
  const only = (one, other) => [...one].filter((row) => !other.has(row)).map((row) => all.rows[row]).filter((row) => isWhole || shown.has(row.name));
  const columns = all.columns.map((column, number) => run.value.columns.find((one) => one.at === number) ?? makeColumn(column, number));
  const pick = (label, value, set) => html`<label>${label} <select value=${all.releases[value]} onChange=${(event) => set(event.target.value)}>${all.releases.map((name) => html`<option value=${name}>${name}</option>`)}</select></label>`;
  const total = Object.values(changed).reduce((sum, list) => sum + list.length, 0);
  return html`<div class="page changes">
    <div class="compare">${pick("From transformers", from, (name) => { since.value = name; })} ${pick("to", to, (name) => { if (all.releases.indexOf(name) === from) since.value = ""; release.value = name; })}</div>
    <p class="lead"><b>${format.count(total)} of ${format.plural(common, "result")}</b> that both releases have changed.</p>
    ${Object.entries(changed).map(([change, list]) => (list.length ? html`<section key=${change}><h2><span class="mark tone-${CHANGED[change].tone}"></span>${CHANGED[change].label} <small>${format.plural(list.length, "result")}</small></h2><p class="lead">${CHANGED[change].says}</p>
      <${ChangeList} list=${list} columns=${columns} /></section>` : null))}
    ${[[only(later, earlier), `Only with ${all.releases[to]}`], [only(earlier, later), `Only with ${all.releases[from]}`]].map(([list, title]) => (list.length ? html`<section key=${title}><h2>${title} <small>${format.plural(list.length, "class", "classes")}</small></h2>
      <p class="names">${list.map((row) => html`<a href=${address({ open: `class:${row.name}`, release: "" })}>${row.name}</a> `)}</p></section>` : null))}</div>`;
}

function ChangeList({ list, columns }) {
  const [limit, setLimit] = useState(40);
  return html`<ul class="cell-list">${list.slice(0, limit).map(({ row, before, after }) => { const why = fallen(after)[0] ?? fallen(before)[0]; return html`<li key=${`${row.name}${after.column}`}><a class="cell-link" href=${address({ open: `${row.name}/${columns[after.column].key}` })}><bdi>${row.name}</bdi><span>${columnName(columns[after.column])}</span></a>
      <span class="delta"><${Badge} status=${before.verdict} /> → <${Badge} status=${after.verdict} /></span>${why ? html`<span class="reason">${words(why.name)}${why.cause ? `, ${why.cause}` : ""}: ${why.reason}</span>` : null}</li>`; })}</ul>
    ${list.length > limit ? html`<button type="button" class="more" onClick=${() => setLimit(limit + 400)}>Show ${format.count(Math.min(400, list.length - limit))} more</button>` : null}`;
}

function Runs() {
  const all = site.value;
  const counts = new Map();
  for (const record of all.records) for (const one of record.runs) counts.set(one, (counts.get(one) ?? 0) + (record.isOneOf ? 0 : 1));
  const runs = [...all.runs].reverse();
  return html`<div class="page facts-page"><p class="lead">The runs of pytest that the results are from, newest first. A support matrix that merges runs does not say which of them had a result.</p>
    <div class="wide" tabIndex="0" role="group" aria-label="Runs"><table class="sources"><thead><tr><th scope="col">Began</th><th scope="col">Versions</th><th scope="col">Results</th><th scope="col">Command</th></tr></thead>
      <tbody>${runs.map((one) => html`<tr><th scope="row">${format.time(one.started) || "unknown"}${one.machine ? html`<br /><small>${one.machine}</small>` : null}</th><td class="fold">${packagesOf(one).join(", ")}</td><td>${counts.get(one) ? format.count(counts.get(one)) : "part of a matrix"}</td><td class="fold"><code>${one.command}</code></td></tr>`)}</tbody></table></div></div>`;
}

// The frame -------------------------------------------------------------------------------------------------------

function ReleasePicker() {
  const all = site.value;
  return html`<label class="release">transformers <select value=${release.value} onChange=${(event) => { release.value = event.target.value; }}>
    <option value="">newest result of each</option>${[...all.releases].reverse().map((name) => html`<option value=${name}>${name}</option>`)}</select></label>`;
}

function Top() {
  const all = site.value, runs = all.runs.filter((one) => one.started), name = view.value;
  const devices = new Set(all.columns.map(([device]) => device).filter((device) => device !== "class"));
  const tabs = [["matrix", "Search"], ["broken", "What is broken"], ["changes", "What changed"], ["runs", "Runs"]];
  const facts = [`${format.count(all.rows.length)} classes`, [...devices].join(", "), `transformers ${all.releases.join(", ")}`, runs.length ? `newest run ${day(runs.at(-1).started)}` : ""].filter(Boolean);
  return html`<header class="top site-top"><div class="headline"><p class="product">pytest-hfaccel</p>
      <h1>Can I use this class on this device?</h1><p class="facts-line">${facts.map((fact) => html`<span>${fact}</span>`)}</p></div>
    ${name === "matrix" || name === "broken" ? html`<${ReleasePicker} />` : null}
    <nav aria-label="Views">${tabs.map(([key, label]) => html`<a key=${key} href=${address({ view: key, open: "" })} aria-current=${name === key ? "page" : undefined}>${label}</a>`)}
      <${ThemePicker} /></nav></header>`;
}

const SITE_VIEWS = { matrix: Search, broken: Broken, changes: ReleaseChanges, runs: Runs };

function SiteApp() {
  const name = view.value, View = SITE_VIEWS[name];
  return html`<${Top} /><main class="view-${name}">${name === "runs" ? null : html`<${FilterBar} />`}<div class="body"><div class="content"><${View} key=${name} /></div><${PanelFrame} content=${panelOf} /></div></main>`;
}

startPage(SiteApp, Object.keys(SITE_VIEWS), "support.json", async () => {
  await loadSite();
  // Whoever comes without an address wants to search; on a phone the keyboard would cover the page.
  if (!location.hash && matchMedia("(pointer: fine)").matches) requestAnimationFrame(() => document.querySelector(".search input")?.focus());
  effect(() => { run.value = runOf(site.value.releases.includes(release.value) ? release.value : ""); });
});
