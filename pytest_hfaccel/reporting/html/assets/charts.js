// The charts: dots by model in HTML, curves and clouds of points by uPlot.

import { columnName, computed, format, html, useEffect, useRef, useState, words } from "./data.js";
import { BusyHint, SHOWN, Segments, Share, counts } from "./matrix.js";
import { found, isDark, model, openPanel, run, runAddress, theme } from "./state.js";

const COLOURS = 10;

/** The columns that can be in a chart; with more of them than colours, the second round is dashed lines and squares. */
const charted = computed(() => run.value.columns.filter((column) => column.cells.some((cell) => cell.numbers.latency !== null || cell.numbers.error !== null)));
const colourOf = (column) => `var(--series-${Math.max(0, charted.value.indexOf(column)) % COLOURS})`;
const isSecond = (column) => charted.value.indexOf(column) >= COLOURS;
const inOrder = (cells) => [...cells].sort((a, b) => run.value.columns.indexOf(a.column) - run.value.columns.indexOf(b.column));

/** What a canvas can use: the colour that a variable has in this theme. */
function resolved(colour, opacity = 1) {
  const probe = document.body.appendChild(document.createElement("i"));
  probe.style.color = colour;
  const found = getComputedStyle(probe).color;
  probe.remove();
  return opacity < 1 ? found.replace("rgb(", "rgba(").replace(")", `, ${opacity})`) : found;
}

/** A chart of uPlot that follows its width and the theme. `make` returns options and data, given colours. */
function Plot({ make, height = 240, label, inputs }) {
  const box = useRef();
  const dark = isDark();
  useEffect(() => {
    let chart = null;
    const draw = () => {
      chart?.destroy();
      chart = null;
      const width = box.current.clientWidth;
      if (!width) return;
      const paint = { text: resolved("var(--muted)"), grid: resolved("var(--line)") };
      const axis = { stroke: paint.text, size: 34, grid: { stroke: paint.grid, width: 1 }, ticks: { stroke: paint.grid, width: 1 }, font: "12px system-ui, sans-serif" };
      const { options, data } = make(axis, paint);
      chart = new window.uPlot({ width, height, legend: { show: false }, cursor: { drag: { x: false, y: false } }, padding: [10, 12, 0, 0], ...options }, data, box.current);
    };
    draw();
    let last = box.current.clientWidth;
    const watcher = new ResizeObserver(() => {
      const width = box.current.clientWidth;
      if (width === last) return;
      last = width;
      if (chart && width) chart.setSize({ width, height }); else draw();
    });
    watcher.observe(box.current);
    return () => { watcher.disconnect(); chart?.destroy(); };
  }, [dark, theme.value, ...inputs]);
  return html`<div class="plot" ref=${box} role="img" aria-label=${label} style=${{ minHeight: `${height}px` }}></div>`;
}

const Legend = ({ columns }) => html`<p class="legend">${columns.map((column) => html`<span key=${column.key}><i class=${isSecond(column) ? "second" : ""} style=${{ background: colourOf(column) }}></i>${columnName(column)}${column.emulated ? html` <small>emulated</small>` : null}</span>`)}</p>`;

const log = (values) => values.map((value) => (value > 0 ? value : null));
/** Lines at powers of ten, at most about eight of them. */
function decades(low, high) {
  const first = Math.ceil(Math.log10(low) - 1e-6), last = Math.floor(Math.log10(high) + 1e-6), step = Math.max(1, Math.ceil((last - first) / 8));
  return Array.from({ length: Math.max(0, Math.floor((last - first) / step) + 1) }, (_, number) => 10 ** (first + number * step));
}
const logAxis = (axis, write, ticks = decades) => ({ ...axis, size: 76, splits: (chart, at, low, high) => ticks(low, high), filter: (chart, splits) => splits, values: (chart, splits) => splits.map((tick) => write(tick)) });

// By batch size ---------------------------------------------------------------------------------------------------

export function BatchChart({ cells }) {
  const [metric, setMetric] = useState("throughput");
  const timed = inOrder(cells.filter((cell) => new Set(cell.points.map(([size]) => size)).size > 1));
  if (!timed.length) return null;
  const at = { latency: 2, throughput: 3, memory: 4 }[metric];
  const sizes = [...new Set(timed.flatMap((cell) => cell.points.map(([size]) => size)))].sort((a, b) => a - b);
  // Of several lengths the first: curves of different lengths are not comparable.
  const values = timed.map((cell) => {
    const length = cell.points[0][1];
    return sizes.map((size) => cell.points.find((point) => point[0] === size && point[1] === length)?.[at] ?? null);
  });
  const make = (axis) => ({
    options: {
      scales: { x: { time: false, distr: 3, log: 2 }, y: { distr: 3, range: (chart, low, high) => [low / 1.3, high * 1.3] } },
      axes: [{ ...axis, splits: () => sizes, filter: (chart, splits) => splits, values: (chart, ticks) => ticks }, logAxis(axis, format[metric], (low, high) => niceTicks(Math.log10(low), Math.log10(high)))],
      series: [{}, ...timed.map((cell) => ({ stroke: resolved(colourOf(cell.column)), dash: isSecond(cell.column) ? [7, 5] : undefined, width: 2, points: { show: true, size: 7 } }))],
    },
    data: [sizes, ...values.map(log)],
  });
  return html`<div class="chart"><${Segments} label="Measure" value=${metric} onPick=${setMetric} options=${[["throughput", "Throughput"], ["latency", "Latency"], ["memory", "Memory"]]} />
    <${Plot} make=${make} inputs=${[metric, cells.map((cell) => cell.key).join()]} label=${`${metric} by batch size: ${timed.map((cell, number) => `${columnName(cell.column)} ${values[number].map((value) => (value ? format[metric](value) : "none")).join(", ")}`).join("; ")}`} />
    <${Legend} columns=${timed.map((cell) => cell.column)} /><p class="axis-name">batch size</p></div>`;
}

// Over runs -------------------------------------------------------------------------------------------------------

export function HistoryChart({ cells }) {
  const [metric, setMetric] = useState(cells.some((cell) => cell.numbers.latency) ? "latency" : "error");
  const runs = [...run.value.earlier, { id: run.value.run.id, started: run.value.run.started }];
  const followed = inOrder(cells.filter((cell) => cell.before.some((each) => each[metric] > 0) && cell.numbers[metric] > 0));
  const options = ["latency", "error"].filter((name) => cells.some((cell) => cell.numbers[name] > 0 && cell.before.some((each) => each[name] > 0)));
  if (!options.length) return null;
  const values = followed.map((cell) => runs.map((each, number) => (number === runs.length - 1 ? cell.numbers[metric] : cell.before.find((one) => one.run === each)?.[metric] ?? null)));
  const short = (id) => String(Number(id?.split("-")[0]) || "this");
  const make = (axis) => ({
    options: {
      scales: { x: { time: false }, y: metric === "error" ? { distr: 3 } : { range: (chart, low, high) => [0, high * 1.15 || 1] } },
      axes: [{ ...axis, space: 40, incrs: [1, 2, 5, 10], values: (chart, ticks) => ticks.map((tick) => (Number.isInteger(tick) && runs[tick] ? short(runs[tick].id) : "")) },
        metric === "error" ? logAxis(axis, format.error) : { ...axis, size: 72, values: (chart, ticks) => ticks.map((tick) => format[metric](tick)) }],
      series: [{}, ...followed.map((cell) => ({ stroke: resolved(colourOf(cell.column)), dash: isSecond(cell.column) ? [7, 5] : undefined, width: 2, spanGaps: true, points: { show: true, size: 7 } }))],
    },
    data: [runs.map((each, number) => number), ...values.map(log)],
  });
  return html`<div class="chart">${options.length > 1 ? html`<${Segments} label="Measure" value=${metric} onPick=${setMetric} options=${options.map((name) => [name, SHOWN[name].label])} />` : html`<p class="axis-name">${SHOWN[metric].label}</p>`}
    <${Plot} make=${make} height=${190} inputs=${[metric, cells.map((cell) => cell.key).join()]} label=${`${metric} over ${runs.length} runs`} />
    <${Legend} columns=${followed.map((cell) => cell.column)} /><p class="axis-name">number of the run</p></div>`;
}

// By model --------------------------------------------------------------------------------------------------------

const niceTicks = (low, high) => {
  const wide = high - low > 2, ticks = [];
  for (let power = Math.floor(low); power <= high; power += 1) for (const digit of wide ? [1] : [1, 2, 5]) ticks.push(digit * 10 ** power);
  const inside = ticks.filter((tick) => Math.log10(tick) >= low && Math.log10(tick) <= high);
  const step = Math.ceil(inside.length / 8);
  return inside.filter((tick, number) => number % step === 0);
};

function Dots({ metric }) {
  const [limit, setLimit] = useState(25);
  const { cells } = found.value, { best } = SHOWN[metric];
  const byRow = new Map();
  for (const cell of cells) if (cell.numbers[metric] > 0 && cell.column.device !== "class") {
    if (!byRow.has(cell.row)) byRow.set(cell.row, []);
    byRow.get(cell.row).push(cell);
  }
  if (!byRow.size) return html`<p class="hint">${metric === "latency" || metric === "throughput" ? html`No speed was measured in these cells. <code>pytest --hf-performance</code> measures it for every cell whose results are right.` : "These cells have no such measurement."}</p>`;
  const all = [...byRow.values()].flat().map((cell) => Math.log10(cell.numbers[metric]));
  let low = Math.min(...all), high = Math.max(...all);
  const margin = Math.max(0.15, (high - low) * 0.04);
  low -= margin; high += margin;
  const place = (value) => (100 * (Math.log10(value) - low)) / (high - low);
  const candidates = (members) => { const real = members.filter((cell) => counts(cell, metric)); return real.length ? real : members; };
  const winnerOf = (members) => candidates(members).reduce((one, other) => ((other.numbers[metric] < one.numbers[metric]) === (best === "least") ? other : one));
  const worst = (members) => Math.max(...members.map((cell) => cell.numbers.error));
  const rows = [...byRow].sort((a, b) => (metric === "error" ? worst(b[1]) - worst(a[1]) : b[1].length - a[1].length) || winnerOf(a[1]).numbers[metric] - winnerOf(b[1]).numbers[metric]);
  const columns = run.value.columns.filter((column) => rows.some(([, members]) => members.some((cell) => cell.column === column)));
  const ticks = niceTicks(low, high);
  return html`<${Legend} columns=${columns} /><div class="dots" role="table" aria-label=${`${SHOWN[metric].label} by model`}>
    <div role="row" class="scale"><span role="columnheader">Model</span><span role="columnheader" class="track">${ticks.map((tick) => html`<small style=${{ left: `${place(tick)}%` }}>${format[metric](tick)}</small>`)}<span class="only-heard">${SHOWN[metric].label}</span></span><span role="columnheader" class="winner">${metric === "latency" ? html`Fastest <small>× as fast as the slowest</small>` : best === "least" ? html`Least <small>× less than the most</small>` : html`Most <small>× as many as the fewest</small>`}</span></div>
    ${rows.slice(0, limit).map(([row, members]) => {
      const winner = winnerOf(members), values = members.map((cell) => place(cell.numbers[metric]));
      const rest = candidates(members).filter((cell) => cell !== winner).map((cell) => cell.numbers[metric] / winner.numbers[metric]);
      const ratio = rest.length ? (best === "least" ? Math.max(...rest) : 1 / Math.min(...rest)) : 0;
      return html`<div role="row" key=${row.at}><span role="rowheader"><button type="button" class="plain" title=${row.model} onClick=${() => openPanel(`model:${row.at}`)}><bdi>${row.name}</bdi></button></span>
        <span role="cell" class="track">${ticks.map((tick) => html`<u style=${{ left: `${place(tick)}%` }}></u>`)}<s style=${{ left: `${Math.min(...values)}%`, width: `${Math.max(...values) - Math.min(...values)}%` }}></s>
          ${members.map((cell) => html`<button type="button" key=${cell.key} tabIndex="-1" aria-label=${`${columnName(cell.column)}: ${format[metric](cell.numbers[metric])}`} title=${`${columnName(cell.column)}: ${format[metric](cell.numbers[metric])}`} class="${run.value.bad.has(cell.status) ? "wrong" : ""} ${isSecond(cell.column) ? "second" : ""}" style=${{ left: `${place(cell.numbers[metric])}%`, "--dot": colourOf(cell.column) }} onClick=${() => openPanel(cell.key)}></button>`)}</span>
        <span role="cell" class="winner"><b>${format[metric](winner.numbers[metric])}</b> <span>${columnName(winner.column)}</span>${ratio > 1.005 ? html` <small title="against the other end of the line">${format.number(ratio, 2)} ×</small>` : null}</span></div>`;
    })}</div>
    ${rows.length > limit ? html`<button type="button" onClick=${() => setLimit(limit + 100)}>Show more: ${format.count(rows.length - limit)} left</button>` : null}`;
}

// Error against tolerance -----------------------------------------------------------------------------------------

function ErrorCloud() {
  const { cells } = found.value;
  const measured = cells.filter((cell) => cell.numbers.error !== null && cell.column.device !== "class");
  if (!measured.length) return html`<p class="hint">No parity was measured in these cells.</p>`;
  const columns = run.value.columns.filter((column) => measured.some((cell) => cell.column === column));
  const floor = Math.min(...measured.map((cell) => cell.numbers.error).filter((error) => error > 0), 1e-8);
  const points = measured.map((cell) => {
    // A fixed jitter: the same picture each time.
    const jitter = (((cell.at * 2654435761) % 1000) / 1000 - 0.5) * 0.62;
    return { cell, x: columns.indexOf(cell.column) + jitter, y: Math.max(cell.numbers.error, floor) };
  }).sort((a, b) => a.x - b.x);
  const isOver = ({ cell }) => cell.checks.some((check) => check.name === "parity" && run.value.bad.has(check.status));
  const limits = columns.map((column) => [...new Set(measured.filter((cell) => cell.column === column && cell.numbers.tolerance).map((cell) => cell.numbers.tolerance))]);
  const spread = [...points.map((point) => point.y), ...limits.flat()];
  const make = (axis) => ({
    options: {
      scales: { x: { time: false, range: [-0.6, columns.length - 0.4] }, y: { distr: 3, range: () => [10 ** (Math.floor(Math.log10(Math.min(...spread))) - 0.3), 10 ** Math.ceil(Math.log10(Math.max(...spread)) + 0.01)] } },
      axes: [{ ...axis, grid: { show: false }, ticks: { show: false }, splits: () => columns.map((column, number) => number), values: () => columns.map(columnName) }, logAxis(axis, format.error)],
      cursor: { show: false },
      series: [{}, ...columns.map((column) => ({ paths: () => null, stroke: resolved(colourOf(column)), points: { show: true, size: 6, width: 0, fill: resolved(colourOf(column), 0.6) } })), { paths: () => null, stroke: resolved("var(--bad)"), points: { show: true, size: 9, width: 2, fill: "transparent" } }],
      hooks: {
        draw: [(chart) => {
          const { ctx } = chart;
          ctx.save();
          ctx.strokeStyle = resolved("var(--text)");
          ctx.lineWidth = 2 * devicePixelRatio;
          limits.forEach((values, number) => values.forEach((limit) => {
            const y = chart.valToPos(limit, "y", true);
            ctx.beginPath();
            ctx.moveTo(chart.valToPos(number - 0.4, "x", true), y);
            ctx.lineTo(chart.valToPos(number + 0.4, "x", true), y);
            ctx.stroke();
          }));
          ctx.restore();
        }],
        ready: [(chart) => {
          chart.over.style.cursor = "pointer";
          const nearest = (event) => {
            const area = chart.over.getBoundingClientRect(), x = event.clientX - area.left, y = event.clientY - area.top;
            let found = null, distance = 144;
            for (const point of points) {
              const d = (chart.valToPos(point.x, "x") - x) ** 2 + (chart.valToPos(point.y, "y") - y) ** 2;
              if (d < distance) { distance = d; found = point; }
            }
            return found;
          };
          chart.over.addEventListener("click", (event) => { const point = nearest(event); if (point) openPanel(point.cell.key); });
          chart.over.addEventListener("mousemove", (event) => { const point = nearest(event); chart.over.title = point ? `${point.cell.row.model}, ${columnName(point.cell.column)}: ${format.error(point.cell.numbers.error)}${point.cell.numbers.tolerance ? ` of ${format.error(point.cell.numbers.tolerance)}` : ""}` : ""; });
        }],
      },
    },
    data: [points.map((point) => point.x), ...columns.map((column) => points.map((point) => (point.cell.column === column && !isOver(point) ? point.y : null))), points.map((point) => (isOver(point) ? point.y : null))],
  });
  const hasLimits = limits.flat().length > 0;
  return html`<${Plot} make=${make} height=${320} inputs=${[found.value]} label=${`Relative error of ${points.length} cells: ${columns.map((column) => `${columnName(column)} at most ${format.error(Math.max(...measured.filter((cell) => cell.column === column).map((cell) => cell.numbers.error)))}`).join("; ")}`} />
    <p class="legend"><span><i></i>a cell; click it to open it</span><span><i class="ring"></i>parity failed</span>${hasLimits ? html`<span><i class="rule"></i>tolerance</span>` : html`<span>this run recorded no tolerances</span>`}</p>`;
}

// What a precision costs ------------------------------------------------------------------------------------------

const median = (values) => {
  const sorted = [...values].sort((a, b) => a - b), middle = Math.floor(sorted.length / 2);
  return sorted.length === 0 ? null : sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
};

function Precisions() {
  const { rows, has } = found.value;
  const devices = [...new Set(run.value.columns.filter((column) => column.device !== "class").map((column) => column.device))];
  const compared = devices.filter((device) => run.value.columns.filter((column) => column.device === device).length > 1);
  if (!compared.length) return html`<p class="hint">Each device ran at one precision. <code>pytest --hf-dtype fp32,fp16,bf16</code> compares several.</p>`;
  const entries = compared.flatMap((device) => {
    const columns = run.value.columns.filter((column) => column.device === device);
    const base = columns.find((column) => column.dtype === "fp32") ?? columns[0];
    return columns.map((column) => {
      const cells = rows.map((row) => row.byColumn.get(column)).filter((cell) => cell && has(cell));
      const ratio = (name) => median(cells.map((cell) => { const other = cell.row.byColumn.get(base); return cell.numbers[name] > 0 && other?.numbers[name] > 0 ? cell.numbers[name] / other.numbers[name] : null; }).filter((value) => value !== null));
      const ran = cells.filter((cell) => cell.status !== "unavailable" && cell.status !== "skipped");
      return { column, base, count: ran.length, right: ran.filter((cell) => !run.value.bad.has(cell.status)).length, error: median(cells.map((cell) => cell.numbers.error).filter((value) => value !== null)), latency: ratio("latency"), memory: ratio("memory") };
    });
  });
  const times = (value, isBase) => (value === null ? "–" : isBase ? "1" : html`<b>${format.number(value, 3)} ×</b>`);
  return html`<div class="wide" tabIndex="0" role="group" aria-label="Precisions"><table class="precisions"><thead><tr><th scope="col">Device</th><th scope="col">Precision</th><th scope="col">Right</th><th scope="col">Median error</th><th scope="col">Latency</th><th scope="col">Memory</th></tr></thead>
    <tbody>${entries.map(({ column, base, count, right, error, latency, memory }) => html`<tr key=${column.key}><th scope="row">${column.device}</th><td>${column.dtype}</td><td>${count ? `${right} of ${count}` : "–"}</td><td>${error === null ? "–" : format.error(error)}</td><td>${times(latency, column === base)}</td><td>${times(memory, column === base)}</td></tr>`)}</tbody></table></div>
    <p class="axis-name">Latency and memory: the median over the models, relative to the first line of the device.</p>`;
}

// By batch size, and over the runs, for one model ---------------------------------------------------------------

function OfOneModel({ title, able, hint, children }) {
  if (!able.length) return html`<h2>${title}</h2><p class="hint">${hint}</p>`;
  const row = able.find((each) => each.model === model.value) ?? able[0];
  return html`<h2>${title}</h2><label class="pick">Model <select value=${row.model} onChange=${(event) => { model.value = event.target.value; }}>${able.map((each) => html`<option value=${each.model}>${each.model}</option>`)}</select></label>${children(row)}`;
}

export function RunBars() {
  const all = run.value;
  const runs = [...all.earlier, { ...all.run, status: all.run.passed ? "passed" : all.run.ended === "finished" ? "failed" : all.run.ended, counts: all.counts, isThis: true }].reverse();
  return html`<div class="wide" tabIndex="0" role="group" aria-label="Runs"><table class="runs"><thead><tr><th scope="col">Run</th><th scope="col">Began</th><th scope="col">Ended</th><th scope="col">Cells</th></tr></thead><tbody>
    ${runs.map((each) => html`<tr key=${each.id}><th scope="row">${each.isThis ? html`<b>${each.id || "this run"}</b>` : html`<a href=${runAddress(each.id)}>${each.id}</a>`}</th><td>${format.time(each.started)}</td><td>${words(each.status)}</td>
      <td><div class="share"><span>${format.count(Object.values(each.counts).reduce((sum, count) => sum + count, 0))}</span><${Share} counts=${each.counts} /></div></td></tr>`)}</tbody></table></div>`;
}

export function Charts() {
  const [metric, setMetric] = useState(run.value.isMeasured ? "latency" : "error");
  return html`<div class="page charts">
    <section><h2>Which device is best for a model</h2><p class="lead">One line per model, one dot per device and precision.</p>
      <${Segments} label="Measure" value=${metric} onPick=${setMetric} options=${["latency", "throughput", "memory", "error"].map((name) => [name, SHOWN[name].label])} />
      <${BusyHint} shown=${metric} /><${Dots} metric=${metric} key=${metric} /></section>
    <section><h2>Error against tolerance</h2><p class="lead">How far each cell is from the fp64 reference (rel-L2).</p><${ErrorCloud} /></section>
    <section><h2>What a precision costs</h2><${Precisions} /></section>
    <section><${OfOneModel} title="By batch size" able=${found.value.rows.filter((row) => row.cells.some((cell) => new Set(cell.points.map(([size]) => size)).size > 1))}
      hint=${html`No cell was measured at several batch sizes. <code>pytest --hf-performance --hf-performance-batch-sizes 1,2,4,8</code> does it.`}>${(row) => html`<${BatchChart} cells=${row.cells} key=${row.at} />`}<//></section>
    ${run.value.earlier.length ? html`<section><${OfOneModel} title="Over the runs" able=${found.value.rows.filter((row) => row.cells.some((cell) => cell.before.length && (cell.numbers.latency || cell.numbers.error)))} hint="No model of this filter was measured in an earlier run.">${(row) => html`<${HistoryChart} cells=${row.cells} key=${row.at} />`}<//><${RunBars} /></section>` : null}
  </div>`;
}
