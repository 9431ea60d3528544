"""OpenVINO, seen in 2026.4.1."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch


def send_no_telemetry() -> None:
    """Keep OpenVINO's converter and NNCF from sending telemetry from this process: neither has a public switch.

    Unless somebody has run `opt_in_out --opt_out` it is sent without asking, several messages per conversion, each by
    a fork of the whole process. In two sweeps over a hundred classes each (not side by side, and the first shared the
    machine for a while) the median conversion of each quarter took 7, 9, 11 and 22 seconds with it, 5, 5, 6 and 6
    without.
    """
    try:
        from openvino.tools.ovc.telemetry_utils import init_ovc_telemetry
    except ImportError:
        return
    # On CI it makes no file with the user's identity in the home directory either.
    with patch.dict(os.environ, CI="true"):
        telemetry = init_ovc_telemetry()
    telemetry.consent = False  # where it has been initialised before


@contextmanager
def silent_import() -> Iterator[None]:
    """Keep OpenVINO from starting the thread that sends telemetry, as it does when it is imported, for a `with` block.

    A process that has other threads cannot be forked without risk. On CI it starts none.
    """
    with patch.dict(os.environ, CI="true"):
        yield


_COMPILE_LOGGERS = tuple(f"openvino.frontend.pytorch.torchdynamo.{module}" for module in ("backend", "execute"))


def clear_compiled_graphs() -> None:
    """Empty the caches of OpenVINO's backend of `torch.compile`."""
    from openvino.frontend.pytorch.torchdynamo import execute

    execute.clear_caches()
    execute.req_cache.clear()


def compiled_graphs() -> int:
    """Return how many graphs that backend has compiled since its caches were emptied."""
    from openvino.frontend.pytorch.torchdynamo import execute

    return len(execute.compiled_cache)


def graphs_given_back() -> int:
    """Return how many of those graphs it failed to run, and has torch run from then on; it says so nowhere."""
    return sum(module.perm_fallback for module in _fused_modules())


def operators_left_to_torch() -> dict[str, int]:
    """Return the operators that it took into no graph of its own, by name: torch runs them in between."""
    from openvino.frontend.pytorch.torchdynamo import execute

    left: Counter[str] = Counter()
    for graph in execute.partitioned_modules.values():
        names = (str(node.target) for node in graph.graph.nodes if node.op == "call_function")
        left.update(name for name in names if "getitem" not in name)
    return dict(left.most_common())


def _fused_modules() -> Iterator[Any]:
    from openvino.frontend.pytorch.torchdynamo import execute

    for graph in execute.partitioned_modules.values():
        yield from (module for module in graph.children() if isinstance(module, execute.OpenVINOGraphModule))


@contextmanager
def compile_refusals() -> Iterator[list[str]]:
    """Collect what that backend says of graphs it cannot run; it says so at level DEBUG only, and hands them on."""
    messages: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage()) if "ailed" in str(record.msg) else None  # type: ignore[method-assign]
    loggers = [logging.getLogger(name) for name in _COMPILE_LOGGERS]
    before = [(logger.level, logger.propagate) for logger in loggers]
    for logger in loggers:
        logger.addHandler(handler)
        logger.setLevel(logging.DEBUG)
        logger.propagate = False
    try:
        yield messages
    finally:
        for logger, (level, propagate) in zip(loggers, before, strict=True):
            logger.removeHandler(handler)
            logger.setLevel(level)
            logger.propagate = propagate
