"""Well-known checkpoints by name."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any


@dataclass(frozen=True)
class KnownCheckpoint:
    """A checkpoint whose dimensions are known.

    Attributes:
        name: Its name.
        architecture: transformers class.
        parameters: Number of parameters, tied ones counted once.
        source: Repository on the hub whose config.json states the dimensions.
        dims: Config fields that differ from the class's default config.
        family: Models that differ from it in size only; empty where there are none.
    """

    name: str
    architecture: str
    parameters: int
    source: str
    dims: Mapping[str, Any] = field(default_factory=dict, hash=False)
    family: str = ""


def find_checkpoint(name: str) -> KnownCheckpoint | None:
    """Return the checkpoint of a name or hub id; case, organisation and punctuation do not count."""
    return _by_name().get(plain(name))


def checkpoints_of(family: str) -> list[KnownCheckpoint]:
    """Return the checkpoints of a family, the smallest first."""
    found = {each.name: each for each in _by_name().values() if each.family == family}
    return sorted(found.values(), key=lambda each: each.parameters)


def families() -> list[str]:
    """Return the families, those with the longest names first: `llama-3` before `llama`."""
    return sorted({each.family for each in _by_name().values() if each.family}, key=len, reverse=True)


def plain(name: str) -> str:
    """Return a name without organisation, case and punctuation."""
    return re.sub(r"[^a-z0-9.]", "", name.rpartition("/")[2].lower())


@cache
def _by_name() -> dict[str, KnownCheckpoint]:
    import yaml

    data = yaml.safe_load(files(__package__).joinpath("known_dims.yaml").read_text(encoding="utf-8"))
    found = {}
    for name, entry in data["models"].items():
        names = entry.pop("names", ())
        checkpoint = KnownCheckpoint(name, **entry)
        found.update({plain(each): checkpoint for each in (name, checkpoint.source, *names)})
    return found
