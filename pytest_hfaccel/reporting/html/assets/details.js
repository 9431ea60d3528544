// The panel beside the matrix: a cell with its checks, or a model on all its devices.

import { MEANT, STATUS, columnName, format, html, loadDetails, signal, useEffect, useLayoutEffect, useRef, useState, words } from "./data.js";
import { Badge, CHANGES, Icon, Impl, Weights, counts } from "./matrix.js";
import { BatchChart, HistoryChart } from "./charts.js";
import { address, closePanel, open, run, runAddress } from "./state.js";

const copied = signal("");

export function Command({ text, label = "Copy the command" }) {
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(text);
      copied.value = text;
      setTimeout(() => { copied.value = ""; }, 1500);
    } catch { /* a page from disk may not be allowed to; the text can be selected */ }
  };
  return html`<div class="command"><code>${text}</code><button type="button" class="quiet" aria-label=${label} title=${label} onClick=${copy}>${copied.value === text ? html`<${Icon} name="passed" />` : html`<${Icon} name="copy" />`}</button></div>`;
}

// Measures --------------------------------------------------------------------------------------------------------

const isObject = (value) => value !== null && typeof value === "object" && !Array.isArray(value);

function written(name, value) {
  if (value === null || value === "") return "–";
  if (typeof value === "boolean") return value ? "yes" : "no";
  if (typeof value === "number") {
    if (/bytes$/.test(name)) return format.memory(value);
    if (/_ms$/.test(name)) return format.latency(value);
    if (/(^|_)seconds$|_s$/.test(name)) return format.seconds(value);
    return Number.isInteger(value) && Math.abs(value) < 1e15 ? format.count(value) : format.number(value, 4);
  }
  if (Array.isArray(value)) return value.map((item) => (isObject(item) ? JSON.stringify(item) : String(item))).join(", ") || "none";
  return String(value);
}

function Measures({ measures }) {
  const entries = Object.entries(measures);
  if (!entries.length) return null;
  const plain = entries.filter(([, value]) => !isObject(value)), nested = entries.filter(([, value]) => isObject(value) && Object.keys(value).length);
  return html`<div class="measures">
    ${plain.length ? html`<dl>${plain.map(([name, value]) => html`<dt>${words(name)}</dt><dd>${written(name, value)}</dd>`)}</dl>` : null}
    ${nested.map(([name, value]) => {
      const inner = Object.values(value), heads = isObject(inner[0]) ? Object.keys(inner[0]) : [];
      const isTable = inner.length > 0 && heads.length > 1 && inner.every((row) => isObject(row) && heads.every((key) => !isObject(row[key])));
      return html`<div class="nested"><h5>${words(name)}</h5>${isTable ? html`<div class="wide" tabIndex="0" role="group" aria-label=${words(name)}><table><thead><tr><td></td>${heads.map((key) => html`<th scope="col">${words(key)}</th>`)}</tr></thead>
        <tbody>${Object.entries(value).map(([key, row]) => html`<tr><th scope="row">${key}</th>${heads.map((head) => html`<td>${written(head, row[head] ?? null)}</td>`)}</tr>`)}</tbody></table></div>` : html`<${Measures} measures=${value} />`}</div>`;
    })}
  </div>`;
}

/** The number that says most about a check. */
function headline(check, measures) {
  const has = (name) => typeof measures[name] === "number";
  switch (check.name) {
    case "performance": return has("median_ms") ? `${format.latency(measures.median_ms)} at batch ${measures.batch}` : "";
    case "memory": return has("peak_bytes") ? `peak ${format.memory(measures.peak_bytes)}` : "";
    case "determinism": return has("max_abs") ? (measures.max_abs === 0 ? "identical" : `differs by ${format.number(measures.max_abs)}`) : "";
    case "canary": return typeof measures.power?.rel_l2 === "number" ? `notices faults from ${format.error(measures.power.rel_l2)} on` : has("margin") ? `noticed at ${format.number(measures.margin)} × the tolerance` : "";
    case "from_pretrained": return has("parameters") ? `${format.count(measures.parameters)} parameters` : "";
    case "resolves": return measures.transformers ? `transformers ${measures.transformers}` : "";
    case "placement": return measures.actual_devices ? `${[].concat(measures.actual_devices).join(", ")}, ${measures.effective_dtype}` : "";
    case "forward": return isObject(measures.outputs) ? format.plural(Object.keys(measures.outputs).length, "output") : "";
    case "generation": return has("new_tokens") ? format.plural(measures.new_tokens, "token") : "";
    default: return has("rel_l2") ? `error ${format.error(measures.rel_l2)}` : "";
  }
}

/** Error and tolerance on one logarithmic scale. */
export function Gauge({ error, tolerance }) {
  if (!(tolerance > 0) || error === null || error === undefined) return null;
  const low = Math.log10(tolerance) - 5, place = (value) => Math.max(0, Math.min(100, ((Math.log10(Math.max(value, 1e-300)) - low) / 7) * 100));
  const says = `error ${format.error(error)}, tolerance ${format.error(tolerance)}`;
  return html`<span class="gauge ${error > tolerance ? "over" : ""}" role="img" aria-label=${says} title=${says}><i style=${{ width: `${place(error)}%` }}></i><b style=${{ left: `${place(tolerance)}%` }}></b></span>`;
}

function Check({ check, details }) {
  const [measures, seconds] = details ?? [{}, 0];
  const isQuiet = check.status === "passed" || check.status === "skipped" || check.reason?.includes(run.value.not_reached);
  const limit = measures.tolerance?.rel_l2;
  return html`<details class="check" open=${!isQuiet}>
    <summary><span class="mark tone-${STATUS[check.status].tone}"><${Icon} name=${check.status} /></span>
      <span class="what">${words(check.name)}${check.status === "passed" ? null : html` <small>${words(check.status)}</small>`}</span>
      <span class="number">${check.name === "parity" && typeof measures.rel_l2 === "number"
        ? html`${format.error(measures.rel_l2)}${limit ? html` <small>of ${format.error(limit)}</small>` : null}<${Gauge} error=${measures.rel_l2} tolerance=${limit} />${typeof measures.budget?.ratio === "number" ? html` <small title="the error in multiples of what rounding to this dtype must cost this model on this input">${format.number(measures.budget.ratio)} × budget</small>` : null}${measures.samples?.count > 1 ? html` <small title=${`with ${100 * measures.samples.confidence} % confidence at most this share of all inputs fails (exact binomial bound)`}>${measures.samples.failed ? `${measures.samples.failed} of ` : ""}${measures.samples.count} inputs ${measures.samples.failed ? "failed" : "passed"}, ≤ ${format.number(100 * measures.samples.failing_at_most, 2)} % fail</small>` : null}${measures.not_judged ? html` <small title=${Object.entries(measures.not_judged).map(([input, leaves]) => `input ${input}: ${Object.entries(leaves).map(([leaf, why]) => `${leaf}: ${why}`).join("; ")}`).join("\n")}>${Object.keys(measures.not_judged).length} not judged</small>` : null}`
        : headline(check, measures)}</span>
      <small class="took">${seconds ? format.seconds(seconds) : ""}</small></summary>
    <div class="inside">
      ${check.stage || check.cause ? html`<p class="blame">${check.stage ? html`stage <b>${check.stage}</b>` : null}${check.stage && check.cause ? ", " : ""}${check.cause ? html`cause <b>${check.cause}</b>: ${run.value.causes[check.cause]}` : null}</p>` : null}
      ${check.reason ? html`<pre tabIndex="0">${check.reason}</pre>` : null}
      <${Measures} measures=${measures} />
    </div>
  </details>`;
}

// A cell ----------------------------------------------------------------------------------------------------------

function Elsewhere({ cell }) {
  const others = run.value.columns.map((column) => cell.row.byColumn.get(column)).filter(Boolean);
  if (others.length < 2) return null;
  return html`<section><h4>The same model elsewhere</h4><div class="elsewhere">${others.map((other) => html`
    <a href=${address({ open: other.key })} key=${other.key} class="mini tone-${STATUS[other.status].tone}" aria-current=${other === cell ? "true" : undefined} title=${`${columnName(other.column)}: ${words(other.status)}`}>
      <${Icon} name=${other.status} /><span>${columnName(other.column)}</span>${other.numbers.latency ? html`<small>${format.latency(other.numbers.latency)}</small>` : null}</a>`)}</div></section>`;
}

function Before({ cell }) {
  if (!run.value.earlier.length) return null;
  if (!cell.before.length) return html`<section><h4>Earlier runs</h4><p class="quiet-text">This cell is in none of the ${run.value.earlier.length} earlier runs.</p></section>`;
  return html`<section><h4>Earlier runs</h4>
    ${cell.change ? html`<p><b>${CHANGES[cell.change].label}</b>: ${CHANGES[cell.change].says}.</p>` : html`<p class="quiet-text">As the last time it ran.</p>`}
    <ol class="before">${cell.before.slice(-8).map((each) => html`<li><a href=${`${runAddress(each.run.id)}#matrix?open=${encodeURIComponent(cell.key)}`}><${Badge} status=${each.status} /></a>
      <span>${format.time(each.run.started)}</span><small>${each.weights !== cell.row.weights ? `${each.weights} weights` : ""} ${each.latency ? format.latency(each.latency) : ""} ${each.error !== null ? `error ${format.error(each.error)}` : ""}</small></li>`)}
      <li><${Badge} status=${cell.status} /><span>this run</span><small>${cell.numbers.latency ? format.latency(cell.numbers.latency) : ""} ${cell.numbers.error !== null ? `error ${format.error(cell.numbers.error)}` : ""}</small></li></ol>
    <${HistoryChart} cells=${[cell]} />
  </section>`;
}

function CellPanel({ cell }) {
  const [details, setDetails] = useState(null);
  useEffect(() => {
    let isCurrent = true;
    setDetails(null);
    loadDetails(run.value, cell).then((found) => { if (isCurrent) setDetails(found); });
    return () => { isCurrent = false; };
  }, [cell]);
  const { problem } = cell;
  const facts = details ? { ...details.placement, ...(Object.keys(details.timings).length ? { "seconds of": details.timings } : {}) } : {};
  return html`<${Header} title=${cell.row.model} to=${cell.row.key}>
      <p class="sub">${cell.row.architecture}<br /><b>${cell.column.device === "class" ? "checks that run once per model" : `${cell.column.device} · ${cell.column.dtype}`}</b> <${Impl} name=${cell.implementation} /><${Weights} name=${cell.row.weights} /></p>
    <//>
    <div class="verdict tone-${STATUS[cell.status].tone}"><${Badge} status=${cell.status} />
      ${problem ? html`<p><b>${words(problem.name)}</b>${MEANT[problem.name] ? `: ${MEANT[problem.name][1]}` : ""}${problem.blame ? html`, <b>${problem.blame}</b>` : ""}${problem.stage ? ` at stage ${problem.stage}` : ""}${problem.cause && (!problem.blame || problem.blame === problem.cause) ? html`${problem.blame ? "" : `, cause: ${problem.cause}`} <small>(${run.value.causes[problem.cause]})</small>` : ""}</p><p class="reason">${problem.reason.split("\n")[0]}</p>` : html`<p>${STATUS[cell.status].says}</p>`}
    </div>
    ${details ? html`<section><h4>Run it again</h4><${Command} text=${details.command} />${details.fromRun ? html`<p class="quiet-text">Taken over from run ${details.fromRun}, which this one continued.</p>` : null}</section>
    <section><h4>${format.plural(cell.checks.length, "check")}</h4>${cell.checks.map((check, number) => html`<${Check} key=${`${cell.key} ${number}`} check=${check} details=${details.checks[number]} />`)}</section>
    ${cell.points.length > 1 ? html`<section><h4>By batch size</h4><${BatchChart} cells=${[cell]} /></section>` : null}
    <${Elsewhere} cell=${cell} />
    <${Before} cell=${cell} />
    ${Object.keys(facts).length ? html`<section><h4>Loaded</h4><${Measures} measures=${facts} /></section>` : null}
    ${cell.row.why ? html`<p class="quiet-text">Why ${cell.row.weights} weights: ${cell.row.why}.</p>` : null}` : html`<p class="quiet-text">Unpacking …</p>`}`;
}

// A model ---------------------------------------------------------------------------------------------------------

export function fastest(row) {
  const timed = row.cells.filter((cell) => cell.numbers.latency > 0 && counts(cell, "latency")).sort((a, b) => a.numbers.latency - b.numbers.latency);
  return timed[0] ?? null;
}

function ModelPanel({ row }) {
  const cells = run.value.columns.map((column) => row.byColumn.get(column)).filter(Boolean);
  const ordered = [...cells].sort((a, b) => (a.numbers.latency ?? Infinity) - (b.numbers.latency ?? Infinity) || 0);
  const best = fastest(row), slowest = ordered.filter((cell) => cell.numbers.latency && counts(cell, "latency")).at(-1);
  const failing = cells.filter((cell) => run.value.bad.has(cell.status));
  const has = (name) => cells.some((cell) => cell.numbers[name] !== null);
  return html`<${Header} title=${row.model}>
      <p class="sub">${row.architecture}, ${words(row.task)}, ${words(row.family)} <${Weights} name=${row.weights} /></p>
    <//>
    <div class="answers">
      <p>${failing.length ? html`Fails on <b>${failing.map((cell) => columnName(cell.column)).join(", ")}</b>.` : "Fails nowhere."}</p>
      ${best ? html`<p>Fastest on <b>${columnName(best.column)}</b>: ${format.latency(best.numbers.latency)}${slowest !== best ? html`, ${format.number(slowest.numbers.latency / best.numbers.latency)} × as fast as ${columnName(slowest.column)}` : ""}.</p>` : html`<p class="quiet-text">No speed was measured; <code>--hf-performance</code> does.</p>`}
    </div>
    <section class="wide" tabIndex="0" aria-label="Devices"><table class="devices"><thead><tr><th scope="col">Device</th><th scope="col">Status</th>${has("latency") ? html`<th scope="col">Latency</th><th scope="col">Samples</th>` : null}<th scope="col">Memory</th><th scope="col">Error</th>${has("budget") ? html`<th scope="col" title="the error in multiples of what rounding to the dtype must cost this model">/ budget</th>` : null}</tr></thead>
      <tbody>${ordered.map((cell) => html`<tr key=${cell.key}><th scope="row"><a href=${address({ open: cell.key })}>${columnName(cell.column)}</a> <${Impl} name=${cell.implementation} /></th>
        <td><${Badge} status=${cell.status} /></td>${has("latency") ? html`<td>${cell.numbers.latency ? format.latency(cell.numbers.latency) : "–"}</td><td>${cell.numbers.throughput ? format.throughput(cell.numbers.throughput) : "–"}</td>` : null}
        <td>${cell.numbers.memory ? format.memory(cell.numbers.memory) : "–"}</td><td>${cell.numbers.error !== null ? format.error(cell.numbers.error) : "–"}${has("latency") ? null : html`<${Gauge} error=${cell.numbers.error} tolerance=${cell.numbers.tolerance} />`}</td>${has("budget") ? html`<td>${cell.numbers.budget !== null ? format.budget(cell.numbers.budget) : "–"}</td>` : null}</tr>`)}</tbody></table></section>
    ${failing.length ? html`<section><h4>Why</h4>${failing.map((cell) => html`<div class="why"><a href=${address({ open: cell.key })}>${columnName(cell.column)}</a> <b>${words(cell.problem?.name ?? "")}</b>${MEANT[cell.problem?.name] ? `: ${MEANT[cell.problem.name][1]}` : ""}${cell.problem?.blame ? `, ${cell.problem.blame}` : ""}${cell.problem?.cause ? html` <span class="tag">${cell.problem.cause}</span>` : null}<p class="reason">${(cell.problem?.reason ?? "").split("\n")[0]}</p></div>`)}</section>` : null}
    ${cells.some((cell) => cell.points.length > 1) ? html`<section><h4>By batch size</h4><${BatchChart} cells=${cells} /></section>` : null}
    ${run.value.earlier.length ? html`<section><h4>Over runs</h4><${HistoryChart} cells=${cells} /></section>` : null}
    ${row.why ? html`<p class="quiet-text">Why ${row.weights} weights: ${row.why}.</p>` : null}`;
}

export function Header({ title, to, children }) {
  return html`<header><div><h2 id="panel-title"><bdi>${to ? html`<a href=${address({ open: to })}>${title}</a>` : title}</bdi></h2>${children}</div>
    <button type="button" class="quiet close" aria-label="Close" title="Close (Esc)" onClick=${closePanel}><${Icon} name="close" /></button></header>`;
}

/** What is open, beside the view or over it; `content` is asked for what a key opens. */
export function PanelFrame({ content }) {
  const key = open.value;
  const box = useRef();
  useLayoutEffect(() => {
    if (!key) return undefined;
    box.current?.focus({ preventScroll: true });
    if (box.current) box.current.scrollTop = 0;
    const close = (event) => { if (event.key === "Escape" && !event.defaultPrevented && !event.target.matches?.("input")) closePanel(); };
    document.addEventListener("keydown", close);
    return () => document.removeEventListener("keydown", close);
  }, [key]);
  if (!key) return null;
  return html`<aside class="panel" ref=${box} tabIndex="-1" aria-labelledby="panel-title">${content(key) ?? html`
    <${Header} title="Not in this run"><p class="sub">There is no cell <code>${key}</code> here.</p><//>`}</aside>`;
}

export function Panel() {
  const content = (key) => {
    const row = key.startsWith("model:") ? run.value.rows[Number(key.slice(6))] : null;
    const cell = row ? null : run.value.byKey.get(key);
    return row ? html`<${ModelPanel} row=${row} />` : cell ? html`<${CellPanel} cell=${cell} />` : null;
  };
  return html`<${PanelFrame} content=${content} />`;
}
