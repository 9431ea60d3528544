"""Does this transformers model class work on this hardware, how fast, and in how much memory?

The public names below are resolved on first use (PEP 562), so that importing this package - which pytest does at
every start, through our entry point - imports nothing else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pytest_hfaccel.config import RunConfig
    from pytest_hfaccel.errors import HfAccelError
    from pytest_hfaccel.plugin.model_class import ModelClassTests
    from pytest_hfaccel.plugin.without_pytest import main
    from pytest_hfaccel.pool import ResourcePool
    from pytest_hfaccel.predictor import HardwareModelPredictor, HardwareSelector, train_prediction_models
    from pytest_hfaccel.registry.every import main_pairs, other_pairs
    from pytest_hfaccel.results import CellResult, CheckOutcome, Stage, Status
    from pytest_hfaccel.spec import Cell, Device, ModelSpec, Weights

__version__ = "0.1.0"

_HOME = {
    "Cell": "spec",
    "CellResult": "results",
    "CheckOutcome": "results",
    "Device": "spec",
    "HardwareModelPredictor": "predictor",
    "HardwareSelector": "predictor",
    "HfAccelError": "errors",
    "ModelClassTests": "plugin.model_class",
    "ModelSpec": "spec",
    "ResourcePool": "pool",
    "RunConfig": "config",
    "Stage": "results",
    "Status": "results",
    "Weights": "spec",
    "main": "plugin.without_pytest",
    "main_pairs": "registry.every",
    "other_pairs": "registry.every",
    "train_prediction_models": "predictor",
}

__all__ = [
    "Cell",
    "CellResult",
    "CheckOutcome",
    "Device",
    "HardwareModelPredictor",
    "HardwareSelector",
    "HfAccelError",
    "ModelClassTests",
    "ModelSpec",
    "ResourcePool",
    "RunConfig",
    "Stage",
    "Status",
    "Weights",
    "__version__",
    "main",
    "main_pairs",
    "other_pairs",
    "train_prediction_models",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
