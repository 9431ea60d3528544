"""What is traced without weights, against the same models with weights, run for real."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.tracing.tracing_models import BERT, LENGTH, MODELS, real_inputs, real_model

pytestmark = pytest.mark.slow

BATCH = 2


def traced(architecture: str, **how: Any) -> Any:
    from pytest_hfaccel.tracing.traces import trace_model

    return trace_model(architecture, MODELS[architecture], batch=BATCH, length=LENGTH, **how)


def count_of(trace: Any, name: str) -> int:
    return sum(operator.count for operator in trace.operators if operator.name == name)


@pytest.mark.parametrize("architecture", MODELS)
def test_flops_are_those_that_torch_counts(architecture: str) -> None:
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    # An attention that torch's own counter knows; the fused one of the CPU is not in its table.
    model = real_model(architecture, attn_implementation="eager")
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(**real_inputs(model, BATCH))
    assert traced(architecture).flops == counter.get_total_flops() > 0


@pytest.mark.parametrize("architecture", MODELS)
@pytest.mark.parametrize("training", [False, True], ids=["forward", "training"])
def test_operators_and_memory_are_those_of_a_real_run(architecture: str, training: bool) -> None:
    from pytest_hfaccel.tracing.torch.passes import record_forward, record_step
    from pytest_hfaccel.tracing.trace import counted

    model = real_model(architecture)
    tensors = [*model.parameters(), *model.buffers()]
    run = record_step if training else record_forward
    real = run(model, tensors, real_inputs(model, BATCH), lambda model, inputs: model(**inputs))
    trace = traced(architecture, training=training)
    assert trace.operators == counted(real.recorder.operators)
    assert trace.activation_bytes == max(nbytes for nbytes, _ in real.recorder.curve)
    assert trace.output_bytes == real.output[0]
    assert trace.optimizer_bytes == real.optimizer_bytes
    assert trace.weight_bytes == sum(tensor.numel() * tensor.element_size() for tensor in tensors)


@pytest.mark.parametrize(
    "architecture", ["BertForMaskedLM", "T5ForConditionalGeneration", "ResNetForImageClassification"]
)
def test_backward_flops_are_those_that_torch_counts(architecture: str) -> None:
    from torch.utils.flop_counter import FlopCounterMode

    model = real_model(architecture, attn_implementation="eager").train()
    inputs = real_inputs(model, BATCH)
    with FlopCounterMode(display=False) as counter:
        model(**inputs).logits.sum().backward()
    assert traced(architecture, training=True).flops == counter.get_total_flops()


def test_a_training_step_holds_gradients_and_two_moments_per_parameter() -> None:
    trace = traced("BertForMaskedLM", training=True)
    steps = 4 * len([name for name, _ in real_model("BertForMaskedLM").named_parameters()])
    assert trace.optimizer_bytes == 8 * trace.parameters + steps
    assert trace.activation_bytes > trace.optimizer_bytes + 4 * trace.parameters
    assert count_of(trace, "_fused_adamw_") == 1
    for name in ("native_layer_norm_backward", "gelu_backward", "embedding_dense_backward"):
        assert count_of(trace, name)


def test_mixed_precision_trains_an_fp32_copy() -> None:
    half, full = (traced("BertForMaskedLM", training=True, dtype=dtype) for dtype in ("bf16", "fp32"))
    assert half.optimizer_bytes == full.optimizer_bytes + 4 * half.parameters
    assert half.weight_bytes - half.buffer_bytes == 2 * half.parameters


def test_layers_that_training_drops_at_random_are_all_there() -> None:
    forward, step = (traced("Wav2Vec2ForCTC", training=training) for training in (False, True))
    assert count_of(step, "native_layer_norm") == count_of(forward, "native_layer_norm")


def test_a_half_precision_model_moves_half_of_the_bytes() -> None:
    full, half = (traced("BertForMaskedLM", dtype=dtype) for dtype in ("fp32", "bf16"))
    assert half.flops == full.flops
    assert half.weight_bytes - half.buffer_bytes == (full.weight_bytes - full.buffer_bytes) / 2
    assert half.moved_bytes == pytest.approx(full.moved_bytes / 2, rel=0.01)


def test_what_a_class_keeps_in_fp32_stays_in_fp32() -> None:
    kept = traced("T5ForConditionalGeneration", dtype="fp16")
    matrices = 4 * 64 * 128  # `wo` of two layers on each side
    assert kept.weight_bytes - kept.buffer_bytes == 2 * kept.parameters + 2 * matrices


def test_int8_weights_take_a_byte_and_activations_stay() -> None:
    full, quantised = (traced("BertForMaskedLM", dtype=dtype) for dtype in ("fp32", "int8"))
    assert quantised.activation_bytes == full.activation_bytes
    assert quantised.flops == full.flops
    matrices = 4 * (4 * 64 * 64 + 2 * 64 * 128) // 2 + 64 * 64 + 64 * 1000
    assert full.weight_bytes - quantised.weight_bytes == 3 * matrices
    assert full.moved_bytes - quantised.moved_bytes == 3 * matrices


def test_experts_run_without_values() -> None:
    import torch
    import transformers
    from torch.utils.flop_counter import FlopCounterMode

    from pytest_hfaccel.tracing.traces import trace_model

    dims = {**BERT, "num_key_value_heads": 2, "num_local_experts": 4}
    trace = trace_model("MixtralForCausalLM", dims, batch=BATCH, length=LENGTH)
    config = transformers.MixtralConfig(**dims, attn_implementation="eager", experts_implementation="eager")
    model = transformers.MixtralForCausalLM(config).eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(**real_inputs(model, BATCH))
    assert count_of(trace, "_grouped_mm") == 4
    assert trace.flops == counter.get_total_flops()
