"""Conversions refuse what is not sound, and put together what is split."""

from __future__ import annotations

import io
import json
import struct
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest

from pytest_hfaccel.checkpoints.pretrained.converters import convert
from pytest_hfaccel.checkpoints.pretrained.packages import packaged_folder, verified_files
from pytest_hfaccel.core.errors import CheckpointError
from pytest_hfaccel.core.spec import ModelSpec, PackageSource
from pytest_hfaccel.registry import load_registry

pytestmark = pytest.mark.slow


def model(source: PackageSource, architecture: str = "BertModel") -> ModelSpec:
    return ModelSpec("packaged/model", architecture, "feature-extraction", package=source)


def test_a_split_archive_is_put_together_and_leads_nowhere_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in (
            "model/config.json",
            "model/model.safetensors",
            "model/1_Pooling/config.json",
            "../outside",
            "/abs",
        ):
            archive.writestr(name, name)
    data = buffer.getvalue()
    parts = {"part-1/input/a.zip.001": data[:200], "part-2/input/a.zip.002": data[200:]}
    for name, part in parts.items():
        (tmp_path / "site" / name).parent.mkdir(parents=True)
        (tmp_path / "site" / name).write_bytes(part)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    hashes = {"a.zip.001": _sha256(data[:200]), "part-2/input/a.zip.002": _sha256(data[200:])}
    source = PackageSource("part-1/input", ("part-1==1", "part-2==1"), hashes, "zip")
    assert packaged_folder(source) == tmp_path / "site/part-1/input"
    target = tmp_path / "target"
    target.mkdir()
    convert(model(source), verified_files(model(source), source), target)
    assert sorted(path.name for path in target.iterdir()) == ["config.json", "conversion.json", "model.safetensors"]
    assert json.loads((target / "conversion.json").read_text())["install"] == ["part-1==1", "part-2==1"]
    assert not (tmp_path / "outside").exists()
    (tmp_path / "site/part-2/input/a.zip.002").unlink()
    assert packaged_folder(source) is None


def _sha256(data: bytes) -> str:
    import hashlib

    return hashlib.sha256(data).hexdigest()


def test_an_archive_that_is_none_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    path.write_bytes(b"no archive")
    with pytest.raises(CheckpointError, match=r"a\.zip: not a zip archive"):
        convert(model(PackageSource("x", converter="zip")), {"a.zip": path}, tmp_path)


def _ctranslate2(version: int = 6, size: int | None = None) -> bytes:
    """One tensor in CTranslate2's form; `size` lies about its bytes."""

    def text(value: str) -> bytes:
        return struct.pack("<H", len(value) + 1) + value.encode() + b"\0"

    data = np.arange(6, dtype=np.float16).tobytes()
    tensor = text("decoder/embeddings/weight") + struct.pack("<B2IB", 2, 2, 3, 4) + struct.pack("<I", size or len(data))
    header = struct.pack("<I", version) + text("WhisperSpec") + struct.pack("<II", 3, 1)
    return header + tensor + data + struct.pack("<I", 0)


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "not a sound model of CTranslate2 at byte 0"),
        (_ctranslate2()[:40], "not a sound model of CTranslate2 at byte"),
        (_ctranslate2(size=4000), "not a sound model of CTranslate2 at byte"),
        (_ctranslate2(version=4), "CTranslate2's format 4; read are 5 and later"),
    ],
    ids=["empty", "cut off", "a size that lies", "an old format"],
)
def test_a_model_of_ctranslate2_that_is_not_sound_is_named(tmp_path: Path, data: bytes, problem: str) -> None:
    (tmp_path / "model.bin").write_bytes(data)
    files = {"model.bin": tmp_path / "model.bin"}
    with pytest.raises(CheckpointError, match=problem) as caught:
        convert(model(PackageSource("x", converter="ctranslate2-whisper")), files, tmp_path)
    assert "model.bin" in str(caught.value)


def test_the_key_that_package_replaced_still_works(tmp_path: Path) -> None:
    file = tmp_path / "old.yaml"
    file.write_text("version: 1\nmodels:\n  me/old: {architecture: BertModel, bundled: some_package/model}\n")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        spec = load_registry([file]).get("me/old")
    assert spec.package == PackageSource("some_package/model")
    assert spec.hub_id == "me/old"
    assert "'bundled' is now 'package'" in str([one.message for one in caught if one.category is DeprecationWarning])
