// The filter's language. A query says something of one cell, so `device:openvino status:failed` finds the cells on
// OpenVINO that failed; `any(...)`, `all(...)`, `none(...)` and `fails only on openvino` say something of a whole row.

const NUMBER_FIELDS = ["latency", "throughput", "memory", "error", "budget", "power", "seconds", "batch"];
const UNITS = { us: 1e-3, ms: 1, s: 1e3, kb: 1e3, mb: 1e6, gb: 1e9, tb: 1e12, kib: 2 ** 10, mib: 2 ** 20, gib: 2 ** 30 };

export const FIELDS = {
  status: "how the cell ended: passed, failed, xfailed, ...; bad is every status that fails the run",
  device: "cpu, openvino, openvino:CPU, class (the checks that run once per model)",
  dtype: "fp32, fp16, bf16, int8, ...",
  model: "name or hub id; * stands for any letters",
  class: "transformers class, e.g. class:Bert*",
  module: "model class module, e.g. bert",
  family: "embedding, text_generation, vision, audio, multimodal, ...",
  task: "e.g. fill-mask",
  weights: "pretrained, random or tiny",
  check: "a check that did not pass, e.g. check:parity",
  stage: "where it went wrong: resolve, load, convert, compile, run, compare",
  cause: "whose doing it is: package, factory, ours, transformers, exporter, runtime, driver, numerics, undecided, time",
  impl: "real, emulated or unavailable",
  changed: "since the last time the cell ran: broken, fixed, slower, faster, new; yes is any",
  reason: "text in a failure's reason",
  latency: "median, e.g. latency>10ms",
  throughput: "samples per second, e.g. throughput<100",
  memory: "bytes of a run, e.g. memory>1GB",
  error: "relative error against the reference, e.g. error>1e-4",
  budget: "the error in multiples of what rounding must cost, e.g. budget>4",
  power: "how far the smallest wrong weight that the cell notices moves the outputs, e.g. power>1e-3",
  seconds: "what the cell took in all, e.g. seconds>30",
};

const STATUS_WORDS = {
  fail: "bad", fails: "bad", failing: "bad", failed: "bad", bad: "bad", broken: "bad",
  pass: "passed", passes: "passed", passing: "passed", passed: "passed",
  unavailable: "unavailable", skipped: "skipped", xfailed: "xfailed", crashes: "crashed", crashed: "crashed",
};

export class QueryError extends Error {}

const TOKEN = /\s*(?:(\(|\)|\|)|(-?)"([^"]*)(?:"|$)|((?:[^\s()|"]|"[^"]*(?:"|$))+))/y;

function tokens(text) {
  const found = [];
  TOKEN.lastIndex = 0;
  for (let match; TOKEN.lastIndex < text.length && (match = TOKEN.exec(text)); ) {
    if (match[1]) found.push({ sign: match[1] });
    else if (match[3] !== undefined) {
      if (match[2]) found.push({ word: "not" });
      found.push({ text: match[3] });
    } else {
      let word = match[4];
      while (/^[-!]./.test(word)) {
        found.push({ word: "not" });
        word = word.slice(1);
      }
      found.push({ word });
    }
  }
  return found;
}

// Nodes answer `test(cell)`, and `column(column)`: true, false, or undefined where the column does not decide.
const not = (node) => ({
  test: (cell) => !node.test(cell),
  column: (column) => { const known = node.column(column); return known === undefined ? undefined : !known; },
});
const and = (nodes) => (nodes.length === 1 ? nodes[0] : {
  test: (cell) => nodes.every((node) => node.test(cell)),
  column: (column) => nodes.reduce((all, node) => {
    const known = node.column(column);
    return all === false || known === false ? false : all === undefined || known === undefined ? undefined : true;
  }, true),
});
const or = (nodes) => (nodes.length === 1 ? nodes[0] : not(and(nodes.map(not))));
const ofCell = (test) => ({ test, column: () => undefined });
const ofColumn = (test) => ({ test: (cell) => test(cell.column), column: test });
const ofRow = (test) => {
  const known = new Map();
  return ofCell((cell) => {
    if (!known.has(cell.row)) known.set(cell.row, test(cell.row.cells));
    return known.get(cell.row);
  });
};

/** Match a whole text; `*` stands for any letters. Not case sensitive. */
function pattern(text) {
  const parts = text.toLowerCase().split("*");
  if (parts.length === 1) return (value) => value.toLowerCase() === parts[0];
  const expression = new RegExp(`^${parts.map((part) => part.replace(/[.*+?^${}()|[\]\\]/g, "\\$&")).join(".*")}$`, "s");
  return (value) => expression.test(value.toLowerCase());
}

const anyOf = (value, make) => {
  const tests = value.split(",").filter(Boolean).map(make);
  return (subject) => tests.some((test) => test(subject));
};

/** All reasons of a cell in lower case, made once. */
function reasonsOf(cell) {
  cell.reasons ??= cell.checks.map((check) => check.reason).filter(Boolean).join("\n").toLowerCase();
  return cell.reasons;
}

/** `run.terms.says` has further words for statuses. */
export function parseQuery(text, run) {
  const says = { ...STATUS_WORDS, ...run.terms.says };
  const left = tokens(text);
  let at = 0;
  const peek = (ahead = 0) => left[at + ahead]?.word?.toLowerCase();
  const isSign = (sign) => left[at]?.sign === sign;

  const target = (name) => {
    const [device, dtype] = name.split("/");
    const isDevice = pattern(device);
    const isDtype = dtype ? pattern(dtype) : null;
    return (column) => (isDevice(column.device) || isDevice(column.kind) || (!isDtype && isDevice(column.dtype)))
      && (!isDtype || isDtype(column.dtype));
  };
  const knows = (name) => run.columns.some(target(name));
  const status = (value) => anyOf(value, (name) => {
    const wanted = name.toLowerCase();
    if (says[wanted] === "bad" && wanted !== "failed") return (cell) => run.bad.has(cell.status);
    const found = run.statuses.map(([known]) => known).filter(pattern(wanted));
    if (!found.length) throw new QueryError(`status:${name}: there is no such status. There are ${run.statuses.map(([known]) => known).join(", ")}, and bad.`);
    return (cell) => found.includes(cell.status);
  });

  function parseOr() {
    const nodes = [parseAnd()];
    while (isSign("|") || peek() === "or") {
      at += 1;
      nodes.push(parseAnd());
    }
    return or(nodes);
  }

  function parseAnd() {
    const nodes = [];
    while (at < left.length && !isSign(")") && !isSign("|") && peek() !== "or") {
      if (["and", "but"].includes(peek())) { at += 1; continue; }
      nodes.push(parseNot());
    }
    if (!nodes.length) throw new QueryError(at >= left.length ? "The query ends where a term is missing." : "A term is missing here.");
    return and(nodes);
  }

  function parseNot() {
    if (peek() !== "not") return parseAtom();
    at += 1;
    if (at >= left.length) throw new QueryError("`not` needs a term after it.");
    return not(parseNot());
  }

  function inParentheses() {
    at += 1;
    const node = parseOr();
    if (!isSign(")")) throw new QueryError("A closing parenthesis is missing.");
    at += 1;
    return node;
  }

  function parseAtom() {
    if (isSign("(")) return inParentheses();
    if (left[at].sign) throw new QueryError(`"${left[at].sign}" is not expected here.`);
    const { word, text: quoted } = left[at];
    if (quoted !== undefined) { at += 1; return contains(quoted); }
    const lower = word.toLowerCase();
    if (["any", "all", "none"].includes(lower) && left[at + 1]?.sign === "(") {
      at += 1;
      const inner = inParentheses();
      if (lower === "all") return ofRow((cells) => cells.every(inner.test));
      return ofRow((cells) => cells.some(inner.test) === (lower === "any"));
    }
    at += 1;
    if (Object.hasOwn(says, lower)) return sentence(says[lower]);
    const field = /^([a-z_]+)(:|[<>]=?|=)(.*)$/is.exec(word);
    if (!field) return knows(word) && !word.includes("*") && run.kinds.has(lower.split(":")[0]) ? ofColumn(target(word)) : contains(word);
    const [, name, operator, raw] = field;
    const value = raw.replaceAll('"', "");
    if (Object.hasOwn(FIELDS, name.toLowerCase())) return fieldTerm(name.toLowerCase(), operator, value);
    if (run.kinds.has(name.toLowerCase())) {
      if (knows(word)) return ofColumn(target(word));
      const test = status(value), on = target(name);
      return ofRow((cells) => cells.some((cell) => on(cell.column) && test(cell)));
    }
    throw new QueryError(`"${name}" is not a field. Fields: ${Object.keys(FIELDS).join(", ")}. Put text with a colon in quotes.`);
  }

  // `fails`, `fails on cpu`, `fails only on openvino, cuda`, `passes everywhere`, `fails nowhere`
  function sentence(wanted) {
    const test = status(wanted);
    const runs = (cell) => cell.column.device !== "class" && cell.status !== "unavailable" && cell.status !== "not_tested";
    if (peek() === "everywhere") {
      at += 1;
      return ofRow((cells) => cells.some(runs) && cells.filter(runs).every(test));
    }
    if (peek() === "nowhere") {
      at += 1;
      return ofRow((cells) => !cells.some(test));
    }
    const only = peek() === "only" && peek(1) === "on";
    if (!only && peek() !== "on") return ofCell(test);
    at += only ? 2 : 1;
    const targets = [];
    do {
      if (!peek()) throw new QueryError("`on` needs a device after it, e.g. fails on openvino.");
      const names = left[at].word;
      at += 1;
      for (const name of names.split(",").filter(Boolean)) {
        if (!knows(name)) throw new QueryError(`${name} is not a device or precision of this run. There are ${[...run.kinds, ...run.dtypes].join(", ")}.`);
        targets.push(target(name));
      }
      if (!names.endsWith(",")) break;
    } while (true);
    const on = (cell) => targets.some((one) => one(cell.column));
    return ofRow((cells) => cells.some((cell) => on(cell) && test(cell)) && !(only && cells.some((cell) => !on(cell) && test(cell))));
  }

  function contains(part) {
    const wanted = part.toLowerCase();
    const known = new Map();
    const has = (subject, text) => {
      if (!known.has(subject)) known.set(subject, text(subject).includes(wanted));
      return known.get(subject);
    };
    return ofCell((cell) => has(cell.row, (row) => row.text) || has(cell.column, (column) => column.key.toLowerCase()) || reasonsOf(cell).includes(wanted));
  }

  function fieldTerm(name, operator, value) {
    if (NUMBER_FIELDS.includes(name)) return numberTerm(name, operator, value);
    if (operator !== ":" && operator !== "=") throw new QueryError(`${name}${operator}: this field is compared by ":", e.g. ${name}:${value || "..."}.`);
    if (!value) throw new QueryError(`${name}: needs a value: ${FIELDS[name]}.`);
    const isBad = (check) => check.status !== "passed" && check.status !== "skipped";
    switch (name) {
      case "status": return ofCell(status(value));
      case "device": return ofColumn(anyOf(value, target));
      case "dtype": return ofColumn(anyOf(value, (one) => { const fits = pattern(one); return (column) => fits(column.dtype); }));
      case "impl": return ofCell(anyOf(value, (one) => { const fits = pattern(one); return (cell) => fits(cell.implementation); }));
      case "changed": return ofCell(value === "yes" ? (cell) => cell.change !== "" : anyOf(value, (one) => (cell) => cell.change === one));
      case "check": case "stage": case "cause": {
        const of = name === "check" ? "name" : name;
        return ofCell(anyOf(value, (one) => { const fits = pattern(one); return (cell) => cell.checks.some((check) => isBad(check) && fits(check[of] ?? "")); }));
      }
      case "reason": return ofCell((cell) => cell.checks.some((check) => isBad(check) && check.reason.toLowerCase().includes(value.toLowerCase())));
      default: {
        const of = name === "class" ? "architecture" : name;
        const whole = anyOf(value, pattern);
        return ofCell((cell) => whole(cell.row[of]) || (name === "model" && whole(cell.row.name)));
      }
    }
  }

  function numberTerm(name, operator, value) {
    const match = /^([\d.]+(?:e[+-]?\d+)?)\s*([a-z]*)$/i.exec(value);
    const unit = match?.[2].toLowerCase();
    if (!match || (unit && !(unit in UNITS))) throw new QueryError(`${name}${operator}${value}: write a number, e.g. ${FIELDS[name].split("e.g. ")[1] ?? `${name}>1`}.`);
    const scale = name === "seconds" && unit ? UNITS[unit] / 1e3 : unit ? UNITS[unit] : 1;
    const limit = Number(match[1]) * scale;
    const compare = { ">": (a) => a > limit, ">=": (a) => a >= limit, "<": (a) => a < limit, "<=": (a) => a <= limit, "=": (a) => a === limit, ":": (a) => a === limit }[operator];
    return ofCell((cell) => cell.numbers[name] !== null && cell.numbers[name] !== undefined && compare(cell.numbers[name]));
  }

  if (!left.length) return { test: () => true, column: () => undefined, isEmpty: true };
  const node = parseOr();
  if (at < left.length) throw new QueryError("A parenthesis closes that was not opened.");
  return node;
}

const term = (field) => new RegExp(`(^|\\s)${field}:("[^"]*"|[^\\s()|]+)(?=\\s|$)`);

/** The values of a field that stand in the query as a term of its own: what the menus show as ticked. */
export function valuesIn(query, field) {
  const match = term(field).exec(query);
  return match ? match[2].replaceAll('"', "").split(",").filter(Boolean) : [];
}

/** Return the query with a value of a field added, or taken out if it is there. */
export function toggleValue(query, field, value) {
  const values = valuesIn(query, field);
  const next = values.includes(value) ? values.filter((each) => each !== value) : [...values, value];
  const joined = next.join(",");
  const written = next.length ? `${field}:${/[\s()|]/.test(joined) ? `"${joined}"` : joined}` : "";
  const without = query.replace(term(field), "$1").replace(/\s+/g, " ").trim();
  return written ? `${without} ${written}`.trim() : without;
}
