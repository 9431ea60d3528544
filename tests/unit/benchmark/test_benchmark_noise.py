"""The calibration loop around a measurement, and the clocks: read from trees and libraries made for the test."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from pytest_hfaccel.benchmark.noise import (
    Clocks,
    NoiseReading,
    fixed_work,
    noise_between,
    read_clocks,
    read_noise,
    throttled_between,
)
from pytest_hfaccel.hardware.nvidia import read_gpu_clock
from tests.unit.hardware.test_hardware_cuda import Nvml

CPUS = Path("sys/devices/system/cpu")


class ClockedNvml(Nvml):
    """The driver's library, with a clock and throttle reasons per GPU."""

    reasons = (0x01, 0x40)

    def nvmlDeviceGetClockInfo(self, handle: Any, kind: Any, clock: Any) -> int:  # noqa: N802 - NVIDIA's name
        assert kind.value == 1, "the clock of the streaming multiprocessors"
        clock._obj.value = 1000 * handle.value
        return 0

    def nvmlDeviceGetCurrentClocksThrottleReasons(self, handle: Any, reasons: Any) -> int:  # noqa: N802
        reasons._obj.value = self.reasons[handle.value - 1]
        return 0


def write(root: Path, name: str, text: str) -> None:
    path = root / CPUS / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def usable() -> list[int]:
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))


def test_the_clock_of_the_cpus_this_process_may_use(tmp_path: Path) -> None:
    for number, cpu in enumerate(usable()):
        write(tmp_path, f"cpu{cpu}/cpufreq/scaling_cur_freq", f"{2_000_000 + 100_000 * number}\n")
    write(tmp_path, f"cpu{max(usable()) + 1}/cpufreq/scaling_cur_freq", "9000000\n")
    assert read_clocks("cpu", tmp_path).mhz == pytest.approx(2000 + 100 * (len(usable()) - 1) / 2)


def test_throttling_is_a_count_that_grew(tmp_path: Path) -> None:
    write(tmp_path, "cpu0/thermal_throttle/core_throttle_count", "3\n")
    write(tmp_path, "cpu1/thermal_throttle/package_throttle_count", "4\n")
    before = read_clocks("openvino:CPU", tmp_path)
    assert before.throttle_count == 7
    assert throttled_between(before, read_clocks("cpu", tmp_path)) is False
    write(tmp_path, "cpu1/thermal_throttle/package_throttle_count", "5\n")
    assert throttled_between(before, read_clocks("cpu", tmp_path)) is True


def test_what_cannot_be_read_is_none(tmp_path: Path) -> None:
    write(tmp_path, "cpu0/thermal_throttle/core_throttle_count", "not a number\n")
    nothing = read_clocks("cpu", tmp_path)
    assert nothing == Clocks(None, None, None)
    assert throttled_between(nothing, nothing) is None


def test_the_clock_of_a_gpu_and_whether_it_is_throttled() -> None:
    assert read_clocks("cuda:0", nvml=ClockedNvml()) == Clocks(1000.0, throttled=False)
    second = read_clocks("cuda:1", nvml=ClockedNvml())
    assert second == Clocks(2000.0, throttled=True)
    assert throttled_between(Clocks(1000.0, throttled=False), second) is True


def test_a_gpu_is_found_as_torch_numbers_it() -> None:
    assert read_gpu_clock(ClockedNvml(), 0, {"CUDA_VISIBLE_DEVICES": "1"}) == (2000.0, True)
    assert read_gpu_clock(ClockedNvml(), 1, {"CUDA_VISIBLE_DEVICES": "1"}) is None
    assert read_gpu_clock(ClockedNvml(), 0, {"CUDA_VISIBLE_DEVICES": "GPU-2abc"}) == (2000.0, True)


@pytest.mark.parametrize("nvml", [ClockedNvml(status=9), Nvml()])
def test_a_driver_that_does_not_say(nvml: Nvml) -> None:
    """A driver that fails, and one too old to know the function."""
    assert read_clocks("cuda:0", nvml=nvml) == Clocks()


def test_the_loop_does_the_same_work_every_time() -> None:
    """The generator's value after 10,000 steps is printed by Park and Miller; ours goes on to 20,000."""
    state = 1
    for _ in range(10_000):
        state = state * 16807 % 2147483647
    assert state == 1043618065
    assert fixed_work() == fixed_work() != state


def test_readings_become_noise() -> None:
    before = NoiseReading((0.001,) * 9, Clocks(2000.0, 5))
    after = NoiseReading((0.0012,) * 9, Clocks(1800.0, 6))
    found = noise_between(before, after)
    assert (found.before_ms, found.after_ms) == (1.0, 1.2)
    assert found.drift == pytest.approx(0.2)
    assert found.iqr_share == pytest.approx(0.2 / 1.1)
    assert found.clock_mhz == (2000.0, 1800.0)
    assert found.throttled is True


def test_a_reading_times_each_repetition() -> None:
    now = iter(float(number) for number in range(1000))
    assert read_noise("cpu", clock=lambda: next(now)).seconds == (1.0,) * 15
