"""The page about the plots: its examples run in their order, and print what the page says."""

from __future__ import annotations

import contextlib
import io
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pytest_hfaccel.core.prediction import Estimate, Prediction, Question, Source
from tests.unit.plots.samples import needs_matplotlib, sample_measurement

needs_matplotlib()
pytest.importorskip("duckdb", reason="duckdb is in the extra `predict`")

PAGE = (Path(__file__).parents[3] / "docs" / "plots.md").read_text(encoding="utf-8")


def fill_database(path: Path) -> None:
    """A run, and a prediction that was made before it."""
    from pytest_hfaccel.history import BenchmarkDatabase, RunRecord

    def run(batch: int, started: datetime) -> RunRecord:
        return RunRecord(
            test_name="the page",
            test_type="performance",
            started_at=started,
            completed_at=started + timedelta(seconds=1),
            success=True,
            versions={},
            machine={},
            measurements=[sample_measurement(batch=batch)],
        )

    db = BenchmarkDatabase(path)
    db.write_run(run(1, datetime.now(UTC)))
    known = db.measurements()[0]
    question = Question(known.architecture, known.device, batch=2, length=32, model=known.model, family="embedding")
    guess = Prediction(question, Source.CALIBRATED, "a test", Estimate(21.0, 15.0, 30.0), None)
    db.save_predictions([guess], device_name=known.device_name, threads=known.threads)
    db.write_run(run(2, datetime.now(UTC) + timedelta(hours=1)))


@pytest.mark.slow
def test_the_examples_run_and_print_what_the_page_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    fill_database(tmp_path / "hfaccel.duckdb")
    names: dict[str, object] = {}
    pairs = re.findall(r"```python\n(.*?)```\n\n```text\n(.*?)```", PAGE, re.DOTALL)
    assert len(pairs) == PAGE.count("```python")
    for code, expected in pairs:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(code, "docs/plots.md", "exec"), names)  # noqa: S102
        assert printed.getvalue() == expected
