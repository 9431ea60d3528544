"""Serves devices that exist by name only (`fake:0`, `fake:1`, ...), and does what a script says.

The script is the JSON value of the environment variable `HFACCEL_FAKE`, so that it reaches every worker process:

    {"gpt2*": {"load_seconds": 0.2}, "bert-*": {"crash": "SIGSEGV"}, "*": {}}

The first pattern that matches the model's slug counts. `HFACCEL_FAKE_LOG` names a file that every load, run and close
is appended to, one JSON object per line.
"""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, fields, replace
from fnmatch import fnmatchcase
from typing import Any
from zlib import crc32

from pytest_hfaccel.backends.base import ModelSource, Placement, WeightChange
from pytest_hfaccel.backends.memory import occupied_in_process
from pytest_hfaccel.core.errors import ConfigError, LoadError, OutOfMemory
from pytest_hfaccel.core.spec import Cell
from pytest_hfaccel.core.stages import at_stage

SCRIPT = "HFACCEL_FAKE"
LOG = "HFACCEL_FAKE_LOG"

_STAGES = ("load", "convert", "compile", "run")


@dataclass(frozen=True)
class Script:
    """What happens to a model.

    Attributes:
        load_seconds: How long loading takes.
        forward_seconds: How long a forward pass takes.
        fail_stage: `load`, `convert` or `compile`: loading fails there; `run`: the forward pass fails.
        crash: Name of a signal that kills the process, e.g. `SIGSEGV`.
        crash_stage: Where: `load`, `convert`, `compile`, or in the forward pass, `run`.
        error: Text of the `RuntimeError` that the forward pass raises.
        wrong: The outputs are off by one.
        oom_first: How many loads of the model, per process, run out of memory before one succeeds.
        nbytes: Bytes it says it holds.
        occupies: It really holds them, in the memory of its process.
    """

    load_seconds: float = 0.0
    forward_seconds: float = 0.0
    fail_stage: str = ""
    crash: str = ""
    crash_stage: str = "run"
    error: str = ""
    wrong: bool = False
    oom_first: int = 0
    nbytes: int = 1_000_000
    occupies: bool = False


def script_for(slug: str, environ: Mapping[str, str] | None = None) -> Script:
    """Return what is to happen to a model.

    Args:
        slug: The model's slug.
        environ: Environment to read instead of `os.environ`.

    Raises:
        ConfigError: The script is not one.
    """
    text = (os.environ if environ is None else environ).get(SCRIPT) or "{}"
    try:
        plan = json.loads(text)
        chosen: dict[str, Any] = next((entry for pattern, entry in plan.items() if fnmatchcase(slug, pattern)), {})
        script = Script(**chosen)
    except (ValueError, TypeError, AttributeError) as error:
        allowed = ", ".join(field.name for field in fields(Script))
        raise ConfigError(f"{SCRIPT}: {text!r} is not a script: {error}. Allowed per pattern: {allowed}.") from error
    if script.fail_stage not in ("", *_STAGES):
        raise ConfigError(f"{SCRIPT}: fail_stage {script.fail_stage!r} is not allowed. Allowed: {', '.join(_STAGES)}.")
    if script.crash_stage not in _STAGES:
        raise ConfigError(
            f"{SCRIPT}: crash_stage {script.crash_stage!r} is not allowed. Allowed: {', '.join(_STAGES)}."
        )
    if script.crash and script.crash not in signal.Signals.__members__:
        raise ConfigError(f"{SCRIPT}: crash {script.crash!r} is not a signal of this system, e.g. SIGSEGV.")
    return script


def record(event: str, cell: str, **facts: Any) -> None:
    """Append an event (`load`, `forward`, `close`) to the file that `HFACCEL_FAKE_LOG` names, if it names one."""
    path = os.environ.get(LOG)
    if not path:
        return
    line = json.dumps({"event": event, "cell": cell, "process": os.getpid(), **facts}) + "\n"
    # One write in append mode: lines of several processes do not mix.
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(descriptor, line.encode())
    finally:
        os.close(descriptor)


def _crash(script: Script, stage: str) -> None:
    """Kill this process, if the script says so."""
    if script.crash and script.crash_stage == stage:
        os.kill(os.getpid(), signal.Signals[script.crash])


_VALUES = 8


class FakeModel:
    """A loaded model; see `pytest_hfaccel.backends.base.LoadedModel`. Its outputs are lists of floats, not tensors.

    Args:
        cell: The cell it was loaded for.
        script: What happens to it.
        seconds: How long loading took.
    """

    def __init__(self, cell: Cell, script: Script, seconds: float) -> None:
        self._cell = cell
        self._script = script
        self._peak = script.nbytes
        self._occupied = 0
        self._held = ExitStack()
        if script.occupies and script.nbytes:
            self._held.enter_context(occupied_in_process(script.nbytes))
        self._is_closed = False
        device = cell.device.id
        self.placement = Placement(device, (device,), cell.dtype, cell.dtype, implementation="emulated")
        self.nbytes = script.nbytes
        self.timings = {"load": seconds}

    def forward(self, inputs: Mapping[str, Any]) -> dict[str, Any]:  # noqa: ARG002 - no inputs are looked at
        """Return numbers that depend on the model's name alone."""
        if self._is_closed:
            raise RuntimeError("the model is closed")
        record("forward", self._cell.id)
        time.sleep(self._script.forward_seconds)
        _crash(self._script, "run")
        if self._script.error:
            raise RuntimeError(self._script.error)
        if self._script.fail_stage == "run":
            raise RuntimeError("the script says that the forward pass fails")
        wrong = 1.0 if self._script.wrong else 0.0
        return {"output": [value + wrong for value in _numbers(self._cell.model.name)]}

    def generate(self, inputs: Mapping[str, Any], *, max_new_tokens: int, use_cache: bool) -> Any:
        """Refuse: there is no text in it."""
        raise NotImplementedError("the fake backend generates no tokens")

    def pipeline_model(self) -> Any:
        """Refuse: there is no transformers model in it."""
        raise NotImplementedError("the fake backend has no model for a pipeline")

    def directly_editable(self, parameters: Iterable[str]) -> frozenset[str]:
        """Return all of them: any change makes it wrong."""
        return frozenset(parameters)

    @contextmanager
    def perturbed(self, change: WeightChange) -> Iterator[FakeModel]:  # noqa: ARG002 - any change makes it wrong
        """Give the same model with wrong outputs."""
        yield FakeModel(self._cell, replace(self._script, wrong=not self._script.wrong, occupies=False), 0.0)

    def memory(self) -> dict[str, Any]:
        """Return the bytes the script says, and those occupied."""
        current = self.nbytes + self._occupied
        return {"current_bytes": current, "peak_bytes": self._peak, "source": "allocator", "peak_source": "script"}

    def reset_peak_memory(self) -> None:
        """Start a new peak."""
        self._peak = self.nbytes + self._occupied

    @contextmanager
    def occupied(self, nbytes: int) -> Iterator[None]:
        """Say that it holds that many more bytes."""
        self._occupied += nbytes
        self._peak = max(self._peak, self.nbytes + self._occupied)
        try:
            yield
        finally:
            self._occupied -= nbytes

    def close(self) -> None:
        """Record that it was freed; it does not run again."""
        self._is_closed = True
        self._held.close()
        record("close", self._cell.id)


def _numbers(name: str) -> list[float]:
    """Return numbers in [0, 1) that are the same in every process and on every machine."""
    return [crc32(f"{name}:{index}".encode()) / 2**32 for index in range(_VALUES)]


class FakeBackend:
    """Does what the script in `HFACCEL_FAKE` says; see `pytest_hfaccel.backends.fake.backend`."""

    name = "fake"

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loads: Counter[str] = Counter()

    def expected_bytes(self, cell: Cell) -> int:
        """Return the bytes that the script says."""
        return script_for(cell.model.slug).nbytes

    def load(self, cell: Cell, source: ModelSource | None = None) -> FakeModel:  # noqa: ARG002 - see Traits.needs_checkpoint
        """Load as the script says.

        Raises:
            ConfigError: The script is not one.
            LoadError: The script says so.
            OutOfMemory: The script says so.
        """
        script = script_for(cell.model.slug)
        with self._lock:
            self._loads[cell.id] += 1
            attempt = self._loads[cell.id]
        started = time.perf_counter()
        time.sleep(script.load_seconds)
        record("load", cell.id, attempt=attempt)
        for stage in ("load", "convert", "compile"):
            with at_stage(stage):
                _crash(script, stage)
        if attempt <= script.oom_first:
            raise OutOfMemory(f"{cell.device} ran out of memory: the script says so for load {attempt}")
        if script.fail_stage and script.fail_stage != "run":
            raise LoadError(f"the script says that {cell.id} fails here", stage=script.fail_stage)
        return FakeModel(cell, script, time.perf_counter() - started)
