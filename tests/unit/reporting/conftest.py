"""A browser for the tests of the pages."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from pytest_hfaccel.backends.browser.installed import find_browser


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is in the extra `web`")
    program = find_browser()
    if program is None:
        pytest.skip("no Chromium, Chrome or Edge is installed: apt install chromium")
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=str(program), args=["--no-sandbox"])
        yield started
        started.close()
