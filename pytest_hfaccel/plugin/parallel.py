"""What is different under pytest-xdist. Registered only when xdist is there."""

from __future__ import annotations

import json
import os
import subprocess
from typing import Any

import pytest

from pytest_hfaccel.config import RunConfig
from pytest_hfaccel.plugin.collector import PROPERTY
from pytest_hfaccel.plugin.keys import COLLECTOR, SESSION
from pytest_hfaccel.plugin.parametrize import check_name, read_id
from pytest_hfaccel.plugin.reporting import POOL_STATS
from pytest_hfaccel.plugin.session import WORKER_INPUT

_SECONDS_TO_DIE = 5.0
"""How long a process may take to end after its connection has."""


class ParallelHooks:
    """Hooks for controller and workers."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._death = ""
        sent: dict[str, Any] = getattr(config, "workerinput", {})
        if WORKER_INPUT in sent:
            _share_cores(int(sent.get("workercount", 1)))

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_make_scheduler(self, config: pytest.Config, log: Any) -> Any:
        """Keep a model's tests in one worker, unless the user chose a distribution of their own."""
        if not _wants_groups(config):
            return None
        from pytest_hfaccel.plugin.scheduling import ModelScheduling

        return ModelScheduling(config, log)

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        """Tell a worker what to collect."""
        session = self._config.stash[SESSION]
        if session.config != RunConfig():
            node.workerinput[WORKER_INPUT] = session.plan.to_bytes()

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any, error: Any) -> None:
        """Take over a worker's pool statistics."""
        self._death = _death_of(node) if error else ""
        stats = json.loads(getattr(node, "workeroutput", {}).get(PROPERTY, "null"))
        if stats is not None:
            self._config.stash[POOL_STATS].append(stats)

    @pytest.hookimpl(optionalhook=True)
    def pytest_handlecrashitem(self, crashitem: str, report: pytest.TestReport) -> None:
        """Book the death of a worker on the cell it was running."""
        name, _, parameter = crashitem.rpartition("::")[-1].rstrip("]").partition("[")
        cell_id, _, extra = read_id(parameter)
        collector = self._config.stash.get(COLLECTOR, None)
        if collector is not None and cell_id:
            identity = _identity(self._config, crashitem, cell_id)
            # Not `longreprtext`: it begins with the path of the interpreter.
            text = str(report.longrepr)
            reason = f"{text} ({self._death})" if self._death else text
            collector.add_crash(identity, crashitem, extra or check_name(name), reason)


def _death_of(node: Any) -> str:
    """Return how a worker's process ended: by which signal, or with which code; empty where that cannot be known."""
    from pytest_hfaccel.benchmark.process import how_it_ended

    # execnet keeps the process to itself; a worker on another machine has none here.
    process = getattr(getattr(node.gateway, "_io", None), "popen", None)
    if process is None:
        return ""
    try:
        return how_it_ended(process.wait(timeout=_SECONDS_TO_DIE))
    except subprocess.TimeoutExpired:
        return ""


def _identity(config: pytest.Config, nodeid: str, cell_id: str) -> dict[str, Any]:
    """The crashed cell's identity: what the controller, which collected nothing, can know of it."""
    from pytest_hfaccel.registry.every import every_pair
    from pytest_hfaccel.runner import identity

    session = config.stash[SESSION]
    module = nodeid.partition("::")[0].rpartition("/")[-1].removesuffix(".py").removeprefix("test_").removeprefix("hf_")
    specs = session.plan.named or (*session.registry.specs, *every_pair())
    for cell in session.plan.cells(specs, session.store):
        if cell.id == cell_id:
            return identity(cell, module)
    unknown = dict.fromkeys(("model", "architecture", "task", "device", "dtype", "weights"), "unknown")
    return {**unknown, "cell": cell_id, "module": module}


def _wants_groups(config: pytest.Config) -> bool:
    arguments = [str(argument) for argument in config.invocation_params.args]
    grouped = any("loadgroup" in argument for argument in arguments)
    chosen = any(argument.startswith("--dist") for argument in arguments)
    return (grouped or not chosen) and config.stash[SESSION].config != RunConfig()


def _share_cores(workers: int) -> None:
    """Keep the workers' thread pools from adding up to more threads than cores; read by torch when it is imported."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, cores // max(1, workers))))
