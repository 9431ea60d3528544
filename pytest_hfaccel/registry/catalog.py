"""The models that are known, by name."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from functools import cached_property
from typing import Any

from pytest_hfaccel.core.errors import ConfigError
from pytest_hfaccel.core.spec import Expectation, ModelSpec
from pytest_hfaccel.registry.document import not_allowed, suggest

_WILDCARD = re.compile(r"[*?\[]")

_OF_EVERY_PAIR = ("dependencies", "expect", "min_transformers", "max_transformers")
"""What a class's entry says that also holds for the class as transformers' tables name it."""


@dataclass(frozen=True)
class Registry:
    """What the registry files say.

    Attributes:
        specs: The models; those of a class with the class's default first.
        classes: Per architecture class the `ModelSpec` fields all its models share, also those not registered.
        expected: The expected failures of classes that are not registered: wildcards over pairs, and what fails.
        unresolved: `ModelSpec` fields by hub id, of models whose class only their config.json tells.
    """

    specs: tuple[ModelSpec, ...]
    classes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    expected: tuple[tuple[tuple[str, ...], Expectation], ...] = ()
    unresolved: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @cached_property
    def _by_name(self) -> dict[str, ModelSpec]:
        return {spec.name: spec for spec in self.specs}

    @cached_property
    def _expected_of(self) -> tuple[dict[str, list[Expectation]], list[tuple[str, Expectation]]]:
        """The expected failures by pair, and those of wildcards."""
        exact: dict[str, list[Expectation]] = {}
        wild: list[tuple[str, Expectation]] = []
        for names, expectation in self.expected:
            for name in names:
                if is_wildcard(name):
                    wild.append((name, expectation))
                else:
                    exact.setdefault(name, []).append(expectation)
        return exact, wild

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

    def informed(self, pairs: Iterable[ModelSpec]) -> list[ModelSpec]:
        """Return classes of the installed transformers with what the files say of them: needs, expected failures."""
        exact, wild = self._expected_of
        informed = []
        for spec in pairs:
            shared = self.classes.get(spec.architecture, {})
            known = {key: shared[key] for key in _OF_EVERY_PAIR if key in shared}
            about = [*exact.get(spec.name, ()), *(each for name, each in wild if fnmatchcase(spec.name, name))]
            changes = {**known, "expect": (*known.get("expect", ()), *about)} if known or about else {}
            informed.append(replace(spec, **changes) if changes else spec)
        return informed

    def unknown_checks(self, known: Iterable[str]) -> list[str]:
        """Say which expected failures are of a check that is none of the `known`: nothing would ever meet them."""
        known = tuple(known)
        of_models = (expectation for spec in self.specs for expectation in spec.expect)
        of_classes = (expectation for shared in self.classes.values() for expectation in shared.get("expect", ()))
        every = dict.fromkeys((*of_models, *of_classes, *(expectation for _, expectation in self.expected)))
        return [
            f"{expectation.source}: check: {not_allowed(expectation.check, 'a check', known)}"
            for expectation in every
            if expectation.check not in ("", "*", *known)
        ]

    def suggest(self, name: str) -> str:
        """Return ` Did you mean 'x'?` for the registered name nearest to `name`, or nothing."""
        return suggest(name, self._by_name)


def is_wildcard(name: str) -> bool:
    """Whether a name stands for all that match it."""
    return _WILDCARD.search(name) is not None
