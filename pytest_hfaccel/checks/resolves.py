"""Check `resolves`: the architecture exists in this transformers, and what it needs is installed."""

from __future__ import annotations

from functools import cache
from importlib.metadata import version

from pytest_hfaccel.checks.base import CheckContext, failed, passed, skipped
from pytest_hfaccel.registry.installed import unknown_architectures
from pytest_hfaccel.registry.requirements import missing_dependencies, unsupported_transformers
from pytest_hfaccel.results import CheckOutcome, Stage
from pytest_hfaccel.spec import ModelSpec

NAME = "resolves"


def resolves(context: CheckContext) -> CheckOutcome:
    """The architecture exists in this transformers, within its version bounds, with its dependencies."""
    spec = context.cell.model
    measures = {"transformers": _transformers()}
    unmet = unmet_requirements(spec)
    if unmet:
        return skipped(NAME, "\n".join(unmet), **measures)
    if spec.requires_remote_code:
        return passed(NAME, **measures, defined_in="the model's repository")
    problem = next(iter(unknown_architectures([spec])), None) or _missing_backends(spec.architecture)
    if problem:
        return failed(NAME, problem, stage=Stage.RESOLVE, **measures)
    return passed(NAME, **measures, defined_in="transformers")


def unmet_requirements(spec: ModelSpec) -> list[str]:
    """Return what keeps the model from being tested here, one line each; empty when nothing does.

    Reads the metadata of installed distributions and imports nothing.
    """
    bound = unsupported_transformers(spec)
    missing = [f"needs {dependency}" for dependency in missing_dependencies(spec)]
    return [bound, *missing] if bound else missing


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
