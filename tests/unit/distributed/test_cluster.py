"""Which nodes take which cells, and what a group of cells asks for."""

from __future__ import annotations

import socket
import sys

import pytest

from pytest_hfaccel.cli import main
from pytest_hfaccel.core.presence import HardwareReport, Presence
from pytest_hfaccel.core.spec import CPU, Device
from pytest_hfaccel.distributed.cluster import PROCESS_BYTES, Cluster, Node
from pytest_hfaccel.distributed.selection import SelectedCell

GIB = 1 << 30
CUDA, NPU = Device("cuda", "0"), Device("openvino", "NPU")


def node(number: int, *present: Device, **resources: float) -> Node:
    found = [Presence(device, True, "found") for device in (CPU, *present)]
    absent = [Presence(device, False, "no driver") for device in (CUDA, NPU) if device not in present]
    offered = {"CPU": 2.0, "memory": 8.0 * GIB, **{name.replace("__", ":"): n for name, n in resources.items()}}
    return Node(str(number), f"node {number}", "10.0.0.1", offered, HardwareReport((*found, *absent)))


def cell(model: str, device: Device, memory_bytes: int = 0) -> SelectedCell:
    name = f"{model}-{device.slug}-fp32"
    return SelectedCell("bert", name, model, "BertModel", device.id, "hash", (name,), memory_bytes=memory_bytes)


def test_a_cell_goes_where_its_device_is_found() -> None:
    cluster = Cluster([node(1), node(2, CUDA, GPU=1.0)])
    assert [each.name for each in cluster.nodes_with(CPU)] == ["node 1", "node 2"]
    needs = cluster.needs_of(CUDA, 0)
    assert needs is not None
    assert (needs.nodes, needs.gpus, needs.memory_bytes) == (("2",), 1, PROCESS_BYTES)
    assert cluster.needs_of(NPU, 0) is None
    assert cluster.describe() == "node 1: cpu; node 2: cpu, cuda:0"


def test_what_a_node_declares_is_all_it_takes_and_others_do_not_take_it() -> None:
    declaring = node(3, NPU, hfaccel__openvino__NPU=2.0)
    cluster = Cluster([node(1, NPU), declaring])
    assert cluster.nodes_with(NPU) == [declaring]
    assert [each.name for each in cluster.nodes_with(CPU)] == ["node 1"]
    needs = cluster.needs_of(NPU, 0)
    assert needs is not None
    assert needs.resources == (("hfaccel:openvino:NPU", 1.0),)
    by_kind = Cluster([node(1), node(2, NPU, openvino=1.0)])
    assert [each.name for each in by_kind.nodes_with(NPU)] == ["node 2"]


def test_all_nodes_together_are_one_machine_to_those_who_collect() -> None:
    report = Cluster([node(1), node(2, CUDA), node(3, hfaccel__fake__1=1.0)]).hardware()
    assert {device.id for device in report.present()} == {"cpu", "cuda:0", "fake:1"}
    assert report.best() == CUDA
    absent = report.find(NPU)
    assert absent is not None
    assert absent.reason == "no driver"
    assert HardwareReport.from_json(report.to_json()) == report


def test_a_model_stays_together_where_its_cells_need_the_same() -> None:
    cluster = Cluster([node(1), node(2, CUDA, GPU=1.0)])
    cells = [cell(model, device) for model in ("a", "b", "c") for device in (CPU, CUDA, NPU)]
    groups, no_node = cluster.group(cells, {one.key: 10.0 for one in cells})
    assert [one.device for one in no_node] == [NPU.id] * 3
    assert sorted((group.cells[0].device, len(group.cells), group.needs.nodes) for group in groups) == [
        *[("cpu", 1, ("1", "2"))] * 3,
        *[("cuda:0", 1, ("2",))] * 3,
    ]
    class_level = cell("a", Device("class"))
    (group,), _ = cluster.group([cell("a", CPU), class_level], {})
    assert class_level in group.cells


def test_a_request_that_is_too_large_for_every_node_gets_the_largest() -> None:
    small, large = node(1), Node("2", "node 2", "", {"CPU": 4.0, "memory": 16.0 * GIB}, node(2).hardware)
    needs = Cluster([small, large], cpus=64).needs_of(CPU, 100 * GIB)
    assert needs is not None
    assert (needs.nodes, needs.cpus, needs.memory_bytes) == (("2",), 4.0, 16 * GIB)


def test_an_address_where_nothing_is_is_refused_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("ray", reason="needs pytest-hfaccel[ray]")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"  # nobody listens there
        for given, said in ((address, "nothing answers there"), ("ray://x:1", "this is no address of a cluster")):
            assert main(["run", "--engine", "ray", "--address", given]) == 4
            assert f"--address {given}: {said}" in capsys.readouterr().err


def test_ray_that_is_not_installed_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    assert main(["run", "--engine", "ray"]) == 4
    assert "pip install 'pytest-hfaccel[ray]'" in capsys.readouterr().err
