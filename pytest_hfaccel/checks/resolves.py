"""Check `resolves`: the architecture exists in this transformers.

That what the model needs is installed is demanded before any check runs, by the runner.
"""

from __future__ import annotations

from functools import cache
from importlib.metadata import version

from pytest_hfaccel.checks.base import CheckContext, failed, passed
from pytest_hfaccel.core.results import CheckOutcome, Stage
from pytest_hfaccel.registry.installed import unknown_architectures

NAME = "resolves"


def resolves(context: CheckContext) -> CheckOutcome:
    """The architecture exists in this transformers, with the backends it needs."""
    spec = context.cell.model
    measures = {"transformers": _transformers()}
    if spec.requires_remote_code:
        return passed(NAME, **measures, defined_in="the model's repository")
    problem = next(iter(unknown_architectures([spec])), None) or _missing_backends(spec.architecture)
    if problem:
        return failed(NAME, problem, stage=Stage.RESOLVE, **measures)
    return passed(NAME, **measures, defined_in="transformers")


@cache
def _transformers() -> str:
    return version("transformers")  # reads a file each time


def _missing_backends(architecture: str) -> str | None:
    import transformers

    found = getattr(transformers, architecture)
    backends = getattr(found, "_backends", None)
    if backends and "dummy" in found.__module__:
        return f"transformers offers {architecture} only with {', '.join(backends)} installed"
    return None
