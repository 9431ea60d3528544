"""The ways to build a tiny checkpoint, in the order in which they are tried."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from pytest_hfaccel.checkpoints.sizes import Sizes
from pytest_hfaccel.core.spec import ModelSpec
from pytest_hfaccel.core.tasks import GENERIC, task_of

_SECTIONS = re.compile(r"split_sizes to sum exactly to (\d+)")


@dataclass(frozen=True)
class Attempt:
    """One way.

    Attributes:
        processed: Whether the checkpoint gets a tokenizer and processors, and its inputs from them.
        sizes: How its config is shrunk.
    """

    processed: bool
    sizes: Sizes


def attempts(spec: ModelSpec, errors: list[Exception]) -> Iterator[Attempt]:
    """Yield the ways to build a model.

    Args:
        spec: The model.
        errors: What went wrong with those before; filled by the caller.
    """
    for processed in (False,) if task_of(spec).recipe == GENERIC else (True, False):
        yield Attempt(processed, Sizes())
        # A default of None may stand for what every checkpoint states.
        yield Attempt(processed, Sizes(filled=True))
    half = next((int(found[1]) for error in errors if (found := _SECTIONS.search(str(error)))), None)
    if half is not None:
        # The code has its own default for the sections of the rotary embedding, made for the real head.
        yield Attempt(False, Sizes(rotary_half=half))
