"""The examples of `docs/devices.md` work, and its tables name what there is."""

from __future__ import annotations

import re
import subprocess
from dataclasses import fields
from pathlib import Path

import pytest

from pytest_hfaccel.core.devices import TorchDevice, kind_named, unregister_kind
from pytest_hfaccel.registry.devices import register_devices
from tests.harness import environment, run_python

TEXT = (Path(__file__).parents[2] / "docs" / "devices.md").read_text(encoding="utf-8")


def test_the_description_is_valid(tmp_path: Path) -> None:
    (example,) = re.findall(r"^```yaml\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
    file = tmp_path / "chips.yaml"
    file.write_text(example, encoding="utf-8")
    register_devices([file])
    try:
        described = kind_named("npu").torch
    finally:
        unregister_kind("npu")
    assert described is not None
    assert described.package == "torch_npu"


def test_every_key_of_a_description_is_documented() -> None:
    section = TEXT.partition("| key |")[2].partition("\n\n")[0]
    assert {field.name for field in fields(TorchDevice)} == set(re.findall(r"`(\w+)`", "".join(firsts(section))))


def firsts(table: str) -> list[str]:
    return [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]


def python_blocks() -> list[str]:
    return re.findall(r"^```python\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)


def run_conformance(folder: Path, backends: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    for name, backend in backends.items():
        (folder / f"{name}.py").write_text(backend, encoding="utf-8")
        test = python_blocks()[1].replace("from sofa import", f"from {name} import")
        (folder / f"test_{name}.py").write_text(test, encoding="utf-8")
    return run_python(["-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments], folder, environment(folder))


@pytest.mark.slow
def test_the_example_of_a_backend_conforms(tmp_path: Path) -> None:
    backend = python_blocks()[0]
    assert len(backend.splitlines()) < 100
    run = run_conformance(tmp_path, {"sofa": backend})
    assert run.returncode == 0, run.stdout
    assert re.search(r"2\d passed, 2 skipped", run.stdout), run.stdout


WRONG = {
    "bf16 that is fp32": (
        {"torch_model(cell.dtype)": 'torch_model("fp32")', "actual = {": "actual = self.cell.dtype or {"},
        "it says bf16, which costs 2e-04 at least",
    ),
    "fp32 that is bf16": ({"self.model(**moved)": "self.model.bfloat16()(**moved)"}, "explains 1e-04"),
    "another device": ({'("sofa:0",)': '("cpu",)'}, "it runs on cpu"),
    "an absent device": ({'device.target != "0"': "False"}, "DID NOT RAISE"),
    "no wrong weight": ({"weight[change.index] += change.delta": "pass"}, "moved the outputs by 0.0e+00 only"),
    "no right weight": ({"weight[change.index] = original": "pass"}, "it was not restored"),
    "any weight": ({"if change.parameter not in weights": "if False"}, "no_such_weight"),
    "memory": ({"occupied_in_process(nbytes)": "occupied_in_process(4096)"}, "does not show in `memory`"),
    "close": ({"self.model = None": "pass"}, "DID NOT RAISE"),
}


@pytest.mark.slow
def test_backends_that_are_wrong_fail(tmp_path: Path) -> None:
    backends = {}
    for name, (changes, _) in WRONG.items():
        backend = python_blocks()[0]
        for right, wrong in changes.items():
            assert backend.count(right) == 1
            backend = backend.replace(right, wrong)
        backends[name.replace(" ", "_")] = backend
    run = run_conformance(tmp_path, backends, "-k", "not process and not generation")
    failed = set(re.findall(r"^FAILED test_(\w+)\.py", run.stdout, re.MULTILINE))
    assert failed == set(backends), run.stdout
    for _, message in WRONG.values():
        assert message in run.stdout, run.stdout
