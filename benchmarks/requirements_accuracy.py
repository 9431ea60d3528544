"""Predicted against measured memory: how accurate `predict.requirements` is, and the constants it rests on.

    python benchmarks/requirements_accuracy.py

Each registered checkpoint small enough for this machine gets its real dimensions and seeded random weights, without a
download, in a process of its own per device. The process reports the kernel's high-water mark of its memory (VmHWM)
above what it had after the imports. From all of these the constants of a device are fitted and written to
`pytest_hfaccel/predict/overhead.json`; the table in `docs/requirements_accuracy.md` predicts each model with constants
fitted on the *other* models.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).parents[1]
TABLE = ROOT / "docs" / "requirements_accuracy.md"
CONSTANTS = ROOT / "pytest_hfaccel" / "predict" / "overhead.json"

DEVICES = {"cpu": 400_000_000, "openvino": 170_000_000}
"""Device kind -> most parameters measured on it; converting to OpenVINO takes seconds per hundred million."""
LENGTH, RUNS = 128, 3
SMALL_FLOPS = 60e9
"""A model below this much work per sample runs with a batch of four, one above it with a batch of one."""
MOST_FLOPS = 2e12
"""Models with more work per sample are left out: on two cores they would take minutes each."""
TIMEOUT = 240


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=Path, help="keep the measured rows in this file, and do not repeat those in it")
    parser.add_argument("--only", nargs=3, metavar=("MODEL", "DEVICE", "BATCH"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_VERBOSITY="error")
    if given.only:
        model, device, batch = given.only
        print(json.dumps(measure(model, device, int(batch))))
        return
    rows = measure_all(given.rows)
    report(with_costs(rows))


def measure_all(kept: Path | None) -> list[dict[str, Any]]:
    """Measure every model on every device, each in a process of its own."""
    from pytest_hfaccel.predict.requirements import cost_of
    from pytest_hfaccel.registry import load_registry

    rows = json.loads(kept.read_text()) if kept and kept.exists() else []
    done = {(row["model"], row["device"]) for row in rows}
    for spec in load_registry().specs:
        for device, most in DEVICES.items():
            if (spec.parameters or most) >= most or (spec.name, device) in done:
                continue
            cost = cost_of(spec.architecture, spec.dims, length=LENGTH)
            flops = cost.run.flops_per_sample if cost.run else 0
            if flops > MOST_FLOPS:
                continue
            batch = 4 if flops < SMALL_FLOPS else 1
            row = {"model": spec.name, "device": device, "batch": batch, **_in_a_process(spec.name, device, batch)}
            print(json.dumps(row), flush=True)
            rows.append(row)
            if kept:
                kept.write_text(json.dumps(rows, indent=1))
    return rows


def _in_a_process(model: str, device: str, batch: int) -> dict[str, Any]:
    command = [sys.executable, __file__, "--only", model, device, str(batch)]
    try:
        run = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, cwd=ROOT)
    except subprocess.TimeoutExpired:
        return {"error": f"took more than {TIMEOUT} s"}
    if run.returncode:
        last = run.stderr.strip().splitlines()[-1:] or [f"exit status {run.returncode}"]
        return {"error": last[0][:160]}
    return dict(json.loads(run.stdout.strip().splitlines()[-1]))


def measure(name: str, device: str, batch: int) -> dict[str, Any]:
    """Build, run and report: to be called in a fresh process."""
    import torch
    import transformers

    from pytest_hfaccel.registry import load_registry

    spec = load_registry().get(name)
    model_class = getattr(transformers, spec.architecture)
    if device == "openvino":
        import openvino  # noqa: F401
        import transformers.exporters.exporter_openvino
    baseline = _status("VmRSS")
    torch.manual_seed(0)
    model = _random_model(model_class, spec.dims)
    held = [*model.parameters(), *model.buffers()]
    weights = sum(tensor.numel() * tensor.element_size() for tensor in held)
    inputs = _inputs(model, batch)
    seconds = {"cpu": _run_on_torch, "openvino": _run_on_openvino}[device](model, inputs)
    return {
        "baseline_bytes": baseline,
        "weight_bytes": weights,
        "peak_bytes": _status("VmHWM") - baseline,
        "seconds": min(seconds),
        "threads": torch.get_num_threads(),
    }


def _random_model(model_class: Any, dims: Any) -> Any:
    """Allocate the weights once, as loading a checkpoint does, and not a second time for those that are tied."""
    import torch

    with torch.device("meta"):
        model = model_class(model_class.config_class(**dims))
    model = model.to_empty(device="cpu")
    model.tie_weights()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.02)
        for buffer in model.buffers():
            buffer.zero_()
    return model.eval()


def _inputs(model: Any, batch: int) -> dict[str, Any]:
    import inspect

    import torch

    from pytest_hfaccel.tracing.input_shapes import input_shapes, text_length

    arguments = inspect.signature(model.forward).parameters
    required = {name: argument.default is inspect.Parameter.empty for name, argument in arguments.items()}
    shapes = input_shapes(model.config, required, model.main_input_name, batch, text_length(model.config, LENGTH))
    made = {name: torch.rand(s.shape) if s.floating else torch.randint(5, 50, s.shape) for name, s in shapes.items()}
    if "attention_mask" in made:
        made["attention_mask"].fill_(1)
    return made


def _run_on_torch(model: Any, inputs: dict[str, Any]) -> list[float]:
    import torch

    seconds = []
    with torch.no_grad():
        for _ in range(RUNS):
            started = time.perf_counter()
            model(**inputs)
            seconds.append(time.perf_counter() - started)
    return seconds


def _run_on_openvino(model: Any, inputs: dict[str, Any]) -> list[float]:
    """Convert, compile and run in one process, as the first use of a model on OpenVINO does."""
    import openvino
    from transformers.exporters.exporter_openvino import OpenVINOConfig, OpenVINOExporter

    program = OpenVINOExporter().export(model, inputs, config=OpenVINOConfig()).program
    del model
    compiled = openvino.Core().compile_model(program, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    request = compiled.create_infer_request()
    named = {port.get_any_name() for port in compiled.inputs}
    feed = {name: tensor.numpy() for name, tensor in inputs.items() if name in named}
    seconds = []
    for _ in range(RUNS):
        started = time.perf_counter()
        request.infer(feed)
        seconds.append(time.perf_counter() - started)
    return seconds


def _status(field: str) -> int:
    """Bytes of a field of the kernel's account of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(field))


def with_costs(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Add to each measured row what is computed for it."""
    from pytest_hfaccel.predict.requirements import cost_of
    from pytest_hfaccel.registry import load_registry

    registry = load_registry()
    specs = {row["model"]: registry.get(row["model"]) for row in rows}
    traced = {name: cost_of(spec.architecture, spec.dims, length=LENGTH) for name, spec in specs.items()}
    return [{**row, **_computed(traced[row["model"]], row["batch"])} for row in rows]


def _computed(cost: Any, batch: int) -> dict[str, Any]:
    return {
        "predicted_weight_bytes": cost.weight_bytes("fp32"),
        "multiplied_bytes": cost.multiplied_bytes("fp32"),
        "output_bytes": cost.output_bytes("fp32", batch),
        "activation_bytes": cost.activation_bytes("fp32", batch),
        "flops": batch * cost.run.flops_per_sample if cost.run else 0,
    }


TERMS = ("multiplied_bytes", "activation_bytes", "output_bytes")


def fit(rows: list[dict[str, Any]]) -> list[float]:
    """Fit `peak = weights + base + a * multiplied + b * activations + c * outputs`, to the relative errors.

    None of the constants is negative.
    """
    import numpy
    from scipy.optimize import nnls

    terms = numpy.array([[1.0, *(row[name] for name in TERMS)] for row in rows])
    peaks = numpy.array([row["peak_bytes"] for row in rows], dtype=float)
    scale = terms.max(axis=0)
    besides = 1 - numpy.array([row["predicted_weight_bytes"] for row in rows]) / peaks
    found, _ = nnls(terms / scale / peaks[:, None], besides)
    return [float(value) for value in found / scale]


def predict(constants: list[float], row: dict[str, Any]) -> float:
    besides = sum(constant * row[name] for constant, name in zip(constants[1:], TERMS, strict=True))
    return float(row["predicted_weight_bytes"] + constants[0] + besides)


def report(rows: list[dict[str, Any]]) -> None:
    """Write the constants and the table."""
    good = [row for row in rows if "error" not in row]
    constants = {device: _constants([row for row in good if row["device"] == device]) for device in DEVICES}
    CONSTANTS.write_text(json.dumps(constants, indent=2) + "\n")
    lines = [_intro(), *(line for device in DEVICES for line in _section(device, rows))]
    TABLE.write_text("\n".join(lines) + "\n")
    print(TABLE.read_text())


def _constants(rows: list[dict[str, Any]]) -> dict[str, Any]:
    base, per_multiplied, per_activation, per_output = fit(rows)
    rates = [row["flops"] / row["seconds"] / row["threads"] for row in rows]
    return {
        "import_bytes": int(median(row["baseline_bytes"] for row in rows)),
        "base_bytes": int(base),
        "per_multiplied_byte": round(per_multiplied, 4),
        "per_activation_byte": round(per_activation, 4),
        "per_output_byte": round(per_output, 4),
        "flops_per_second_and_core": int(median(rates)),
        "measured": {
            "models": len(rows),
            "machine": f"{_processor()}, {os.cpu_count()} cores, {platform.system()}",
            "versions": {name: version(name) for name in ("torch", "transformers", "openvino")},
            "when": time.strftime("%Y-%m-%d"),
            "how": "benchmarks/requirements_accuracy.py: VmHWM of a fresh process above its imports, fp32",
        },
    }


def _processor() -> str:
    found = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return found[0].partition(":")[2].strip() if found else platform.machine()


def _intro() -> str:
    return (
        "# Requirements against reality\n\n"
        "Written by `python benchmarks/requirements_accuracy.py`. Weights are random, of the real dimensions, in fp32; "
        f"texts have {LENGTH} tokens. Each row is a process of its own; *peak* is the high-water mark of its memory "
        "(VmHWM) above what it had after the imports. A row is predicted with constants fitted on the other rows of "
        "its device, so that no model predicts itself; the shipped constants are fitted on all of them."
    )


def _section(device: str, rows: list[dict[str, Any]]) -> list[str]:
    mine = [row for row in rows if row["device"] == device]
    good = [row for row in mine if "error" not in row]
    for row in good:
        row["predicted"] = predict(fit([other for other in good if other is not row]), row)
    errors = [abs(row["predicted"] / row["peak_bytes"] - 1) for row in good]
    weights = [abs(row["predicted_weight_bytes"] / row["weight_bytes"] - 1) for row in good]
    within = sum(error <= 0.2 for error in errors)
    lines = [
        f"\n## {device}\n",
        f"{len(good)} models: weights within {max(weights):.2%}; peak within 20 % for {within} of {len(good)} "
        f"({within / len(good):.0%}), median error {median(errors):.1%}, worst {max(errors):.1%}.\n",
        "| model | batch | weights MB, predicted | measured | peak MB, predicted | measured | error |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [_line(row) for row in good]
    lines += [f"\n`{row['model']}` was not measured: {row['error']}" for row in mine if "error" in row]
    return lines


def _line(row: dict[str, Any]) -> str:
    sizes = [row["predicted_weight_bytes"], row["weight_bytes"], row["predicted"], row["peak_bytes"]]
    numbers = " | ".join(f"{size / 1e6:.0f}" for size in sizes)
    return f"| {row['model']} | {row['batch']} | {numbers} | {row['predicted'] / row['peak_bytes'] - 1:+.1%} |"


if __name__ == "__main__":
    main()
