"""Devices that are not here: their public specifications, and what models reach of them."""

from __future__ import annotations

from pytest_hfaccel.predict.datasheet.specification import DeviceSpecification, Link
from pytest_hfaccel.predict.datasheet.specifications import Specifications, load_specifications

__all__ = ["DeviceSpecification", "Link", "Specifications", "load_specifications"]
