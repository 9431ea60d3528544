"""Serves devices that exist by name only: `fake:0`, `fake:1`, ..."""

from __future__ import annotations

import threading
import time
from collections import Counter

from pytest_hfaccel.backends.base import ModelSource
from pytest_hfaccel.backends.fake.log import record
from pytest_hfaccel.backends.fake.model import FakeModel
from pytest_hfaccel.backends.fake.script import script_for
from pytest_hfaccel.core.errors import LoadError, OutOfMemory
from pytest_hfaccel.core.spec import Cell


class FakeBackend:
    """Does what the script in `HFACCEL_FAKE` says; see `pytest_hfaccel.backends.fake.script`.

    Attributes:
        needs_checkpoint: No checkpoint is built for its cells.
    """

    name = "fake"
    needs_checkpoint = False

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loads: Counter[str] = Counter()

    def load(self, cell: Cell, source: ModelSource | None = None) -> FakeModel:  # noqa: ARG002 - see needs_checkpoint
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
