"""Has transformers read weights in the thread that asks for them."""

from __future__ import annotations

import os
from contextlib import ExitStack

from pytest_hfaccel.checkpoints.outermost import Outermost

_SWITCH = "HF_DEACTIVATE_ASYNC_LOAD"
"""transformers' own; its documentation has it among the environment variables."""


def _switch(undo: ExitStack) -> None:
    if _SWITCH not in os.environ:
        os.environ[_SWITCH] = "1"
        undo.callback(os.environ.pop, _SWITCH, None)


in_one_thread = Outermost(_switch)
"""`with in_one_thread:` reads weights without a pool of threads. For a tiny checkpoint the pool takes a quarter of the
time of loading it (4 of 16 ms for GPT-2, 9 of 28 ms for T5); for a large one it hides the latency of the disk."""
