"""How fast a model runs on a device, and in how much memory, before it is run there - and where to run it.

HardwareModelPredictor().predict_performance("gpt2", hardware=["cpu", "cuda:h100-sxm"], batch_size=8)
HardwareSelector().select_hardware("text_generation", "gpt2")

The names below are resolved on first use (PEP 562): importing this package imports nothing else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pytest_hfaccel.compat.hardware_selector import HardwareSelector
    from pytest_hfaccel.core.prediction import Estimate, Prediction, Question, Source
    from pytest_hfaccel.predict.hardware_model_predictor import HardwareModelPredictor
    from pytest_hfaccel.predict.learning import train_prediction_models

_HOME = {
    "Estimate": "core.prediction",
    "HardwareModelPredictor": "predict.hardware_model_predictor",
    "HardwareSelector": "compat.hardware_selector",
    "Prediction": "core.prediction",
    "Question": "core.prediction",
    "Source": "core.prediction",
    "train_prediction_models": "predict.learning",
}

__all__ = [
    "Estimate",
    "HardwareModelPredictor",
    "HardwareSelector",
    "Prediction",
    "Question",
    "Source",
    "train_prediction_models",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"pytest_hfaccel.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
