"""What the battery costs over the bare work of the same cells, side by side in one process.

    python benchmarks/overhead.py                          # a handful of classes on cpu and openvino:CPU
    python benchmarks/overhead.py --models gpt2 t5-small --rounds 5

Bare work is what anybody needs to run a model once: make the tiny checkpoint, load it, run it; for OpenVINO load,
convert, compile and run it, with transformers' own exporter. The battery does that and all its checks, the reference
in fp64 included. Nothing is cached between the measurements; the order alternates; numbers are medians over rounds.
"""

from __future__ import annotations

import argparse
import logging
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

from pytest_hfaccel.checkpoints import CheckpointStore
from pytest_hfaccel.core.config import RunConfig
from pytest_hfaccel.core.results import Status
from pytest_hfaccel.core.spec import CLASS_LEVEL, CPU, Cell, Device, ModelSpec, Weights, WeightsChoice
from pytest_hfaccel.engine.runner import Runner
from pytest_hfaccel.registry import load_registry

MODELS = (
    "bert-base-uncased",
    "gpt2",
    "t5-small",
    "google/vit-base-patch16-224",
    "openai/clip-vit-base-patch32",
    "openai/whisper-tiny",
)
OPENVINO = Device("openvino", "CPU")
TINY = WeightsChoice(Weights.TINY, "benchmark")

Seconds = dict[str, float]


def timed(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def bare(spec: ModelSpec) -> Seconds:
    """Build, load and run a model; then load, convert, compile and run it with OpenVINO."""
    import torch
    import transformers
    from transformers.exporters import OpenVINOConfig, OpenVINOExporter

    architecture = getattr(transformers, spec.architecture)
    with tempfile.TemporaryDirectory() as cache, torch.inference_mode(False), torch.no_grad():
        store = CheckpointStore(Path(cache))

        def on_cpu() -> None:
            checkpoint = store.prepare(spec, TINY)
            model = architecture.from_pretrained(checkpoint.directory, local_files_only=True).eval()
            model(**checkpoint.sample().forward)

        def on_openvino() -> None:
            checkpoint = store.prepare(spec, TINY)
            model = architecture.from_pretrained(checkpoint.directory, local_files_only=True).eval()
            inputs = checkpoint.sample().forward
            exported = OpenVINOExporter().export(model, dict(inputs), OpenVINOConfig(stateful=False, dynamic=True))
            exported(**inputs)

        return {"cpu": timed(on_cpu), "openvino:CPU": timed(on_openvino)}


def battery(spec: ModelSpec) -> Seconds:
    """Run every check of the model's class level and of its cells."""
    with tempfile.TemporaryDirectory() as cache:
        runner = Runner(RunConfig.from_values({"cache": cache}))

        def run(*devices: Device) -> None:
            for device in devices:
                result = runner.run(Cell(spec, device, "fp32", TINY))
                assert result.status == Status.PASSED, f"{result.cell}: {result.reason}"

        try:
            return {"cpu": timed(lambda: run(CLASS_LEVEL, CPU)), "openvino:CPU": timed(lambda: run(OPENVINO))}
        finally:
            runner.close()


def measure(spec: ModelSpec, rounds: int) -> dict[str, Seconds]:
    """Return the median seconds by kind of work and device."""
    works = {"bare": bare, "battery": battery}
    found: dict[str, list[Seconds]] = {name: [] for name in works}
    for number in range(rounds):
        for name in sorted(works, reverse=bool(number % 2)):
            found[name].append(works[name](spec))
    return {
        name: {device: statistics.median(one[device] for one in seconds) for device in seconds[0]}
        for name, seconds in found.items()
    }


def be_quiet() -> None:
    """Keep progress bars and remarks about tracing out of the table, and busy neighbours out of its numbers."""
    import torch
    from transformers.utils.logging import disable_progress_bar

    logging.disable(logging.WARNING)
    disable_progress_bar()
    warnings.simplefilter("ignore")
    # Tiny models gain nothing from threads, which on a busy machine wait for each other at every operator.
    torch.set_num_threads(1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=MODELS, help="registry names")
    parser.add_argument("--rounds", type=int, default=3, help="measurements per model and kind of work")
    arguments = parser.parse_args()
    be_quiet()
    registry = load_registry()
    specs = [registry.get(name) for name in arguments.models]
    for warm_up in (bare, battery):  # imports, and what libraries do once per process
        warm_up(specs[0])
    total = {"bare": 0.0, "battery": 0.0}
    print(f"{'model':32} {'device':14} {'bare s':>8} {'battery s':>10} {'ratio':>6}")
    for spec in specs:
        seconds = measure(spec, arguments.rounds)
        for device, plain in seconds["bare"].items():
            checked = seconds["battery"][device]
            total = {"bare": total["bare"] + plain, "battery": total["battery"] + checked}
            print(f"{spec.name:32} {device:14} {plain:8.2f} {checked:10.2f} {checked / plain:6.2f}")
    print(f"{'all':47} {total['bare']:8.2f} {total['battery']:10.2f} {total['battery'] / total['bare']:6.2f}")


if __name__ == "__main__":
    main()
