"""What a name of a model means: its class and its real dimensions."""

from __future__ import annotations

from pytest_hfaccel.advisor.naming.finding import ModelFinder
from pytest_hfaccel.advisor.naming.named_model import NamedModel

__all__ = ["ModelFinder", "NamedModel"]
