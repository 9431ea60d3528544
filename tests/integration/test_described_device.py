"""A device of torch that only a description names: a chip in Python, reached through PrivateUse1 like a vendor's."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.harness import Project, environment, run_python

pytestmark = pytest.mark.slow

_CHIP = Path(__file__).parents[1] / "data" / "torch_toychip.py"
_REGISTRY = """
version: 1
devices:
  toy:
    module: toychip
    package: torch_toychip
    dtypes: [fp32, bf16]
    visible_devices: [TOYCHIP_VISIBLE_DEVICES]
"""
_ASKED = ("--hf-registry", "chips.yaml", "--hf-weights", "tiny")
_CELL = "bert-base-uncased-toy0-fp32"


@pytest.fixture
def toy(project: Project) -> Project:
    project.write("torch_toychip.py", _CHIP.read_text(encoding="utf-8"))
    project.write("chips.yaml", _REGISTRY)
    return project


def hardware(project: Project, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    known = environment(project.cache, PYTHONPATH=str(project.directory), **env)
    return run_python(["-m", "pytest_hfaccel", "hardware", *arguments], project.directory, known)


def test_a_tiny_bert_passes_on_it_and_the_fallback_is_counted(toy: Project) -> None:
    run = toy.run(*_ASKED, "--hf-device", "toy:0", "--hf-dtype", "fp32", TOYCHIP_LACKS="gelu")
    assert run.code == 0, run.output
    statuses = run.statuses(_CELL)
    assert {name: statuses[name] for name in ("placement", "forward", "parity", "canary", "pipeline")} == dict.fromkeys(
        ("placement", "forward", "parity", "canary", "pipeline"), "passed"
    )
    placement = run.results[_CELL].placement
    assert placement["actual_devices"] == ["toy:0"]
    details = placement["details"]
    assert details["name"] == "Toy Chip 1"
    assert set(details["cpu_fallback"]["operators"]) == {"aten::gelu"}
    assert details["nodes"]["cpu"] == details["cpu_fallback"]["nodes"] > 0
    assert details["nodes"]["toy:0"] > 50
    assert details["model_on_cpu"] == {}


def test_products_of_matrices_on_the_cpu_are_a_wrong_placement(toy: Project) -> None:
    run = toy.run(*_ASKED, "--hf-device", "toy", "-k", "placement", TOYCHIP_LACKS="addmm,linear")
    (placement,) = (check for check in run.results[_CELL].checks if check.name == "placement")
    assert placement.status == "failed"
    assert "the runtime reports cpu: operators that do much of the work ran on the CPU: aten::" in (
        placement.reason or ""
    )


def test_a_precision_that_its_description_lacks_is_unavailable(toy: Project) -> None:
    run = toy.run(*_ASKED, "--hf-device", "toy", "--hf-dtype", "fp16", "-k", "placement")
    assert run.code == 0, run.output
    (placement,) = (check for check in run.results["bert-base-uncased-toy0-fp16"].checks if check.name == "placement")
    assert placement.status == "unavailable"
    assert "does not compute at fp16. Allowed: fp32, bf16." in (placement.reason or "")


def test_workers_know_it(toy: Project) -> None:
    run = toy.run(*_ASKED, "--hf-device", "toy", "--hf-dtype", "fp32", "-n", "1", "-k", "forward or placement")
    assert run.code == 0, run.output
    assert run.statuses(_CELL) == {"placement": "passed", "forward": "passed"}


def test_hfaccel_hardware_lists_and_confirms_it(toy: Project) -> None:
    answer = hardware(toy, "--registry", "chips.yaml")
    assert ["toy:0", "confirmed", "Toy", "Chip", "1"] in [line.split()[:5] for line in answer.stdout.splitlines()]
    assert "A plain run tests on toy:0." in answer.stdout
    answer = hardware(toy, "--registry", "chips.yaml", TOYCHIP_DEVICES="0")
    assert "torch finds no toy device" in answer.stdout
    assert answer.returncode == 1
    answer = hardware(toy, "--probe-only", HFACCEL_REGISTRY="chips.yaml", TOYCHIP_VISIBLE_DEVICES="0,1")
    assert "toy:1" in answer.stdout


def test_all_hardware_includes_what_an_entry_point_describes(toy: Project) -> None:
    toy.write("toy_description.py", 'DEVICE = {"module": "toychip", "package": "torch_toychip"}\n')
    toy.write("toy-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: toy\nVersion: 1.0\n")
    toy.write("toy-1.0.dist-info/entry_points.txt", "[pytest_hfaccel.devices]\ntoy = toy_description:DEVICE\n")
    run = toy.run("--all-hardware", "--hf-weights", "tiny", "--hf-dtype", "fp32", "-k", "placement and toy")
    assert run.code == 0, run.output
    assert run.statuses(_CELL) == {"placement": "passed"}


def test_a_bad_entry_point_is_named(toy: Project) -> None:
    toy.write("toy_description.py", 'DEVICE = {"modul": "toychip"}\n')
    toy.write("toy-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: toy\nVersion: 1.0\n")
    toy.write("toy-1.0.dist-info/entry_points.txt", "[pytest_hfaccel.devices]\ntoy = toy_description:DEVICE\n")
    answer = hardware(toy)
    assert answer.returncode == 1
    assert "entry point 'toy' = 'toy_description:DEVICE'" in answer.stderr
    assert "'modul' is not a key here. Allowed: module, package, seed" in answer.stderr


_CONFORMANCE = """
from pathlib import Path

from pytest_hfaccel.registry.devices import register_devices
from pytest_hfaccel.testing import BackendConformance

register_devices([Path(__file__).with_name("chips.yaml")])


class TestToy(BackendConformance):
    device = "toy:0"

    def fallback_source(self, source):
        return source  # BERT has a gelu
"""


def test_it_conforms_like_every_backend(toy: Project) -> None:
    toy.write("test_conformance.py", _CONFORMANCE)
    command = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "test_conformance.py"]
    run = run_python(command, toy.directory, environment(toy.cache, TOYCHIP_LACKS="gelu"))
    assert run.returncode == 0, run.stdout
    assert "2 skipped" in run.stdout, run.stdout
