"""The public names are there, and importing or asking for them loads nothing heavy."""

from __future__ import annotations

import subprocess
import sys

import pytest

import pytest_hfaccel
from pytest_hfaccel import predict as predictor

HEAVY = ("torch", "transformers", "numpy", "duckdb", "pandas", "sklearn", "matplotlib", "scipy")


@pytest.mark.parametrize("name", ["HardwareModelPredictor", "HardwareSelector", "train_prediction_models"])
def test_a_name_is_in_both_places(name: str) -> None:
    assert getattr(predictor, name) is getattr(pytest_hfaccel, name)
    assert name in dir(predictor)
    assert name in dir(pytest_hfaccel)


def test_other_names_are_not() -> None:
    with pytest.raises(AttributeError, match="no attribute 'HardwarePredictor'"):
        _ = predictor.HardwarePredictor


def test_the_names_load_nothing_heavy() -> None:
    code = f"""
import sys
from pytest_hfaccel import HardwareModelPredictor, HardwareSelector, train_prediction_models
from pytest_hfaccel.cli import make_parser
make_parser().parse_args(["predict", "gpt2"])
HardwareModelPredictor().engine.platforms.of("cuda:h100-sxm")
print([name for name in {HEAVY} if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
