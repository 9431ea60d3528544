"""Configuration of this project's own tests: a warning is an error, and pytester is there."""

from __future__ import annotations

import gc
import os
import subprocess
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from packaging.version import Version

from tests.forkserver import IS_POSSIBLE, READ_EARLY, STARTS_NEW_PROCESSES, ForkedPopen, ForkServer, replaced_starts
from tests.harness import Project, environment, use_fork_server

# huggingface_hub reads it once, when the first test of a process imports it: whatever a test sets later comes too late.
# Tests of the hub say otherwise, to processes of their own.
os.environ["HF_HUB_OFFLINE"] = "1"
# Tiny models gain nothing from threads, and those of several workers would wait for each other, spinning. Tests of
# threads say otherwise, to processes of their own.
os.environ.setdefault("OMP_NUM_THREADS", "1")

_HERE = Path(__file__).parent
_UNIT = _HERE / "unit"


TABLES_ARE_OF = Version("5.23")
"""The transformers release whose classes the tables of checkpoints, expectations and classifier name."""


_fork_server = pytest.StashKey[ForkServer]()


def pytest_configure(config: pytest.Config) -> None:
    """Let the workers of pytest-xdist share a fork server, and begin with the files that come first (see below)."""
    given = getattr(config, "workerinput", {}).get("hfaccel_tests_fork_server")
    if given is None and IS_POSSIBLE:
        server = config.stash[_fork_server] = ForkServer(environment)
        given = server.address, str(server.hub_home)
    if given is not None:
        use_fork_server(given[0], Path(given[1]))
    config.option.loadscopereorder = False


@pytest.hookimpl(wrapper=True)
def pytest_sessionstart(session: pytest.Session) -> Iterator[None]:
    """Let the workers of pytest-xdist be forks, too, instead of importing torch, transformers and all runtimes."""
    server = ForkedPopen.server
    if server is None or not session.config.stash.get(_fork_server, None) or "COVERAGE_PROCESS_START" in os.environ:
        return (yield)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(subprocess, "Popen", ForkedPopen)
        for name in {*os.environ} - {*(adapted := server.adapted(os.environ))}:
            patch.delenv(name)
        for name, value in {**adapted, STARTS_NEW_PROCESSES: "1"}.items():
            patch.setenv(name, value)
        return (yield)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    if server := node.config.stash.get(_fork_server, None):
        node.workerinput["hfaccel_tests_fork_server"] = server.address, str(server.hub_home)


def pytest_unconfigure(config: pytest.Config) -> None:
    if server := config.stash.get(_fork_server, None):
        server.close()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    installed = Version(version("transformers"))
    reasons = {
        "tables": f"the tables name classes of transformers {TABLES_ARE_OF}; {installed} is installed",
        "current_transformers": f"needs transformers {TABLES_ARE_OF}; {installed} is installed",
    }
    for item in items:
        for marker, reason in reasons.items():
            if installed < TABLES_ARE_OF and item.get_closest_marker(marker):
                item.add_marker(pytest.mark.skip(reason=reason))
        if item.path.is_relative_to(_HERE):
            item.add_marker(pytest.mark.filterwarnings("error"), append=False)
    # A file that takes long and begins last would leave the other workers without work.
    slow = {item.path for item in items if item.get_closest_marker("slow") or not item.path.is_relative_to(_UNIT)}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(scope="module")
def forked_processes(shared_cache: Path) -> Iterator[None]:
    """Let the Python processes that the code under test starts be forks, which have torch and transformers imported."""
    with pytest.MonkeyPatch.context() as patch:
        for place, name, replacement in replaced_starts():
            patch.setattr(place, name, replacement)
        for name, value in environment(shared_cache).items():
            if name.startswith(READ_EARLY):  # the server has read them
                patch.setenv(name, value)
        yield


@pytest.fixture(scope="module", autouse=True)
def _quick_collections() -> None:
    """Keep the collector from walking through torch and transformers, 0.2 seconds each time: what is there stays."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def shared_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Caches that all projects of a test run share: a checkpoint is built, a model converted, once."""
    folder = tmp_path_factory.getbasetemp()
    cache = (folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder) / "shared-cache"
    cache.mkdir(exist_ok=True)
    return cache


@pytest.fixture
def project(tmp_path: Path, shared_cache: Path) -> Project:
    """A user's project with a BERT module."""
    return Project(tmp_path, shared_cache)
