"""What the plugin adds to the start of pytest and to collection, as ratios within one run.

    python benchmarks/start_and_collection.py                 # both
    python benchmarks/start_and_collection.py start --rounds 40
    python benchmarks/start_and_collection.py collection --models 1000 --devices 10

*start*: runs that collect nothing, with no plugin, with ours, and with pytest-xdist,
by turns; the numbers are the least CPU time of a process, which a busy machine changes less than the clock.
*collection*: `--collect-only` over models x devices cells, beside plain pytest with as many parametrized tests.
"""

from __future__ import annotations

import argparse
import os
import re
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

PLUGINS = {"bare": (), "pytest-hfaccel": ("-p", "pytest_hfaccel.plugin"), "pytest-xdist": ("-p", "xdist.plugin")}

OURS = """
from pytest_hfaccel import ModelClassTests, ModelSpec


class TestMany(ModelClassTests):
    architectures = ("Bert*",)

    @classmethod
    def extra_models(cls):
        return [ModelSpec(f"many/model-{{n}}", "BertForMaskedLM", "fill-mask") for n in range({models})]
"""

PLAIN = """
import pytest

CELLS = [f"many--model-{{n}}-fake{{d}}-fp32" for n in range({models}) for d in range({devices})]


class TestMany:
"""
PLAIN_TEST = """
    @pytest.mark.parametrize("cell", CELLS, ids=CELLS, scope="session")
    def test_{name}(self, cell):
        pass
"""


def cpu_seconds(arguments: list[str], directory: Path) -> tuple[float, str]:
    """Run pytest with no plugin but those named; return its CPU seconds and its output."""
    # As in an installed environment: byte code is there, but for what the first round compiles.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environment |= {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "HF_HUB_OFFLINE": "1"}
    environment["PYTHONPYCACHEPREFIX"] = str(directory / "byte-code")
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments],
        cwd=directory,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode not in (0, 5):
        raise SystemExit(done.stdout + done.stderr)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, done.stdout


def start(rounds: int) -> None:
    with tempfile.TemporaryDirectory() as directory:
        seconds: dict[str, list[float]] = {name: [] for name in PLUGINS}
        for number in range(rounds + 1):
            for name in sorted(PLUGINS, reverse=bool(number % 2)):
                spent, _ = cpu_seconds(["-q", *PLUGINS[name]], Path(directory))
                if number:  # the first round reads files and writes byte code
                    seconds[name].append(spent)
    bare = min(seconds["bare"])
    added = {name: min(seconds[name]) - bare for name in PLUGINS}
    for name, more in added.items():
        print(f"{name:16} {1000 * (bare + more):7.1f} ms  (+{1000 * more:.1f})")
    print(f"ours over xdist's own: {added['pytest-hfaccel'] / added['pytest-xdist']:.2f}")


def collection(models: int, devices: int, rounds: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder)
        ours = ["--collect-only", "-p", "pytest_hfaccel.plugin", "--all-models", "test_ours.py"]
        ours += ["--hf-weights", "tiny", "--hf-device", ",".join(f"fake:{number}" for number in range(devices))]
        (directory / "test_ours.py").write_text(OURS.format(models=models), encoding="utf-8")
        _, listed = cpu_seconds([*ours, "-q"], directory)
        collected = re.findall(r"::test_(\w+)\[", listed)
        tests, names = len(collected), dict.fromkeys(collected)
        ours.append("-qq")
        text = PLAIN.format(models=models, devices=devices) + "".join(PLAIN_TEST.format(name=name) for name in names)
        (directory / "test_plain.py").write_text(text, encoding="utf-8")
        plain = ["--collect-only", "-qq", "test_plain.py"]
        pairs = [(cpu_seconds(ours, directory)[0], cpu_seconds(plain, directory)[0]) for _ in range(rounds)]
    first, second = (statistics.median(one) for one in zip(*pairs, strict=True))
    print(f"{models * devices} cells, {tests} tests: {first:.2f} s; plain pytest: {second:.2f} s; {first / second:.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", default=["start", "collection"], help="default: both")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--models", type=int, default=1000)
    parser.add_argument("--devices", type=int, default=10)
    arguments = parser.parse_args()
    if "start" in arguments.what:
        start(arguments.rounds)
    if "collection" in arguments.what:
        collection(arguments.models, arguments.devices, max(1, arguments.rounds // 5))


if __name__ == "__main__":
    main()
