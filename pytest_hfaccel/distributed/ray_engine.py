"""A run on a Ray cluster: groups of cells are Ray tasks, which Ray places and schedules.

Each task runs pytest on its group (`pytest_process`) and streams what finishes. When a node or a worker is lost, the
cells of its groups that have not finished become new groups; a cell that was running at several losses is given up.
"""

from __future__ import annotations

import os
import socket
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pytest_hfaccel.core.errors import ConfigError, HfAccelError, format_names
from pytest_hfaccel.core.presence import HardwareReport
from pytest_hfaccel.core.results import CellKey, Ended, Stage, Status
from pytest_hfaccel.core.spec import CLASS_LEVEL, Device
from pytest_hfaccel.distributed.cluster import Cluster, Group, Needs, Node
from pytest_hfaccel.distributed.cluster_results import ClusterResults
from pytest_hfaccel.distributed.pytest_process import PytestTask, run_pytest
from pytest_hfaccel.distributed.selection import SelectedCell

_CONNECT_SECONDS = 10.0
_POLL_SECONDS = 1.0
_PROBE_SECONDS = 120.0
_OBJECT_STORE_BYTES = 100 << 20
"""What a cluster of our own gets: records are small."""

_SHOWN = 4


def _import_ray() -> Any:
    # Ray's future behaviour, and no warning about it: a task that asks for no GPU keeps what its node shows it.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
    except ImportError as error:
        raise ConfigError(
            "--engine ray: the package ray is not installed.", hint="Install it with: pip install 'pytest-hfaccel[ray]'"
        ) from error
    return ray


class RaySession:
    """A connection to a Ray cluster, or to one that is started for it.

    Args:
        ray: The module.
        directory: Where pytest runs on each node; empty for the copy that `upload` makes.
    """

    def __init__(self, ray: Any, directory: str) -> None:
        self.ray = ray
        self.directory = directory
        self.lost: set[str] = set()
        """The ids of nodes that have died; Ray lists them as alive for a while."""
        self._probed: dict[str, Node] = {}

    def alive(self) -> list[Mapping[str, Any]]:
        """Return what Ray says of the nodes that are alive."""
        return [node for node in self.ray.nodes() if node["Alive"] and node["NodeID"] not in self.lost]

    def nodes(self) -> list[Node]:
        """Look for devices on each node that has not been asked yet, and return all that are alive.

        Raises:
            ConfigError: There is none, or one has no pytest-hfaccel.
        """
        alive = {node["NodeID"]: node for node in self.alive()}
        probe = self.ray.remote(num_cpus=0, max_retries=0)(_probe)
        asked = {
            name: probe.options(label_selector={"ray.io/node-id": name}).remote(node["Resources"].get("GPU", 0))
            for name, node in alive.items()
            if name not in self._probed
        }
        for name, answer in asked.items():
            about = alive[name]
            try:
                hardware, machine = self.ray.get(answer, timeout=_PROBE_SECONDS)
            except self.ray.exceptions.NodeDiedError:
                self.lost.add(name)
                continue
            except self.ray.exceptions.RayError as error:
                raise ConfigError(
                    f"the node {about['NodeManagerAddress']} cannot be asked for its devices: {_last_line(error)}",
                    hint="Each node needs the pytest-hfaccel, Ray and Python that run here.",
                ) from error
            self._probed[name] = Node(
                name,
                f"node {len(self._probed) + 1}",
                about["NodeManagerAddress"],
                about["Resources"],
                HardwareReport.from_json(hardware),
                machine,
            )
        found = [self._probed[name] for name in alive if name not in self.lost]
        if not found:
            raise ConfigError("the Ray cluster has no node that is alive.", hint="`ray status` says more.")
        return found

    def node_named(self, name: str) -> Node:
        """Return a node by its id."""
        return self._probed[name]

    def submit(self, task: PytestTask, needs: Needs) -> Any:
        """Hand a task to Ray, and return the generator of its events."""
        remote = self.ray.remote(_run_task).options(
            num_returns="streaming",
            max_retries=0,
            num_cpus=needs.cpus,
            num_gpus=needs.gpus,
            memory=needs.memory_bytes,
            resources=dict(needs.resources),
            label_selector={"ray.io/node-id": f"in({','.join(needs.nodes)})"},
            name=f"hfaccel:{len(task.cells)} cells",
        )
        return remote.remote(task)


def _probe(gpus: float) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the devices of the node that this runs on, and facts of the machine, as JSON."""
    if gpus and not os.environ.get("CUDA_VISIBLE_DEVICES", "all"):
        del os.environ["CUDA_VISIBLE_DEVICES"]  # Ray hides GPUs from tasks that ask for none
    from pytest_hfaccel.hardware import machine_facts, probe_devices

    report = probe_devices()
    return report.to_json(), machine_facts(report)


def _run_task(task: PytestTask) -> Iterator[dict[str, Any]]:
    import ray

    yield {"type": "begin", "node": ray.get_runtime_context().get_node_id()}
    yield from run_pytest(task)


@contextmanager
def ray_session(address: str = "", *, upload: str = "") -> Iterator[RaySession]:
    """Connect to a cluster.

    Args:
        address: `auto` for the cluster this machine belongs to, or `host:port`; empty: a cluster of this machine alone
            is started, and ended with the session.
        upload: A directory that Ray copies to the nodes, and where pytest then runs.

    Raises:
        ConfigError: Ray is not installed, or the address leads nowhere.
    """
    ray = _import_ray()
    _require_reachable(address)
    ours: dict[str, Any] = {} if address else {"include_dashboard": False, "object_store_memory": _OBJECT_STORE_BYTES}
    if not address:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    environment = {"runtime_env": {"working_dir": upload}} if upload else {}
    try:
        ray.init(
            address=address or "local",
            log_to_driver=False,
            logging_level="ERROR",
            configure_logging=False,
            **ours,
            **environment,
        )
    except Exception as error:
        raise ConfigError(
            f"--address {address}: {_last_line(error)}" if address else f"Ray does not start: {_last_line(error)}",
            hint="`ray start --head` starts a cluster on this machine, `ray status` says whether one runs. Leave "
            "--address out to use this machine alone.",
        ) from error
    try:
        yield RaySession(ray, "" if upload else str(Path.cwd()))
    finally:
        ray.shutdown()


def _require_reachable(address: str) -> None:
    """Refuse an address at which nothing answers: Ray itself tries for minutes."""
    if address in ("", "auto"):
        return
    host, colon, port = address.rpartition(":")
    if "://" in address or not colon or not port.isdecimal():
        raise ConfigError(
            f"--address {address}: this is no address of a cluster. Allowed: auto, or host:port of its head node.",
            hint="From a machine outside of the cluster: ray job submit -- hfaccel run --engine ray --address auto ...",
        )
    try:
        with socket.create_connection((host, int(port)), _CONNECT_SECONDS):
            pass
    except (OSError, OverflowError) as error:
        raise ConfigError(
            f"--address {address}: nothing answers there: {error}.",
            hint="The address is that of the head node; `ray start --head` prints it (port 6379 by default).",
        ) from error


def _last_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


@dataclass
class _Running:
    group: Group
    node: str = ""
    """The id of the node, once the task has begun."""
    test: CellKey | None = None
    """The cell that runs at the moment."""
    left: set[CellKey] = field(default_factory=set)


class RayRun:
    """Runs the cells of a plan on a cluster.

    Args:
        session: The connection.
        cluster: The nodes.
        task: What every task has in common: the plan, the devices of the cluster.
        results: Where finished cells go.
        losses: At how many losses of its node or worker a cell may have been running before it is given up.
        seconds: How long cells take, by module and cell.
        show: Called with the name of a node and what runs on it.
    """

    def __init__(
        self,
        session: RaySession,
        cluster: Cluster,
        task: PytestTask,
        results: ClusterResults,
        *,
        losses: int = 3,
        seconds: Mapping[CellKey, float],
        show: Callable[[str, str], object],
    ) -> None:
        self._session = session
        self._ray = session.ray
        self._cluster = cluster
        self._first = cluster
        self._task = replace(task, directory=session.directory)
        self._results = results
        self._losses = losses
        self._seconds = seconds
        self._show = show
        self._lost: Counter[CellKey | None] = Counter()
        self._running: dict[Any, _Running] = {}

    def run(self) -> Ended:
        """Run all cells, and the tests that belong to no model class; on Ctrl-C end what runs."""
        selection = self._results.selection
        try:
            self._place(selection.cells)
            if selection.other_tests:
                needs = self._cluster.needs_of(CLASS_LEVEL, 0)
                assert needs is not None  # noqa: S101 - there is a node
                self._submit(Group((), needs))
            while self._running:
                ready, _ = self._ray.wait([*self._running], num_returns=1, timeout=_POLL_SECONDS)
                for events in ready:
                    self._take(events)
                if not ready:
                    self._move_stranded()
        except KeyboardInterrupt:
            return Ended.INTERRUPTED
        finally:
            for events in self._running:
                with suppress(Exception):
                    self._ray.cancel(events, force=False)
        return Ended.FINISHED

    def _place(self, cells: Sequence[SelectedCell]) -> None:
        groups, no_node = self._cluster.group(cells, self._seconds)
        for group in groups:
            self._submit(group)
        for cell in no_node:
            device = Device(*cell.device.partition(":")[::2])
            had = self._first.nodes_with(device)
            text = f"no node of the cluster has {device}. The nodes have: {self._cluster.describe()}"
            if had:
                names = format_names([node.name for node in had], _SHOWN)
                text = f"{names}, which had {device}, was lost while the run went on; {text}"
            self._results.add_outcome(cell, Status.ERROR if had else Status.UNAVAILABLE, Stage.LOAD, text)

    def _submit(self, group: Group) -> None:
        task = replace(self._task, cells=frozenset(cell.key for cell in group.cells))
        self._running[self._session.submit(task, group.needs)] = _Running(group, left=set(task.cells))

    def _take(self, events: Any) -> None:
        """Take one event of a task."""
        running, exceptions = self._running[events], self._ray.exceptions
        try:
            event = self._ray.get(next(events))
        except StopIteration:  # it was cancelled
            self._drop(events)
            self._lose(running, "its task ended early")
            return
        except exceptions.RayTaskError as error:
            self._drop(events)
            cause = error.cause if isinstance(error.cause, HfAccelError) else None
            self._give_up(running, str(cause) if cause else _last_line(error))
            return
        except exceptions.RayError as error:
            self._drop(events)
            if isinstance(error, exceptions.NodeDiedError) and running.node:
                self._session.lost.add(running.node)
            self._lose(running, type(error).__name__)
            return
        name = self._session.node_named(running.node).name if running.node else ""
        if event["type"] == "begin":
            running.node = event["node"]
        elif event["type"] == "start":
            running.test = (event["module"], event["cell"]) if "cell" in event else None
            self._show(name, event.get("cell") or event["test"])
        elif event["type"] == "cell":
            self._results.add(event["result"], event.get("seconds", {}), name)
        else:
            self._drop(events)
            self._end(running, event, name)

    def _drop(self, events: Any) -> None:
        running = self._running.pop(events)
        if running.node and all(other.node != running.node for other in self._running.values()):
            self._show(self._session.node_named(running.node).name, "")

    def _end(self, running: _Running, event: Mapping[str, Any], node: str) -> None:
        code = event["code"]
        self._results.add_end(code if code != 2 else 0, event["pool"])
        if code == 2:  # something has told pytest to end: its node is taken down, say
            self._lose(running, "pytest was interrupted")
            return
        if not running.group.cells and code not in (0, 5):
            self._results.notes.append(
                f"tests of no model class ended with exit code {code} on {node}:\n{event['output']}"
            )
        if self._results.missing(running.group.cells) or code in (3, 4):
            self._give_up(running, f"pytest ended with exit code {code} on {node}:\n{event['output']}")

    def _give_up(self, running: _Running, reason: str) -> None:
        """Record that the rest of a group cannot be run."""
        rest = self._results.missing(running.group.cells)
        if not rest:
            self._results.notes.append(reason)
        for cell in rest:
            self._results.add_outcome(cell, Status.ERROR, Stage.RESOLVE, reason)

    def _lose(self, running: _Running, what: str) -> None:
        """Run the rest of a group elsewhere."""
        node = self._session.node_named(running.node).name if running.node else "a node"
        rest = self._results.missing(running.group.cells)
        cell = next((one for one in rest if one.key == running.test), rest[0] if rest else None)
        key = cell.key if cell else None
        self._lost[key] += 1
        given_up = self._lost[key] > self._losses
        self._results.notes.append(f"{node} lost a group ({what}): {len(rest)} cells are run again")
        if given_up and cell is not None:
            text = (
                f"it was running when its process was lost, {self._lost[key]} times ({what}, the last time on {node})"
            )
            self._results.add_outcome(cell, Status.CRASHED, Stage.RUN, text)
            rest = self._results.missing(rest)
        self._cluster = Cluster(self._session.nodes(), **self._cluster.asked)
        self._results.add_nodes(self._cluster.nodes)
        if rest:
            self._place(rest)
        elif not running.group.cells:
            needs = self._cluster.needs_of(CLASS_LEVEL, 0)
            if given_up or needs is None:
                self._results.add_end(1, ())
                self._results.notes.append(f"the tests of no model class were lost {self._lost[None]} times")
            else:
                self._submit(Group((), needs))

    def _move_stranded(self) -> None:
        """Place again what waits for nodes that are gone: Ray would wait for ever."""
        alive = {node["NodeID"] for node in self._session.alive()}
        stranded = [
            (events, running)
            for events, running in self._running.items()
            if not running.node and not alive & set(running.group.needs.nodes)
        ]
        for events, running in stranded:
            del self._running[events]
            with suppress(Exception):
                self._ray.cancel(events, force=False)
            self._cluster = Cluster(self._session.nodes(), **self._cluster.asked)
            self._results.add_nodes(self._cluster.nodes)
            self._place(self._results.missing(running.group.cells))
