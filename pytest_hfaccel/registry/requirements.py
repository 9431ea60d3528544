"""Checks whether the packages that a model needs are installed, by their metadata, without importing them."""

from __future__ import annotations

import shlex
from functools import cache

from pytest_hfaccel.core.errors import PackageMissing
from pytest_hfaccel.core.presence import installed_version
from pytest_hfaccel.core.spec import ModelSpec


def installed_dependencies(spec: ModelSpec) -> dict[str, str | None]:
    """Return the installed version of what each dependency of a model asks for; `None` where it is not installed.

    Those whose marker says that they are not needed here are left out.
    """
    from packaging.requirements import Requirement

    versions: dict[str, str | None] = {}
    for text in spec.dependencies:
        requirement = Requirement(text)
        if not (requirement.marker and not requirement.marker.evaluate()):
            versions[text] = _installed_version(requirement.name)
    return versions


_installed_version = cache(installed_version)


def missing_dependencies(spec: ModelSpec) -> list[str]:
    """Return the dependencies of a model that are not met here, each with what is there instead.

    Returns:
        Lines such as `sentencepiece>=0.2 (not installed)` or `pillow>=99 (13.0.0 is installed)`; empty if all are met.
    """
    from packaging.requirements import Requirement

    return [
        f"{text} ({f'{installed} is installed' if installed else 'not installed'})"
        for text, installed in installed_dependencies(spec).items()
        if installed is None or not Requirement(text).specifier.contains(installed, prereleases=True)
    ]


def require_installed(spec: ModelSpec) -> None:
    """Refuse a model whose dependencies or bounds on transformers are not met here.

    Raises:
        PackageMissing: With everything that is not met, and the command that installs it.
    """
    missing = missing_dependencies(spec)
    bound = unsupported_transformers(spec)
    if not (missing or bound):
        return
    wanted = [text.rpartition(" (")[0] for text in missing]
    if bound:
        bounds = ((">=", spec.min_transformers), ("<=", spec.max_transformers))
        limits = [f"{sign}{limit.version}" for sign, limit in bounds if limit]
        wanted.insert(0, f"transformers{','.join(limits)}")
    problems = [*([bound] if bound else []), *(f"needs {text}" for text in missing)]
    raise PackageMissing(
        f"{spec.name} {'; '.join(problems)}.",
        hint=f"Install it with: pip install {shlex.join(wanted)}. "
        f"What it needs is said by its registry entry ({spec.source}) and that of its class.",
    )


def unsupported_transformers(spec: ModelSpec) -> str | None:
    """Return why the installed transformers is too old or too new for a model, or `None` if it is neither.

    Both bounds are inclusive, and a development version counts as the release it leads to.
    """
    if spec.min_transformers is None and spec.max_transformers is None:
        return None
    from importlib.metadata import version

    from packaging.version import Version

    installed = version("transformers")
    here = Version(Version(installed).base_version)
    low, high = spec.min_transformers, spec.max_transformers
    if low and here < Version(low.version):
        return f"needs transformers >= {low.version} ({installed} is installed): {low.reason}"
    if high and here > Version(high.version):
        return f"needs transformers <= {high.version} ({installed} is installed): {high.reason}"
    return None
