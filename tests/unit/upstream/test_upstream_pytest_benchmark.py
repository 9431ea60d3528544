"""What we reach of pytest-benchmark's fixture is where it was."""

from __future__ import annotations

from typing import Any

import pytest

from pytest_hfaccel.upstream.pytest_benchmark import clock_of, recorded_seconds, withdraw

pytest.importorskip("pytest_benchmark", reason="pytest-benchmark is an extra of this package")


@pytest.fixture
def fixture(request: pytest.FixtureRequest) -> Any:
    if not request.config.pluginmanager.hasplugin("benchmark"):
        pytest.skip("pytest-benchmark is switched off")
    return request.getfixturevalue("benchmark")


def test_its_clock_and_its_records_are_ours_to_use_and_an_entry_can_be_withdrawn(fixture: Any) -> None:
    assert fixture._timer is clock_of(fixture), "the private name is gone: see whether there is a public one"
    fixture.pedantic(lambda: None, rounds=1, iterations=1)
    if fixture.disabled:
        pytest.skip("under pytest-xdist it disables itself")
    assert len(recorded_seconds(fixture)) == 1
    fixture.stats.update(0.5)
    assert recorded_seconds(fixture)[-1] == 0.5
    withdraw(fixture)
    assert recorded_seconds(fixture) == []
    assert fixture.has_error
