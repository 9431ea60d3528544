"""Where the plugin keeps its state: typed keys into pytest's stashes, never globals."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pytest_hfaccel.core.results import CheckOutcome
    from pytest_hfaccel.engine.runner import CellRun
    from pytest_hfaccel.plugin.collection import CollectedTests
    from pytest_hfaccel.plugin.collector import ResultCollector
    from pytest_hfaccel.plugin.session import HfSession

SESSION: pytest.StashKey[HfSession] = pytest.StashKey()
"""On the config: what this process collects and runs with."""

COLLECTED: pytest.StashKey[CollectedTests] = pytest.StashKey()
"""On the config: the tests of model classes that the run has."""

COLLECTOR: pytest.StashKey[ResultCollector] = pytest.StashKey()
"""On the config of the process that writes reports."""

OUTCOME: pytest.StashKey[CheckOutcome] = pytest.StashKey()
"""On an item: the outcome its check had."""

FACTS: pytest.StashKey[dict[str, Any]] = pytest.StashKey()
"""On an item whose outcome was recorded by an earlier run: what that run recorded about the cell."""

CELL_RUN: pytest.StashKey[CellRun] = pytest.StashKey()
"""On an item: the cell it ran on."""

SELECTED: pytest.StashKey[int] = pytest.StashKey()
"""On an item: how many selected items its cell has."""
