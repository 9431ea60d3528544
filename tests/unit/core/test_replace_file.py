"""Replacing files as a whole."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pytest_hfaccel.core.files import replace_file


def test_a_file_is_made_with_its_folders_and_replaced(tmp_path: Path) -> None:
    file = tmp_path / "a" / "b.json"
    replace_file(file, "ä\n")
    assert file.read_bytes() == "ä\n".encode()
    replace_file(file, b"\x00\r\n")
    assert file.read_bytes() == b"\x00\r\n"
    assert list(file.parent.iterdir()) == [file]


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "a"
    file.write_text("old")

    def refuse(*_: object) -> None:
        raise PermissionError("no")

    monkeypatch.setattr("os.replace", refuse)
    with pytest.raises(PermissionError):
        replace_file(file, "new")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert file.read_text() == "old"


@pytest.mark.skipif(os.name == "nt", reason="Windows has other permissions")
def test_a_file_keeps_its_permissions_and_a_new_one_has_the_usual_ones(tmp_path: Path) -> None:
    usual, file = tmp_path / "usual", tmp_path / "file"
    usual.touch()
    replace_file(file, "")
    assert file.stat().st_mode == usual.stat().st_mode
    file.chmod(0o640)
    replace_file(file, "new")
    assert file.stat().st_mode & 0o777 == 0o640
