"""Which device a worker has, which models come first, and on which device they begin."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pytest_hfaccel.core.config import RunConfig
from pytest_hfaccel.distributed.durations import Durations
from pytest_hfaccel.engine.plan import Plan
from pytest_hfaccel.plugin.collection import CollectedTests
from pytest_hfaccel.plugin.processes.placement import EarlierRuns, GroupOrder, variables_of_worker
from pytest_hfaccel.pool.ledger import Ledger
from pytest_hfaccel.reporting.journal import journal_line


def collected(cells: list[tuple[str, str]], tests_per_cell: int = 2) -> CollectedTests:
    """The tests of some cells, each a model and a device."""
    facts = [
        {"module": "m", "cell": f"{model}-{device}", "model": model, "architecture": "A", "device": device}
        for model, device in cells
    ]
    tests = {
        f"{entry['cell']}::{number}": (index, "check")
        for index, entry in enumerate(facts)
        for number in range(tests_per_cell)
    }
    return CollectedTests(cells=facts, tests=tests)


def arranged(found: CollectedTests, durations: Durations, workers: int) -> list[list[str]]:
    """Return the cells of each group in the order in which they are run."""
    tests = list(found.tests)
    groups: dict[str, list[int]] = {}
    for index, nodeid in enumerate(tests):
        groups.setdefault(str(found.cells[found.tests[nodeid][0]]["model"]), []).append(index)
    order = GroupOrder(found, durations).arrange(list(groups.values()), tests, workers)
    assert sorted(index for group in order for index in group) == list(range(len(tests)))
    return [list(dict.fromkeys(tests[index].partition("::")[0] for index in group)) for group in order]


def test_models_that_took_longest_come_first() -> None:
    found = collected([("a", "cpu"), ("b", "cpu"), ("c", "cpu"), ("d", "cpu")])
    durations = Durations(tests={"b-cpu::0": 30.0, "b-cpu::1": 1.0}, cells={("m", "c-cpu"): 50.0, ("m", "a-cpu"): 1.0})
    # Of d nothing is known: as long as the median of its architecture on this device.
    assert arranged(found, durations, 2) == [["c-cpu"], ["b-cpu"], ["d-cpu"], ["a-cpu"]]


def test_without_records_those_with_most_tests_come_first() -> None:
    found = collected([("a", "cpu"), ("b", "cpu"), ("b", "openvino:CPU")])
    assert arranged(found, Durations(), 2) == [["b-cpu", "b-openvino:CPU"], ["a-cpu"]]


def test_without_records_models_of_real_size_come_first() -> None:
    found = collected([("a", "cpu"), ("a", "openvino:CPU"), ("a", "webgpu"), ("b", "cpu"), ("c", "cpu")])
    found.cells[3]["weights"] = "pretrained"
    assert [group[0] for group in arranged(found, Durations(), 2)] == ["b-cpu", "a-cpu", "c-cpu"]


def test_models_begin_on_different_devices_of_a_kind() -> None:
    devices = ("cpu", "cuda:0", "cuda:1", "cuda:2")
    found = collected([(model, device) for model in "abcd" for device in devices])
    order = arranged(found, Durations(), 3)
    assert [group[0] for group in order] == ["a-cpu", "b-cpu", "c-cpu", "d-cpu"]
    assert [[cell.partition("-")[2] for cell in group[1:]] for group in order] == [
        ["cuda:0", "cuda:1", "cuda:2"],
        ["cuda:1", "cuda:2", "cuda:0"],
        ["cuda:2", "cuda:0", "cuda:1"],
        ["cuda:0", "cuda:1", "cuda:2"],
    ]


def test_a_model_is_split_between_devices_of_a_kind_only_if_a_worker_would_have_none() -> None:
    found = collected([("a", device) for device in ("cpu", "cuda:0", "cuda:1", "cuda:2", "cuda:3")])
    assert len(arranged(found, Durations(), 1)) == 1
    assert [len(group) for group in arranged(found, Durations(), 2)] == [3, 2]
    assert sorted(len(group) for group in arranged(found, Durations(), 8)) == [1, 1, 1, 2]
    other = collected([("a", "cpu"), ("a", "openvino:CPU")])
    assert len(arranged(other, Durations(), 2)) == 1


@pytest.mark.parametrize(
    ("environ", "shown"),
    [
        ({}, ["3", "0", "1", "3"]),
        ({"CUDA_VISIBLE_DEVICES": "4,5,6,7"}, ["7", "4", "5", "7"]),
        ({"CUDA_VISIBLE_DEVICES": "GPU-a,GPU-b,GPU-c,GPU-d"}, ["GPU-d", "GPU-a", "GPU-b", "GPU-d"]),
    ],
)
def test_workers_have_gpus_of_their_own_within_what_the_run_sees(environ: dict[str, str], shown: list[str]) -> None:
    plan = Plan(RunConfig(), [], alternatives={"cuda": ["3", "0", "1"]})
    assert [variables_of_worker(plan, number, environ) for number in range(4)] == [
        {"CUDA_VISIBLE_DEVICES": entry} for entry in shown
    ]


def test_rocm_keeps_the_variable_that_is_set() -> None:
    plan = Plan(RunConfig(), [], alternatives={"rocm": ["0", "1"]})
    assert variables_of_worker(plan, 1, {}) == {"ROCR_VISIBLE_DEVICES": "1"}
    assert variables_of_worker(plan, 1, {"HIP_VISIBLE_DEVICES": "2,3"}) == {"HIP_VISIBLE_DEVICES": "3"}


def test_where_one_device_was_asked_for_workers_share_it() -> None:
    assert variables_of_worker(Plan(RunConfig(), []), 1, {}) == {}
    assert variables_of_worker(Plan(RunConfig(), [], alternatives={"cuda": ["0"]}), 1, {}) == {}


def test_durations_come_from_pytest_split_too_and_a_damaged_file_is_left_out(tmp_path: Path) -> None:
    split = tmp_path / ".test_durations"
    split.write_text(json.dumps({"a.py::test": 2.5}), encoding="utf-8")
    assert EarlierRuns(tmp_path / "reports", tmp_path).durations.tests == {"a.py::test": 2.5}
    split.write_text("[", encoding="utf-8")
    assert EarlierRuns(tmp_path / "reports", tmp_path).durations.tests == {}


def test_what_cells_took_in_earlier_runs_is_what_is_asked_for(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "0001-20261128T120000-abcdef"
    result = {
        "cell": "gpt2-cuda0-fp16",
        "model": "gpt2",
        "architecture": "GPT2LMHeadModel",
        "task": "text-generation",
        "module": "m",
        "device": "cuda:0",
        "dtype": "fp16",
        "weights": "tiny",
        "weights_reason": "-",
        "checks": [],
        "timings": {"load": 4.0},
        "placement": {"bytes": 1, "peak_bytes": {"host": 5, "cuda:0": 7}},
    }
    folder.mkdir(parents=True)
    lines = [journal_line({"type": "run"}), journal_line({"type": "cell", "result": result})]
    (folder / "journal.jsonl").write_text("".join(lines), encoding="utf-8")
    earlier = EarlierRuns(tmp_path, tmp_path)
    assert earlier.durations.cells == {("m", "gpt2-cuda0-fp16"): 4.0}
    ledger = Ledger(tmp_path / "ledger.sqlite")
    earlier.tell(ledger)
    assert ledger.measured("gpt2 tiny cuda:0 fp16") == {"cuda:0": 7, "host": 5}
