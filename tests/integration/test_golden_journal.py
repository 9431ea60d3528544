"""The journal of runs that end in every status, compared with a stored one: what a rearrangement must not change.

`HFACCEL_GOLDEN=write pytest tests/integration/test_golden_journal.py` stores it anew.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from pytest_hfaccel.core.results import Status
from tests.harness import HfRun, Project

GOLDEN = Path(__file__).parents[1] / "data" / "golden_journal.json"

CONFTEST = """
import os
import time

from pytest_hfaccel.checks.base import failed, passed, skipped
from pytest_hfaccel.core import errors
from pytest_hfaccel.core.results import Stage


def pytest_hfaccel_checks(checks):
    @checks.check("holds")
    def holds(context):
        return passed(number=1)

    @checks.check("breaks")
    def breaks(context):
        return failed("it breaks", number=2)

    @checks.check("declines")
    def declines(context):
        return skipped("nothing to do")

    @checks.check("unexpected_pass")
    def unexpected_pass(context):
        return passed()

    @checks.check("expected_failure", stage="run")
    def expected_failure(context):
        return failed("as expected", stage=Stage.RUN)

    @checks.check("not_even_run")
    def not_even_run(context):
        raise AssertionError

    def raising(name, error):
        @checks.check(name)
        def check(context):
            raise error

    raising("raises", ValueError("a value"))
    raising("exhausts", errors.OutOfMemory("no memory left"))
    raising("lacks", errors.PackageMissing("needs the package nothing"))
    raising("asks", errors.GatedError("needs a licence"))
    raising("calls", errors.HubError("the hub is away"))

    @checks.check("hangs")
    def hangs(context):
        if os.environ.get("HANG"):
            time.sleep(60)
        if os.environ.get("INTERRUPT"):
            raise KeyboardInterrupt
        return passed()

    @checks.check("dies")
    def dies(context):
        if os.environ.get("DIE"):
            os._exit(3)
        return passed()
"""

MODULE = """
import pytest
from pytest_hfaccel import ModelClassTests


class TestBert(ModelClassTests):
    architectures = ("Bert*",)
    default_model = "bert-base-uncased"

    def test_own(self, hf_cell):
        assert hf_cell.device.kind == "fake"

    def test_own_wrong(self, hf_model):
        assert hf_model.placement.actual_devices == ("nowhere",)

    @pytest.mark.skip(reason="not today")
    def test_own_skipped(self, hf_cell):
        pass

    @pytest.mark.xfail(reason="known", strict=True)
    def test_own_xfail(self, hf_cell):
        raise AssertionError
"""

REGISTRY = """
version: 1
models:
  bert-base-uncased:
    architecture: BertForMaskedLM
    task: fill-mask
    expect:
      - {device: "fake:0", dtype: fp32, stage: run, check: expected_failure, reason: "told so", cause: runtime}
      - {device: "fake:0", dtype: fp32, stage: run, check: unexpected_pass, reason: "told wrongly"}
      - {device: "fake:0", dtype: fp32, stage: run, check: not_even_run, reason: "would hang", run: false}
"""

_MASKED = frozenset({"decided_by", "seconds", "timings", "crc", "started", "finished", "weights_reason", "process"})


@pytest.fixture
def sample(project: Project) -> Project:
    project.write("conftest.py", CONFTEST)
    project.write("test_hf_bert.py", MODULE)
    project.write("registry.yaml", REGISTRY)
    return project


def masked(value: Any) -> Any:
    """What does not depend on the clock, the versions, or the machine."""
    if isinstance(value, Mapping):
        return {key: "*" if key in _MASKED and item not in ({}, "") else masked(item) for key, item in value.items()}
    if isinstance(value, list):
        return [masked(item) for item in value]
    if isinstance(value, str):
        if re.search(r'\n  File "|^self = ', value):  # a traceback: its first line, the rest names modules of ours
            value = value.partition("\n")[0]
        value = re.sub(r"0x[0-9a-f]{6,}", "0x*", value)
        value = re.sub(r"\d{4}-\d{8}T\d{6}Z-\w{4}", "RUN", value)
        value = re.sub(r"line \d+|:\d+\]", "line *", value)
        return re.sub(r"(?:/[^\s:'\"/]+)+/(?=[^\s:'\"/]+)|~/[^\s:'\"]*/", ".../", value)
    return value


def contents(run: HfRun) -> dict[str, Any]:
    """The journal but its header, and of the summary what does not depend on the machine."""
    assert (run.reports / "journal.jsonl").exists(), run.output
    lines = [json.loads(line) for line in (run.reports / "journal.jsonl").read_text(encoding="utf-8").splitlines()]
    assert lines[0]["type"] == "run"
    assert lines[0]["options"]["devices"]
    keys = ("passed", "ended", "counts", "failures", "expected_failures", "unavailable", "skipped_checks")
    return {
        "exit_code": run.code,
        "counts": run.counts,
        "header_keys": sorted(lines[0]),
        "run_keys": sorted(lines[0]["run"]),
        "journal": masked(lines[1:]),
        "summary": masked({key: run.summary[key] for key in keys}),
        "files": sorted(path.relative_to(run.reports / "latest").as_posix() for path in run.reports.glob("latest/*/*")),
    }


CHECKS = (
    "holds or breaks or declines or unexpected_pass or expected_failure or not_even_run or raises or exhausts or lacks "
    "or asks or calls or hangs or dies"
)


@pytest.mark.slow
def test_runs_of_every_status_are_recorded_as_before(sample: Project) -> None:
    options = ("--hf-registry", "registry.yaml", "--hf-weights", "tiny", "--hf-device")
    script = json.dumps({"*": {"load_seconds": 0}})
    everything = sample.run(*options, "fake:0,fake:1", "-k", f"{CHECKS} or own or placement", HFACCEL_FAKE=script)
    found = {"all": contents(everything)}
    found["stopped"] = contents(sample.run(*options, "fake:1", "-k", CHECKS, "-x", HFACCEL_FAKE=script))
    interrupted = sample.run(*options, "fake:1", "-k", "holds or hangs", INTERRUPT="1", HFACCEL_FAKE=script)
    found["interrupted"] = contents(interrupted)
    hanging = sample.run(*options, "fake:1", "-k", "hangs", "--timeout", "1", HANG="1", HFACCEL_FAKE=script)
    found["timeout"] = contents(hanging)
    died = sample.run(*options, "fake:1", "-k", "dies", "-n", "1", DIE="1", HFACCEL_FAKE=script)
    found["died"] = contents(died)
    resumed = sample.run(*options, "fake:1", "-k", "dies or holds", "--hf-resume", HFACCEL_FAKE=script)
    found["resumed"] = contents(resumed)
    failing = json.dumps({"*": {"fail_stage": "convert"}})
    found["not loaded"] = contents(
        sample.run(*options, "fake:1", "-k", "placement or forward or own", HFACCEL_FAKE=failing)
    )
    statuses = {
        check["status"]
        for run in found.values()
        for line in run["journal"]
        if line["type"] == "cell"
        for check in [*line["result"]["checks"], line["result"]]
    }
    # Infrastructure errors: tests/faults/test_the_machine_is_sick.py.
    assert statuses == set(map(str, Status)) - {Status.INFRA_ERROR}
    text = json.dumps(found, indent=1, ensure_ascii=False, sort_keys=True) + "\n"
    if os.environ.get("HFACCEL_GOLDEN") == "write":
        GOLDEN.write_text(text, encoding="utf-8")
    assert json.loads(text) == json.loads(GOLDEN.read_text(encoding="utf-8"))
