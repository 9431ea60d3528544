"""The tables of `docs/prediction_accuracy.md`, from held-out predictions."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import spearmanr

from pytest_hfaccel.predict.calibration import DeviceCalibration

if TYPE_CHECKING:
    from prediction_accuracy import Prediction

PAGE = Path(__file__).parents[1] / "docs" / "prediction_accuracy.md"
_CLEAR = 0.10
_TITLE = {"cpu": "torch on the CPU", "openvino:CPU": "OpenVINO on the CPU"}
_HOW = {
    "plain_ms": "plain roofline: max(FLOPs / peak, bytes / bandwidth)",
    "roofline_ms": "operator-level roofline: trace and calibration, no measured model",
    "learned_ms": "the same, corrected by rows of other groups of architectures",
    "computed_mb": "weights, activations and the runtime's constants (`hfaccel requirements`)",
    "learned_mb": "fitted to rows of other groups of architectures",
}


def write_tables(predictions: Sequence[Prediction], calibrations: Sequence[DeviceCalibration]) -> None:
    """Write the page, and print it."""
    parts = [_heading(predictions, calibrations)]
    for calibration in calibrations:
        mine = [one for one in predictions if one.device == calibration.device]
        parts += [_of_device(calibration, mine)]
    parts += [_order(predictions), _groups(predictions)]
    text = "\n\n".join(parts) + "\n"
    PAGE.write_text(text.rstrip() + "\n\n" + shipped_section(), encoding="utf-8")
    print(text)


def _heading(predictions: Sequence[Prediction], calibrations: Sequence[DeviceCalibration]) -> str:
    models, groups = {one.model for one in predictions}, {one.relatives for one in predictions}
    classes = {one.architecture for one in predictions}
    first = calibrations[0]
    return f"""# How accurate predictions are

Written by `benchmarks/prediction_accuracy.py` on {datetime.now(UTC):%Y-%m-%d}: {first.device_name}, {first.threads} thread(s), fp32,
{platform.system()}, torch {version("torch")}, transformers {version("transformers")}, OpenVINO {version("openvino")}.

{len(models)} models of {len(classes)} architecture classes at batch sizes 1 and 8 (4 for the large ones) and two lengths of text, with their
real dimensions and random weights, each point measured in a process of its own. The classes form {len(groups)} groups of
related architectures (BERT with RoBERTa and ELECTRA, LLaMA with Qwen2 and Gemma, ...), and **every number is about
models of a group of which the predictor has seen no row**. MAPE is the mean of |predicted - measured| / measured;
coverage is the share of measured values inside the 80 % interval."""  # noqa: E501


def _of_device(calibration: DeviceCalibration, rows: Sequence[Prediction]) -> str:
    lines = [
        f"## {_TITLE[calibration.device]}: {len(rows)} rows",
        "",
        "| latency | MAPE | median | Spearman | coverage |",
    ]
    lines += ["|---|---|---|---|---|"]
    for name in ("plain_ms", "roofline_ms", "learned_ms"):
        inside = coverage(rows, "measured_ms", "low_ms", "high_ms") if name == "learned_ms" else "-"
        lines.append(_row(rows, name, "measured_ms", inside))
    with_memory = [one for one in rows if np.isfinite(one.measured_mb)]
    lines += ["", "| memory | MAPE | median | Spearman | coverage |", "|---|---|---|---|---|"]
    for name in ("computed_mb", "learned_mb"):
        inside = coverage(with_memory, "measured_mb", "low_mb", "high_mb") if name == "learned_mb" else "-"
        lines.append(_row(with_memory, name, "measured_mb", inside))
    weights = errors(rows, "weights_mb", "held_weights_mb")
    lines += ["", f"Weights: computed against what the loaded model holds, MAPE {weights.mean():.2%}."]
    lines += [f"The calibration took {calibration.seconds:.0f} s."]
    return "\n".join(lines)


def _row(rows: Sequence[Prediction], name: str, measured: str, inside: str) -> str:
    found = errors(rows, name, measured)
    rank = spearmanr([getattr(one, name) for one in rows], [getattr(one, measured) for one in rows]).statistic
    return f"| {_HOW[name]} | {found.mean():.1%} | {np.median(found):.1%} | {rank:.3f} | {inside} |"


def errors(rows: Iterable[Prediction], predicted: str, measured: str) -> np.ndarray:
    """Return |predicted - measured| / measured of rows."""
    return np.array([abs(getattr(one, predicted) / getattr(one, measured) - 1.0) for one in rows])


def coverage(rows: Sequence[Prediction], measured: str, low: str, high: str) -> str:
    """Return the share of rows whose measured value lies within the interval."""
    inside = [getattr(one, low) <= getattr(one, measured) <= getattr(one, high) for one in rows]
    return f"{np.mean(inside):.0%}"


def _order(predictions: Sequence[Prediction]) -> str:
    points: dict[tuple[str, int, int], dict[str, Prediction]] = {}
    for one in predictions:
        points.setdefault((one.model, one.batch, one.length), {})[one.device] = one
    clear = [
        found
        for found in points.values()
        if len(found) == 2 and _apart(one.measured_ms for one in found.values()) >= _CLEAR
    ]
    right = [_fastest(found, _measured) == _fastest(found, _learned) for found in clear]
    both = sum(len(found) == 2 for found in points.values())
    return f"""## Which device is faster

Of {both} points measured on both, {len(clear)} are clear (at least {_CLEAR:.0%} apart); in {sum(right)} of those ({np.mean(right):.1%}) the faster
device was predicted to be the faster one."""  # noqa: E501


def _apart(values: Iterable[float]) -> float:
    low, high = sorted(values)
    return high / low - 1.0


def _fastest(found: dict[str, Prediction], by: Callable[[Prediction], float]) -> str:
    return min(found, key=lambda device: by(found[device]))


def _measured(one: Prediction) -> float:
    return one.measured_ms


def _learned(one: Prediction) -> float:
    return one.learned_ms


def _groups(predictions: Sequence[Prediction]) -> str:
    devices = sorted({one.device for one in predictions})
    lines = ["## By group of architectures", ""]
    lines += ["| group | classes | " + " | ".join(f"{device}: latency | memory" for device in devices) + " |"]
    lines += ["|---|---|" + "---|---|" * len(devices)]
    for group in sorted({one.relatives for one in predictions}):
        mine = [one for one in predictions if one.relatives == group]
        cells = []
        for device in devices:
            here = [one for one in mine if one.device == device]
            known = [one for one in here if np.isfinite(one.measured_mb)]
            cells += [
                _share(errors(here, "learned_ms", "measured_ms")),
                _share(errors(known, "learned_mb", "measured_mb")),
            ]
        classes = ", ".join(sorted({one.architecture for one in mine}))
        lines.append(f"| {group} | {classes} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _share(found: np.ndarray) -> str:
    return f"{found.mean():.0%}" if len(found) else "-"


SHIPPED = "## Corrections that come with the package"
"""Heading of the last section, which `shipped_corrections.py` writes."""


def shipped_section() -> str:
    """Return the last section of the page as it is."""
    return PAGE.read_text(encoding="utf-8")[PAGE.read_text(encoding="utf-8").index(SHIPPED) :]
