"""Consumers of a run's events, added by a hook."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

from tests.harness import Project

GUIDE = Path(__file__).parents[2] / "docs" / "guide.md"
PLACEMENT = ("--hf-device", "fake:0", "-k", "placement")


def example() -> str:
    """The example of the guide."""
    blocks = re.findall(r"```python\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)
    (found,) = [block for block in blocks if "pytest_hfaccel_reporters" in block]
    return str(found)


def test_the_example_of_the_guide(project: Project) -> None:
    project.write("conftest.py", example())
    for workers in ((), ("-n", "2")):
        run = project.run(*PLACEMENT, "-s", *workers)
        assert run.code == 0, run.output
        assert "on fake:0" in run.output
        assert "bert-base-uncased-fake0-fp32 placement passed" in run.output
        assert re.search(r"1 cells finished: .*/runs/\d{4}-[^/]*/summary\.json", run.output)


def test_the_events_of_a_run_in_order(project: Project) -> None:
    project.write(
        "conftest.py",
        """
def pytest_hfaccel_reporters(reporters):
    reporters.append(lambda event: print("EVENT", type(event).__name__))


def pytest_hfaccel_run_finished(run, directory):
    print("EVENT end", (directory / "summary.json").exists())
""",
    )
    run = project.run(*PLACEMENT, "-s")
    events = re.findall(r"EVENT (.*)", run.output)
    expected = ["RunStarted", "CellStarted", "CheckStarted", "CheckFinished", "CellFinished", "RunFinished", "end True"]
    assert events == expected


def test_a_reporter_that_fails_does_not_end_the_run(project: Project) -> None:
    project.write(
        "conftest.py",
        """
from pytest_hfaccel.core.events import CheckFinished


def pytest_hfaccel_reporters(reporters):
    def mine(event):
        if isinstance(event, CheckFinished):
            raise OSError("no connection")

    reporters.append(mine)
""",
    )
    run = project.run(*PLACEMENT)
    assert run.code == 3, run.output
    assert run.results["bert-base-uncased-fake0-fp32"].status == "passed"
    assert "mine failed at CheckFinished: OSError: no connection" in run.output


def test_junit_says_how_large_an_error_is_and_how_small_a_fault_may_be(project: Project) -> None:
    asked = ("--hf-device", "cpu", "-k", "placement or parity or canary", "--junitxml", "junit.xml")
    run = project.run(*asked, "--hf-budget", "report", "--hf-samples", "2", "--hf-power")
    assert run.code == 0, run.output
    cases = ElementTree.parse(project.directory / "junit.xml").getroot().iter("testcase")  # noqa: S314 - pytest wrote it
    told = {
        str(case.get("name")).partition("[")[0].removeprefix("test_"): {
            str(one.get("name")): str(one.get("value"))
            for one in case.iter("property")
            if one.get("name") not in ("hfaccel", "weights")
        }
        for case in cases
    }
    (result,) = run.results.values()
    measures = {check.name: check.measures for check in result.checks}
    ratio = max(measures["parity"]["samples"]["ratios"].values())
    assert told["parity"] == {"error_in_budgets": str(ratio)}
    assert told["canary"] == {"smallest_noticed_fault": str(measures["canary"]["power"]["rel_l2"])}
    assert told["placement"] == {}
