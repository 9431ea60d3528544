"""Valid entries -> `ModelSpec`."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pytest_hfaccel.core.results import Stage
from pytest_hfaccel.core.spec import Expectation, ModelSpec, PackageSource, VersionBound
from pytest_hfaccel.registry.architectures import infer_task
from pytest_hfaccel.registry.document import Document
from pytest_hfaccel.registry.problem import Loc

# Where no check is named, a failing run fails its plainest one. Before `run`, an expectation covers every check.
_DEFAULT_CHECK = {Stage.RUN: "forward", Stage.COMPARE: "parity"}


class IncompleteEntryError(ValueError):
    """What the files say of a model does not suffice for a spec, or contradicts itself."""


def entry_fields(entry: Mapping[str, Any], document: Document, loc: Loc) -> dict[str, Any]:
    """Turn a valid entry into `ModelSpec` fields; `None` stays, and takes an earlier file's value away."""
    fields = {key: None if value is None else _field(key, value, document, (*loc, key)) for key, value in entry.items()}
    if "bundled" in fields:
        fields["package"] = _unpinned(fields.pop("bundled"), document.place((*loc, "bundled")))
    return fields


def _unpinned(folder: str | None, place: str) -> PackageSource | None:
    """Read the key that `package` replaced: it names a folder, and neither what to install nor what it must hold."""
    warnings.warn(
        f"{place}: 'bundled' is now 'package', which pins version and hashes.", DeprecationWarning, stacklevel=2
    )
    return PackageSource(folder) if folder else None


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
        raise IncompleteEntryError(f"'task' is missing, and nothing tells that of {merged['architecture']!r}.")
    return ModelSpec(**{**merged, "name": name, "task": task})
