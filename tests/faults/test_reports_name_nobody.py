"""What a run writes does not name the user, and is for the user alone."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from pytest_hfaccel.reporting.plain import redact
from tests.harness import Project

_FAKE = ("--hf-device", "fake:0", "-k", "placement or tells")
_CONFTEST = """
import os

os.umask(0o{umask})


def pytest_hfaccel_checks(checks):
    @checks.check("tells")
    def tells(context):
        home, here = os.environ["HOME"], os.getcwd()
        raise OSError(f"no such file: {{home}}/data/x.bin, {{here}}/sub/y.bin, -I{{home}}")
"""


def modes(directory: Path) -> set[tuple[bool, int]]:
    return {(path.is_dir(), stat.S_IMODE(path.stat().st_mode)) for path in (directory, *directory.rglob("*"))}


def test_paths_and_permissions(project: Project, tmp_path_factory: pytest.TempPathFactory) -> None:
    home = tmp_path_factory.mktemp("jane") / "jane.doe"
    for model in (home / "models" / "own", project.directory / "models" / "other"):
        model.mkdir(parents=True)
        config = {"model_type": "bert", "architectures": ["BertForMaskedLM"]}
        (model / "config.json").write_text(json.dumps(config), encoding="utf-8")
        (model / "model.safetensors").write_bytes(b"weights")
    project.write("conftest.py", _CONFTEST.format(umask="000"))
    models = ("--hf-model", str(home / "models" / "own"), "--hf-model", str(project.directory / "models" / "other"))
    run = project.run(*_FAKE, *models, HOME=str(home))
    assert run.code == 1, run.output
    (folder,) = (run.reports / "runs").glob("0001-*")
    texts = {path: path.read_text(encoding="utf-8") for path in folder.rglob("*.json*")}
    assert len(texts) == 4
    for path, text in texts.items():
        assert str(home) not in text, path
        assert str(project.directory) not in text, path
    assert {record.model for record in run.records.values()} == {"~/models/own", "models/other"}
    assert "no such file: ~/data/x.bin, sub/y.bin, -I~" in str(run.results["own-fake0-fp32"].reason)
    assert "--hf-model ~/models/own --hf-model models/other" in run.summary["run"]["command"]
    assert modes(folder) == {(True, 0o700), (False, 0o600)}

    project.write("conftest.py", _CONFTEST.format(umask="077"))
    shared = project.run(*_FAKE, "--hf-reports-mode", "640", "--hf-reports", "shared")
    assert shared.code == 1, shared.output
    (folder,) = (project.directory / "shared" / "runs").glob("0001-*")
    assert modes(folder) == {(True, 0o750), (False, 0o640)}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/home/jane", "~"),
        ("/home/jane/x", "~/x"),
        ("open('/home/jane/x')", "open('~/x')"),
        ("file:///home/jane/x", "file://~/x"),
        ("/home/janet/x", "/home/janet/x"),
        ("/home/jane/project/a/b.py:7", "a/b.py:7"),
        ("in /home/jane/project, say", "in ., say"),
        ("/home/jane/project2/a", "~/project2/a"),
        ("https://example.org/home", "https://example.org/home"),
    ],
)
def test_what_is_shortened(text: str, expected: str) -> None:
    assert redact(text, {"HOME": "/home/jane"}, root="/home/jane/project") == expected


@pytest.mark.parametrize("text", ["/srv/root/x", "/root2", "root", "https://example.org/root/x"])
def test_a_home_that_is_no_secret_is_found_only_where_a_path_begins(text: str) -> None:
    assert redact(text, {"HOME": "/root"}, root="/") == text
    assert redact("/root/x", {"HOME": "/root"}, root="/") == "~/x"
