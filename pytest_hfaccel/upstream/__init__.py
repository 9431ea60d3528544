"""What we patch of other projects, or reach into past their public names: a module per project.

Each function says in which version it was seen and why it is needed, and has a test in `tests/unit/upstream/` that
fails once it is no longer needed or the private name is gone. An upgrade is then a list to walk. The patched package
is imported inside the functions: importing these modules costs nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import ExitStack
from types import TracebackType


class RefCountedContext:
    """A change of the whole process, for a `with` block of several threads: the first makes it, the last undoes it.

    Args:
        change: Makes the change, and registers on the stack how to undo it.
    """

    def __init__(self, change: Callable[[ExitStack], None]) -> None:
        self._change = change
        self._lock = threading.Lock()
        self._inside = 0
        self._undo = ExitStack()

    def __enter__(self) -> None:
        with self._lock:
            self._inside += 1
            if self._inside == 1:
                self._change(self._undo)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                self._undo.close()
