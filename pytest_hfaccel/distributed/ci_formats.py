"""A plan as a CI system takes it: GitHub's matrix, a pipeline of Buildkite, a job array of Slurm."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from typing import Any

from pytest_hfaccel.core.errors import ConfigError
from pytest_hfaccel.distributed.plan import ShardPlan, format_seconds

GITHUB_JOBS = 256
"""How many jobs GitHub makes of one matrix at most."""

SHARDS = "shards"
"""The directory that the shards' reports are collected in."""


def github_matrix(plan: ShardPlan, file: str) -> str:  # noqa: ARG001 - the workflow names the file
    """Return a line for `$GITHUB_OUTPUT`: `matrix={"include": [{"shard": "1/8", ...}, ...]}`.

    Raises:
        ConfigError: More jobs than GitHub allows.
    """
    count = len(plan.shards)
    if count > GITHUB_JOBS:
        raise ConfigError(
            f"{count} shards, and a matrix of GitHub has at most {GITHUB_JOBS} jobs.",
            hint=f"Use --shards {GITHUB_JOBS} or fewer, a larger --minutes, or two plans, each for a part of the "
            "selection (by --hf-device, say), in two workflows.",
        )
    return f"matrix={json.dumps({'include': [_entry(plan, index) for index in range(count)]})}\n"


def _entry(plan: ShardPlan, index: int) -> dict[str, Any]:
    cells = plan.shards[index]
    return {
        "shard": f"{index + 1}/{len(plan.shards)}",
        "number": index + 1,
        "cells": len(cells),
        "models": len({cell.model for cell in cells}),
        "planned": format_seconds(plan.seconds[index]),
    }


def buildkite_pipeline(plan: ShardPlan, file: str) -> str:
    """Return the steps for `buildkite-agent pipeline upload`: the shards side by side, then one that merges them."""
    steps: list[Any] = [
        {
            "label": f"shard {entry['shard']} ({entry['planned']})",
            "key": f"hfaccel-{entry['number']}",
            # Buildkite replaces variables when the pipeline is uploaded, unless the dollar is doubled.
            "command": [
                f"buildkite-agent artifact download {shlex.quote(file)} .",
                shard_command(file, entry["shard"], f"{SHARDS}/{entry['number']}"),
            ],
            "artifact_paths": f"{SHARDS}/{entry['number']}/runs/**/*",
        }
        for entry in (_entry(plan, index) for index in range(len(plan.shards)))
    ]
    merge = [
        f"buildkite-agent artifact download {shlex.quote(file)} .",
        f"buildkite-agent artifact download '{SHARDS}/*' .",
        merge_command(file),
    ]
    steps += [
        {"wait": None, "continue_on_failure": True},
        {"label": "merge", "command": merge, "artifact_paths": "reports/runs/**/*"},
    ]
    return json.dumps({"steps": steps}, indent=2) + "\n"


def slurm_script(plan: ShardPlan, file: str) -> str:
    """Return a script for `sbatch`: a job array with a task for each shard."""
    count = len(plan.shards)
    task = "${SLURM_ARRAY_TASK_ID}"
    return f"""#!/bin/bash
#SBATCH --job-name=hfaccel
#SBATCH --array=1-{count}
#SBATCH --output=hfaccel-%A_%a.log
# The longest shard is expected to take {format_seconds(max(plan.seconds))}, without what comes before its tests.
# Resources, limits and the partition are options of sbatch. Submit this, and then what joins the results:
#   job=$(sbatch --parsable shards.sbatch)
#   sbatch --dependency=afterany:$job --wrap {shlex.quote(merge_command(file))}
set -euo pipefail
{shard_command(file, f"{task}/{count}", f"{SHARDS}/{task}")}
"""


def shard_command(file: str, shard: str, reports: str) -> str:
    """Return the command that runs a shard; its results go to a directory of their own."""
    return f"python -m pytest --hf-plan {shlex.quote(file)} --hf-shard {shard} --hf-reports {reports}"


def merge_command(file: str) -> str:
    """Return the command that joins the results of all shards."""
    return f"hfaccel merge {SHARDS} --plan {shlex.quote(file)}"


FORMATS: dict[str, Callable[[ShardPlan, str], str]] = {
    "github": github_matrix,
    "buildkite": buildkite_pipeline,
    "slurm": slurm_script,
}
