"""A page in a real browser: what tests read of it, and what axe says of it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from pytest_hfaccel.backends.browser.installed import find_modules


class Shown:
    """A page in a tab; what the browser complains of is kept."""

    def __init__(self, browser: Any, path: Path, address: str = "", **options: Any) -> None:
        self.context = browser.new_context(**{"viewport": {"width": 1440, "height": 900}, **options})
        self.tab = self.context.new_page()
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.tab.on("console", self._hear)
        self.tab.on("pageerror", self._hear)
        self.tab.on("request", self._see)
        self.file = path.as_uri()
        began = time.monotonic()
        self.tab.goto(f"{self.file}{address}")
        self.tab.wait_for_selector("html[data-ready]", timeout=20_000)
        self.load_s = time.monotonic() - began

    def _hear(self, said: Any) -> None:
        if isinstance(said, Exception) or said.type in ("error", "warning"):
            self.complaints.append(str(said) if isinstance(said, Exception) else said.text)

    def _see(self, request: Any) -> None:
        self.requests.append(request.url)

    def text(self, selector: str) -> str:
        return str(self.tab.locator(selector).first.inner_text())

    def go(self, address: str) -> None:
        self.tab.goto(f"{self.file}{address}")

    def filter(self, query: str) -> str:
        self.tab.get_by_label("Filter", exact=True).fill(query)
        return self.text("#found")


def serious_findings(shown: Shown) -> list[tuple[str, list[str]]]:
    """What axe finds serious or critical in what is shown: the rule, and the first elements."""
    modules = find_modules()
    script = modules / "axe-core" / "axe.min.js" if modules else None
    if script is None or not script.exists():
        pytest.skip("axe-core is not installed: npm ci")
    if not shown.tab.evaluate("'axe' in window"):
        shown.tab.evaluate(script.read_text(encoding="utf-8"))
    found = shown.tab.evaluate("async () => (await axe.run()).violations")
    return [
        (one["id"], [node["html"][:160] for node in one["nodes"][:3]])
        for one in found
        if one["impact"] in ("serious", "critical")
    ]
