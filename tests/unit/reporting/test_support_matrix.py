"""The totals and the JSON of a sweep."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from pytest_hfaccel.cli import main
from pytest_hfaccel.core.errors import ConfigError
from pytest_hfaccel.core.results import Cause, CellResult, CheckOutcome, Stage, Status, cause_of
from pytest_hfaccel.reporting import JOURNAL, Journal, load_schema
from pytest_hfaccel.reporting.evidence import read_evidence
from pytest_hfaccel.reporting.support_matrix import Coverage, command_of_run, coverage_json, totals_page


def matrix_of(paths: list[Path]) -> Coverage:
    return read_evidence(paths).newest()


NOT_BUILT = "a XModel cannot be built: TypeError: no"
REPEATED = "the model did not get this far (error, see 'placement')"


def cell(model: str, device: str, *checks: CheckOutcome) -> CellResult:
    cell_id = f"{model.replace('/', '--')}-{device.replace(':', '').lower()}-fp32"
    facts: dict[str, Any] = {
        "architecture": model.partition("/")[2],
        "module": "auto",
        "task": "base-model",
        "weights": "tiny",
    }
    return CellResult(cell_id, model, device=device, dtype="fp32", checks=list(checks), **facts)


CELLS = (
    cell("a/AModel", "class", CheckOutcome("resolves")),
    cell("a/AModel", "cpu", CheckOutcome("parity", measures={"rel_l2": 1.23456e-7}), CheckOutcome("memory")),
    cell(
        "a/AModel",
        "openvino:CPU",
        CheckOutcome("placement", Status.ERROR, Stage.CONVERT, "AModel cannot be converted | to <OpenVINO>"),
        CheckOutcome("parity", Status.SKIPPED, Stage.CONVERT, REPEATED),
    ),
    cell("b/BModel", "cpu", CheckOutcome("parity", Status.FAILED, Stage.COMPARE, "logits: rel-L2 0.5 > 1e-05")),
    cell(
        "b/BModel",
        "openvino:CPU",
        CheckOutcome(
            "parity",
            Status.XFAILED,
            Stage.COMPARE,
            "the exporter folds a mask [x.yaml:3]\nlogits",
            cause="exporter",
        ),
    ),
)


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    written = Journal(tmp_path / JOURNAL, {"command": "pytest --all-models", "started": "2026-01-01T00:00:00+00:00"})
    for found in CELLS:
        written.append(found)
    written.close()
    return tmp_path / JOURNAL


@pytest.mark.parametrize(
    ("outcome", "device", "cause"),
    [
        (
            CheckOutcome("placement", Status.ERROR, Stage.LOAD, NOT_BUILT, cause="factory"),
            "openvino:CPU",
            Cause.TINY_CHECKPOINT,
        ),
        (CheckOutcome("placement", Status.ERROR, Stage.CONVERT, "cannot be converted"), "openvino:CPU", Cause.EXPORTER),
        (CheckOutcome("parity", Status.FAILED, Stage.COMPARE, "rel-L2"), "openvino:CPU", Cause.RUNTIME),
        (CheckOutcome("parity", Status.FAILED, Stage.COMPARE, "rel-L2"), "cpu", Cause.TRANSFORMERS),
        (CheckOutcome("resolves", Status.ERROR, Stage.LOAD, "no timm", cause="package"), "class", Cause.PACKAGE),
        (CheckOutcome("parity", Status.UNAVAILABLE, Stage.RESOLVE, "no timm", cause="package"), "cpu", Cause.PACKAGE),
        (CheckOutcome("forward", Status.TIMEOUT, Stage.RUN, "Timeout"), "cpu", Cause.TIME),
        (CheckOutcome("parity", Status.XFAILED, Stage.COMPARE, "r", cause="runtime"), "cpu", Cause.RUNTIME),
    ],
)
def test_the_cause_of_a_failure(outcome: CheckOutcome, device: str, cause: Cause) -> None:
    assert cause_of(outcome, device) == cause


def test_the_json_has_every_check_and_what_repeats_a_failure(journal: Path) -> None:
    models = coverage_json(matrix_of([journal]))["models"]
    assert models["a/AModel"]["cells"]["cpu fp32"] == {
        "status": "passed",
        "checks": {"passed": ["parity", "memory"]},
        "rel_l2": 1.23e-7,
        "runs": [0],
    }
    broken = models["a/AModel"]["cells"]["openvino:CPU fp32"]
    assert [problem["cause"] for problem in broken["problems"]] == ["exporter"]
    assert broken["command"] == (
        "pytest model_classes/test_hf_auto.py --hf-model a/AModel --hf-device openvino:CPU --hf-dtype fp32"
    )


def test_a_reason_does_not_tell_where_things_lie_on_a_machine(tmp_path: Path) -> None:
    said = "Load model from /home/jane/.cache/onnx/12ab/model.onnx failed: Squeeze"
    written = Journal(tmp_path / JOURNAL, {"command": "pytest"})
    written.append(cell("a/AModel", "onnxruntime:CPU", CheckOutcome("placement", Status.ERROR, Stage.COMPILE, said)))
    written.close()
    found = coverage_json(matrix_of([tmp_path / JOURNAL]))["models"]["a/AModel"]["cells"]["onnxruntime:CPU fp32"]
    assert [problem["reason"] for problem in found["problems"]] == ["Load model from …/model.onnx failed: Squeeze"]


def test_the_json_follows_its_schema(journal: Path) -> None:
    data = coverage_json(matrix_of([journal]))
    Draft202012Validator(load_schema("coverage")).validate(data)
    assert {cause.value for cause in Cause} == set(
        load_schema("coverage")["$defs"]["cell"]["properties"]["problems"]["items"]["properties"]["cause"]["enum"]
    )


def test_the_page_counts_by_device_check_and_cause(journal: Path) -> None:
    page = totals_page(matrix_of([journal]))
    assert "| cpu | fp32 | 2 | 1 (50.0%) |  | 1 |  |  |  |  | 1 (50.0%) |" in page
    assert "| openvino:CPU | fp32 | 2 | 0 (0.0%) | 1 |  | 1 |  |  |  | 0 (0.0%) |" in page
    assert "| parity |  | 1/2 | 0/1 |" in page
    assert "| exporter: the conversion from torch to the runtime |  |  | 2 |" in page


def test_a_command_that_names_hundreds_of_models_is_shortened(tmp_path: Path) -> None:
    models = " ".join(f"--hf-model a/Model{number}" for number in range(300))
    written = Journal(tmp_path / JOURNAL, {"command": f"pytest x.py {models} --hf-device cpu"})
    written.append(CELLS[0])
    written.close()
    (run,) = coverage_json(matrix_of([written.path]))["runs"]
    assert run["command"].startswith("pytest x.py --hf-model a/Model0 ")
    assert run["command"].endswith(" --hf-device cpu")
    assert len(run["command"]) < 400


@pytest.mark.parametrize(
    ("typed", "shown"),
    [
        ("pytest x.py --hf-reports /home/jane/runs/one -q", "pytest x.py --hf-reports …/one -q"),
        (
            "pytest --hf-reports=/home/jane/one --hf-model '/data/my/bert'",
            "pytest --hf-reports=…/one --hf-model '…/bert'",
        ),
        (r"pytest C:\Users\jane\x.py", "pytest …/x.py"),
        ("pytest model_classes/x.py::TestAuto --hf-model opt/OPTModel", None),
        ("pytest x.py --hf-endpoint https://hub.example.org/mirror/ --hf-reports /tmp", None),
    ],
)
def test_a_command_does_not_tell_where_things_lie_on_a_machine(typed: str, shown: str | None) -> None:
    assert command_of_run({"run": {"command": typed}}) == (shown or typed)


def test_the_newest_record_of_a_cell_counts(journal: Path, tmp_path: Path) -> None:
    later = Journal(tmp_path / "later" / JOURNAL, {"started": "2026-01-02T00:00:00+00:00"})
    later.append(cell("b/BModel", "cpu", CheckOutcome("parity")))
    later.close()
    coverage = matrix_of([later.path, journal])
    assert [found.status for found in coverage.of("cpu", "fp32")] == ["passed", "passed"]


def test_the_command_writes_both(journal: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page, data = tmp_path / "support.md", tmp_path / "support.json"
    assert main(["support", str(journal), "--page", str(page), "--json", str(data), "--title", "All"]) == 0
    assert page.read_text(encoding="utf-8").startswith("# All\n")
    assert len(json.loads(data.read_text(encoding="utf-8"))["models"]) == 2
    assert "5 cells of 1 runs" in capsys.readouterr().out


def test_an_option_that_went_to_the_site_says_so(journal: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["support", str(journal), "--against", "older.json"]) == 0
    captured = capsys.readouterr()
    assert "`hfaccel site older.json ...` shows what changed" in captured.err
    assert captured.out.startswith("# Support matrix\n")


def test_what_is_no_matrix_is_refused(journal: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    damaged = tmp_path / "damaged.json.xz"
    damaged.write_bytes(b"not xz")
    assert main(["support", str(journal), str(damaged)]) == 1
    assert "cannot be read as a support matrix" in capsys.readouterr().err


def test_the_old_name_of_the_command_works_with_a_warning(journal: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["coverage", str(journal)]) == 0
    captured = capsys.readouterr()
    assert captured.out.startswith("# Support matrix\n")
    assert "is now `hfaccel support`" in captured.err


def test_the_page_in_docs_has_the_numbers_of_its_data(capsys: pytest.CaptureFixture[str]) -> None:
    docs = Path(__file__).parents[3] / "docs"
    assert main(["support", str(docs / "data" / "support_5_23.json.xz")]) == 0
    made = capsys.readouterr().out
    kept = (docs / "support.md").read_text(encoding="utf-8").partition("## Other releases")[0]
    tables = [line for line in kept.splitlines() if line.startswith("|")]
    assert len(tables) > 20
    assert not [line for line in tables if line not in made.splitlines()]


def test_a_journal_without_cells_is_an_error(tmp_path: Path) -> None:
    Journal(tmp_path / JOURNAL, {}).close()
    with pytest.raises(ConfigError, match="no finished cell"):
        matrix_of([tmp_path / JOURNAL])


def test_an_earlier_coverage_is_added_to(journal: Path, tmp_path: Path) -> None:
    first, more = tmp_path / "first.json", tmp_path / "more" / JOURNAL
    earlier = coverage_json(matrix_of([journal]))
    first.write_text(json.dumps(earlier), encoding="utf-8")
    assert coverage_json(matrix_of([first])) == earlier
    assert totals_page(matrix_of([first])) == totals_page(matrix_of([journal]))
    written = Journal(more, {"command": "pytest --hf-model b/BModel", "started": "2026-01-02T00:00:00+00:00"})
    written.append(cell("b/BModel", "cpu", CheckOutcome("parity", measures={"rel_l2": 0.0})))
    written.append(cell("a/AModel", "cpu", CheckOutcome("generation")))
    written.close()
    both = coverage_json(matrix_of([first, more]))
    assert both["models"]["b/BModel"]["cells"]["cpu fp32"]["status"] == "passed"
    assert both["models"]["a/AModel"]["cells"]["cpu fp32"]["checks"] == {"passed": ["parity", "memory", "generation"]}
    assert both["models"]["a/AModel"]["cells"]["class fp32"] == earlier["models"]["a/AModel"]["cells"]["class fp32"]
    assert len(both["runs"]) == 2
