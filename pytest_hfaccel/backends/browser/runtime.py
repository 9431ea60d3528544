"""ONNX graphs in a page: a session per graph, or per shape of its inputs where the provider needs them fixed."""

from __future__ import annotations

import itertools
import re
import shutil
import tempfile
import time
import weakref
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from pytest_hfaccel.backends.browser.browser import Browser, Page, is_gpu_process
from pytest_hfaccel.backends.exported.onnx_programs import (
    OnnxPrograms,
    constant_sizes,
    file_of,
    follows_batch,
    input_names,
    state_of,
)
from pytest_hfaccel.core.errors import LoadError, OutOfMemory, format_bytes
from pytest_hfaccel.core.spec import Device
from pytest_hfaccel.upstream.transformers import onnx_runner

if TYPE_CHECKING:
    import psutil
    from numpy.typing import NDArray

    Arrays = dict[str, NDArray[Any]]
    Tensors = Mapping[str, torch.Tensor]

PROVIDERS: dict[str, dict[str, Any]] = {
    "wasm": {"name": "wasm"},
    "webgpu": {"name": "webgpu"},
    "webnn": {"name": "webnn", "deviceType": "cpu"},
}
"""Device kind -> its execution provider in onnxruntime-web."""

OPEN_S = RUN_S = 300.0
"""Seconds that making a session, and a run, may take: SwiftShader compiles shaders for long, large models load so."""

_LARGEST_WEBNN_CONSTANT = 128 * 2**20
"""Chromium refuses larger buffers: WebNN then fails as `unreachable`."""
_NO_CACHE = "WebNN runs graphs of fixed shapes, and with a cache every step has its own"
_WASM_MEMORY = 4 * 2**30
_MOST_SESSIONS = 4
"""Sessions of one graph that are open at once, where each shape needs its own."""
_FIXED_ON_WEBGPU = 3
"""How many shapes have a session of their own on webgpu; generation has one more with every token."""

_SETTLE_S, _LOOK_S, _STILL = 3.0, 0.15, 2**20
"""Seconds that memory may take to come to rest, seconds between two looks, and bytes that do not count."""
_ORDERLY = "ERROR_CODE"
"""What stands in the messages of onnxruntime-web that come from its own checks."""
_OUT_OF_MEMORY = ("out of memory", "bad_alloc", "allocation failed", "aborted(oom", "failed to allocate")


@dataclass(frozen=True)
class Nodes:
    """How many nodes of a session run on which provider, as onnxruntime-web logged it.

    Attributes:
        by_provider: `wasm`, `webgpu` or `webnn` -> nodes; `wasm` is onnxruntime-web's CPU provider.
        on_cpu: Operators of those on the CPU.
    """

    by_provider: dict[str, int] = field(default_factory=dict)
    on_cpu: dict[str, int] = field(default_factory=dict)

    @property
    def mostly_on(self) -> str:
        """The provider of most of them; empty where the log said nothing."""
        return max(self.by_provider, key=lambda name: self.by_provider[name], default="")


_PROVIDER_NAMES = {"CPU": "wasm", "WebGpu": "webgpu", "WebNN": "webnn"}
_PLACED = re.compile(r"[Nn]odes?(?:\(s\))? placed on \[(\w+?)ExecutionProvider\]\. Number of nodes: (\d+)")
_NODE = re.compile(r"VerifyEachNodeIsAssignedToAnEp\]\s+(\w+) \(")
_WEBNN = re.compile(r"number of nodes in the graph: (\d+) number of nodes supported by WebNN: (\d+)")


def nodes_in(log: list[str]) -> Nodes:
    """Read which provider each node of a session is on; the log is that of severity 0."""
    placed: Counter[str] = Counter()
    on_cpu: Counter[str] = Counter()
    current = ""
    taken: tuple[int, int] | None = None
    for line in log:
        if found := _PLACED.search(line):
            current = _PROVIDER_NAMES.get(found[1], found[1])
            placed[current] += int(found[2])
        elif (found := _NODE.search(line)) and current == "wasm":
            on_cpu[found[1]] += 1
        elif found := _WEBNN.search(line):
            taken = int(found[1]), int(found[2])
    if taken is not None:
        # WebNN merges the nodes that it takes: those that are placed on it are whole parts of the graph.
        total, supported = taken
        placed = Counter({"webnn": supported, "wasm": total - supported})
    return Nodes({name: count for name, count in placed.items() if count}, dict(on_cpu))


class BrowserRuntime(OnnxPrograms):
    """See `pytest_hfaccel.backends.exported.ExportedRuntime`; one per loaded model, with a page of its own.

    Args:
        browser: Where pages are opened.
        device: `wasm`, `webgpu` or `webnn`.
        threads: Threads of WebAssembly.
        sample: The inputs for whose shapes a session is made as soon as a graph is there; others follow when they come.
        fix_shapes: Whether sessions are made for the shapes of the inputs, on providers that leave nodes to the CPU
            where they do not know them.

    Attributes:
        run_seconds: What the page measured of the last run: `session.run` and reading the outputs back.
    """

    title = "ONNX"

    def __init__(
        self, browser: Browser, device: Device, threads: int, sample: Tensors, *, fix_shapes: bool = True
    ) -> None:
        self.browser = browser
        self.device = device
        self.threads = threads
        self.sample = {name: value.numpy() for name, value in sample.items()}
        self.fix_shapes = fix_shapes and device.kind != "wasm"
        self.run_seconds: float | None = None
        self._page: Page | None = None
        self._dropped: deque[int] = deque()
        self._numbers = itertools.count(1)

    def page(self) -> Page:
        """Return the model's page; a new one where another model's run took the browser with it."""
        if self._page is None or not self._page.is_open:
            self._dropped.clear()
            self._page = self.browser.open_page()
        return self._page

    def close(self) -> None:
        """Close the page, with all sessions in it."""
        if self._page is not None:
            self._page.close()

    def convert(self, model: Any, inputs: Mapping[str, Any], options: Mapping[str, Any], *, stateful: bool) -> Any:
        """Trace and convert a model; see `OnnxPrograms.convert`."""
        if stateful and self.device.kind == "webnn":
            raise LoadError(_NO_CACHE, stage="convert")
        return super().convert(model, inputs, options, stateful=stateful)

    def takes_static_shapes_only(self, device: Device) -> bool:  # noqa: ARG002
        """No device does: one graph of any shape is opened with the shapes of the call."""
        return False

    def compile(self, program: Any, device: Device, dtype: str, architecture: str) -> BrowserGraph:  # noqa: ARG002
        """Make a session of a graph, for the shapes of the sample if it has to be made for some."""
        _require_fitting(program, device, architecture)
        graph = BrowserGraph(program, self, architecture)
        if not self.fix_shapes or graph.takes(self.sample):
            graph.session(self.sample)
        return graph

    def compress(self, program: Any, architecture: str) -> Any:
        """Refuse: `BrowserBackend.load` takes fp32 only."""
        raise NotImplementedError

    def compression_facts(self) -> dict[str, Any]:
        """Refuse, as `compress`."""
        raise NotImplementedError

    def memory(self, device: Device) -> BrowserMemory:  # noqa: ARG002
        """Return the memory of the browser's processes."""
        return BrowserMemory(self)

    def open_session(self, graph: Path, architecture: str, sizes: Mapping[str, int]) -> Session:
        """Make a session in the page.

        Args:
            graph: The ONNX file; its weights are beside it.
            architecture: For messages.
            sizes: Lengths of the graph's open axes by name.

        Raises:
            LoadError: onnxruntime-web cannot.
            OutOfMemory: Memory ran out.
            DeviceCrashed: The page or its browser died.
        """
        page = self.page()
        server = self.browser.server
        share = server.share(graph.parent)
        number = next(self._numbers)
        try:
            reply = page.call(
                "open",
                OPEN_S,
                session=number,
                model=f"{share}/{graph.name}",
                external=[path.name for path in graph.parent.glob(f"{graph.name}.data")],
                provider=PROVIDERS[self.device.kind],
                options={"freeDimensionOverrides": dict(sizes)} if sizes else {},
                threads=self.threads,
                dropped=self._take_dropped(),
            )
        except RuntimeError as error:
            page.close()  # what is left of a failed session holds memory, and may hold more back
            if any(sign in str(error).lower() for sign in _OUT_OF_MEMORY):
                raise OutOfMemory(f"{self.device}: {error}", stage="compile") from error
            text = f"{architecture} cannot be loaded by onnxruntime-web for {self.device}: {error}"
            raise LoadError(text, stage="compile", cause="runtime") from error
        finally:
            server.unshare(share)
        return Session(page, number, reply.header, nodes_in(reply.header["log"]))

    def run(self, session: Session, inputs: Arrays) -> Arrays:
        """Run a session once.

        Raises:
            RuntimeError: onnxruntime-web refuses, or fails.
            DeviceCrashed: The page or its browser died.
            DeviceTimeout: The run took too long; the browser was ended.
        """
        try:
            reply = session.page.call("run", RUN_S, inputs, session=session.number, dropped=self._take_dropped())
        except RuntimeError as error:
            if _ORDERLY not in str(error):
                session.page.close()  # WebAssembly has aborted: nothing runs in this page any more
            raise
        self.run_seconds = float(reply.header["seconds"])
        return reply.arrays

    def time(self, session: Session, inputs: Arrays, rules: Mapping[str, float]) -> list[float]:
        """Run a session again and again in the page; return the seconds of each run as the page measured them.

        Args:
            session: The session.
            inputs: Its inputs, the same in each run.
            rules: `least_runs`, `most_runs` and `seconds`, at which it ends; `fewest_runs` and `long_seconds` for runs
                that take long; `resolutions`: so many steps of its clock are timed at once.

        Raises:
            RuntimeError: onnxruntime-web refuses, or fails.
            DeviceCrashed: The page or its browser died.
            DeviceTimeout: The runs took too long; the browser was ended.
        """
        arguments = {"session": session.number, "rules": dict(rules), "dropped": self._take_dropped()}
        reply = session.page.call("time", RUN_S, inputs, **arguments)
        return [float(each) for each in reply.header["seconds"]]

    def pipeline_in_page(self, folder: Path, task: str, positional: list[Any], options: dict[str, Any]) -> Any:
        """Have transformers.js run a pipeline; `BrowserModel.transformers_js` says what comes of it.

        Args:
            folder: The checkpoint as transformers.js expects it, with images that are arguments.
            task: The pipeline.
            positional: JSON values; `{"image": <file>}` for an image.
            options: JSON values.
        """
        share = self.browser.server.share(folder)
        images = [{"image": f"{share}/{each['image']}"} if isinstance(each, dict) else each for each in positional]
        try:
            reply = self.page().call(
                "pipeline",
                RUN_S,
                task=task,
                model=share,
                device=self.device.kind,
                threads=self.threads,
                positional=images,
                options=options,
                dropped=self._take_dropped(),
            )
        finally:
            self.browser.server.unshare(share)
        return reply.header["result"]

    def drop(self, session: Session) -> None:
        """Have the page release a session with its next command. May be called by the garbage collector."""
        if session.page is self._page:
            self._dropped.append(session.number)

    def _take_dropped(self) -> list[int]:
        return [self._dropped.popleft() for _ in range(len(self._dropped))]


@dataclass(frozen=True)
class Session:
    """A session in a page.

    Attributes:
        page: The page.
        number: Its number there.
        facts: What the page said when it was made: `version`, `adapter`, `threads`, `seconds`.
        nodes: Which provider its nodes are on.
    """

    page: Page
    number: int
    facts: dict[str, Any]
    nodes: Nodes


class BrowserGraph:
    """See `pytest_hfaccel.backends.exported.CompiledGraph`.

    Attributes:
        nbytes: Bytes of the constants.
        follows_batch: Whether a graph that takes any batch also returns it.
        sessions: Those that are open, by the lengths of the open axes.
    """

    def __init__(self, program: Any, runtime: BrowserRuntime, architecture: str) -> None:
        self.nbytes = sum(constant_sizes(program).values())
        self.follows_batch = follows_batch(program)
        self.sessions: dict[tuple[tuple[str, int], ...], Session] = {}
        self._program = program
        self._runtime = runtime
        self._architecture = architecture
        self._folder: Path | None = None
        weakref.finalize(self, _drop_all, runtime, self.sessions)

    def runner(self, metadata: Any) -> Callable[..., Any]:
        """Return a function from inputs by name to the class's `ModelOutput`."""

        def run(inputs: dict[str, torch.Tensor]) -> list[torch.Tensor]:
            return list(self.run(inputs).values())

        return onnx_runner(metadata, input_names(self._program), run)

    def decoder(self) -> Callable[[Tensors], torch.Tensor]:
        """Return one run of a graph that keeps the cache; it travels to the page and back."""
        state = state_of(self._program)
        names = set(input_names(self._program))
        kept: dict[str, torch.Tensor] = {}

        def step(inputs: Tensors) -> torch.Tensor:
            rows = inputs["input_ids"].shape[0]
            past = kept or {part.input: part.initial(rows) for part in state}
            outputs = self.run({**{name: value for name, value in inputs.items() if name in names}, **past})
            kept.update({part.input: outputs[part.output] for part in state})
            return outputs["logits"]

        return step

    def effective_dtype(self, requested: str) -> str:
        """Return the dtype of the graph's floating-point constants: onnxruntime-web computes at that of its tensors."""
        kinds = {value.const_value.dtype.name for value in self._program.graph.initializers.values()}
        return "mixed" if kinds & {"FLOAT16", "BFLOAT16"} else requested

    def run(self, inputs: Tensors) -> dict[str, torch.Tensor]:
        """Run it once; returns the outputs by name, in order."""
        arrays = {name: value.detach().cpu().numpy() for name, value in inputs.items()}
        session = self.session(arrays)
        return {name: torch.from_numpy(array.copy()) for name, array in self._runtime.run(session, arrays).items()}

    def takes(self, inputs: Arrays) -> bool:
        """Whether these are the inputs of the graph, and its fixed axes have their lengths."""
        return all(
            value.name in inputs
            and all(
                size == length
                for size, length in zip(value.shape or (), inputs[value.name].shape, strict=False)
                if isinstance(size, int)
            )
            for value in self._program.graph.inputs
        )

    def session(self, inputs: Arrays) -> Session:
        """Return the session for inputs like these; it is made where it is not there, or went with its page."""
        page = self._runtime.page()
        sizes = self._open_sizes(inputs) if self._runtime.fix_shapes else {}
        is_further = self._runtime.device.kind == "webgpu" and len(self.sessions) >= _FIXED_ON_WEBGPU
        if sizes and is_further and tuple(sorted(sizes.items())) not in self.sessions:
            # A software adapter compiles the shaders of a session for seconds: one for all further shapes.
            sizes = {}
        key = tuple(sorted(sizes.items()))
        if key not in self.sessions or self.sessions[key].page is not page:
            self._make_room()
            self.sessions[key] = self._runtime.open_session(self._file(), self._architecture, sizes)
        return self.sessions[key]

    def _make_room(self) -> None:
        while len(self.sessions) >= _MOST_SESSIONS:
            oldest = list(self.sessions)[1]  # the first one is that of the sample, which is used again and again
            self._runtime.drop(self.sessions.pop(oldest))

    def _open_sizes(self, inputs: Arrays) -> dict[str, int]:
        """Return the lengths of the open axes by name, as the inputs have them."""
        sizes: dict[str, int] = {}
        for value in self._program.graph.inputs:
            if value.name not in inputs:
                continue
            for size, length in zip(value.shape or (), inputs[value.name].shape, strict=False):
                if not isinstance(size, int) and size.value is not None:
                    sizes[str(size.value)] = int(length)
        return sizes

    def _file(self) -> Path:
        saved = file_of(self._program)
        if saved is not None:
            return saved
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="hfaccel-"))
            weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
            self._runtime.write(self._program, self._folder / "model.onnx")
        return self._folder / "model.onnx"


def _drop_all(runtime: BrowserRuntime, sessions: dict[Any, Session]) -> None:
    for session in sessions.values():
        runtime.drop(session)


def _require_fitting(program: Any, device: Device, architecture: str) -> None:
    """Refuse what a browser cannot hold, with the reason: its own message would not say it."""
    if device.kind == "webnn" and state_of(program):
        raise LoadError(_NO_CACHE, stage="compile")
    sizes = constant_sizes(program)
    total = sum(sizes.values())
    if total > _WASM_MEMORY:
        raise OutOfMemory(
            f"{device}: the weights of {architecture} have {format_bytes(total)}, and WebAssembly has a memory of "
            f"{format_bytes(_WASM_MEMORY)}.",
            stage="compile",
        )
    name = max(sizes, key=lambda each: sizes[each], default="")
    if device.kind == "webnn" and name and sizes[name] > _LARGEST_WEBNN_CONSTANT:
        raise LoadError(
            f"{device}: the constant {name} of {architecture} has {format_bytes(sizes[name])}; Chromium's WebNN takes "
            f"constants up to {format_bytes(_LARGEST_WEBNN_CONSTANT)}.",
            stage="compile",
            cause="runtime",
        )


class BrowserMemory:
    """Resident memory of the browser's processes that compute: those of its pages, and the GPU's.

    Args:
        runtime: Whose page holds memory for `occupied`.
    """

    def __init__(self, runtime: BrowserRuntime) -> None:
        self._runtime = runtime
        self._blocks = itertools.count(1)

    def read(self) -> dict[str, Any]:
        """Return `current_bytes`, `peak_bytes`, `source` and `peak_source`."""
        self._runtime.page().call("collect", OPEN_S)  # what JavaScript has not collected yet is no leak
        usage = [_usage(process) for process in self._runtime.browser.processes()]
        current = sum(now for now, _ in usage)
        return {
            "current_bytes": current,
            "peak_bytes": max(current, sum(peak for _, peak in usage)),
            "source": "process",
            "peak_source": "VmHWM of the browser's page and GPU processes, summed",
        }

    def counters(self) -> dict[str, int]:
        """Return bytes by who holds them: the page's JavaScript, its tensors, its process, the GPU's process.

        Tensors of the page are a run's inputs and outputs that JavaScript has not collected: something holds them.
        """
        page = self._runtime.page().call("memory", OPEN_S).header
        counts = {"JavaScript of the page": int(page["javascript"]), "tensors of the page": int(page["held"])}
        for process in self._runtime.browser.processes():
            kind = "process of the GPU" if is_gpu_process(process) else "processes of the pages"
            counts[kind] = counts.get(kind, 0) + _usage(process)[0]
        return counts

    def reset_peak(self) -> None:
        """Start a new peak, where the system allows it, once the browser has freed what it frees later."""
        self._settle()
        for process in self._runtime.browser.processes():
            with suppress(OSError):
                Path(f"/proc/{process.pid}/clear_refs").write_text("5")

    def _settle(self) -> None:
        before, until = -1, time.monotonic() + _SETTLE_S
        while abs((now := self.read()["current_bytes"]) - before) > _STILL and time.monotonic() < until:
            before = now
            time.sleep(_LOOK_S)

    def note(self) -> None:
        """Do nothing: the kernel keeps the peak."""

    @contextmanager
    def occupied(self, nbytes: int) -> Iterator[None]:
        """Hold that many more bytes in the page."""
        page, block = self._runtime.page(), next(self._blocks)
        page.call("occupy", OPEN_S, block=block, nbytes=nbytes)
        yield
        page.call("vacate", OPEN_S, block=block)


def _usage(process: psutil.Process) -> tuple[int, int]:
    """Return the resident bytes of a process and their peak since it was reset."""
    import psutil

    try:
        now = int(process.memory_info().rss)
    except psutil.Error:
        return 0, 0
    peak = now
    with suppress(OSError):
        status = Path(f"/proc/{process.pid}/status").read_text()
        peak = next((int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM:")), now)
    return now, peak
