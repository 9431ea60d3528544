// The data of the page: unpacked, and put together to rows, columns and cells that refer to each other.

export const { h, render } = window.preact;
export const { useEffect, useLayoutEffect, useRef, useState } = window.preactHooks;
export const { signal, computed, batch, effect } = window.preactSignals;
export const html = window.htm.bind(h);

export async function unpack(id) {
  const text = document.getElementById(id).textContent;
  const bytes = Uint8Array.fromBase64
    ? Uint8Array.fromBase64(text)
    : Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).json();
}

/** How each status is shown: a symbol, a tone, and what it means. */
export const STATUS = {
  passed: { tone: "good", says: "all checks passed" },
  failed: { tone: "bad", says: "a check failed" },
  error: { tone: "bad", says: "a check could not be carried out" },
  crashed: { tone: "worst", says: "took the process down" },
  timeout: { tone: "worst", says: "stopped at the time limit" },
  out_of_memory: { tone: "worst", says: "memory did not suffice" },
  xpassed: { tone: "odd", says: "was expected to fail, but passed: delete the entry" },
  xfailed: { tone: "known", says: "failed as the registry expects" },
  skipped: { tone: "none", says: "no check applies" },
  unavailable: { tone: "none", says: "device, precision or package is missing here" },
  gated: { tone: "odd", says: "the checkpoint asks for permission" },
  hub_error: { tone: "odd", says: "the hub did not answer" },
  infra_error: { tone: "odd", says: "the machine or the device failed, not the model" },
  incomplete: { tone: "none", says: "the run ended before all checks ran" },
};

export const words = (status) => status.replaceAll("_", " ");
export const columnName = (column) => column.title ?? (column.device === "class" ? "class" : `${column.device} ${column.dtype}`);

/** What the views call things; the support site has words of its own. */
const TERMS = {
  clean: (query) => query, since: "since the last run", says: {},
  row: "model", rows: "models", cell: "cell", head: "Model", once: "once per model",
  hint: "Filter: bert, fails only on openvino, check:parity …",
  examples: [
    ["fails", "cells that failed the run"],
    ["fails only on openvino", "rows that fail on OpenVINO and on nothing else"],
    ["passes on cpu but fails on openvino/fp16", "works on the CPU, fails on OpenVINO in fp16"],
    ["fails everywhere", "rows that fail wherever they ran"],
    ["check:parity error>1e-3", "the results are off by more than 0.1 %"],
    ["cause:exporter or cause:runtime", "the conversion or the runtime is to blame"],
    ["class:Bert* weights:pretrained", "BERT classes on trained weights"],
    ["changed:broken,slower", "worse than the last time it ran"],
    ["none(status:passed)", "rows in which nothing passed"],
    ["cpu:passed openvino:failed", "as wpt.fyi writes it: by column"],
  ],
  orders: { "": "problems first", name: "name", class: "class", changed: "changes first", listed: "module" },
  groups: { "": "nothing", family: "family", module: "module", architecture: "class", task: "task", weights: "weights" },
};

export function makeColumn([device, dtype], at) {
  return { at, device, dtype, kind: device.split(":")[0], key: `${device}/${dtype}`, cells: [], emulated: false, counts: {} };
}

/** What it means to a user that a check failed: in a word or two, and in a sentence. */
export const MEANT = {
  resolves: ["not in transformers", "this release of transformers has no such class"],
  from_pretrained: ["cannot be loaded", "it cannot be loaded, or not as it was saved"],
  placement: ["cannot be loaded", "it does not get to this device at this precision"],
  forward: ["cannot be run", "it stops, or its outputs are missing, of another shape, NaN or infinite"],
  parity: ["wrong results", "its results are not those of the fp64 reference"],
  determinism: ["results vary", "two runs on the same inputs differ"],
  batch_invariance: ["batches", "a sample alone has other results than in a batch"],
  padding_invariance: ["padding", "masked padding changes the results"],
  sensitivity: ["ignores inputs", "a change of an input does not change the results"],
  task_sense: ["no sense", "the trained model does not do its task"],
  attention: ["attention", "eager and fused attention give other results"],
  transformers_js: ["transformers.js", "the pipeline of transformers.js gives something else"],
  compile: ["torch.compile", "it cannot be compiled, or has other results then"],
  training: ["training", "a step of training fails or has wrong gradients"],
  generation: ["generation", "it generates other tokens than the reference"],
  pipeline: ["pipeline", "transformers.pipeline and the direct API disagree"],
  memory: ["memory", "memory grows from run to run, or cannot be measured"],
  canary: ["unproven", "one wrong weight would not be noticed, so right results prove little"],
};

/** The checks of a cell: one that passed is the number of its name, others say how they ended, and why. */
export function readChecks(checks, index, statuses) {
  return checks.map((check) => {
    if (typeof check === "number") return { name: index.checks[check], status: "passed", reason: "" };
    const [name, state, stage, cause, reason, blame] = check;
    return { name: index.checks[name], status: statuses[state], stage, cause, reason: index.texts[reason], blame: index.texts[blame] ?? "" };
  });
}

export const readNumbers = (numbers, index) => Object.fromEntries(index.numbers.map((name, number) => [name, numbers[number]]));

/** The check that decided the status, and is not a consequence of an earlier failure. */
export function problemOf(status, checks, index) {
  if (status === "passed") return null;
  const deciding = checks.filter((check) => check.status === status);
  return deciding.find((check) => check.reason && !check.reason.includes(index.not_reached)) ?? deciding[0] ?? null;
}

/** Put rows, columns and cells together to what the views show; each cell names its row and column. */
export function arrange(index, rows, columns, cells, more = {}) {
  const bad = new Set(index.statuses.filter(([, isBad]) => isBad).map(([name]) => name));
  const counts = {};
  for (const cell of cells) {
    cell.row.cells.push(cell);
    cell.row.byColumn.set(cell.column, cell);
    cell.column.cells.push(cell);
    counts[cell.status] = (counts[cell.status] ?? 0) + 1;
  }
  for (const column of columns) {
    column.emulated = column.cells.some((cell) => cell.implementation === "emulated");
    for (const { status } of column.cells) column.counts[status] = (column.counts[status] ?? 0) + 1;
  }
  for (const row of rows) row.severity = Math.min(...row.cells.map(({ status }) => (bad.has(status) ? index.worst_first.indexOf(status) : Infinity)));
  columns.sort((one, other) => rank(one) - rank(other) || one.device.localeCompare(other.device)
    || DTYPES.indexOf(one.dtype) - DTYPES.indexOf(other.dtype));
  return {
    ...index, terms: TERMS, ...more, rows, columns, cells, bad, counts,
    byKey: new Map(cells.map((cell) => [cell.key, cell])),
    worstFirst: index.worst_first,
    kinds: new Set(columns.map((column) => column.kind)),
    dtypes: new Set(columns.map((column) => column.dtype)),
    isMeasured: cells.some((cell) => cell.numbers.latency !== null),
  };
}

/** Unpack the index of a run and return everything that the views need. */
export async function loadRun() {
  const index = await unpack("index");
  const statuses = index.statuses.map(([name]) => name);
  const bad = new Set(index.statuses.filter(([, isBad]) => isBad).map(([name]) => name));
  const columns = index.columns.map(makeColumn);
  const rows = index.rows.map(([model, architecture, module, task, family, weights, why], at) => {
    const slash = model.lastIndexOf("/");
    return {
      at, key: `model:${at}`, model, architecture, module, task, family, weights, why: index.texts[why],
      owner: model.slice(0, slash + 1), name: model.slice(slash + 1), cells: [], byColumn: new Map(),
      about: architecture === model.slice(slash + 1) ? words(task) : architecture,
      text: [model, architecture, module, task, family].join("\n").toLowerCase(),
    };
  });
  const ids = new Map();
  for (const [, , id] of index.cells) ids.set(id, (ids.get(id) ?? 0) + 1);
  const cells = index.cells.map(([row, column, id, status, implementation, checks, numbers, points], at) => {
    const cell = {
      at, id, implementation, points, row: rows[row], column: columns[column], status: statuses[status],
      key: ids.get(id) > 1 ? `${rows[row].module}::${id}` : id,
      numbers: readNumbers(numbers, index),
      checks: readChecks(checks, index, statuses),
    };
    const before = (index.history[at] ?? []).map(([run, state, weights, latency, error]) => (
      { run: index.earlier[run], status: statuses[state], weights, latency, error }));
    cell.before = before;
    cell.last = before.at(-1) ?? null;
    cell.speed = index.speed_changes[at] ?? null;
    cell.change = changeOf(cell, bad, index.earlier.length > 0);
    cell.problem = problemOf(cell.status, cell.checks, index);
    return cell;
  });
  return arrange(index, rows, columns, cells);
}

export const DTYPES = ["fp64", "fp32", "tf32", "fp16", "bf16", "fp8", "int8", "int4"];

function rank(column) {
  return column.device === "class" ? 0 : column.device === "cpu" ? 1 : 2;
}

function changeOf(cell, bad, hasEarlier) {
  const last = cell.last;
  if (!last) return hasEarlier ? "new" : "";
  if (bad.has(cell.status) !== bad.has(last.status)) return bad.has(cell.status) ? "broken" : "fixed";
  if (cell.status !== last.status) return "other";
  return cell.speed?.[0] ?? "";
}

const chunks = new Map();

/** Return what a cell shows when it is opened. */
export async function loadDetails(run, cell) {
  const number = Math.floor(cell.at / run.chunk);
  if (!chunks.has(number)) chunks.set(number, unpack(`details-${number}`));
  const [checks, placement, timings, command, fromRun] = (await chunks.get(number))[cell.at % run.chunk];
  return { checks, placement, timings, command, fromRun };
}

const number = (value, digits = 3) => {
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size < 1e-3 || size >= 1e6) return value.toExponential(Math.max(0, digits - 2)).replace("e+", "e");
  return size >= 100 ? Math.round(value).toLocaleString("en") : String(Number(value.toPrecision(digits)));
};

export const format = {
  number,
  latency: (ms) => (ms === 0 ? "0" : ms >= 1000 ? `${number(ms / 1000)} s` : ms < 0.1 ? `${number(ms * 1000)} µs` : `${number(ms)} ms`),
  throughput: (perSecond) => `${number(perSecond)} /s`,
  memory: (bytes) => {
    const units = ["B", "kB", "MB", "GB", "TB"];
    const step = bytes > 0 ? Math.min(4, Math.floor(Math.log10(bytes) / 3)) : 0;
    return `${number(bytes / 1000 ** step)} ${units[step]}`;
  },
  error: (relative) => number(relative, 3),
  power: (relative) => number(relative, 3),
  budget: (ratio) => `${number(ratio, 2)} ×`,
  seconds: (s) => (s >= 90 ? `${Math.floor(s / 60)} min ${Math.round(s % 60)} s` : s >= 0.1 ? `${number(s)} s` : `${number(s * 1000)} ms`),
  count: (many) => many.toLocaleString("en"),
  plural: (many, one, others = `${one}s`) => `${many.toLocaleString("en")} ${many === 1 ? one : others}`,
  time: (iso) => {
    const at = iso ? new Date(iso) : null;
    if (!at || Number.isNaN(+at)) return "";
    return at.toLocaleString("en-GB", { day: "numeric", month: "short", year: "numeric", hour: "2-digit", minute: "2-digit" });
  },
};
