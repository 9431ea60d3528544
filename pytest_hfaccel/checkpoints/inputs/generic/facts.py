"""Facts about a model that its config states somewhere in a nest of configs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


def nested(config: Any) -> list[tuple[str, Any]]:
    """Return a config and all configs in it, breadth first, each with its dotted path; the outermost has none."""
    found, queue = [], [("", config)]
    while queue:
        path, part = queue.pop(0)
        found.append((path, part))
        for name in getattr(type(part), "sub_configs", None) or {}:
            inner = getattr(part, name, None)
            if hasattr(inner, "model_type"):
                queue.append((f"{path}.{name}".strip("."), inner))
    return found


def about(config: Any, *words: str) -> list[Any]:
    """Return all configs of a nest, those first whose path has one of the words (`vision`, `audio`, ...)."""
    parts = nested(config)
    first = [part for path, part in parts if any(word in path for word in words)]
    return first + [part for _, part in parts if not any(part is one for one in first)]


def number(parts: Iterable[Any], *names: str) -> int | None:
    """Return the first integer that one of the configs has under one of the names."""
    found = stated(parts, *names, kinds=(int,))
    return None if found is None else int(found)


def stated(parts: Iterable[Any], *names: str, kinds: tuple[type, ...]) -> Any:
    """Return the first value of one of the kinds that one of the configs has under one of the names."""
    for part in parts:
        for name in names:
            value = getattr(part, name, None)
            if isinstance(value, kinds) and not isinstance(value, bool):
                return value
    return None


def token(config: Any, kind: str) -> int | None:
    """Return the id that stands for a piece of an image, sound or video in a text."""
    names = [f"{kind}_token_id", f"{kind}_token_index"]
    if kind == "image":
        names += ["media_token_id", "image_patch_id", "im_patch_id"]
    return number([config, *about(config, "text")], *names)
