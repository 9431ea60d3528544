"""What pytest-xdist offers no hook for: how its workers are started, and how their processes ended.

Seen in xdist 3.8.0 with execnet 2.1. The names of theirs that this relies on stand here and nowhere else: the plugin
`dsession` with its `shouldstop` and `nodemanager`, whose `setup_node` starts a worker, and `_io.popen` of a gateway.
`tests/faults/test_a_worker_dies.py` fails when one of them is gone.
"""

from __future__ import annotations

import subprocess
from typing import Any

import pytest

_STARTS = 5
"""How often a worker is started before the run gives up."""
_SECONDS_TO_DIE = 5.0
"""How long a process may take to end after its connection has."""


def survive_deaths_at_start(config: pytest.Config) -> None:
    """Start a worker again that dies while it is being started, which would be an internal error of the controller."""
    manager = config.pluginmanager.getplugin("dsession").nodemanager
    start = manager.setup_node

    def start_again(spec: Any, putevent: Any) -> Any:
        for _ in range(_STARTS - 1):
            try:
                return start(spec, putevent)
            except (EOFError, OSError):
                spec.id = None  # the old id stays taken
                manager.group.allocate_id(spec)
        return start(spec, putevent)

    manager.setup_node = start_again


def stop_at_enough_failures(session: pytest.Session) -> None:
    """Let `-x` and `--maxfail` count workers that died: xdist counts only what the workers report."""
    if session.shouldfail:
        session.config.pluginmanager.getplugin("dsession").shouldstop = str(session.shouldfail)


def how_worker_ended(node: Any) -> str:
    """Say by which signal, or with which code, a worker's process ended; empty where that cannot be known."""
    from pytest_hfaccel.benchmark.process import how_it_ended

    # execnet keeps the process to itself; a worker on another machine has none here.
    process = getattr(getattr(node.gateway, "_io", None), "popen", None)
    if process is None:
        return ""
    try:
        return how_it_ended(process.wait(timeout=_SECONDS_TO_DIE))
    except subprocess.TimeoutExpired:
        return ""
