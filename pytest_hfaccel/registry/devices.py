"""The section `devices:` of registry files: devices of torch that this package does not know by itself."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pytest_hfaccel.core.devices import BUILT_IN, register_kind, torch_kind
from pytest_hfaccel.core.errors import RegistryError
from pytest_hfaccel.registry.document import Document, read_document, validate


def register_devices(paths: Sequence[Path]) -> None:
    """Make the devices that registry files describe known to this process; call it before devices are named.

    Args:
        paths: The user's files, later ones over earlier ones.

    Raises:
        RegistryError: With every mistake of every such section.
    """
    problems: list[str] = []
    for path in paths:
        document = read_document(path)
        section = described_in(document)
        if not section:
            continue
        document.data = {"version": 1, "devices": section}
        validate(document)
        problems += map(str, document.problems)
        if not document.problems:
            for name, entry in section.items():
                register_kind(torch_kind(name, **{key: value for key, value in entry.items() if value is not None}))
    if problems:
        raise RegistryError(problems)


def described_in(document: Document) -> dict[str, dict[str, object]]:
    """Return the section of a document, `{}` where there is none or it is no mapping."""
    section = document.data.get("devices") if isinstance(document.data, dict) else None
    return section if isinstance(section, dict) else {}


def allowed_kinds(documents: Sequence[Document]) -> list[str]:
    """Return the kinds that documents describe, which their `expect` may name."""
    return [name for document in documents for name in described_in(document) if name not in BUILT_IN]
