"""Check `resolves`: the architecture exists in this transformers, and what it needs is installed."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from packaging.requirements import Requirement
from packaging.version import Version

from pytest_hfaccel.checks.base import CheckContext, failed, passed, skipped
from pytest_hfaccel.results import CheckOutcome, Stage
from pytest_hfaccel.spec import ModelSpec

NAME = "resolves"


def resolves(context: CheckContext) -> CheckOutcome:
    """The architecture exists in this transformers, within its version bounds, with its dependencies."""
    spec = context.cell.model
    measures = {"transformers": version("transformers")}
    unmet = unmet_requirements(spec)
    if unmet:
        return skipped(NAME, "\n".join(unmet), **measures)
    if spec.requires_remote_code:
        return passed(NAME, **measures, defined_in="the model's repository")
    problem = _problem_of(spec.architecture)
    if problem:
        return failed(NAME, problem, stage=Stage.RESOLVE, **measures)
    return passed(NAME, **measures, defined_in="transformers")


def unmet_requirements(spec: ModelSpec) -> list[str]:
    """Return what keeps the model from being tested here, one line each; empty when nothing does.

    Reads the metadata of installed distributions and imports nothing.
    """
    here = Version(version("transformers"))
    unmet = []
    if spec.min_transformers and here < Version(spec.min_transformers.version):
        bound = spec.min_transformers
        unmet.append(f"needs transformers >= {bound.version} ({bound.reason}), installed is {here}")
    if spec.max_transformers and here > Version(spec.max_transformers.version):
        bound = spec.max_transformers
        unmet.append(f"needs transformers <= {bound.version} ({bound.reason}), installed is {here}")
    return unmet + [problem for text in spec.dependencies if (problem := _unmet(Requirement(text)))]


def _unmet(requirement: Requirement) -> str | None:
    if requirement.marker is not None and not requirement.marker.evaluate():
        return None
    try:
        here = version(requirement.name)
    except PackageNotFoundError:
        return f"needs {requirement}, which is not installed: pip install '{requirement}'"
    if requirement.specifier.contains(here, prereleases=True):
        return None
    return f"needs {requirement}, installed is {here}"


def _problem_of(architecture: str) -> str | None:
    import transformers

    # dir() lists the lazily imported names without importing their modules.
    if architecture not in dir(transformers):
        from difflib import get_close_matches

        near = get_close_matches(architecture, dir(transformers), n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        return f"transformers {transformers.__version__} has no class {architecture!r}.{hint}"
    found = getattr(transformers, architecture)
    backends = getattr(found, "_backends", None)
    if backends and "dummy" in found.__module__:
        return f"transformers offers {architecture} only with {', '.join(backends)} installed"
    return None
