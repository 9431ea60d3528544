// The filter bar, which all views share, and the matrix: a grid that draws only the rows in sight.

import { STATUS, columnName, computed, format, html, signal, useEffect, useLayoutEffect, useRef, useState, words } from "./data.js";
import { FIELDS, toggleValue, valuesIn } from "./query.js";
import { found, group, model, open, openPanel, pins, problem, query, run, show, sort } from "./state.js";

const ROUND = "M8 2.5a5.5 5.5 0 1 0 .01 0";
export const SHAPES = {
  passed: "M3.5 8.5l3 3 6-7",
  failed: "M4 4l8 8M12 4l-8 8",
  error: "M8 2.5v7M8 13v.01",
  crashed: "M9.5 2L4 9h4l-1.5 5L12 7H8z",
  timeout: `${ROUND}M8 5v3.3l2.2 1.2`,
  out_of_memory: "M4.5 4.5h7v7h-7zM6.5 2v2.5M9.5 2v2.5M6.5 11.5V14M9.5 11.5V14M2 6.5h2.5M2 9.5h2.5M11.5 6.5H14M11.5 9.5H14",
  xfailed: `${ROUND}M6 6l4 4M10 6l-4 4`,
  xpassed: `${ROUND}M5.5 8l2 2 3-3.6`,
  skipped: "M3 4l4 4-4 4M9 4l4 4-4 4",
  unavailable: "M4 8h8",
  gated: "M4 7.5h8V13H4zM5.7 7.5V5.2a2.3 2.3 0 0 1 4.6 0v2.3",
  hub_error: "M5 12a2.6 2.6 0 0 1 0-5.2 3.6 3.6 0 0 1 6.8.8A2.2 2.2 0 0 1 11.5 12z",
  infra_error: "M3 3.5h10v4H3zM3 9.500h10v3H3zM5.500 5.500v.01M5.500 11v.01",
  incomplete: `${ROUND}M8 2.5v11`,
  search: "M7 2.5a4.5 4.5 0 1 0 .01 0M10.5 10.5L14 14",
  close: "M4 4l8 8M12 4l-8 8",
  pin: "M6 2.5h4l-.5 4 2 2.5h-7l2-2.5zM8 9v4.5",
  copy: "M5.5 5.5h7v8h-7zM3.5 10.5v-8h7",
  up: "M8 13V3M4 7l4-4 4 4",
  down: "M8 3v10M4 9l4 4 4-4",
  link: "M6.5 9.5l3-3M7 4.5l1.5-1.5a3 3 0 0 1 4.5 4.5L11.5 9M9 11.5L7.500 13A3 3 0 0 1 3 8.500L4.500 7",
};
export const Icon = ({ name }) => html`<svg class="icon" viewBox="0 0 16 16" aria-hidden="true"><path d=${SHAPES[name]} /></svg>`;

export const Badge = ({ status }) => html`<span class="badge tone-${STATUS[status].tone}"><${Icon} name=${status} />${words(status)}</span>`;
export const Weights = ({ name }) => html`<span class="tag weights-${name}">${name}</span>`;
export const Impl = ({ name }) => (name !== "emulated" ? null : html`<span class="tag impl-${name}">${name}</span>`);

// The filter bar --------------------------------------------------------------------------------------------------

const helpIsOpen = signal(false);

function Help() {
  return html`<div class="help" id="filter-help">
    <div><h3>Examples</h3>
      <dl class="examples">${run.value.terms.examples.map(([text, meaning]) => html`<dt><button type="button" onClick=${() => { query.value = text; }}><code>${text}</code></button></dt><dd>${meaning}</dd>`)}</dl></div>
    <div><h3>Fields</h3>
      <dl class="fields">${Object.entries(FIELDS).map(([name, meaning]) => html`<dt><code>${name}:</code></dt><dd>${meaning}</dd>`)}</dl>
      <p>Terms side by side must all hold of one cell; <code>or</code>, <code>not</code> (or <code>-</code>) and parentheses combine them. A comma means either: <code>status:failed,error</code>. <code>*</code> stands for any letters. Anything else is searched as text, also in reasons.</p></div>
  </div>`;
}

function Menu({ label, field, values }) {
  const ticked = valuesIn(query.value, field);
  const box = useRef();
  useEffect(() => {
    const close = (event) => {
      if (box.current?.open && (event.key === "Escape" || (event.type === "pointerdown" && !box.current.contains(event.target)))) {
        box.current.open = false;
        if (event.key === "Escape") { box.current.querySelector("summary").focus(); event.stopPropagation(); }
      }
    };
    document.addEventListener("pointerdown", close);
    document.addEventListener("keydown", close, true);
    return () => { document.removeEventListener("pointerdown", close); document.removeEventListener("keydown", close, true); };
  }, []);
  if (values.length < 2 && !ticked.length) return null;
  return html`<details class="menu" ref=${box}>
    <summary class=${ticked.length ? "on" : ""}>${label}${ticked.length ? html`<b>${ticked.length === 1 ? ticked[0] : ticked.length}</b>` : ""}</summary>
    <div class="options" role="group" aria-label=${label}>${values.map(([value, count]) => html`<label key=${value}>
      <input type="checkbox" checked=${ticked.includes(value)} onChange=${() => { query.value = toggleValue(query.value, field, value); }} />
      <span>${words(value)}</span><small>${format.count(count)}</small></label>`)}</div>
  </details>`;
}

const tally = (things, of) => {
  const counts = new Map();
  for (const thing of things) counts.set(of(thing), (counts.get(of(thing)) ?? 0) + 1);
  return counts;
};
const byCount = (counts) => [...counts].sort((a, b) => b[1] - a[1] || (a[0] < b[0] ? -1 : 1));
const byName = (counts) => [...counts].sort((a, b) => (a[0].toLowerCase() < b[0].toLowerCase() ? -1 : 1));

const facets = computed(() => {
  const all = run.value;
  if (!all) return null;
  const devices = tally(all.cells, (cell) => cell.column.device);
  const causes = tally(all.cells.flatMap((cell) => [...new Set(cell.checks.map((check) => check.cause).filter(Boolean))]), (cause) => cause);
  return {
    device: [...devices].sort((a, b) => (a[0] === "class") - (b[0] === "class") || (a[0] < b[0] ? -1 : 1)),
    dtype: byCount(tally(all.cells, (cell) => cell.column.dtype)),
    family: byCount(tally(all.rows, (row) => row.family)),
    module: byName(tally(all.rows, (row) => row.module)),
    weights: byCount(tally(all.rows, (row) => row.weights)),
    cause: byCount(causes),
    changed: byCount(tally(all.cells.filter((cell) => cell.change), (cell) => cell.change)),
    impl: byCount(tally(all.cells, (cell) => cell.implementation)),
  };
});

export function FilterBar() {
  const all = run.value, { cells, rows } = found.value, values = facets.value;
  const { row, rows: plural, cell } = all.terms;
  const input = useRef();
  useLayoutEffect(() => {
    const focus = (event) => {
      if (event.key === "/" && !/^(INPUT|TEXTAREA|SELECT)$/.test(document.activeElement?.tagName)) {
        event.preventDefault();
        input.current.focus();
        input.current.select();
      }
    };
    document.addEventListener("keydown", focus);
    return () => document.removeEventListener("keydown", focus);
  }, []);
  const ticked = valuesIn(query.value, "status");
  return html`<div class="filters" role="search">
    <div class="search">
      <${Icon} name="search" />
      <input ref=${input} type="text" value=${query.value} spellcheck=${false} autocomplete="off" autocapitalize="off" enterkeyhint="search"
        aria-label="Filter" aria-describedby="found" aria-invalid=${problem.value ? "true" : "false"}
        placeholder=${all.terms.hint}
        onInput=${(event) => { query.value = event.target.value; }}
        onKeyDown=${(event) => {
          if (event.key === "Escape" && query.value) { query.value = ""; event.stopPropagation(); }
          if (event.key === "Enter" && query.value && all.terms.opensFirst && sorted.value.length) openPanel(sorted.value[0].key);
        }} />
      <p id="found" class="found" role="status">${found.value.isAll
        ? `${format.plural(rows.length, row, plural)}, ${format.plural(cells.length, cell)}`
        : `${format.count(cells.length)} of ${format.plural(all.cells.length, cell)}, ${format.count(rows.length)} of ${format.plural(all.rows.length, row, plural)}`}</p>
      ${query.value ? html`<button type="button" class="quiet" aria-label="Clear the filter" onClick=${() => { query.value = ""; input.current.focus(); }}><${Icon} name="close" /></button>` : html`<kbd aria-hidden="true">/</kbd>`}
      <button type="button" class="quiet" aria-label="How to filter" aria-expanded=${helpIsOpen.value} aria-controls="filter-help" onClick=${() => { helpIsOpen.value = !helpIsOpen.value; }}><span class="roomy">How to filter</span><span class="tight" aria-hidden="true">?</span></button>
    </div>
    ${problem.value ? html`<p class="query-problem" role="alert">${problem.value}</p>` : null}
    ${helpIsOpen.value ? html`<${Help} />` : null}
    <div class="facets">
      <div class="chips" role="group" aria-label="Status">${all.worstFirst.filter((status) => all.counts[status]).map((status) => html`
        <button type="button" key=${status} class="chip tone-${STATUS[status].tone}" aria-pressed=${ticked.includes(status)} title=${STATUS[status].says}
          onClick=${() => { query.value = toggleValue(query.value, "status", status); }}><${Icon} name=${status} />${words(status)}<b>${format.count(all.counts[status])}</b></button>`)}</div>
      <div class="menus">
        <${Menu} label="Device" field="device" values=${values.device} />
        <${Menu} label="Precision" field="dtype" values=${values.dtype} />
        <${Menu} label="Family" field="family" values=${values.family} />
        <${Menu} label="Module" field="module" values=${values.module} />
        <${Menu} label="Weights" field="weights" values=${values.weights} />
        <${Menu} label="Cause" field="cause" values=${values.cause} />
        <${Menu} label="Changed" field="changed" values=${values.changed} />
        <${Menu} label="Hardware" field="impl" values=${values.impl} />
      </div>
    </div>
  </div>`;
}

// The rows in order -----------------------------------------------------------------------------------------------

export const SHOWN = {
  status: { label: "Status" },
  latency: { label: "Latency", best: "least", option: "--hf-performance" },
  throughput: { label: "Throughput", best: "most", option: "--hf-performance" },
  memory: { label: "Memory", best: "least" },
  error: { label: "Error", best: "least" },
  budget: { label: "Error / budget", best: "least" },
  power: { label: "Power", best: "least" },
  seconds: { label: "Test time", best: "least" },
};

const newsOf = (row) => Math.min(...row.cells.map((cell) => ["broken", "fixed", "other", "slower", "faster", "new", ""].indexOf(cell.change)));

const sorted = computed(() => {
  const { rows, columns } = found.value;
  const by = sort.value.replace(/^-/, ""), turned = sort.value.startsWith("-") ? -1 : 1;
  const keys = new Map();
  const order = (of, after = () => 0) => {
    for (const row of rows) keys.set(row, of(row));
    return [...rows].sort((a, b) => {
      const one = keys.get(a), other = keys.get(b);
      if (one === other) return after(a, b) || a.at - b.at;
      if (one === undefined) return 1; // what has no value comes last, in either direction
      if (other === undefined) return -1;
      return (one < other ? -1 : 1) * turned;
    });
  };
  if (by === "name") return order((row) => row.name.toLowerCase());
  if (by === "class") return order((row) => row.architecture.toLowerCase());
  if (by === "changed") return order(newsOf);
  if (by === "listed") return rows;
  const column = run.value.columns.find((each) => each.key === by);
  if (column) {
    const most = SHOWN[show.value].best === "most" ? -1 : 1;
    return order((row) => {
      const cell = row.byColumn.get(column);
      if (!cell) return undefined;
      if (show.value === "status") return run.value.worstFirst.indexOf(cell.status);
      const value = cell.numbers[show.value];
      return value === null ? undefined : value * most;
    });
  }
  return order(run.value.order ?? ((row) => row.severity));
});

const items = computed(() => {
  const by = group.value, rows = sorted.value;
  if (!by || !(by in run.value.terms.groups)) return rows.map((row) => ({ row }));
  const groups = new Map();
  for (const row of rows) {
    if (!groups.has(row[by])) groups.set(row[by], []);
    groups.get(row[by]).push(row);
  }
  return [...groups].flatMap(([label, members]) => [{ label, members }, ...members.map((row) => ({ row }))]);
});

const shownColumns = computed(() => {
  const { columns } = found.value;
  const pinned = pins.value.map((key) => columns.find((column) => column.key === key)).filter(Boolean);
  return [...pinned, ...columns.filter((column) => !pinned.includes(column))];
});

// The grid --------------------------------------------------------------------------------------------------------

const ROW = 46, HEAD = 74, SPARE = 6;
const focus = signal({ line: 0, place: 0, wanted: false });

export function cellLabel(cell) {
  const parts = [words(cell.status)];
  if (cell.status === "unavailable") parts.push("not here");
  if (cell.says || cell.problem) parts.push(cell.says || words(cell.problem.name));
  if (cell.implementation !== "real") parts.push(cell.implementation);
  if (cell.change) parts.push(CHANGES[cell.change].label.toLowerCase());
  return `${cell.row.model}, ${columnName(cell.column)}: ${parts.join(", ")}`;
}

export const CHANGES = {
  broken: { label: "Broken", says: "passed the last time it ran, and fails now", tone: "bad" },
  fixed: { label: "Fixed", says: "failed the last time it ran, and does not now", tone: "good" },
  other: { label: "Other status", says: "another status than the last time it ran", tone: "odd" },
  slower: { label: "Slower", says: "its fastest repetition takes longer than the last time, by more than noise explains", tone: "odd" },
  faster: { label: "Faster", says: "its fastest repetition takes less than the last time, by more than noise explains", tone: "good" },
  new: { label: "New", says: "in none of the earlier runs", tone: "none" },
};

/** Whether a number takes part in finding the best: the speed of emulated hardware, or of wrong results, says nothing. */
export const counts = (cell, name) => !["latency", "throughput"].includes(name) || (cell.implementation === "real" && !run.value.bad.has(cell.status));

function bestOf(row, shownAs) {
  const { best } = SHOWN[shownAs];
  const values = row.cells.filter((cell) => cell.numbers[shownAs] > 0 && counts(cell, shownAs)).map((cell) => cell.numbers[shownAs]);
  if (!best || values.length < 2) return null;
  return best === "least" ? Math.min(...values) : Math.max(...values);
}

function CellContent({ cell, best }) {
  const as = show.value;
  if (as !== "status") {
    const value = cell.numbers[as];
    if (value === null) return html`<span class="none">${cell.status === "passed" ? "·" : html`<${Icon} name=${cell.status} />`}</span>`;
    const most = Math.max(...cell.row.cells.map((each) => each.numbers[as] ?? 0));
    return html`<span class="value ${value === best ? "best" : ""}"><b>${format[as](value)}</b><i style=${{ width: `${most > 0 ? Math.max(2, (100 * value) / most) : 0}%` }}></i></span>
      ${run.value.bad.has(cell.status) ? html`<${Icon} name=${cell.status} />` : null}`;
  }
  const says = cell.says !== undefined ? cell.says : cell.status === "passed" ? "" : cell.status === "unavailable" ? "not here" : cell.problem?.name ?? "";
  return html`<${Icon} name=${cell.status} />${says ? html`<span class="says">${words(says)}</span>` : null}`;
}

function GridRow({ item, line, columns, left, tabPlace }) {
  const place = (column) => ({ role: "gridcell", "aria-colindex": column + 2, tabIndex: tabPlace === column + 1 ? 0 : -1, "data-place": column + 1 });
  const top = { transform: `translateY(${line * ROW}px)` };
  if (item.label !== undefined) {
    const statuses = tally(item.members.flatMap((row) => row.cells), (cell) => cell.status);
    return html`<div role="row" class="row heading" style=${top} aria-rowindex=${line + 2} data-line=${line}>
      <div role="rowheader" class="name" aria-colindex="1" data-place="0" tabIndex=${tabPlace === null ? -1 : 0}><span>${words(item.label)} <small>${format.plural(item.members.length, run.value.terms.row, run.value.terms.rows)}</small></span></div>
      <div role="gridcell" class="share" aria-colindex="2" aria-colspan=${columns.length}><${Share} counts=${statuses} /></div></div>`;
  }
  const { row } = item, best = bestOf(row, show.value), { has, isAll } = found.value;
  return html`<div role="row" class="row" style=${top} aria-rowindex=${line + 2} data-line=${line}>
    <div role="rowheader" class="name" aria-colindex="1" data-place="0" tabIndex=${tabPlace === 0 ? 0 : -1} data-open=${row.key} title=${row.model}>
      <span class="model"><bdi>${row.owner ? html`<small>${row.owner}</small>` : null}${row.name}</bdi></span>
      <span class="about"><span>${row.about}</span><${Weights} name=${row.weights} /></span>
    </div>
    ${columns.map((column, number) => {
      const cell = row.byColumn.get(column), stuck = left[number];
      const sticky = stuck === undefined ? "" : " pinned";
      const style = stuck === undefined ? undefined : { left: `${stuck}px` };
      if (!cell) return html`<div ...${place(number)} class="cell empty${sticky}" style=${style} aria-label=${`${row.model}, ${columnName(column)}: did not run`}></div>`;
      return html`<div ...${place(number)} style=${style} data-open=${cell.key} aria-label=${cellLabel(cell)}
        class="cell tone-${STATUS[cell.status].tone} ${cell.implementation}${sticky}${!isAll && !has(cell) ? " dim" : ""}${open.value === cell.key ? " open" : ""} as-${show.value === "status" ? "status" : "number"}">
        <span class="pill"><${CellContent} cell=${cell} best=${best} /></span>${cell.change ? html`<span class="change is-${cell.change}" title=${CHANGES[cell.change].label}></span>` : null}</div>`;
    })}
  </div>`;
}

export function Share({ counts }) {
  const entries = run.value.worstFirst.map((status) => [status, (counts.get ? counts.get(status) : counts[status]) ?? 0]).filter(([, count]) => count);
  const label = entries.map(([status, count]) => `${count} ${words(status)}`).join(", ");
  return html`<span class="bar" role="img" aria-label=${label} title=${label}>${entries.map(([status, count]) => html`<i class="tone-${STATUS[status].tone}" style=${{ flexGrow: count }}></i>`)}</span>`;
}

function Head({ columns, left, tabPlace, isNarrow }) {
  const by = sort.value.replace(/^-/, ""), descends = sort.value.startsWith("-");
  const turn = (key) => { sort.value = by !== key ? key : descends ? "" : `-${key}`; };
  const arrow = (key) => (by === key ? html`<${Icon} name=${descends ? "up" : "down"} />` : null);
  const state = (key) => (by !== key ? "none" : descends ? "descending" : "ascending");
  return html`<div role="row" class="row head" aria-rowindex="1" data-line="-1">
    <div role="columnheader" class="name" aria-colindex="1" aria-sort=${state("name")}><button type="button" data-place="0" tabIndex=${tabPlace === 0 ? 0 : -1} onClick=${() => turn("name")}>${run.value.terms.head} ${arrow("name")}</button></div>
    ${columns.map((column, number) => {
      const isPinned = pins.value.includes(column.key), stuck = left[number];
      const failed = Object.entries(column.counts).reduce((sum, [status, count]) => sum + (run.value.bad.has(status) ? count : 0), 0);
      return html`<div role="columnheader" key=${column.key} class="column${stuck === undefined ? "" : " pinned"}" style=${stuck === undefined ? undefined : { left: `${stuck}px` }} aria-colindex=${number + 2} aria-sort=${state(column.key)}>
        <button type="button" class="title" data-place=${number + 1} tabIndex=${tabPlace === number + 1 ? 0 : -1} onClick=${() => turn(column.key)}
          title=${column.device === "class" ? `The checks that run ${run.value.terms.once}, on no device. Click to sort.` : `${columnName(column)}. Click to sort.`}>
          <span>${column.title ?? column.device}</span>
          <small>${column.device === "class" ? (isNarrow ? "once" : run.value.terms.once) : column.dtype}${column.emulated ? html` <em>emulated</em>` : null} ${arrow(column.key)}</small></button>
        <button type="button" class="pin" tabIndex="-1" aria-pressed=${isPinned} aria-label=${`${isPinned ? "Unpin" : "Pin"} ${columnName(column)}`} title=${`${isPinned ? "Unpin" : "Pin"} this column (p)`}
          onClick=${() => togglePin(column)}><${Icon} name="pin" /></button>
        <span class="sum"><${Share} counts=${column.counts} />${failed ? html`<small class="bad">${format.count(failed)}</small>` : null}</span></div>`;
    })}
  </div>`;
}

function togglePin(column) {
  pins.value = pins.value.includes(column.key) ? pins.value.filter((key) => key !== column.key) : [...pins.value, column.key];
}

function Grid() {
  const scroller = useRef();
  const [box, setBox] = useState({ top: 0, height: 800, width: 1000 });
  const lines = items.value, columns = shownColumns.value;
  useLayoutEffect(() => {
    const element = scroller.current;
    const measure = () => setBox({ top: element.scrollTop, height: element.clientHeight, width: element.clientWidth });
    let asked = 0;
    const onScroll = () => { asked ||= requestAnimationFrame(() => { asked = 0; measure(); }); };
    const watcher = new ResizeObserver(measure);
    watcher.observe(element);
    element.addEventListener("scroll", onScroll, { passive: true });
    measure();
    return () => { watcher.disconnect(); element.removeEventListener("scroll", onScroll); cancelAnimationFrame(asked); };
  }, []);
  // Another filter or order begins at its top.
  const first = useRef(true);
  useEffect(() => {
    if (first.current) { first.current = false; return; }
    scroller.current.scrollTop = 0;
    focus.value = { line: 0, place: focus.peek().place, wanted: false };
  }, [lines]);

  const isNarrow = box.width < 640;
  const nameWidth = isNarrow ? 168 : Math.min(340, Math.max(240, box.width * 0.3));
  const columnWidth = isNarrow ? 76 : Math.max(128, Math.min(176, (box.width - nameWidth - 2) / Math.max(1, columns.length)));
  const left = columns.map((column, number) => (pins.value.includes(column.key) ? nameWidth + number * columnWidth : undefined));
  const from = Math.max(0, Math.floor(box.top / ROW) - SPARE);
  const to = Math.min(lines.length, Math.ceil((box.top + box.height) / ROW) + SPARE);
  // One place of the grid takes part in the order of the Tab key: where the focus was, or the first one in sight.
  const at = focus.value, place = Math.min(at.place, columns.length);
  const tabLine = at.line === -1 || (at.line >= from && at.line < to) ? at.line : Math.min(Math.ceil(box.top / ROW), lines.length - 1);

  useLayoutEffect(() => {
    if (!at.wanted) return;
    const target = scroller.current.querySelector(`[data-line="${at.line}"] [data-place="${place}"]`) ?? scroller.current.querySelector(`[data-line="${at.line}"] [data-place]`);
    if (target) { target.focus({ preventScroll: true }); focus.value = { ...at, wanted: false }; }
  });

  const move = (line, next) => {
    line = Math.max(-1, Math.min(lines.length - 1, line));
    next = Math.max(0, Math.min(columns.length, next));
    const element = scroller.current, top = line * ROW;
    if (line >= 0 && top < element.scrollTop) element.scrollTop = top;
    else if (line >= 0 && top + ROW + HEAD > element.scrollTop + element.clientHeight) element.scrollTop = top + ROW + HEAD - element.clientHeight;
    if (next > 0 && left[next - 1] === undefined) {
      const begin = (next - 1) * columnWidth, pinned = pins.value.length * columnWidth;
      const room = element.clientWidth - nameWidth;
      if (begin - pinned < element.scrollLeft) element.scrollLeft = begin - pinned;
      else if (begin + columnWidth > element.scrollLeft + room) element.scrollLeft = begin + columnWidth - room;
    }
    focus.value = { line, place: next, wanted: true };
  };
  const onKeyDown = (event) => {
    const holder = event.target.closest("[data-place]"), holding = event.target.closest("[data-line]");
    if (!holder || !holding || event.altKey || event.metaKey) return;
    const line = Number(holding.dataset.line), here = Number(holder.dataset.place);
    const page = Math.max(1, Math.floor((box.height - HEAD) / ROW) - 1);
    const moves = {
      ArrowDown: [line + 1, here], ArrowUp: [line - 1, here], ArrowRight: [line, here + 1], ArrowLeft: [line, here - 1],
      PageDown: [line + page, here], PageUp: [Math.max(0, line - page), here],
      Home: event.ctrlKey ? [0, 0] : [line, 0], End: event.ctrlKey ? [lines.length - 1, columns.length] : [line, columns.length],
    };
    if (moves[event.key]) { event.preventDefault(); move(...moves[event.key]); }
    else if ((event.key === "Enter" || event.key === " ") && holder.dataset.open) { event.preventDefault(); openPanel(holder.dataset.open); }
    else if (event.key === "p" && here > 0 && !event.ctrlKey) { event.preventDefault(); togglePin(columns[here - 1]); }
  };
  const onClick = (event) => {
    const target = event.target.closest("[data-open]");
    if (!target || getSelection()?.toString()) return;
    focus.value = { line: Number(target.closest("[data-line]").dataset.line), place: Number(target.dataset.place), wanted: true };
    openPanel(target.dataset.open);
  };
  return html`<div class="grid ${isNarrow ? "narrow" : ""}" ref=${scroller} role="grid" aria-label=${`${run.value.terms.head} by device and precision`} aria-rowcount=${lines.length + 1} aria-colcount=${columns.length + 1}
      style=${{ "--name": `${nameWidth}px`, "--column": `${columnWidth}px`, "--columns": columns.length }} onKeyDown=${onKeyDown} onClick=${onClick}>
    <${Head} isNarrow=${isNarrow} columns=${columns} left=${left} tabPlace=${tabLine === -1 ? place : null} />
    <div role="rowgroup" class="lines" style=${{ height: `${lines.length * ROW}px` }}>
      ${lines.slice(from, to).map((item, number) => html`<${GridRow} key=${item.row ? item.row.at : `group ${item.label}`} item=${item} line=${from + number} columns=${columns} left=${left} tabPlace=${from + number === tabLine ? place : null} />`)}
    </div>
  </div>`;
}

export function Segments({ label, options, value, onPick }) {
  return html`<div class="segments" role="group" aria-label=${label}>${options.map(([key, text, isOff]) => html`
    <button type="button" key=${key} aria-pressed=${value === key} disabled=${isOff} onClick=${() => onPick(key)}>${text}</button>`)}</div>`;
}

/** Says that the speeds shown were measured on a busy machine, where many were. */
export function BusyHint({ shown }) {
  const [disturbed, measured] = run.value.disturbed ?? [0, 0];
  if (!["latency", "throughput"].includes(shown) || disturbed <= measured / 4) return null;
  return html`<p class="hint">While ${format.count(disturbed)} of ${format.plural(measured, "speed was", "speeds were")} measured, the machine was busy with something else: medians are too long, and the fastest device may be another one.</p>`;
}

/** What the dots on the cells stand for: each kind of change with its number of cells. */
const changes = computed(() => {
  const all = run.value;
  if (!all) return [];
  return Object.keys(CHANGES).map((change) => [change, all.cells.filter((cell) => cell.change === change).length]).filter(([, count]) => count);
});

export function Matrix() {
  const all = run.value;
  const has = (name) => name === "status" || all.cells.some((cell) => cell.numbers[name] !== null);
  const as = show.value;
  const nothing = !items.value.length, { orders } = all.terms;
  return html`<section class="matrix" aria-label="Matrix">
    <div class="tools">
      <${Segments} label="Show" value=${as} onPick=${(key) => { show.value = key; }} options=${Object.entries(SHOWN).filter(([key]) => has(key) || (SHOWN[key].option && !all.terms.hidesUnmeasured)).map(([key, { label }]) => [key, label])} />
      <label>Group by <select value=${group.value} onChange=${(event) => { group.value = event.target.value; }}>${Object.entries(all.terms.groups).map(([key, label]) => html`<option value=${key}>${label}</option>`)}</select></label>
      <label>Order <select value=${sort.value in orders ? sort.value : "column"} onChange=${(event) => { sort.value = event.target.value; }}>
        ${Object.entries(orders).map(([key, label]) => html`<option value=${key}>${label}</option>`)}
        ${sort.value in orders ? null : html`<option value="column">by a column</option>`}</select></label>
      ${changes.value.length ? html`<p class="legend-of-changes">${all.terms.since}: ${changes.value.map(([change, count]) => html`<button type="button" class="plain" key=${change} onClick=${() => { query.value = toggleValue(query.value, "changed", change); }}><span class="change is-${change}"></span>${CHANGES[change].label.toLowerCase()} <b>${format.count(count)}</b></button>`)}</p>` : null}
      ${as !== "status" && has(as) ? html`<p class="key">${{
        latency: "Median of one run, at the first measured batch size; the fastest of each row is bold.",
        throughput: "Samples per second at the first measured batch size; the most of each row is bold.",
        memory: "Bytes of a run where measured, else of the weights on the device.",
        error: "Relative error (rel-L2) against the fp64 reference.",
        budget: "Error in multiples of what rounding to this dtype must cost this model; near 1 is honest arithmetic.",
        power: "How far the smallest wrong weight that fails this cell moves the outputs (rel-L2): smaller faults pass.",
        seconds: "Loading and all checks.",
      }[as]}</p>` : null}
    </div>
    <${BusyHint} shown=${as} />
    ${has(as) ? null : html`<p class="hint">No speed was measured. <code>pytest ${SHOWN[as].option}</code> does, for every cell whose results are right.</p>`}
    ${nothing && all.Nothing ? html`<${all.Nothing} />` : nothing ? html`<div class="nothing"><p>${all.cells.length ? "No cell matches this filter." : all.run.ended === "running" ? "This run is still going on; the page is written again at its end." : "This run has no results."}</p>
      ${all.cells.length ? html`<button type="button" onClick=${() => { query.value = ""; }}>Clear the filter</button>` : null}</div>` : html`<${Grid} />`}
  </section>`;
}
