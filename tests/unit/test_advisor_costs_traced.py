"""The cost of an architecture, against models that are really built and run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pytest_hfaccel.core.errors import ConfigError, LoadError
from pytest_hfaccel.predict.requirements import cost_of
from pytest_hfaccel.tracing.traces import trace_of

pytestmark = pytest.mark.slow

SMALL = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}


def traced(architecture: str, dims: dict[str, Any], length: int = 16) -> Any:
    from pytest_hfaccel.predict.requirements import trace_architecture

    return trace_architecture(architecture, dims, length)


def test_weights_and_flops_equal_those_of_the_real_model() -> None:
    import torch
    import transformers
    from torch.utils.flop_counter import FlopCounterMode

    cost = traced("BertForMaskedLM", SMALL)
    model = transformers.BertForMaskedLM(transformers.BertConfig(**SMALL)).eval()
    held = [*model.parameters(), *model.buffers()]
    assert cost.weight_bytes("fp32") == sum(tensor.numel() * tensor.element_size() for tensor in held)
    assert cost.weight_bytes("bf16") < 0.51 * cost.weight_bytes("fp32")
    # An attention that torch's own counter knows; the fused one of the CPU is not in its table.
    model.set_attn_implementation("eager")
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(torch.ones(1, 16, dtype=torch.int64))
    assert cost.run.flops_per_sample == counter.get_total_flops()


def test_activations_are_those_of_the_largest_moment() -> None:
    cost = traced("BertForMaskedLM", SMALL)
    logits = 16 * 30522 * 4
    assert logits < cost.run.bytes_per_sample < 2.5 * logits
    assert cost.output_bytes("fp32", 2) == 2 * logits
    assert cost.activation_bytes("fp32", 4) == cost.run.fixed_bytes + 4 * cost.run.bytes_per_sample


def test_tables_of_embeddings_are_not_multiplied() -> None:
    tied = traced("BertForMaskedLM", SMALL)
    headless = traced("BertModel", SMALL)
    assert tied.run.multiplied_bytes - headless.run.multiplied_bytes > 30522 * 64 * 4
    assert headless.run.multiplied_bytes < 0.1 * headless.weight_bytes("fp32")


@pytest.mark.parametrize(
    ("architecture", "dims"),
    [
        ("CLIPModel", {}),
        ("WhisperForConditionalGeneration", {"encoder_layers": 1, "decoder_layers": 1}),
        ("XCLIPModel", {}),
        (
            "LlavaForConditionalGeneration",
            {
                "text_config": {"model_type": "llama", "num_hidden_layers": 1, "vocab_size": 32064},
                "vision_config": {"model_type": "clip_vision_model", "num_hidden_layers": 2, "image_size": 336},
            },
        ),
    ],
)
def test_other_modalities_run_on_fake_tensors(architecture: str, dims: dict[str, Any]) -> None:
    cost = traced(architecture, dims)
    assert cost.problem == ""
    assert cost.run.bytes_per_sample > 0


def test_what_cannot_be_built_is_said() -> None:
    with pytest.raises(LoadError, match="BertForNothing"):
        traced("BertForNothing", {})
    with pytest.raises((ConfigError, LoadError), match="hidden size"):
        traced("BertModel", {"hidden_size": 65, "num_attention_heads": 4})


def test_a_second_call_reads_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = cost_of("BertModel", SMALL, length=16, cache_dir=tmp_path)
    monkeypatch.setattr(
        "pytest_hfaccel.predict.requirements.trace_architecture", lambda *_, **__: pytest.fail("traced again")
    )
    assert cost_of("BertModel", SMALL, length=16, cache_dir=tmp_path) == first
    (file,) = (tmp_path / "costs").iterdir()
    file.write_text("{")
    with pytest.raises(pytest.fail.Exception, match="traced again"):
        cost_of("BertModel", SMALL, length=16, cache_dir=tmp_path)


def test_int8_is_what_the_predictor_counts(tmp_path: Path) -> None:
    """Weights of matrix products have 8 bits; embeddings, biases and activations stay fp32."""
    cost = cost_of("BertModel", SMALL, length=16, cache_dir=tmp_path)
    trace = trace_of("BertModel", SMALL, batch=1, length=16, cache_dir=tmp_path, dtype="int8")
    # The requirements count biases of products among their matrices: a thousandth of the weights.
    assert cost.weight_bytes("int8") == pytest.approx(trace.weight_bytes, rel=2e-3)
    assert cost.activation_bytes("int8", 1) == cost.activation_bytes("fp32", 1) == trace.activation_bytes
    assert cost.weight_bytes("fp16") < cost.weight_bytes("int8") < cost.weight_bytes("fp32")
