"""Keeps transformers' progress bars and warnings out of a test run's output."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

_lock = threading.Lock()
_inside = 0
_undo = ExitStack()


@contextmanager
def quiet() -> Iterator[None]:
    """Silence transformers. Several threads may be inside at once: the last one out restores what the first found."""
    global _inside
    with _lock:
        _inside += 1
        if _inside == 1:
            _silence()
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if _inside == 0:
                _undo.close()


def _silence() -> None:
    from transformers.utils import logging

    if logging.get_verbosity() < logging.ERROR:  # setting it empties the caches of all the loggers of the process
        _undo.callback(logging.set_verbosity, logging.get_verbosity())
        logging.set_verbosity_error()
    if logging.is_progress_bar_enabled():
        _undo.callback(logging.enable_progress_bar)
        logging.disable_progress_bar()
    # Where a test run turns warnings into errors, another library's deprecations must not fail the load.
    _undo.enter_context(warnings.catch_warnings())
    warnings.simplefilter("ignore")
