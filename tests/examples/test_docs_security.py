"""Every promise of `SECURITY.md` names the tests that hold it to that, and they exist."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_each_promise_has_tests() -> None:
    page = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    promises = re.findall(r"^\| (\*\*.*\*\*.*) \| (.*) \|$", page, re.MULTILINE)
    assert len(promises) >= 9
    for promise, tests in promises:
        named = re.findall(r"`(tests/\S+\.py)`", tests)
        assert named, promise
        for path in named:
            assert "def test_" in (ROOT / path).read_text(encoding="utf-8"), path
