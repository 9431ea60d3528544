"""Memory without measured rows: computed bytes and the runtime's own, from the constants the advisor measured."""

from __future__ import annotations

from pytest_hfaccel.advisor.overhead import Overhead, overhead_of
from pytest_hfaccel.predict.prediction import Estimate
from pytest_hfaccel.tracing.trace import ModelTrace

_MIB = 2.0**20
_BELOW, _ABOVE = 0.85, 1.20
"""`docs/requirements_accuracy.md`: predicted from constants fitted on other models, four fifths of the registered
models stay within these factors."""
_UNMEASURED = 2.0
"""Where no overhead was measured the computed bytes are a lower bound; allocators of accelerators round up and keep
what was freed, and twice as much has room for both."""


def memory_of(trace: ModelTrace, device_kind: str) -> Estimate:
    """Return what a model adds to the memory of a device at the peak of a forward pass (a training step), in MiB."""
    overhead = overhead_of(device_kind)
    mib = _bytes(trace, overhead) / _MIB
    if overhead.is_measured:
        return Estimate(mib, _BELOW * mib, _ABOVE * mib)
    return Estimate(mib, mib, _UNMEASURED * mib)


def _bytes(trace: ModelTrace, overhead: Overhead) -> float:
    again = overhead.per_multiplied_byte * trace.multiplied_bytes
    running = overhead.per_activation_byte * trace.activation_bytes + overhead.per_output_byte * trace.output_bytes
    return overhead.base_bytes + trace.weight_bytes + again + running
