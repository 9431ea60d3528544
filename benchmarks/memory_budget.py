"""Real models in two workers, with less memory than both need: is the budget kept, and are the verdicts the same?

    python benchmarks/memory_budget.py                            # some minutes
    python benchmarks/memory_budget.py --devices cpu openvino:CPU --share 0.6 --output memory_budget.txt

The models are tiny checkpoints of real classes whose table of token embeddings has been made large: they take some
hundred megabytes each, and little time to compute. pytest runs them three times:

- serially: the verdicts;
- with `-n 2`, without a budget: what both workers take together;
- with `-n 2` and `HFACCEL_POOL_MEMORY` set to a share of what the largest cells of two models took.

Before that the small checkpoints themselves run with `-n 2`: what Python, its packages and the checks take (the base).

Every 50 ms the memory of all processes of a run is added up: proportional set sizes (PSS, which count shared pages
once) where the system tells them, else resident set sizes. The budget is for models, references and what computing
adds, so that it is compared with what is beyond the base. Exit code 1 where a run takes more than its budget, where the
run without a budget takes no more than that (the budget was then put to no test), or where verdicts differ.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import psutil

from pytest_hfaccel.core.results import CellResult
from pytest_hfaccel.reporting import read_journal

MODELS = (
    "sentence-transformers/all-MiniLM-L6-v2",
    "sentence-transformers/all-mpnet-base-v2",
    "nlptown/bert-base-multilingual-uncased-sentiment",
)
"""Classes without a head over the vocabulary, whose outputs stay small."""
MODULE = """
from pytest_hfaccel import ModelClassTests


class TestModels(ModelClassTests):
    architectures = ("*",)
"""
_EVERY = 0.05
_LOOK_EVERY = 0.5
"""Seconds between looks for new processes, which take longer than a sample; a new one has next to nothing."""
_MIB = 2**20

Verdicts = dict[tuple[str, str], str]
"""(cell, check) -> status."""


@dataclass
class Sampled:
    """The memory of a process and its descendants while it ran.

    Attributes:
        peak_bytes: The largest sum.
        samples: How many sums were taken.
        kind: `PSS`, or `RSS` where a process did not tell its PSS.
        together: The largest number of processes at once.
    """

    peak_bytes: int = 0
    samples: int = 0
    kind: str = "PSS"
    together: int = 0

    def add(self, processes: Sequence[psutil.Process]) -> None:
        """Take one sample."""
        sizes = []
        for process in processes:
            with suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
                sizes.append(self._size(process))
        self.peak_bytes = max(self.peak_bytes, sum(sizes))
        self.together = max(self.together, len(sizes))
        self.samples += 1

    def _size(self, process: psutil.Process) -> int:
        with suppress(psutil.AccessDenied, AttributeError, NotImplementedError):
            return int(process.memory_full_info().pss)
        self.kind = "RSS"
        return int(process.memory_info().rss)


@contextmanager
def sampled(pid: int) -> Iterator[Sampled]:
    """Sample the memory of a process and its descendants until the end of the block."""
    found, is_over, root = Sampled(), threading.Event(), psutil.Process(pid)

    def sample() -> None:
        processes, looked = [root], 0.0
        while not is_over.is_set():
            began = time.monotonic()
            if began - looked > _LOOK_EVERY:
                with suppress(psutil.NoSuchProcess):
                    processes, looked = [root, *root.children(recursive=True)], began
            found.add(processes)
            is_over.wait(max(0.0, _EVERY - (time.monotonic() - began)))

    thread = threading.Thread(target=sample, daemon=True)
    thread.start()
    try:
        yield found
    finally:
        is_over.set()
        thread.join()


@dataclass
class Run:
    """One run of pytest.

    Attributes:
        code: Its exit code.
        memory: What its processes took.
        results: The records of its cells.
        seconds: How long it took.
        output: What it printed.
    """

    code: int
    memory: Sampled
    results: list[CellResult] = field(default_factory=list)
    seconds: float = 0.0
    output: str = ""

    @property
    def verdicts(self) -> Verdicts:
        """The status of each check of each cell."""
        return {(result.cell, check.name): str(check.status) for result in self.results for check in result.checks}


@dataclass(frozen=True)
class Workload:
    """What is run, and where.

    Attributes:
        directory: The project, the checkpoints and the cache.
        devices: Device names.
        dtypes: Precisions.
    """

    directory: Path
    devices: Sequence[str]
    dtypes: Sequence[str]

    def build(self, models: Sequence[str], megabytes: int) -> tuple[list[Path], list[Path]]:
        """Build the tiny checkpoints of models, and the same with a table of embeddings of a size in fp32."""
        from pytest_hfaccel.core.config import RunConfig
        from pytest_hfaccel.core.spec import CPU, Cell, Weights, WeightsChoice
        from pytest_hfaccel.engine.runner import Runner
        from pytest_hfaccel.registry import load_registry

        small, large = [], []
        runner, registry = Runner(RunConfig.from_values({"cache": str(self.directory / "cache")})), load_registry()
        for name in models:
            spec = registry.get(name)
            source = runner.open(Cell(spec, CPU, "fp32", WeightsChoice(Weights.TINY, "to be enlarged"))).source
            small.append(self.directory / "small" / spec.slug)
            large.append(self.directory / "large" / spec.slug)
            for directory in (small[-1], large[-1]):
                shutil.copytree(source.directory, directory)
            model = source.torch_model("fp32")
            model.resize_token_embeddings(megabytes * 10**6 // 4 // model.config.hidden_size, mean_resizing=False)
            model.save_pretrained(large[-1])
        runner.close()
        return small, large

    def run(self, models: Sequence[Path], workers: int, budget: int | None = None) -> Run:
        """Run pytest on checkpoints; with `workers` 0 serially."""
        project = self.directory / "project"
        project.mkdir(exist_ok=True)
        (project / "test_hf_models.py").write_text(MODULE, encoding="utf-8")
        (project / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
        with tempfile.TemporaryDirectory(dir=self.directory) as reports:
            asked = ["-n", str(workers)] if workers else ["-p", "no:xdist"]
            asked += [argument for model in models for argument in ("--hf-model", str(model))]
            asked += ["--hf-device", ",".join(self.devices), "--hf-dtype", ",".join(self.dtypes)]
            asked += ["--hf-reports", reports, "--hf-database", "none", "-q"]
            began = time.monotonic()
            with (Path(reports) / "output").open("w+", encoding="utf-8") as output:
                command = [sys.executable, "-m", "pytest", *asked]
                with subprocess.Popen(
                    command, cwd=project, env=self._environment(budget), stdout=output, stderr=subprocess.STDOUT
                ) as process:
                    try:
                        with sampled(process.pid) as memory:
                            code = process.wait()
                    except BaseException:
                        process.terminate()
                        raise
                output.seek(0)
                text = output.read()
            (journal,) = sorted((Path(reports) / "runs").glob("*/journal.jsonl"))
            return Run(code, memory, read_journal(journal).results, time.monotonic() - began, text)

    def _environment(self, budget: int | None) -> Mapping[str, str]:
        kept = {name: text for name, text in os.environ.items() if not name.startswith(("HFACCEL_", "PYTEST_"))}
        # A share of all that is free is no limit here.
        amount = {"HFACCEL_POOL_MEMORY": f"{budget}B" if budget else "100%"}
        return {**kept, "HF_HUB_OFFLINE": "1", "HFACCEL_CACHE": str(self.directory / "cache"), **amount}


def need_of_two(results: Sequence[CellResult]) -> list[int]:
    """Return what the two largest models took of the host's memory, each by its largest cell."""
    largest: dict[str, int] = {}
    for result in results:
        taken = result.placement.get("peak_bytes", {}).get("host", 0)
        largest[result.model] = max(largest.get(result.model, 0), taken)
    return sorted(largest.values())[-2:]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--megabytes", type=int, default=160, help="of each model's table of embeddings, in fp32")
    parser.add_argument("--devices", nargs="+", default=["cpu"])
    parser.add_argument("--dtypes", nargs="+", default=["fp32"])
    parser.add_argument("--share", type=float, default=0.7, help="of what the two largest models need: the budget")
    parser.add_argument(
        "--weights", default="random", choices=["random", "tiny"], help="of the models that are measured"
    )
    parser.add_argument("--output", type=Path, help="also write the results here")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # ends the run of pytest, too
    lines: list[str] = []

    def say(line: str) -> None:
        lines.append(line)
        print(line, flush=True)

    say(
        f"{datetime.now(UTC):%Y-%m-%d}, {platform.machine()}, {os.cpu_count()} cores, torch {version('torch')}; "
        f"{', '.join(arguments.models)}, tiny with {arguments.megabytes} MB of embeddings, "
        f"on {', '.join(arguments.devices)} in {', '.join(arguments.dtypes)}"
    )
    with tempfile.TemporaryDirectory() as directory:
        work = Workload(Path(directory), arguments.devices, arguments.dtypes)
        small, large = work.build(arguments.models, arguments.megabytes)
        base = work.run(small, 2)
        say(_described("as they are, -n 2 (the base)", base, 0))
        serial = work.run(large, 0)
        say(_described("enlarged, serially", serial, base.memory.peak_bytes))
        free = work.run(large, 2)
        say(_described("enlarged, -n 2", free, base.memory.peak_bytes))
        needs = need_of_two(free.results)
        budget = int(arguments.share * sum(needs))
        needed = " and ".join(f"{need / _MIB:.0f}" for need in needs)
        say(f"the two largest models took {needed} MiB of their own; the budget is {budget / _MIB:.0f} MiB")
        tight = work.run(large, 2, budget)
        say(_described("enlarged, -n 2 within the budget", tight, base.memory.peak_bytes))
    problems = problems_of(base.memory, serial, free, tight, budget)
    say("\n".join(problems) or "The budget was kept, and the verdicts are the same.")
    if arguments.output:
        arguments.output.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return 1 if problems else 0


def problems_of(base: Sampled, serial: Run, free: Run, tight: Run, budget: int) -> list[str]:
    """Say what did not hold; nothing where all did."""
    problems = []
    beyond = {run: each.memory.peak_bytes - base.peak_bytes for run, each in (("free", free), ("tight", tight))}
    if beyond["tight"] > budget:
        problems.append(f"the budget was not kept: {beyond['tight'] / _MIB:.0f} MiB of {budget / _MIB:.0f}")
    if beyond["free"] <= budget:
        problems.append("without a budget no more was taken: this run says nothing")
    for name, run in (("-n 2", free), ("-n 2 within the budget", tight)):
        keys = serial.verdicts.keys() | run.verdicts.keys()
        other = sorted(key for key in keys if serial.verdicts.get(key) != run.verdicts.get(key))
        problems += [f"{name}: {' '.join(key)}: {serial.verdicts.get(key)} -> {run.verdicts.get(key)}" for key in other]
    return problems


def _described(name: str, run: Run, base: int) -> str:
    counts: dict[str, int] = {}
    for status in run.verdicts.values():
        counts[status] = counts.get(status, 0) + 1
    memory = run.memory
    beyond = f", {(memory.peak_bytes - base) / _MIB:.0f} beyond the base" if base else ""
    return (
        f"{name}: {memory.kind} of {memory.together} processes at most {memory.peak_bytes / _MIB:.0f} MiB{beyond} "
        f"({memory.samples} samples); {len(run.results)} cells, "
        f"{', '.join(f'{count} {status}' for status, count in sorted(counts.items()))}; {run.seconds:.0f} s"
    )


if __name__ == "__main__":
    raise SystemExit(main())
