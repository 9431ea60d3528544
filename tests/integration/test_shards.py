"""A run planned for several machines: `hfaccel plan`, each shard under pytest, `hfaccel merge`."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.harness import Project, environment, run_python

REGISTRY = """
version: 1
models:
  bert-a: {architecture: BertForMaskedLM}
  bert-b: {architecture: BertForMaskedLM}
  bert-c: {architecture: BertForMaskedLM}
"""
SELECTION = (
    *("--hf-model", "bert-[abc]", "--hf-device", "fake:0,fake:1", "--hf-registry", "registry.yaml", "-k", "placement"),
    *("--hf-weights", "tiny"),
)


def hfaccel(project: Project, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run_python(["-m", "pytest_hfaccel", *arguments], project.directory, environment(project.cache))


@pytest.fixture
def planned(project: Project) -> Project:
    project.write("registry.yaml", REGISTRY)
    done = hfaccel(project, "plan", "--shards", "2", "--format", "github", "--", *SELECTION)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.partition("=")[2])["include"][1]["shard"] == "2/2"
    assert "estimated: nothing is recorded" in done.stderr
    return project


def run_shard(project: Project, shard: str, *arguments: str) -> set[str]:
    name = shard.partition("/")[0]
    run = project.run("--hf-plan", "plan.json", "--hf-shard", shard, "--hf-reports", f"shards/{name}", *arguments)
    assert run.code == 0, run.output
    assert f"hfaccel: shard {shard} of plan" in run.output
    files = (project.directory / "shards" / name / "by_class").glob("*.json")
    return {cell["cell"] for path in files for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]}


def test_the_shards_are_the_run_and_their_merger_equals_it(planned: Project) -> None:
    serial = planned.run(*SELECTION, "--hf-reports", "reports")
    assert serial.code == 0, serial.output
    first, second = run_shard(planned, "1/2"), run_shard(planned, "2/2", "-n", "2")
    assert not first & second
    assert first | second == set(serial.results)
    assert {cell.rpartition("-fake")[0] for cell in first}.isdisjoint(cell.rpartition("-fake")[0] for cell in second)
    done = hfaccel(
        planned, "merge", "shards", "--plan", "plan.json", "--reports", "merged", "--durations", "seconds.json"
    )
    assert done.returncode == 0, done.stderr
    merged = json.loads((planned.directory / "merged" / "summary.json").read_text(encoding="utf-8"))
    for field in ("passed", "ended", "counts", "failures"):
        assert merged[field] == serial.summary[field], field
    assert "hfaccel merge shards" in hfaccel(planned, "runs", "--reports", "merged").stdout
    again = hfaccel(planned, "plan", "--shards", "2", "--durations", "seconds.json", "--", *SELECTION)
    assert "estimated" not in again.stdout


def test_another_run_than_the_planned_one_is_refused(planned: Project) -> None:
    shard = ("--hf-plan", "plan.json", "--hf-shard", "1/2")
    for arguments, said in (
        (("-k", "placement and fake0"), "selection: 3 cells in the plan, but not selected here: bert-a-fake1-fp32"),
        (("-k", "placement or forward"), "with other tests: bert-a"),
        (("-k", "placement and fake0", "-n", "1"), "selection: 3 cells in the plan, but not selected here"),
    ):
        run = planned.run(*shard, *arguments)
        assert run.code == 4, run.output
        assert said in run.output
        assert "The plan was made for: pytest --hf-model bert-[abc]" in run.output
    expect = "bert-b: {expect: [{stage: compare, check: parity, reason: known}], "
    planned.write("registry.yaml", REGISTRY.replace("bert-b: {", expect))
    run = planned.run(*shard)
    assert run.code == 4, run.output
    assert "registry: another entry of bert-b" in run.output


def test_half_of_the_options_and_a_missing_plan_are_usage_errors(project: Project) -> None:
    for arguments, said in (
        (("--hf-shard", "1/2"), "--hf-shard needs --hf-plan"),
        (("--hf-plan", "none.json"), "--hf-plan needs --hf-shard"),
        (("--hf-plan", "none.json", "--hf-shard", "1/2"), "it cannot be read: No such file or directory"),
    ):
        run = project.run(*arguments)
        assert run.code == 4, run.output
        assert said in run.output


def test_tests_of_no_model_class_belong_to_the_first_shard(planned: Project) -> None:
    planned.write("test_plain.py", "def test_placement_of_nothing():\n    pass\n")
    counts = []
    for shard in ("1/2", "2/2"):
        run = planned.run("--hf-plan", "plan.json", "--hf-shard", shard)
        assert run.code == 0, run.output
        counts.append("test_placement_of_nothing" in run.output)
    assert counts == [True, False]


def test_what_pytest_cannot_collect_cannot_be_planned(project: Project, tmp_path: Path) -> None:
    done = hfaccel(
        project, "plan", "--shards", "2", "--output", str(tmp_path / "p.json"), "--", "--hf-device", "nosuch"
    )
    assert done.returncode == 1
    assert "'nosuch' is not a device" in done.stderr
    assert not (tmp_path / "p.json").exists()
