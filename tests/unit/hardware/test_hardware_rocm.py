"""AMD GPUs, from the kernel driver's files."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_hfaccel.hardware.amd import list_gpus, probe_rocm
from pytest_hfaccel.hardware.torch_build import TorchBuild

ROCM_BUILD = TorchBuild("2.13.0+rocm7.0", hip="7.0")
NODES = "sys/class/kfd/kfd/topology/nodes"


def add_node(root: Path, index: int, simds: int, version: int = 0, memory: int = 0) -> None:
    node = root / NODES / str(index)
    bank = node / "mem_banks/0"
    bank.mkdir(parents=True)
    (node / "properties").write_text(
        f"cpu_cores_count {0 if simds else 64}\nsimd_count {simds}\ngfx_target_version {version}\nunique_id {index}\n"
    )
    (bank / "properties").write_text(f"heap_type {1 if simds else 0}\nsize_in_bytes {memory}\n")


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """Two sockets, an MI250 and a Radeon."""
    add_node(tmp_path, 0, 0, memory=5)
    add_node(tmp_path, 2, 440, 90010, 64 * 2**30)
    add_node(tmp_path, 10, 96, 110000, 24 * 2**30)
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/kfd").touch()
    return tmp_path


def test_gpu_nodes_in_the_drivers_order(machine: Path) -> None:
    assert [(gpu.architecture, gpu.memory_bytes) for gpu in list_gpus(machine)] == [
        ("gfx90a", 64 * 2**30),
        ("gfx1100", 24 * 2**30),
    ]


def test_present(machine: Path) -> None:
    first, second = probe_rocm(ROCM_BUILD, machine, {})
    assert (first.device.id, first.present, first.name) == ("rocm:0", True, "AMD gfx90a")
    assert (second.device.id, second.memory_bytes) == ("rocm:1", 24 * 2**30)


def test_a_torch_for_cuda_is_the_reason(machine: Path) -> None:
    (answer,) = probe_rocm(TorchBuild("2.13.0+cu130", cuda="13.0"), machine, {})
    assert not answer.present
    assert "2 AMD GPUs are present, but this torch (2.13.0+cu130) is built without ROCm" in answer.reason


def test_without_the_device_file_the_gpu_cannot_be_used(machine: Path) -> None:
    (machine / "dev/kfd").unlink()
    (answer,) = probe_rocm(ROCM_BUILD, machine, {})
    assert "/dev/kfd is missing" in answer.reason


def test_hidden(machine: Path) -> None:
    (answer,) = probe_rocm(ROCM_BUILD, machine, {"HIP_VISIBLE_DEVICES": ""})
    assert not answer.present
    assert "HIP_VISIBLE_DEVICES='' shows 0 of 2" in answer.reason


def test_a_machine_without_amd_gpus(tmp_path: Path) -> None:
    add_node(tmp_path, 0, 0)
    (answer,) = probe_rocm(ROCM_BUILD, tmp_path, {"HIP_VISIBLE_DEVICES": "0"})
    assert not answer.present
    assert answer.reason.startswith("no AMD GPU")
