"""pytest-xdist where nothing says so on the command line: plain `-n 2`, and choices that stand in `addopts`."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest

from tests.harness import Project

_TESTS = """
import json
import os
import os
from pathlib import Path

import torch  # before a worker knows that its threads are limited

from pytest_hfaccel import ModelClassTests


class Recording(ModelClassTests):
    def note(self, cell):
        worker = os.environ["PYTEST_XDIST_WORKER"]
        note = {"model": cell.model.name, "worker": worker, "threads": torch.get_num_threads()}
        with Path("notes.jsonl").open("a") as file:
            file.write(json.dumps(note) + "\\n")

    def test_own_first(self, hf_cell):
        self.note(hf_cell)

    def test_own_second(self, hf_cell):
        self.note(hf_cell)

    def test_own_third(self, hf_cell):
        self.note(hf_cell)


class TestBert(Recording):
    architectures = ("Bert*",)
    default_model = "bert-base-uncased"


class TestDistilBert(Recording):
    architectures = ("DistilBert*",)
    default_model = "distilbert-base-uncased"


class TestRoberta(Recording):
    architectures = ("Roberta*",)
    default_model = "roberta-base"
"""


@pytest.fixture
def recording(project: Project) -> Project:
    project.write("test_hf_bert.py", _TESTS)
    return project


def test_plain_n_2_groups_by_model_limits_threads_and_prints_the_header(recording: Project) -> None:
    recording.write("pytest.ini", "[pytest]\naddopts = -n 2\n")
    run = recording.run("-k", "own", OMP_NUM_THREADS="")
    assert run.code == 0, run.output
    assert run.counts["passed"] == 9
    notes = [
        json.loads(line) for line in (recording.directory / "notes.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    workers: dict[str, set[str]] = {}
    for note in notes:
        workers.setdefault(note["model"], set()).add(note["worker"])
    assert {model: len(found) for model, found in workers.items()} == dict.fromkeys(workers, 1)
    assert len(set.union(*workers.values())) == 2
    assert {note["threads"] for note in notes} == {max(1, len(os.sched_getaffinity(0)) // 2)}
    assert run.output.count("hfaccel: 3 cells: 3 models [tiny: 3]") == 1
    assert run.output.count("hfaccel: weights tiny") == 1


@pytest.mark.parametrize("where", ["addopts", "PYTEST_ADDOPTS"])
def test_a_distribution_chosen_elsewhere_than_on_the_command_line_holds(project: Project, where: str) -> None:
    env: dict[str, Any] = {}
    if where == "addopts":
        project.write("pytest.ini", "[pytest]\naddopts = -n 2 --dist worksteal\n")
    else:
        env["PYTEST_ADDOPTS"] = "-n 2 --dist worksteal"
    run = project.run("--hf-device", "fake:0", "-k", "placement", "-v", **env)
    assert run.code == 0, run.output
    assert "scheduling tests via WorkStealingScheduling" in run.output


def test_a_suite_without_model_classes_is_left_alone(project: Project) -> None:
    project.write(
        "test_hf_bert.py", "import os\n\n\ndef test_threads():\n    assert not os.environ['OMP_NUM_THREADS']\n"
    )
    run = project.run("-n", "2", OMP_NUM_THREADS="")
    assert run.code == 0, run.output
    assert "hfaccel:" not in run.output


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--hf-device", "tpu"), "'tpu' is not a device"),
        (("--hf-model", "gpt2"), "no collected model class tests GPT2LMHeadModel"),
    ],
)
def test_a_mistake_is_told_as_without_workers(project: Project, arguments: tuple[str, ...], said: str) -> None:
    run = project.run("-n", "2", *arguments)
    assert run.code == 4, run.output
    assert run.output.count(said) == 1
    assert "INTERNALERROR" not in run.output
    assert "Traceback" not in run.output
