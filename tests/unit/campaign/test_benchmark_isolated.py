"""Measuring processes, real ones: a crash, a time-out and an error each cost one point and are told."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from pytest_hfaccel.benchmark.measurement import Measurement, NotMeasured, Point
from pytest_hfaccel.benchmark.timing import TimingBudget
from pytest_hfaccel.campaign.processes import WorkerRequest, measure_isolated, run_isolated
from pytest_hfaccel.core.results import CellResult, Status
from pytest_hfaccel.core.spec import Cell, Device, ModelSpec, Weights, WeightsChoice

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("forked_processes")]

DIMS = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
BERT = ModelSpec("unregistered/bert", "BertForMaskedLM", "fill-mask", dims={**DIMS, "vocab_size": 2000})
GPT2 = ModelSpec(
    "unregistered/gpt2", "GPT2LMHeadModel", "text-generation", dims={"n_embd": 32, "n_layer": 2, "n_head": 2}
)
ONCE = TimingBudget(warm_up=1, runs=3)
TINY = WeightsChoice(Weights.TINY, "test")


def request(
    cache: Path, device: str, *points: Point, timeout: float = 120.0, checks: tuple[str, ...] = ()
) -> WorkerRequest:
    cell = Cell(BERT, Device.parse(device), "fp32", TINY)
    return WorkerRequest(cell, points, 1, cache, timeout, ONCE, checks=checks)


def test_a_model_of_no_registry_at_two_points(shared_cache: Path) -> None:
    points = [(1, 16), (4, 16)]
    one, four = measure_isolated(
        BERT, "random", "cpu", "fp32", points, threads=1, cache_dir=shared_cache, timeout=120, budget=ONCE
    )
    assert isinstance(one, Measurement)
    assert isinstance(four, Measurement)
    assert (one.model, one.weights, one.device, one.threads) == ("unregistered/bert", "random", "cpu", 1)
    assert [(found.batch, found.length) for found in (one, four)] == points
    assert (one.latency.runs, one.latency.warm_up) == (3, 1)
    assert one.details["inputs"] == {"input_ids": [1, 16], "attention_mask": [1, 16]}
    assert one.parameters is not None
    assert 4 * one.parameters <= one.weight_bytes < 4.1 * one.parameters
    assert one.first_token_ms is None
    if sys.platform == "linux":
        assert "a process of its own" in one.memory_source
        assert one.memory_bytes is not None
        assert one.memory_bytes > one.weight_bytes


def test_tokens_of_a_generating_model(shared_cache: Path) -> None:
    (found,) = measure_isolated(
        GPT2, Weights.RANDOM, "cpu", "fp32", [(2, 8)], threads=1, cache_dir=shared_cache, timeout=120, budget=ONCE
    )
    assert isinstance(found, Measurement)
    assert found.details["use_cache"] is True
    assert found.first_token_ms is not None
    assert found.first_token_ms > 0
    (without,) = measure_isolated(
        GPT2,
        Weights.RANDOM,
        "cpu",
        "fp32",
        [(2, 8)],
        threads=1,
        cache_dir=shared_cache,
        timeout=120,
        budget=ONCE,
        generation=False,
    )
    assert isinstance(without, Measurement)
    assert without.first_token_ms is None


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere each point has a process, which dies as a whole")
def test_a_crash_costs_its_points_and_names_the_signal(shared_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HFACCEL_FAKE", json.dumps({"*": {"crash": "SIGFPE"}}))
    found = list(run_isolated(request(shared_cache, "fake:0", Point(1, 16), Point(2, 16))))
    assert [type(one) for one in found] == [NotMeasured, NotMeasured]
    first, second = found
    assert isinstance(first, NotMeasured)
    assert isinstance(second, NotMeasured)
    assert (first.status, first.batch, second.batch) == (Status.CRASHED, 1, 2)
    assert "was killed by SIGFPE" in first.reason
    assert "forward" in first.reason, "where in Python it happened"


def test_what_takes_too_long_is_told(shared_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if sys.platform != "linux":
        pytest.skip("elsewhere a point has a minute more: it ends with its process")
    monkeypatch.setenv("HFACCEL_FAKE", json.dumps({"*": {"forward_seconds": 600}}))
    (found,) = run_isolated(request(shared_cache, "fake:0", Point(1, 16), timeout=2.0))
    assert isinstance(found, NotMeasured)
    assert (found.status, found.reason) == (Status.TIMEOUT, "took more than 2 s")


def test_an_absent_device_is_unavailable_at_every_point(shared_cache: Path) -> None:
    found = list(run_isolated(request(shared_cache, "cuda:7", Point(1, 16), Point(2, 16))))
    assert all(isinstance(one, NotMeasured) and one.status == Status.UNAVAILABLE for one in found)
    assert len(found) == 2


def test_only_a_cell_that_passes_its_checks_is_measured(shared_cache: Path) -> None:
    checks = ("placement", "forward", "parity")
    record, measured = run_isolated(request(shared_cache, "cpu", Point(1, 16), checks=checks))
    assert isinstance(record, CellResult)
    assert [(check.name, check.status) for check in record.checks] == [(name, Status.PASSED) for name in checks]
    assert isinstance(measured, Measurement)


def test_a_cell_that_fails_a_check_is_not_measured(shared_cache: Path) -> None:
    # The fake backend's outputs are not the model's.
    record, refused = run_isolated(request(shared_cache, "fake:0", Point(1, 16), checks=("forward", "parity")))
    assert isinstance(record, CellResult)
    assert record.status.is_bad
    assert isinstance(refused, NotMeasured)
    assert refused.status == Status.SKIPPED
    assert "the speed of wrong results is not measured" in refused.reason


def test_a_model_that_cannot_be_built_is_an_error(shared_cache: Path) -> None:
    broken = ModelSpec("broken", "BertForMaskedLM", "fill-mask", dims={"hidden_size": 33, "num_attention_heads": 2})
    (found,) = measure_isolated(
        broken, "random", "cpu", "fp32", [(1, 8)], threads=1, cache_dir=shared_cache, timeout=60, budget=ONCE
    )
    assert isinstance(found, NotMeasured)
    assert found.status == Status.ERROR
    assert "33" in found.reason


def test_a_backend_that_converts_does_so_before_it_is_measured(shared_cache: Path) -> None:
    pytest.importorskip("openvino")
    (found,) = run_isolated(request(shared_cache, "openvino:CPU", Point(2, 16)))
    assert isinstance(found, Measurement)
    assert found.convert_s > 0 or found.details["placement"]["details"]["convert_cached"]
    assert found.details["placement"]["details"]["graphs"] == 1
    assert found.compile_s > 0
