"""What Python adds to each operator of a transformers model. Imports torch: import this file late."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from typing import Any

import torch

from pytest_hfaccel.predict.calibration.records import DeviceCalibration
from pytest_hfaccel.predict.calibration.repeating import median_seconds
from pytest_hfaccel.predict.roofline.operators import OperatorRoofline
from pytest_hfaccel.tracing.traces import trace_model

_LENGTH = 8
_NARROW = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 4, "num_attention_heads": 2}
_MODELS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("BertModel", {**_NARROW, "vocab_size": 128}),
    ("LlamaModel", {**_NARROW, "vocab_size": 128, "num_key_value_heads": 1, "use_cache": False}),
    ("ViTModel", {**_NARROW, "image_size": 32, "patch_size": 16}),
)
"""Models so narrow that Python takes most of the time: what is left when the operators' own times are subtracted."""


def seconds_per_launch(calibration: DeviceCalibration, device: str) -> float:
    """Return the seconds that Python takes per operator, measured on models of three architectures.

    Args:
        calibration: The operators' own times on the device.
        device: torch's name of the device.
    """
    roofline = OperatorRoofline(calibration)
    return statistics.median(_of_models(roofline, device))


def _of_models(roofline: OperatorRoofline, device: str) -> Iterator[float]:
    for architecture, dims in _MODELS:
        trace = trace_model(architecture, dims, batch=1, length=_LENGTH)
        yield max(0.0, _seconds(architecture, dims, device) - roofline.seconds(trace)) / trace.launches


def _seconds(architecture: str, dims: dict[str, Any], device: str) -> float:
    import transformers

    model_class = getattr(transformers, architecture)
    model = model_class(model_class.config_class(**dims)).eval().to(device)
    if model.main_input_name == "pixel_values":
        inputs = {"pixel_values": torch.randn(1, 3, dims["image_size"], dims["image_size"], device=device)}
    else:
        ids = torch.randint(5, 100, (1, _LENGTH), device=device)
        inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    finish = torch.accelerator.synchronize if device != "cpu" else _nothing
    with torch.inference_mode():
        return median_seconds(lambda: model(**inputs), finish)


def _nothing() -> None:
    """On the CPU, a call has finished when it returns."""
