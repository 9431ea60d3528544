"""Inputs of plots, and what every figure must hold: nothing is cut, nothing overlaps, every axis has a name and a unit.

The numbers are of no device: they follow simple formulas, so that tests can say what a figure must show.
"""

from __future__ import annotations

import itertools
import re
from typing import Any

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
UNIT = re.compile(r"\((samples/s|samples|ms|MiB|GiB|\u00d7|\u00d7, 1 is right|%|FLOP/s|FLOP per byte moved)\)")


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


def texts_of(figure: Any) -> list[Any]:
    """All text that a figure shows."""
    from matplotlib.text import Text

    return [text for text in figure.findobj(Text) if text.get_visible() and text.get_text().strip()]


def words_of(figure: Any) -> str:
    return "\n".join(text.get_text() for text in texts_of(figure))


def panels_of(figure: Any) -> list[Any]:
    """The axes that show something: no colour bars, no lists."""
    return [axes for axes in figure.axes if axes.axison and axes.get_xlabel()]


def check_layout(figure: Any) -> None:
    """Nothing is cut, and no text touches another one."""
    figure.canvas.draw()
    renderer = figure.canvas.get_renderer()
    width, height = figure.canvas.get_width_height()
    boxes = [(text.get_text(), text.get_window_extent(renderer)) for text in _drawn(figure)]
    assert boxes
    for text, box in boxes:
        inside = box.x0 >= -1 and box.y0 >= -1 and box.x1 <= width + 1 and box.y1 <= height + 1
        assert inside, f"cut: {text!r} at {box}"
    # From left to right, so that only neighbours are compared.
    boxes.sort(key=lambda pair: pair[1].x0)
    for index, (text, box) in enumerate(boxes):
        for other_text, other in itertools.takewhile(lambda pair: pair[1].x0 < box.x1, boxes[index + 1 :]):  # noqa: B023
            across = min(box.x1, other.x1) - max(box.x0, other.x0)
            up = min(box.y1, other.y1) - max(box.y0, other.y0)
            assert min(across, up) <= 1.5, f"{text!r} overlaps {other_text!r}"


def _drawn(figure: Any) -> list[Any]:
    """Ticks beyond the limits exist, but are not drawn."""
    hidden = set()
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            shown = {id(tick) for tick in axis._update_ticks()} if axes.axison else set()
            for tick in (*axis.get_major_ticks(), *axis.get_minor_ticks()):
                if id(tick) not in shown:
                    hidden |= {id(tick.label1), id(tick.label2)}
    return [text for text in texts_of(figure) if id(text) not in hidden]


def check_axes(figure: Any) -> None:
    """Every panel names what it shows, with a unit; every figure has a title, and says where its numbers come from."""
    panels = panels_of(figure)
    assert panels
    for axes in panels:
        labels = [label for label in (axes.get_xlabel(), axes.get_ylabel()) if label]
        assert labels
        for label in labels:
            assert UNIT.search(label), f"no unit: {label!r}"


def needs_matplotlib() -> None:
    """Plots are an extra: without it their tests are skipped, with the reason."""
    for package in ("matplotlib", "seaborn"):
        pytest.importorskip(package, reason=f"{package} is in the extra `predict`")
