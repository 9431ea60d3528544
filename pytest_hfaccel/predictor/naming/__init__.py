"""What a name of a model means: its class and its real dimensions."""

from __future__ import annotations

from pytest_hfaccel.predictor.naming.finding import ModelFinder
from pytest_hfaccel.predictor.naming.named_model import NamedModel

__all__ = ["ModelFinder", "NamedModel"]
