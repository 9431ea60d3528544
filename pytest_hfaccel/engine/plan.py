"""The plan of a run: its models, devices and weights, and their cells. Made once, by the process that starts it."""

from __future__ import annotations

import os
import pickle
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pytest_hfaccel.core.config import RunConfig, expand_path
from pytest_hfaccel.core.devices import PARALLEL_MODES, kind_named, parallel_mode
from pytest_hfaccel.core.errors import ConfigError
from pytest_hfaccel.core.presence import hardware_of_cluster
from pytest_hfaccel.core.spec import CLASS_LEVEL, CPU, DTYPES, Cell, Device, ModelSpec, WeightsChoice

if TYPE_CHECKING:
    from pytest_hfaccel.backends import Backends
    from pytest_hfaccel.checkpoints import CheckpointStore
    from pytest_hfaccel.checks.base import Check
    from pytest_hfaccel.engine.resume import EarlierRun
    from pytest_hfaccel.registry import Registry


@dataclass
class Plan:
    """The decisions of a run.

    Attributes:
        config: What the user asked for.
        devices: The devices to test on, in order.
        absent: Reason by id of each device that is known but not here.
        named: The models the user named, resolved.
        weights: The weights of each named model, by model name.
        alternatives: By kind of which some device was asked for, not a certain one: the targets of all that are here,
            the one with the most free memory first. Each worker has one of them.
        earlier: The run before this one; see `pytest_hfaccel.engine.resume`.
    """

    config: RunConfig
    devices: list[Device]
    absent: dict[str, str] = field(default_factory=dict)
    named: list[ModelSpec] = field(default_factory=list)
    weights: dict[str, WeightsChoice] = field(default_factory=dict)
    alternatives: dict[str, list[str]] = field(default_factory=dict)
    earlier: EarlierRun | None = None

    def to_bytes(self) -> bytes:
        """Serialise the plan for a worker of the same run."""
        return pickle.dumps(self)

    @classmethod
    def from_bytes(cls, data: bytes) -> Plan:
        """Read what `to_bytes` wrote. The bytes come from the process that started this one, from nowhere else."""
        plan = pickle.loads(data)  # noqa: S301
        assert isinstance(plan, cls)  # noqa: S101
        return plan

    def cells(self, specs: Sequence[ModelSpec], store: CheckpointStore) -> list[Cell]:
        """Span the matrix over some models, resolving the weights of those that were not named."""
        for spec in specs:
            if spec.name not in self.weights:
                self.weights[spec.name] = store.choose(spec, self.config.weights, named=False)
        return expand_matrix(specs, self.devices, self.config.dtypes, lambda spec: self.weights[spec.name])


def make_plan(config: RunConfig, registry: Registry, store: CheckpointStore, backends: Backends | None = None) -> Plan:
    """Decide what a run collects.

    Args:
        config: What the user asked for.
        registry: The models that are known.
        store: Where weights come from; asked for the models the user named.
        backends: The backends of the run (default: the built-in ones and those from entry points).

    Raises:
        ConfigError: A dtype, device or model that cannot be, a required device that is not here, a directory for
            reports that cannot be one, or a run that cannot be resumed.
        RegistryError: A registry file with mistakes.
        HubError: The class of an unregistered model was needed from the hub, and the hub did not answer.
    """
    from pytest_hfaccel.backends import Backends
    from pytest_hfaccel.engine.resume import earlier_run
    from pytest_hfaccel.hardware import probe_devices
    from pytest_hfaccel.registry import resolve_model, with_distinct_ids
    from pytest_hfaccel.reporting.costs import parse_prices

    require_dtypes(config.dtypes, "--hf-dtype")
    for name in ("batch_sizes", "seq_lengths", "prices"):
        if getattr(config, name) and not config.performance:
            raise ConfigError(
                f"{config.source_of(name)} is about what is measured, but performance is not measured.",
                hint="Add --hf-performance, or leave it out.",
            )
    if config.baseline_fail_on and not config.baseline:
        raise ConfigError(
            f"{config.source_of('baseline_fail_on')} is about a comparison, but the run is compared with nothing.",
            hint="Add --hf-baseline RUN, or leave it out.",
        )
    parse_prices(config.prices, config.source_of("prices"))  # refused now, not when the reports are written
    if config.pool_memory:
        from pytest_hfaccel.pool.budget import parse_budget

        parse_budget(config.pool_memory)  # refused now, not when the first model is loaded
    if config.ledger:
        from pytest_hfaccel.pool.ledger import Ledger

        Ledger(expand_path(config.ledger, "HFACCEL_LEDGER")).close()
    backends = Backends() if backends is None else backends
    asked = [Device.parse(text, backends.kinds()) for text in config.devices]
    report = hardware_of_cluster() or probe_devices(backends=backends)
    absent = {presence.device.id: presence.reason for presence in report.absent()}
    found = {device: report.find(device) for device in asked}
    # A backend without `probe` counts as having the device that is asked for until it says no.
    there = [device for device, presence in found.items() if presence is None or presence.present]
    _require(config, list(dict.fromkeys([*report.present(), *there])), absent)
    _require_directory(config)
    devices = asked or (report.present() if config.all_hardware else [report.best()])
    if config.parallel:
        devices = split_over(devices, config.parallel, are_named=bool(asked))
    plan = Plan(config, list(dict.fromkeys(devices)), absent)
    if not (config.all_hardware and not asked):
        certain = {device.kind for text, device in zip(config.devices, asked, strict=True) if ":" in text}
        plan.alternatives = _alternatives({device.kind for device in devices} - certain, report.present())
    plan.named = with_distinct_ids(spec for name in config.models for spec in resolve_model(name, registry))
    for spec in plan.named:
        plan.weights[spec.name] = store.choose(spec, config.weights, named=True)
    plan.earlier = earlier_run(config.reports_dir, resume=config.resume[-1] if config.resume else "")
    return plan


def _alternatives(kinds: Iterable[str], present: Sequence[Device]) -> dict[str, list[str]]:
    """Return the targets of the devices of some kinds, where there are several, the most free memory first."""
    from pytest_hfaccel.core.devices import kind_named
    from pytest_hfaccel.hardware.nvidia import read_free_memory

    found = {}
    for kind in kinds:
        targets = [device.target for device in present if device.kind == kind]
        if kind_named(kind).is_indexed and len(targets) > 1:
            free = read_free_memory() if kind == "cuda" else []
            known = {str(index): nbytes or 0 for index, nbytes in enumerate(free)}
            found[kind] = sorted(targets, key=lambda target: -known.get(target, 0))
    return found


def require_dtypes(dtypes: Iterable[str], place: str) -> None:
    """Refuse what is not a dtype, with a `ConfigError` that begins with `place`."""
    for dtype in dtypes:
        if dtype not in DTYPES:
            raise ConfigError(f"{place}: {dtype!r} is not a dtype. Allowed: {', '.join(DTYPES)}.")


WHOLE = "none"
"""The mode of `--hf-parallel` in which models are whole."""


def split_over(devices: Sequence[Device], modes: Iterable[str], *, are_named: bool) -> list[Device]:
    """Return the devices of a run with `--hf-parallel`.

    Args:
        devices: Those of the run.
        modes: What the user asked for, e.g. `tp=2`, `none`.
        are_named: Whether the user named the devices. Where they were found, models are split over the first of each
            kind and its neighbours, and over none that cannot be split over.

    Raises:
        ConfigError: A mode that there is not, or no device that models can be split over.
    """
    split: list[Device] = []
    for mode in modes:
        if mode.lower() == WHOLE:
            split += devices
            continue
        if not parallel_mode(mode):
            raise ConfigError(f"--hf-parallel: {mode!r} is not allowed. Allowed: {PARALLEL_MODES}, {WHOLE}.")
        of_torch = {device: kind_named(device.kind) for device in devices if device == device.eager}
        fit = [device for device, row in of_torch.items() if row.backend == "torch"]
        others = [device.id for device in devices if device not in fit]
        if not fit or (are_named and others):
            raise ConfigError(
                f"--hf-parallel {mode}: models cannot be split over {', '.join(others)}.",
                hint="Name devices of torch with --hf-device, such as cpu or cuda:0.",
            )
        first = {device.kind: device for device in reversed(fit)}
        split += [Device.parse(f"{device}+{mode}") for device in fit if are_named or first[device.kind] == device]
    return split


def _require_directory(config: RunConfig) -> None:
    """Refuse a directory for reports that cannot be one before the run, not after hours."""
    for folder in (config.reports_dir, *config.reports_dir.parents):
        if folder.exists():
            if not folder.is_dir():
                raise ConfigError(
                    f"--hf-reports {config.reports}: {folder} is a file.",
                    hint="Reports go to a directory: remove the file, or name another with --hf-reports.",
                )
            if not os.access(folder, os.W_OK | os.X_OK):
                raise ConfigError(
                    f"--hf-reports {config.reports}: this user may not write to {folder}.",
                    hint="Change its permissions, or name another directory with --hf-reports.",
                )
            return


def _require(config: RunConfig, present: Sequence[Device], absent: dict[str, str]) -> None:
    for pattern in config.require:
        if not any(device.matches(pattern) for device in present):
            known = [
                f"{name}: {reason}" for name, reason in absent.items() if name.startswith(re.split("[:+]", pattern)[0])
            ]
            here = ", ".join(device.id for device in present)
            raise ConfigError(
                f"--hf-require-device {pattern}: it is not on this machine. {' '.join(known)}".rstrip(),
                hint=f"Devices here: {here}. `hfaccel hardware` says more.",
            )


def expand_matrix(
    specs: Iterable[ModelSpec],
    devices: Sequence[Device],
    dtypes: Sequence[str],
    weights_of: Callable[[ModelSpec], WeightsChoice],
) -> list[Cell]:
    """Span the matrix.

    Args:
        specs: The models, in the order in which they are to run.
        devices: The devices; the CPU is put first, because the reference is computed on it.
        dtypes: The dtypes the user asked for; when empty, each model's own list.
        weights_of: The weights a model runs with.

    Returns:
        The cells, a model's cells side by side.

    Raises:
        ConfigError: Two models have the same slug, so that their cells' ids would collide.
    """
    ordered = sorted(devices, key=lambda device: device != CPU)
    slugs: dict[str, str] = {}
    cells = []
    for spec in specs:
        if slugs.setdefault(spec.slug, spec.name) != spec.name:
            raise ConfigError(
                f"{spec.name!r} and {slugs[spec.slug]!r} both get the id {spec.slug!r}; rename one of them."
            )
        weights = weights_of(spec)
        cells += [Cell(spec, device, dtype, weights) for device in ordered for dtype in (dtypes or spec.dtypes)]
    return cells


def class_level(cells: Iterable[Cell]) -> list[Cell]:
    """Return one class-level cell per model among `cells`, in order."""
    found: dict[str, Cell] = {}
    for cell in cells:
        found.setdefault(cell.model.name, Cell(cell.model, CLASS_LEVEL, "fp32", cell.weights))
    return list(found.values())


def has_check(cell: Cell, check: Check, config: RunConfig) -> bool:
    """Whether a run has a check on a cell: it applies to the cell, and its option, if it has one, is set."""
    level = "class" if cell.device == CLASS_LEVEL else "cell"
    return check.level == level and check.is_asked_for(config) and check.applies(cell)
