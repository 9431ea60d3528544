"""Hardware-model integration: where a model should run, what it needs there, and why.

Imports neither torch nor transformers; they are imported when a model's cost is computed for the first time.
"""

from __future__ import annotations

from pytest_hfaccel.advisor.classifier import HardwareAwareModelClassifier, get_hardware_aware_model_classification
from pytest_hfaccel.advisor.compatibility import CompatibilityMatrix
from pytest_hfaccel.advisor.cost import ArchitectureCost
from pytest_hfaccel.advisor.costs import cost_of
from pytest_hfaccel.advisor.machine import DeviceFacts, Machine
from pytest_hfaccel.advisor.requirements import Requirements, requirements_on

__all__ = [
    "ArchitectureCost",
    "CompatibilityMatrix",
    "DeviceFacts",
    "HardwareAwareModelClassifier",
    "Machine",
    "Requirements",
    "cost_of",
    "get_hardware_aware_model_classification",
    "requirements_on",
]
