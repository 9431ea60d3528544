"""Operators in a browser: served to a page, which runs and times them. Imports torch: import this file late."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch

from pytest_hfaccel.backends.browser.backend import device_facts
from pytest_hfaccel.backends.browser.browser import browser_for
from pytest_hfaccel.backends.browser.installed import RUNTIME, find_installation
from pytest_hfaccel.backends.browser.runtime import BrowserRuntime
from pytest_hfaccel.core.spec import Device
from pytest_hfaccel.hardware.cpu import read_cpu
from pytest_hfaccel.predict.calibration.calibrating import (
    FEWEST_RUNS,
    LEAST_RUNS,
    LONG_SECONDS,
    MOST_RUNS,
    SECONDS,
    median_of,
)

_RULES = {
    "least_runs": LEAST_RUNS,
    "most_runs": MOST_RUNS,
    "seconds": SECONDS,
    "fewest_runs": FEWEST_RUNS,
    "long_seconds": LONG_SECONDS,
    "resolutions": 100,
}
"""See `BrowserRuntime.time`; with 100 steps of the clock its rounding is 1 %."""

_LIMIT_S = 1.0
"""A software adapter takes minutes for what a GPU does in a second."""


class PageTimer:
    """Times graphs in a page, opened as the backend opens models; see `onnx_operators.GraphTimer`.

    Raises:
        BackendUnavailable: The browser, a package, or this device in the browser is not there.
    """

    def __init__(self, device: Device, threads: int) -> None:
        installation = find_installation(device)
        browser = browser_for(installation)
        self._one = {"s": torch.ones(1).numpy()}
        self._runtime = BrowserRuntime(browser, device, threads, {"s": torch.ones(1)})
        facts = device_facts(device, self._runtime.page().facts)
        self.device_name = str(facts.get("name") or read_cpu().name)
        self.versions = {RUNTIME: installation.version}
        self.details: dict[str, Any] = {**facts, "browser": browser.version}
        self.limit_s: float | None = _LIMIT_S

    def seconds(self, model: Any, spreads: list[float] | None = None) -> float:
        """Return the median time of a graph, as the page measures it."""
        with tempfile.TemporaryDirectory(prefix="hfaccel-") as folder:
            file = Path(folder) / "operator.onnx"
            file.write_bytes(model.SerializeToString())
            session = self._runtime.open_session(file, "an operator", {})
        try:
            return median_of(self._runtime.time(session, self._one, _RULES), spreads)
        finally:
            self._runtime.drop(session)

    def close(self) -> None:
        """Close the page."""
        self._runtime.close()
