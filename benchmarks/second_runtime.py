"""What a second runtime of exported graphs costs for a model, as a share of what it costs alone.

    python benchmarks/second_runtime.py                               # openvino:CPU and onnxruntime:CPU, either way
    python benchmarks/second_runtime.py --models gpt2 --rounds 5

Each number is from a process of its own: one loads the model on one device with an empty cache of conversions, another
loads it on the other device first. `third` is one more runtime that takes ONNX files (a browser): it finds the
conversion in the cache. Loading is conversion, reading and compiling; the tiny checkpoint is made before, and torch and
transformers are imported. Seconds are those of the processor, since other work on the machine does not count among
them; the order of the processes alternates, and ratios are of the medians.

`trace` is the part of a load that is spent in `torch.export`. transformers' exporters trace under patches of their own
for each runtime and take no trace from outside, so it is spent for each: the column shows what sharing it would save.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

MODELS = ("bert-base-uncased", "gpt2", "t5-small", "google/vit-base-patch16-224", "openai/clip-vit-base-patch32")
DEVICES = ("openvino:CPU", "onnxruntime:CPU")
ONNX = "onnxruntime:CPU"


def load_in_turn(model: str, cache: Path, devices: Iterable[str]) -> list[dict[str, float]]:
    """Load a model on one device after the other; return the seconds of each load and of its trace."""
    import torch
    import transformers.exporters  # noqa: F401 - its import is not what is measured

    from pytest_hfaccel.backends import Backends
    from pytest_hfaccel.checkpoints import CheckpointStore
    from pytest_hfaccel.core.spec import Cell, Device, Weights, WeightsChoice
    from pytest_hfaccel.registry import load_registry

    torch.set_num_threads(1)
    spec = load_registry().get(model)
    choice = WeightsChoice(Weights.TINY, "benchmark")
    traced = 0.0
    export = torch.export.export

    def timed_export(*args: Any, **kwargs: Any) -> Any:
        nonlocal traced
        started = time.process_time()
        try:
            return export(*args, **kwargs)
        finally:
            traced += time.process_time() - started

    torch.export.export = timed_export
    source = CheckpointStore(cache).prepare(spec, choice)
    source.torch_model("fp32")
    found = []
    for device in devices:
        cell = Cell(spec, Device.parse(device), "fp32", choice)
        backend = Backends().for_kind(cell.device.kind)
        traced, started = 0.0, time.process_time()
        backend.load(cell, source).close()
        found.append({"load": time.process_time() - started, "trace": traced})
    return found


def in_process(model: str, devices: Sequence[str]) -> list[dict[str, float]]:
    """Do the same in a new process with an empty cache."""
    with tempfile.TemporaryDirectory() as cache:
        command = [sys.executable, __file__, "--child", model, cache, *devices]
        environ = {**os.environ, "OMP_NUM_THREADS": "1"}
        result = subprocess.run(command, capture_output=True, text=True, env=environ, check=False)
    if result.returncode:
        raise SystemExit(f"{model} on {', '.join(devices)}:\n{result.stderr[-2000:]}")
    found: list[dict[str, float]] = json.loads(result.stdout.splitlines()[-1])
    return found


def measure(model: str, rounds: int) -> dict[str, dict[str, float]]:
    """Return, by device, the median seconds alone, of the trace, after the other device, and as a third runtime."""
    seconds: dict[str, dict[str, list[float]]] = {
        device: {"alone": [], "trace": [], "second": [], "third": []} for device in DEVICES
    }
    for number in range(rounds):
        orders = [[DEVICES[0]], [DEVICES[1]], [*DEVICES, ONNX], [*reversed(DEVICES)]]
        for order in reversed(orders) if number % 2 else orders:
            found = in_process(model, order)
            if len(order) == 1:
                seconds[order[0]]["alone"].append(found[0]["load"])
                seconds[order[0]]["trace"].append(found[0]["trace"])
            else:
                seconds[order[1]]["second"].append(found[1]["load"])
            if len(order) > len(DEVICES):
                seconds[ONNX]["third"].append(found[2]["load"])
    return {
        device: {name: median(values) for name, values in kinds.items() if values} for device, kinds in seconds.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=MODELS, help="registry names")
    parser.add_argument("--rounds", type=int, default=3, help="processes per model and order")
    parser.add_argument("--child", nargs="+", metavar="ARGUMENT", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        model, cache, *devices = arguments.child
        print(json.dumps(load_in_turn(model, Path(cache), devices)))
        return
    print("| model | device | alone (s) | of that: trace | second (s) | second / alone | third / alone |")
    print("|---|---|---|---|---|---|---|")
    ratios: list[float] = []
    for model in arguments.models:
        for device, found in measure(model, arguments.rounds).items():
            ratio = found["second"] / found["alone"]
            ratios.append(ratio)
            third = f"{found['third'] / found['alone']:.2f}" if "third" in found else "-"
            print(
                f"| {model} | {device} | {found['alone']:.1f} | {found['trace'] / found['alone']:.0%} "
                f"| {found['second']:.1f} | {ratio:.2f} | {third} |",
                flush=True,
            )
    print(f"\nmedian of second / alone: {median(ratios):.2f}")


if __name__ == "__main__":
    main()
