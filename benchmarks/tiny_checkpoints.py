"""Tiny checkpoints of every architecture: which build, run, and come back from disk unchanged.

    python benchmarks/tiny_checkpoints.py [--jobs 2] [--rows rows.jsonl] [--all-heads] [PATTERN ...]

Each (model type, class) pair of the installed transformers is built, run and loaded again in a child process, so that
a crash or an endless loop is that pair's failure only. Rows are kept in a file as they come: a run that was stopped
goes on where it was. The rates and the failures are printed; `hfaccel registry check` reads the rows.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import re
import resource
import sys
import tempfile
import time
import traceback
from collections import Counter
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pytest_hfaccel.core.spec import ModelSpec

SECONDS_PER_PAIR = 90.0
"""More than a hundred times the usual time."""

MEMORY = 12 * 2**30
"""Address space of a child, in bytes: a model that was not shrunk fails instead of taking the machine down."""

UNCHANGED = 1e-5
"""Largest difference after loading, relative to the largest number of the output: the bits should be the same."""

_NEEDS = re.compile(r"requires the (\S+) library|pip install `?([\w.-]+)|No module named '(\w+)'")
_FRAMES = 3


@dataclass
class Child:
    """A process that works through the pairs of one model type.

    Attributes:
        process: The process.
        rows: Its end of the pipe through which rows come, in the order of the pairs.
        pairs: The pairs it has not answered for.
        since: When it began the first of them.
    """

    process: BaseProcess
    rows: Connection
    pairs: list[ModelSpec]
    since: float = field(default_factory=time.monotonic)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("patterns", nargs="*", help="wildcards over pairs, e.g. 'opt/*' (default: all)")
    parser.add_argument("--rows", type=Path, help="keep the rows in this file, and do not repeat those in it")
    parser.add_argument("--again", action="store_true", help="repeat the pairs that failed in the file")
    parser.add_argument("--all-heads", action="store_true", help="all heads, not only base class and main head")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="child processes (default: %(default)s)")
    given = parser.parse_args()
    os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_VERBOSITY="error", TOKENIZERS_PARALLELISM="false")
    pairs = chosen(given.patterns, all_heads=given.all_heads)
    rows = kept(given.rows, again=given.again)
    sweep([pair for pair in pairs if pair.name not in rows], rows, given.rows, given.jobs)
    found = [rows[pair.name] for pair in pairs if pair.name in rows]
    report(found)


def chosen(patterns: list[str], *, all_heads: bool) -> list[ModelSpec]:
    """Return the pairs to sweep."""
    from pytest_hfaccel.registry.auto_classes import every_pair, main_pairs, match_pairs

    pairs = every_pair() if all_heads else main_pairs()
    wanted = {spec.name for pattern in patterns for spec in match_pairs(pattern)}
    return [spec for spec in pairs if not patterns or spec.name in wanted]


def kept(file: Path | None, *, again: bool) -> dict[str, dict[str, Any]]:
    """Return the rows of an earlier run by the pair's name; the last row of a pair counts."""
    if file is None or not file.exists():
        return {}
    rows = {row["name"]: row for row in map(json.loads, file.read_text(encoding="utf-8").splitlines())}
    return {name: row for name, row in rows.items() if row["ok"] or not again}


def sweep(pairs: list[ModelSpec], rows: dict[str, dict[str, Any]], file: Path | None, jobs: int) -> None:
    """Run pairs in children, and add a row for each."""
    if pairs:
        prepare()
    waiting = by_type(pairs)
    children: list[Child] = []
    while waiting or children:
        while waiting and len(children) < jobs:
            children.append(start(waiting.pop(0)))
        for child in ready(children):
            for row in answers(child):
                rows[row["name"]] = row
                tell(row, len(rows), file)
            if child.process.exitcode is not None or not child.pairs:
                children.remove(child)
                child.process.join()
                if child.pairs:
                    waiting.insert(0, child.pairs)


def prepare() -> None:
    """Import once what the children need, as they are forks of this process: a tiny ViT and a tiny BERT do."""
    import torch

    from pytest_hfaccel.registry.auto_classes import match_pairs

    torch.set_num_threads(1)
    for name in ("vit/ViTForImageClassification", "bert/BertForMaskedLM"):
        for pair in match_pairs(name):
            measured(pair)


def by_type(pairs: list[ModelSpec]) -> list[list[ModelSpec]]:
    """Group pairs by model type: its code is imported once."""
    groups: dict[str, list[ModelSpec]] = {}
    for pair in pairs:
        groups.setdefault(pair.dims["model_type"], []).append(pair)
    return list(groups.values())


def start(pairs: list[ModelSpec]) -> Child:
    """Start a child for the pairs of a model type."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=work, args=(pairs, theirs), daemon=True)
    process.start()
    theirs.close()
    return Child(process, ours, list(pairs))


def ready(children: list[Child]) -> list[Child]:
    """Wait for a row, an end or a time limit, and return the children concerned."""
    limit = min(child.since + SECONDS_PER_PAIR for child in children)
    found = wait([child.rows for child in children], timeout=max(0.0, limit - time.monotonic()))
    late = time.monotonic() - SECONDS_PER_PAIR
    return [child for child in children if child.rows in found or child.since <= late]


def answers(child: Child) -> list[dict[str, Any]]:
    """Return the row of a child's first pair: its own, or one about its crash or its time."""
    pair = child.pairs[0]
    try:
        row = child.rows.recv() if child.rows.poll() else None
    except EOFError:
        child.process.join()
        row = failure(pair, "crash", f"the process ended with code {child.process.exitcode}")
    if row is None:
        child.process.kill()
        child.process.join()
        row = failure(pair, "time", f"not done after {SECONDS_PER_PAIR:.0f} s")
    child.pairs.pop(0)
    child.since = time.monotonic()
    return [row]


def work(pairs: list[ModelSpec], rows: Connection) -> None:
    """Build, run and load pairs, and send a row for each; the body of a child."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    silent = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silent, sys.stdout.fileno())
    os.dup2(silent, sys.stderr.fileno())
    for pair in pairs:
        began = time.perf_counter()
        try:
            row = measured(pair)
        except Exception as error:
            row = failure(pair, "build", error)
        rows.send({**row, "seconds": round(time.perf_counter() - began, 3)})


def measured(pair: ModelSpec) -> dict[str, Any]:
    """Build a pair, load it, and compare what both models give."""
    from pytest_hfaccel.checkpoints import CheckpointStore
    from pytest_hfaccel.checkpoints.build import load_smoke_forward, run_forward
    from pytest_hfaccel.checkpoints.configs import model_class
    from pytest_hfaccel.core.spec import Weights, WeightsChoice

    # The class's own code is imported outside the measured time: transformers takes as long for it as we for the rest.
    model_class(pair)
    with tempfile.TemporaryDirectory() as directory:
        began, began_cpu = time.perf_counter(), time.process_time()
        checkpoint = CheckpointStore(Path(directory)).prepare(pair, WeightsChoice(Weights.TINY, "for the sweep"))
        row = {
            "name": pair.name,
            "task": pair.task,
            "build_seconds": round(time.perf_counter() - began, 3),
            "build_cpu_seconds": round(time.process_time() - began_cpu, 3),
        }
        try:
            sample, record = checkpoint.sample(), load_smoke_forward(checkpoint.directory)
            assert record is not None, "the checkpoint was built without its smoke forward"
            model = checkpoint.torch_model("fp32")
            row |= {"parameters": checkpoint.parameters, "processors": sorted(checkpoint.processors())}
            row |= {"inputs": {name: list(value.shape) for name, value in sample.forward.items()}}
            problem = difference(record.outputs, run_forward(model, sample.forward))
        except Exception as error:
            return {**row, **failure(pair, "load", error)}
    return {**row, **(failure(pair, "outputs", problem) if problem else {"ok": True})}


def difference(built: Any, loaded: Any) -> str:
    """Return what is wrong with the outputs of the model that was built and the one that was loaded, or nothing."""
    numbers = {name: value for name, value in built.items() if value.is_floating_point() and value.numel()}
    if not numbers:
        return f"no numbers among the outputs: {', '.join(built) or 'none'}"
    for name, value in numbers.items():
        # Scores that rule a token out are minus infinity.
        if (value.isnan() | (value == float("inf"))).any():
            return f"{name} is not finite"
        other = loaded.get(name)
        if other is None or other.shape != value.shape:
            return f"{name} changed its shape by saving and loading"
        scale = max(1e-6, value.abs().nan_to_num(posinf=0.0).max().item())
        change = (value - other).abs().nan_to_num(posinf=0.0).max().item() / scale
        if change > UNCHANGED:
            return f"{name} changed by {change:.2g} by saving and loading"
    return ""


def failure(pair: ModelSpec, stage: str, problem: Exception | str) -> dict[str, Any]:
    """Return the row of a pair that failed: where, why, and the package it lacks."""
    row = {"name": pair.name, "task": pair.task, "ok": False, "stage": stage}
    if isinstance(problem, str):
        return {**row, "error": problem, "kind": stage}
    cause = problem.__cause__ or problem
    frames = traceback.extract_tb(cause.__traceback__)[-_FRAMES:]
    text = re.sub(r"\s+", " ", str(cause)).strip()
    needs = _NEEDS.search(text) if isinstance(cause, ImportError) or "requires the" in text else None
    return {
        **row,
        "kind": type(cause).__name__,
        "error": text[:400],
        "place": " < ".join(f"{Path(frame.filename).name}:{frame.lineno}" for frame in reversed(frames)),
        "needs": next(filter(None, needs.groups())) if needs else "",
    }


def tell(row: dict[str, Any], done: int, file: Path | None) -> None:
    """Keep a row, and show failures as they come."""
    if file is not None:
        with file.open("a", encoding="utf-8") as lines:
            lines.write(json.dumps(row) + "\n")
    if not row["ok"]:
        print(f"{done:5} {row['name']}: {row['stage']}: {row['kind']}: {row['error'][:160]}", flush=True)


def report(rows: list[dict[str, Any]]) -> None:
    """Print the rates, and the failures by what went wrong."""
    lacking = [row for row in rows if row.get("needs")]
    counted = [row for row in rows if not row.get("needs")]
    good = [row for row in counted if row["ok"]]
    if not counted:
        print("no pairs")
        return
    print(f"\n{len(rows)} pairs, {len(lacking)} of them need a package that is not installed:")
    for package, count in Counter(row["needs"] for row in lacking).most_common():
        print(f"  {count:4}  {package}")
    built = [row for row in counted if "build_seconds" in row]
    small = sum(row.get("parameters", 0) < 1e6 for row in good)
    print(
        f"built, run, and unchanged by saving and loading: {len(good)}/{len(counted)} = {len(good) / len(counted):.1%}"
    )
    if good:
        print(f"below a million parameters: {small}/{len(good)} = {small / len(good):.1%}")
        wall, cpu = (median(row.get(name, 0.0) for row in built) for name in ("build_seconds", "build_cpu_seconds"))
        print(f"build: median {wall:.2f} s, {cpu:.2f} s of processor time")
    for kind, count in Counter(f"{row['stage']}: {row['kind']}" for row in counted if not row["ok"]).most_common():
        print(f"  {count:4}  {kind}")


if __name__ == "__main__":
    main()
