from __future__ import annotations

import warnings
from pathlib import Path

import pytest

from pytest_hfaccel.core.config import RunConfig
from pytest_hfaccel.core.errors import ConfigError


def test_defaults() -> None:
    assert RunConfig.from_values({}, environ={}) == RunConfig()


def test_options_come_before_the_environment() -> None:
    environ = {"HFACCEL_WEIGHTS": "random", "HFACCEL_DEVICE": "cuda:0,cpu", "HFACCEL_ALL_MODELS": "1"}
    config = RunConfig.from_values({"weights": "tiny", "devices": None}, environ)
    assert config.weights == "tiny"
    assert config.devices == ("cuda:0", "cpu")
    assert config.all_models


def test_lists_are_split_at_commas_but_models_are_not() -> None:
    config = RunConfig.from_values({"dtypes": ["fp32, bf16", "fp16"], "models": ["a,b"]}, {})
    assert config.dtypes == ("fp32", "bf16", "fp16")
    assert config.models == ("a,b",)


def test_sizes_are_numbers() -> None:
    config = RunConfig.from_values({"batch_sizes": ["1, 4", "8"]}, {"HFACCEL_PERFORMANCE_SEQ_LENGTHS": "32,128"})
    assert config.batch_sizes == (1, 4, 8)
    assert config.seq_lengths == (32, 128)


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "four", "²"])
def test_a_size_that_is_none(text: str) -> None:
    with pytest.raises(
        ConfigError, match=rf"--hf-performance-batch-sizes: '{text}' is not allowed\. Allowed: whole numbers"
    ):
        RunConfig.from_values({"batch_sizes": [text]}, {})


def test_where_the_database_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert RunConfig().database_path is None
    assert RunConfig(performance=True).database_path == tmp_path / "hfaccel.duckdb"
    assert RunConfig(performance=True, database="none").database_path is None
    given = RunConfig.from_values({}, {"BENCHMARK_DB_PATH": "here.duckdb"})
    assert given.database_path == tmp_path / "here.duckdb"


@pytest.mark.parametrize("text", ["0", "false", "no", "off"])
def test_what_switches_a_flag_off(text: str) -> None:
    assert not RunConfig.from_values({}, {"HFACCEL_ALL_MODELS": text}).all_models


def test_a_value_that_is_not_allowed() -> None:
    with pytest.raises(ConfigError, match=r"HFACCEL_WEIGHTS: 'huge' is not allowed\. Allowed: auto"):
        RunConfig.from_values({}, {"HFACCEL_WEIGHTS": "huge"})


def test_an_option_that_another_one_replaces_warns_whoever_sets_it() -> None:
    with pytest.warns(DeprecationWarning, match=r"HFACCEL_COMPILE is deprecated\. Use --hf-device cpu\+inductor"):
        assert RunConfig.from_values({}, {"HFACCEL_COMPILE": "1"}).compile
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not RunConfig.from_values({"compile": False}, {}).compile
