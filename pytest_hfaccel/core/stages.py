"""Where this process is in a cell's life: what it writes down as it goes, a crash can be told by.

Code that loads, converts, compiles and runs says so with `at_stage`; `watch_stages` names who is told. One function is
told, once per change: the notes of a worker that may die (`plugin.crashes`), which the progress of a run reads, too.
Without it, a stage costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

_current = ""
_detail = ""
_tell: Callable[[str], object] | None = None


def watch_stages(tell: Callable[[str], object] | None) -> None:
    """Have a function called with every new stage, in the thread that enters it; `None` ends that."""
    global _tell
    _tell = tell


def current_stage() -> str:
    """Return the stage that was entered last, and not left; empty where there is none."""
    return _current


def current_detail() -> str:
    """Return what the stage is busy with; empty where nobody has said."""
    return _detail


def note_detail(text: str) -> None:
    """Say what the stage is busy with, e.g. `download 1.2 GiB of 4.9 GiB`, until the next stage or the next call."""
    global _detail
    if text != _detail:
        _detail = text
        if _tell is not None:
            _tell(_current)


@contextmanager
def at_stage(stage: str) -> Iterator[None]:
    """Say for a `with` block that the process is at a stage: one of `core.results.Stage`, or `MACHINE`."""
    before = _current
    _enter(stage)
    try:
        yield
    finally:
        _enter(before)


MACHINE = "machine"
"""Not a stage of a cell: the machine is looked at (`hardware.health`)."""


def _enter(stage: str) -> None:
    global _current, _detail
    if stage != _current:
        _current, _detail = stage, ""
        if _tell is not None:
            _tell(stage)
