"""Memory budgets as users write them, and the memory that is there for them."""

from __future__ import annotations

from types import SimpleNamespace

import psutil
import pytest

from pytest_hfaccel.core.errors import ConfigError, format_bytes
from pytest_hfaccel.core.spec import Device
from pytest_hfaccel.pool import device_budget, parse_budget

GIB, MIB = 2**30, 2**20


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("8GiB", 8 * GIB),
        (" 1.5 gib ", 3 * GIB // 2),
        ("500MB", 500_000_000),
        ("2kB", 2000),
        ("1TiB", 2**40),
        ("4096B", 4096),
        ("50%", 0.5),
        ("12.5 %", 0.125),
        ("100%", 1.0),
        ("", 0.7),
    ],
)
def test_budgets_that_can_be(text: str, expected: float) -> None:
    assert parse_budget(text) == expected
    assert type(parse_budget(text)) is type(expected)


@pytest.mark.parametrize("text", ["8", "8GiBi", "8 apples", "-1GiB", "0%", "0MB", "101%", "1IB", "GiB", "50%%"])
def test_budgets_that_cannot_be(text: str) -> None:
    with pytest.raises(
        ConfigError, match=r"HFACCEL_POOL_MEMORY: .* is not a memory budget\. Allowed: bytes with a unit"
    ):
        device_budget(text)


def test_bytes_hold_for_every_device() -> None:
    budget = device_budget("2GiB")
    assert budget(Device("cpu")) == budget(Device("cuda", "0")) == 2 * GIB


def test_a_share_is_of_the_host_or_of_what_the_caller_says(monkeypatch: pytest.MonkeyPatch) -> None:
    # Less than any control group leaves.
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(total=10 * MIB, available=10 * MIB))
    budget = device_budget("50%", lambda device: 4 * GIB if device.kind == "cuda" else None)
    assert budget(Device("cpu")) == budget(Device("openvino", "CPU")) == 5 * MIB
    assert budget(Device("cuda", "0")) == 2 * GIB
    assert budget(Device("openvino", "GPU.0")) is None
    assert device_budget()(Device("xpu", "0")) is None
    assert device_budget()(Device("cpu")) == 7 * MIB


@pytest.mark.parametrize(
    ("count", "expected"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (3 * GIB, "3.0 GiB"), (2**41, "2.0 TiB")]
)
def test_bytes_for_people(count: int, expected: str) -> None:
    assert format_bytes(count) == expected
