"""What tests of the predictor share: an invented transformer, machine, rows and calibration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pytest_hfaccel.benchmark.measurement import Latency, Measurement, Noise
from pytest_hfaccel.core.prediction import Estimate, Prediction, Question, Source
from pytest_hfaccel.core.spec import Device
from pytest_hfaccel.hardware import HardwareReport, Presence
from pytest_hfaccel.predict.calibration.records import DeviceCalibration, TimedOperator
from pytest_hfaccel.tracing.trace import ModelTrace, Operator

GIB = 2**30
CHIP = "AMD EPYC"
REPORT = HardwareReport(
    (
        Presence(Device("cpu"), True, "4 cores", CHIP, 16 * GIB, {"cores": 4}),
        Presence(Device("cuda", "0"), False, "no NVIDIA driver"),
        Presence(Device("openvino", "CPU"), True, "openvino 2026.4", CHIP, 16 * GIB),
    )
)
_BYTES = {"fp32": 4, "bf16": 2, "fp16": 2, "int8": 4}
_TEXT = ("Bert", "GPT2", "Llama", "T5", "CLIP", "OPT", "Mistral", "Whisper", "Roberta", "DistilBert", "Qwen2")


def block_trace(
    architecture: str,
    dims: Mapping[str, Any],
    *,
    batch: int,
    length: int,
    dtype: str = "fp32",
    training: bool = False,
    **_: Any,
) -> ModelTrace:
    """Trace an invented transformer: embeddings, and per layer two products, an attention and a sum."""
    width = dims.get("hidden_size", dims.get("d_model", dims.get("n_embd", 768)))
    layers = dims.get("num_hidden_layers", dims.get("num_layers", dims.get("n_layer", 12)))
    heads = dims.get("num_attention_heads", dims.get("num_heads", dims.get("n_head", 12)))
    element, rows = _BYTES[dtype], batch * length
    per_layer = 12 * width * width
    parameters = layers * per_layer + 30000 * width
    weight = 1 if dtype == "int8" else element
    activations = rows * width * element * 4

    def product(columns: int, depth: int) -> Operator:
        flops = (3 if training else 1) * 2 * rows * columns * depth
        read = rows * depth * element + columns * depth * weight
        shapes = ((columns,), (rows, depth), (depth, columns))
        return Operator("addmm", shapes, (rows, columns), flops, read, rows * columns * element, count=layers)

    query = (batch, heads, length, width // heads)
    operators = [
        product(8 * width, width),
        product(width, 4 * width),
        Operator(
            "_scaled_dot_product_flash_attention_for_cpu",
            (query, query, query),
            query,
            4 * batch * length * length * width,
            3 * rows * width * element,
            rows * width * element,
            count=layers,
        ),
        Operator(
            "add", ((rows, width),), (rows, width), 0, 2 * rows * width * element, rows * width * element, count=layers
        ),
        Operator("view", ((rows, width),), (rows, width), 0, 0, 0, is_view=True, count=layers),
    ]
    if architecture.startswith(_TEXT):
        table = ((30000, width), (batch, length))
        operators.insert(
            0, Operator("embedding", table, (batch, length, width), 0, rows * width * element, rows * width * element)
        )
    optimizer = 0
    if training:
        optimizer = parameters * (8 if dtype == "fp32" else 12)
        activations = activations * layers * 4 + parameters * element + optimizer
        operators.append(Operator("_fused_adamw_", ((parameters,),), (), 0, parameters * 16, parameters * 12))
    return ModelTrace(
        architecture=architecture,
        batch=batch,
        length=length,
        dtype=dtype,
        training=training,
        parameters=parameters,
        weight_bytes=parameters * weight,
        multiplied_bytes=layers * per_layer * weight,
        activation_bytes=activations,
        output_bytes=rows * width * element,
        operators=tuple(operators),
        optimizer_bytes=optimizer,
    )


def row(milliseconds: float = 10.0, **changed: Any) -> Measurement:
    """A measured row of bert-base-uncased on the CPU of `REPORT`."""
    latency = Latency(
        30, 5, milliseconds, milliseconds, milliseconds, milliseconds, milliseconds, milliseconds, 0.0, 0.01
    )
    measured = Measurement(
        model="bert-base-uncased",
        architecture="BertForMaskedLM",
        task="fill-mask",
        weights="random",
        device="cpu",
        device_name=CHIP,
        dtype="fp32",
        effective_dtype="fp32",
        batch=1,
        length=128,
        threads=4,
        latency=latency,
        noise=Noise(1.0, 1.0, 0.0),
        memory_bytes=600 * 2**20,
        family="embedding",
    )
    return replace(measured, **changed)


def question(**changed: Any) -> Question:
    """A question about bert-base-uncased on the CPU."""
    asked = Question("BertForMaskedLM", "cpu", 1, 128, model="bert-base-uncased", family="embedding")
    return replace(asked, **changed)


def estimate(value: float) -> Estimate:
    """A number with an interval of ten per cent."""
    return Estimate(value, 0.9 * value, 1.1 * value)


def prediction(milliseconds: float | None = 10.0, mib: float | None = 100.0, **changed: Any) -> Prediction:
    """A prediction."""
    made = Prediction(
        question(),
        Source.CALIBRATED,
        "calibrated",
        None if milliseconds is None else estimate(milliseconds),
        None if mib is None else estimate(mib),
    )
    return replace(made, **changed)


RATE = 50e9
"""Floating-point operations per second, at every size."""
SECONDS_PER_NUMBER = 1e-9
CALL, VIEW, MODULE = 1e-5, 1e-6, 5e-6

_MOVING = (
    *("add", "in_place", "copy", "permute", "gather", "masked", "gelu", "tanh"),
    *("layer_norm", "batch_norm", "softmax", "mean"),
)


def even_calibration(device: str = "cpu", dtype: str = "fp32", threads: int = 1) -> DeviceCalibration:
    """Return a calibration of a device that computes everything at the same rate."""
    operators = [
        *(_computing("linear", (m, n, k), 2 * m * n * k) for m in (1, 64) for n in (64, 1024) for k in (64, 1024)),
        *(_computing("bmm", (m, m, 64, 8), 16 * m * m * 64) for m in (16, 64, 256)),
        *(_computing("attention", (m, 64, 8), 32 * m * m * 64) for m in (16, 64, 256)),
        *(_computing("conv", (m, 64, 576, 1), 2 * m * 64 * 576) for m in (49, 3136, 12544)),
        *(_computing("depthwise", (m, 9), 18 * m) for m in (10_000, 100_000)),
        *(TimedOperator(kind, (n,), n * SECONDS_PER_NUMBER, 0, 8 * n) for kind in _MOVING for n in (1, 1000, 10**7)),
    ]
    return DeviceCalibration(
        device=device,
        device_name="an even device",
        dtype=dtype,
        threads=threads,
        taken="2026-11-21T10:00:00+00:00",
        seconds=1.0,
        versions={"torch": "2.13.0"},
        call_seconds=CALL,
        view_seconds=VIEW,
        module_seconds=MODULE,
        operators=tuple(operators),
    )


def _computing(kind: str, size: tuple[int, ...], flops: int) -> TimedOperator:
    return TimedOperator(kind, size, flops / RATE, flops, 4 * sum(size))
