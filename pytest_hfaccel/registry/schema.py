"""The form of a registry file. Imported late: pydantic takes longer to import than a registry takes to read."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any

from packaging.requirements import InvalidRequirement, Requirement
from packaging.version import InvalidVersion, Version
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo, model_validator
from pydantic_core import PydanticCustomError

from pytest_hfaccel.core.results import Cause, Stage
from pytest_hfaccel.core.spec import CLASS_LEVEL, CONVERTERS, DEVICE_KINDS, DTYPES, TRAINED_ON, Weights
from pytest_hfaccel.core.tasks import TASKS


def _refuse(noun: str, allowed: Sequence[Any]) -> PydanticCustomError:
    return PydanticCustomError("not_allowed", "{noun}", {"noun": noun, "allowed": [str(name) for name in allowed]})


def _one_of(allowed: Sequence[Any], noun: str, *, wildcards: bool = False) -> AfterValidator:
    """Check a value; a wildcard must match something."""

    def check(value: Any) -> Any:
        matches = any(fnmatchcase(name, value.lower()) for name in allowed) if wildcards else value in allowed
        if not matches:
            raise _refuse(noun, allowed)
        return value

    return AfterValidator(check)


def _device(value: str, info: ValidationInfo) -> str:
    kinds = (*DEVICE_KINDS, *(info.context or {}).get("extra_kinds", ()), CLASS_LEVEL.kind)
    if not any(fnmatchcase(kind, value.partition("+")[0].partition(":")[0].lower()) for kind in kinds):
        raise _refuse("a device", kinds)
    return value


def _new_kind(value: str) -> str:
    if value in DEVICE_KINDS:
        raise _malformed("a name for a device: it is a built-in kind")
    return value


def _malformed(noun: str) -> PydanticCustomError:
    return PydanticCustomError("malformed", "{noun}", {"noun": noun})


def _like(pattern: str, noun: str) -> AfterValidator:
    def check(value: str) -> str:
        if not re.fullmatch(pattern, value):
            raise _malformed(noun)
        return value

    return AfterValidator(check)


def _readable_by(parse: Callable[[str], object], error: type[Exception], noun: str) -> AfterValidator:
    def check(value: str) -> str:
        try:
            parse(value)
        except error as problem:
            raise _malformed(noun) from problem
        return value

    return AfterValidator(check)


RepoId = Annotated[str, _like(r"\w[\w.-]*(/\w[\w.-]*)?", "a hub id such as 'gpt2' or 'openai/whisper-tiny'")]
ClassName = Annotated[str, _like(r"[A-Za-z]\w*", "a class name such as 'BertForMaskedLM'")]
PairPattern = Annotated[str, _like(r"\S+/\S+", "a model type and a class of it, such as 'opt/OPTModel' or 'opt/*'")]
Revision = Annotated[str, _like(r"\w[\w./-]*", "a branch, tag or commit")]
Folder = Annotated[str, _like(r"\w[\w-]*(/\w[\w.-]*)*", "an installed package and a folder in it: 'package/folder'")]
FileName = Annotated[str, _like(r"\w[\w.-]*(/\w[\w.-]*)*", "the name of a file below the folder")]
Sha256 = Annotated[str, _like(r"[0-9a-f]{64}", "a SHA-256 hash: 64 hexadecimal digits")]
Pinned = Annotated[
    str, _like(r"[A-Za-z0-9][\w.-]*==[0-9][\w.!+-]*", "a package with its version, such as 'rxnmapper==0.4.3'")
]
Identifier = Annotated[str, _like(r"([A-Za-z_]\w*)?", "a name in Python, or '' for none")]
ModuleName = Annotated[str, _like(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", "a package to import, such as 'torch_npu'")]
NewKind = Annotated[
    str,
    _like(r"[a-z][a-z0-9_-]*", "a kind of device in lower case, such as 'npu'"),
    AfterValidator(_new_kind),
]
Reason = Annotated[str, _like(r"(?s).*\S.*", "a reason; say why")]
Task = Annotated[str, _one_of(tuple(TASKS), "a task")]
Dtype = Annotated[str, _one_of(DTYPES, "a dtype")]
Dependency = Annotated[str, _readable_by(Requirement, InvalidRequirement, "a requirement such as 'pillow>=10'")]
Release = Annotated[str, _readable_by(Version, InvalidVersion, "a version such as '5.16'")]
Place = Annotated[
    str,
    Field(min_length=1),
    _readable_by(lambda path: Path(path).expanduser(), RuntimeError, "a path: there is no such home directory"),
]


class Entry(BaseModel):
    """A mapping whose keys are all known and whose values have exactly the type that is asked for."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Bound(Entry):
    """A bound on the transformers version."""

    version: Release
    reason: Reason


class Expect(Entry):
    """An expected failure."""

    device: Annotated[str, AfterValidator(_device)] = "*"
    dtype: Annotated[str, _one_of(DTYPES, "a dtype", wildcards=True)] = "*"
    weights: Annotated[str, _one_of(tuple(Weights), "a kind of weights", wildcards=True)] = "*"
    stage: Annotated[str, _one_of(tuple(Stage), "a stage")]
    check: str | None = None
    cause: Annotated[str, _one_of(tuple(each for each in Cause if each != Cause.UNDECIDED), "a cause")] | None = None
    run: bool = True
    reason: Reason


class PairsExpect(Expect):
    """An expected failure of classes that are not registered one by one."""

    pairs: Annotated[list[PairPattern], Field(min_length=1)]
    checks: Annotated[list[str], Field(min_length=1)] | None = None
    devices: Annotated[list[Annotated[str, AfterValidator(_device)]], Field(min_length=1)] | None = None

    @model_validator(mode="after")
    def _one_or_several(self) -> PairsExpect:
        for one, several in (("check", "checks"), ("device", "devices")):
            if {one, several} <= self.model_fields_set:
                raise PydanticCustomError(
                    "both", "has both '{one}' and '{several}'; keep one.", {"one": one, "several": several}
                )
        return self


class Package(Entry):
    """A checkpoint that an installed package carries."""

    install: Annotated[list[Pinned], Field(min_length=1)]
    folder: Folder
    sha256: Annotated[dict[FileName, Sha256], Field(min_length=1)]
    converter: Annotated[str, _one_of(CONVERTERS, "a converter")] | None = None


class ClassEntry(Entry):
    """What the models of an architecture class share."""

    task: Task | None = None
    dtypes: Annotated[list[Dtype], Field(min_length=1)] | None = None
    dependencies: list[Dependency] | None = None
    min_transformers: Bound | None = None
    max_transformers: Bound | None = None
    expect: list[Expect] | None = None


class ModelEntry(ClassEntry):
    """A model; what it leaves out comes from its class."""

    architecture: ClassName | None = None
    hub_id: RepoId | None = None
    path: Place | None = None
    package: Package | None = None
    trained: Annotated[str, _one_of(TRAINED_ON, "a data set to train on")] | None = None
    bundled: Folder | None = None
    revision: Revision | None = None
    additional_deps: list[Dependency] | None = None
    dims: dict[str, Any] | None = None
    parameters: Annotated[int, Field(gt=0)] | None = None
    requires_remote_code: bool | None = None
    gated: bool | None = None


class DeviceEntry(Entry):
    """A device of torch; see `pytest_hfaccel.core.devices.TorchDevice`."""

    module: Identifier | None = None
    package: ModuleName | None = None
    seed: Identifier | None = None
    synchronize: Identifier | None = None
    empty_cache: Identifier | None = None
    memory_allocated: Identifier | None = None
    max_memory_allocated: Identifier | None = None
    reset_peak_memory_stats: Identifier | None = None
    memory_after_run: Identifier | None = None
    mem_get_info: Identifier | None = None
    dtypes: Annotated[list[Dtype], Field(min_length=1)] | None = None
    visible_devices: list[Identifier] | None = None
    device_files: Annotated[str, _like(r"/\S+", "an absolute wildcard such as '/dev/davinci[0-9]*'")] | None = None


class RegistryFile(Entry):
    """A whole file. A model that is `null` is removed."""

    version: Annotated[int, _one_of((1,), "a version of this format")]
    classes: dict[ClassName, ClassEntry] | None = None
    models: dict[RepoId, ModelEntry | None] | None = None
    devices: dict[NewKind, DeviceEntry] | None = None
    expect: list[PairsExpect] | None = None


def entry_at(parent: tuple[str | int, ...]) -> type[Entry]:
    """Return the form of the mapping at a location, e.g. `ModelEntry` at `("models", "gpt2")`."""
    if len(parent) < 2:
        return RegistryFile
    if parent[0] == "expect":
        return PairsExpect
    if parent[0] == "devices":
        return DeviceEntry
    if len(parent) == 2:
        return ClassEntry if parent[0] == "classes" else ModelEntry
    if parent[2] == "package":
        return Package
    return Expect if parent[2] == "expect" else Bound
