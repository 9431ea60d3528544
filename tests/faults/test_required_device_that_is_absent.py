"""`--hf-require-device`: a device that is absent, or does not answer, fails the run; else it is reported."""

from __future__ import annotations

import os
from typing import Any

from tests.harness import Project

_TOASTER = """
from pytest_hfaccel.core.errors import BackendUnavailable


class ToasterBackend:
    name = "toaster"

    def load(self, cell, source=None):
        raise BackendUnavailable(f"{cell.device}: no answer after 5 s", stage="load")


def pytest_hfaccel_backends(backends):
    backends.register("toaster", ToasterBackend())
"""


def test_a_device_that_is_not_here(project: Project) -> None:
    # OpenVINO is there without a single device plugin: the probes see that before anything is loaded.
    project.write("broken/openvino/__init__.py", "raise ImportError('libopenvino.so is missing')\n")
    path = os.pathsep.join([str(project.directory / "broken"), os.environ.get("PYTHONPATH", "")])
    without: dict[str, Any] = {"PYTHONPATH": path, "new_process": True}
    run = project.run("--hf-device", "openvino:CPU", "-k", "placement", **without)
    assert run.code == 0, run.output
    (record,) = run.records.values()
    assert record.status == "unavailable"
    required = project.run(
        "--hf-device", "openvino:CPU", "--hf-require-device", "openvino", "-k", "placement", **without
    )
    assert required.code == 4, required.output
    assert "--hf-require-device openvino: it is not on this machine" in required.output
    assert "has no CPU plugin" in required.output


def test_a_device_that_does_not_answer(project: Project) -> None:
    project.write("conftest.py", _TOASTER)
    run = project.run("--hf-device", "toaster", "-k", "placement")
    assert run.code == 0, run.output
    assert run.counts["skipped"] == 1
    (record,) = run.records.values()
    assert (record.status, record.implementation) == ("unavailable", "unavailable")
    required = project.run("--hf-device", "toaster", "--hf-require-device", "toaster", "-k", "placement")
    assert required.code == 1, required.output
    assert required.counts["failed"] == 1
    assert "required device: unavailable at stage load: toaster: no answer after 5 s" in required.output
    (record,) = required.records.values()
    assert record.status == "unavailable"  # the record says what is; that it was required is the run's matter
