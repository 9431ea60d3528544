"""How fast a device is at the operators that models are made of: measured in under half a minute, and kept."""

from __future__ import annotations

from pytest_hfaccel.predict.calibration.calibrating import calibrate
from pytest_hfaccel.predict.calibration.records import (
    DeviceCalibration,
    TimedOperator,
    load_calibrations,
    save_calibration,
)

__all__ = ["DeviceCalibration", "TimedOperator", "calibrate", "load_calibrations", "save_calibration"]
