"""`--hf-resume` takes over a record only where everything that decides its outcome is as it was."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

from tests.harness import BERT_MODULE, HfRun, Project

_FAKE = ("--hf-device", "fake:0", "-k", "placement")
_ENTRY = """
version: 1
models:
  mine/bert:
    architecture: BertForMaskedLM
    dims: {num_hidden_layers: 3}
"""
_EXPECTED = """
    expect:
      - {device: "fake:*", stage: run, check: placement, reason: "because"}
"""
_FAILS: dict[str, Any] = {"HFACCEL_FAKE": '{"*": {"fail_stage": "load"}}'}
"""The environment of a run that fails if it runs anything."""


def checkpoint(directory: Path, weights: bytes = b"weights" * 100_000) -> Path:
    """Files that look like a checkpoint to a run on a device that reads none."""
    directory.mkdir(parents=True)
    config = {"model_type": "bert", "architectures": ["BertForMaskedLM"]}
    (directory / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (directory / "model.safetensors").write_bytes(weights)
    return directory


def assert_run_again(run: HfRun, reason: str) -> None:
    assert run.code == 1, run.output
    assert f"hfaccel: 1 run again ({reason})" in run.output


def test_another_model_of_the_same_name(project: Project) -> None:
    """The cell's id is the same; at first the second model was passed without having been run."""
    first, second = (str(checkpoint(project.directory / "bad" / name / "same")) for name in ("p1", "p2"))
    assert project.run("--hf-model", first, *_FAKE).code == 0
    run = project.run("--hf-model", second, *_FAKE, "--hf-resume", **_FAILS)
    assert_run_again(run, "another checkpoint, another registry entry")
    (record,) = run.records.values()
    assert (record.cell, record.status) == ("same-fake0-fp32", "error")
    assert record.model == "bad/p2/same"


def test_other_weights_in_the_same_place(project: Project) -> None:
    """Of the same size and time, as a copy that keeps times makes them."""
    model = checkpoint(project.directory / "model")
    weights = model / "model.safetensors"
    arguments = ("--hf-model", str(model), *_FAKE)
    assert project.run(*arguments).code == 0
    kept = project.run(*arguments, "--hf-resume", **_FAILS)
    assert kept.code == 0, kept.output
    assert "of 1 cells 1 are kept, 0 had not finished" in kept.output
    assert [record.from_run[:5] for record in kept.records.values()] == ["0001-"]

    before, content = weights.stat(), weights.read_bytes()
    weights.write_bytes(content[:-1] + b"!")
    os.utime(weights, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert_run_again(project.run(*arguments, "--hf-resume", **_FAILS), "another checkpoint")


def test_something_else_that_decides(project: Project) -> None:
    """An option, the module, the entry, what is expected: each alone. Not what merely says where to write."""
    entry = project.write("mine.yaml", _ENTRY)
    arguments = ("--hf-registry", str(entry), "--hf-model", "mine/bert", *_FAKE)
    first = project.run(*arguments)
    assert first.code == 0, first.output
    unchanged = project.run(*arguments, "--hf-resume=1", "--hf-reports-keep", "7", **_FAILS)
    assert unchanged.code == 0, unchanged.output

    option = project.run(*arguments, "--hf-resume=1", HFACCEL_POOL_MEMORY="1GiB", **_FAILS)
    assert_run_again(option, "other options")
    entry.write_text(_ENTRY.replace("layers: 3", "layers: 4"), encoding="utf-8")
    assert_run_again(project.run(*arguments, "--hf-resume=1", **_FAILS), "another registry entry")
    entry.write_text(f"{_ENTRY}{_EXPECTED}", encoding="utf-8")
    expected = project.run(*arguments, "--hf-resume=1")
    assert "hfaccel: 1 run again (another registry entry)" in expected.output
    entry.write_text(f"# A comment moves every line.\n{_ENTRY}", encoding="utf-8")
    moved = project.run(*arguments, "--hf-resume=1", **_FAILS)
    assert moved.code == 0, moved.output
    project.write("test_hf_bert.py", f"{BERT_MODULE}\n# another line\n")
    assert_run_again(project.run(*arguments, "--hf-resume=1", **_FAILS), "another module")


def test_a_run_between_them_and_a_run_that_is_not_there(project: Project) -> None:
    """The latest run is not the one that is meant: another can be named."""
    bert, distilbert = ("--hf-model", "bert-base-uncased", *_FAKE), ("--hf-model", "distilbert-base-uncased", *_FAKE)
    assert project.run(*bert).code == 0
    assert project.run(*distilbert).code == 0
    latest = project.run(*bert, "--hf-resume", **_FAILS)
    assert "of 1 cells 0 are kept" in latest.output
    for name in ("1", next((project.directory / "reports" / "runs").glob("0001-*")).name):
        named = project.run(*bert, f"--hf-resume={name}", **_FAILS)
        assert named.code == 0, named.output
    nowhere = project.run(*bert, "--hf-resume=77")
    assert nowhere.code == 4, nowhere.output
    assert "--hf-resume=77: there is no such run" in nowhere.output


def test_no_run_to_go_on_with(project: Project) -> None:
    run = project.run(*_FAKE, "--hf-resume")
    assert run.code == 0, run.output
    assert "hfaccel: --hf-resume: there is no run in" in run.output
    shutil.rmtree(project.directory / "reports")


def test_failed_cells_can_be_run_again(project: Project) -> None:
    assert project.run(*_FAKE, **_FAILS).code == 1
    assert project.run(*_FAKE, "--hf-resume").code == 1  # a failure is an outcome like any other
    run = project.run(*_FAKE, "--hf-resume", "--hf-resume-retry", "failed,error")
    assert run.code == 0, run.output
    assert "hfaccel: 1 run again (--hf-resume-retry error)" in run.output
    wrong = project.run(*_FAKE, "--hf-resume", "--hf-resume-retry", "broken")
    assert wrong.code == 4
    assert "--hf-resume-retry: 'broken' is not allowed. Allowed: passed, failed" in wrong.output
