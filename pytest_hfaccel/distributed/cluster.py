"""What the nodes of a cluster have, and the groups of cells that go to them together.

A node declares devices by resources of the engine: `hfaccel:openvino:NPU` a device, `webgpu` a kind. It then takes
cells of these devices only, and where any node declares a device, only such nodes take it. A node that declares
nothing takes the devices that are found on it. Which of several nodes a group runs on is the engine's decision.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pytest_hfaccel.core.devices import GPU_KINDS, registered_kinds
from pytest_hfaccel.core.presence import HardwareReport, Presence
from pytest_hfaccel.core.spec import CLASS_LEVEL, Device
from pytest_hfaccel.distributed.plan import deal
from pytest_hfaccel.distributed.selection import SelectedCell

PREFIX = "hfaccel:"
PROCESS_BYTES = 1 << 30
"""Host memory of a pytest process with torch and transformers and no model: 0.6 GiB measured, rounded up."""

_GROUP_SECONDS = 600.0
"""A group takes no longer than this, where its models allow: what a lost node can cost."""

_GROUPS_PER_SLOT = 4
"""So many groups per process that fits on the nodes keep all of them busy to the end."""


@dataclass(frozen=True)
class Node:
    """A machine of a cluster.

    Attributes:
        id: What the engine calls it.
        name: What reports call it: `node 1`, without the name or address of the machine.
        address: Its address, for messages.
        resources: What it offers the engine, by name: `CPU`, `GPU`, `memory` in bytes, and what it declares.
        hardware: The devices found on it.
        machine: Facts of the machine; see `hardware.machine_facts`.
    """

    id: str
    name: str
    address: str
    resources: Mapping[str, float]
    hardware: HardwareReport
    machine: Mapping[str, Any] = field(default_factory=dict)

    @property
    def declared(self) -> list[str]:
        """The resources by which it declares devices."""
        return [name for name in self.resources if name.startswith(PREFIX) or name in registered_kinds()]

    def declares(self, device: Device) -> str:
        """Return the resource by which it declares a device; empty if it does not."""
        exact = f"{PREFIX}{device.id}"
        matching = [name for name in self.declared if device.matches(name.removeprefix(PREFIX))]
        return exact if exact in matching else next(iter(matching), "")

    def has(self, device: Device) -> bool:
        """Whether a device is found on it. A kind that no machine is searched for counts as there."""
        presence = self.hardware.find(device)
        return presence is None or presence.present

    def devices(self) -> list[str]:
        """The devices it takes cells of."""
        named = [name.removeprefix(PREFIX) for name in self.declared if name.startswith(PREFIX)]
        kinds = [name for name in self.declared if not name.startswith(PREFIX)]
        found = [device.id for device in self.hardware.present() if not self.declared or device.kind in kinds]
        return list(dict.fromkeys([*named, *found])) or kinds


@dataclass(frozen=True)
class Needs:
    """What a group of cells asks the engine for.

    Attributes:
        nodes: The ids of the nodes it may run on.
        cpus: Number of CPUs.
        gpus: Number of GPUs: those up to the highest index, because the engine shows a process only its own.
        resources: Declared resources, by name.
        memory_bytes: Host memory.
    """

    nodes: tuple[str, ...]
    cpus: float
    gpus: int = 0
    resources: tuple[tuple[str, float], ...] = ()
    memory_bytes: int = 0


@dataclass(frozen=True)
class Group:
    """Cells that one pytest process runs.

    Attributes:
        cells: The cells; none for the tests that belong to no model class.
        needs: What they ask for.
    """

    cells: tuple[SelectedCell, ...]
    needs: Needs


class Cluster:
    """The nodes that are alive.

    Args:
        nodes: The nodes.
        cpus: CPUs per process.
        memory_bytes: Memory per process; estimated when 0.
    """

    def __init__(self, nodes: Sequence[Node], *, cpus: float = 1.0, memory_bytes: int = 0) -> None:
        self.nodes = list(nodes)
        self._cpus = cpus
        self._memory_bytes = memory_bytes

    @property
    def asked(self) -> dict[str, Any]:
        """The arguments other than the nodes."""
        return {"cpus": self._cpus, "memory_bytes": self._memory_bytes}

    def nodes_with(self, device: Device) -> list[Node]:
        """Return the nodes that take cells of a device."""
        declaring = [node for node in self.nodes if node.declares(device)]
        return declaring or [node for node in self.nodes if not node.declared and node.has(device)]

    def describe(self) -> str:
        """Say what the nodes have."""
        return "; ".join(f"{node.name}: {', '.join(node.devices())}" for node in self.nodes) or "there is no node"

    def hardware(self) -> HardwareReport:
        """Return what all nodes have, as if they were one machine."""
        found: dict[str, list[tuple[Node, Presence]]] = defaultdict(list)
        for node in self.nodes:
            for presence in node.hardware.presences:
                found[presence.device.id].append((node, presence))
        presences = []
        for several in found.values():
            device = several[0][1].device
            taking = self.nodes_with(device)
            here = next((one for node, one in several if node in taking and one.present), None)
            if here is None and not any(node.declares(device) for node in taking):
                here = Presence(device, False, "; ".join(dict.fromkeys(one.reason for _, one in several)))
            presences.append(here or self._declared(device, taking[0]))
        for node in self.nodes:
            for name in node.declared:
                kind, _, target = name.removeprefix(PREFIX).partition(":")
                device = Device(kind, target)
                if name.startswith(PREFIX) and device.id not in found:
                    found[device.id] = []
                    presences.append(self._declared(device, node))
        return HardwareReport(tuple(presences))

    @staticmethod
    def _declared(device: Device, node: Node) -> Presence:
        return Presence(device, True, f"declared by {node.name}")

    def needs_of(self, device: Device, memory_bytes: int) -> Needs | None:
        """Return what a cell on a device asks for; `None` if no node has it.

        A request that is larger than the largest node is made as large as that node: it then runs there alone.
        """
        nodes = self.nodes_with(device) if device != CLASS_LEVEL else self._unrestricted()
        if not nodes:
            return None
        resources: tuple[tuple[str, float], ...] = ()
        if name := nodes[0].declares(device):
            nodes = [node for node in nodes if node.declares(device) == name]
            resources = ((name, 1.0),)
        gpus = _gpus_of(device)
        with_gpus = [node for node in nodes if gpus and node.resources.get("GPU", 0) >= gpus]
        nodes = with_gpus or nodes
        wanted = self._memory_bytes or PROCESS_BYTES + memory_bytes
        memory = min(wanted, int(max(node.resources.get("memory", 0) for node in nodes)))
        cpus = min(self._cpus, max(node.resources.get("CPU", 0.0) for node in nodes))
        fits = [
            node.id
            for node in nodes
            if node.resources.get("memory", 0) >= memory and node.resources.get("CPU", 0) >= cpus
        ]
        return Needs(tuple(fits or [node.id for node in nodes]), cpus, gpus if with_gpus else 0, resources, memory)

    def _unrestricted(self) -> list[Node]:
        """The nodes for what needs no device."""
        return [node for node in self.nodes if not node.declared] or self.nodes

    def slots(self, needs: Needs) -> int:
        """Return how many processes fit on the nodes at once."""
        asked = {"CPU": needs.cpus, "GPU": needs.gpus, "memory": needs.memory_bytes, **dict(needs.resources)}
        return max(
            1,
            sum(
                int(min(node.resources.get(name, 0) / amount for name, amount in asked.items() if amount))
                for node in self.nodes
                if node.id in needs.nodes and any(asked.values())
            ),
        )

    def group(
        self, cells: Iterable[SelectedCell], seconds: Mapping[tuple[str, str], float]
    ) -> tuple[list[Group], list[SelectedCell]]:
        """Put cells into groups that need the same; a model's cells stay together where they do.

        Args:
            cells: The cells.
            seconds: How long they take, by module and cell.

        Returns:
            The groups, the longest ones first, and the cells whose device no node has.
        """
        by_needs: dict[Needs, dict[str, list[SelectedCell]]] = defaultdict(lambda: defaultdict(list))
        no_node, class_level = [], []
        for cell in cells:
            if cell.device == CLASS_LEVEL.id:
                class_level.append(cell)
                continue
            needs = self.needs_of(_device(cell), cell.memory_bytes)
            if needs is None:
                no_node.append(cell)
            else:
                by_needs[needs][cell.model].append(cell)
        for cell in class_level:  # beside another cell of its model, unless that is on a node with a purpose
            needs = self.needs_of(CLASS_LEVEL, cell.memory_bytes)
            if needs is None:
                no_node.append(cell)
                continue
            beside = (other for other, models in by_needs.items() if cell.model in models and not other.resources)
            by_needs[next(beside, needs)][cell.model].append(cell)
        groups = [group for needs, models in by_needs.items() for group in self._dealt(needs, models, seconds)]
        taken = {id(group): sum(seconds.get(cell.key, 0.0) for cell in group.cells) for group in groups}
        return sorted(groups, key=lambda group: -taken[id(group)]), no_node

    def _dealt(
        self, needs: Needs, models: Mapping[str, Sequence[SelectedCell]], seconds: Mapping[tuple[str, str], float]
    ) -> list[Group]:
        taken = {model: sum(seconds.get(cell.key, 0.0) for cell in cells) for model, cells in models.items()}
        number = max(self.slots(needs) * _GROUPS_PER_SLOT, math.ceil(sum(taken.values()) / _GROUP_SECONDS))
        dealt = deal(taken, min(number, len(models)))
        return [Group(tuple(cell for model in names for cell in models[model]), needs) for names in dealt]


def _device(cell: SelectedCell) -> Device:
    kind, _, target = cell.device.partition(":")
    return Device(kind, target)


def _gpus_of(device: Device) -> int:
    if device.kind in GPU_KINDS:
        return int(device.target) + 1
    return int(device.target.upper().startswith(("CUDA", "ROCM", "GPU")))
