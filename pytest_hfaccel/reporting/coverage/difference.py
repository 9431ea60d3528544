"""Two coverages compared: another release of transformers, another machine."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

_NAMES_SHOWN = 40


def difference_section(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Return a section of the page: classes that came and went, and cells that end in another way.

    Args:
        before: An earlier coverage.
        after: The one the page is about.
    """
    old, new = before["models"], after["models"]
    versions = (_version(before), _version(after))
    lines = [f"## Compared with transformers {versions[0]}", ""]
    lines += _listed(f"Classes that only transformers {versions[1]} has", sorted(new.keys() - old.keys()))
    lines += _listed(f"Classes that only transformers {versions[0]} has", sorted(old.keys() - new.keys()))
    changed = list(_changed(old, new))
    lines += [f"- Cells of the same class that end in another way: {len(changed)}"]
    return [*lines, *(f"  - {text}" for text in changed)]


def _changed(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    for model in sorted(old.keys() & new.keys()):
        for column in sorted(old[model]["cells"].keys() & new[model]["cells"].keys()):
            first, second = (found[model]["cells"][column] for found in (old, new))
            if first["status"] != second["status"]:
                why = [
                    f"{p['check']}: {p['reason']}" for p in (*second.get("problems", ()), *first.get("problems", ()))
                ]
                yield f"`{model}` on {column}: {first['status']} -> {second['status']} ({'; '.join(why[:1])})"


def _listed(what: str, names: list[str]) -> list[str]:
    more = f" and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else ""
    shown = ": " + ", ".join(f"`{name}`" for name in names[:_NAMES_SHOWN]) + more if names else ""
    return [f"- {what}: {len(names)}{shown}"]


def _version(coverage: Mapping[str, Any]) -> str:
    found = {run["versions"].get("transformers", "?") for run in coverage["runs"]}
    return ", ".join(sorted(found)) or "?"
