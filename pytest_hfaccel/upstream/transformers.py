"""transformers, seen in 5.23.0."""

from __future__ import annotations

import os
import warnings
from contextlib import ExitStack

from pytest_hfaccel.upstream import RefCountedContext

_ASYNC_LOAD_SWITCH = "HF_DEACTIVATE_ASYNC_LOAD"
"""transformers' own; its documentation has it among the environment variables."""


def _silence(undo: ExitStack) -> None:
    from transformers.utils import logging

    if logging.get_verbosity() < logging.ERROR:  # setting it empties the caches of all the loggers of the process
        undo.callback(logging.set_verbosity, logging.get_verbosity())
        logging.set_verbosity_error()
    if logging.is_progress_bar_enabled():
        undo.callback(logging.enable_progress_bar)
        logging.disable_progress_bar()
    # Where a test run turns warnings into errors, another library's deprecations must not fail the load.
    undo.enter_context(warnings.catch_warnings())
    warnings.simplefilter("ignore")


quiet = RefCountedContext(_silence)
"""`with quiet:` keeps transformers' progress bars and warnings out of a test run's output."""


def _deactivate_async_load(undo: ExitStack) -> None:
    if _ASYNC_LOAD_SWITCH not in os.environ:
        os.environ[_ASYNC_LOAD_SWITCH] = "1"
        undo.callback(os.environ.pop, _ASYNC_LOAD_SWITCH, None)


load_in_one_thread = RefCountedContext(_deactivate_async_load)
"""`with load_in_one_thread:` has transformers read weights without a pool of threads.

For a tiny checkpoint the pool takes a quarter of the time of loading it (4 of 16 ms for GPT-2, 9 of 28 ms for T5); for
a large one it hides the latency of the disk.
"""
