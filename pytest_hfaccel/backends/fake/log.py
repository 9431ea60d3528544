"""What the fake backend did, written where other processes can count it."""

from __future__ import annotations

import json
import os
from typing import Any

from pytest_hfaccel.backends.fake.script import LOG


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
