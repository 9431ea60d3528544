"""The table of public specifications, and how a device is found in it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from importlib.resources import files
from typing import Any

from pytest_hfaccel.core.errors import ConfigError
from pytest_hfaccel.predict.datasheet.specification import GB, DeviceSpecification, Link

_TERA = 1e12


@dataclass(frozen=True)
class Specifications:
    """The known devices.

    Attributes:
        by_slug: Specification by the name users type.
        defaults: Which one stands for a kind of device when nothing else is known.
    """

    by_slug: Mapping[str, DeviceSpecification]
    defaults: Mapping[str, str]

    def get(self, slug: str, kind: str | None = None) -> DeviceSpecification:
        """Return a device.

        Args:
            slug: Its name, in any case.
            kind: The kind of device it must be one of.

        Raises:
            ConfigError: There is none of that name, or it is not of that kind; the message lists those there are.
        """
        found = self.by_slug.get(slug.lower())
        if found is not None and (kind is None or kind in found.kinds):
            return found
        known = self.slugs(kind)
        near = get_close_matches(slug.lower(), known, n=1)
        suggestion = f" Did you mean {near[0]!r}?" if near else ""
        of_kind = f" for {kind}" if kind else ""
        raise ConfigError(
            f"{slug!r} is not a device whose data sheet is known{of_kind}.{suggestion}",
            hint=f"Known{of_kind}: {', '.join(known) or 'none'}.",
        )

    def slugs(self, kind: str | None = None) -> list[str]:
        """The names of the devices of a kind, or of all."""
        return [slug for slug, each in self.by_slug.items() if kind is None or kind in each.kinds]

    def of_driver(self, name: str, kind: str) -> DeviceSpecification | None:
        """Return the device that a driver calls by this name; of several that fit, the one that fits the longest."""
        fitting = [
            (len(part), each)
            for each in self.by_slug.values()
            for part in each.match
            if kind in each.kinds and re.search(rf"(?<!\w){re.escape(part)}(?!\w)", name, re.IGNORECASE)
        ]
        return max(fitting, key=lambda pair: pair[0])[1] if fitting else None


@cache
def load_specifications() -> Specifications:
    """Read the table that comes with this package."""
    import yaml

    data = yaml.safe_load(files(__package__).joinpath("devices.yaml").read_text(encoding="utf-8"))
    found = {slug: _specification(slug, **entry) for slug, entry in data["devices"].items()}
    return Specifications(found, data["defaults"])


def _specification(
    slug: str,
    *,
    name: str,
    kinds: list[str],
    source: str,
    published: str,
    bandwidth: float,
    memory: float | None = None,
    tflops: Mapping[str, float] | None = None,
    link: Mapping[str, Any] | None = None,
    cores: int = 0,
    match: tuple[str, ...] = (),
    derived: str = "",
) -> DeviceSpecification:
    return DeviceSpecification(
        slug=slug,
        name=name,
        kinds=tuple(kinds),
        source=source,
        published=published,
        bandwidth=bandwidth * GB,
        memory_bytes=round(memory * GB) if memory else None,
        flops={dtype: _TERA * speed for dtype, speed in (tflops or {}).items()},
        link=Link(link["name"], link["bandwidth"] * GB) if link else None,
        cores=cores,
        match=tuple(match),
        derived=derived,
    )
