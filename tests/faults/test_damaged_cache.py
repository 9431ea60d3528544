"""The cache is damaged, deleted, not to be written, or used by two runs at once."""

from __future__ import annotations

import ctypes
import hashlib
import json
import subprocess
import time
from pathlib import Path

import pytest

from pytest_hfaccel.checkpoints import CheckpointStore
from pytest_hfaccel.core.errors import CheckpointError
from pytest_hfaccel.core.files import DamagedCacheWarning, build_once, find_damage
from pytest_hfaccel.core.results import NOT_REACHED, Stage, Status
from pytest_hfaccel.core.spec import ModelSpec, Weights, WeightsChoice
from pytest_hfaccel.registry import load_registry, resolve_model
from tests.harness import HfRun, Project, environment, run_python

MODELS = ("bert-base-uncased", "distilbert-base-uncased")
ARGUMENTS = (
    *(part for name in MODELS for part in ("--hf-model", name)),
    *("--hf-device", "cpu", "--hf-device", "openvino:CPU", "-k", "resolves or placement or parity"),
)


def flip(path: Path) -> None:
    """Change one byte near the end of a file, and nothing about it that a directory listing shows."""
    content = bytearray(path.read_bytes())
    content[-5] ^= 0x40
    path.write_bytes(content)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def all_pass(run: HfRun) -> None:
    assert run.code == 0, run.output
    assert {check.status for cell in run.results.values() for check in cell.checks} == {Status.PASSED}


def without_rights_over_files() -> None:
    """Take from a process of root what lets it write where the permissions forbid it."""
    drop_from_bounding_set, override = 24, 1
    ctypes.CDLL(None).prctl(drop_from_bounding_set, override, 0, 0, 0)


def run_read_only(project: Project, *arguments: str) -> HfRun:
    """Run with a cache whose folders nobody may write to."""
    folders = [project.cache, *(path for path in project.cache.rglob("*") if path.is_dir())]
    for folder in folders:
        folder.chmod(0o555)
    try:
        done = run_python(
            project.command(*arguments)[1:],
            project.directory,
            environment(project.cache),
            prepare=without_rights_over_files,
        )
    finally:
        for folder in folders:
            folder.chmod(0o755)
    return HfRun(done.returncode, done.stdout + done.stderr, project.directory / "reports")


@pytest.mark.nightly
@pytest.mark.slow
def test_two_runs_on_one_cold_cache_and_then_damage_to_all_that_they_built(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    projects = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        projects.append(Project(tmp_path / name, cache))
    started = [
        subprocess.Popen(
            project.command(*ARGUMENTS),
            cwd=project.directory,
            env=environment(cache),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for project in projects
    ]
    for project, process in zip(projects, started, strict=True):
        output, _ = process.communicate(timeout=280)
        all_pass(HfRun(process.returncode, output, project.directory / "reports"))
    checkpoints = sorted((cache / "hfaccel" / "checkpoints").glob("*-tiny-*[0-9a-f]"))
    conversions = sorted(path.parent for path in (cache / "hfaccel" / "openvino").glob("*/*.xml"))
    assert len(checkpoints) == len(conversions) == len(MODELS)
    assert not [path for path in (cache / "hfaccel").rglob(".*-*") if path.is_dir()], "half-built folders are left"

    weights = {path: (path / "model.safetensors").read_bytes() for path in checkpoints}
    flip(checkpoints[0] / "model.safetensors")
    cut(checkpoints[1] / "config.json")
    cut(next(conversions[0].glob("*.xml")))
    flip(next(conversions[1].glob("*.bin")))
    run = projects[0].run(*ARGUMENTS)
    all_pass(run)
    for folder, damage in (
        (checkpoints[0], "the content of model.safetensors has changed"),
        (checkpoints[1], "config.json has "),
        (conversions[0], ".xml has "),
        (conversions[1], ".bin has changed"),
    ):
        told = [line for line in run.output.splitlines() if f"{folder} was damaged (" in line]
        assert told, run.output
        assert damage in told[0]
        assert "has been built again" in told[0]
        assert not find_damage(folder)
    assert {path: (path / "model.safetensors").read_bytes() for path in checkpoints} == weights

    all_pass(run_read_only(projects[0], *ARGUMENTS))
    flip(checkpoints[0] / "model.safetensors")
    broken = run_read_only(projects[0], *ARGUMENTS)
    assert broken.code == 1, broken.output
    bad = [check for cell in broken.results.values() for check in cell.checks if check.status.is_bad]
    assert bad
    for check in bad:
        assert f"{checkpoints[0]} is damaged (the content of model.safetensors has changed), and " in (
            check.reason or ""
        )
        assert "cannot be written: Permission denied" in (check.reason or "")


@pytest.mark.slow
def test_the_cache_is_deleted_while_a_run_uses_it(project: Project, tmp_path: Path) -> None:
    project.cache = tmp_path / "cache"
    project.write(
        "conftest.py",
        """
        import os, pytest, shutil

        @pytest.fixture(autouse=True)
        def after(request):
            yield
            if "parity" in request.node.name:
                shutil.rmtree(os.environ["HFACCEL_CACHE"], ignore_errors=True)
        """.replace("\n        ", "\n"),
    )
    dtypes = ("--hf-dtype", "fp32", "--hf-dtype", "bf16")
    run = project.run("--hf-device", "cpu", *dtypes, "-k", "placement or parity or canary")
    assert run.code == 1, run.output
    assert "INTERNALERROR" not in run.output
    assert set(run.statuses("bert-base-uncased-cpu-fp32").values()) == {Status.PASSED}
    first, *others = run.results["bert-base-uncased-cpu-bf16"].checks
    assert (first.status, first.stage) == (Status.ERROR, Stage.LOAD)
    assert "is not a directory" in (first.reason or "")
    assert "Traceback" not in (first.reason or "")
    assert all((check.reason or "").startswith(NOT_REACHED) for check in others)


@pytest.mark.slow
def test_a_damaged_file_in_the_cache_of_the_hub_is_refused(tmp_path: Path, shared_cache: Path) -> None:
    spec = ModelSpec(name="bert", architecture="BertForMaskedLM", task="fill-mask")
    built = CheckpointStore(shared_cache / "hfaccel").prepare(spec, WeightsChoice(Weights.TINY, "for a test")).directory
    blobs, snapshot = tmp_path / "models--a--b" / "blobs", tmp_path / "models--a--b" / "snapshots" / "c0ffee"
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    for path in built.iterdir():  # as the hub does: weights by their SHA-256, small files the way git does
        content = path.read_bytes()
        as_git = hashlib.sha1(b"blob %d\0" % len(content) + content)  # noqa: S324
        digest = as_git if path.suffix == ".json" else hashlib.sha256(content)
        (blobs / digest.hexdigest()).write_bytes(content)
        (snapshot / path.name).symlink_to(blobs / digest.hexdigest())
    (model,) = resolve_model(str(snapshot), load_registry())

    def load() -> None:
        store = CheckpointStore(tmp_path / "cache")
        store.prepare(model, store.choose(model, "auto", named=True)).torch_model("fp32")

    load()
    for name in ("model.safetensors", "tokenizer_config.json"):
        whole = (snapshot / name).read_bytes()
        flip(snapshot / name)
        with pytest.raises(
            CheckpointError, match=rf"{name} is damaged: its content is not what the hub's cache"
        ) as caught:
            load()
        assert caught.value.stage == Stage.LOAD
        assert f"Delete {(snapshot / name).resolve()}" in (caught.value.hint or "")
        (snapshot / name).write_bytes(whole)


@pytest.fixture
def built(tmp_path: Path) -> Path:
    folder = tmp_path / "cache" / "model"
    build_once(folder, fill)
    return folder


def fill(folder: Path) -> None:
    (folder / "weights").write_bytes(bytes(100))
    (folder / "deep").mkdir()
    (folder / "deep" / "config").write_text("{}")


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda folder: flip(folder / "weights"), "the content of weights has changed"),
        (lambda folder: cut(folder / "weights"), "weights has 50 bytes instead of 100"),
        (lambda folder: (folder / "deep" / "config").unlink(), "config is missing"),
        (lambda folder: (folder / "manifest.json").unlink(), "manifest.json is missing"),
        (lambda folder: (folder / "manifest.json").write_text("[]"), "manifest.json or a file it names cannot be read"),
        (lambda folder: (folder / "manifest.json").write_text('{"files": {"weights'), "cannot be read"),
    ],
)
@pytest.mark.parametrize("is_known", [False, True], ids=["in-another-process", "after-it-was-found-sound"])
def test_each_kind_of_damage_is_told_and_mended(built: Path, damage: object, said: str, *, is_known: bool) -> None:
    if is_known:
        assert not find_damage(built)
    time.sleep(0.01)  # the clock of some file systems is that coarse
    damage(built)  # type: ignore[operator]
    assert said in find_damage(built)
    with pytest.warns(DamagedCacheWarning, match=r"model was damaged \(.*has been built again"):
        build_once(built, fill)
    assert not find_damage(built)
    assert sorted(path.name for path in built.parent.iterdir() if path.suffix != ".lock") == ["model"]


def test_a_sound_folder_is_left_alone(built: Path) -> None:
    def must_not_run(folder: Path) -> None:
        raise AssertionError(folder)

    build_once(built, must_not_run)
    assert json.loads((built / "manifest.json").read_text())["files"].keys() == {"weights", "deep/config"}
