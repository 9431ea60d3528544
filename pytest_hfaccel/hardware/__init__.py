"""What hardware this machine has, in two steps: cheap probes at collection, confirmation by the runtimes later.

report = probe_devices()              # milliseconds; imports no runtime, starts no process
report.best(), report.find(Device.parse("cuda:0")).reason
confirm_devices(report.present())     # seconds; loads the runtimes and computes on each device
"""

from __future__ import annotations

from pytest_hfaccel.hardware.confirm import confirm_devices
from pytest_hfaccel.hardware.machine import machine_facts
from pytest_hfaccel.hardware.presence import HardwareReport, Presence
from pytest_hfaccel.hardware.probe import probe_devices

__all__ = ["HardwareReport", "Presence", "confirm_devices", "machine_facts", "probe_devices"]
