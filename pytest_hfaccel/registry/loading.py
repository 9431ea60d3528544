"""Registry files -> `Registry`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pytest_hfaccel.core.errors import RegistryError
from pytest_hfaccel.registry.building import without_unset
from pytest_hfaccel.registry.catalog import Registry
from pytest_hfaccel.registry.document import read_document, wrap_model_map
from pytest_hfaccel.registry.merging import MergedFiles
from pytest_hfaccel.registry.validation import validate

SHIPPED = Path(__file__).with_name("models.yaml")
"""The registry inside this package."""

EXPECTED = Path(__file__).with_name("expected.yaml")
"""What is known to fail among the classes that are not registered one by one."""

_SHIPPED = {"pytest_hfaccel/registry/models.yaml": SHIPPED, "pytest_hfaccel/registry/expected.yaml": EXPECTED}


def load_registry(
    paths: Sequence[Path] = (), *, extra_kinds: Sequence[str] = (), cache_dir: Path | None = None
) -> Registry:
    """Load the shipped registry and what the user's files add to it or override.

    Args:
        paths: The user's files, later ones over earlier ones.
        extra_kinds: Device kinds of third-party backends, allowed in `expect` besides the known ones.
        cache_dir: Where file contents that were found valid are remembered, so that the next start is quicker.

    Raises:
        RegistryError: With every mistake of every file.
    """
    documents = [*(read_document(path, name) for name, path in _SHIPPED.items()), *map(read_document, paths)]
    merged = MergedFiles()
    for document in documents:
        wrap_model_map(document)
        validate(document, extra_kinds, cache_dir)
        merged.add(document)
    specs = merged.build()
    if merged.problems:
        order = [document.file for document in documents]
        merged.problems.sort(key=lambda problem: (order.index(problem.file), problem.line))
        raise RegistryError([str(problem) for problem in merged.problems])
    classes = {name: without_unset(fields) for name, fields in merged.classes.items()}
    return Registry(specs, classes, tuple(merged.expected), merged.unresolved)
