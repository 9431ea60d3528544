"""`hfaccel cloud-template`: SkyPilot loads what it writes, and its steps run."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from pytest_hfaccel.cli import main
from tests.harness import HfRun, Project, environment

OPTIONS = ("--accelerator", "L4:1", "--nodes", "3", "--cpus", "8+", "--memory", "32+")


def template(path: Path, *options: str, arguments: tuple[str, ...] = ("model_classes", "-k", "a or b")) -> Any:
    assert main(["cloud-template", "--output", str(path), *options, "--", *arguments]) == 0
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def test_the_file_says_what_was_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "task.yaml"
    task = template(file, *OPTIONS, "--cloud", "gcp", "--spot", "--bucket", "gs://results")
    assert task["resources"]["infra"] == "gcp"
    assert task["resources"]["accelerators"] == "L4:1"
    assert task["num_nodes"] == 3
    assert "-- model_classes -k 'a or b'\n" in task["run"]
    assert "pytest-hfaccel[models,parallel,ray]==" in task["setup"]
    assert "sky launch -c hfaccel" in capsys.readouterr().out
    assert subprocess.run(["/bin/bash", "-n", "-c", task["run"]], check=False).returncode == 0
    assert "rsync -Pavz hfaccel:sky_workdir/reports/" not in file.read_text(encoding="utf-8")


def test_all_mistakes_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cloud-template", "--region", "x", "--nodes", "0", "--bucket", "here", "--name", "A B"]) == 1
    said = capsys.readouterr().err
    for text in ("no arguments of pytest", "--region x needs --cloud", "--nodes 0", "--bucket here", "--name A B"):
        assert text in said


@pytest.mark.parametrize("cloud", ["aws", "gcp", "azure", "kubernetes", ""])
@pytest.mark.parametrize("bucket", ["", "s3://results"])
def test_skypilot_loads_it(tmp_path: Path, cloud: str, bucket: str) -> None:
    # Not in the extra `dev`: SkyPilot pins packages that others here need newer.
    sky = pytest.importorskip("sky", reason="needs skypilot, in an environment of its own")
    file = tmp_path / "task.yaml"
    task = template(file, *OPTIONS, *(("--cloud", cloud) if cloud else ()), *(("--bucket", bucket) if bucket else ()))
    if bucket:  # SkyPilot asks the cloud whether the bucket is there
        del task["file_mounts"]
        file.write_text(yaml.safe_dump(task), encoding="utf-8")
    loaded = sky.Task.from_yaml(str(file))
    assert loaded.num_nodes == 3
    resources = next(iter(loaded.resources))
    assert resources.accelerators == {"L4": 1}
    assert str(resources.cloud or "").lower() == cloud


@pytest.mark.nightly
def test_its_steps_run(project: Project) -> None:
    pytest.importorskip("ray", reason="needs pytest-hfaccel[ray]")
    arguments = ("--hf-device", "fake:0", "--hf-weights", "tiny", "-k", "placement")
    task = template(project.directory / "task.yaml", arguments=arguments)
    home = project.directory / "home"
    home.mkdir()
    (home / "hfaccel-venv").symlink_to(Path(sys.executable).parents[1])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        script = task["run"].replace("6379", str(free.getsockname()[1]))
    nodes = {"SKYPILOT_NODE_IPS": "127.0.0.1", "SKYPILOT_NODE_RANK": "0", "SKYPILOT_NUM_NODES": "1"}
    done = subprocess.run(
        ["/bin/bash", "-c", script],
        cwd=project.directory,
        env=environment(project.cache, HOME=str(home), RAY_AUTH_TOKEN=os.urandom(32).hex(), **nodes),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert "1 of 1 nodes are there" in done.stdout
    run = HfRun(done.returncode, done.stdout, project.directory / "reports")
    assert run.summary["passed"], done.stdout
