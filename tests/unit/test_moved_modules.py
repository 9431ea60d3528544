"""A module is importable by the name it had in the last release, and stays whole by that."""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.resources import files

import pytest


def test_an_old_path_is_the_module_and_leaves_its_spec(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "pytest_hfaccel.predictor", raising=False)
    new = import_module("pytest_hfaccel.predict")
    with pytest.warns(DeprecationWarning, match=r"pytest_hfaccel\.predictor has moved: import pytest_hfaccel\.predict"):
        old = import_module("pytest_hfaccel.predictor")
    assert old is new
    assert files("pytest_hfaccel.predict").joinpath("devices.yaml").is_file()
