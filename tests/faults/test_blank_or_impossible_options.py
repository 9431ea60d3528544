"""Options, variables and registry files that name nothing, or nothing that can be: one clear usage error."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pytest_hfaccel.core.config import RunConfig
from pytest_hfaccel.core.errors import ConfigError
from tests.harness import HfRun, Project

USAGE_ERROR = 4


def refused(run: HfRun, *said: str) -> None:
    assert run.code == USAGE_ERROR, run.output
    for text in said:
        assert text in run.output
    assert "Traceback" not in run.output
    assert "INTERNALERROR" not in run.output


@pytest.mark.parametrize(
    ("arguments", "environment", "said"),
    [
        (("--hf-model", ""), {}, ["--hf-model: is blank", "variable that is not set"]),
        (("--hf-device", "cpu,"), {}, ["--hf-device: 'cpu,' has a blank in it"]),
        ((), {"HFACCEL_DEVICE": ""}, ["HFACCEL_DEVICE: is blank", "leave HFACCEL_DEVICE out"]),
        ((), {"HFACCEL_ALL_MODELS": "maybe"}, ["HFACCEL_ALL_MODELS: 'maybe' is not allowed", "Allowed: 1, true, yes"]),
        ((), {"HFACCEL_POOL_MEMORY": "lots"}, ["HFACCEL_POOL_MEMORY: 'lots' is not a memory budget"]),
        (("--hf-model", "x" * 300), {}, ["cannot be a hub id"]),
        (("--hf-model", "~nosuchuser/x"), {}, ["~nosuchuser/x: there is no such directory"]),
        (("--hf-model", "./test_hf_bert.py"), {}, ["./test_hf_bert.py: is a file; name its directory"]),
        (("--hf-database", "."), {}, ["--hf-database (BENCHMARK_DB_PATH) .: a directory; name a file in it"]),
        (("--hf-performance-batch-sizes", "4"), {}, ["--hf-performance-batch-sizes", "Add --hf-performance"]),
        (("--hf-reports=~nosuchuser/x",), {}, ["--hf-reports: ~nosuchuser/x: there is no home directory ~nosuchuser"]),
    ],
    ids=str,
)
def test_a_run_is_refused(
    project: Project, arguments: tuple[str, ...], environment: dict[str, Any], said: list[str]
) -> None:
    refused(project.run(*arguments, **environment), *said)


@pytest.mark.parametrize("blank", ["", " "])
def test_no_option_takes_a_blank(blank: str) -> None:
    for option in RunConfig.options():
        if not option.is_switch:
            given = [blank] if option.many else blank
            with pytest.raises(ConfigError, match="is blank"):
                RunConfig.from_values({option.name: given}, {})
        with pytest.raises(ConfigError, match=f"{option.env}: is blank"):
            RunConfig.from_values({}, {option.env: blank})


def test_an_allowed_list_names_each_once(project: Project) -> None:
    run = project.run("--hf-device", "nosuch")
    refused(run, "'nosuch' is not a device")
    (line,) = [line for line in run.output.splitlines() if "Allowed:" in line]
    allowed = line.partition("Allowed: ")[2].partition(", with")[0].split(", ")
    assert len(allowed) == len(set(allowed))


def test_directories_of_the_same_name_are_told_apart(project: Project) -> None:
    for place in ("first/same", "second/same"):
        config = {"architectures": ["BertForMaskedLM"], "model_type": "bert"}
        project.write(f"{place}/config.json", json.dumps(config))
    both = ("--hf-model", "first/same", "--hf-model", "second/same", "--hf-model", "./first/same")
    run = project.run(*both, "--hf-device", "fake:0", "-k", "placement")
    assert run.code == 0, run.output
    assert set(run.results) == {"first--same-fake0-fp32", "second--same-fake0-fp32"}
    assert {record.model for record in run.results.values()} == {"first/same", "second/same"}


def test_a_check_that_nobody_registers_is_refused(project: Project) -> None:
    entry = "{expect: [{stage: compare, check: paritty, reason: r}]}"
    project.write("mine.yaml", f"version: 1\nmodels:\n  bert-base-uncased:\n    {entry}\n")
    arguments = ("--hf-registry", "mine.yaml", "--hf-device", "fake:0", "-k", "placement")
    for workers in ((), ("-n", "2")):
        run = project.run(*arguments, *workers)
        refused(run, "mine.yaml:4: check: 'paritty' is not a check. Did you mean 'parity'?", "Allowed: resolves")
    conftest = "def pytest_hfaccel_checks(checks):\n    checks.check('paritty')(lambda context: None)\n"
    project.write("conftest.py", conftest)
    known = project.run(*arguments)
    assert known.code == 0, known.output


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("checks.check('parity')(print)", "pytest_hfaccel_checks: a check named 'parity' is registered already"),
        ("checks.check('a check]')(print)", "pytest_hfaccel_checks: 'a check]' cannot name a check"),
    ],
)
def test_what_a_hook_may_not_register_is_refused(project: Project, body: str, said: str) -> None:
    project.write("conftest.py", f"def pytest_hfaccel_checks(checks):\n    {body}\n")
    refused(project.run("--hf-device", "fake:0"), said)


def test_a_check_that_returns_nothing_is_an_error(project: Project) -> None:
    project.write("conftest.py", "def pytest_hfaccel_checks(checks):\n    checks.check('mine')(lambda context: None)\n")
    run = project.run("--hf-device", "fake:0", "-k", "mine")
    assert run.code == 1, run.output
    (record,) = run.records.values()
    assert "the check 'mine' returned None; return `passed(...)` or `failed(...)`" in str(record.reason)


def test_one_device_in_two_spellings_is_one_cell(project: Project) -> None:
    run = project.run("--hf-device", "fake:00,fake,FAKE:0", "-k", "placement")
    assert run.code == 0, run.output
    assert set(run.results) == {"bert-base-uncased-fake0-fp32"}
