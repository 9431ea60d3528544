"""A browser for the tests of the pages."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from pytest_hfaccel.core.errors import BackendUnavailable


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    pytest.importorskip("playwright", reason="playwright is in the extra `web`")
    from pytest_hfaccel.backends.browser.browser import browser_for_reading

    with ExitStack() as stack:
        try:
            started = stack.enter_context(browser_for_reading())
        except BackendUnavailable as error:
            pytest.skip(str(error))
        yield started
