"""What the shipped registry says about a name: the architecture class it is registered with."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

from pytest_hfaccel.families.class_evidence import analyze_class
from pytest_hfaccel.families.records import Analysis, analysis

CONFIDENCE = 0.95


def analyze_registered(model_name: str, source: str) -> Analysis | None:
    """Say what the registered class of a model is for; `None` when the model is not registered.

    The first call in a process reads the registry, which takes some 0.2 s; it is made only for names that hold no
    known model.

    Raises:
        RegistryError: The shipped registry is broken.
    """
    architecture = _architectures().get(model_name)
    said = analyze_class(architecture) if architecture else None
    if said is None:
        return None
    reason = f"it is registered as {architecture}"
    return analysis(source, said["family"], said["subfamily"], CONFIDENCE, said["subfamily_confidence"], reason)


@cache
def _architectures() -> Mapping[str, str]:
    from pytest_hfaccel.registry import load_registry

    return {spec.name: spec.architecture for spec in load_registry().specs}
