"""The commit of the user's project, read without git; git itself is the judge where it is installed."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pytest_hfaccel.reporting.run_facts import git_commit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def git_dir(tmp_path: Path) -> Path:
    folder = tmp_path / "project" / ".git"
    (folder / "refs/heads").mkdir(parents=True)
    (folder / "HEAD").write_text("ref: refs/heads/main\n")
    return folder


def test_outside_a_repository(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()  # so that a repository around the temporary directory is not found
    assert git_commit(tmp_path) is None


def test_a_branch_from_a_folder_below(git_dir: Path) -> None:
    (git_dir / "refs/heads/main").write_text(COMMIT + "\n")
    below = git_dir.parent / "tests" / "deep"
    below.mkdir(parents=True)
    assert git_commit(below) == COMMIT


def test_before_the_first_commit(git_dir: Path) -> None:
    assert git_commit(git_dir.parent) is None


def test_a_detached_head(git_dir: Path) -> None:
    (git_dir / "HEAD").write_text(COMMIT + "\n")
    assert git_commit(git_dir.parent) == COMMIT


def test_a_packed_branch(git_dir: Path) -> None:
    (git_dir / "packed-refs").write_text(
        f"# pack-refs with: peeled\n{'f' * 40} refs/heads/mainly\n{COMMIT} refs/heads/main\n"
    )
    assert git_commit(git_dir.parent) == COMMIT


def test_a_work_tree(git_dir: Path, tmp_path: Path) -> None:
    inner = git_dir / "worktrees" / "side"
    inner.mkdir(parents=True)
    (inner / "HEAD").write_text("ref: refs/heads/side\n")
    (inner / "commondir").write_text("../..\n")
    (git_dir / "refs/heads/side").write_text(COMMIT + "\n")
    tree = tmp_path / "side"
    tree.mkdir()
    (tree / ".git").write_text(f"gitdir: {inner}\n")
    assert git_commit(tree) == COMMIT


def test_references_that_go_round_in_circles(git_dir: Path) -> None:
    (git_dir / "refs/heads/main").write_text("ref: refs/heads/main\n")
    assert git_commit(git_dir.parent) is None


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_git_agrees(tmp_path: Path) -> None:
    def git(*arguments: str) -> str:
        identity = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"]
        command = ["git", *identity, *arguments]
        return subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True, timeout=60).stdout

    git("init", "-q")
    git("commit", "-q", "--allow-empty", "-m", "first")
    assert git_commit(tmp_path) == git("rev-parse", "HEAD").strip()
    git("pack-refs", "--all")
    assert git_commit(tmp_path) == git("rev-parse", "HEAD").strip()


def test_reports_start_no_process_and_import_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "def forbid(event, arguments):\n"
        "    if event in ('subprocess.Popen', 'os.fork', 'os.exec', 'os.posix_spawn', 'os.system'):\n"
        "        raise SystemExit(f'{event} {arguments}')\n"
        "sys.addaudithook(forbid)\n"
        "from pathlib import Path\n"
        "from pytest_hfaccel.reporting.run_facts import envelope\n"
        "import pytest_hfaccel.reporting, pytest_hfaccel.pool\n"
        "envelope('summary', {})\n"
        "heavy = {'torch', 'transformers', 'openvino', 'numpy', 'pytest', 'jsonschema'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
