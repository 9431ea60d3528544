"""Configuration of this project's own tests: a warning is an error, and pytester is there."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.version import Version

from tests.harness import Project, fork_server

# huggingface_hub reads it once, when the first test of a process imports it: whatever a test sets later comes too late.
# Tests of the hub say otherwise, to processes of their own.
os.environ["HF_HUB_OFFLINE"] = "1"

_HERE = Path(__file__).parent


TABLES_ARE_OF = Version("5.23")
"""The transformers release whose classes the tables of checkpoints, expectations and classifier name."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    installed = Version(version("transformers"))
    reason = f"the tables name classes of transformers {TABLES_ARE_OF}; {installed} is installed"
    for item in items:
        if installed < TABLES_ARE_OF and item.get_closest_marker("tables"):
            item.add_marker(pytest.mark.skip(reason=reason))
        if item.path.is_relative_to(_HERE):
            item.add_marker(pytest.mark.filterwarnings("error"), append=False)


@pytest.fixture(scope="session", autouse=True)
def _fork_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with fork_server(tmp_path_factory.mktemp("hub")):
        yield


@pytest.fixture(scope="module", autouse=True)
def _quick_collections() -> None:
    """Keep the collector from walking through torch and transformers, 0.2 seconds each time: what is there stays."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def shared_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Caches that the projects of one test run share: a checkpoint is built, a model converted, once."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def project(tmp_path: Path, shared_cache: Path) -> Project:
    """A user's project with a BERT module."""
    return Project(tmp_path, shared_cache)
