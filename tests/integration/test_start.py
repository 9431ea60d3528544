"""Starting pytest, and collecting, costs nothing heavy."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.harness import Project, environment

HEAVY = {"torch", "transformers", "openvino", "pandas", "duckdb", "sklearn", "matplotlib"}

PROGRAM = """
import sys, pytest
code = pytest.main(sys.argv[1:])
print("IMPORTED", sorted({name.partition(".")[0] for name in sys.modules}))
raise SystemExit(code)
"""


def imported(project: Project, *arguments: str) -> tuple[set[str], str]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments],
        cwd=project.directory,
        env=environment(project.cache),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    line = next(line for line in done.stdout.splitlines() if line.startswith("IMPORTED"))
    return set(eval(line.partition(" ")[2])), done.stdout  # noqa: S307


@pytest.mark.parametrize(
    "arguments",
    [
        ("--help",),
        ("--fixtures",),
        ("--collect-only", "-q", "--all-models", "--all-hardware"),
        ("--collect-only", "-q", "--hf-model", "distilbert-base-uncased", "--hf-device", "cpu,openvino:CPU,cuda:0"),
    ],
    ids=lambda arguments: " ".join(arguments),
)
def test_heavy_packages_are_not_imported(project: Project, arguments: tuple[str, ...]) -> None:
    modules, output = imported(project, *arguments)
    assert not HEAVY & modules
    if "--collect-only" in arguments:
        assert "test_parity[" in output


def test_cell_ids_are_stable_and_safe(project: Project) -> None:
    arguments = (
        "--collect-only",
        "-q",
        "--all-models",
        "--hf-device",
        "openvino:GPU.0,cuda:1,cpu",
        "--hf-dtype",
        "fp16",
    )
    first, second = (project.run(*arguments).output for _ in range(2))
    ids = [line.partition("[")[2].rstrip("]") for line in first.splitlines() if "test_parity[" in line]
    assert ids == [line.partition("[")[2].rstrip("]") for line in second.splitlines() if "test_parity[" in line]
    assert "bert-base-uncased-cpu-fp16" in ids
    assert "bert-base-uncased-cuda1-fp16" in ids
    assert "bert-base-uncased-openvinogpu.0-fp16" in ids
    assert not any("::" in id_ or "@" in id_ or "/" in id_ for id_ in ids)


def test_a_check_that_applies_to_no_cell_is_not_collected(project: Project) -> None:
    output = project.run("--collect-only", "-q").output
    assert "test_padding_invariance[" in output
    assert "test_generation" not in output  # BERT does not generate
    assert "test_task_sense" not in output  # tiny weights
    assert "NOTSET" not in output


def test_a_suite_without_model_classes_imports_what_declares_options_and_hooks(project: Project) -> None:
    (project.directory / "test_hf_bert.py").unlink()
    project.write("test_plain.py", "def test_plain():\n    pass\n")
    program = PROGRAM.replace('name.partition(".")[0] for name in', "name for name in")
    done = subprocess.run(
        [sys.executable, "-c", program, "-q"],
        cwd=project.directory,
        env={name: value for name, value in environment(project.cache).items() if not name.startswith("HFACCEL_")},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    line = next(line for line in done.stdout.splitlines() if line.startswith("IMPORTED"))
    ours = {name for name in eval(line.partition(" ")[2]) if name.startswith("pytest_hfaccel")}  # noqa: S307
    plugin = {f"pytest_hfaccel.plugin{name}" for name in ("", ".hookspecs", ".options", ".state")}
    assert ours == {
        "pytest_hfaccel",
        "pytest_hfaccel.core",
        "pytest_hfaccel.core.config",
        "pytest_hfaccel.core.errors",
        *plugin,
    }
