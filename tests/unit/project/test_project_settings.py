"""Which file has the pytest settings of a project, and how one is added without touching the others."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_hfaccel.project.settings import find_settings, modules_folder

ADDED = {"hf_registry": "registry.yaml"}


def write(directory: Path, **files: str) -> None:
    for name, text in files.items():
        (directory / name.replace("__", ".")).write_text(text, encoding="utf-8")


@pytest.mark.parametrize(
    ("files", "name", "section"),
    [
        ({}, "pytest.ini", "pytest"),
        ({"pyproject__toml": "[project]\nname = 'x'\n"}, "pyproject.toml", "tool.pytest.ini_options"),
        ({"pyproject__toml": "[tool.pytest]\nminversion = '9'\n"}, "pyproject.toml", "tool.pytest"),
        ({"pyproject__toml": "[tool.pytest.ini_options]\n"}, "pyproject.toml", "tool.pytest.ini_options"),
        ({"pytest__ini": "", "pyproject__toml": "[tool.pytest.ini_options]\n"}, "pytest.ini", "pytest"),
        ({"tox__ini": "[pytest]\n", "pyproject__toml": "[project]\n"}, "tox.ini", "pytest"),
        ({"tox__ini": "[tox]\n", "setup__cfg": "[tool:pytest]\n"}, "setup.cfg", "tool:pytest"),
        ({"tox__ini": "[tox]\n", "setup__cfg": "[metadata]\n"}, "pytest.ini", "pytest"),
        ({"pytest__toml": "[pytest]\n", "pytest__ini": "[pytest]\n"}, "pytest.toml", "pytest"),
    ],
)
def test_the_file_that_pytest_reads(tmp_path: Path, files: dict[str, str], name: str, section: str) -> None:
    write(tmp_path, **files)
    found = find_settings(tmp_path)
    assert (found.path.name, found.section) == (name, section)


@pytest.mark.parametrize(
    ("name", "before", "after"),
    [
        ("pytest__ini", "", "[pytest]\nhf_registry = registry.yaml\n"),
        ("pytest__ini", "[pytest]", "[pytest]\nhf_registry = registry.yaml\n"),
        (
            "pytest__ini",
            "# mine\n[pytest]  \naddopts = -q\n[other]\na = 1\n",
            "# mine\n[pytest]  \nhf_registry = registry.yaml\naddopts = -q\n[other]\na = 1\n",
        ),
        (
            "pyproject__toml",
            "[ tool . pytest . ini_options ] # ours\r\naddopts = '-q'\r\n",
            "[ tool . pytest . ini_options ] # ours\r\nhf_registry = \"registry.yaml\"\r\naddopts = '-q'\r\n",
        ),
        (
            "pyproject__toml",
            "[project]\nname = 'x'",
            "[project]\nname = 'x'\n\n[tool.pytest.ini_options]\nhf_registry = \"registry.yaml\"\n",
        ),
        ("setup__cfg", "[tool:pytest]\nx = 1\n", "[tool:pytest]\nhf_registry = registry.yaml\nx = 1\n"),
    ],
)
def test_a_setting_is_added_and_the_rest_stays(tmp_path: Path, name: str, before: str, after: str) -> None:
    path = tmp_path / name.replace("__", ".")
    path.write_bytes(before.encode())
    assert find_settings(tmp_path).add(ADDED)
    assert path.read_bytes().decode() == after
    assert find_settings(tmp_path).values["hf_registry"] == "registry.yaml"


@pytest.mark.parametrize(
    "text",
    [
        "[tool.pytest.ini_options]\nhf_registry = 'mine.yaml'\n",
        "tool.pytest.ini_options = {addopts = '-q'}\n",
        "[tool]\npytest = {ini_options = {addopts = '-q'}}\n",
        "[tool.pytest.ini_options\n",
        "[project]\ndescription = '''\n[tool.pytest.ini_options]\n'''\n[tool]\npytest.ini_options.addopts = '-q'\n",
    ],
    ids=["it is set", "inline", "inline in a table", "not TOML", "the header is in a text"],
)
def test_what_cannot_be_extended_is_left_alone(tmp_path: Path, text: str) -> None:
    write(tmp_path, pyproject__toml=text)
    assert not find_settings(tmp_path).add(ADDED)
    assert (tmp_path / "pyproject.toml").read_text(encoding="utf-8") == text


@pytest.mark.parametrize(
    ("testpaths", "folders", "expected"),
    [
        ("", (), "model_classes"),
        ("", ("tests",), "tests"),
        ("", ("tests", "model_classes"), "model_classes"),
        ("testpaths = checks others", (), "checks"),
        ("testpaths = ../elsewhere", (), "model_classes"),
    ],
)
def test_modules_go_where_pytest_looks(tmp_path: Path, testpaths: str, folders: tuple[str, ...], expected: str) -> None:
    write(tmp_path, pytest__ini=f"[pytest]\n{testpaths}\n")
    for folder in folders:
        (tmp_path / folder).mkdir()
    assert modules_folder(tmp_path) == tmp_path / expected
