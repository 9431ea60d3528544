"""`hfaccel cloud-template`: a SkyPilot task file that runs `hfaccel run --engine ray` on rented machines."""

from __future__ import annotations

import argparse
import re
import shlex
from pathlib import Path
from typing import Any

import yaml

from pytest_hfaccel import __version__
from pytest_hfaccel.cli import write_file
from pytest_hfaccel.core.errors import ConfigError

CLOUDS = ("aws", "gcp", "azure", "kubernetes")
_BUCKETS = ("s3://", "gs://", "https://")
_MOUNT = "/hfaccel-reports"
_PORT = 6379

_HEADER = """\
# Written by `hfaccel cloud-template`; to be read before it is run, as it rents machines.
#
#   sky launch -c {name} {file} --secret RAY_AUTH_TOKEN="$(openssl rand -hex 32)"
#   {fetch}
#   sky down {name}
#
# The pytest arguments are in the last part of `run`. The exit code of the job is that of `hfaccel run`.
"""

_SETUP = """\
set -e
[ -d ~/hfaccel-venv ] || python3 -m venv ~/hfaccel-venv
~/hfaccel-venv/bin/pip install {package}
"""

# SkyPilot has a Ray of its own on each machine, on another port: `ray stop` and `--address auto` would meet it.
_RUN = """\
set -u
export PATH="$HOME/hfaccel-venv/bin:$PATH" RAY_AUTH_MODE=token
head=$(echo "$SKYPILOT_NODE_IPS" | head -n 1)
if [ "$SKYPILOT_NODE_RANK" != 0 ]; then
  for attempt in $(seq 60); do
    python -c "import socket; socket.create_connection(('$head', {port}), 5)" 2>/dev/null && break
    sleep 5
  done
  ray start --address "$head:{port}" --disable-usage-stats --block || true  # it ends with the head
  exit 0
fi
ray start --head --node-ip-address "$head" --port {port} --disable-usage-stats --include-dashboard false --block &
ray_process=$!
{save}trap 'kill $ray_process 2>/dev/null' EXIT
python - "$head:{port}" "$SKYPILOT_NUM_NODES" <<'WAIT'
import sys, time
import ray

address, number = sys.argv[1], int(sys.argv[2])
for _ in range(150):
    try:
        ray.init(address=address, log_to_driver=False, logging_level="ERROR")
        break
    except Exception:
        time.sleep(2)
until = time.monotonic() + 300
while len([node for node in ray.nodes() if node["Alive"]]) < number and time.monotonic() < until:
    time.sleep(2)
print(len(ray.nodes()), "of", number, "nodes are there")
WAIT
hfaccel run --engine ray --address "$head:{port}" -- {arguments}
code=$?
{saved}exit $code
"""

_SAVE = """\
save() {{ mkdir -p {mount}/{name}-"$SKYPILOT_TASK_ID" && cp -rL reports/latest/. {mount}/{name}-"$SKYPILOT_TASK_ID"/; }}
(while sleep 60; do save 2>/dev/null; done) &
saving=$!
"""


def add_parser(commands: Any) -> None:
    """Add `cloud-template` to the parsers of `hfaccel`."""
    parser = commands.add_parser(
        "cloud-template",
        help="write a SkyPilot task file for a run on rented machines",
        usage="hfaccel cloud-template [options] -- [ARGUMENTS OF PYTEST]",
        description="Write a task file for SkyPilot, which rents the machines, starts a Ray cluster on them, runs "
        "`hfaccel run --engine ray` with the arguments after `--`, and leaves the reports where you can fetch them.",
    )
    text = "where to rent; by default SkyPilot chooses the cheapest of the clouds you have set up"
    parser.add_argument("--cloud", choices=CLOUDS, help=text)
    parser.add_argument("--region", default="", help="region, or context of Kubernetes; needs --cloud")
    text = "accelerator of each node, as `sky show-gpus` names it, and how many: A100:1, L4:2 (default: none)"
    parser.add_argument("--accelerator", default="", metavar="NAME[:N]", help=text)
    parser.add_argument("--nodes", type=int, default=1, metavar="N", help="how many nodes (default: %(default)s)")
    parser.add_argument("--cpus", default="", metavar="N", help="CPUs of each node: 8, or 8+ for at least 8")
    parser.add_argument("--memory", default="", metavar="GB", help="memory of each node in GB: 32, or 32+")
    parser.add_argument("--disk", type=int, default=256, metavar="GB", help="disk of each node (default: %(default)s)")
    text = "rent spot machines; the run survives the loss of any node but the head"
    parser.add_argument("--spot", action="store_true", help=text)
    text = "bucket that the reports are copied to, each minute and in the end: s3://NAME, gs://NAME, or https:// of "
    text += "Azure; by default they stay on the head node, and the file says how to fetch them"
    parser.add_argument("--bucket", default="", metavar="URL", help=text)
    parser.add_argument("--name", default="hfaccel", help="name of the task and its cluster (default: %(default)s)")
    text = "what pip installs on each node; repeatable (default: this version with the extras models, parallel and ray)"
    parser.add_argument("--package", action="append", metavar="SPEC", help=text)
    text = "the task file (default: %(default)s)"
    parser.add_argument("--output", type=Path, default=Path("hfaccel-task.yaml"), metavar="FILE", help=text)
    parser.add_argument("arguments", nargs="*", metavar="ARGUMENTS", help="arguments of pytest, after `--`")
    parser.set_defaults(run=_write)


class _Dumper(yaml.SafeDumper):
    """Writes texts of several lines as blocks."""


def _block(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _block)


def _write(arguments: argparse.Namespace) -> int:
    write_file(arguments.output, task_file(arguments), "--output")
    print(f"{arguments.output}: read it, then: sky launch -c {arguments.name} {arguments.output} (its head says more)")
    return 0


def task_file(arguments: argparse.Namespace) -> str:
    """Return the text of a task file.

    Raises:
        ConfigError: An option has a value that cannot be.
    """
    _require(arguments)
    resources: dict[str, Any] = {"disk_size": arguments.disk}
    if arguments.cloud:
        resources["infra"] = "/".join(filter(None, (arguments.cloud, arguments.region)))
    for key, value in (
        ("accelerators", arguments.accelerator),
        ("cpus", arguments.cpus),
        ("memory", arguments.memory),
        ("use_spot", arguments.spot),
    ):
        if value:
            resources[key] = value
    default = f"pytest-hfaccel[models,parallel,ray]=={__version__}"
    save = _SAVE.format(mount=_MOUNT, name=arguments.name) if arguments.bucket else ""
    run = _RUN.format(
        port=_PORT,
        arguments=shlex.join(arguments.arguments),
        save=save,
        saved='kill "$saving"\nsave\n' if arguments.bucket else "",
    )
    task: dict[str, Any] = {
        "name": arguments.name,
        "num_nodes": arguments.nodes,
        "resources": resources,
        "workdir": ".",
        "secrets": {"RAY_AUTH_TOKEN": None},
        "setup": _SETUP.format(package=shlex.join(arguments.package or [default])),
        "run": run,
    }
    if arguments.bucket:
        task["file_mounts"] = {_MOUNT: {"source": arguments.bucket, "mode": "MOUNT"}}
    fetch = f"rsync -Pavz {arguments.name}:sky_workdir/reports/ reports/"
    if arguments.bucket:
        fetch = f"(the reports are in {arguments.bucket}, also while it runs)"
    header = _HEADER.format(name=arguments.name, file=arguments.output, fetch=fetch)
    return f"{header}\n{yaml.dump(task, Dumper=_Dumper, sort_keys=False, width=1000)}"


def _require(arguments: argparse.Namespace) -> None:
    problems = []
    if not arguments.arguments:
        problems.append("no arguments of pytest: hfaccel cloud-template --accelerator L4 -- model_classes --all-models")
    if arguments.region and not arguments.cloud:
        problems.append(f"--region {arguments.region} needs --cloud, one of {', '.join(CLOUDS)}")
    if arguments.nodes < 1:
        problems.append(f"--nodes {arguments.nodes}: at least 1")
    if arguments.accelerator and not re.fullmatch(r"[\w.-]+(:\d+(\.\d+)?)?", arguments.accelerator):
        problems.append(f"--accelerator {arguments.accelerator}: a name, and perhaps a number, as in A100:1")
    for option in ("cpus", "memory"):
        value = getattr(arguments, option)
        if value and not re.fullmatch(r"\d+(\.\d+)?\+?", value):
            problems.append(f"--{option} {value}: a number, or one with a + for at least that many")
    if arguments.bucket and not arguments.bucket.startswith(_BUCKETS):
        problems.append(f"--bucket {arguments.bucket}: it begins with {', '.join(_BUCKETS)}")
    if not re.fullmatch(r"[a-z]([a-z0-9-]*[a-z0-9])?", arguments.name):
        problems.append(f"--name {arguments.name}: lower-case letters, digits and hyphens, a letter first")
    if problems:
        raise ConfigError("; ".join(problems) + ".")
