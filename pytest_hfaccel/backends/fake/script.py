"""The script of the fake backend: what is to happen to which model.

It is the JSON value of the environment variable `HFACCEL_FAKE`, so that it reaches every worker process:

    {"gpt2*": {"load_seconds": 0.2}, "bert-*": {"crash": "SIGSEGV"}, "*": {}}

The first pattern that matches the model's slug counts. `HFACCEL_FAKE_LOG` names a file that every load, run and close
is appended to, one JSON object per line.

What the fake backend did, written where other processes can count it.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Mapping
from dataclasses import dataclass, fields
from fnmatch import fnmatchcase
from typing import Any

from pytest_hfaccel.core.errors import ConfigError

SCRIPT = "HFACCEL_FAKE"
LOG = "HFACCEL_FAKE_LOG"

_STAGES = ("load", "convert", "compile", "run")


@dataclass(frozen=True)
class Script:
    """What happens to a model.

    Attributes:
        load_seconds: How long loading takes.
        forward_seconds: How long a forward pass takes.
        fail_stage: `load`, `convert` or `compile`: loading fails there; `run`: the forward pass fails.
        crash: Name of a signal that kills the process in the forward pass, e.g. `SIGSEGV`.
        wrong: The outputs are off by one.
        oom_first: How many loads of the model, per process, run out of memory before one succeeds.
        nbytes: Bytes it says it holds.
    """

    load_seconds: float = 0.0
    forward_seconds: float = 0.0
    fail_stage: str = ""
    crash: str = ""
    wrong: bool = False
    oom_first: int = 0
    nbytes: int = 1_000_000


def script_for(slug: str, environ: Mapping[str, str] | None = None) -> Script:
    """Return what is to happen to a model.

    Args:
        slug: The model's slug.
        environ: Environment to read instead of `os.environ`.

    Raises:
        ConfigError: The script is not one.
    """
    text = (os.environ if environ is None else environ).get(SCRIPT) or "{}"
    try:
        plan = json.loads(text)
        chosen: dict[str, Any] = next((entry for pattern, entry in plan.items() if fnmatchcase(slug, pattern)), {})
        script = Script(**chosen)
    except (ValueError, TypeError, AttributeError) as error:
        allowed = ", ".join(field.name for field in fields(Script))
        raise ConfigError(f"{SCRIPT}: {text!r} is not a script: {error}. Allowed per pattern: {allowed}.") from error
    if script.fail_stage not in ("", *_STAGES):
        raise ConfigError(f"{SCRIPT}: fail_stage {script.fail_stage!r} is not allowed. Allowed: {', '.join(_STAGES)}.")
    if script.crash and script.crash not in signal.Signals.__members__:
        raise ConfigError(f"{SCRIPT}: crash {script.crash!r} is not a signal of this system, e.g. SIGSEGV.")
    return script


def record(event: str, cell: str, **facts: Any) -> None:
    """Append an event (`load`, `forward`, `close`) to the file that `HFACCEL_FAKE_LOG` names, if it names one."""
    path = os.environ.get(LOG)
    if not path:
        return
    line = json.dumps({"event": event, "cell": cell, "process": os.getpid(), **facts}) + "\n"
    # One write in append mode: lines of several processes do not mix.
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(descriptor, line.encode())
    finally:
        os.close(descriptor)
