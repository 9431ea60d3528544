"""`hfaccel run --engine ray`: cells on the nodes of a cluster, and reports as of a run on one machine."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

from pytest_hfaccel.core.results import CellResult
from pytest_hfaccel.reporting.journal import read_journal
from tests.harness import HfRun, Project, environment

pytest.importorskip("ray", reason="needs pytest-hfaccel[ray]")

MODELS = "".join(f"  bert-{name}: {{architecture: BertForMaskedLM}}\n" for name in "abcdef")
SELECTION = (
    *("--hf-model", "bert-[a-f]", "--hf-registry", "registry.yaml", "--hf-weights", "tiny"),
    *("-k", "placement"),
)


class RayCluster:
    """A cluster of several nodes on this machine, in a process of its own: a test of a lost node kills some of it."""

    def __init__(self, resources: list[dict[str, float]]) -> None:
        arguments = json.dumps(resources)
        self._process = subprocess.Popen(
            [sys.executable, "-c", _CLUSTER, arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, "RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"},
        )
        assert self._process.stdout is not None
        self.address = ""
        while not self.address:
            line = self._process.stdout.readline()
            assert line, "the cluster does not start"
            self.address = line.partition("address ")[2].strip()

    def kill_last_node(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write("kill\n")
        self._process.stdin.flush()

    def close(self) -> None:
        try:
            self._process.communicate(timeout=30)  # it ends when its input does
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()


_CLUSTER = """
import json, sys
from ray.cluster_utils import Cluster

first, *others = json.loads(sys.argv[1])
small = {"num_cpus": 1, "object_store_memory": 100 << 20}
cluster = Cluster(initialize_head=True, head_node_args={**small, "include_dashboard": False, "resources": first})
nodes = [cluster.add_node(**small, resources=resources) for resources in others]
print("address", cluster.address, flush=True)
for line in sys.stdin:
    cluster.remove_node(nodes.pop(), allow_graceful=False)
cluster.shutdown()
"""


def start(project: Project, *arguments: str, **env: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "pytest_hfaccel", "run", *arguments],
        cwd=project.directory,
        env=environment(project.cache, RAY_AUTH_MODE="disabled", RAY_USAGE_STATS_ENABLED="0", **env),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def run(project: Project, *arguments: str, **env: str) -> HfRun:
    process = start(project, *arguments, **env)
    try:
        output, _ = process.communicate(timeout=200)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    return HfRun(process.returncode, output, project.directory / "reports")


@pytest.fixture
def models(project: Project) -> Project:
    project.write("registry.yaml", f"version: 1\nmodels:\n{MODELS}")
    return project


def without_times(result: CellResult) -> dict[str, Any]:
    """What must be the same wherever a cell ran."""
    data = result.to_json()
    del data["timings"]
    for check in data["checks"]:
        del check["seconds"]
    return data


def same_reports(serial: HfRun, other: HfRun) -> None:
    expected, found = serial.records, other.records
    assert [*found] == [*expected]
    for key, result in expected.items():
        assert without_times(found[key]) == without_times(result), key
    ours = serial.summary, other.summary
    for summary in ours:
        del summary["options"]["reports"]
        summary["machine"]["cpu"] = summary["machine"]["cpu"]["name"]  # its free memory is that of the moment
    for name in ours[0].keys() - {"run", "pool"}:
        assert ours[1][name] == ours[0][name], name
    for name in ("devices", "rootdir", "python"):
        assert ours[1]["run"][name] == ours[0]["run"][name], name


def nodes_of(run: HfRun) -> dict[str, dict[str, Any]]:
    return {node["name"]: node for node in run.summary["run"]["cluster"]["nodes"]}


@pytest.fixture
def three_nodes(request: pytest.FixtureRequest) -> Iterator[RayCluster]:
    cluster = RayCluster(getattr(request, "param", [{}, {}, {}]))
    yield cluster
    cluster.close()


@pytest.mark.nightly
def test_a_node_is_killed_and_the_reports_are_those_of_a_serial_run(models: Project, three_nodes: RayCluster) -> None:
    slow = json.dumps({"*": {"load_seconds": 1.0}})
    selection = (*SELECTION, "--hf-device", "fake:0,fake:1")
    serial = models.run(*selection, HFACCEL_FAKE=slow)
    assert serial.code == 0, serial.output
    process = start(
        models,
        "--engine",
        "ray",
        "--address",
        three_nodes.address,
        "--",
        *selection,
        "--hf-reports=ray",
        HFACCEL_FAKE=slow,
    )
    journal = models.directory / "ray" / "journal.jsonl"
    until = time.monotonic() + 120
    while not (journal.exists() and len(read_journal(journal).results) >= 3):
        assert time.monotonic() < until
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.2)
    done = len(read_journal(journal).results)
    three_nodes.kill_last_node()
    output, _ = process.communicate(timeout=200)
    assert done < 10, "the node was to be killed in the middle"
    assert process.returncode == 0, output
    assert "lost a group (NodeDiedError)" in output
    found = HfRun(process.returncode, output, models.directory / "ray")
    same_reports(serial, HfRun(0, "", models.directory / "ray"))
    lines = read_journal(journal)
    assert len(lines.results) == len({result.key for result in lines.results}) == 12
    assert lines.is_complete
    assert sum(node["cells"] for node in nodes_of(found).values()) == 12


@pytest.mark.nightly
@pytest.mark.parametrize("three_nodes", [[{}, {}, {"hfaccel:fake:1": 1}]], indirect=True)
def test_only_the_cells_of_a_declared_device_run_on_its_node(models: Project, three_nodes: RayCluster) -> None:
    selection = (*SELECTION, "--hf-device", "fake:0,fake:1,cuda:0")
    found = run(models, "--engine", "ray", "--address", three_nodes.address, "--", *selection)
    assert found.code == 0, found.output
    special = next(node for node in nodes_of(found).values() if node["devices"] == ["fake:1"])
    ran = dict(re.findall(r"(bert-\S+) passed on (node \d)", found.output))
    assert len(ran) == 12, found.output
    assert {cell for cell, node in ran.items() if node == special["name"]} == {
        cell for cell in ran if "-fake1-" in cell
    }
    assert special["cells"] == 6
    for cell in (result for result in found.results.values() if result.device == "cuda:0"):
        assert cell.status == "unavailable"
        assert "no node of the cluster has cuda:0. The nodes have: node 1: cpu" in (cell.reason or "")
        assert f"{special['name']}: fake:1" in (cell.reason or "")
