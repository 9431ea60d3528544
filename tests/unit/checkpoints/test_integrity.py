"""A checkpoint that cannot be read: the error names file, problem and next step."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest

from pytest_hfaccel.checkpoints.fingerprint import fingerprint_of_files
from pytest_hfaccel.checkpoints.integrity import read_errors, require_sound_files
from pytest_hfaccel.core.errors import CheckpointError, GatedError, LoadError
from pytest_hfaccel.core.spec import ModelSpec

BERT = ModelSpec("bert", "BertForMaskedLM", "fill-mask")


def write_weights(path: Path) -> None:
    """One fp32 tensor of two elements."""
    header = json.dumps({"weight": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(8))


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A directory whose files are sound."""
    (tmp_path / "config.json").write_text("{}")
    write_weights(tmp_path / "model.safetensors")
    return tmp_path


def damage(directory: Path, *, allow_pickle: bool = False) -> str:
    with pytest.raises(CheckpointError) as caught:
        require_sound_files(directory, allow_pickle=allow_pickle)
    return str(caught.value)


def test_sound_files_are_not_blamed(checkpoint: Path) -> None:
    require_sound_files(checkpoint)


def test_a_directory_that_is_not_there(tmp_path: Path) -> None:
    assert damage(tmp_path / "gone").startswith(f"{tmp_path / 'gone'} is not a directory.\n")
    with pytest.raises(CheckpointError, match="is not a directory"):
        fingerprint_of_files(BERT, tmp_path / "gone")


def test_no_config(checkpoint: Path) -> None:
    (checkpoint / "config.json").unlink()
    assert "has no config.json" in damage(checkpoint)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "preprocessor_config.json"])
def test_a_file_that_is_not_json(name: str, checkpoint: Path) -> None:
    (checkpoint / name).write_text('{"hidden_size": ')
    assert damage(checkpoint).startswith(f"{checkpoint / name} is not valid JSON: Expecting value: line 1")


def test_weights_cut_off(checkpoint: Path) -> None:
    path = checkpoint / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-4])
    found = damage(checkpoint)
    assert str(path) in found
    assert f"({path.stat().st_size} bytes)" in found
    assert "again" in found.splitlines()[-1]


def test_no_weights_at_all(checkpoint: Path) -> None:
    (checkpoint / "model.safetensors").unlink()
    assert "model.safetensors is missing" in damage(checkpoint)


def test_a_shard_that_is_missing(checkpoint: Path) -> None:
    (checkpoint / "model.safetensors").rename(checkpoint / "model-1.safetensors")
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    (checkpoint / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "model-2.safetensors is missing" in damage(checkpoint)


def test_pickled_weights_name_the_way_to_load_them(checkpoint: Path) -> None:
    (checkpoint / "model.safetensors").rename(checkpoint / "pytorch_model.bin")
    assert "only pytorch_model.bin" in damage(checkpoint)
    assert "HFACCEL_ALLOW_PICKLE=1" in damage(checkpoint)
    require_sound_files(checkpoint, allow_pickle=True)


def test_damage_explains_whatever_was_raised(checkpoint: Path) -> None:
    (checkpoint / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"config\.json is not valid JSON"), read_errors(checkpoint):
        raise KeyError("hidden_size")


def test_without_damage_the_model_could_not_be_built(checkpoint: Path) -> None:
    with pytest.raises(LoadError, match=r"ValueError: size mismatch$"), read_errors(checkpoint):
        raise ValueError("size mismatch\n and many lines")


def test_an_unreadable_file_is_a_checkpoint_error(checkpoint: Path) -> None:
    with pytest.raises(CheckpointError, match=r"cannot be read: .*Permission denied"), read_errors(checkpoint):
        raise PermissionError(13, "Permission denied", "model.safetensors")


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("CUDA out of memory"), GatedError("licence")])
def test_what_others_handle_passes_through(error: Exception, checkpoint: Path) -> None:
    with pytest.raises(type(error)) as caught, read_errors(checkpoint):
        raise error
    assert caught.value is error


def test_the_fingerprint_of_files_changes_with_them(checkpoint: Path) -> None:
    before = fingerprint_of_files(BERT, checkpoint)
    assert fingerprint_of_files(BERT, checkpoint) == before
    (checkpoint / "config.json").write_text('{"hidden_size": 8}')
    assert fingerprint_of_files(BERT, checkpoint) != before


def test_two_classes_of_one_checkpoint_are_two_models(checkpoint: Path) -> None:
    """What is derived from one, a conversion or a reference, is not the other's."""
    body = ModelSpec("bert-body", "BertModel", "feature-extraction")
    assert fingerprint_of_files(BERT, checkpoint) != fingerprint_of_files(body, checkpoint)
