"""Kill workers and controllers of parallel runs at random, and look whether anything is lost, doubled or hangs.

    python benchmarks/random_kills.py                                      # 100 kills, some minutes
    python benchmarks/random_kills.py --kills 20 --seed 7 --output kills.txt

The runs are `pytest -n 2` over the registered models on devices of the `fake` backend, with checks that sleep a moment;
one project in three runs `pytest --hf-isolate` instead, whose processes are killed likewise. Three workers in four are
killed once they run tests, the others at any time, also while they start; some are stopped for a while, and go on. One
run in four may replace two workers only, so that it soon has none. One in three loses its controller. What is left
unfinished is resumed (`--hf-resume`). Demanded is that

- a run that was not killed ends, and every test that it collected has one outcome (and at most a teardown's error);
- the records have each check of each cell once, and agree with the exit code;
- a resumed run completes: nothing is left incomplete, and no check of a cell that had finished is run again;
- no worker outlives its controller for long.

The exit code is 1 when any of that does not hold; the directory of the run is then kept and named.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil

MODULE = """
from pytest_hfaccel import ModelClassTests


class TestModels(ModelClassTests):
    architectures = ("*",)
"""
CONFTEST = """
import json
import os
import sys
import time

from pytest_hfaccel.checks.base import passed


def note(file, **facts):
    descriptor = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.write(descriptor, (json.dumps({"run": os.environ["RUN"], **facts}) + "\\n").encode())
    os.close(descriptor)


def pytest_hfaccel_checks(checks):
    for name, level in (("class_one", "class"), ("class_two", "class"), ("one", "cell"), ("two", "cell")):
        def run(context, name=name):
            note("executed.jsonl", cell=context.cell.id, check=name, process=os.getpid())
            time.sleep(0.08)
            return passed()

        checks.check(name, level=level)(run)


if "--hf-isolate" in sys.argv:

    def pytest_collection_finish(session):
        note("collected.jsonl", ids=[item.nodeid for item in session.items])

else:

    def pytest_xdist_node_collection_finished(node, ids):
        note("collected.jsonl", ids=ids)


def pytest_runtest_logreport(report):
    if "PYTEST_XDIST_WORKER" not in os.environ and (report.when != "setup" or not report.passed):
        note("reports.jsonl", nodeid=report.nodeid, when=report.when, outcome=report.outcome)


def pytest_hfaccel_cell_finished(result):
    if result.is_finished:
        note("finished.jsonl", cell=result.cell)
"""
WORKERS, ISOLATED = ("-n", "2"), ("--hf-isolate",)
ARGUMENTS = ("--all-models", "--hf-device", "fake:0,fake:1", "-k", "one or two or placement")
LIMIT = 240.0
"""Seconds after which a run counts as hanging."""
BUSY = 0.75
"""Which part of the workers is killed once they run tests."""
SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT)


class Project:
    """A directory in which runs are started, killed and resumed.

    Args:
        directory: Where it is made.
        cache: The cache of all projects.
        isolated: Whether each model has a process, instead of workers.
    """

    def __init__(self, directory: Path, cache: Path, *, isolated: bool = False) -> None:
        self.isolated = isolated
        self.directory = directory
        self.cache = cache
        self.run = 0
        self.code = 0
        self.counts: Counter[str] = Counter()
        self.faults: list[str] = []
        directory.mkdir()
        (directory / "test_hf_models.py").write_text(MODULE, encoding="utf-8")
        (directory / "conftest.py").write_text(CONFTEST, encoding="utf-8")

    def start(self, restarts: int | None) -> psutil.Popen:
        """Start the next run; every one after the first resumes.

        Args:
            restarts: How many workers may be replaced; xdist's default where not given.
        """
        self.run += 1
        self.counts["runs"] += 1
        environment = {key: value for key, value in os.environ.items() if not key.startswith(("HFACCEL_", "PYTEST_"))}
        environment |= {"HF_HUB_OFFLINE": "1", "HFACCEL_CACHE": str(self.cache), "RUN": str(self.run)}
        resume = ["--hf-resume"] if self.run > 1 else []
        how = ISOLATED if self.isolated else WORKERS
        self.counts["runs with --hf-isolate"] += self.isolated
        replaced = [] if restarts is None or self.isolated else ["--max-worker-restart", str(restarts)]
        options = ["-q", "-p", "no:cacheprovider", "--tb=line", *how, *ARGUMENTS, *resume, *replaced]
        with (self.directory / f"output{self.run}.txt").open("w", encoding="utf-8") as output:
            return psutil.Popen(
                [sys.executable, "-m", "pytest", *options],
                cwd=self.directory,
                env=environment,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def run_with_kills(self, kills: int, rng: random.Random, *, and_controller: bool) -> bool:
        """Run and kill; return whether the run came to an end of its own."""
        controller = self.start(rng.choice((None, None, None, 2)) if kills else None)
        workers: set[psutil.Process] = set()
        began = time.monotonic()
        done = 0
        only_busy = rng.random() < BUSY
        while controller.poll() is None:
            if time.monotonic() - began > LIMIT:
                self.fault(f"hangs: it still runs after {LIMIT:.0f} s")
                _kill([controller, *controller.children()])
                return False
            time.sleep(rng.uniform(0.05, 1.0))
            try:
                alive = self.workers_of(controller)
            except psutil.Error:
                continue
            workers |= set(alive)
            if done >= kills and and_controller:
                self.counts["controllers killed"] += 1
                _kill([controller])
                self.expect_end(workers)
                return False
            if only_busy:
                busy = {line["process"] for line in self.notes("executed.jsonl")}
                alive = [worker for worker in alive if worker.pid in busy]
            if alive and done < kills and self.strike(rng.choice(alive), rng):
                done += 1
                only_busy = rng.random() < BUSY
        self.code = controller.returncode
        self.expect_end(workers)
        return True

    def workers_of(self, controller: psutil.Popen) -> list[psutil.Process]:
        """The processes that run tests: of xdist's those that it started, of ours the forks."""
        children: list[psutil.Process] = controller.children()
        return children if self.isolated else [child for child in children if "-c" in child.cmdline()]

    def strike(self, worker: psutil.Process, rng: random.Random) -> bool:
        """Kill a worker, or stop it for a while; return whether it was killed."""
        try:
            if rng.random() < 0.15:
                worker.suspend()
                time.sleep(rng.uniform(0.5, 3))
                worker.resume()
                self.counts["workers stopped for a while"] += 1
                return False
            worker.send_signal(rng.choice(SIGNALS))
        except psutil.NoSuchProcess:
            return False
        self.counts["workers killed"] += 1
        return True

    def expect_end(self, workers: set[psutil.Process]) -> None:
        """Wait for the workers of a controller that has ended."""
        _, left = psutil.wait_procs(workers, timeout=40)
        if left:
            self.fault(f"{len(left)} workers outlive their controller by 40 s")
            _kill(left)

    def judge(self) -> bool:
        """Look at a run that has ended; return whether nothing is left to resume."""
        this, code = str(self.run), self.code
        ids = {nodeid for line in self.notes("collected.jsonl") if line["run"] == this for nodeid in line["ids"]}
        outcomes: Counter[str] = Counter()
        failed = False
        for line in self.notes("reports.jsonl"):
            if line["run"] == this:
                failed = failed or line["outcome"] == "failed"
                outcomes[line["nodeid"]] += line["when"] != "teardown"
        self.counts["tests with an outcome"] += sum(outcomes.values())
        self.count_faults("tests without an outcome", [nodeid for nodeid in ids if not outcomes[nodeid]])
        self.count_faults("tests with two outcomes", [nodeid for nodeid in ids if outcomes[nodeid] > 1])
        if not ids:
            self.fault(f"collected nothing, exit code {code}")
        if code != int(failed):
            self.fault(f"exit code {code}, though {'some' if failed else 'no'} tests failed")
        incomplete = self.judge_records(ids, failed=failed)
        before = {line["cell"] for line in self.notes("finished.jsonl") if line["run"] != this}
        again = [line for line in self.notes("executed.jsonl") if line["run"] == this and line["cell"] in before]
        self.count_faults("checks run again", [f"{line['cell']} {line['check']}" for line in again])
        self.counts["runs judged"] += 1
        return not incomplete

    def judge_records(self, ids: set[str], *, failed: bool) -> bool:
        """Compare the records with the tests; return whether any is incomplete."""
        expected: dict[str, list[str]] = defaultdict(list)
        for nodeid in ids:
            name, _, parameter = nodeid.rpartition("::")[-1].rstrip("]").partition("[")
            expected[parameter].append(name.removeprefix("test_"))
        cells = []
        for path in (self.directory / "reports" / "by_class").glob("*.json"):
            cells += json.loads(path.read_text(encoding="utf-8"))["cells"]
        found = {cell["cell"]: sorted(check["name"] for check in cell["checks"]) for cell in cells}
        wrong = [cell for cell, checks in expected.items() if found.get(cell) != sorted(checks)]
        self.count_faults("records that lack or double checks", wrong)
        if len(cells) != len(expected):
            self.fault(f"{len(cells)} records of {len(expected)} cells")
        statuses = Counter(cell["status"] for cell in cells)
        self.counts["records crashed"] += statuses["crashed"]
        self.counts["records incomplete"] += statuses["incomplete"]
        if (statuses["crashed"] or statuses["incomplete"]) and not failed:
            self.fault("records crashed or incomplete, though no test failed")
        return any(cell["incomplete"] for cell in cells)

    def notes(self, name: str) -> list[dict[str, Any]]:
        """What the conftest of the project wrote down."""
        path = self.directory / name
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []

    def count_faults(self, what: str, which: list[str]) -> None:
        """Count what should not be there."""
        self.counts[what] += len(which)
        if which:
            self.fault(f"{len(which)} {what}: {', '.join(sorted(which)[:3])}")

    def fault(self, text: str) -> None:
        """Keep and print what does not hold."""
        self.faults.append(f"{self.directory.name}, run {self.run}: {text}")
        print(f"FAULT {self.faults[-1]}", flush=True)


def _kill(processes: list[psutil.Process]) -> None:
    for process in processes:
        try:
            process.kill()
            process.wait(10)
        except psutil.Error:
            pass


def live(project: Project, rng: random.Random, kills: int) -> None:
    """Start a run, kill, resume until it comes to its end, then once more without kills where something is left."""
    and_controller = rng.random() < 0.35
    while not project.run_with_kills(kills, rng, and_controller=and_controller):
        if project.faults:
            return
        project.counts["runs resumed"] += 1
        kills = rng.randint(0, 4)
        and_controller = rng.random() < 0.2
    if not project.judge():
        project.counts["runs resumed"] += 1
        if project.run_with_kills(0, rng, and_controller=False) and not project.judge():
            project.fault("something is incomplete after a resumed run without kills")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--output", type=Path, help="write the report to this file, too")
    arguments = parser.parse_args()
    rng = random.Random(arguments.seed)  # noqa: S311
    total: Counter[str] = Counter()
    faults: list[str] = []
    directory = Path(tempfile.mkdtemp(prefix="hfaccel-kills-"))
    began = time.monotonic()
    number = 0
    while total["workers killed"] + total["controllers killed"] < arguments.kills:
        number += 1
        project = Project(directory / f"project{number}", directory / "cache", isolated=number % 3 == 0)
        live(project, rng, rng.randint(1, 11))
        total.update(project.counts)
        faults += project.faults
        killed = total["workers killed"] + total["controllers killed"]
        print(f"project {number}: {killed} kills, {time.monotonic() - began:.0f} s", flush=True)
    lines = [
        "Written by `python benchmarks/random_kills.py` "
        f"--kills {arguments.kills} --seed {arguments.seed} on {datetime.now(UTC):%Y-%m-%d}: "
        f"{platform.system()}, {os.cpu_count()} cores, Python {platform.python_version()}, "
        + ", ".join(f"{name} {version(name)}" for name in ("pytest-hfaccel", "pytest", "pytest-xdist", "execnet")),
        "",
        *(f"{count:6d} {what}" for what, count in total.items()),
        f"{len(faults):6d} faults",
        *(f"       {text}" for text in faults),
    ]
    print("\n".join(lines))
    if arguments.output:
        arguments.output.write_text("\n".join(lines) + "\n", encoding="utf-8")
    if faults:
        print(f"kept: {directory}")
    else:
        shutil.rmtree(directory)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
