"""`hfaccel run`: pytest here, or on the nodes of a cluster."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from pytest_hfaccel.cli import positive_number
from pytest_hfaccel.core.errors import ConfigError, HfAccelError

if TYPE_CHECKING:
    from pytest_hfaccel.distributed.cluster import Cluster
    from pytest_hfaccel.distributed.cluster_results import ClusterResults

ENGINES = ("local", "ray")
_USAGE, _NOTHING, _INTERRUPTED = 4, 5, 2
"""pytest's exit codes."""


def add_parser(commands: Any) -> None:
    """Add `run` to the parsers of `hfaccel`."""
    parser = commands.add_parser(
        "run",
        help="run pytest here or on a cluster",
        usage="hfaccel run [options] -- [ARGUMENTS OF PYTEST]",
        description="Run pytest with the arguments after `--`. With --engine ray, the cells run as tasks of a Ray "
        "cluster, on nodes that have their devices; the reports are those of a run on one machine.",
        epilog="Exit code: that of pytest. 0: passed, 1: something failed or nothing could be tested, 2: interrupted, "
        "3: reports could not be written, 4: wrong arguments, or no cluster, 5: nothing is selected.",
    )
    text = "local: pytest on this machine (default); ray: tasks of a Ray cluster"
    parser.add_argument("--engine", choices=ENGINES, default="local", help=text)
    text = "the cluster: auto for the one this machine belongs to, or host:port of its head node; by default a cluster "
    text += "of this machine alone is started"
    parser.add_argument("--address", default="", metavar="ADDRESS", help=text)
    text = "copy the working directory to the nodes (default: they have it at the same path)"
    parser.add_argument("--upload", action="store_true", help=text)
    text = "CPUs that each pytest process asks for (default: %(default)s)"
    parser.add_argument("--task-cpus", type=positive_number, default=1.0, metavar="N", help=text)
    text = "memory that each pytest process asks for, e.g. 4GB (default: 1 GiB, and what its largest model needs)"
    parser.add_argument("--task-memory", default="", metavar="SIZE", help=text)
    text = "how often a cell may lose its node or its process before it counts as crashed (default: %(default)s)"
    parser.add_argument("--losses", type=int, default=3, metavar="N", help=text)
    text = "recorded durations, as for `hfaccel plan`: groups of cells are balanced by them"
    parser.add_argument("--durations", type=Path, action="append", metavar="PATH", help=text)
    text = "accept nodes that have other versions of the packages than this machine"
    parser.add_argument("--any-versions", action="store_true", help=text)
    parser.add_argument("arguments", nargs="*", metavar="ARGUMENTS", help="arguments of pytest, after `--`")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    if arguments.engine == "local":
        given = [f"--{name}" for name in ("address", "upload", "task_memory") if getattr(arguments, name)]
        if given:
            print(f"hfaccel run: {given[0].replace('_', '-')} needs --engine ray.", file=sys.stderr)
            return _USAGE
        return subprocess.run([sys.executable, "-m", "pytest", *arguments.arguments], check=False).returncode
    try:
        return _run_on_ray(arguments)
    except HfAccelError as error:
        print(f"hfaccel run: {error}", file=sys.stderr)
        return _USAGE
    except KeyboardInterrupt:
        print("hfaccel run: interrupted before anything ran", file=sys.stderr)
        return _INTERRUPTED


def _run_on_ray(arguments: argparse.Namespace) -> int:
    from pytest_hfaccel.cli.progress import ClusterProgress
    from pytest_hfaccel.distributed.cluster import Cluster
    from pytest_hfaccel.distributed.cluster_results import ClusterResults
    from pytest_hfaccel.distributed.durations import DURATIONS, RECORDED, read_durations
    from pytest_hfaccel.distributed.plan import make_plan
    from pytest_hfaccel.distributed.pytest_process import PytestTask
    from pytest_hfaccel.distributed.ray_engine import RayRun, ray_session
    from pytest_hfaccel.pool.budget import parse_budget
    from pytest_hfaccel.reporting.progress import ExpectedCell

    memory = parse_budget(arguments.task_memory) if arguments.task_memory else 0
    if isinstance(memory, float):
        raise ConfigError(f"--task-memory {arguments.task_memory}: a share of what? Give a size, e.g. 4GB.")
    paths = arguments.durations or [path for path in (Path(DURATIONS),) if path.exists()]
    durations = read_durations(paths)
    with ray_session(arguments.address, upload=os.getcwd() if arguments.upload else "") as session:  # noqa: PTH109
        cluster = Cluster(session.nodes(), cpus=arguments.task_cpus, memory_bytes=memory)
        hardware = json.dumps(cluster.hardware().to_json())
        selection = _collect(arguments.arguments, hardware)
        if selection.run["refused"]:
            raise ConfigError(
                f"{selection.run['refused']} cannot be used on a cluster, where pytest runs many times.",
                hint="Leave it out, or use it with `hfaccel run` on one machine.",
            )
        if not selection.cells:
            print("hfaccel run: no tests of model classes are selected.", file=sys.stderr)
            return _NOTHING
        if arguments.any_versions:
            selection.versions = {}
        plan = make_plan(selection, durations, arguments.arguments, shards=1)
        command = " ".join(["hfaccel", *sys.argv[1:]])
        expected = {cell.key: ExpectedCell(cell.model, plan.cells[cell.key].seconds) for cell in selection.cells}
        slots = int(sum(node.resources.get("CPU", 0) for node in cluster.nodes) / arguments.task_cpus)
        is_recorded = any(cell.source == RECORDED for cell in plan.cells.values())
        with ClusterProgress(expected, cluster.describe(), workers=slots, is_recorded=is_recorded) as progress:
            results = ClusterResults(selection, cluster, engine="ray", command=command, consumers=[progress])
            progress.node_of = results.node_of
            task = PytestTask(plan, frozenset(), hardware)
            seconds = {cell.key: cell.seconds for cell in plan.cells.values()}
            run = RayRun(session, cluster, task, results, losses=arguments.losses, seconds=seconds, show=progress.show)
            ended = run.run()
            results.finish(ended)
    code = results.exit_code(ended)
    database_written = _write_database(selection.run["database"], results)
    _describe(results, cluster)
    return code if database_written or code else 3


def _collect(arguments: Sequence[str], hardware: str) -> Any:
    from pytest_hfaccel.cli.runs.plan import collect
    from pytest_hfaccel.core.presence import HARDWARE_FILE

    with TemporaryDirectory(prefix="hfaccel-") as directory:
        file = Path(directory) / "hardware.json"
        file.write_text(hardware, encoding="utf-8")
        return collect(arguments, command="hfaccel run --engine ray", environment={HARDWARE_FILE: str(file)})


def _write_database(path: str, results: ClusterResults) -> bool:
    """Write the run to the benchmark database, once for each machine: measurements belong to one."""
    if not path or not results.cells:
        return True
    from pytest_hfaccel.history import BenchmarkDatabase
    from pytest_hfaccel.history.recording import make_record

    try:
        for machine, cells in results.by_machine():
            header = {**results.finished_header, "machine": machine}
            BenchmarkDatabase(Path(path)).write_run(make_record(header, test_name="pytest", cells=cells))
    except HfAccelError as error:
        print(f"hfaccel run: not written: {error}", file=sys.stderr)
        return False
    return True


def _describe(results: ClusterResults, cluster: Cluster) -> None:
    """Print what a run of pytest prints at its end."""
    from pytest_hfaccel.reporting import last_lines, model_device_table
    from pytest_hfaccel.reporting.costs import cost_text

    cells = list(results.cells.values())
    if cells:
        print(model_device_table(cells))
        for line in last_lines(cells):
            print(line)
        if costs := cost_text(cells, results.header):
            print(costs)
    for cell in cells:
        if cell.status.is_bad:
            print(f"{str(cell.status).upper()} {cell.cell}: {(cell.reason or '').strip()}")
    unavailable = sorted({cell.device for cell in cells if cell.status == "unavailable"})
    if unavailable:
        print(f"unavailable: {', '.join(unavailable)}. The nodes have: {cluster.describe()}", file=sys.stderr)
    for note in results.notes:
        print(f"hfaccel run: {note}", file=sys.stderr)
    written = results.reports.written
    if written is not None and written.summary is not None:
        run = written.summary.parent
        files = "index.html, summary.json, by_class/, by_hardware/, journal.jsonl"
        print(f"reports: {run.parent.parent} ({files} of run {run.name})")
    if written is not None and written.lost:
        print("results that are in no file: a journal\n" + "".join(written.lost))
