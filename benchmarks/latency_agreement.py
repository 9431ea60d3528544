"""Our latency against that of `torch.utils.benchmark`, on the same loaded model in the same process.

    python benchmarks/latency_agreement.py

For each model, pairs of measurements follow each other, in turns ours first and theirs first, so that whatever the
machine does meanwhile hits both. Ours times `LoadedModel.forward` as `--hf-performance` and `hfaccel bench` do; theirs
times a plain call of the transformers model, under `torch.inference_mode`, with `Timer.blocked_autorange`. The medians
of a pair give a ratio, the median of a model's ratios is what counts: it must be within 3 % of 1. The table goes to
`docs/latency_agreement.md`.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
TABLE = ROOT / "docs" / "latency_agreement.md"

MODELS = (
    ("sentence-transformers/all-MiniLM-L6-v2", 1, 128),
    ("distilbert-base-uncased", 1, 32),
    ("bert-base-uncased", 1, 128),
    ("distilgpt2", 1, 128),
    ("facebook/deit-tiny-distilled-patch16-224", 4, 0),
    ("google/vit-base-patch16-224", 1, 0),
)
"""Registered models at a batch size and sequence length; real dimensions, random weights."""
PAIRS = 9
SECONDS = 1.0
"""Least time of their measurement, most time of ours."""
LIMIT = 0.03


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--pairs", type=int, default=PAIRS)
    parser.add_argument("--cache", type=Path, help="where checkpoints are kept; a temporary directory when not given")
    given = parser.parse_args()
    os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_VERBOSITY="error")
    with tempfile.TemporaryDirectory() as temporary:
        cache = given.cache or Path(temporary)
        rows = [row(*model, given.threads, given.pairs, cache) for model in MODELS]
    TABLE.write_text("\n".join(table(rows, given.threads, given.pairs)) + "\n", encoding="utf-8")
    print(TABLE.read_text(encoding="utf-8"))
    if any(abs(one["ratio"] - 1.0) > LIMIT for one in rows):
        sys.exit(f"a median ratio is more than {LIMIT:.0%} from 1")


def row(name: str, batch: int, length: int, threads: int, pairs: int, cache: Path) -> dict[str, Any]:
    """Measure a model both ways, in pairs."""
    import torch

    torch.set_num_threads(threads)
    loaded, inputs = load(name, batch, length, cache)
    ratios: list[float] = []
    ours: list[float] = []
    theirs: list[float] = []
    for number in range(pairs):
        ways = [(ours, our_median), (theirs, their_median)]
        for medians, measure in ways if number % 2 == 0 else reversed(ways):
            medians.append(measure(loaded, inputs, threads))
        ratios.append(ours[-1] / theirs[-1])
        print(f"{name} pair {number + 1}: {1e3 * ours[-1]:.3f} ms / {1e3 * theirs[-1]:.3f} ms", flush=True)
    quartiles = statistics.quantiles(ratios, n=4, method="inclusive")
    return {
        "model": name,
        "point": f"{batch} x {length}" if length else f"{batch}",
        "ours": statistics.median(ours),
        "theirs": statistics.median(theirs),
        "ratio": statistics.median(ratios),
        "quartiles": (quartiles[0], quartiles[2]),
    }


def load(name: str, batch: int, length: int, cache: Path) -> tuple[Any, dict[str, Any]]:
    """Load a model with random weights, and make its inputs."""
    from pytest_hfaccel.backends import Backends
    from pytest_hfaccel.benchmark.inputs import make_inputs
    from pytest_hfaccel.checkpoints import CheckpointStore
    from pytest_hfaccel.core.spec import CPU, Cell, Weights, WeightsChoice
    from pytest_hfaccel.registry import load_registry

    cell = Cell(load_registry().get(name), CPU, "fp32", WeightsChoice(Weights.RANDOM, "real dimensions"))
    checkpoint = CheckpointStore(cache).prepare(cell.model, cell.weights)
    inputs = make_inputs(checkpoint, batch, length)
    return Backends().for_kind("cpu").load(cell, checkpoint), inputs.forward


def our_median(loaded: Any, inputs: dict[str, Any], _threads: int) -> float:
    """Seconds, as the check `performance` and `hfaccel bench` time them."""
    from pytest_hfaccel.benchmark.timing import TimingBudget, time_runs

    return time_runs(lambda: loaded.forward(inputs), TimingBudget(max_seconds=SECONDS)).median_ms / 1e3


def their_median(loaded: Any, inputs: dict[str, Any], threads: int) -> float:
    """Seconds, as torch times them; its timer runs on one thread unless it is told otherwise."""
    import torch
    from torch.utils.benchmark import Timer

    names = {"model": loaded.pipeline_model(), "inputs": inputs}
    with torch.inference_mode():
        timer = Timer("model(**inputs)", globals=names, num_threads=threads)
        return float(timer.blocked_autorange(min_run_time=SECONDS).median)


def table(rows: list[dict[str, Any]], threads: int, pairs: int) -> list[str]:
    """The document."""
    import torch

    worst = max(abs(one["ratio"] - 1.0) for one in rows)
    lines = [
        "# Latency against torch.utils.benchmark",
        "",
        "Written by `python benchmarks/latency_agreement.py`. The same loaded model in the same process, fp32, "
        f"random weights, {threads} thread{'s' if threads > 1 else ''}; {pairs} pairs of measurements per model, by "
        "turns ours and theirs first. *ratio* is the median of ours / theirs over the pairs, with its quartiles; ours "
        "includes handing over the inputs and taking the outputs apart, theirs is a plain call of the model.",
        "",
        f"Machine: {_processor()}, {platform.system()}; torch {torch.__version__}; {time.strftime('%Y-%m-%d')}. "
        f"Largest distance from 1: {worst:.1%} (limit {LIMIT:.0%}).",
        "",
        "| model | batch x length | ours, ms | torch, ms | ratio | quartiles |",
        "|---|---|---|---|---|---|",
    ]
    return lines + [_line(one) for one in rows]


def _line(one: dict[str, Any]) -> str:
    low, high = one["quartiles"]
    return (
        f"| {one['model']} | {one['point']} | {1e3 * one['ours']:.2f} | {1e3 * one['theirs']:.2f} | "
        f"{one['ratio']:.3f} | {low:.3f} to {high:.3f} |"
    )


def _processor() -> str:
    from pytest_hfaccel.hardware.cpu import read_cpuinfo

    return read_cpuinfo()[0] or platform.machine()


if __name__ == "__main__":
    main()
