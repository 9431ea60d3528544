"""What a name of hardware means, and predictions from data sheets."""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module
from urllib.parse import urlparse

import pytest

from pytest_hfaccel.core.errors import ConfigError
from pytest_hfaccel.core.presence import Presence
from pytest_hfaccel.core.spec import DTYPES, Device
from pytest_hfaccel.predict.layers.datasheet import DatasheetLayer, Reached, roofline_seconds, shares_of
from pytest_hfaccel.predict.platforms import KINDS, DeviceSpecification, Platforms, load_specifications
from pytest_hfaccel.tracing.trace import ModelTrace, Operator
from tests.unit.predict.predict_samples import GIB, block_trace, question

HERE = (
    Presence(Device("cpu"), True, "", "AMD EPYC", 16 * GIB, {"cores": 4}),
    Presence(Device("openvino", "CPU"), True, "", "AMD EPYC", 16 * GIB, {"cores": 4}),
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
    gpu = Presence(Device("cuda", "0"), True, "", "NVIDIA L4", 24 * GIB)
    platforms = Platforms(load_specifications(), (*HERE, gpu))
    assert platforms.of("cuda").device == platforms.of("cuda:0").device == "cuda:0"
    assert platforms.of("cuda:h100-sxm").device == "cuda:h100-sxm"
    chip = platforms.of("cuda").chip
    assert chip is not None
    assert chip.slug == "l4"


def test_a_device_of_the_database_comes_before_the_default() -> None:
    other = Presence(Device("cuda", "0"), False, "", "NVIDIA H200")
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


TABLE = load_specifications()
VENDORS = ("nvidia.com", "amd.com", "intel.com", "apple.com")
PLAIN = DeviceSpecification("x", "X", ("cuda",), "", "2020-01", 1e9, None, {"fp32": 1e12, "fp16": 4e12})


@pytest.mark.parametrize("device", TABLE.by_slug.values(), ids=lambda device: device.slug)
def test_a_data_sheet_is_complete(device: DeviceSpecification) -> None:
    address = urlparse(device.source)
    assert address.scheme == "https"
    assert (address.hostname or "").endswith(VENDORS)
    year, month = map(int, device.published.split("-"))
    assert 2017 <= year <= 2026
    assert 1 <= month <= 12
    assert set(device.kinds) <= set(KINDS)
    assert set(device.flops) <= {*DTYPES, "tf32"}
    assert device.bandwidth > 1e10
    assert device.memory_bytes or device.cores
    # Fewer bits are never slower, and of the same dtype no chip is beyond what any vendor states.
    speeds = [device.flops[dtype] for dtype in ("fp32", "tf32", "fp16", "int8") if dtype in device.flops]
    assert speeds == sorted(speeds)
    assert all(speed < 3e15 for speed in speeds)


def test_the_defaults_are_of_their_kind() -> None:
    for kind, slug in TABLE.defaults.items():
        assert kind in TABLE.get(slug, kind).kinds


@pytest.mark.parametrize(
    ("driver", "kind", "slug"),
    [
        ("NVIDIA A100-SXM4-80GB", "cuda", "a100-80gb"),
        ("NVIDIA A100 80GB PCIe", "cuda", "a100-80gb-pcie"),
        ("NVIDIA A10", "cuda", "a10"),
        ("NVIDIA L4", "cuda", "l4"),
        ("NVIDIA L40S", "cuda", "l40s"),
        ("NVIDIA H100 80GB HBM3", "cuda", "h100-sxm"),
        ("NVIDIA H200", "cuda", "h200"),
        ("Tesla T4", "cuda", "t4"),
        ("Apple M1", "mps", "m1"),
        ("Apple M1 Max", "mps", "m1-max"),
        ("AMD EPYC 9654 96-Core Processor", "cpu", "epyc-9654"),
        ("Intel(R) Xeon(R) Platinum 8480+", "openvino", "xeon-8480+"),
    ],
)
def test_a_device_is_found_by_its_drivers_name(driver: str, kind: str, slug: str) -> None:
    found = TABLE.of_driver(driver, kind)
    assert found is not None
    assert found.slug == slug


def test_other_names_are_not_guessed() -> None:
    assert TABLE.of_driver("AMD EPYC", "cpu") is None
    assert TABLE.of_driver("NVIDIA A100-SXM4-80GB", "rocm") is None
    with pytest.raises(ConfigError, match="Did you mean 'h100-sxm'"):
        TABLE.get("h100-smx", "cuda")
    with pytest.raises(ConfigError, match="not a device whose data sheet is known for rocm"):
        TABLE.get("h100-sxm", "rocm")


def test_the_speed_of_a_dtype() -> None:
    assert PLAIN.peak("fp32") == PLAIN.peak("int8") == PLAIN.peak("bf16") == 1e12
    assert PLAIN.peak("fp16") == 4e12
    assert replace(PLAIN, flops={}).peak("fp32") is None


def test_a_cpu_of_fewer_cores_is_slower_in_proportion() -> None:
    whole = TABLE.get("epyc-9654")
    part = whole.with_cores(24)
    assert part.peak("fp32") == pytest.approx((whole.peak("fp32") or 0) / 4)
    assert part.bandwidth == whole.bandwidth
    assert part.name == "24 of the 96 cores of AMD EPYC 9654"


def trace(*operators: Operator, dtype: str = "fp32") -> ModelTrace:
    return ModelTrace("X", 1, 1, dtype, False, 0, 0, 0, 0, 0, operators)


def test_the_roofline_by_hand() -> None:
    computing = Operator("mm", (), (), 2 * 10**12, 1, 1)
    moving = Operator("add", (), (), 0, 2 * 10**9, 10**9, count=2)
    view = Operator("view", (), (), 0, 10**12, 0, is_view=True)
    assert roofline_seconds(trace(computing, moving, view), PLAIN) == pytest.approx(2.0 + 6.0)
    reached = Reached(compute=0.5, half=0.25, memory=0.5, launch_seconds=0.1)
    assert roofline_seconds(trace(computing, moving, view), PLAIN, reached) == pytest.approx(4.0 + 12.0 + 0.3)
    assert roofline_seconds(trace(computing, dtype="fp16"), PLAIN, reached) == pytest.approx(2.0 + 0.1)
    # bf16 has no speed of its own here: that of fp32, and the share that is reached at fp32.
    assert roofline_seconds(trace(computing, dtype="bf16"), PLAIN, reached) == pytest.approx(4.0 + 0.1)
    assert roofline_seconds(trace(computing), replace(PLAIN, flops={})) is None


@pytest.mark.parametrize("kind", sorted({kind for device in TABLE.by_slug.values() for kind in device.kinds}))
def test_shares_have_a_source_and_an_interval_around_them(kind: str) -> None:
    shares = shares_of(kind)
    assert shares.low < 1 < shares.high
    assert "placeholder" not in shares.source + shares.origin
    assert shares.source
    assert 0 < shares.reached.memory <= 1.5
    assert 0 < shares.reached.compute <= 1.5


def test_where_nothing_was_measured_the_interval_is_wider() -> None:
    own, borrowed = shares_of("cuda"), shares_of("mps")
    assert borrowed.reached == own.reached
    assert borrowed.high == pytest.approx(own.high**2)
    assert "because nothing measured on mps was at hand" in borrowed.source


def test_the_layer_names_the_chip_and_its_numbers() -> None:
    layer = DatasheetLayer(TABLE.get("h100-sxm"), "the default for cuda")
    asked = question(device="cuda:h100-sxm")
    found = layer.predict(asked, block_trace("BertForMaskedLM", {}, batch=1, length=128))
    assert found is not None
    assert found.latency_ms is not None
    assert found.latency_ms.low < found.latency_ms.value < found.latency_ms.high
    assert found.latency_ms.value > found.details["roofline_ms"]
    assert "NVIDIA H100 SXM 80 GB (2022-03), the default for cuda: 67 TFLOP/s at fp32" in found.basis
    assert "3350 GB/s" in found.basis
    assert found.details["data_sheet"].startswith("https://www.nvidia.com")
    assert found.memory_mb is not None


def test_a_chip_without_a_published_speed_has_memory_only() -> None:
    layer = DatasheetLayer(TABLE.get("m4"))
    asked = question(device="mps:m4")
    found = layer.predict(asked, block_trace("BertForMaskedLM", {}, batch=1, length=128))
    assert found is not None
    assert found.latency_ms is None
    assert found.memory_mb is not None
    assert "no speed at fp32 is published for Apple M4" in layer.why_not(asked)
    assert layer.predict(asked, None) is None


@pytest.mark.slow
def test_the_fit_finds_the_shares_rows_were_made_with() -> None:
    shares = import_module("benchmarks.datasheet_shares")

    truth = Reached(compute=0.6, half=0.35, memory=0.4, launch_seconds=2e-5)
    rows = [
        shares.TimedTrace(each, device, roofline_seconds(each, device, truth) or 0.0)
        for slug in ("a100-40gb", "t4")
        for device in [TABLE.get(slug)]
        for dtype in ("fp32", "fp16")
        for batch, length in ((1, 32), (8, 128), (32, 384))
        for each in [block_trace("BertForMaskedLM", {}, batch=batch, length=length, dtype=dtype)]
    ]
    found = shares.fit_shares(rows)
    for name in ("compute", "half", "memory", "launch_seconds"):
        assert getattr(found, name) == pytest.approx(getattr(truth, name), rel=0.05), name
    low, high = shares.held_out_interval(rows)
    assert 0.9 < low <= high < 1.1
