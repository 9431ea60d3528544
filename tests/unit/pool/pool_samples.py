"""Cells and pools for tests with fake models."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pytest_hfaccel.core.spec import Cell, Device, ModelSpec, Weights, WeightsChoice
from pytest_hfaccel.pool import ResourcePool


def make_cell(name: str, device: str = "cpu", dtype: str = "fp32") -> Cell:
    spec = ModelSpec(name=name, architecture="BertModel", task="fill-mask")
    return Cell(spec, Device.parse(device), dtype, WeightsChoice(Weights.TINY, "test"))


def make_pool(load: Callable[[Cell], Any], **options: Any) -> ResourcePool:
    """A pool of fake models, which have what the pool uses of a `LoadedModel`."""
    return ResourcePool(load, **options)
