"""Keeps transformers' progress bars and warnings out of a test run's output."""

from __future__ import annotations

import warnings
from contextlib import ExitStack

from pytest_hfaccel.checkpoints.outermost import Outermost


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


quiet = Outermost(_silence)
"""`with quiet:` silences transformers."""
