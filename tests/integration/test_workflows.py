"""GitHub's workflows: they follow its schema, their shell is sound; plan, shards and merge do what they say."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.harness import Project, environment

ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
EXPRESSION = re.compile(r"\$\{\{(.*?)\}\}")


def read(path: Path) -> dict[str, Any]:
    data: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return data


def shell_steps(path: Path) -> list[dict[str, Any]]:
    return [step for job in read(path)["jobs"].values() for step in job["steps"] if "run" in step]


@pytest.mark.skipif(find_spec("check_jsonschema") is None, reason="check-jsonschema is not installed")
def test_the_workflows_follow_githubs_schema() -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.github-workflows"]
    done = subprocess.run([*command, *map(str, WORKFLOWS)], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_the_shell_of_a_workflow(path: Path) -> None:
    for step in shell_steps(path):
        assert not EXPRESSION.search(step["run"]), "an expression in a script is code of whoever named the branch"
        done = subprocess.run(["bash", "-n"], input=step["run"], text=True, capture_output=True, check=False)  # noqa: S607
        assert done.returncode == 0, done.stderr
        for target in re.findall(r"^make (\S+)", step["run"], re.MULTILINE):
            assert re.search(rf"^({re.escape(target)}|\$\(INSTALLED\)):", (ROOT / "Makefile").read_text(), re.MULTILINE)


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_every_job_has_a_limit_and_no_more_rights_than_it_needs(path: Path) -> None:
    workflow = read(path)
    assert workflow["permissions"] == {"contents": "read"}
    for name, job in workflow["jobs"].items():
        assert job.get("timeout-minutes"), name


class Workflow:
    """The shell steps of the jobs of a workflow, run in a project as GitHub would run them."""

    def __init__(self, path: Path, project: Project) -> None:
        self.jobs = read(path)["jobs"]
        self.project = project
        self.output, self.summary = project.write("output", ""), project.write("summary.md", "")
        for name, module in (("hfaccel", "pytest_hfaccel"), ("python", "")):
            start = f"{sys.executable} -m {module}" if module else sys.executable
            project.write(f".venv/bin/{name}", f'#!/bin/sh\nexec {start} "$@"\n').chmod(0o755)

    def run(self, job: str, step: str, **env: str) -> subprocess.CompletedProcess[str]:
        script = next(one["run"] for one in self.jobs[job]["steps"] if one.get("name") == step)
        files = {"GITHUB_OUTPUT": str(self.output), "GITHUB_STEP_SUMMARY": str(self.summary)}
        return subprocess.run(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script],  # noqa: S607
            cwd=self.project.directory,
            env=environment(self.project.cache, **files, **env),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )


@pytest.mark.parametrize("name", ["matrix", "nightly"])
@pytest.mark.parametrize("lost", [False, True], ids=["all shards", "a shard is lost"])
def test_plan_shards_and_merge(project: Project, name: str, lost: bool) -> None:
    workflow = Workflow(ROOT / ".github" / "workflows" / f"{name}.yml", project)
    selection = "--hf-model bert-base-uncased --hf-model distilbert-base-uncased --hf-device fake:0 -k placement"
    planned = workflow.run("plan", "Plan", SELECTION=selection, SHARDS="2")
    assert planned.returncode == 0, planned.stderr
    key, _, matrix = workflow.output.read_text(encoding="utf-8").partition("=")
    assert key == "matrix"
    for entry in json.loads(matrix)["include"][: 1 if lost else 2]:
        ran = workflow.run("shard", "Shard", SHARD=entry["shard"])
        assert ran.returncode == 0, ran.stdout + ran.stderr
        # As the artifact has it: the content of the folder of the shard's runs.
        runs = project.directory / "shards" / str(entry["number"])
        (runs / "runs").rename(project.directory / f"shard-{entry['number']}")
    for artifact in project.directory.glob("shard-*"):
        artifact.rename(project.directory / "shards" / artifact.name)
    merged = workflow.run("merge", "Merge")
    assert merged.returncode == (1 if lost else 0), merged.stderr
    page = workflow.summary.read_text(encoding="utf-8")
    assert ("**incomplete**" in page) == lost
    assert ("shard 2 of 2" in page) == lost
    assert "1 passed" in page if lost else "2 passed" in page
    assert (project.directory / ".test_durations").exists()


def test_the_tag_of_a_release_is_the_version() -> None:
    from pytest_hfaccel import __version__

    (script,) = [
        step["run"] for step in shell_steps(ROOT / ".github/workflows/release.yml") if "version" in step["name"]
    ]
    for tag, code in ((f"v{__version__}", 0), ("v99.0", 1)):
        done = subprocess.run(
            ["bash", "-eo", "pipefail", "-c", script],  # noqa: S607
            cwd=ROOT,
            env={**environment(ROOT), "TAG": tag},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == code, done.stdout + done.stderr
