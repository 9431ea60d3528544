"""Which weights a model runs with, and why."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from pytest_hfaccel.checkpoints.store import choose_weights
from pytest_hfaccel.core.errors import ConfigError
from pytest_hfaccel.core.spec import ModelSpec, Weights
from tests.harness import environment

SPEC = ModelSpec(name="someone/bert", architecture="BertForMaskedLM", task="fill-mask", hub_id="someone/bert")
REMOTE = ModelSpec(
    name="someone/own", architecture="OwnModel", task="fill-mask", hub_id="someone/own", requires_remote_code=True
)


@pytest.fixture(autouse=True)
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty local cache, and no hub."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return tmp_path


def put_in_cache(hub_cache: Path, *files: str, revision: str = "main") -> Path:
    repository = hub_cache / "models--someone--bert"
    snapshot = repository / "snapshots" / "0123abcd"
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / revision).write_text("0123abcd")
    for name in files:
        (snapshot / name).write_text(
            '{"weight_map": {"a": "model-1-of-2.safetensors", "b": "model-2-of-2.safetensors"}}'
        )
    return snapshot


@pytest.mark.parametrize("wanted", ["tiny", "random"])
def test_weights_that_are_asked_for_are_not_looked_for(wanted: str, hub_cache: Path) -> None:
    put_in_cache(hub_cache, "config.json", "model.safetensors")
    choice = choose_weights(SPEC, wanted, named=True)
    assert (choice.kind, choice.path) == (wanted, "")
    assert "--hf-weights" in choice.reason


def test_a_directory_is_used_as_it_is(tmp_path: Path) -> None:
    spec = ModelSpec(name="./mine", architecture="BertModel", task="feature-extraction", path=str(tmp_path))
    choice = choose_weights(spec, "auto", named=True)
    assert (choice.kind, choice.path) == (Weights.PRETRAINED, str(tmp_path))


@pytest.mark.parametrize("wanted", ["auto", "pretrained"])
def test_a_snapshot_in_the_local_cache_is_used(wanted: str, hub_cache: Path) -> None:
    snapshot = put_in_cache(hub_cache, "config.json", "model.safetensors")
    choice = choose_weights(SPEC, wanted, named=False)
    assert (choice.kind, choice.path) == (Weights.PRETRAINED, str(snapshot))
    assert choice.reason == "in the local cache"


@pytest.mark.parametrize(
    "files",
    [
        ("config.json",),
        ("model.safetensors",),
        ("config.json", "pytorch_model.bin"),
        ("config.json", "model.safetensors.index.json", "model-1-of-2.safetensors"),
    ],
    ids=["no weights", "no config", "pickled only", "a shard missing"],
)
def test_an_incomplete_snapshot_is_not_used(files: tuple[str, ...], hub_cache: Path) -> None:
    put_in_cache(hub_cache, *files)
    choice = choose_weights(SPEC, "auto", named=False)
    assert choice.kind == Weights.TINY
    assert choice.reason == "not in the local cache"


def test_all_shards_make_a_snapshot(hub_cache: Path) -> None:
    shards = [f"model-{number}-of-2.safetensors" for number in (1, 2)]
    put_in_cache(hub_cache, "config.json", "model.safetensors.index.json", *shards)
    assert choose_weights(SPEC, "auto", named=False).kind == Weights.PRETRAINED


def test_pickled_weights_count_where_they_may_be_loaded(hub_cache: Path) -> None:
    put_in_cache(hub_cache, "config.json", "pytorch_model.bin")
    assert choose_weights(SPEC, "auto", named=False, allow_pickle=True).kind == Weights.PRETRAINED


def test_another_revision_in_the_cache_is_not_the_one_asked_for(hub_cache: Path) -> None:
    put_in_cache(hub_cache, "config.json", "model.safetensors", revision="old")
    assert choose_weights(SPEC, "auto", named=False).kind == Weights.TINY


def test_a_named_model_says_why_it_was_not_downloaded() -> None:
    choice = choose_weights(SPEC, "auto", named=True)
    assert choice.kind == Weights.TINY
    assert choice.reason == "not in the local cache; HF_HUB_OFFLINE switches the hub off"


def test_pretrained_never_becomes_tiny() -> None:
    choice = choose_weights(SPEC, "pretrained", named=False)
    assert (choice.kind, choice.path) == (Weights.PRETRAINED, "")


def test_a_model_with_code_of_its_own_has_no_tiny_form() -> None:
    assert choose_weights(REMOTE, "auto", named=True).kind == Weights.PRETRAINED
    with pytest.raises(ConfigError, match="someone/own: tiny weights need a class of transformers"):
        choose_weights(REMOTE, "tiny", named=True)


def test_choosing_imports_neither_torch_nor_transformers(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from pytest_hfaccel.checkpoints import CheckpointStore\n"
        "from pytest_hfaccel.core.spec import ModelSpec\n"
        "spec = ModelSpec('a/b', 'BertModel', 'feature-extraction', hub_id='a/b')\n"
        "print(CheckpointStore(Path('.')).choose(spec, 'auto', named=True).kind)\n"
        "print(sorted({'torch', 'transformers', 'numpy'} & set(sys.modules)))\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", code],
        env=environment(tmp_path),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.splitlines() == ["tiny", "[]"]
