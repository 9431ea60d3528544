"""Where the tests of a parallel run go: which GPU a worker has, which models come first, and who computes when."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Generator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_hfaccel.core.devices import kind_named
from pytest_hfaccel.core.errors import HfAccelError
from pytest_hfaccel.core.spec import CPU, Device
from pytest_hfaccel.distributed.durations import DURATIONS, RECORDED, Durations, read_split_file, seconds_of_cells
from pytest_hfaccel.distributed.selection import SelectedCell
from pytest_hfaccel.plugin.state import CELL_TEST, session_of
from pytest_hfaccel.pool.ledger import Ledger
from pytest_hfaccel.pool.table import key_text
from pytest_hfaccel.reporting.journal import JOURNAL, read_journal
from pytest_hfaccel.reporting.runs import run_folders

if TYPE_CHECKING:
    from pytest_hfaccel.engine.plan import Plan
    from pytest_hfaccel.plugin.collection import CollectedTests

_RUNS_READ = 3
"""The latest runs whose durations count: what they do not know is estimated from what they do."""


def variables_of_worker(plan: Plan, number: int, environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment variables that show a worker its own one of several devices of a kind.

    Only where a kind was asked for, not one of its devices: `cuda:0` is the same device in every worker.

    Args:
        plan: The plan of the run, which knows the devices.
        number: The worker's number, from 0: the first worker gets the device with the most free memory.
        environ: Environment to read instead of `os.environ`.
    """
    environ = os.environ if environ is None else environ
    shown = {}
    for kind, targets in plan.alternatives.items():
        torch = kind_named(kind).torch
        if torch is None or not torch.visible_devices or len(targets) < 2:
            continue
        index = int(targets[number % len(targets)])
        variable = next(
            (name for name in reversed(torch.visible_devices) if environ.get(name)), torch.visible_devices[0]
        )
        listed = [entry.strip() for entry in environ.get(variable, "").split(",") if entry.strip()]
        shown[variable] = listed[index] if listed else str(index)
    return shown


class GroupOrder:
    """In which order groups of tests, those of a model, are dealt to workers, and in which order a worker runs them.

    Args:
        collected: The tests of model classes.
        durations: What earlier runs took. Without any, models of real size come first.
    """

    def __init__(self, collected: CollectedTests, durations: Durations) -> None:
        cells = selected_cells(collected)
        self._seconds: dict[str, float] = {}
        self._devices = {nodeid: cell.device for cell in cells for nodeid in cell.tests}
        estimated = seconds_of_cells(cells, durations)
        self._are_known = any(source == RECORDED for _, source in estimated) or any(cell.is_full_size for cell in cells)
        for cell, (seconds, _) in zip(cells, estimated, strict=True):
            for nodeid in cell.tests:
                self._seconds[nodeid] = durations.tests.get(nodeid, seconds / len(cell.tests))

    def seconds(self, group: Sequence[str]) -> float:
        """Return how long the tests of a group take; those of no model class count as 0."""
        return sum(self._seconds.get(nodeid, 0.0) for nodeid in group)

    def arrange(self, groups: Sequence[list[int]], tests: Sequence[str], workers: int) -> list[list[int]]:
        """Return the groups, longest first, spread over the devices of which there are several.

        A group stays whole, so that its model is loaded by one worker, unless a worker would be without any: then one
        is split between the devices of a kind. Groups that run side by side begin on different devices of a kind.

        Args:
            groups: Indices of tests.
            tests: All tests.
            workers: How many workers there are.
        """
        found = [list(group) for group in groups]

        def weight(group: list[int]) -> tuple[float, int]:
            return (self.seconds([tests[index] for index in group]) if self._are_known else 0.0, len(group))

        while 0 < len(found) < workers:
            candidates = [group for group in found if len(self._spread_devices(group, tests)) > 1]
            if not candidates:
                break
            longest = max(candidates, key=weight)
            devices = self._spread_devices(longest, tests)
            second = set(devices[(len(devices) + 1) // 2 :])
            found.append([index for index in longest if self._devices.get(tests[index]) in second])
            longest[:] = [index for index in longest if self._devices.get(tests[index]) not in second]
        found.sort(key=weight, reverse=True)
        return [self._rotated(group, tests, turn) for turn, group in enumerate(found)]

    def _spread_devices(self, group: Sequence[int], tests: Sequence[str]) -> list[str]:
        """The devices of a group of a kind of which it has several, in order; empty without."""
        devices = dict.fromkeys(self._devices.get(tests[index], "") for index in group)
        kinds: dict[str, list[str]] = defaultdict(list)
        for name in devices:
            kind = name.partition(":")[0]
            if kind_named(kind).is_indexed:
                kinds[kind].append(name)
        return max(kinds.values(), key=len) if any(len(names) > 1 for names in kinds.values()) else []

    def _rotated(self, group: list[int], tests: Sequence[str], turn: int) -> list[int]:
        """Return the tests of a group, beginning with another one of the devices of a kind from turn to turn."""
        devices = self._spread_devices(group, tests)
        if not devices:
            return group
        places = [at for at, index in enumerate(group) if self._devices.get(tests[index]) in devices]
        rank = {name: (at - turn) % len(devices) for at, name in enumerate(devices)}
        moved = sorted((group[at] for at in places), key=lambda index: rank[self._devices[tests[index]]])
        result = list(group)
        for at, index in zip(places, moved, strict=True):
            result[at] = index
        return result


class EarlierRuns:
    """What the latest runs of a directory of reports recorded.

    What cannot be read is left out: the order of tests, and an estimate, are no reason to end a run.

    Args:
        reports: The directory.
        root: Where a file of pytest-split's may be.

    Attributes:
        durations: How long tests took.
        memory: By model, weights, device and dtype the most bytes that a cell took, by the ledger's name of a device.
    """

    def __init__(self, reports: Path, root: Path) -> None:
        self.durations = Durations()
        self.memory: dict[tuple[str, str, str, str], dict[str, int]] = {}
        with suppress(HfAccelError):
            if (root / DURATIONS).is_file():
                self.durations.tests.update(read_split_file(root / DURATIONS))
        for folder in list(run_folders(reports))[-_RUNS_READ:]:
            with suppress(HfAccelError):
                journal = read_journal(folder / JOURNAL)
                self.durations.add_journal(journal)
                for result in journal.results:
                    if peak := result.placement.get("peak_bytes"):
                        self.memory[result.model, result.weights, result.device, result.dtype] = peak

    def tell(self, ledger: Ledger) -> None:
        """Enter in a ledger what cells took."""
        for key, amounts in self.memory.items():
            ledger.remember(key_text(key), amounts)


def selected_cells(collected: CollectedTests) -> list[SelectedCell]:
    """Return the cells of a run, with their tests."""
    tests: dict[int, list[str]] = defaultdict(list)
    for nodeid, (index, _) in collected.tests.items():
        tests[index].append(nodeid)
    names = ("module", "cell", "model", "architecture", "device")
    return [
        SelectedCell(**{name: facts[name] for name in names}, checks="", tests=tuple(tests[index]), facts=facts)
        for index, facts in enumerate(collected.cells)
    ]


class TurnTaking:
    """Has every test of this process take part in the use of its device, so that others wait where they measure."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        """Compute on the device of a test's cell while it runs; a test of no model class uses the cores."""
        test = item.stash.get(CELL_TEST, None)
        device: Device = CPU if test is None else test.cell.device
        account = session_of(self._config).runner.account
        keeper = self._config.pluginmanager.getplugin("hfaccel-notes")
        if keeper is not None:
            account.on_wait = keeper.extend  # waiting for others is not hanging
        with account.computing(device):
            return (yield)
