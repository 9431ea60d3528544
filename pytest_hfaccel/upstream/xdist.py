"""pytest-xdist, seen in 3.8.0 with execnet 2.1: what it offers no hook for.

`tests/faults/test_a_worker_dies.py` shows what happens without.
"""

from __future__ import annotations

import subprocess
from typing import Any

_STARTS = 5
"""How often a worker is started before the run gives up."""

_SECONDS_TO_DIE = 5.0
"""How long a process may take to end after its connection has."""


def survive_deaths_at_start(config: Any) -> None:
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


def stop_at_enough_failures(session: Any) -> None:
    """Let `-x` and `--maxfail` count workers that died: xdist counts only what the workers report."""
    if session.shouldfail:
        session.config.pluginmanager.getplugin("dsession").shouldstop = str(session.shouldfail)


def exit_code(gateway: Any) -> int | None:
    """Return the exit status of a worker's process, negative for a signal; `None` where it cannot be known.

    execnet keeps the process to itself; a worker on another machine has none here.

    Args:
        gateway: execnet's gateway to the worker (`WorkerController.gateway`).
    """
    process = getattr(getattr(gateway, "_io", None), "popen", None)
    if process is None:
        return None
    try:
        return int(process.wait(timeout=_SECONDS_TO_DIE))
    except subprocess.TimeoutExpired:
        return None
