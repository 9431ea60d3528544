"""Does this transformers model class work on this hardware, how fast, and in how much memory?

The public names below are resolved on first use (PEP 562), so that importing this package - which pytest does at
every start, through our entry point - imports nothing else.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from pytest_hfaccel.core.config import RunConfig
    from pytest_hfaccel.core.errors import HfAccelError
    from pytest_hfaccel.core.results import CellResult, CheckOutcome, Stage, Status
    from pytest_hfaccel.core.spec import Cell, Device, ModelSpec, Weights
    from pytest_hfaccel.engine.model_class import ModelClassTests
    from pytest_hfaccel.plugin.script import main
    from pytest_hfaccel.pool import ResourcePool
    from pytest_hfaccel.predict import HardwareModelPredictor, HardwareSelector, train_prediction_models
    from pytest_hfaccel.registry.auto_classes import main_pairs, other_pairs
    from pytest_hfaccel.reporting.frames import load_run

__version__ = "0.1.0"

_HOME = {
    "Cell": "core.spec",
    "CellResult": "core.results",
    "CheckOutcome": "core.results",
    "Device": "core.spec",
    "HardwareModelPredictor": "predict",
    "HardwareSelector": "predict",
    "HfAccelError": "core.errors",
    "ModelClassTests": "engine.model_class",
    "ModelSpec": "core.spec",
    "ResourcePool": "pool",
    "RunConfig": "core.config",
    "Stage": "core.results",
    "Status": "core.results",
    "Weights": "core.spec",
    "load_run": "reporting.frames",
    "main": "plugin.script",
    "main_pairs": "registry.auto_classes",
    "other_pairs": "registry.auto_classes",
    "train_prediction_models": "predict",
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
    "load_run",
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


class _MovedModules:
    """Finds a module by the name it had before packages were rearranged, for one release and with a warning.

    It stands last on `sys.meta_path`, so that only an import that nothing else can serve gets here.
    """

    _MOVED: ClassVar = {
        f"{__name__}.{old}": f"{__name__}.{new}"
        for old, new in {
            "advisor": "compat.hardware_model_integration",
            "benchmark.isolated": "campaign.processes",
            "benchmark.store": "history",
            "checks.claims": "checks.base",
            "checks.compare": "numerics.compare",
            "checks.reference": "numerics.reference",
            "checks.tolerances": "numerics.tolerances",
            "config": "core.config",
            "plugin.model_class": "engine.model_class",
            "plugin.without_pytest": "plugin.script",
            "errors": "core.errors",
            "families": "classify",
            "predict.hardware_selector": "compat.hardware_selector",
            "predict.prediction": "core.prediction",
            "predictor.plots": "plots",
            "predictor.prediction": "core.prediction",
            "predictor": "predict",
            "registry.every": "registry.auto_classes",
            "reports": "reporting",
            "results": "core.results",
            "spec": "core.spec",
        }.items()
    }

    def find_spec(self, name: str, _path: Any = None, _target: Any = None) -> Any:
        old = next((old for old in self._MOVED if name == old or name.startswith(f"{old}.")), None)
        if old is None:
            return None
        import warnings
        from importlib.machinery import ModuleSpec

        new = self._MOVED[old] + name.removeprefix(old)
        warnings.warn(f"{name} has moved: import {new}.", DeprecationWarning, stacklevel=2)
        return ModuleSpec(name, self, origin=new)  # type: ignore[arg-type]  # create_module and exec_module suffice

    def create_module(self, spec: Any) -> Any:
        from importlib import import_module

        module = import_module(spec.origin)
        spec.loader_state = module.__spec__
        return module

    def exec_module(self, module: Any) -> None:
        """Give the module back its own spec, which the import replaced: `importlib.resources` reads it.

        The module itself was executed under its own name.
        """
        module.__spec__ = module.__spec__.loader_state


sys.meta_path.append(_MovedModules())
