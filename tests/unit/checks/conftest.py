"""Tiny checkpoints that the tests of the checks share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.unit.checks.support import TinySource


@pytest.fixture(scope="session")
def bert(tmp_path_factory: pytest.TempPathFactory) -> TinySource:
    """A tiny BERT that fills masks."""
    from tests.unit.checks.support import TinySource

    return TinySource("BertForMaskedLM", tmp_path_factory.mktemp("bert"))


@pytest.fixture(scope="session")
def gpt2(tmp_path_factory: pytest.TempPathFactory) -> TinySource:
    """A tiny GPT-2."""
    from tests.unit.checks.support import TinySource

    return TinySource("GPT2LMHeadModel", tmp_path_factory.mktemp("gpt2"))
