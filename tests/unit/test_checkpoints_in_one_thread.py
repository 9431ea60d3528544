"""A tiny checkpoint is read in one thread, and the process's environment is as it was afterwards."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pytest_hfaccel.checkpoints import CheckpointStore
from pytest_hfaccel.checkpoints.in_one_thread import in_one_thread
from pytest_hfaccel.core.spec import Weights, WeightsChoice
from pytest_hfaccel.registry.every import match_pairs

SWITCH = "HF_DEACTIVATE_ASYNC_LOAD"


@pytest.mark.parametrize("before", [None, "0", "1"])
def test_the_environment_is_restored_and_a_users_choice_stands(
    before: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(SWITCH, raising=False)
    if before is not None:
        monkeypatch.setenv(SWITCH, before)
    with in_one_thread:
        assert os.environ[SWITCH] == (before or "1")
        with in_one_thread:
            pass
        assert os.environ[SWITCH] == (before or "1"), "somebody is still inside"
    assert os.environ.get(SWITCH) == before


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "pools"), [(Weights.TINY, 0), (Weights.PRETRAINED, 1)])
def test_only_a_tiny_checkpoint_is_read_without_a_pool(
    kind: Weights, pools: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import transformers.core_model_loading as loading

    store = CheckpointStore(tmp_path)
    spec = match_pairs("gpt2/GPT2LMHeadModel")[0]
    tiny = store.prepare(spec, WeightsChoice(Weights.TINY, "for a test"))
    checkpoint = store.prepare(spec, WeightsChoice(kind, "for a test", str(tiny.directory)))
    made = []

    class Counted(ThreadPoolExecutor):
        def __init__(self, *args: object, **options: object) -> None:
            made.append(self)
            super().__init__(*args, **options)  # type: ignore[arg-type]

    monkeypatch.delenv(SWITCH, raising=False)
    monkeypatch.setattr(loading, "ThreadPoolExecutor", Counted)
    checkpoint.torch_model("fp32")
    assert len(made) == pools
