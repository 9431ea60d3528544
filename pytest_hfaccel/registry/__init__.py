"""Which models are known: YAML files -> `ModelSpec`s, and what a user's `--hf-model` means.

Nothing here imports torch or transformers; huggingface_hub and pydantic are imported when they are needed.
"""

from __future__ import annotations

from pytest_hfaccel.registry.catalog import Registry
from pytest_hfaccel.registry.loading import SHIPPED, load_registry
from pytest_hfaccel.registry.requirements import missing_dependencies, require_installed, unsupported_transformers
from pytest_hfaccel.registry.resolution import resolve_model, with_distinct_ids

__all__ = [
    "SHIPPED",
    "Registry",
    "load_registry",
    "missing_dependencies",
    "require_installed",
    "resolve_model",
    "unsupported_transformers",
    "with_distinct_ids",
]
