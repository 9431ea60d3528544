"""What is written follows the JSON Schemas, and the schemas say everything that is written."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator, ValidationError
from referencing import Registry, Resource

from pytest_hfaccel import reporting
from pytest_hfaccel.core.errors import ConfigError
from pytest_hfaccel.core.results import SCHEMA_VERSION, CellResult, CheckOutcome, Stage, Status
from pytest_hfaccel.reporting import SCHEMAS, Journal, load_schema, write_reports
from tests.unit.reporting.report_samples import HEADER, sample_results


def validator(name: str) -> Draft202012Validator:
    resources = [Resource.from_contents(load_schema(schema)) for schema in SCHEMAS]
    registry: Any = Registry().with_resources([(str(resource.id()), resource) for resource in resources])
    return Draft202012Validator(load_schema(name), registry=registry)


@pytest.fixture
def written(tmp_path: Path) -> dict[str, dict[str, Any]]:
    """One written file of each kind, by schema."""
    write_reports(tmp_path, sample_results(), HEADER)
    paths = {
        "summary": tmp_path / "summary.json",
        "by-class": tmp_path / "by_class/bert_models.json",
        "by-hardware": tmp_path / "by_hardware/cpu_results.json",
    }
    return {name: json.loads(path.read_text(encoding="utf-8")) for name, path in paths.items()}


@pytest.mark.parametrize("name", SCHEMAS)
def test_a_schema_is_a_schema_and_describes_every_property(name: str) -> None:
    schema = load_schema(name)
    Draft202012Validator.check_schema(schema)
    assert schema["$id"] == f"urn:pytest-hfaccel:schema:{name}:{SCHEMA_VERSION}"
    assert schema["description"]


def test_every_schema_file_is_listed() -> None:
    files = {path.stem.replace("_", "-") for path in (Path(reporting.__file__).parent / "schema").glob("*.json")}
    assert files == set(SCHEMAS)
    with pytest.raises(ConfigError, match="Allowed: cell, by-class"):
        load_schema("by_class")


@pytest.mark.parametrize("name", ["summary", "by-class", "by-hardware"])
def test_reports_follow_their_schema(written: dict[str, dict[str, Any]], name: str) -> None:
    validator(name).validate(written[name])
    assert written[name]["schema"] == f"pytest-hfaccel/{name}"


@pytest.mark.parametrize("name", ["summary", "by-class", "by-hardware"])
def test_a_field_that_the_schema_does_not_know_or_that_is_missing_is_noticed(
    written: dict[str, dict[str, Any]], name: str
) -> None:
    with pytest.raises(ValidationError, match="surprise"):
        validator(name).validate({**written[name], "surprise": 1})
    for field in written[name]:
        rest = {key: value for key, value in written[name].items() if key != field}
        with pytest.raises(ValidationError, match=field):
            validator(name).validate(rest)


def test_a_run_without_cells_or_facts_follows_the_schema(tmp_path: Path) -> None:
    write_reports(tmp_path, [], {})
    validator("summary").validate(json.loads((tmp_path / "summary.json").read_text(encoding="utf-8")))


def test_journal_lines_follow_their_schema(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl", HEADER)
    for result in sample_results():
        journal.append(result)
    journal.close()
    lines = [json.loads(line) for line in (tmp_path / "journal.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [line["type"] for line in lines] == ["run", *["cell"] * len(sample_results()), "end"]
    check = validator("journal")
    for line in lines:
        check.validate(line)
        with pytest.raises(ValidationError):
            check.validate({**line, "surprise": 1})


def test_the_schema_of_a_cell_has_the_fields_of_a_record() -> None:
    cell = load_schema("cell")
    derived = {"status", "stage", "reason"}
    assert set(cell["properties"]) == set(cell["required"]) == {field.name for field in fields(CellResult)} | derived
    check = cell["$defs"]["check"]
    assert set(check["properties"]) == set(check["required"]) == {field.name for field in fields(CheckOutcome)}


def test_the_schema_lists_every_status_and_stage() -> None:
    defs = load_schema("common")["$defs"]
    assert defs["status"]["enum"] == [str(status) for status in Status]
    assert defs["stage"]["enum"] == [*map(str, Stage), None]
    assert defs["envelope"]["properties"]["schema_version"]["const"] == SCHEMA_VERSION
