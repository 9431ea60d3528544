"""Which device a model goes to, on machines made for the test."""

from __future__ import annotations

from typing import Any

import pytest

from pytest_hfaccel.compat.device_choice import Choice, Devices
from pytest_hfaccel.core.errors import BackendUnavailable
from pytest_hfaccel.core.spec import Device
from pytest_hfaccel.pool import HardwarePreferences
from tests.unit.compat.pool_machines import cpu_only, two_gpus


def choose(devices: Devices, **preferences: Any) -> Choice:
    return devices.choose(HardwarePreferences.parse(preferences))


@pytest.mark.parametrize(
    ("preferences", "expected"),
    [
        ({}, "cuda:0"),
        ({"device": "cpu"}, "cpu"),
        ({"device": "cuda:1"}, "cuda:1"),
        ({"device": "cuda", "preferred_index": 1}, "cuda:1"),
        ({"device": "cuda:0", "preferred_index": 1}, "cuda:0"),
        ({"preferred_index": 1}, "cuda:1"),
        ({"priority_list": ["cpu", "cuda"]}, "cpu"),
        ({"device": "cuda:1", "priority_list": ["cpu"]}, "cuda:1"),
        ({"force_device": "cpu", "device": "cuda"}, "cpu"),
    ],
)
def test_the_first_device_wanted_is_taken(preferences: dict[str, Any], expected: str) -> None:
    choice = choose(two_gpus(), **preferences)
    assert (choice.device.id, choice.is_emulated, choice.passed_over) == (expected, False, {})


@pytest.mark.parametrize(
    ("preferences", "expected", "passed_over"),
    [
        ({"priority_list": ["mps", "cuda"]}, "cuda:0", {"mps": "not macOS"}),
        ({"device": "mps", "priority_list": ["cpu"]}, "cpu", {"mps": "not macOS"}),
        ({"device": "cuda", "preferred_index": 7}, "cuda:0", {"cuda:7": "not among those found: cuda:0, cuda:1"}),
        (
            {"hw_compatibility": {"cuda": {"compatible": False}}},
            "cpu",
            {"cuda:0": "'hw_compatibility' says that the model does not run there"},
        ),
        (
            {"hw_compatibility": {"cuda": {"compatible": True, "memory_usage": {"peak": 10000}}}},
            "cpu",
            {"cuda:0": "has 8192 MB, and the model takes 10000 MB by 'hw_compatibility'"},
        ),
        (
            {"browser_optimized": True},
            "cuda:0",
            {
                "webgpu": "is emulated (SwiftShader), and 'fallback_to_simulation' is not set",
                "webnn": "it is not looked for on this machine",
            },
        ),
    ],
)
def test_a_fallback_has_its_reason(preferences: dict[str, Any], expected: str, passed_over: dict[str, str]) -> None:
    choice = choose(two_gpus(), **preferences)
    assert (choice.device.id, choice.passed_over) == (expected, passed_over)


def test_an_emulated_device_is_labelled() -> None:
    choice = choose(two_gpus(), device="webgpu", fallback_to_simulation=True)
    assert (choice.device, choice.is_emulated) == (Device("webgpu"), True)


def test_nothing_is_simulated() -> None:
    with pytest.raises(BackendUnavailable, match="accepts an emulated device, but makes none up"):
        choose(cpu_only(), device="webgpu", fallback_to_simulation=True)


def test_a_device_that_is_named_has_no_silent_fallback() -> None:
    with pytest.raises(BackendUnavailable) as caught:
        choose(cpu_only(), device="cuda")
    assert "cuda:0: no NVIDIA driver" in caught.value.message
    assert "This machine has: cpu." in str(caught.value)
    assert "priority_list" in str(caught.value)


def test_force_overrides_compatibility_but_not_absence() -> None:
    profile = {"cuda": False}
    assert choose(two_gpus(), force_device="cuda", hw_compatibility=profile).device.id == "cuda:0"
    with pytest.raises(BackendUnavailable, match="no NVIDIA driver"):
        choose(cpu_only(), force_device="cuda", priority_list=["cpu"])


def test_the_runtime_has_the_last_word() -> None:
    choice = choose(two_gpus("cuda:0"), priority_list=["cuda", "cuda:1"])
    assert (choice.device.id, choice.passed_over) == ("cuda:1", {"cuda:0": "asked"})


def test_alternatives_are_the_other_devices_that_fit() -> None:
    assert two_gpus().alternatives("cuda:0", HardwarePreferences()) == ["cuda:1", "cpu"]
    assert two_gpus().alternatives("cuda", HardwarePreferences()) == ["cpu"]
    assert cpu_only().alternatives("cpu", HardwarePreferences()) == []
