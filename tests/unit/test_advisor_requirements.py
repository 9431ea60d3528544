"""From the cost of an architecture to memory, batch size and cores on a device."""

from __future__ import annotations

import pytest

from pytest_hfaccel.predict.requirements import ArchitectureCost, RunCost, requirements_on
from pytest_hfaccel.predict.requirements.memory import Overhead, overhead_of

MB = 2**20

RUN = RunCost(
    fixed_bytes=0, bytes_per_sample=64 * MB, output_bytes_per_sample=0, flops_per_sample=10**9, multiplied_bytes=0
)
COST = ArchitectureCost(parameters=100 * MB // 4, buffer_bytes=0, stored_buffer_bytes=0, length=128, run=RUN)


def needs(kind: str = "cuda", memory: int | None = None, dtype: str = "fp32", cost: ArchitectureCost = COST):
    return requirements_on(kind, cost, dtype=dtype, memory_bytes=memory, cores=8, origin="a test")


def test_weights_and_activations_scale_with_the_dtype() -> None:
    full, half = needs(dtype="fp32"), needs(dtype="bf16")
    assert (full.weights_mb, full.activations_mb, full.min_memory_mb) == (100, 64, 164)
    assert (half.weights_mb, half.activations_mb, half.min_memory_mb) == (50, 32, 82)
    assert (full.disk_space_mb, half.disk_space_mb) == (100, 50)


@pytest.mark.parametrize(
    ("memory", "batch", "fits"),
    [
        (None, 1, None),
        (200 * MB, 1, False),  # 164 MB are more than 70 % of it
        (240 * MB, 1, True),
        (600 * MB, 4, True),  # 356 MB fit into 420, 612 do not
        (100_000 * MB, 32, True),
    ],
)
def test_the_batch_is_the_largest_power_of_two_that_fits(memory: int | None, batch: int, fits: bool | None) -> None:
    found = needs(memory=memory)
    assert (found.batch_size, found.fits) == (batch, fits)
    assert found.recommended_memory_mb == 100 + 64 * batch


def test_measured_overhead_is_part_of_the_peak() -> None:
    overhead = overhead_of("cpu")
    assert overhead.is_measured
    assert "benchmarks" not in overhead.source
    assert "models on" in overhead.source
    assert needs("cpu").min_memory_mb > 164 + overhead.import_bytes // 2**20


def test_openvino_holds_multiplied_weights_again() -> None:
    overhead = Overhead(0, 10 * MB, 0.5, 2.0, 3.0, 0, "test")
    run = RunCost(0, 64 * MB, 4 * MB, 10**9, multiplied_bytes=80 * MB)
    cost = ArchitectureCost(100 * MB // 4, 0, 0, 128, run)
    assert overhead.peak_bytes(cost, "fp32", 1) == (10 + 100 + 40 + 128 + 12) * MB


def test_an_unmeasured_device_says_so() -> None:
    found = needs("rocm")
    assert "no overhead was measured on rocm" in found.sources["min_memory_mb"]


def test_a_cost_without_a_run_gives_weights_and_says_why() -> None:
    cost = ArchitectureCost(100 * MB // 4, 0, 0, 128, None, "no forward pass: it looks at values")
    found = needs(memory=10_000 * MB, cost=cost)
    assert (found.min_memory_mb, found.batch_size, found.activations_mb) == (100, 1, 0)
    assert "it looks at values" in found.sources["activations_mb"]


def test_every_number_has_a_source_and_survives_json() -> None:
    data = needs(memory=600 * MB).to_json()
    assert list(data)[:5] == ["min_memory_mb", "recommended_memory_mb", "cpu_cores", "disk_space_mb", "batch_size"]
    numbers = {name for name, value in data.items() if isinstance(value, int) and not isinstance(value, bool)}
    assert numbers - {"length", "parameters"} == set(data["sources"])
    assert ArchitectureCost.from_json(COST.to_json()) == COST


def test_cores_follow_the_work_and_stop_at_those_present() -> None:
    heavy = ArchitectureCost(1, 0, 0, 128, RunCost(0, 0, 0, 10**15, 0))
    light = ArchitectureCost(1, 0, 0, 128, RunCost(0, 0, 0, 10**6, 0))
    assert needs("cpu", cost=heavy).cpu_cores == 8
    assert needs("cpu", cost=light).cpu_cores == 1
    assert needs("cuda", cost=heavy).cpu_cores == 1
