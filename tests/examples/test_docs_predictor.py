"""The examples of `docs/hardware_model_predictor.md` run, without a hub and in the order of the guide."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
from jsonschema import validate

from pytest_hfaccel.predict.configuration import PredictorConfig
from tests.harness import environment, run_python
from tests.unit.predict.test_predict_matrix import FORMAT

pytestmark = [pytest.mark.slow, pytest.mark.nightly]

GUIDE = Path(__file__).parents[2] / "docs" / "hardware_model_predictor.md"
TEXT = GUIDE.read_text(encoding="utf-8")
REGISTRY = """
version: 1
models:
  llama-7b:
    architecture: LlamaForCausalLM
    dims: {hidden_size: 256, intermediate_size: 512, num_hidden_layers: 2, num_attention_heads: 4}
  llama-70b:
    architecture: LlamaForCausalLM
    dims:
      hidden_size: 16384
      intermediate_size: 65536
      num_hidden_layers: 2
      num_attention_heads: 128
      vocab_size: 600000
"""
"""The large models of the guide, with fewer layers: they take as long to trace as they have operators."""

ROWS = """
from pytest_hfaccel.history import BenchmarkDatabase, RunRecord
from tests.unit.predict.predict_samples import row

record = RunRecord("x", "performance", "2026-01-01T00:00:00", "2026-01-01T00:01:00", True, measurements=[row()])
database = BenchmarkDatabase("rows.duckdb")
database.write_run(record)
database.export_parquet("my_benchmark_data.parquet")
"""
PRINTED = {
    1: ["Primary recommendation: ", "Throughput: ", "Latency: ", "Memory Usage: "],
    2: ["cuda (NVIDIA A100 SXM 80 GB): ", "not measured: no row of bert-base-uncased"],
    3: ["Does not fit: needs "],
    9: ["cuda; "],
}
"""What a block must print, by its number."""


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)


PYTHON = blocks("python")
COMMANDS = list(dict.fromkeys(line for code in blocks("bash") for line in code.splitlines() if line[:8] == "hfaccel "))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One directory for all examples: later ones use what earlier ones wrote, and their traces."""
    folder = tmp_path_factory.mktemp("guide")
    (folder / "registry.yaml").write_text(REGISTRY, encoding="utf-8")
    run(folder, "-c", ROWS)
    return folder


@pytest.fixture(scope="module")
def printed(place: Path) -> dict[int, str]:
    """What each Python block printed: they share their names, as a reader's session does."""
    marked = "\n".join(f"print('<block {number}>')\n{code}" for number, code in enumerate(PYTHON, 1))
    parts = re.split(r"<block (\d+)>\n", run(place, "-c", marked))
    return dict(zip(map(int, parts[1::2]), parts[2::2], strict=True))


def run(folder: Path, *arguments: str, code: int = 0) -> str:
    """Run Python in a folder and return what it printed."""
    env = environment(folder, HFACCEL_REGISTRY="registry.yaml", PYTHONPATH=str(GUIDE.parents[1]))
    env.pop("BENCHMARK_DB_PATH", None)
    done = run_python(["-W", "error::RuntimeWarning", *arguments], folder, env)
    assert done.returncode == code, done.stderr
    return done.stdout


def test_the_blocks_are_found() -> None:
    assert len(PYTHON) == TEXT.count("```python") == 9
    assert len(COMMANDS) == 10
    assert set(PRINTED) <= set(range(1, len(PYTHON) + 1))


@pytest.mark.parametrize("number", range(1, len(PYTHON) + 1))
def test_a_block_runs(number: int, printed: dict[int, str]) -> None:
    assert number in printed
    for text in PRINTED.get(number, []):
        assert text in printed[number]


def test_the_blocks_left_their_files(place: Path, printed: dict[int, str]) -> None:
    assert printed
    validate(json.loads((place / "custom_matrix.json").read_text(encoding="utf-8")), FORMAT)
    assert list((place / "visualizations").glob("*.png"))
    assert (place / "benchmark_db.duckdb").is_file()


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_runs(command: str, place: Path) -> None:
    assert run(place, "-m", "pytest_hfaccel", *shlex.split(command)[1:])


def test_the_json_of_the_guide(tmp_path: Path) -> None:
    matrix, config = blocks("json")
    validate(json.loads(matrix), FORMAT)
    (tmp_path / "config.json").write_text(config, encoding="utf-8")
    assert PredictorConfig.read(tmp_path / "config.json").devices == {"cuda": "h100-sxm"}


def test_the_options_are_in_the_guide() -> None:
    import argparse

    from pytest_hfaccel.cli import predict

    commands = argparse.ArgumentParser().add_subparsers()
    predict.add_parser(commands)
    known = set(re.findall(r"--[a-z-]+", commands.choices["predict"].format_help()))
    assert known - {"--help"} <= set(re.findall(r"--[a-z-]+", TEXT))


def test_the_numbers_of_devices_and_checkpoints() -> None:
    from pytest_hfaccel.predict.naming import known_checkpoints
    from pytest_hfaccel.predict.platforms import load_specifications

    assert f"holds {len(load_specifications().by_slug)} devices" in TEXT
    assert f"dimensions of {len({each.name for each in known_checkpoints().values()})} checkpoints" in TEXT
