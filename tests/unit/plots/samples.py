"""Inputs of plots, and the words of the files that are drawn from them.

The numbers are of no device: they follow simple formulas, so that tests can say what a figure must show.
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from pytest_hfaccel.benchmark.measurement import Latency, Measurement, Noise

PLATFORMS = ("cuda", "cpu", "openvino")
FAMILIES = ("embedding", "text_generation", "vision", "audio", "vision_language_model")
SPEED = {"cpu": 1.0, "openvino": 2.0, "cuda": 40.0, "rocm": 30.0, "mps": 10.0, "webgpu": 0.5, "webnn": 0.25}
NAMES = (
    "bert-base-uncased",
    "sentence-transformers/paraphrase-multilingual-MiniLM-L12-v2",
    "google/vit-base-patch16-224",
    "openai/whisper-tiny",
    "TinyLlama/TinyLlama-1.1B-Chat-v1.0",
)
MEMORY = {"fp32": 1.0, "fp16": 0.5, "int8": 0.25}


def cell(model: int, platform: str, batch: int, precision: str) -> dict[str, Any]:
    """A cell: 10 ms per model number, sample and 1 / speed; 100 MiB per model number, shrinking with the precision."""
    latency = 10.0 * (model + 1) * batch / SPEED[platform] * MEMORY[precision] ** 0.5
    memory = 100.0 * (model + 1) * (1 + 0.1 * batch) * MEMORY[precision]
    return {
        "throughput": 1e3 * batch / latency,
        "latency_mean": latency,
        "latency_low": 0.8 * latency,
        "latency_high": 1.25 * latency,
        "memory_usage": memory,
        "memory_low": 0.9 * memory,
        "memory_high": 1.1 * memory,
        "source": "measured" if platform == "cpu" else "calibrated",
        "fits": True,
    }


def name_of(model: int) -> str:
    return NAMES[model % len(NAMES)] + (f"-v{model // len(NAMES) + 1}" if model >= len(NAMES) else "")


def sample_matrix(
    models: int,
    platforms: tuple[str, ...] = PLATFORMS,
    batches: tuple[int, ...] = (1, 8, 32),
    precisions: tuple[str, ...] = ("fp32", "fp16"),
) -> dict[str, Any]:
    """A matrix in which everything is known."""

    def predictions(model: int) -> dict[str, Any]:
        return {
            platform: {
                str(batch): {precision: cell(model, platform, batch, precision) for precision in precisions}
                for batch in batches
            }
            for platform in platforms
        }

    return {
        "timestamp": "2026-03-02T00:00:00Z",
        "mode": "inference",
        "models": {
            name_of(model): {
                "name": name_of(model),
                "category": FAMILIES[model % len(FAMILIES)],
                "predictions": predictions(model),
            }
            for model in range(models)
        },
        "hardware_platforms": list(platforms),
        "batch_sizes": list(batches),
        "precision_options": list(precisions),
        "devices": {"cuda": {"name": "NVIDIA H100", "memory_mb": 81920}, "cpu": {"name": "Some CPU", "memory_mb": 900}},
    }


def sample_measurement(**changed: Any) -> Measurement:
    """A measured point; its latency is 10 ms per sample unless told otherwise."""
    batch = changed.get("batch", 1)
    median = changed.pop("median_ms", 10.0 * batch)
    latency = Latency(30, 5, median, 1.01 * median, 0.95 * median, 0.96 * median, 1.1 * median, 1.2 * median,
                      0.05 * median, 0.004)  # fmt: skip
    known: dict[str, Any] = {
        "model": "bert-base-uncased",
        "architecture": "BertForMaskedLM",
        "task": "fill-mask",
        "weights": "random",
        "device": "cpu",
        "device_name": "Some CPU",
        "dtype": "fp32",
        "effective_dtype": "fp32",
        "batch": 1,
        "length": 32,
        "threads": 1,
        "latency": latency,
        "noise": Noise(10.0, 10.2, 0.02),
        "family": "embedding",
        "memory_bytes": 500 * 2**20,
        "memory_source": "VmHWM",
        "weight_bytes": 400 * 2**20,
    }
    return Measurement(**{**known, **changed})


def sample_measurements(models: int, devices: tuple[str, ...] = ("cpu", "openvino:CPU")) -> list[Measurement]:
    """Models by devices, batches 1, 4 and 8, two lengths."""
    points = itertools.product(range(models), devices, (1, 4, 8), (32, 128))
    return [
        sample_measurement(
            model=name_of(model),
            family=FAMILIES[model % len(FAMILIES)],
            device=device,
            batch=batch,
            length=length,
            median_ms=(model + 1) * batch * length / (100 if device == "cpu" else 250),
            memory_bytes=(400 + batch * length // 8) * 2**20,
        )
        for model, device, batch, length in points
    ]


def accuracy_rows(models: int, devices: tuple[str, ...] = ("cpu",)) -> list[dict[str, Any]]:
    """Predictions that are right but for -10, 0, +10, ... % in turn."""
    return [
        {
            "predicted": 10.0 * (model + 1) * (0.9 + 0.1 * (model % 3)),
            "measured": 10.0 * (model + 1),
            "low": 10.0 * (model + 1) * 0.85,
            "high": 10.0 * (model + 1) * 1.2,
            "device": device,
            "family": FAMILIES[model % len(FAMILIES)],
            "model": name_of(model),
        }
        for device in devices
        for model in range(models)
    ]


def roofline_points(models: int) -> list[dict[str, Any]]:
    """Models that reach half of the roof of 100 GFLOP/s and 10 GB/s, on both sides of the ridge at 10 FLOP/byte."""
    points = []
    for model in range(models):
        flops, intensity = 1e9 * (model + 1), 2.0 * 1.15**model
        seconds = flops / (0.5 * min(100e9, 10e9 * intensity))
        points.append(
            {
                "model": name_of(model),
                "flops": flops,
                "moved_bytes": flops / intensity,
                "seconds": seconds,
                "family": FAMILIES[model % len(FAMILIES)],
                "source": "measured" if model % 2 else "calibrated",
            }
        )
    return points


def words_of(file: Path) -> str:
    """All text of an SVG, a line per text."""
    root = ElementTree.fromstring(file.read_text(encoding="utf-8"))  # noqa: S314 - our own file
    return "\n".join("".join(text.itertext()) for text in root.iter("{http://www.w3.org/2000/svg}text"))


def needs_matplotlib() -> None:
    """Plots are an extra: without it their tests are skipped, with the reason."""
    for package in ("matplotlib", "seaborn"):
        pytest.importorskip(package, reason=f"{package} is in the extra `predict`")
