"""Whose doing a failure is, told from where and how it happened."""

from __future__ import annotations

import re

from pytest_hfaccel.core.results import Cause, CheckOutcome, Stage, Status

MEANINGS: dict[Cause, str] = {
    Cause.PACKAGE: "a package that is not installed",
    Cause.FACTORY: "our tiny checkpoint or its inputs",
    Cause.TRANSFORMERS: "the class's own code",
    Cause.EXPORTER: "the conversion from torch to the runtime",
    Cause.RUNTIME: "the runtime that runs the converted model",
    Cause.TIME: "stopped at the time limit",
}

_PACKAGE = re.compile(r"needs the package|requires the \S+ librar|pip install|No module named|ImportError")
_FACTORY = re.compile(r"\ba \w+ cannot be built|\ba tiny \w+ cannot be made|nobody knows how to make")
_EAGER = frozenset({"class", "cpu", "cuda", "rocm", "mps", "xpu"})


def cause_of(outcome: CheckOutcome, device: str) -> Cause:
    """Return the cause of an outcome that is not a pass.

    An expected failure may carry the cause that its entry names. Else the stage and the text of the failure decide:
    what goes wrong in eager torch is the class's own doing, what goes wrong after conversion the runtime's.

    Args:
        outcome: How the check ended.
        device: Id of the device, `class` for the checks that need none.
    """
    text = outcome.reason or ""
    if "cause" in outcome.measures:
        return Cause(outcome.measures["cause"])
    if outcome.status == Status.TIMEOUT:
        return Cause.TIME
    if _PACKAGE.search(text):
        return Cause.PACKAGE
    if _FACTORY.search(text):
        return Cause.FACTORY
    if device.partition(":")[0] in _EAGER:
        return Cause.TRANSFORMERS
    return Cause.EXPORTER if outcome.stage in (Stage.CONVERT, Stage.LOAD) else Cause.RUNTIME
