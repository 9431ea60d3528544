"""Latencies measured under `-n 2` against those of a serial run of the same cells.

    python benchmarks/parallel_latency.py

Each round runs pytest three times on the same models, with all their checks and `--hf-performance`: serially, with two
workers of pytest-xdist, and, as a control, twice at once without a common ledger, so that nobody waits for anybody.
The order changes from round to round. The latency of a cell is the median that its check `performance` reports; a
round gives the ratio to the serial run, the median of a cell's ratios is what counts. Under `-n 2` it must be within
3 % of 1. Beside it stands how far two serial runs are apart: what the machine does by itself. On a machine where that
is more than 3 %, nothing is shown. The table goes to `docs/parallel_latency.md`.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
TABLE = ROOT / "docs" / "parallel_latency.md"
MODELS = (
    "sentence-transformers/all-MiniLM-L6-v2",
    "distilbert-base-uncased",
    "distilgpt2",
    "facebook/deit-tiny-distilled-patch16-224",
)
ROUNDS = 5
LIMIT = 0.03
MODULE = """
from pytest_hfaccel import ModelClassTests


class TestModels(ModelClassTests):
    architectures = ("*",)
"""
Latencies = dict[str, float]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--weights", choices=("tiny", "random"), default="random")
    parser.add_argument("--device", default="cpu", help="as --hf-device")
    parser.add_argument("--model", action="append", help="registered models instead of the built-in list; repeatable")
    parser.add_argument("--threads", type=int, help="OMP_NUM_THREADS of all runs; by default each chooses its own")
    parser.add_argument("--cache", type=Path, help="where checkpoints are kept; a temporary directory when not given")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        runs = Runs(Path(temporary), given)
        runs.serial()  # builds the checkpoints
        found: dict[str, list[Latencies]] = {"serial": [], "workers": [], "at once": []}
        for number in range(given.rounds):
            ways = [("serial", runs.serial), ("workers", runs.workers), ("at once", runs.at_once)]
            for name, run in ways if number % 2 == 0 else reversed(ways):
                found[name].append(run())
                print(f"round {number + 1}, {name}: {json.dumps(found[name][-1])}", flush=True)
    rows = [row(cell, found) for cell in sorted(found["serial"][0])]
    TABLE.write_text("\n".join(table(rows, given)) + "\n", encoding="utf-8")
    print(TABLE.read_text(encoding="utf-8"))
    if any(abs(one["workers"] - 1.0) > LIMIT for one in rows):
        sys.exit(f"a median ratio of -n 2 to a serial run is more than {LIMIT:.0%} from 1")


class Runs:
    """The runs of pytest.

    Args:
        directory: Where they run.
        given: The script's arguments.
    """

    def __init__(self, directory: Path, given: argparse.Namespace) -> None:
        self._directory = directory
        (directory / "test_hf_models.py").write_text(MODULE, encoding="utf-8")
        self._arguments = ["--hf-performance", "--hf-weights", given.weights, "--hf-device", given.device]
        for model in given.model or MODELS:
            self._arguments += ["--hf-model", model]
        kept = {name: value for name, value in os.environ.items() if not name.startswith("HFACCEL_")}
        self._environ = {**kept, "HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}
        self._environ["HFACCEL_CACHE"] = str(given.cache or directory / "cache")
        if given.threads:
            self._environ["OMP_NUM_THREADS"] = str(given.threads)
        else:
            self._environ.pop("OMP_NUM_THREADS", None)

    def serial(self) -> Latencies:
        """Run without workers."""
        return self._latencies(self._start("serial"), "serial")

    def workers(self) -> Latencies:
        """Run with two workers."""
        return self._latencies(self._start("workers", "-n", "2"), "workers")

    def at_once(self) -> Latencies:
        """Run twice at once, without a common ledger; the latencies of the first."""
        first, second = self._start("first"), self._start("second")
        self._latencies(second, "second")
        return self._latencies(first, "first")

    def _start(self, name: str, *arguments: str) -> subprocess.Popen[str]:
        shutil.rmtree(self._directory / name, ignore_errors=True)
        pytest = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--hf-database", "none"]
        return subprocess.Popen(
            [*pytest, *self._arguments, *arguments, "--hf-reports", name],
            cwd=self._directory,
            env=self._environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def _latencies(self, process: subprocess.Popen[str], name: str) -> Latencies:
        """Return the median latency of each cell in milliseconds, when the run has ended."""
        output = process.communicate()[0]
        found = {}
        for path in sorted((self._directory / name / "by_class").glob("*.json")):
            for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
                for check in cell["checks"]:
                    if check["name"] == "performance" and check["status"] == "passed":
                        measured = check["measures"]["measurements"][0]
                        found[cell["cell"]] = float(measured["latency"]["median_ms"])
        if not found:
            sys.exit(f"nothing was measured:\n{output}")
        return found


def row(cell: str, found: dict[str, list[Latencies]]) -> dict[str, Any]:
    """Compare the ways of one cell."""
    serial = [one[cell] for one in found["serial"]]

    def ratios(name: str) -> list[float]:
        return [one[cell] / base for one, base in zip(found[name], serial, strict=True)]

    apart = [abs(second / first - 1.0) for first, second in pairwise(serial)]
    return {
        "cell": cell,
        "serial_ms": statistics.median(serial),
        "workers": statistics.median(ratios("workers")),
        "range": (min(ratios("workers")), max(ratios("workers"))),
        "at once": statistics.median(ratios("at once")),
        "apart": statistics.median(apart) if apart else 0.0,
    }


def table(rows: list[dict[str, Any]], given: argparse.Namespace) -> list[str]:
    """The document."""
    import torch

    from pytest_hfaccel.hardware.cpu import read_cpu

    cpu = read_cpu()
    worst = max(abs(one["workers"] - 1.0) for one in rows)
    threads = f"OMP_NUM_THREADS={given.threads}" if given.threads else "threads as each run chooses"
    return [
        "# Latencies under -n 2",
        "",
        "Written by `python benchmarks/parallel_latency.py`. All checks of the models run; the latency is what "
        "`performance` reports. *-n 2* is the median over the rounds of its ratio to a serial run, with the least and "
        "the largest; *at once* that of two runs side by side that share no ledger, as a control; *serial* how far two "
        "serial runs, one after the other, are apart.",
        "",
        f"Machine: {cpu.name or platform.machine()}, {cpu.cores} cores, {platform.system()}; "
        f"torch {torch.__version__}; {time.strftime('%Y-%m-%d')}. {given.weights} weights on {given.device}, "
        f"{threads}, {given.rounds} rounds. "
        f"Largest distance of -n 2 from 1: {worst:.1%} (limit {LIMIT:.0%}).",
        "",
        "| cell | serial, ms | -n 2 | range | at once | serial |",
        "|---|---|---|---|---|---|",
        *(
            f"| {one['cell']} | {one['serial_ms']:.2f} | {one['workers']:.3f} | {one['range'][0]:.3f} to "
            f"{one['range'][1]:.3f} | {one['at once']:.3f} | {one['apart']:.1%} |"
            for one in rows
        ),
    ]


if __name__ == "__main__":
    main()
