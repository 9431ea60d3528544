"""A device of a third party is found and used like one of ours."""

from __future__ import annotations

from tests.harness import Project, environment, run_python

_BACKEND = """
from pytest_hfaccel.backends.fake.backend import FakeBackend
from pytest_hfaccel.core.devices import Traits
from pytest_hfaccel.core.presence import Presence
from pytest_hfaccel.core.spec import Device


class ToasterBackend(FakeBackend):
    name = "toaster"
    traits = Traits(exported=False, needs_checkpoint=False, accelerator=True)

    def probe(self):
        return [
            Presence(Device("toaster", "left"), True, "plugged in", "Toaster 2000"),
            Presence(Device("toaster", "right"), False, "its lever is stuck"),
        ]

    def confirm(self, device, dtype="fp32"):
        return {"name": "Toaster 2000", "slots": 2}
"""

_HOOK = """
from toaster import ToasterBackend

def pytest_hfaccel_backends(backends):
    backends.register("toaster", ToasterBackend())
"""


def test_the_best_device_of_a_plain_run(project: Project) -> None:
    project.write("toaster.py", _BACKEND)
    project.write("conftest.py", _HOOK)
    run = project.run("-k", "placement")
    assert run.code == 0, run.output
    assert [record.device for record in run.records.values()] == ["toaster:left"]


def test_an_absent_one_is_required(project: Project) -> None:
    project.write("toaster.py", _BACKEND)
    project.write("conftest.py", _HOOK)
    run = project.run("--hf-require-device", "toaster:right", "-k", "placement")
    assert run.code == 4, run.output
    assert "its lever is stuck" in run.output


def test_hfaccel_hardware_lists_an_entry_point(project: Project) -> None:
    project.write("toaster.py", _BACKEND)
    project.write("toaster-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: toaster\nVersion: 1.0\n")
    project.write(
        "toaster-1.0.dist-info/entry_points.txt", "[pytest_hfaccel.backends]\ntoaster = toaster:ToasterBackend\n"
    )
    env = environment(project.cache, PYTHONPATH=str(project.directory))
    run = run_python(["-m", "pytest_hfaccel", "hardware"], project.directory, env)
    assert run.returncode == 0, run.stderr
    lines = [line.split() for line in run.stdout.splitlines()]
    assert ["toaster:left", "confirmed"] in [words[:2] for words in lines]
    assert ["toaster:right", "absent"] in [words[:2] for words in lines]
    assert "A plain run tests on toaster:left." in run.stdout


def test_a_backend_that_cannot_be_imported_is_absent(project: Project) -> None:
    project.write(
        "conftest.py", 'def pytest_hfaccel_backends(backends):\n    backends.register("toaster", "no:Such")\n'
    )
    run = project.run("--hf-device", "toaster", "-k", "placement")
    assert run.code == 0, run.output
    assert run.counts["skipped"] == 1


def test_one_that_runs_default_models_only_runs_all_where_it_is_named(project: Project) -> None:
    project.write("toaster.py", _BACKEND.replace("accelerator=True", "default_model_only=True"))
    project.write("conftest.py", _HOOK)

    def models_on_it(*where: str) -> set[str]:
        output = project.run("--collect-only", "-q", "--all-models", *where).output
        ids = [line.partition("[")[2] for line in output.splitlines() if "test_placement[" in line]
        return {name.partition("-toasterleft")[0] for name in ids if "-toasterleft" in name}

    assert models_on_it("--all-hardware") == {"bert-base-uncased"}
    assert models_on_it("--all-hardware", "--hf-device", "toaster:left") == {"bert-base-uncased"}
    assert {"bert-base-uncased", "distilbert-base-uncased"} < models_on_it("--hf-device", "toaster:left")
