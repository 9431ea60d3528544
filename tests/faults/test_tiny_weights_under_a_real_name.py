"""What ran on tiny weights says so where a reader looks first: header, pytest-benchmark's table, JUnit XML."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest

from tests.harness import Project


def test_tiny_is_never_shown_as_the_real_model(project: Project) -> None:
    pytest.importorskip("pytest_benchmark")
    run = project.run(
        "--hf-device", "cpu", "--hf-performance", "-k", "parity or performance", "--junitxml", "junit.xml",
        "--hf-database", "none",
    )  # fmt: skip
    assert run.code == 0, run.output
    ours = [line for line in run.output.splitlines() if line.startswith("hfaccel:")]
    assert ours[0] == "hfaccel: 1 cell: bert-base-uncased [tiny] x cpu x fp32"
    table = [line for line in run.output.splitlines() if line.startswith("test_performance[")]
    assert len(table) == 1
    assert table[0].startswith("test_performance[bert-base-uncased[tiny]-cpu-fp32]")
    root = ET.parse(project.directory / "junit.xml").getroot()  # noqa: S314
    cases = list(root.iter("testcase"))
    assert len(cases) == 2
    for case in cases:
        assert [node.get("value") for node in case.iter("property") if node.get("name") == "weights"] == ["tiny"]


def test_random_weights_of_unknown_dimensions_say_so(project: Project) -> None:
    project.write(
        "mine.yaml",
        "version: 1\nmodels:\n  me/bert-huge: {architecture: BertForMaskedLM}\n",
    )
    run = project.run(
        "--hf-registry", "mine.yaml", "--hf-model", "me/bert-huge", "--hf-weights", "random", "--co", "-q"
    )
    assert "the dimensions are the defaults of its config class" in run.output
    known = project.run("--hf-weights", "random", "--collect-only", "-q")
    assert "hfaccel: weights random (asked for by --hf-weights): bert-base-uncased" in known.output
