"""The battery: every built-in check, in the order in which a cell runs them.

Importing this package imports neither torch nor transformers: which checks a cell has is decided at collection.
"""

from __future__ import annotations

# Modules, not functions: a function of its module's name would hide the module.
from pytest_hfaccel.checks import (
    attention,
    batch_invariance,
    canary,
    compilation,
    determinism,
    forward,
    from_pretrained,
    generation,
    memory,
    padding_invariance,
    parity,
    performance,
    pipeline,
    placement,
    resolves,
    sensitivity,
    task_sense,
    training,
)
from pytest_hfaccel.checks.base import CELL, CLASS, Check, CheckContext, CheckRegistry
from pytest_hfaccel.checks.claims import Claim
from pytest_hfaccel.core.results import Stage
from pytest_hfaccel.core.spec import Cell, Weights
from pytest_hfaccel.core.tasks import generates, task_of

__all__ = ["Check", "CheckContext", "CheckRegistry", "Claim", "built_in_checks"]


def _always(_cell: Cell) -> bool:
    return True


def _pads(cell: Cell) -> bool:
    return task_of(cell.model).pads


def _generates(cell: Cell) -> bool:
    return generates(cell.model)


def _has_pipeline(cell: Cell) -> bool:
    return task_of(cell.model).pipeline is not None


def _is_trained(cell: Cell) -> bool:
    return cell.weights.kind == Weights.PRETRAINED


def _is_torch(cell: Cell) -> bool:
    """Whether the cell runs transformers' own code with weights of one precision, which can be trained and compiled."""
    return cell.device.traits.torch_module and cell.dtype != "int8"


_BATTERY = (
    Check("resolves", resolves.resolves, Stage.RESOLVE, CLASS, _always),
    Check("from_pretrained", from_pretrained.from_pretrained, Stage.LOAD, CLASS, _always),
    Check("placement", placement.placement, Stage.LOAD, CELL, _always),
    Check("forward", forward.forward, Stage.RUN, CELL, _always),
    Check("parity", parity.parity, Stage.COMPARE, CELL, _always),
    Check("determinism", determinism.determinism, Stage.COMPARE, CELL, _always),
    Check("sensitivity", sensitivity.sensitivity, Stage.COMPARE, CELL, _always),
    Check("batch_invariance", batch_invariance.batch_invariance, Stage.COMPARE, CELL, _always),
    Check("padding_invariance", padding_invariance.padding_invariance, Stage.COMPARE, CELL, _pads),
    Check("generation", generation.generation, Stage.COMPARE, CELL, _generates),
    Check("pipeline", pipeline.pipeline, Stage.COMPARE, CELL, _has_pipeline),
    Check("task_sense", task_sense.task_sense, Stage.COMPARE, CELL, _is_trained),
    Check("memory", memory.memory, Stage.RUN, CELL, _always),
    Check("canary", canary.canary, Stage.COMPARE, CELL, _always),
    Check("attention", attention.attention, Stage.COMPARE, CELL, _is_torch, attention.OPTION),
    Check("compile", compilation.compilation, Stage.COMPARE, CELL, _is_torch, compilation.OPTION),
    Check("training", training.training, Stage.RUN, CELL, _is_torch, training.OPTION),
    Check("performance", performance.performance, Stage.RUN, CELL, _always, "performance"),
)


def built_in_checks() -> CheckRegistry:
    """Return a registry of its own with the built-in checks, in the order in which they run."""
    registry = CheckRegistry()
    for check in _BATTERY:
        registry.add(check)
    return registry
