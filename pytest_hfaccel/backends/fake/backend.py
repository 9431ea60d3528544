"""Serves devices that exist by name only: `fake:0`, `fake:1`, ..."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from zlib import crc32

from pytest_hfaccel.backends.base import ModelSource, Placement, WeightChange
from pytest_hfaccel.backends.fake.script import Script, record, script_for
from pytest_hfaccel.core.errors import LoadError, OutOfMemory
from pytest_hfaccel.core.spec import Cell

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
        device = cell.device.id
        self.placement = Placement(device, (device,), cell.dtype, cell.dtype, implementation="emulated")
        self.nbytes = script.nbytes
        self.timings = {"load": seconds}

    def forward(self, inputs: Mapping[str, Any]) -> dict[str, Any]:  # noqa: ARG002 - no inputs are looked at
        """Return numbers that depend on the model's name alone."""
        record("forward", self._cell.id)
        time.sleep(self._script.forward_seconds)
        if self._script.crash:
            os.kill(os.getpid(), signal.Signals[self._script.crash])
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

    def held(self, parameters: Iterable[str]) -> frozenset[str]:
        """Return all of them: any change makes it wrong."""
        return frozenset(parameters)

    @contextmanager
    def perturbed(self, change: WeightChange) -> Iterator[FakeModel]:  # noqa: ARG002 - any change makes it wrong
        """Give the same model with wrong outputs."""
        yield FakeModel(self._cell, replace(self._script, wrong=not self._script.wrong), 0.0)

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
        """Record that it was freed."""
        record("close", self._cell.id)


def _numbers(name: str) -> list[float]:
    """Return numbers in [0, 1) that are the same in every process and on every machine."""
    return [crc32(f"{name}:{index}".encode()) / 2**32 for index in range(_VALUES)]


class FakeBackend:
    """Does what the script in `HFACCEL_FAKE` says; see `pytest_hfaccel.backends.fake.script`."""

    name = "fake"

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loads: Counter[str] = Counter()

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
        if attempt <= script.oom_first:
            raise OutOfMemory(f"{cell.device} ran out of memory: the script says so for load {attempt}")
        if script.fail_stage and script.fail_stage != "run":
            raise LoadError(f"the script says that {cell.id} fails here", stage=script.fail_stage)
        return FakeModel(cell, script, time.perf_counter() - started)
