"""What a cell costs whose parity fails, in multiples of the same cell passed.

    python benchmarks/failed_cells.py [--rounds 3] [--dtypes fp32 bf16] [--budget failures] [MODEL ...]

Each cell runs twice a round in a runner of its own: as it is, and with outputs that are half as large again, so that
everything that compares them with the reference fails and computes what failures ask for. Numbers are seconds of this
process's CPU time for the whole cell, loading and reference included, least of the rounds: other work on the machine
does not count.
"""

from __future__ import annotations

import argparse
import logging
import statistics
import time
import warnings
from typing import TYPE_CHECKING, Any, cast

from pytest_hfaccel.backends import Backends
from pytest_hfaccel.checkpoints.checkpoint import ReferenceSource
from pytest_hfaccel.checks import planted
from pytest_hfaccel.core.config import RunConfig
from pytest_hfaccel.core.results import Status
from pytest_hfaccel.core.spec import CPU, Cell, ModelSpec, Weights, WeightsChoice
from pytest_hfaccel.engine.runner import Runner
from pytest_hfaccel.registry import load_registry

if TYPE_CHECKING:
    from pytest_hfaccel.backends.base import Backend, LoadedModel, ModelSource

MODELS = (
    "bert-base-uncased",
    "gpt2",
    "t5-small",
    "google/vit-base-patch16-224",
    "openai/clip-vit-base-patch32",
    "openai/whisper-tiny",
    "facebook/sam-vit-base",
    "facebook/detr-resnet-50",
)


class WrongBackends(Backends):
    """Backends whose models, but for the references, are wrong."""

    def for_kind(self, kind: str) -> Backend:
        """Return the backend of a device kind, with the defect in what it loads."""
        backend = super().for_kind(kind)

        def load(cell: Cell, source: ModelSource) -> LoadedModel:
            loaded = backend.load(cell, source)
            return loaded if isinstance(source, ReferenceSource) else planted.with_forward(loaded, _off)

        return cast("Backend", planted.Planted(backend, load=load))


def _off(right: planted.Forward, inputs: planted.Tensors) -> dict[str, Any]:
    return {name: leaf * 1.5 if leaf.is_floating_point() else leaf for name, leaf in right(inputs).items()}


def cpu_seconds(spec: ModelSpec, dtype: str, budget: str, *, wrong: bool) -> float:
    """Run a cell; return the CPU time it took."""
    config = RunConfig.from_values({"budget": budget})
    runner = Runner(config, backends=WrongBackends() if wrong else Backends())
    try:
        started = time.process_time()
        result = runner.run(Cell(spec, CPU, dtype, WeightsChoice(Weights.TINY, "benchmark")))
        taken = time.process_time() - started
    finally:
        runner.close()
    parity = next(check for check in result.checks if check.name == "parity")
    assert parity.status == (Status.FAILED if wrong else Status.PASSED), f"{result.cell}: {parity.reason}"
    return taken


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=MODELS, help="registry names")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dtypes", nargs="+", default=["fp32", "bf16"])
    parser.add_argument("--budget", default="failures", help="as --hf-budget")
    arguments = parser.parse_args()
    import torch
    from transformers.utils.logging import disable_progress_bar

    logging.disable(logging.WARNING)
    disable_progress_bar()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    registry = load_registry()
    ratios = []
    print(f"{'model':32} {'dtype':6} {'passed s':>9} {'failed s':>9} {'ratio':>6}", flush=True)
    for name in arguments.models:
        spec = registry.get(name)
        for dtype in arguments.dtypes:
            least: dict[bool, float] = {}
            for number in range(arguments.rounds + 1):
                for wrong in (False, True):
                    taken = cpu_seconds(spec, dtype, arguments.budget, wrong=wrong)
                    if number:  # the first round imports
                        least[wrong] = min(least.get(wrong, taken), taken)
            ratios.append(least[True] / least[False])
            print(f"{name:32} {dtype:6} {least[False]:9.2f} {least[True]:9.2f} {ratios[-1]:6.2f}", flush=True)
    print(f"--hf-budget {arguments.budget}: median {statistics.median(ratios):.2f}, largest {max(ratios):.2f}")


if __name__ == "__main__":
    main()
