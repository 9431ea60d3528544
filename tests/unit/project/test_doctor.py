"""`hfaccel doctor`: each kind of trouble is found, named and given a remedy; a sound environment has none."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable
from importlib.metadata import Distribution, PathDistribution
from pathlib import Path

import pytest

from pytest_hfaccel.cli import main
from pytest_hfaccel.core.files import build_once
from pytest_hfaccel.core.presence import HardwareReport, Presence
from pytest_hfaccel.core.spec import CPU, Device
from pytest_hfaccel.hardware.nvidia import why_driver_is_too_old
from pytest_hfaccel.hardware.torch_build import TorchBuild
from pytest_hfaccel.project import doctor
from pytest_hfaccel.project.doctor import Finding
from pytest_hfaccel.project.settings import find_settings

Install = Callable[..., Distribution]


@pytest.fixture
def install(tmp_path: Path) -> Install:
    """Make the metadata of an installed package."""

    def make(
        name: str, version: str, *requires: str, python: str = ">=3.11", extras: Iterable[str] = ()
    ) -> Distribution:
        folder = tmp_path / f"{name}-{version}.dist-info"
        folder.mkdir()
        lines = [f"Name: {name}", f"Version: {version}", f"Requires-Python: {python}"]
        lines += [f"Provides-Extra: {extra}" for extra in extras]
        lines += [f"Requires-Dist: {text}" for text in requires]
        (folder / "METADATA").write_text("Metadata-Version: 2.1\n" + "\n".join(lines) + "\n", encoding="utf-8")
        return PathDistribution(folder)

    return make


def by_name(*packages: Distribution) -> dict[str, Distribution]:
    return {package.metadata["Name"]: package for package in packages}


def bad(findings: Iterable[Finding]) -> list[tuple[str, str, str]]:
    return [(found.status, found.message, found.remedy) for found in findings if found.status != "ok"]


def test_versions_out_of_range(install: Install) -> None:
    ours = install(
        "pytest-hfaccel", "1", "torch>=2.9", "pyyaml>=6", "openvino>=2026.3; extra == 'openvino'", extras=["openvino"]
    )
    torch = install("torch", "2.1", "numpy>=2")
    here = by_name(ours, torch, install("numpy", "1.26"), install("openvino", "2025.1"))
    assert bad(doctor.examine_packages(here)) == [
        ("broken", "torch 2.1 is installed; pytest-hfaccel needs torch>=2.9", "pip install 'torch>=2.9'"),
        ("broken", "pyyaml>=6 is not installed; pytest-hfaccel needs it", "pip install 'pyyaml>=6'"),
        ("broken", "numpy 1.26 is installed; torch needs numpy>=2", "pip install 'numpy>=2'"),
        (
            "warning",
            "openvino 2025.1 is installed; pytest-hfaccel[openvino] needs openvino>=2026.3",
            "pip install 'openvino>=2026.3'",
        ),
    ]


def test_an_extra_that_is_missing_is_worth_a_note(install: Install) -> None:
    ours = install("pytest-hfaccel", "1", "pillow>=11; extra == 'models'", extras=["models"])
    (note,) = bad(doctor.examine_packages(by_name(ours)))
    assert note[0] == "note"
    assert note[1].startswith("without pillow: models that need it are skipped")
    assert note[2] == "pip install 'pytest-hfaccel[models]'"


def test_the_wrong_python_and_packages_over_each_other(install: Install) -> None:
    here = by_name(
        install("pytest-hfaccel", "1", python=">=4"), install("onnxruntime", "1"), install("onnxruntime-gpu", "1")
    )
    found = bad(doctor.examine_packages(here))
    assert [(status, remedy) for status, _, remedy in found] == [
        ("broken", "use Python >=4"),
        ("broken", "pip uninstall onnxruntime onnxruntime-gpu, then install the one you want"),
    ]
    assert bad(doctor.examine_packages({}))[0][1] == "pytest-hfaccel is not installed, only importable"


def test_a_plugin_that_is_kept_from_loading() -> None:
    environ = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_ADDOPTS": "-q -p no:hfaccel"}
    broken = [found for found in doctor.examine_plugins(environ) if found.status == "broken"]
    assert [found.message.partition(" ")[0] for found in broken] == ["PYTEST_DISABLE_PLUGIN_AUTOLOAD", "PYTEST_ADDOPTS"]
    loaded = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_PLUGINS": "hfaccel"}
    assert not [found for found in doctor.examine_plugins(loaded) if found.status == "broken"]


def test_hardware_that_torch_cannot_use() -> None:
    reason = "an NVIDIA driver is present (1 GPU), but this torch (2.13.0+cpu) is built without CUDA"
    report = HardwareReport(
        (
            Presence(CPU, True, "2 cores", "a CPU"),
            Presence(Device("cuda", "0"), False, reason, "NVIDIA H200"),
            Presence(Device("rocm", "0"), False, "no AMD driver"),
            Presence(Device("openvino", "CPU"), False, "openvino is not installed"),
            Presence(Device("wasm"), False, "onnxruntime-web is not installed; npm install onnxruntime-web"),
        )
    )
    found = bad(doctor.examine_devices(report))
    assert ("warning", f"NVIDIA H200 is not used: {reason}") in [each[:2] for each in found]
    assert ("note", "no openvino: its packages are not installed", "pip install 'pytest-hfaccel[openvino]'") in found
    assert ("note", "no wasm: onnxruntime-web is not installed", "npm install onnxruntime-web") in found
    assert len(found) == 3, "an AMD GPU that is not there is no trouble"


@pytest.mark.parametrize(("cuda", "driver", "old"), [("13.0", 12040, True), ("12.9", 12040, False), ("", 12040, False)])
def test_a_driver_that_is_too_old(cuda: str, driver: int, old: bool) -> None:
    class Nvml:
        def nvmlInit_v2(self) -> int:  # noqa: N802 - NVIDIA's name
            return 0

        def nvmlShutdown(self) -> int:  # noqa: N802
            return 0

        def nvmlSystemGetCudaDriverVersion_v2(self, number: object) -> int:  # noqa: N802
            number._obj.value = driver  # type: ignore[attr-defined]
            return 0

    problem = why_driver_is_too_old(TorchBuild("2.13", cuda=cuda), Nvml())
    assert problem == ("torch 2.13 is built for CUDA 13.0; the driver goes up to CUDA 12.4" if old else "")


def test_a_cache_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    (found,) = [each for each in doctor.examine_cache(tmp_path / "file" / "cache") if each.status == "broken"]
    assert found.message.endswith(f"{tmp_path / 'file'} is a file")
    assert found.remedy == "make it writable, or set HFACCEL_CACHE"


def test_stale_entries_are_found_and_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HFACCEL_CACHE", str(tmp_path))
    for name in ("whole", "damaged", "old"):
        build_once(tmp_path / "checkpoints" / name, lambda folder: (folder / "weights").write_bytes(b"12345678"))
    (tmp_path / "checkpoints" / "damaged" / "weights").write_bytes(b"1234")
    (tmp_path / "checkpoints" / ".killed-x").mkdir()
    long_ago = time.time() - 100 * 86400
    for path in (*(tmp_path / "checkpoints" / "old").iterdir(), tmp_path / "checkpoints" / ".killed-x"):
        os.utime(path, (long_ago, long_ago))
    stale = {path.name: why for path, why in doctor.stale_entries(tmp_path).items()}
    assert stale == {".killed-x": "abandoned", "damaged": "damaged", "old": "unused"}
    assert len([found for found in doctor.examine_cache(tmp_path) if "--stale" in found.remedy]) == 3
    assert main(["clean", "--stale", "--dry-run"]) == 0
    assert len(doctor.stale_entries(tmp_path)) == 3
    assert main(["clean", "--stale"]) == 0
    assert [path.name for path in (tmp_path / "checkpoints").iterdir() if path.is_dir()] == ["whole"]
    assert "freed" in capsys.readouterr().out


def test_cleaning_leaves_what_is_not_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HFACCEL_CACHE", str(tmp_path))
    for name in ("checkpoints", "mine"):
        (tmp_path / name).mkdir()
    assert main(["clean"]) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_settings_that_mean_nothing_and_values_that_cannot_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "pytest.ini").write_text("[pytest]\nhf_devcie = cpu\n", encoding="utf-8")
    found = bad(doctor.examine_settings(find_settings(tmp_path), {"HFACCEL_WIEGHTS": "tiny"}))
    assert [remedy for _, _, remedy in found] == ["did you mean hf_device?", "did you mean HFACCEL_WEIGHTS?"]
    monkeypatch.setenv("HFACCEL_WEIGHTS", "smal")
    assert main(["doctor", str(tmp_path), "--no-pytest", "--json"]) == 1
    findings = json.loads(capsys.readouterr().out)["findings"]
    assert [each["message"] for each in findings if each["subject"] == "settings" and each["status"] == "broken"] == [
        "HFACCEL_WEIGHTS: 'smal' is not allowed. Allowed: auto, pretrained, random, tiny."
    ]


def test_a_broken_registry_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "pytest.ini").write_text("[pytest]\nhf_registry = r.yaml\n", encoding="utf-8")
    (tmp_path / "r.yaml").write_text("version: 1\nmodels:\n  x: {architecture: 3, dimz: {}}\n", encoding="utf-8")
    assert main(["doctor", str(tmp_path), "--no-pytest"]) == 1
    output = capsys.readouterr().out
    assert "broken   registry" in output
    assert "Did you mean 'dims'?" in output
    assert "2 broken" in output


def test_an_option_that_another_plugin_has_is_found_by_starting_pytest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert [found.status for found in doctor.examine_pytest()] == ["ok"]
    (tmp_path / "rival.py").write_text(
        "def pytest_addoption(parser):\n    parser.addoption('--all-models', action='store_true')\n", encoding="utf-8"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("PYTEST_PLUGINS", "rival")
    (found,) = doctor.examine_pytest()
    assert found.status == "broken"
    assert "--all-models" in found.message


def test_the_hub_is_switched_off() -> None:
    (found,) = doctor.examine_hub()  # as in all tests of this project
    assert (found.status, found.remedy) == ("note", "unset it to use the hub")
