"""transformers is silent while we load, and as it was afterwards."""

from __future__ import annotations

import threading
import warnings

import pytest

from pytest_hfaccel.checkpoints.quiet import quiet

pytestmark = pytest.mark.slow


@pytest.fixture
def talkative() -> None:
    """transformers at its defaults."""
    from transformers.utils import logging

    logging.set_verbosity_warning()
    logging.enable_progress_bar()


def state() -> tuple[int, bool]:
    from transformers.utils import logging

    return logging.get_verbosity(), logging.is_progress_bar_enabled()


@pytest.mark.usefixtures("talkative")
def test_it_is_silent_inside_and_restored_outside() -> None:
    before = state()
    with quiet:
        assert state() != before
        warnings.warn("somebody else's deprecation", FutureWarning, stacklevel=1)
    assert state() == before


@pytest.mark.usefixtures("talkative")
def test_threads_that_overlap_restore_what_the_first_found() -> None:
    before, entered, leave = state(), threading.Event(), threading.Event()

    def other() -> None:
        with quiet:
            entered.set()
            leave.wait(10)

    thread = threading.Thread(target=other)
    with quiet:
        thread.start()
        assert entered.wait(10)
    silent = state()
    leave.set()
    thread.join(10)
    assert silent != before, "the second thread was still inside"
    assert state() == before


@pytest.mark.usefixtures("talkative")
def test_an_error_restores_too() -> None:
    before = state()
    with pytest.raises(ValueError, match="inside"), quiet:
        raise ValueError("inside")
    assert state() == before
