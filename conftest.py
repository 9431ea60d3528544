"""Configuration of this repository's own runs, nothing else: a user's project needs no conftest for the plugin."""

from __future__ import annotations

import pytest

_TESTS_OF_THE_PROJECT = "make test"


def pytest_report_header(config: pytest.Config) -> str | None:
    """Say what a plain `pytest` at the root does: it tests models, not this project."""
    if config.args_source is not pytest.Config.ArgsSource.TESTPATHS:
        return None
    return (
        "pytest-hfaccel: this runs model_classes/, the default model of each class module on the best device of this "
        f"machine; more with --all-models --all-hardware. The tests of the project itself: {_TESTS_OF_THE_PROJECT}"
    )
