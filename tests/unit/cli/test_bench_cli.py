"""`hfaccel bench`: what its arguments mean, and how it tells what it does; nothing is measured here."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pytest_hfaccel.benchmark.measurement import Measurement, NotMeasured, Point
from pytest_hfaccel.campaign import Campaign
from pytest_hfaccel.campaign.processes import WorkerRequest
from pytest_hfaccel.cli import main, make_parser
from pytest_hfaccel.cli.runs.bench import Progress, describe, make_campaign
from pytest_hfaccel.core.config import RunConfig
from pytest_hfaccel.core.errors import ConfigError
from pytest_hfaccel.core.results import CellResult, CheckOutcome, Stage, Status
from pytest_hfaccel.core.spec import CPU, Cell, ModelSpec, Weights, WeightsChoice
from tests.unit.history.store_samples import MEASURED

CELL = Cell(ModelSpec("a", "BertModel", "fill-mask"), CPU, "fp32", WeightsChoice(Weights.RANDOM, "test"))


def parse(*arguments: str) -> argparse.Namespace:
    return make_parser().parse_args(["bench", *arguments])


def campaign_of(*arguments: str) -> Campaign:
    return make_campaign(parse("--hardware", "cpu", *arguments), RunConfig(cache="/cache"))


def test_every_option_of_the_guide() -> None:
    given = parse(
        *("--models-set", "custom", "--custom-models", "gpt2", "--hardware", "cpu", "cuda", "--batch-sizes", "1", "4"),
        *("--specific-models", "gpt2", "--no-plots", "--no-resource-pool", "--db-path", "x.duckdb", "--no-db-store"),
        *("--visualize-from-db", "--output-dir", "out", "--verify-only"),
    )
    assert given.hardware == ["cpu", "cuda"]
    assert given.batch_sizes == [1, 4]
    assert parse("--benchmark-only").benchmark_only


def test_the_defaults() -> None:
    found = campaign_of()
    assert (found.batches, found.lengths, found.verify) == ((1, 4, 8), (128,), True)
    assert (found.budget.warm_up, found.budget.runs) == (None, None)
    assert found.threads >= 1
    assert {cell.weights.kind for cell in found.cells} <= {Weights.RANDOM, Weights.PRETRAINED}, "tiny says nothing"
    assert found.cache_dir == Path("/cache")


def test_fixed_numbers_of_runs() -> None:
    assert (campaign_of("--warmup").budget.warm_up, campaign_of("--iterations").budget.runs) == (5, 20)
    assert campaign_of("--warmup", "2", "--iterations", "9").budget.runs == 9


def test_what_is_measured() -> None:
    asked = ("--specific-models", "distil*", "--weights", "tiny", "--batch-sizes", "2", "2")
    found = campaign_of(*asked, "--benchmark-only")
    assert [cell.id for cell in found.cells] == ["distilbert-base-uncased-cpu-fp32", "distilgpt2-cpu-fp32"]
    assert {cell.weights.kind for cell in found.cells} == {Weights.TINY}
    assert found.points(found.cells[0]) == [Point(2, 128)]
    assert not found.verify
    assert campaign_of("--verify-only").batches == ()


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--hardware", "tpu"], "'tpu' is not a device"),
        (["--dtypes", "fp61"], "'fp61' is not a dtype. Allowed: fp32"),
        (["--models-set", "custom"], "name the models with --custom-models"),
    ],
)
def test_a_mistake_is_one_clear_message(arguments: list[str], problem: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--no-db-store", *arguments]) == 1
    assert problem in capsys.readouterr().err


def test_numbers_must_be_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse("--batch-sizes", "0")
    assert "'0' is not a whole number of at least 1" in capsys.readouterr().err


def test_there_is_nothing_to_draw(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--visualize-from-db", "--db-path", str(tmp_path / "none.duckdb")]
    assert main(["bench", *arguments]) == 1
    assert "none.duckdb" in capsys.readouterr().err


class Clock:
    """A minute passes between two looks."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 60.0
        return self.now


def serve(request: WorkerRequest) -> Iterator[CellResult | Measurement | NotMeasured]:
    for point in request.points:
        yield replace(MEASURED, batch=point.batch, length=point.length)


def campaign(*batches: int) -> Campaign:
    return Campaign([CELL], batches, (16,), 1, Path("/x"), 9.0, verify=False)


def test_progress_tells_each_result_and_the_time_left(tmp_path: Path) -> None:
    said: list[str] = []
    progress = Progress(campaign(1, 2, 4), tmp_path, said.append, Clock())
    progress.run(serve)
    assert said[0].startswith("1 cells, 3 steps, 1 threads; results: ")
    assert said[1].startswith("[1/3, about 2 min left] a [random] cpu fp32 batch 1 length 16: 4.00 ms")
    assert said[3].startswith("[3/3] a [random] cpu fp32 batch 4 length 16: ")
    assert not progress.failed
    data = json.loads((tmp_path / "results.json").read_text())
    assert [check["name"] for check in data["cells"][0]["checks"]] == ["performance"] * 3
    assert data["run"]["machine"]


def test_what_was_found_before_an_interruption_is_on_disk(tmp_path: Path) -> None:
    def interrupted(request: WorkerRequest) -> Iterator[CellResult | Measurement | NotMeasured]:
        yield next(serve(request))
        raise KeyboardInterrupt

    progress = Progress(campaign(1, 2), tmp_path, lambda _: None)
    with pytest.raises(KeyboardInterrupt):
        progress.run(interrupted)
    assert len(progress.measurements) == len(progress.unfinished) == 1
    data = json.loads((tmp_path / "results.json").read_text())
    assert [one["batch"] for one in data["measurements"]] == [1]


def test_results_in_words() -> None:
    crashed = NotMeasured(8, 0, Status.CRASHED, Stage.RUN, "was killed by SIGFPE\nmore")
    assert describe(crashed) == "batch 8: crashed: was killed by SIGFPE"
    with_tokens = replace(MEASURED, per_token_ms=2.5)
    assert describe(with_tokens).endswith("512 MiB, 2.50 ms per token")
    names: dict[str, Any] = {
        "model": "a",
        "architecture": "A",
        "module": "m",
        "task": "t",
        "device": "cpu",
        "dtype": "fp32",
    }
    record = CellResult(cell="c", weights="tiny", **names, checks=[CheckOutcome("parity")])
    assert describe(record) == "verified: parity"
    failed = CheckOutcome("parity", Status.FAILED, Stage.COMPARE, "logits are off\nby much")
    assert describe(replace(record, checks=[failed])) == "not verified: failed: logits are off"


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"--output-dir: .* cannot be written"):
        Progress(campaign(1), tmp_path / "file", lambda _: None).run(serve)
