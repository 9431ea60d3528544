"""Do the checks catch known defects? Plants them on the devices of this machine.

A green matrix says that no check failed; whether a check can fail on this hardware it does not say. The self-test runs
right models first, which must pass, and then the same with one defect after the other (`defects.DEFECTS`), of which
each must make the checks fail that are named with it. Then the judges themselves are made wrong (`JUDGES`: a loose
tolerance, a reference of the device's own, checks that do nothing): with each of them a defect must get past, or this
self-test could not tell a wrong judge from a right one.

It drives the same `Runner` as the matrix does, with backends that load what is wrong.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, cast

from pytest_hfaccel.backends import Backends
from pytest_hfaccel.checks import built_in_checks
from pytest_hfaccel.checks.base import CheckRegistry, passed
from pytest_hfaccel.checks.planted import Planted
from pytest_hfaccel.core.devices import TORCH_KINDS
from pytest_hfaccel.core.errors import ConfigError, DeviceCrashed, first_line
from pytest_hfaccel.core.results import CheckOutcome, Status
from pytest_hfaccel.core.spec import CLASS_LEVEL, Cell, Device, ModelSpec, Weights, WeightsChoice
from pytest_hfaccel.core.threads import SharedCores
from pytest_hfaccel.engine.runner import Runner
from pytest_hfaccel.numerics import tolerances
from pytest_hfaccel.selftest.defects import BERT, DEFECTS, GPT2, Defect, NotPlanted

if TYPE_CHECKING:
    from typing import Self

    from pytest_hfaccel.backends.base import Backend, LoadedModel, ModelSource
    from pytest_hfaccel.core.config import RunConfig
    from pytest_hfaccel.numerics.reference import Reference

__all__ = ["BLIND_SPOTS", "DEFECTS", "JUDGES", "Found", "Verdict", "self_test", "self_test_in_processes"]

BLIND_SPOTS = (
    "It runs two tiny models of one layer (BERT, GPT-2) in fp32: only the matrix shows defects of one operator, class, "
    "precision or size.",
    "A defect smaller than the tolerance passes, and so does one that the reference (torch's CPU in fp64) has, too, "
    "for example in transformers' own code.",
    "A runtime that reports one device and computes correctly on another is not caught; on torch devices the tensors "
    "themselves are inspected.",
    "Converted models are compared with the reference, not with the files: a wrong weight that does not change the "
    "outputs is not caught there.",
    "task_sense, checks that need an option (performance, training, attention, compile) and your own checks are not "
    "tried; nor are times, reports, resuming and parallel runs, which this project tests otherwise.",
)
"""What a green self-test does not say."""


class Found(StrEnum):
    """The result for a defect, or (`PASSED`, `WRONG`) for a correct model."""

    CAUGHT = "caught"
    PASSED = "passed"
    MISSED = "NOT CAUGHT"
    WRONG = "FAILED"
    NOT_PLANTED = "NOT PLANTED"
    NOT_TRIED = "not tried"
    """The checks skip this device, and say why."""


@dataclass(frozen=True)
class Verdict:
    """The result for one defect on one device.

    Attributes:
        defect: Its name; the model's name for a correct model.
        where: Where it was planted; `nothing` for a correct model.
        device: The device's id; `class` for the checks of a class.
        found: The result.
        by: The checks that caught it, or those that missed it.
        detail: The first line of their reason.
        seconds: Wall-clock time.
    """

    defect: str
    where: str
    device: str
    found: Found
    by: tuple[str, ...]
    detail: str
    seconds: float = 0.0

    @property
    def is_bad(self) -> bool:
        """Whether it makes the self-test red."""
        return self.found in (Found.MISSED, Found.WRONG, Found.NOT_PLANTED)


def _is_about(defect: Defect, device: Device) -> bool:
    """Whether a device can have a defect; a compiled one those that every device of torch can have."""
    if device.compiler:
        return not defect.kinds or defect.kinds.issuperset(TORCH_KINDS)
    return not defect.kinds or device.kind in defect.kinds


def self_test(config: RunConfig, devices: Sequence[Device], checks: CheckRegistry | None = None) -> Iterator[Verdict]:
    """Try every defect on every device; yield each verdict as soon as it is known.

    Args:
        config: The cache directory and the like; its models, devices and dtypes are ignored.
        devices: Where to plant them.
        checks: The battery; by default the built-in one.

    Raises:
        ConfigError: There is no device, or one that computes nothing.
    """
    _refuse_unreal(devices)
    battery = checks if checks is not None else built_in_checks()
    for number, device in enumerate(devices):
        yield from _on_device(config, device, battery, is_first=number == 0)


def self_test_in_processes(config: RunConfig, devices: Sequence[Device], workers: int) -> Iterator[Verdict]:
    """As `self_test` with the built-in checks, several devices at a time, each in a process of its own.

    Yields:
        The verdicts of a device together, once all of them are known.

    Raises:
        ConfigError: As `self_test`.
        DeviceCrashed: A process died.
    """
    _refuse_unreal(devices)
    cores = SharedCores(max(1, (os.cpu_count() or 1) // workers))
    cores.apply()  # the processes take it from the environment
    try:
        spawn = multiprocessing.get_context("spawn")
        # A device each: a runtime that was loaded for one device would share the memory of the next one's checks.
        with ProcessPoolExecutor(workers, mp_context=spawn, max_tasks_per_child=1) as pool:
            # Those that cost most begin, so that no process is left with one of them at the end.
            order = sorted(devices, key=lambda device: not device.traits.default_model_only)
            running = [pool.submit(_verdicts_of, config, device, is_first=device == devices[0]) for device in order]
            for done in as_completed(running):
                try:
                    yield from done.result()
                except BrokenProcessPool as error:
                    raise DeviceCrashed(
                        "A process of the self-test died; what is not printed above is not known.",
                        hint="Run `hfaccel selftest --device X` for each device to see which one it was.",
                    ) from error
    finally:
        cores.undo()


def _verdicts_of(config: RunConfig, device: Device, *, is_first: bool) -> list[Verdict]:
    return list(_on_device(config, device, built_in_checks(), is_first=is_first))


def _refuse_unreal(devices: Sequence[Device]) -> None:
    unreal = [device.id for device in devices if device.kind == "fake"]
    if unreal or not devices:
        raise ConfigError(
            f"{', '.join(unreal) or 'no device'}: there is nothing to test on.",
            hint="Name a device that computes, such as cpu; `hfaccel hardware` lists those of this machine.",
        )


def _on_device(config: RunConfig, device: Device, checks: CheckRegistry, *, is_first: bool) -> Iterator[Verdict]:
    with KeptModels() as kept:
        yield from _on_bench(Bench(config, device, checks, kept=kept), is_first=is_first)


def _on_bench(bench: Bench, *, is_first: bool) -> Iterator[Verdict]:
    device = bench.device
    # What is wrong with the files or the class is wrong on every device alike.
    defects = [defect for defect in DEFECTS if _is_about(defect, device) and (is_first or not defect.is_anywhere)]
    right = [
        bench.right(model, [name for d in defects if d.model.name == model.name for name in d.caught_by])
        for model in (BERT, GPT2)
    ]
    yield from right
    if any(verdict.is_bad for verdict in right):
        return  # a check that fails on a right model has caught nothing
    for defect in defects:
        yield bench.wrong(defect)
    for judge in JUDGES:
        yield judge.tried(bench, defects)


class KeptModels:
    """Converted models, each loaded once for all that is planted around it, until the end of a `with` block.

    To open a model takes seconds on some runtimes, and most defects change nothing inside it. Models of torch are
    loaded each time: that is quick, and nobody then has to know that a check leaves them as they were.
    """

    def __init__(self) -> None:
        self._models: dict[tuple[Hashable, str], LoadedModel] = {}

    def load(self, backend: Backend, cell: Cell, source: ModelSource) -> LoadedModel:
        """As `Backend.load`; what is returned stays open when it is closed."""
        if not cell.device.traits.exported:
            return backend.load(cell, source)
        key = (cell.key, source.fingerprint)
        if key not in self._models:
            self._models[key] = backend.load(cell, source)
        return cast("LoadedModel", Planted(self._models[key], close=lambda: None))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        for loaded in self._models.values():
            loaded.close()


@dataclass(frozen=True)
class Bench:
    """Runs a correct model, or one with a defect, on one device.

    Attributes:
        config: As for `self_test`.
        device: The device.
        checks: The battery.
        runner: What runs the cells; a broken judge replaces it.
        planted: What loads the models; likewise.
        kept: The models that are loaded already, for whoever closes them.
    """

    config: RunConfig
    device: Device
    checks: CheckRegistry
    runner: type[Runner] = Runner
    planted: type[PlantedBackends] = field(default_factory=lambda: PlantedBackends)
    kept: KeptModels = field(default_factory=KeptModels)

    def right(self, model: ModelSpec, names: Sequence[str]) -> Verdict:
        """Run a model as it is, which must pass."""
        started = time.perf_counter()
        with self._running(Backends()) as runner:
            outcomes = []
            for level in (CLASS_LEVEL, self.device):
                run = runner.open(_cell(model, level))
                applying = {check.name for check in runner.checks_of(run.cell)}
                outcomes += [run.check(name) for name in dict.fromkeys(names) if name in applying]
                run.close()
        bad = [outcome for outcome in outcomes if outcome.status.is_bad or outcome.status == Status.UNAVAILABLE]
        return Verdict(
            f"{model.architecture} as it is",
            "nothing",
            self.device.id,
            Found.WRONG if bad or not outcomes else Found.PASSED,
            tuple(outcome.name for outcome in bad or outcomes),
            first_line(bad[0].reason) if bad else "",
            time.perf_counter() - started,
        )

    def wrong(self, defect: Defect) -> Verdict:
        """Plant a defect, and run the checks that must catch it."""
        started = time.perf_counter()
        backends = self.planted(defect, self.device, self.kept)
        device = CLASS_LEVEL if defect.level == "class" else self.device
        with self._running(backends) as runner, tempfile.TemporaryDirectory(prefix="hfaccel-") as folder:
            cell = _cell(defect.model, device)
            if defect.files is not None:
                try:
                    cell = _edited(runner, cell, Path(folder), defect.files)
                except NotPlanted as error:
                    backends.problem = str(error)
            run = runner.open(cell)
            outcomes = [] if backends.problem else [run.check(name) for name in defect.caught_by]
            run.close()
        found, by, detail = _judged(defect, outcomes, backends, device)
        return Verdict(defect.name, defect.where, device.id, found, by, detail, time.perf_counter() - started)

    @contextmanager
    def _running(self, backends: Backends) -> Iterator[Runner]:
        from pytest_hfaccel.upstream.transformers import quiet

        runner = self.runner(self.config, checks=self.checks, backends=backends)
        try:
            with quiet:
                yield runner
        finally:
            runner.close()


class PlantedBackends(Backends):
    """The backends of this machine, of which that of one device loads models with a defect.

    The reference is loaded separately and stays right: if it shared the loading of what it judges, it would share the
    defect.

    Attributes:
        used: How often the defect was planted.
        problem: Why it could not be planted; empty if it could.
    """

    def __init__(self, defect: Defect, device: Device, kept: KeptModels) -> None:
        super().__init__()
        self._defect, self._device, self._kept = defect, device, kept
        self.used = 0 if defect.load else 1
        self.problem = ""

    def for_kind(self, kind: str) -> Backend:
        """Return the backend of a device kind, with the defect in what it loads."""
        backend = super().for_kind(kind)
        return cast("Backend", Planted(backend, load=lambda cell, source: self._load(backend, cell, source)))

    def _load(self, backend: Backend, cell: Cell, source: ModelSource) -> LoadedModel:
        load = partial(self._kept.load, backend) if cell.device == self._device else backend.load
        if self._defect.load is None or self._is_right(cell, source):
            return load(cell, source)
        try:
            wrong = self._defect.load(load, cell, source)
        except NotPlanted as error:
            self.problem = str(error)
            raise
        self.used += 1
        return wrong

    def _is_right(self, cell: Cell, source: ModelSource) -> bool:
        """Whether a load gets no defect."""
        from pytest_hfaccel.checkpoints.checkpoint import ReferenceSource

        return cell.device != self._device or isinstance(source, ReferenceSource)


def _cell(model: ModelSpec, device: Device) -> Cell:
    return Cell(model, device, "fp32", WeightsChoice(Weights.TINY, "self-test"))


def _edited(runner: Runner, cell: Cell, folder: Path, edit: Callable[[Path], None]) -> Cell:
    """Copy the cell's checkpoint, edit the copy, and return the cell of the copy."""
    from pytest_hfaccel.core.files import MANIFEST

    directory = folder / cell.model.name
    shutil.copytree(runner.checkpoint(cell).directory, directory, ignore=shutil.ignore_patterns(MANIFEST))
    edit(directory)
    runner.store.cache_dir = folder / "cache"  # nothing that is made of it is of use later
    model = replace(cell.model, name=f"{cell.model.name}-edited", path=str(directory))
    return replace(cell, model=model, weights=WeightsChoice(Weights.PRETRAINED, "self-test", str(directory)))


def _judged(
    defect: Defect, outcomes: Sequence[CheckOutcome], backends: PlantedBackends, device: Device
) -> tuple[Found, tuple[str, ...], str]:
    if backends.problem:
        return Found.NOT_PLANTED, (), backends.problem
    blind = [outcome for outcome in outcomes if not outcome.status.is_bad]
    skipped = [outcome for outcome in blind if outcome.status == Status.SKIPPED]
    if skipped and skipped == blind and not device.traits.torch_module:
        return Found.NOT_TRIED, tuple(outcome.name for outcome in skipped), first_line(skipped[0].reason)
    if blind:
        return Found.MISSED, tuple(outcome.name for outcome in blind), f"{blind[0].status}: {blind[0].reason or ''}"
    if not backends.used:
        return Found.NOT_PLANTED, (), f"no model was loaded with it, yet {outcomes[0].reason}"
    beside = [outcome for outcome in outcomes if defect.because not in (outcome.reason or "")]
    if beside:
        detail = f"for another reason than {defect.because!r}: {first_line(beside[0].reason)}"
        return Found.MISSED, tuple(outcome.name for outcome in beside), detail
    return Found.CAUGHT, defect.caught_by, first_line(outcomes[0].reason)


@dataclass(frozen=True)
class Judge:
    """A broken judge, and the defects that get past it.

    Attributes:
        name: What is wrong with it.
        where: Which judge.
        planted: Makes a bench with that judge; raises `NotPlanted` where it judges as before.
        passes: Names of the defects that must get past it.
    """

    name: str
    where: str
    planted: Callable[[Bench], AbstractContextManager[Bench]]
    passes: tuple[str, ...]

    def tried(self, bench: Bench, defects: Sequence[Defect]) -> Verdict:
        """Let it judge the defects that must get past it."""
        started = time.perf_counter()
        chosen = [defect for defect in defects if defect.name in self.passes]
        found, detail = Found.CAUGHT, ""
        try:
            with self.planted(bench) as wrong:
                for defect in chosen:
                    verdict = wrong.wrong(defect)
                    detail = f"by this self-test: {defect.name!r} gets past {', '.join(verdict.by)}"
                    if verdict.found not in (Found.MISSED, Found.NOT_TRIED):
                        found, detail = Found.MISSED, f"{defect.name!r} is {verdict.found} as before: {verdict.detail}"
                        break
        except NotPlanted as error:
            found, detail = Found.NOT_PLANTED, str(error)
        if not chosen:
            found, detail = Found.NOT_PLANTED, f"there are no defects {', '.join(self.passes)}"
        seconds = time.perf_counter() - started
        return Verdict(self.name, self.where, bench.device.id, found, ("selftest",), detail, seconds)


@contextmanager
def _tolerance(factor: float, bench: Bench) -> Iterator[Bench]:
    """Make the tolerances of fp32 larger, by an entry in the table of classes that need more."""
    cell = _cell(BERT, bench.device)
    row = tolerances.tolerance_of(cell)
    wide = tolerances.NeedsMore("*", "*", factor * row.rel_l2, factor * (row.atol or 0.0), "self-test")
    before = tolerances.NEEDS_MORE
    tolerances.NEEDS_MORE = (wide,)
    try:
        if not tolerances.tolerance_of(cell).rel_l2 >= factor * row.rel_l2:
            raise NotPlanted("an entry in NEEDS_MORE does not change the tolerance")
        yield bench
    finally:
        tolerances.NEEDS_MORE = before


class _OwnReference(Runner):
    """Uses the outputs of the cell's device as the reference."""

    def reference(self, cell: Cell) -> Reference:
        """Return the reference with the device's outputs in it."""
        from pytest_hfaccel.numerics.positions import real_positions

        inputs = self.checkpoint(cell).sample().forward
        with self.pool.lease(cell) as loaded:
            outputs = {name: leaf.double() for name, leaf in loaded.forward(inputs).items()}
        found = Planted(super().reference(cell), outputs=outputs, real_outputs=real_positions(outputs, inputs))
        return cast("Reference", found)


@contextmanager
def _own_reference(bench: Bench) -> Iterator[Bench]:
    yield replace(bench, runner=_OwnReference)


class _PlantedEverywhere(PlantedBackends):
    """Plants the defect in the reference as well."""

    def _is_right(self, cell: Cell, source: ModelSource) -> bool:  # noqa: ARG002 - none is
        return False


@contextmanager
def _shared_loading(bench: Bench) -> Iterator[Bench]:
    yield replace(bench, planted=_PlantedEverywhere)


@contextmanager
def _idle_checks(names: Sequence[str], bench: Bench) -> Iterator[Bench]:
    """Have some checks pass without doing anything."""
    idle = CheckRegistry()
    for check in bench.checks:
        idle.add(replace(check, function=lambda _: passed()) if check.name in names else check)
    missing = [name for name in names if name not in bench.checks]
    if missing:
        raise NotPlanted(f"there are no checks {', '.join(missing)}")
    yield replace(bench, checks=idle)


def _one_for_each_check() -> dict[str, str]:
    """Return a defect by each check that must catch it."""
    return {name: defect.name for defect in reversed(DEFECTS) for name in defect.caught_by}


JUDGES: tuple[Judge, ...] = (
    Judge("tolerances x1000", "tolerances", partial(_tolerance, 1e3), ("fp16 that calls itself fp32",)),
    Judge(
        "a comparator that always passes",
        "comparator",
        partial(_tolerance, float("inf")),
        ("a row of a weight reversed", "outputs off by a thousandth"),
    ),
    Judge(
        "a reference computed on the device",
        "reference",
        _own_reference,
        ("a row of a weight reversed", "a weight drawn anew", "outputs off by a thousandth"),
    ),
    Judge(
        "a reference that shares the defect",
        "reference",
        _shared_loading,
        ("a row of a weight reversed", "epsilon of the norms changed"),
    ),
    Judge(
        "checks that do nothing",
        "checks",
        partial(_idle_checks, tuple(_one_for_each_check())),
        tuple(dict.fromkeys(_one_for_each_check().values())),
    ),
)
