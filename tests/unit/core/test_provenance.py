"""Where the value of an option came from."""

from __future__ import annotations

import pickle

import pytest

from pytest_hfaccel.core.config import STATUSES, RunConfig
from pytest_hfaccel.core.results import Status


def test_command_line_then_environment_then_file() -> None:
    ini = {"hf_device": "fake:0", "hf_dtype": "fp16", "hf_weights": "random"}
    config = RunConfig.from_values(
        {"devices": ["cpu"]}, {"HFACCEL_DTYPE": "bf16"}, ini=lambda option: ini.get(option.ini)
    )
    assert (config.devices, config.dtypes, config.weights) == (("cpu",), ("bf16",), "random")
    sources = [config.source_of(name) for name in ("devices", "dtypes", "weights", "reports")]
    assert sources == ["--hf-device", "HFACCEL_DTYPE", "hf_weights", "default"]


def test_asking_for_the_default_is_asking() -> None:
    assert not RunConfig.from_values({}, {}).is_asked_for
    config = RunConfig.from_values({"weights": "auto"}, {})
    assert config.is_asked_for
    assert config == RunConfig()


def test_a_configuration_cannot_be_changed_and_crosses_processes() -> None:
    config = RunConfig.from_values({"devices": ["cpu"]}, {})
    with pytest.raises(AttributeError):
        config.weights = "tiny"
    again = pickle.loads(pickle.dumps(config))  # noqa: S301
    assert again == config
    assert again.source_of("devices") == "--hf-device"
    assert config.replace(weights="tiny").weights == "tiny"
    with pytest.raises(TypeError, match="nosuch"):
        RunConfig(nosuch=1)


def test_a_variable_s_former_name_works_with_a_warning() -> None:
    with pytest.warns(DeprecationWarning, match="HFACCEL_RETRY is now called HFACCEL_RESUME_RETRY"):
        config = RunConfig.from_values({}, {"HFACCEL_RETRY": "crashed"})
    assert config.retry == ("crashed",)


def test_the_statuses_an_option_allows_are_those_there_are() -> None:
    assert set(STATUSES) == set(map(str, Status))
