"""A file of the hub's cache has the content that it is named by, or is refused; a download says how far it is."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from pytest_hfaccel.checkpoints.integrity import require_intact_snapshot
from pytest_hfaccel.checkpoints.pretrained.hub import _progress_bar
from pytest_hfaccel.core.errors import CheckpointError
from pytest_hfaccel.core.stages import current_detail, note_detail

_CONTENT = b"the weights"


@pytest.fixture
def blob(tmp_path: Path) -> Path:
    """A file of the cache as huggingface_hub keeps it: named by its SHA-256, and linked to from the snapshot."""
    blob = tmp_path / "blobs" / hashlib.sha256(_CONTENT).hexdigest()
    blob.parent.mkdir()
    blob.write_bytes(_CONTENT)
    snapshot = tmp_path / "snapshots" / "0123abcd"
    snapshot.mkdir(parents=True)
    (snapshot / "model.safetensors").symlink_to(blob)
    return blob


@pytest.mark.usefixtures("blob")
def test_a_sound_snapshot_passes(tmp_path: Path) -> None:
    require_intact_snapshot(tmp_path / "snapshots" / "0123abcd", tmp_path / "intact")


def test_a_damaged_file_is_refused_with_what_to_delete(blob: Path, tmp_path: Path) -> None:
    blob.write_bytes(b"the weighst")
    with pytest.raises(CheckpointError, match=r"model\.safetensors is damaged") as caught:
        require_intact_snapshot(tmp_path / "snapshots" / "0123abcd", tmp_path / "intact")
    assert f"Delete {blob}" in str(caught.value)


def test_small_files_are_named_as_git_does(blob: Path, tmp_path: Path) -> None:
    small = blob.with_name(hashlib.sha1(b"blob 2\0{}", usedforsecurity=False).hexdigest())
    small.write_bytes(b"{}")
    (tmp_path / "snapshots" / "0123abcd" / "config.json").symlink_to(small)
    require_intact_snapshot(tmp_path / "snapshots" / "0123abcd", tmp_path / "intact")
    small.write_bytes(b"[]")
    with pytest.raises(CheckpointError, match=r"config\.json is damaged"):
        require_intact_snapshot(tmp_path / "snapshots" / "0123abcd", tmp_path / "intact")


def test_a_directory_of_ones_own_has_no_such_names(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(_CONTENT)
    require_intact_snapshot(tmp_path, tmp_path / "intact")


def test_a_download_tells_its_bytes_where_no_terminal_shows_a_bar() -> None:
    bar = _progress_bar()(desc="Downloading", total=0, initial=0, unit="B", unit_scale=True, bar_format="{desc}")
    files = _progress_bar()(range(2), desc="Fetching 2 files", total=2)
    try:
        bar.total = 2**21
        bar.update(2**20)
        bar.refresh()
        assert list(files) == [0, 1]
        assert current_detail() == "download 1.0 MiB of 2.0 MiB"
    finally:
        note_detail("")
        bar.close()
        files.close()
