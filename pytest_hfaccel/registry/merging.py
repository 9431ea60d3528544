"""Several registry files laid over each other, field by field."""

from __future__ import annotations

from typing import Any

from pytest_hfaccel.core.spec import Expectation, ModelSpec
from pytest_hfaccel.registry.building import IncompleteEntryError, build_spec, entry_fields, expectation, without_unset
from pytest_hfaccel.registry.document import Document
from pytest_hfaccel.registry.problem import Loc, Problem, suggest


class MergedFiles:
    """The entries of all files. Those with mistakes are left out, so that each mistake is told once.

    Attributes:
        classes: Per architecture class the fields its models share.
        expected: The expected failures of unregistered classes, each with the pairs it is about.
        problems: The mistakes of all files.
        unresolved: Entries of model maps whose class no file names: it is learned from the model's config.json.
    """

    def __init__(self) -> None:
        self.classes: dict[str, dict[str, Any]] = {}
        self.expected: list[tuple[tuple[str, ...], Expectation]] = []
        self.problems: list[Problem] = []
        self.unresolved: dict[str, dict[str, Any]] = {}
        self._models: dict[str, dict[str, Any]] = {}
        self._places: dict[str, tuple[Document, Loc]] = {}
        self._broken: set[Loc] = set()

    def add(self, document: Document) -> None:
        """Lay a validated document over what is there."""
        self.problems += document.problems
        broken = {problem.loc[:2] for problem in document.problems}
        self._broken |= broken
        if not isinstance(document.data, dict) or broken & {("classes",), ("models",), ("expect",)}:
            return
        for name, entry in (document.data.get("classes") or {}).items():
            if ("classes", name) not in broken:
                self.classes.setdefault(name, {}).update(entry_fields(entry, document, ("classes", name)))
        for name, entry in (document.data.get("models") or {}).items():
            if ("models", name) not in broken:
                self._add_model(name, entry, document)
        for index, item in enumerate(document.data.get("expect") or ()):
            if ("expect", index) not in broken:
                place = document.place(("expect", index))
                for check in item.get("checks") or [item.get("check")]:
                    self.expected.append((tuple(item["pairs"]), expectation({**item, "check": check}, place)))

    def _add_model(self, name: str, entry: dict[str, Any] | None, document: Document) -> None:
        loc = ("models", name)
        if entry is not None:
            fields = entry_fields(entry, document, loc)
            self._models.setdefault(name, {}).update(fields, source=document.place(loc))
            self._places[name] = (document, loc)
        elif self._models.pop(name, None) is None and loc not in self._broken:
            self._note(document, loc, f"there is no such model to remove.{suggest(name, self._models)}")

    def build(self) -> tuple[ModelSpec, ...]:
        """Make the specs, noting what only the merged entries show to be wrong."""
        specs: dict[str, ModelSpec] = {}
        for name, fields in self._models.items():
            architecture = fields.get("architecture")
            if ("models", name) in self._broken or ("classes", architecture) in self._broken:
                continue
            if architecture is None and self._places[name][0].is_model_map:
                self.unresolved[name] = without_unset(fields)
                continue
            shared = without_unset(self.classes.get(str(architecture), {}))
            consent = {"remote_code_registered": bool(fields.get("requires_remote_code"))}
            try:
                spec = build_spec(name, without_unset({**fields, **consent}), shared)
            except IncompleteEntryError as flaw:
                near = suggest(str(architecture), self.classes) if architecture not in self.classes else ""
                self._note(*self._places[name], f"{flaw}{near if architecture else ''}")
                continue
            other = specs.setdefault(spec.slug, spec)
            if other is not spec:
                text = f"its tests would be called {spec.slug!r}, like those of {other.name!r}; rename one."
                self._note(*self._places[name], text)
        return tuple(specs.values())

    def _note(self, document: Document, loc: Loc, text: str) -> None:
        self.problems.append(Problem(document.file, document.line(loc), loc, text))
