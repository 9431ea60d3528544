"""Registry files -> `Registry`: several files laid over each other, field by field."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

from pytest_hfaccel.core.errors import RegistryError
from pytest_hfaccel.core.results import Stage
from pytest_hfaccel.core.spec import Expectation, ModelSpec, PackageSource, VersionBound
from pytest_hfaccel.registry.auto_classes import infer_task
from pytest_hfaccel.registry.catalog import Registry
from pytest_hfaccel.registry.devices import allowed_kinds
from pytest_hfaccel.registry.document import Document, Loc, Problem, read_document, suggest, validate, wrap_model_map

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
        extra_kinds: Device kinds of third-party backends, also allowed in `expect`.
        cache_dir: Where file contents that were found valid are remembered, so that the next start is quicker.

    Raises:
        RegistryError: With every mistake of every file.
    """
    documents = [*(read_document(path, name) for name, path in _SHIPPED.items()), *map(read_document, paths)]
    extra_kinds = (*extra_kinds, *allowed_kinds(documents))
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


class MergedFiles:
    """The entries of all files. Those with mistakes are left out, so that each mistake is reported once.

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
                checks = item.get("checks") or [item.get("check")]
                devices = item.get("devices") or [item.get("device", "*")]
                for check, device in product(checks, devices):
                    each = expectation({**item, "check": check, "device": device}, place)
                    self.expected.append((tuple(item["pairs"]), each))

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


# Where no check is named, a failing run fails its plainest one. Before `run`, an expectation covers every check.
_DEFAULT_CHECK = {Stage.RUN: "forward", Stage.COMPARE: "parity"}


class IncompleteEntryError(ValueError):
    """What the files say of a model does not suffice for a spec, or contradicts itself."""


def entry_fields(entry: Mapping[str, Any], document: Document, loc: Loc) -> dict[str, Any]:
    """Turn a valid entry into `ModelSpec` fields; `None` stays, and takes an earlier file's value away."""
    fields = {key: None if value is None else _field(key, value, document, (*loc, key)) for key, value in entry.items()}
    if "bundled" in fields:
        # The key that `package` replaced names a folder, and neither what to install nor what it must hold.
        folder, place = fields.pop("bundled"), document.place((*loc, "bundled"))
        warnings.warn(
            f"{place}: 'bundled' is now 'package', which pins version and hashes.", DeprecationWarning, stacklevel=2
        )
        fields["package"] = PackageSource(folder) if folder else None
    return fields


def _field(key: str, value: Any, document: Document, loc: Loc) -> Any:
    match key:
        case "dtypes" | "dependencies" | "additional_deps":
            return tuple(value)
        case "min_transformers" | "max_transformers":
            return VersionBound(**value)
        case "path":
            return str((document.directory / Path(value).expanduser()).resolve())
        case "package":
            return PackageSource(
                **{**value, "install": tuple(value["install"]), "converter": value.get("converter") or ""}
            )
        case "expect":
            return tuple(expectation(item, document.place((*loc, index))) for index, item in enumerate(value))
    return value


def expectation(item: Mapping[str, Any], source: str) -> Expectation:
    """Turn a valid entry of `expect` into an expectation; `source` is its `file:line`."""
    stage = Stage(item["stage"])
    runs = item.get("run", True)
    check = item.get("check") or (_DEFAULT_CHECK.get(stage, "*") if runs else "*")
    texts = {key: item.get(key, "*") for key in ("device", "dtype", "weights")}
    return Expectation(
        stage=stage, check=check, reason=item["reason"], cause=item.get("cause") or "", run=runs, source=source, **texts
    )


def without_unset(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out the fields that are `None`, so that `ModelSpec` gives them its defaults."""
    return {key: value for key, value in fields.items() if value is not None}


def build_spec(name: str, fields: Mapping[str, Any], shared: Mapping[str, Any]) -> ModelSpec:
    """Make a model of its own fields and those its class shares; dependencies and expectations add up.

    Raises:
        IncompleteEntryError: No architecture, no task, or two places that exclude each other.
    """
    if "architecture" not in fields:
        raise IncompleteEntryError("'architecture' is missing; name the transformers class.")
    if "hub_id" in fields and "path" in fields:
        raise IncompleteEntryError("'hub_id' and 'path' exclude each other.")
    elsewhere = [key for key in ("path", "package", "trained") if key in fields]
    if len(elsewhere) > 1:
        raise IncompleteEntryError(f"{elsewhere[0]!r} and {elsewhere[1]!r} exclude each other.")
    # A package that only `bundled` names is another way to a model of the hub, as it always was.
    on_hub = not elsewhere or (elsewhere == ["package"] and not fields["package"].install)
    merged = {"hub_id": name if on_hub else "", **shared, **fields}
    own = {**fields, "dependencies": (*fields.get("dependencies", ()), *merged.pop("additional_deps", ()))}
    for key in ("dependencies", "expect"):
        merged[key] = tuple(dict.fromkeys((*shared.get(key, ()), *own.get(key, ()))))
    task = merged.get("task") or infer_task(merged["architecture"], merged.get("dims", {}))
    if task is None:
        raise IncompleteEntryError(f"'task' is missing, and it is not known for {merged['architecture']!r}.")
    return ModelSpec(**{**merged, "name": name, "task": task})
