"""The models that are known, by name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cached_property
from typing import Any

from pytest_hfaccel.errors import ConfigError
from pytest_hfaccel.registry.problem import suggest
from pytest_hfaccel.spec import ModelSpec


@dataclass(frozen=True)
class Registry:
    """What the registry files say.

    Attributes:
        specs: The models; those of a class with the class's default first.
        classes: Per architecture class the `ModelSpec` fields all its models share, also those not registered.
    """

    specs: tuple[ModelSpec, ...]
    classes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @cached_property
    def _by_name(self) -> dict[str, ModelSpec]:
        return {spec.name: spec for spec in self.specs}

    def __contains__(self, name: object) -> bool:
        return name in self._by_name

    def get(self, name: str) -> ModelSpec:
        """Return the model of that name.

        Raises:
            ConfigError: There is none; the message names the nearest.
        """
        if name not in self._by_name:
            raise ConfigError(
                f"{name!r} is not a registered model.{self.suggest(name)}",
                hint="`hfaccel registry list` shows all of them.",
            )
        return self._by_name[name]

    def match(self, pattern: str) -> list[ModelSpec]:
        """Return the models whose name, or what follows the `/` in it, matches a wildcard; case does not count."""
        wanted = pattern.lower()
        return [
            spec
            for spec in self.specs
            if fnmatchcase(name := spec.name.lower(), wanted) or fnmatchcase(name.rpartition("/")[2], wanted)
        ]

    def for_architectures(self, patterns: Iterable[str]) -> list[ModelSpec]:
        """Return the models whose architecture class matches one of the wildcards (`Bert*`), in registry order."""
        patterns = tuple(patterns)
        return [spec for spec in self.specs if any(fnmatchcase(spec.architecture, pattern) for pattern in patterns)]

    def suggest(self, name: str) -> str:
        """Return ` Did you mean 'x'?` for the registered name nearest to `name`, or nothing."""
        return suggest(name, self._by_name)
