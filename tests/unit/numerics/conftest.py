"""The tiny checkpoints of the tests of the checks."""

from __future__ import annotations

from tests.unit.checks.conftest import bert, gpt2

__all__ = ["bert", "gpt2"]
