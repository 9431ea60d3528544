"""A model whose class lies in its repository."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pytest_hfaccel.checkpoints import CheckpointStore
from pytest_hfaccel.core.errors import ConfigError, LoadError
from pytest_hfaccel.core.spec import ModelSpec, Weights, WeightsChoice

pytestmark = pytest.mark.slow

CODE = """
from transformers import BertForMaskedLM

class OwnForMaskedLM(BertForMaskedLM):
    motto = "from the repository"
"""


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkpoint with code: a tiny BERT under another name."""
    from transformers import dynamic_module_utils

    monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    spec = ModelSpec(name="bert", architecture="BertForMaskedLM", task="fill-mask")
    made = CheckpointStore(tmp_path).prepare(spec, WeightsChoice(Weights.TINY, "for a test")).directory
    config = json.loads((made / "config.json").read_text())
    config["architectures"] = ["OwnForMaskedLM"]
    config["auto_map"] = {"AutoModelForMaskedLM": "modeling_own.OwnForMaskedLM"}
    (made / "config.json").write_text(json.dumps(config))
    (made / "modeling_own.py").write_text(CODE)
    return made


def own(directory: Path, architecture: str) -> ModelSpec:
    return ModelSpec("own", architecture, "fill-mask", path=str(directory), requires_remote_code=True)


def test_with_consent_its_code_runs(directory: Path, tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, trust_remote_code=(str(directory),))
    spec = own(directory, "OwnForMaskedLM")
    checkpoint = store.prepare(spec, store.choose(spec, "auto", named=True))
    model = checkpoint.torch_model("fp32")
    assert model.motto == "from the repository"
    assert model(**checkpoint.sample().forward).logits.shape[0] == 2


def test_a_class_it_does_not_have_is_named(directory: Path, tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, trust_remote_code=(str(directory),))
    spec = own(directory, "OtherModel")
    checkpoint = store.prepare(spec, store.choose(spec, "auto", named=True))
    with pytest.raises(
        LoadError, match=r"auto_map names no class 'OtherModel'.\nIt names: modeling_own.OwnForMaskedLM"
    ):
        checkpoint.model_class()


def test_no_checkpoint_is_prepared_without_consent(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(CODE)
    spec = ModelSpec("own", "OwnForMaskedLM", "fill-mask", path=str(tmp_path), requires_remote_code=True)
    with pytest.raises(ConfigError, match="needs the code of its repository") as caught:
        CheckpointStore(tmp_path / "cache").prepare(spec, WeightsChoice(Weights.PRETRAINED, "test", str(tmp_path)))
    assert "own.py  sha256" in str(caught.value)
