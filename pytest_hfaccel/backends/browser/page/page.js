// Runs in the browser: takes one command after the other from the host (server.py), and sends back what came of it.
// Commands and results are frames: the length of a JSON header (4 bytes, little-endian), the header, and the tensors'
// bytes, each from a multiple of 8 bytes on.

const BASE = new URL(".", import.meta.url).href;
const CHANNEL = new URLSearchParams(location.search).get("channel");
const ARRAYS = {
  float32: Float32Array, float64: Float64Array, int64: BigInt64Array, int32: Int32Array, int8: Int8Array,
  uint8: Uint8Array, bool: Uint8Array, float16: globalThis.Float16Array ?? Uint16Array,
};

const sessions = new Map();
const blocks = new Map();
let tensorBytes = 0; // of the tensors of runs that JavaScript has not collected
const collected = new FinalizationRegistry((bytes) => { tensorBytes -= bytes; });

function counted(tensor) {
  const bytes = tensor.size * (ARRAYS[tensor.type]?.BYTES_PER_ELEMENT ?? 1);
  tensorBytes += bytes;
  collected.register(tensor, bytes);
  return tensor;
}

let ort;
let log = null; // lines that onnxruntime-web writes to the console while a session is made

for (const level of ["debug", "log", "info", "warn", "error"]) {
  const write = console[level].bind(console);
  console[level] = (...words) => (log ? log.push(words.join(" ")) : write(...words));
}

const round = (bytes) => (bytes + 7) & ~7;

function unpack(buffer) {
  const length = new DataView(buffer).getUint32(0, true);
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length)));
  let offset = round(4 + length);
  for (const tensor of header.tensors ?? []) {
    tensor.bytes = buffer.slice(offset, offset + tensor.nbytes);
    offset += round(tensor.nbytes);
  }
  return header;
}

function pack(header, arrays) {
  header.tensors = arrays.map(({ name, type, dims, data }) => ({ name, type, dims, nbytes: data.byteLength }));
  const text = new TextEncoder().encode(JSON.stringify(header));
  let total = round(4 + text.length);
  const starts = arrays.map(({ data }) => { const start = total; total += round(data.byteLength); return start; });
  const frame = new Uint8Array(total);
  new DataView(frame.buffer).setUint32(0, text.length, true);
  frame.set(text, 4);
  arrays.forEach(({ data }, at) => frame.set(new Uint8Array(data.buffer, data.byteOffset, data.byteLength), starts[at]));
  return frame;
}

async function runtime(threads) {
  if (!ort) {
    ort = await import(`${BASE}ort/ort.jspi.min.mjs`);
    ort.env.wasm.wasmPaths = `${BASE}ort/`;
    ort.env.wasm.numThreads = threads;
    ort.env.wasm.proxy = false;
  }
  return ort;
}

const adapterFacts = (info) => info && {
  vendor: info.vendor, architecture: info.architecture, device: info.device, description: info.description,
  is_fallback: info.isFallbackAdapter ?? null,
};

const lost = (what) => fetch(`${BASE}lost/${CHANNEL}`, { method: "POST", body: what });

// A device that is lost leaves the runs in progress waiting for ever, or fails them with a message about something else.
const loss = new Promise((resolve) => { globalThis.deviceLost = resolve; });
loss.then(lost);

let watched = false;
async function watchGpu() {
  const device = await ort.env.webgpu?.device;
  if (!device || watched) return;
  watched = true;
  device.lost.then((info) => info.reason !== "destroyed" && deviceLost(`the WebGPU device was lost: ${info.message}`));
}

// onnxruntime-web aborts without a word where the browser refuses to build an operator: note what it said.
let refusal = "";
for (const name of Object.getOwnPropertyNames(globalThis.MLGraphBuilder?.prototype ?? {})) {
  const build = MLGraphBuilder.prototype[name];
  if (typeof build !== "function" || name === "constructor") continue;
  MLGraphBuilder.prototype[name] = function (...operands) {
    try {
      const built = build.apply(this, operands);
      built?.catch?.((error) => { refusal = `MLGraphBuilder.${name}: ${error.message}`; });
      return built;
    } catch (error) {
      refusal = `MLGraphBuilder.${name}: ${error.message}`;
      throw error;
    }
  };
}

const mlContexts = new Map();
async function mlContext(deviceType) {
  if (!mlContexts.has(deviceType)) {
    const context = await navigator.ml.createContext({ deviceType });
    context.lost?.then((info) => deviceLost(`the WebNN context was lost: ${info.message}`));
    mlContexts.set(deviceType, context);
  }
  return mlContexts.get(deviceType);
}

// The smallest step of the page's clock, in seconds.
function clockResolution() {
  let smallest = Infinity;
  for (let step = 0; step < 20; step += 1) {
    const before = performance.now();
    let now = before;
    while (now === before) now = performance.now();
    smallest = Math.min(smallest, now - before);
  }
  return smallest / 1e3;
}

const commands = {
  // Which of the devices this browser has.
  async probe() {
    const found = { threads: crossOriginIsolated, cores: navigator.hardwareConcurrency, agent: navigator.userAgent };
    try {
      const adapter = await navigator.gpu?.requestAdapter();
      found.webgpu = adapter ? { adapter: adapterFacts(adapter.info), fp16: adapter.features.has("shader-f16") } : null;
      found.webgpu_problem = adapter ? "" : navigator.gpu ? "requestAdapter() found no adapter" : "there is no navigator.gpu";
    } catch (error) { found.webgpu_problem = String(error.message); }
    try {
      const context = await navigator.ml?.createContext({ deviceType: "cpu" });
      found.webnn = context ? { accelerated: context.accelerated ?? null, limits: Object.keys(context.opSupportLimits()).length } : null;
      found.webnn_problem = context ? "" : "there is no navigator.ml";
    } catch (error) { found.webnn_problem = String(error.message); }
    return [found];
  },

  // Make a session. Its log says on which provider each node runs.
  async open({ session, model, external, provider, options, threads }) {
    const { InferenceSession } = await runtime(threads);
    const chosen = provider.name === "webnn" ? { ...provider, context: await mlContext(provider.deviceType) } : provider;
    log = [];
    refusal = "";
    const started = performance.now();
    try {
      const made = await InferenceSession.create(`${BASE}${model}`, {
        executionProviders: [chosen],
        externalData: external.map((path) => ({ path, data: `${BASE}${model.replace(/[^/]*$/, path)}` })),
        graphOptimizationLevel: "all", logSeverityLevel: 0, ...options,
      });
      sessions.set(session, made);
      const seconds = (performance.now() - started) / 1e3;
      if (provider.name === "webgpu") await watchGpu();
      const device = provider.name === "webgpu" ? await ort.env.webgpu?.device : null;
      return [{
        seconds, inputs: made.inputNames, outputs: made.outputNames, version: ort.env.versions.web,
        adapter: adapterFacts(device?.adapterInfo) ?? null, threads: crossOriginIsolated ? threads : 1,
        log: log.filter((line) => /placed on|VerifyEachNode|supported by WebNN/.test(line)),
      }];
    } catch (error) {
      const said = [...log.filter((line) => /\[[EF]:|^Aborted/.test(line)).slice(-5), refusal].filter(Boolean);
      throw new Error([error?.message ?? `it threw ${error}`, ...said].join("\n"));
    } finally {
      log = null;
    }
  },

  // Run a session once, and read its outputs back.
  async run({ session, tensors }) {
    const made = sessions.get(session);
    const feeds = Object.fromEntries(tensors.map(({ name, type, dims, bytes }) => [name, counted(new ort.Tensor(type, new ARRAYS[type](bytes), dims))]));
    log = []; // the session keeps writing what nobody reads
    try {
      const started = performance.now();
      const results = await made.run(feeds, { logSeverityLevel: 3 });
      const outputs = [];
      for (const name of made.outputNames) {
        const tensor = counted(results[name]);
        outputs.push({ name, type: tensor.type, dims: tensor.dims, data: await tensor.getData() });
      }
      const seconds = (performance.now() - started) / 1e3;
      return [{ seconds }, outputs];
    } finally {
      log = null;
    }
  },

  // Time runs of a session here, without the way to the host: `rules` are those of `median_seconds` (calibrating.py).
  // The clock of an isolated page is rounded to 5 us: short runs are timed several at once.
  async time({ session, tensors, rules }) {
    const made = sessions.get(session);
    const feeds = Object.fromEntries(tensors.map(({ name, type, dims, bytes }) => [name, new ort.Tensor(type, new ARRAYS[type](bytes), dims)]));
    const timed = async (runs) => {
      const started = performance.now();
      for (let run = 0; run < runs; run += 1) {
        const results = await made.run(feeds, { logSeverityLevel: 3 });
        for (const name of made.outputNames) await results[name].getData();
      }
      return (performance.now() - started) / 1e3;
    };
    log = []; // the session keeps writing what nobody reads
    try {
      const resolution = clockResolution();
      await timed(1); // shaders are compiled in the first run
      const at_once = Math.max(1, Math.ceil((rules.resolutions * resolution) / Math.max(await timed(1), resolution)));
      const seconds = [];
      const began = performance.now();
      for (;;) {
        const elapsed = (performance.now() - began) / 1e3;
        const goes_on = seconds.length < rules.least_runs
          ? seconds.length < rules.fewest_runs || elapsed < rules.long_seconds
          : elapsed < rules.seconds && seconds.length < rules.most_runs;
        if (!goes_on) return [{ seconds, at_once, resolution }];
        seconds.push((await timed(at_once)) / at_once);
      }
    } finally {
      log = null;
    }
  },

  // What transformers.js makes of a task; its model is a folder of this server.
  async pipeline({ task, model, device, threads, positional, options }) {
    await runtime(threads);
    const { env, pipeline, RawImage } = await import(`${BASE}modules/@huggingface/transformers/dist/transformers.web.js`);
    Object.assign(env, { allowRemoteModels: false, allowLocalModels: true, localModelPath: new URL(BASE).pathname, useBrowserCache: false, useWasmCache: false });
    Object.assign(env.backends.onnx.wasm, { wasmPaths: `${BASE}ort/`, numThreads: threads });
    const pipe = await pipeline(task, model, { device, dtype: "fp32" });
    try {
      const inputs = await Promise.all(positional.map((each) => each?.image ? RawImage.fromURL(`${BASE}${each.image}`) : each));
      const result = await pipe(...inputs, options);
      return [{ result: JSON.parse(JSON.stringify(result?.tolist?.() ?? result, (_, each) => typeof each === "bigint" ? Number(each) : each)) }];
    } finally {
      await pipe.dispose();
    }
  },

  // Hold memory, for the check that sees whether the count of it is alive.
  async occupy({ block, nbytes }) {
    blocks.set(block, new Uint8Array(nbytes).fill(1));
    return [{}];
  },

  async vacate({ block }) {
    blocks.delete(block);
    return [{}];
  },

  async collect() {
    globalThis.gc?.();
    return [{}];
  },

  // Who holds memory in this page, in bytes.
  async memory() {
    globalThis.gc?.();
    await new Promise((resolve) => setTimeout(resolve, 20)); // what was collected is told of later
    return [{ javascript: performance.memory?.usedJSHeapSize ?? 0, held: tensorBytes }];
  },
};

// Fetch, or post a body, by the worker; one request at a time.
const wire = new SharedWorker(`${BASE}wire.js`, { name: CHANNEL }).port;
const request = (address, body) => new Promise((resolve) => {
  wire.onmessage = ({ data }) => resolve(data);
  wire.postMessage({ address, body }, body ? [body.buffer] : []);
});

for (;;) {
  const { status, content } = await request(`${BASE}next/${CHANNEL}`);
  if (status === 204) continue; // nothing to do yet
  if (status !== 200) break; // the host has closed this page
  const command = unpack(content);
  let result;
  try {
    for (const session of command.dropped ?? []) {
      await sessions.get(session)?.release();
      sessions.delete(session);
    }
    result = pack(...[...(await commands[command.command](command)), []].slice(0, 2));
  } catch (error) {
    const settled = new Promise((resolve) => setTimeout(resolve, 200, ""));
    if (await Promise.race([loss, settled])) break; // the host knows
    const text = typeof error === "number" ? `onnxruntime-web threw the number ${error}` : String(error?.message ?? error);
    result = pack({ error: text }, []);
  }
  await request(`${BASE}done/${CHANNEL}/${command.call}`, result);
}
