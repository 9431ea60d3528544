"""The battery. Each check is registered where it is written: `@built_in("parity")` in `outputs.py`.

Importing the checks imports neither torch nor transformers: which checks a cell has is decided at collection.
"""

from __future__ import annotations

from importlib import import_module

from pytest_hfaccel.checks.base import BUILT_IN, Check, CheckContext, CheckRegistry, Claim

__all__ = ["Check", "CheckContext", "CheckRegistry", "Claim", "built_in_checks"]

_MODULES = (
    "loading",
    "outputs",
    "dependence",
    "generation",
    "pipeline",
    "task_sense",
    "memory",
    "canary",
    "implementations",
    "training",
    "performance",
)
"""In the order in which a cell runs their checks; those of one module run in the order in which they are written."""


def built_in_checks() -> CheckRegistry:
    """Return a new registry with the built-in checks, in the order in which they run."""
    order = {import_module(f"{__name__}.{name}").__name__: index for index, name in enumerate(_MODULES)}
    return CheckRegistry(sorted(BUILT_IN, key=lambda check: order[check.function.__module__]))
