"""How a run scales over machines, simulated from what was measured on one.

    python benchmarks/scale_simulation.py

A discrete-event simulation of the two ways to use many machines: shards of a plan (`hfaccel plan`, one per node, two
workers each) and groups on Ray (`hfaccel run --engine ray`). Models are dealt by the product's own `plan.deal`, and the
numbers of groups are those of `distributed.cluster`; what a simulated process does costs what the same was measured to
cost. Everything else is in `ASSUMED`. The tables go into `docs/scale.md`.
"""

from __future__ import annotations

import argparse
import gzip
import heapq
import json
import lzma
import math
import random
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pytest_hfaccel.distributed import cluster
from pytest_hfaccel.distributed.plan import deal
from pytest_hfaccel.registry import load_registry

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "scale.md"
SWEEP = json.loads(lzma.decompress((ROOT / "docs" / "data" / "sweep_durations.json.xz").read_bytes()))
MATRIX = json.loads((ROOT / "tests" / "data" / "matrix_durations.json").read_text(encoding="utf-8"))

ROWS = ROOT / "docs" / "results" / "prediction_rows.jsonl.gz"

NODES = (1, 8, 64, 512)
SLOTS = 2
"""Processes of a node, one per core: the machine on which the durations were measured."""
NODE_BYTES = 24 * 2**30

# Measured; `docs/scale.md` says where.
START = 5.2
COLLECT_PER_CELL = 22.9 / 10_000
SWEEP_SECONDS = 1012.0
"""From the first to the last line of the sweep's journal, with two workers."""
JOURNAL_LINE = 0.008
API_REQUESTS, RESOLVER_REQUESTS = 3, 10
ONNX_TO_OPENVINO = (6.6 + 5.8 + 3.3 + 10.3) / (5.1 + 4.1 + 2.3 + 7.3)
RUNS = (2, 37 + 1 + 2 * 12)
"""Forward passes of the class-level checks and of the battery of a text generator; one in fp64 counts twice."""
LOWERING = (13.0, 24.0)
SHADERS = (3.0, 14.0)

ASSUMED = {
    "price": 0.13,  # USD per hour of a node with 2 CPUs and 24 GiB
    "bandwidth": 125e6,  # bytes per second from the hub to a node: 1 Gbit/s
    "wasm": 1.0,  # seconds to start a page, on top of what the CPU takes: WASM finds the ONNX conversion
    "unavailable": 0.05,  # seconds of a cell that is refused
}
WINDOW = 300.0
PLANS = {"free": 1_000, "Team": 3_000, "Enterprise": 6_000}
"""API requests per five minutes of one account of the hub."""


@dataclass
class Work:
    """A model: what its cells take, and what it needs of the hub.

    Attributes:
        cells: Seconds of each cell.
        download: Seconds of its download.
        api_requests: Requests to the hub's API before it.
    """

    cells: list[float]
    download: float = 0.0
    api_requests: int = 0

    @property
    def seconds(self) -> float:
        """Its cells and its download."""
        return sum(self.cells) + self.download


@dataclass
class Quota:
    """The hub's limit: so many requests in each window of five minutes; who comes later waits for the next window."""

    limit: int
    used: dict[int, int] = field(default_factory=dict)
    first_free: int = 0

    def wait(self, now: float, requests: int) -> float:
        """Take requests, and return when they can be made."""
        window = max(int(now // WINDOW), self.first_free)
        while self.used.get(window, 0) + requests > self.limit:
            window += 1
            self.first_free = window
        self.used[window] = self.used.get(window, 0) + requests
        return max(now, window * WINDOW)


@dataclass
class Outcome:
    """A simulated run.

    Attributes:
        seconds: From the start to the last line of the journal.
        busy: Seconds in which cells ran, over all processes.
        started: Processes that were started.
        overhead: Seconds that processes took to start and to collect.
        waited: Seconds that processes waited for the hub's quota.
        requests: Requests to the hub.
        journal: Seconds that the journal took to be written.
        longest: Seconds of the longest model.
    """

    nodes: int
    seconds: float = 0.0
    busy: float = 0.0
    started: int = 0
    overhead: float = 0.0
    waited: float = 0.0
    requests: int = 0
    journal: float = 0.0
    longest: float = 0.0

    @property
    def utilisation(self) -> float:
        """The share of the time of all processes in which cells ran."""
        return self.busy / (self.seconds * self.nodes * SLOTS)

    @property
    def node_hours(self) -> float:
        """Nodes times hours."""
        return self.seconds * self.nodes / 3600


def simulate(works: dict[str, Work], nodes: int, quota: Quota, *, on_ray: bool, collects_own: bool = False) -> Outcome:
    """Run some models on some nodes.

    Args:
        works: The models.
        nodes: How many machines.
        quota: The hub's.
        on_ray: Groups as Ray tasks, each a process of its own; otherwise a shard per node with two workers.
        collects_own: A process collects its own cells only, not all those of the plan: what could be.
    """
    out = Outcome(nodes, longest=max(work.seconds for work in works.values()))
    seconds = {name: work.seconds for name, work in works.items()}
    everything = sum(len(work.cells) for work in works.values())
    slots = nodes * SLOTS
    # Each queue is a list of processes to start, longest first: what each runs, one model after the other.
    if on_ray:
        wanted = max(slots * cluster._GROUPS_PER_SLOT, math.ceil(sum(seconds.values()) / cluster._GROUP_SECONDS))
        groups = deal(seconds, min(wanted, len(works)))
        groups.sort(key=lambda names: -sum(seconds[name] for name in names))
        queues = [groups]
        serves = [(queues[0], slots)]
    else:
        shards = deal(seconds, min(nodes, len(works)))
        serves = [(deal({name: seconds[name] for name in shard}, min(SLOTS, len(shard))), SLOTS) for shard in shards]
    # An event is a process that goes on with its next model: (time, number, queue, models left).
    events: list[tuple[float, int, list[list[str]], list[str]]] = []
    number, journal_free = 0, 0.0

    def start(now: float, queue: list[list[str]]) -> None:
        nonlocal number
        if queue:
            names = queue.pop(0)
            cells = sum(len(works[name].cells) for name in names) if collects_own else everything
            overhead = START + COLLECT_PER_CELL * cells
            out.started += 1
            out.overhead += overhead
            number += 1
            heapq.heappush(events, (now + overhead, number, queue, list(reversed(names))))

    for queue, count in serves:
        for _ in range(count):
            start(0.0, queue)
    while events:
        now, _, queue, left = heapq.heappop(events)
        out.seconds = max(out.seconds, now)
        if not left:
            start(now, queue)
            continue
        work = works[left.pop()]
        begin = now
        if work.api_requests:
            begin = quota.wait(now, work.api_requests)
            out.waited += begin - now
            out.requests += work.api_requests + RESOLVER_REQUESTS
        end = begin + work.seconds
        out.busy += work.seconds
        # The lines of the cells are written by one process, one after the other.
        journal_free = max(journal_free, begin) + JOURNAL_LINE * len(work.cells)
        number += 1
        heapq.heappush(events, (end, number, queue, left))
    out.journal = JOURNAL_LINE * everything
    out.seconds = max(out.seconds, journal_free)
    return out


def sweep_factor() -> float:
    """What a cell takes between its checks, as a factor: the sweep's own wall time against what its cells took."""
    cells = sum(map(sum, SWEEP["seconds"].values()))
    collected = START + COLLECT_PER_CELL * 2 * len(SWEEP["seconds"])
    return (SWEEP_SECONDS - collected) * SLOTS / cells


def classes(seed: int) -> dict[str, Work]:
    """1,575 classes x 6 devices x 3 dtypes, and a cell at class level each."""
    chance, factor = random.Random(seed), sweep_factor()  # noqa: S311
    by_model: dict[tuple[str, str], dict[str, float]] = {}
    for module, _, model, _, device, seconds in MATRIX:
        by_model.setdefault((module, model), {})[device] = seconds
    pairs = [one for one in by_model.values() if {"cpu", "openvino:CPU"} <= one.keys()]
    more = [max(0.0, one["openvino:CPU"] - one["cpu"]) for one in pairs]  # converting does not follow the CPU's time
    works = {}
    for name, (at_class, cpu) in SWEEP["seconds"].items():
        at_class, cpu = factor * at_class, factor * cpu
        openvino = cpu + chance.choice(more)
        onnx = openvino * ONNX_TO_OPENVINO
        three = range(3)
        cells = [at_class, *(cpu for _ in three)]
        cells += [openvino, openvino, ASSUMED["unavailable"]]  # fp16 is refused by OpenVINO's CPU plugin
        cells += [onnx for _ in three]
        cells += [cpu + chance.uniform(*LOWERING), *(ASSUMED["unavailable"] for _ in range(2))]  # fp32 only
        cells += [cpu + ASSUMED["wasm"] for _ in three]
        cells += [cpu + chance.uniform(*SHADERS) for _ in three]
        works[name] = Work(cells)
    return works


def hub_models(count: int, seed: int) -> tuple[dict[str, Work], int]:
    """Models of the hub on the CPU, fp32, with their weights; and how many more do not fit the memory of a node."""
    chance = random.Random(seed)  # noqa: S311
    sizes = [spec.parameters for spec in load_registry().specs if spec.parameters]
    slope, offset = _latency_by_size()
    tiny, factor = list(SWEEP["seconds"].values()), sweep_factor()
    works, too_large = {}, 0
    for number in range(count):
        parameters = chance.choice(sizes)
        if cluster.PROCESS_BYTES + 16 * parameters > NODE_BYTES:  # what --engine ray asks for
            too_large += 1
            continue
        forward = math.exp(offset + slope * math.log(parameters))
        cells = [factor * own + runs * forward for own, runs in zip(chance.choice(tiny), RUNS, strict=True)]
        download = 4 * parameters / ASSUMED["bandwidth"]
        works[f"model {number}"] = Work(cells, download, API_REQUESTS)
    return works, too_large


def _latency_by_size() -> tuple[float, float]:
    """Fit log(seconds) of the measured forward passes of text models on the CPU by log(parameters): slope, offset."""
    points = []
    for line in gzip.decompress(ROWS.read_bytes()).splitlines():
        row = json.loads(line)
        if (row["device"], row["batch"], row["length"]) == ("cpu", 1, 32) and row["parameters"]:
            points.append((math.log(row["parameters"]), math.log(row["latency"]["median_ms"] / 1e3)))
    slope, offset = statistics.linear_regression(*zip(*points, strict=True))
    return slope, offset


def _table(
    title: str,
    works: dict[str, Work],
    quota: Callable[[], Quota],
    variants: Sequence[tuple[str, bool, bool]],
    price: float,
) -> list[str]:
    cells = sum(len(work.cells) for work in works.values())
    total = sum(work.seconds for work in works.values())
    lines = [
        f"### {title}",
        "",
        f"{len(works):,} models, {cells:,} cells, {total / 3600:,.1f} process hours; the longest model takes "
        f"{max(work.seconds for work in works.values()) / 60:.1f} minutes.",
        "",
        "| how | nodes | time | speed-up | utilisation | processes | start and collection | waiting for the hub | "
        "hub requests | node hours | cost |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, on_ray, collects_own in variants:
        alone = 0.0
        for nodes in NODES:
            run = simulate(works, nodes, quota(), on_ray=on_ray, collects_own=collects_own)
            alone = alone or run.seconds
            slot_seconds = run.seconds * nodes * SLOTS
            lines.append(
                f"| {name} | {nodes} | {_time(run.seconds)} | {alone / run.seconds:.1f} | {run.utilisation:.0%} | "
                f"{run.started:,} | {run.overhead / slot_seconds:.0%} | {run.waited / slot_seconds:.0%} | "
                f"{run.requests:,} | {run.node_hours:,.1f} | {run.node_hours * price:,.2f} |"
            )
    return [*lines, ""]


def _time(seconds: float) -> str:
    if seconds < 5400:
        return f"{seconds / 60:.1f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 172_800 else f"{seconds / 86_400:.1f} d"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--price", type=float, default=ASSUMED["price"], help="USD per hour of a node")
    parser.add_argument("--hub-models", type=int, default=100_000)
    given = parser.parse_args()
    sweep = {name: Work([sweep_factor() * one for one in pair]) for name, pair in SWEEP["seconds"].items()}
    again = simulate(sweep, 1, Quota(10**9), on_ray=False)
    lines = [
        f"The sweep itself, 1 node, simulated: {again.seconds:,.0f} s; measured: {SWEEP_SECONDS:,.0f} s. (The factor "
        f"for what happens between checks, {sweep_factor():.2f}, was taken from it: only the dealing is tested.)",
        "",
    ]
    shards, ray, own = ("shards", False, False), ("Ray", True, False), ("Ray, own cells collected", True, True)
    unlimited = lambda: Quota(10**9)  # noqa: E731
    lines += _table(
        "1,575 classes x 6 devices x 3 dtypes (simulated)",
        classes(given.seed),
        unlimited,
        (shards, ray, own),
        given.price,
    )
    works, too_large = hub_models(given.hub_models, given.seed)
    for account, limit in PLANS.items():
        variants = (shards, ray, own) if account == "Team" else (shards,)
        title = f"{given.hub_models:,} hub models, account {account}: {limit:,} API requests in 5 minutes (simulated)"
        lines += _table(title, works, lambda limit=limit: Quota(limit), variants, given.price)  # type: ignore[misc]
    lines += [
        f"{too_large:,} of the {given.hub_models:,} models do not fit the memory of such a node and are left out.",
        "",
    ]
    text = PAGE.read_text(encoding="utf-8")
    begin, end = "<!-- written by benchmarks/scale_simulation.py -->", "<!-- end -->"
    head, _, rest = text.partition(begin)
    PAGE.write_text("\n".join([head + begin, "", *lines, end]) + rest.partition(end)[2], encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
