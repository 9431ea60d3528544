"""A/A runs: how often `--hf-budget enforce` fails a model that is right, with other weights and inputs each time.

    python benchmarks/false_alarms.py [--runs 200] [--samples 2] [--seconds 1800] [--cells cpu/fp32 openvino:CPU/fp32]

One run is one cell of a key class: tiny weights drawn from a seed that no other run of the cell has, the sample and one
more input, and the checks that budgets judge, `parity` and `generation`. Nothing is wrong with any of them, so that
every failure is a false alarm. Exit code 1 where there is one. "By the table alone" are those whose error is within the
budget (cause `numerics`). The bound is that of `--hf-samples`: exact, one-sided, 95 %. Inputs for which rounding alone
is beyond the limit are not judged; they are counted, and runs whose parity was skipped because no input can judge an
output are listed and counted, too.
"""

from __future__ import annotations

import argparse
import logging
import statistics
import sys
import tempfile
import time
import warnings
from collections import defaultdict
from collections.abc import Iterator

from pytest_hfaccel.checkpoints import build, store
from pytest_hfaccel.core.config import RunConfig
from pytest_hfaccel.core.results import Cause, CheckOutcome, Status
from pytest_hfaccel.core.spec import Cell, Device, Weights, WeightsChoice
from pytest_hfaccel.engine.runner import Runner
from pytest_hfaccel.numerics.sampling import bound_of_failures
from pytest_hfaccel.registry import load_registry

MODELS = (
    "bert-base-uncased",
    "laion/clap-htsat-unfused",
    "openai/clip-vit-base-patch32",
    "facebook/detr-resnet-50",
    "gpt2",
    "meta-llama/Llama-2-7b-hf",
    "llava-hf/llava-1.5-7b-hf",
    "Qwen/Qwen2-0.5B",
    "facebook/sam-vit-base",
    "t5-small",
    "google/vit-base-patch16-224",
    "facebook/wav2vec2-base-960h",
    "openai/whisper-tiny",
    "microsoft/xclip-base-patch32",
)
"""The default model of each key class module."""

CHECKS = ("parity", "generation")


def aa_runs(
    cells: list[tuple[Device, str]], samples: int, first_seed: int
) -> Iterator[tuple[Cell, list[CheckOutcome]]]:
    """Run cell after cell of model after model, then all again with the next seed, without an end."""
    registry = load_registry()
    seed = first_seed
    while True:
        for name in MODELS:
            with tempfile.TemporaryDirectory() as cache:
                # Part of what a checkpoint is found by, so that no two seeds share one.
                build.SEED = store.SEED = seed  # type: ignore[attr-defined]
                values = {"cache": cache, "budget": "enforce", "samples": samples}
                runner = Runner(RunConfig.from_values(values))
                try:
                    for device, dtype in cells:
                        cell = Cell(registry.get(name), device, dtype, WeightsChoice(Weights.TINY, f"seed {seed}"))
                        run = runner.open(cell)
                        applying = {check.name for check in runner.checks_of(cell)}
                        yield cell, [run.check(check) for check in CHECKS if check in applying]
                        run.close()
                finally:
                    runner.close()
        seed += 1


def ratios_of(outcomes: list[CheckOutcome]) -> list[float]:
    """Return the ratio of error to budget of every input of a run."""
    return [
        ratio
        for outcome in outcomes
        for ratio in (outcome.measures.get("samples", {}).get("ratios") or {}).values()
        if outcome.name == "parity"
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--samples", type=int, default=2, help="inputs per run, as --hf-samples")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin no run after so long")
    parser.add_argument("--cells", nargs="+", default=["cpu/fp32", "cpu/bf16", "cpu/fp16"], metavar="DEVICE/DTYPE")
    parser.add_argument("--seed", type=int, default=1000, help="of the first weights")
    arguments = parser.parse_args()
    import torch
    from transformers.utils.logging import disable_progress_bar

    logging.disable(logging.WARNING)
    disable_progress_bar()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    cells = [(Device.parse(text.rpartition("/")[0]), text.rpartition("/")[2]) for text in arguments.cells]
    until = time.monotonic() + arguments.seconds
    runs, alarms, by_table, without, unjudged, undecided = 0, 0, 0, 0, 0, 0
    ratios: dict[str, list[float]] = defaultdict(list)
    for cell, outcomes in aa_runs(cells, arguments.samples, arguments.seed):
        runs += 1
        bad = [outcome for outcome in outcomes if outcome.status not in (Status.PASSED, Status.SKIPPED)]
        alarms += bool(bad)
        by_table += bool(bad) and all(outcome.cause == Cause.NUMERICS for outcome in bad)
        open_ones = [one for one in outcomes if one.name == "parity" and one.status == Status.SKIPPED]
        undecided += bool(open_ones)
        unjudged += sum(len(outcome.measures.get("not_judged", {})) for outcome in outcomes)
        for outcome in bad + open_ones:
            print(f"{cell.id} {cell.weights.reason}: {outcome.status} {outcome.name}: {outcome.reason}", flush=True)
        found = ratios_of(outcomes)
        without += not found
        ratios[f"{cell.device}/{cell.dtype}"] += found
        if runs % 20 == 0:
            print(f"# {runs} runs, {alarms} failed", file=sys.stderr, flush=True)
        if runs >= arguments.runs or time.monotonic() > until:
            break
    print(f"{'cell':24} {'inputs':>6} {'least':>6} {'median':>6} {'largest':>7}  (error in multiples of the budget)")
    for name, values in ratios.items():
        if values:
            numbers = f"{min(values):6.2f} {statistics.median(values):6.2f} {max(values):7.2f}"
            print(f"{name:24} {len(values):6} {numbers}")
    bound = bound_of_failures(alarms, runs)
    print(
        f"{runs} runs of {len(MODELS)} classes, seeds {arguments.seed} and up, {arguments.samples} inputs each: "
        f"{alarms} failed, {by_table} of them by the table alone; with 95 % confidence at most {bound:.2%} do. "
        f"Runs without a budget: {without}. Inputs not judged: {unjudged}, so that {undecided} runs were skipped."
    )
    return 1 if alarms else 0


if __name__ == "__main__":
    raise SystemExit(main())
