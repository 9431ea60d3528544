"""Resources by name, with objects that need no torch."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from pytest_hfaccel.core.errors import BackendUnavailable, ConfigError, HfAccelError, LoadError, PoolExhausted
from pytest_hfaccel.pool import ResourcePool
from tests.unit.compat.pool_machines import cpu_only, two_gpus

LIMIT = 10.0  # seconds; what takes longer is a deadlock
STATISTICS = {
    "hits",
    "misses",
    "total_requests",
    "hit_ratio",
    "memory_usage",
    "memory_usage_mb",
    "cached_resources",
    "cached_models",
    "cached_tokenizers",
    "timestamp",
    "low_memory_mode",
    "system_memory",
    "cuda_memory",
}


class Thing:
    """A resource that says what it holds."""

    def __init__(self, nbytes: int = 0) -> None:
        self.nbytes = nbytes


def pool_of(tmp_path: Path, **options: Any) -> ResourcePool:
    return ResourcePool(**{"devices": cpu_only(), "error_reports": tmp_path / "hardware_reports", **options})


def reports(tmp_path: Path) -> list[dict[str, Any]]:
    return [json.loads(file.read_text()) for file in sorted((tmp_path / "hardware_reports").glob("*.json"))]


def test_a_resource_is_constructed_once(tmp_path: Path) -> None:
    pool = pool_of(tmp_path)
    first = pool.get_resource("module", "numpy", Thing)
    assert pool.get_resource("module", "numpy", Thing) is first
    assert pool.get_resource("module", "scipy", Thing) is not first
    assert pool.get_resource("library", "numpy", Thing) is not first


def test_models_tokenizers_and_resources_of_one_name_are_apart(tmp_path: Path) -> None:
    pool = pool_of(tmp_path)
    made = [
        pool.get_model("bert", "base", Thing),
        pool.get_model("gpt", "base", Thing),
        pool.get_model("bert", "base", Thing, {"precision": "fp16"}),
        pool.get_tokenizer("bert", "base", Thing),
        pool.get_resource("bert", "base", Thing),
    ]
    assert len({id(thing) for thing in made}) == len(made)


def test_each_device_has_an_instance_of_its_own(tmp_path: Path) -> None:
    pool = pool_of(tmp_path, devices=two_gpus())
    devices = ("cpu", "cuda:0", "cuda:1", "auto")
    cpu, first, second, automatic = (pool.get_model("bert", "base", Thing, {"device": each}) for each in devices)
    assert len({id(cpu), id(first), id(second)}) == 3
    assert automatic is first
    assert pool.get_recommended_device("bert", "base") == "cuda:0"
    assert pool.get_recommended_device(hardware_preferences={"device": "cpu"}) == "cpu"


def test_statistics_have_the_documented_keys_and_true_numbers(tmp_path: Path) -> None:
    pool = pool_of(tmp_path)
    for _ in range(3):
        pool.get_model("bert", "base", lambda: Thing(3 * 2**20))
    pool.get_tokenizer("bert", "base", lambda: Thing(2**19))
    pool.get_resource("a", "b", Thing)
    stats = pool.get_stats()
    assert set(stats) == STATISTICS
    assert (stats["hits"], stats["misses"], stats["total_requests"], stats["hit_ratio"]) == (2, 3, 5, 0.4)
    assert (stats["memory_usage"], stats["memory_usage_mb"]) == (7 * 2**19, 3.5)
    assert (stats["cached_models"], stats["cached_tokenizers"], stats["cached_resources"]) == (1, 1, 1)
    assert set(stats["system_memory"]) == {"total_mb", "available_mb", "percent_used", "under_pressure"}
    assert set(stats["cuda_memory"]) == {"device_count", "devices"}
    assert json.loads(json.dumps(stats)) == stats


def test_an_empty_pool_has_a_hit_ratio_of_zero(tmp_path: Path) -> None:
    assert pool_of(tmp_path).get_stats()["hit_ratio"] == 0.0


def test_a_model_under_construction_is_not_counted(tmp_path: Path) -> None:
    pool = pool_of(tmp_path)
    seen = []

    def construct() -> Thing:
        seen.append(pool.get_stats())
        return Thing(5)

    pool.get_model("bert", "base", construct)
    assert (seen[0]["cached_models"], seen[0]["memory_usage"], seen[0]["misses"]) == (0, 0, 1)


def test_details_say_what_was_asked_for_and_what_came_of_it(tmp_path: Path) -> None:
    pool = pool_of(tmp_path)
    asked = {"priority_list": ["cuda", "cpu"], "description": "nightly"}
    pool.get_model("bert", "base", lambda: Thing(5), asked)
    (details,) = pool.get_resource_details()
    assert details["key"] == "model bert base cpu"
    assert (details["kind"], details["type"], details["name"], details["device"]) == ("model", "bert", "base", "cpu")
    assert (details["bytes"], details["leases"], details["state"]) == (5, 0, "ready")
    assert details["hardware_preferences"] == asked
    assert details["passed_over"] == {"cuda:0": "no NVIDIA driver"}
    assert details["placement"] is None  # it is no torch module, so nobody knows where it is
    json.dumps(details)


def test_a_fallback_onto_a_model_that_is_there_has_its_reason_too(tmp_path: Path) -> None:
    pool = pool_of(tmp_path)
    there = pool.get_model("bert", "base", Thing)
    assert pool.get_resource_details()[0]["passed_over"] == {}
    assert pool.get_model("bert", "base", Thing, {"priority_list": ["cuda", "cpu"]}) is there
    assert pool.get_resource_details()[0]["passed_over"] == {"cuda:0": "no NVIDIA driver"}


def test_a_constructors_error_reaches_the_caller_and_a_report(tmp_path: Path) -> None:
    pool = pool_of(tmp_path)
    error = ZeroDivisionError("broken")

    def fail() -> Any:
        raise error

    with pytest.raises(ZeroDivisionError) as caught:
        pool.get_model("bert", "org/base", fail, {"model_family": "embedding", "subfamily": "masked_lm"})
    assert caught.value is error
    (report,) = reports(tmp_path)
    assert (report["model_name"], report["hardware_type"]) == ("org/base", "cpu")
    assert (report["model_family"], report["subfamily"]) == ("embedding", "masked_lm")
    assert "in fail" in report["stack_trace"]
    (file,) = (tmp_path / "hardware_reports").iterdir()
    assert file.name.startswith("hardware_error_org_base_cpu_")
    assert any(file.name in note for note in error.__notes__)
    assert pool.get_model("bert", "org/base", Thing).nbytes == 0  # the error is not kept
    stats = pool.stats()
    assert (stats["misses"], stats["loads"], stats["failures"]) == (2, 1, 1)


def test_an_error_that_reaches_many_has_one_report(tmp_path: Path) -> None:
    pool = pool_of(tmp_path)
    started, may_fail = threading.Event(), threading.Event()

    def fail() -> Any:
        started.set()
        assert may_fail.wait(LIMIT)
        raise LoadError("broken")

    with ThreadPoolExecutor(4) as threads:
        asked = [threads.submit(pool.get_model, "bert", "base", fail) for _ in range(4)]
        assert started.wait(LIMIT)
        while pool.stats()["requests"] < 4:
            pass
        may_fail.set()
        assert [str(future.exception(LIMIT)) for future in asked] == ["broken"] * 4
    assert len(reports(tmp_path)) == 1


@pytest.mark.parametrize("method", ["get_model", "get_tokenizer", "get_resource"])
def test_none_is_not_a_resource(tmp_path: Path, method: str) -> None:
    pool = pool_of(tmp_path)
    with pytest.raises(LoadError, match=r"the constructor of '.* bert base.*' returned None"):
        getattr(pool, method)("bert", "base", lambda: None)
    assert pool.get_resource_details() == []


def test_an_absent_device_has_an_error_and_a_report_with_alternatives(tmp_path: Path) -> None:
    pool = pool_of(tmp_path)
    with pytest.raises(BackendUnavailable, match=r"base: no device that was asked for is available"):
        pool.get_model("bert", "base", Thing, {"device": "cuda"})
    (report,) = reports(tmp_path)
    assert (report["hardware_type"], report["alternatives"]) == ("cuda", ["cpu"])
    assert "Run it elsewhere: hardware_preferences={'device': 'cpu'}." in report["recommendations"]


def test_a_mistake_in_the_preferences_is_no_hardware_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Did you mean 'device'"):
        pool_of(tmp_path).get_model("bert", "base", Thing, {"devices": "cpu"})
    assert reports(tmp_path) == []


def test_no_reports_where_none_are_wanted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BackendUnavailable):
        pool_of(tmp_path, error_reports=None).get_model("bert", "base", Thing, {"device": "cuda"})
    assert list(tmp_path.iterdir()) == []


def test_named_resources_and_cells_share_budget_and_table(tmp_path: Path) -> None:
    pool = pool_of(tmp_path, budget=lambda _: 100)
    old = pool.get_model("bert", "old", lambda: Thing(60))
    pool.get_tokenizer("bert", "old", Thing)
    pool.get_model("bert", "new", lambda: Thing(60))
    assert old.nbytes == 60  # the caller's reference is still good
    assert [entry["key"] for entry in pool.usage()] == ["tokenizer bert old", "model bert new cpu"]
    assert pool.stats()["bytes_by_device"] == {"cpu": 60}
    with pytest.raises(PoolExhausted, match="'model bert huge cpu' needs"):
        pool.get_model("bert", "huge", lambda: Thing(101))


def test_clear_drops_everything_and_counts_on(tmp_path: Path) -> None:
    pool = pool_of(tmp_path)
    first = pool.get_model("bert", "base", lambda: Thing(5))
    pool.get_tokenizer("bert", "base", Thing)
    assert pool.clear() == 2
    assert pool.clear() == 0
    assert pool.get_model("bert", "base", Thing) is not first
    stats = pool.get_stats()
    assert (stats["total_requests"], stats["memory_usage"], stats["cached_tokenizers"]) == (3, 0, 0)


def test_a_closed_pool_takes_no_requests(tmp_path: Path) -> None:
    pool = pool_of(tmp_path)
    pool.get_resource("a", "b", Thing)
    assert pool.close() == []
    with pytest.raises(HfAccelError, match="closed"):
        pool.get_resource("a", "b", Thing)


def test_a_constructor_may_ask_for_other_resources_but_not_for_itself(tmp_path: Path) -> None:
    pool = pool_of(tmp_path)
    assert pool.get_model("bert", "base", lambda: [pool.get_tokenizer("bert", "base", Thing)])
    with pytest.raises(HfAccelError, match="asks for 'resource a b' itself"):
        pool.get_resource("a", "b", lambda: pool.get_resource("a", "b", Thing))


def test_torch_is_left_alone() -> None:
    code = (
        "import sys; from pytest_hfaccel.pool import get_global_resource_pool; pool = get_global_resource_pool();"
        "pool.get_model('bert', 'base', object); pool.get_tokenizer('bert', 'base', object); pool.get_stats();"
        "pool.check_memory_pressure(); pool.cleanup_unused_resources(0); pool.clear();"
        "print({'torch', 'transformers', 'openvino'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "set()\n"
