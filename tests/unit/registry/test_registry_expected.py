"""Expected failures of classes that are not registered one by one."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_hfaccel.core.errors import RegistryError
from pytest_hfaccel.core.results import Cause
from pytest_hfaccel.registry import load_registry
from pytest_hfaccel.registry.auto_classes import every_pair, main_pairs, match_pairs, other_pairs
from pytest_hfaccel.registry.loading import EXPECTED

TEXT = """version: 1
classes:
  OPTModel:
    expect:
      - {device: cuda, stage: run, reason: of the class}
expect:
  - pairs: [opt/OPTModel, "albert/*"]
    device: "openvino:*"
    stage: convert
    cause: exporter
    reason: loops over values
"""


def test_a_pair_gets_what_is_said_of_it_and_of_its_class(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(TEXT, encoding="utf-8")
    registry = load_registry([file])
    (spec,) = registry.informed(match_pairs("opt/OPTModel"))
    assert [found.reason for found in spec.expect[-2:]] == ["of the class", "loops over values"]
    assert (spec.expect[-1].cause, spec.expect[-1].source) == ("exporter", f"{file}:7")
    assert all("loops over values" in {e.reason for e in s.expect} for s in registry.informed(match_pairs("albert/*")))
    other = match_pairs("opt/OPTForCausalLM")
    assert "loops over values" not in {e.reason for s in registry.informed(other) for e in s.expect}


def test_checks_and_devices_may_be_several(tmp_path: Path) -> None:
    entry = '{pairs: [opt/OPTModel], devices: ["onnxruntime:*", wasm], checks: [parity, canary], stage: run, reason: r}'
    file = tmp_path / "mine.yaml"
    file.write_text(f"version: 1\nexpect:\n  - {entry}\n", encoding="utf-8")
    (spec,) = load_registry([file]).informed(match_pairs("opt/OPTModel"))
    found = {(each.device, each.check) for each in spec.expect if each.reason == "r"}
    assert found == {(device, check) for device in ("onnxruntime:*", "wasm") for check in ("parity", "canary")}


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        ("{pairs: [], stage: run, reason: r}", "expect[0].pairs"),
        ("{pairs: [OPTModel], stage: run, reason: r}", "'OPTModel' is not a model type and a class of it"),
        ("{pairs: [a/B], stage: run, reason: r, cause: bug}", "'bug' is not a cause"),
        ("{pairs: [a/B], stage: run, reason: r, pair: x}", "'pair' is not a key here. Did you mean 'pairs'?"),
        ("{pairs: [a/B], stage: run, reason: r, devices: [gpu]}", "'gpu' is not a device"),
        ("{pairs: [a/B], stage: run}", "expect[0].reason: is missing"),
        ("{pairs: [a/B], stage: run, reason: r, device: cpu, devices: [wasm]}", "has both 'device' and 'devices'"),
        ("{pairs: [a/B], stage: run, reason: r, check: parity, checks: [canary]}", "has both 'check' and 'checks'"),
    ],
)
def test_mistakes(tmp_path: Path, entry: str, problem: str) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(f"version: 1\nexpect:\n  - {entry}\n", encoding="utf-8")
    with pytest.raises(RegistryError) as caught:
        load_registry([file])
    assert problem in "\n".join(caught.value.problems)


@pytest.mark.tables
def test_the_shipped_ones_name_classes_of_the_installed_transformers_and_a_cause() -> None:
    names = {spec.name for spec in every_pair()}
    for patterns, found in load_registry().expected:
        assert all(match_pairs(pattern) for pattern in patterns), (found.source, set(patterns) - names)
        assert found.cause in set(Cause), found.source
    assert EXPECTED.read_text(encoding="utf-8").startswith("#")


def test_main_and_other_pairs_are_all_pairs() -> None:
    both = (*main_pairs(), *other_pairs())
    assert len(both) == len(every_pair())
    assert {spec.name for spec in both} == {spec.name for spec in every_pair()}
