"""How much faster `-n 2` is than a serial run of the same cells, and whether the verdicts are the same.

    python benchmarks/parallel_speed.py                       # all registered models: a quarter of an hour or more
    python benchmarks/parallel_speed.py --model gpt2 --device cpu --rounds 3 --output parallel_speed.txt

Runs pytest on `model_classes`, by turns serially and with two workers, each time with an empty cache: checkpoints are
built and models converted anew. There is no hub: a model whose weights no package has is tested as a tiny checkpoint.
The ratio of a round is the serial run's time on the clock by that of the other, both from the start of the process to
its end. A short run has less to share out: to start two workers takes some seconds, and at the end one of them waits
for the other. The goal is 1.6 on two cores that do nothing else. Exit code 1 where the median is below that, or where a
verdict differs.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import verdicts

ROOT = Path(__file__).parents[1]
DEVICES = ("cpu", "openvino:CPU", "onnxruntime:CPU")
GOAL = 1.6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", action="append", help="registered models, all when not given; repeatable")
    parser.add_argument("--device", action="append", help="devices instead of the built-in list; repeatable")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--output", type=Path, help="also write what is printed to this file")
    given = parser.parse_args()
    models, devices = given.model or (), given.device or DEVICES
    lines = [
        f"{datetime.now(UTC):%Y-%m-%d}, {platform.machine()}, {os.cpu_count()} cores, torch {version('torch')}; "
        f"{', '.join(models) or 'all registered models'} on {', '.join(devices)} in fp32; caches empty, no hub"
    ]
    print(lines[0], flush=True)
    ratios, different = [], []
    with tempfile.TemporaryDirectory() as temporary:
        for number in range(given.rounds):
            folder = Path(temporary) / str(number)
            ways = {"serial": (), "-n 2": ("-n", "2")}
            order = list(ways) if number % 2 else list(reversed(ways))
            seconds = {way: run(folder / way, models, devices, ways[way]) for way in order}
            ratios.append(seconds["serial"] / seconds["-n 2"])
            serial, parallel = (verdicts.read(folder / way / "journal.jsonl")[0] for way in ways)
            different += [f"serially -> with -n 2: {line}" for line in verdicts.differences(serial, parallel)]
            lines.append(
                f"round {number + 1} ({order[0]} first): serially {seconds['serial']:.0f} s, -n 2 "
                f"{seconds['-n 2']:.0f} s: {ratios[-1]:.2f}; {len(serial)} checks"
            )
            print(lines[-1], flush=True)
    lines += different or ["The verdicts are the same."]
    lines.append(f"-n 2 is {statistics.median(ratios):.2f} times as fast as a serial run (goal {GOAL}).")
    print("\n".join(lines[1 + given.rounds :]))
    if given.output:
        given.output.write_text("\n".join(lines) + "\n", encoding="utf-8")
    if different or statistics.median(ratios) < GOAL:
        sys.exit(1)


def run(folder: Path, models: tuple[str, ...], devices: tuple[str, ...], workers: tuple[str, ...]) -> float:
    """Run pytest with an empty cache and reports in the folder; return its seconds on the clock."""
    arguments = [f"--hf-model={model}" for model in models] or ["--all-models"]
    arguments += ["--hf-device", ",".join(devices), "--hf-database=none", f"--hf-reports={folder}"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HFACCEL_")}
    with tempfile.TemporaryDirectory() as cache:
        before = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "model_classes", "-q", "-p", "no:cacheprovider", *arguments, *workers],
            cwd=ROOT,
            env={**environment, "HFACCEL_CACHE": cache, "HF_HUB_OFFLINE": "1"},
            capture_output=True,
            text=True,
        )
        seconds = time.perf_counter() - before
    if not (folder / "journal.jsonl").is_file():
        sys.exit(f"nothing was run:\n{done.stdout}{done.stderr}")
    return seconds


if __name__ == "__main__":
    main()
