"""Workers of one run on one machine: each has a chip of its own, and measures as a serial run does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pytest_hfaccel.reporting.journal import read_journal
from tests.harness import HfRun, Project

pytestmark = pytest.mark.slow

_CHIP = Path(__file__).parents[1] / "data" / "torch_toychip.py"
_REGISTRY = """
version: 1
devices:
  toy:
    module: toychip
    package: torch_toychip
    dtypes: [fp32]
    visible_devices: [TOYCHIP_VISIBLE_DEVICES]
"""
_MODULE = """
import json
import os
from pathlib import Path

from pytest_hfaccel import ModelClassTests


class TestModels(ModelClassTests):
    architectures = ("*",)

    def test_own(self, hf_cell):
        seen = os.environ.get("TOYCHIP_VISIBLE_DEVICES")
        Path(f"seen-{hf_cell.model.slug}").write_text(json.dumps([os.environ["PYTEST_XDIST_WORKER"], seen]))
"""
_MODELS = ("--hf-model", "bert-base-uncased", "--hf-model", "distilbert-base-uncased", "--hf-weights", "tiny")


def test_each_worker_has_one_of_the_chips_and_records_which(project: Project) -> None:
    project.write("torch_toychip.py", _CHIP.read_text(encoding="utf-8"))
    project.write("chips.yaml", _REGISTRY)
    project.write("test_hf_bert.py", _MODULE)
    env: dict[str, Any] = {"TOYCHIP_VISIBLE_DEVICES": "5,7"}
    asked = ("-n", "2", "--hf-registry", "chips.yaml", *_MODELS, "--hf-dtype", "fp32", "-k", "own or placement")
    run = project.run(*asked, "--hf-device", "toy", **env)
    assert run.code == 0, run.output
    seen = dict(json.loads(path.read_text(encoding="utf-8")) for path in project.directory.glob("seen-*"))
    assert seen == {"gw0": "5", "gw1": "7"}
    recorded = {cell: result.placement["physical_device"] for cell, result in run.results.items()}
    assert set(recorded) == {"bert-base-uncased-toy0-fp32", "distilbert-base-uncased-toy0-fp32"}
    assert set(recorded.values()) == {"toy:5", "toy:7"}

    run = project.run(*asked, "--hf-device", "toy:0", **env)  # that one, and no other
    assert run.code == 0, run.output
    seen = dict(json.loads(path.read_text(encoding="utf-8")) for path in project.directory.glob("seen-*"))
    assert set(seen.values()) == {"5,7"}


def _threads(run: HfRun) -> dict[str, int]:
    return {
        cell: check.measures["measurements"][0]["threads"]
        for cell, result in run.results.items()
        for check in result.checks
        if check.name == "performance"
    }


def test_a_worker_measures_with_the_threads_of_a_serial_run_and_records_what_cells_take(
    project: Project,
) -> None:
    project.write("test_hf_bert.py", _MODULE.partition("    def test_own")[0])
    asked = ("--hf-performance", *_MODELS, "--hf-device", "cpu", "--hf-database", "none")
    serial = project.run(*asked, "-k", "performance", OMP_NUM_THREADS="")
    assert serial.code == 0, serial.output
    parallel = project.run("-n", "2", *asked, OMP_NUM_THREADS="")
    assert parallel.code == 0, parallel.output
    assert len(_threads(parallel)) == 2
    assert _threads(parallel) == _threads(serial)
    waits = [process["ledger"]["waits"] for process in parallel.summary["run"]["pool"]]
    assert len(waits) == 2
    # A cell that had all its checks, and computed its reference itself, says what it needs.
    peaks = {cell: result.placement.get("peak_bytes", {}) for cell, result in parallel.results.items()}
    assert any(peak.get("host", 0) > 0 for peak in peaks.values()), peaks
    (*_, journal) = sorted((parallel.reports / "runs").glob("*/journal.jsonl"))
    assert {result.cell for result in read_journal(journal).results} >= set(_threads(parallel))
