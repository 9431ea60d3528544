"""Weights in a pickle: refused unless the user opts out of safetensors, and even then no code in them runs."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from pytest_hfaccel.checkpoints import Checkpoint, CheckpointStore
from pytest_hfaccel.core.errors import CheckpointError, LoadError
from pytest_hfaccel.core.spec import ModelSpec, Weights, WeightsChoice
from pytest_hfaccel.registry import load_registry, resolve_model

pytestmark = pytest.mark.slow


class _Malicious:
    """Makes a directory when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self._mark = mark

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self._mark),)


@pytest.fixture
def pickled(tmp_path: Path, shared_cache: Path) -> Path:
    """A tiny BERT with its weights in `pytorch_model.bin`."""
    import torch
    from safetensors.torch import load_file

    spec = ModelSpec(name="bert", architecture="BertForMaskedLM", task="fill-mask")
    built = CheckpointStore(shared_cache / "hfaccel").prepare(spec, WeightsChoice(Weights.TINY, "for a test"))
    directory = tmp_path / "pickled"
    shutil.copytree(built.directory, directory)
    torch.save(load_file(directory / "model.safetensors"), directory / "pytorch_model.bin")
    (directory / "model.safetensors").unlink()
    return directory


def checkpoint(directory: Path, *, allow_pickle: bool) -> Checkpoint:
    store = CheckpointStore(directory / "cache", allow_pickle=allow_pickle)
    (spec,) = resolve_model(str(directory), load_registry())
    return store.prepare(spec, store.choose(spec, "auto", named=True))


def test_is_refused_by_default(pickled: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no safetensors weights, only pytorch_model\.bin") as caught:
        checkpoint(pickled, allow_pickle=False).torch_model("fp32")
    assert "HFACCEL_ALLOW_PICKLE=1" in str(caught.value)


def test_is_loaded_when_the_user_allows_it(pickled: Path) -> None:
    loaded = checkpoint(pickled, allow_pickle=True)
    loaded.torch_model("fp32")
    assert loaded.loading_info()["missing_keys"] == []


def test_runs_no_code_even_then(pickled: Path, tmp_path: Path) -> None:
    import torch

    mark = tmp_path / "code-ran"
    file = pickled / "pytorch_model.bin"
    torch.save({**torch.load(file, weights_only=True), "extra": _Malicious(mark)}, file)
    for allow_pickle in (False, True):
        with pytest.raises((CheckpointError, LoadError)):
            checkpoint(pickled, allow_pickle=allow_pickle).torch_model("fp32")
    assert not mark.exists()
    torch.load(file, weights_only=False)  # the pickle does what it says where it is trusted
    assert mark.exists()
