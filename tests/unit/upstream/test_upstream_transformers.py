"""What we patch of transformers: is silent, or reads in one thread, inside; as it was afterwards; still needed."""

from __future__ import annotations

import os
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from pytest_hfaccel.checkpoints import CheckpointStore
from pytest_hfaccel.core.spec import Weights, WeightsChoice
from pytest_hfaccel.registry.auto_classes import match_pairs
from pytest_hfaccel.upstream.transformers import (
    WithoutOptionalInputs,
    add_inputs_computed_for_export,
    attention_implementation,
    can_exchange_attention,
    decoding_step,
    load_in_one_thread,
    model_from_config,
    modeling_module,
    modules_kept_in_fp32,
    packages_of_dummy,
    processor_class_name,
    quiet,
    supports_attention,
    traced_names,
    traced_tensors,
)

pytestmark = pytest.mark.slow

SWITCH = "HF_DEACTIVATE_ASYNC_LOAD"


@pytest.fixture
def talkative() -> None:
    """transformers at its defaults."""
    from transformers.utils import logging

    logging.set_verbosity_warning()
    logging.enable_progress_bar()


def state() -> tuple[int, bool]:
    from transformers.utils import logging

    return logging.get_verbosity(), logging.is_progress_bar_enabled()


@pytest.mark.usefixtures("talkative")
def test_it_is_silent_inside_and_restored_outside() -> None:
    before = state()
    with quiet:
        assert state() != before
        warnings.warn("somebody else's deprecation", FutureWarning, stacklevel=1)
    assert state() == before


@pytest.mark.usefixtures("talkative")
def test_threads_that_overlap_restore_what_the_first_found() -> None:
    before, entered, leave = state(), threading.Event(), threading.Event()

    def other() -> None:
        with quiet:
            entered.set()
            leave.wait(10)

    thread = threading.Thread(target=other)
    with quiet:
        thread.start()
        assert entered.wait(10)
    silent = state()
    leave.set()
    thread.join(10)
    assert silent != before, "the second thread was still inside"
    assert state() == before


@pytest.mark.usefixtures("talkative")
def test_an_error_restores_too() -> None:
    before = state()
    with pytest.raises(ValueError, match="inside"), quiet:
        raise ValueError("inside")
    assert state() == before


@pytest.mark.parametrize("before", [None, "0", "1"])
def test_the_environment_is_restored_and_a_users_choice_stands(
    before: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(SWITCH, raising=False)
    if before is not None:
        monkeypatch.setenv(SWITCH, before)
    with load_in_one_thread:
        assert os.environ[SWITCH] == (before or "1")
        with load_in_one_thread:
            pass
        assert os.environ[SWITCH] == (before or "1"), "somebody is still inside"
    assert os.environ.get(SWITCH) == before


@pytest.mark.parametrize(("kind", "pools"), [(Weights.TINY, 0), (Weights.PRETRAINED, 1)])
def test_only_a_tiny_checkpoint_is_read_without_a_pool(
    kind: Weights, pools: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Fails as well when transformers stops using a pool: then `load_in_one_thread` is no longer needed.
    import transformers.core_model_loading as loading

    store = CheckpointStore(tmp_path)
    spec = match_pairs("gpt2/GPT2LMHeadModel")[0]
    tiny = store.prepare(spec, WeightsChoice(Weights.TINY, "for a test"))
    checkpoint = store.prepare(spec, WeightsChoice(kind, "for a test", str(tiny.directory)))
    made = []

    class Counted(ThreadPoolExecutor):
        def __init__(self, *args: Any, **options: Any) -> None:
            made.append(self)
            super().__init__(*args, **options)

    monkeypatch.delenv(SWITCH, raising=False)
    monkeypatch.setattr(loading, "ThreadPoolExecutor", Counted)
    checkpoint.torch_model("fp32")
    assert len(made) == pools


def test_generate_still_asks_the_private_methods_that_graphs_answer() -> None:
    import inspect

    from transformers import GenerationMixin
    from transformers.generation import utils

    source = inspect.getsource(utils)
    for name in vars(WithoutOptionalInputs):
        if name.startswith("_supports"):
            assert hasattr(GenerationMixin, name), f"{name} is gone: WithoutOptionalInputs need not answer it"
            assert f"self.{name}()" in source


def test_private_attributes_of_model_classes_are_there() -> None:
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel, T5ForConditionalGeneration, TimmBackbone

    with torch.device("meta"):
        model = model_from_config(
            GPT2LMHeadModel, GPT2Config(n_embd=8, n_head=2, n_layer=1, vocab_size=9), torch.bfloat16
        )
    assert model.dtype == torch.bfloat16
    assert attention_implementation(model.config) == "sdpa"
    assert can_exchange_attention(model)
    assert all(isinstance(supports_attention(model, name), bool) for name in ("sdpa", "flash_attention_2"))
    assert modules_kept_in_fp32(T5ForConditionalGeneration) == ["wo"]
    assert modules_kept_in_fp32(T5ForConditionalGeneration, strictly=True) == []
    assert packages_of_dummy(GPT2LMHeadModel) == []
    assert isinstance(packages_of_dummy(TimmBackbone), list)


def test_private_functions_of_the_exporters_are_there() -> None:
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel
    from transformers.exporters.metadata import ExportMetadata, _describe_traced_kwarg

    model = GPT2LMHeadModel(GPT2Config(n_embd=8, n_head=2, n_layer=1, vocab_size=9, n_positions=16)).eval()
    ids = torch.ones(2, 3, dtype=torch.long)
    inputs = {"input_ids": ids}
    add_inputs_computed_for_export(model, inputs)
    assert list(inputs) == ["input_ids"], "a text model has no such inputs"
    step, arguments = decoding_step(model, {"input_ids": ids, "attention_mask": torch.ones_like(ids)})
    assert isinstance(step, torch.nn.Module)
    assert {"input_ids", "past_key_values"} <= set(arguments)
    metadata = ExportMetadata(kwargs={"input_ids": _describe_traced_kwarg(ids), "sizes": _describe_traced_kwarg([1])})
    assert traced_names(metadata) == {"input_ids", "sizes"}
    assert traced_tensors(metadata) == {"input_ids": ((2, 3), torch.int64)}


@pytest.mark.parametrize(
    ("kind", "model_type", "name"),
    [
        ("tokenization", "bert", "BertTokenizer"),
        ("image_processing", "vit", "ViTImageProcessor"),
        ("feature_extraction", "whisper", "WhisperFeatureExtractor"),
        ("tokenization", "no such type", None),
    ],
)
def test_the_tables_of_the_auto_classes_are_there(kind: str, model_type: str, name: str | None) -> None:
    found = processor_class_name(kind, model_type)
    assert found == name or (name is not None and (found or "").startswith(name))


def test_modules_of_models_are_found_by_type() -> None:
    assert modeling_module("gpt2") == "transformers.models.gpt2.modeling_gpt2"
    assert modeling_module("xlm-roberta") == "transformers.models.xlm_roberta.modeling_xlm_roberta"
