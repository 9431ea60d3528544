"""The plan of a run on many machines: which shard has which cells. Deterministic, balanced, and with a fingerprint.

The cells of a model stay in one shard, because loading it is most of the cost; only those of a model that takes longer
than an even share are split by device, where that makes the longest shard shorter. Models are dealt longest first, each
to the shard that has least to do so far; tests that belong to no model class are run by the first shard.
"""

from __future__ import annotations

import hashlib
import heapq
import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

from pytest_hfaccel.core.errors import ConfigError, format_names
from pytest_hfaccel.core.files import replace_file
from pytest_hfaccel.core.results import CellKey
from pytest_hfaccel.core.spec import CLASS_LEVEL
from pytest_hfaccel.distributed.durations import RECORDED, Durations, seconds_of_cells
from pytest_hfaccel.distributed.selection import SelectedCell, Selection

SCHEMA = "pytest-hfaccel/plan"
SCHEMA_VERSION = 1
_SHOWN = 4
"""How many names a message lists."""


@dataclass(frozen=True)
class PlannedCell:
    """A cell of a shard.

    Attributes:
        module: The module's name in reports.
        cell: The cell's id.
        model: The model's name.
        checks: A hash of the names of its tests.
        seconds: How long it is expected to take.
        source: `recorded`, or what the seconds are estimated from.
    """

    module: str
    cell: str
    model: str
    checks: str
    seconds: float
    source: str

    @property
    def key(self) -> CellKey:
        """Module and cell."""
        return (self.module, self.cell)


@dataclass
class ShardPlan:
    """A plan; two with the same content are the same file.

    Attributes:
        arguments: The arguments of pytest that the plan was made for.
        shards: The cells of each shard.
        entries: A hash of each model's registry entry.
        versions: The packages that can change a result; empty where any may run it.
        options: The options that can change a result.
    """

    arguments: list[str]
    shards: list[list[PlannedCell]]
    entries: dict[str, str] = field(default_factory=dict)
    versions: dict[str, str | None] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def cells(self) -> dict[CellKey, PlannedCell]:
        """All cells, by module and cell."""
        return {cell.key: cell for shard in self.shards for cell in shard}

    @property
    def seconds(self) -> list[float]:
        """How long each shard is expected to take, without what comes before its tests."""
        return [*map(_seconds, self.shards)]

    @property
    def fingerprint(self) -> str:
        """Hash of everything in the plan."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:16]

    def balance(self) -> str:
        """Say how far apart the shards are, whether a model leaves no other choice, and which are split."""
        seconds = self.seconds
        longest, shortest, even = max(seconds), min(seconds), sum(seconds) / len(seconds)
        apart = f"the shards differ by at most {longest / shortest - 1:.0%}" if shortest else "a shard is empty"
        parts = [item for shard in self.shards for item in _by_model(shard).items()]
        model, largest = max(parts, key=lambda item: (item[1], item[0]))
        if largest > even:
            apart += (
                f": {model} alone takes {format_seconds(largest)} of one, more than an even share "
                f"({format_seconds(even)}), and its cells on a device stay together"
            )
        counts = Counter(model for model, _ in parts)
        split = [f"{model} in {count} shards" for model, count in sorted(counts.items()) if count > 1]
        return f"{apart}; split by device, and loaded in each: {', '.join(split)}" if split else apart

    def differences(self, selection: Selection) -> list[str]:
        """Return in what a run differs from the one that was planned, a line each."""
        lines = []
        if self.versions:
            names = sorted(self.versions.keys() | selection.versions.keys())
            lines += _changed("versions", self.versions, selection.versions, names)
        lines += _changed("options", self.options, selection.options, sorted(self.options | selection.options))
        other = [name for name in self.entries if selection.entries.get(name, self.entries[name]) != self.entries[name]]
        if other:
            lines.append(f"registry: another entry of {format_names(other, _SHOWN)}")
        planned, now = self.cells, {cell.key: cell for cell in selection.cells}
        added = [cell for _, cell in now.keys() - planned.keys()]
        gone = [cell for _, cell in planned.keys() - now.keys()]
        rest = [key[1] for key in planned if key in now and planned[key].checks != now[key].checks]
        for names, what in (
            (added, "not in the plan"),
            (gone, "in the plan, but not selected here"),
            (rest, "with other tests"),
        ):
            if names:
                cells = "1 cell" if len(names) == 1 else f"{len(names)} cells"
                lines.append(f"selection: {cells} {what}: {format_names(sorted(names), _SHOWN)}")
        return lines

    def to_text(self) -> str:
        """Return the content of its file."""
        data = {"schema": SCHEMA, "schema_version": SCHEMA_VERSION, "fingerprint": self.fingerprint, **asdict(self)}
        return json.dumps(data, indent=1) + "\n"


def _changed(what: str, planned: Mapping[str, Any], now: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    return [
        f"{what}: {name} is {_shown(now.get(name))} here and {_shown(planned.get(name))} in the plan"
        for name in names
        if now.get(name) != planned.get(name)
    ]


def _shown(value: Any) -> str:
    return "missing" if value is None else str(value)


def make_plan(
    selection: Selection, durations: Durations, arguments: Sequence[str], *, shards: int = 0, minutes: float = 0
) -> ShardPlan:
    """Deal the cells of a selection to shards.

    Args:
        selection: What pytest has selected.
        durations: How long its tests take.
        arguments: The arguments of pytest that selected it.
        shards: How many shards; or, when 0,
        minutes: as few as end within so many minutes.

    Raises:
        ConfigError: Nothing is selected, or there are fewer models than shards.
    """
    if not selection.cells:
        raise ConfigError("nothing to plan: no tests of model classes are selected.", hint=_SAME_ARGUMENTS)
    timed = seconds_of_cells(selection.cells, durations)
    cells = [
        PlannedCell(cell.module, cell.cell, cell.model, cell.checks, round(seconds, 3), source)
        for cell, (seconds, source) in zip(selection.cells, timed, strict=True)
    ]
    models = _by_model(cells)
    first = sum(durations.tests.get(test, 0.0) for test in selection.other_tests)
    whole = _split_groups(selection.cells, cells, math.inf)
    in_time = _split_groups(selection.cells, cells, minutes * 60) if minutes else whole
    number = shards or _enough_shards({name: _seconds(group) for name, group in in_time.items()}, minutes * 60, first)
    number = number if shards else min(number, len(models))
    if number > len(models):
        raise ConfigError(
            f"--shards {number}: the run has {len(models)} models, and a model's cells stay in one shard.",
            hint=f"Use --shards {len(models)} or fewer.",
        )
    split = _split_groups(selection.cells, cells, (sum(models.values()) + first) / number)
    # The first way that is no longer than the others: nothing is gained then by loading a model twice.
    ways = [_deal_cells(groups, number, first) for groups in (whole, in_time, split)]
    dealt = min(ways, key=lambda way: max(map(_seconds, way)))
    return ShardPlan([*arguments], dealt, selection.entries, selection.versions, selection.options)


def _split_groups(
    selected: Sequence[SelectedCell], planned: Sequence[PlannedCell], most: float
) -> dict[str, list[PlannedCell]]:
    """Return the cells that stay together: those of a model, or of it on a device where all take longer than `most`.

    The checks of a class, which belong to no device, stay with the device that takes least.
    """
    models: dict[str, dict[str, list[PlannedCell]]] = defaultdict(lambda: defaultdict(list))
    for cell, plan in zip(selected, planned, strict=True):
        models[cell.model][cell.device].append(plan)
    groups: dict[str, list[PlannedCell]] = {}
    for model, devices in models.items():
        of_class = devices.pop(CLASS_LEVEL.id, [])
        if len(devices) < 2 or _seconds([*of_class, *chain(*devices.values())]) <= most:
            groups[model] = [*of_class, *chain(*devices.values())]
            continue
        least = min(devices, key=lambda device: (_seconds(devices[device]), device))
        devices[least] = [*of_class, *devices[least]]
        groups.update({f"{model}\0{device}": cells for device, cells in devices.items()})
    return groups


def _deal_cells(groups: Mapping[str, list[PlannedCell]], shards: int, first: float) -> list[list[PlannedCell]]:
    dealt = deal({name: _seconds(group) for name, group in groups.items()}, shards, first)
    return [list(chain.from_iterable(groups[name] for name in names)) for names in dealt]


def _seconds(cells: Iterable[PlannedCell]) -> float:
    return sum(cell.seconds for cell in cells)


_SAME_ARGUMENTS = "Give the arguments of pytest after `--`: hfaccel plan --shards 8 -- model_classes --all-models"


def deal(groups: Mapping[str, float], shards: int, first: float = 0.0) -> list[list[str]]:
    """Deal groups to shards, longest first, each to the shard that has least to do.

    Args:
        groups: Seconds by name.
        shards: How many shards.
        first: Seconds that the first shard has to do anyway.

    Returns:
        The names of each shard's groups.
    """
    dealt: list[list[str]] = [[] for _ in range(shards)]
    # The number of groups breaks ties: groups of no duration at all are spread as well.
    loads = [(first if index == 0 else 0.0, 0, index) for index in range(shards)]
    heapq.heapify(loads)
    for name in sorted(groups, key=lambda name: (-groups[name], name)):
        load, number, index = heapq.heappop(loads)
        dealt[index].append(name)
        heapq.heappush(loads, (load + groups[name], number + 1, index))
    return dealt


def _enough_shards(groups: Mapping[str, float], limit: float, first: float) -> int:
    """Return the least number of shards of which none takes longer than a limit, or than the longest group."""
    reachable = max(limit, first, *groups.values())
    least = max(1, math.ceil((sum(groups.values()) + first) / reachable)) if reachable else 1
    for number in range(least, len(groups)):
        dealt = deal(groups, number, first)
        loads = [sum(groups[name] for name in names) + (first if not index else 0) for index, names in enumerate(dealt)]
        if max(loads) <= reachable:
            return number
    return len(groups)


def _by_model(cells: Any) -> dict[str, float]:
    seconds: dict[str, float] = defaultdict(float)
    for cell in cells:
        seconds[cell.model] += cell.seconds
    return dict(seconds)


def write_plan(path: Path, plan: ShardPlan) -> None:
    """Write a plan.

    Raises:
        ConfigError: It cannot be written.
    """
    try:
        replace_file(path, plan.to_text())
    except OSError as error:
        raise ConfigError(f"{path}: the plan cannot be written: {error.strerror}.") from error


def read_plan(path: Path) -> ShardPlan:
    """Read a plan.

    Raises:
        ConfigError: It cannot be read, is none, or has changed since it was written.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if data["schema"] != SCHEMA:
            raise ValueError(f"its schema is {data['schema']!r}")
        if data["schema_version"] != SCHEMA_VERSION:
            raise ValueError(f"its version is {data['schema_version']}, and this one reads {SCHEMA_VERSION}")
        shards = [[PlannedCell(**cell) for cell in shard] for shard in data["shards"]]
        plan = ShardPlan(data["arguments"], shards, data["entries"], data["versions"], data["options"])
    except OSError as error:
        raise ConfigError(f"--hf-plan {path}: it cannot be read: {error.strerror}.") from error
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"--hf-plan {path}: this is no plan: {type(error).__name__}: {error}.",
            hint="`hfaccel plan --shards N --output FILE -- ARGUMENTS OF PYTEST` writes one.",
        ) from error
    if plan.fingerprint != data["fingerprint"]:
        raise ConfigError(
            f"--hf-plan {path}: its content has changed since it was written: its fingerprint is {plan.fingerprint}, "
            f"and it says {data['fingerprint']}.",
            hint="Make a new plan instead of editing this one.",
        )
    return plan


def shard_number(text: str, plan: ShardPlan) -> int:
    """Return which shard, from 1, `--hf-shard k/N` names.

    Raises:
        ConfigError: It is no shard of the plan.
    """
    number, slash, total = text.partition("/")
    count = len(plan.shards)
    if number.isdecimal() and 1 <= int(number) <= count and (not slash or total == str(count)):
        return int(number)
    raise ConfigError(f"--hf-shard {text!r} is not a shard of this plan. Allowed: 1/{count} to {count}/{count}.")


def estimated(plan: ShardPlan) -> list[PlannedCell]:
    """Return the cells whose duration is not recorded."""
    return [cell for cell in plan.cells.values() if cell.source != RECORDED]


def format_seconds(seconds: float) -> str:
    """Return a duration for people: `45 s`, `12.5 min`, `3.2 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
