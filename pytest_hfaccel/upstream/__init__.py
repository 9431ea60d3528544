"""What we patch of other projects, or reach into past their public names: a module per project.

Each function says in which version it was seen and why it is needed, and has a test in `tests/unit/upstream/` that
fails once it is no longer needed or the private name is gone. An upgrade is then a list to walk. The patched package
is imported inside the functions: importing these modules costs nothing.
"""

from __future__ import annotations

import logging
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import TracebackType

TORCHAO = ("torchao", "torch.utils._pytree")
"""The loggers of what torchao remarks while it is imported, about kernels for other machines. ExecuTorch brings it, and
transformers imports it where it is installed."""


@contextmanager
def errors_only(*loggers: str) -> Iterator[None]:
    """Keep out of the output what these loggers have to say short of an error, and Python's warnings."""
    levels = {name: logging.getLogger(name).level for name in loggers}
    with warnings.catch_warnings():
        # Where a test run turns warnings into errors, another library's deprecations must not fail it.
        warnings.simplefilter("ignore")
        for name in levels:
            logging.getLogger(name).setLevel(logging.ERROR)
        try:
            yield
        finally:
            for name, level in levels.items():
                logging.getLogger(name).setLevel(level)


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
