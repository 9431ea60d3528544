"""Which device or chip a name of hardware means, and what is said about it."""

from __future__ import annotations

import pytest

from pytest_hfaccel.core.errors import ConfigError
from pytest_hfaccel.core.spec import Device
from pytest_hfaccel.predict.platforms import KINDS, KnownDevice, Platforms, load_specifications
from tests.unit.predictor_samples import GIB

HERE = (
    KnownDevice(Device("cpu"), "AMD EPYC", True, 16 * GIB, 4),
    KnownDevice(Device("openvino", "CPU"), "AMD EPYC", True, 16 * GIB, 4),
)
PLATFORMS = Platforms(load_specifications(), HERE)


def test_a_device_of_this_machine() -> None:
    found = PLATFORMS.of("cpu")
    assert (found.device, found.is_present, found.memory_bytes) == ("cpu", True, 16 * GIB)
    assert found.chip is not None
    assert found.chip.cores == 4
    assert found.title == "cpu (AMD EPYC)"
    assert "stands for AMD EPYC" in found.why_chip


def test_a_kind_that_is_not_here_is_its_default_chip() -> None:
    found = PLATFORMS.of("cuda")
    assert (found.device, found.is_present, found.device_name) == ("cuda:a100-80gb", False, "")
    assert found.memory_bytes == 80 * 10**9
    assert "the default for cuda" in found.why_chip


def test_the_configuration_chooses_the_chip_of_a_kind() -> None:
    chosen = Platforms(load_specifications(), HERE, {"cuda": "l4"})
    found = chosen.of("cuda")
    assert found.device == "cuda:l4"
    assert "chosen in the configuration file" in found.why_chip
    with pytest.raises(ConfigError, match="'mi300x' is not a device whose data sheet is known for cuda"):
        Platforms(load_specifications(), HERE, {"cuda": "mi300x"}).of("cuda")


@pytest.mark.parametrize("name", ["cuda:h100-sxm", "h100-sxm", "CUDA:H100-SXM"])
def test_a_chip(name: str) -> None:
    found = PLATFORMS.of(name)
    assert (found.name, found.kind, found.device, found.why_chip) == (name, "cuda", "cuda:h100-sxm", "")


def test_a_chip_named_although_another_is_here() -> None:
    gpu = KnownDevice(Device("cuda", "0"), "NVIDIA L4", True, 24 * GIB)
    platforms = Platforms(load_specifications(), (*HERE, gpu))
    assert platforms.of("cuda").device == platforms.of("cuda:0").device == "cuda:0"
    assert platforms.of("cuda:h100-sxm").device == "cuda:h100-sxm"
    chip = platforms.of("cuda").chip
    assert chip is not None
    assert chip.slug == "l4"


def test_a_device_of_the_database_comes_before_the_default() -> None:
    other = KnownDevice(Device("cuda", "0"), "NVIDIA H200", False)
    found = Platforms(load_specifications(), (*HERE, other)).of("cuda")
    assert (found.device, found.device_name, found.is_present) == ("cuda:0", "NVIDIA H200", False)
    assert found.memory_bytes == 141 * 10**9


@pytest.mark.parametrize("name", ["webnn", "webgpu", "qualcomm", "openvino:GPU"])
def test_hardware_without_a_data_sheet(name: str) -> None:
    found = PLATFORMS.of(name)
    assert (found.chip, found.memory_bytes, found.is_present) == (None, None, False)


def test_every_kind_has_an_answer() -> None:
    for kind in KINDS:
        assert PLATFORMS.of(kind).kind == kind


@pytest.mark.parametrize(
    ("name", "message", "hint"),
    [
        ("tpu", "'tpu' is not a kind of hardware. Allowed: cpu, cuda", "cuda:h100-sxm"),
        ("cuda:h1000", "takes an index", "Chips of this kind: h200, h100-sxm"),
        ("cpu:7", "there is only one", "Chips of this kind: epyc-9654"),
        ("mps:h100-sxm", "'h100-sxm' is not a device whose data sheet is known for mps", "m1-max"),
    ],
)
def test_mistakes(name: str, message: str, hint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        PLATFORMS.of(name)
    assert message in caught.value.message
    assert hint in str(caught.value)
