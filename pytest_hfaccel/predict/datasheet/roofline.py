"""The plain roofline of a device's data sheet, and what is reached of it.

Williams, Waterman, Patterson 2009, "Roofline: an insightful visual performance model": an operator takes at least as
long as its operations take at peak speed, and at least as long as its bytes take at the memory's bandwidth.
"""

from __future__ import annotations

from dataclasses import dataclass

from pytest_hfaccel.predict.datasheet.specification import DeviceSpecification
from pytest_hfaccel.tracing.trace import ModelTrace


@dataclass(frozen=True)
class Reached:
    """What models reach of a data sheet.

    Attributes:
        compute: Share of the peak speed that products reach at fp32.
        half: The same at bf16 and fp16, whose matrix units are harder to feed.
        memory: Share of the memory's bandwidth.
        launch_seconds: What each operator costs beyond that: the framework's own time.
    """

    compute: float
    half: float
    memory: float
    launch_seconds: float

    def share(self, dtype: str) -> float:
        """Return the share of the peak that is reached at a dtype."""
        return self.half if dtype in ("bf16", "fp16") else self.compute


PERFECT = Reached(1.0, 1.0, 1.0, 0.0)
"""The data sheet itself, which nothing can be faster than."""


def roofline_seconds(trace: ModelTrace, device: DeviceSpecification, reached: Reached = PERFECT) -> float | None:
    """Return the seconds of a forward pass (a training step) on a device; `None` where its speed is not published.

    Args:
        trace: What the model does.
        device: Its data sheet.
        reached: What is reached of it.
    """
    peak = device.peak(trace.dtype)
    if peak is None:
        return None
    flops, bandwidth = peak * reached.share(device.computes_at(trace.dtype)), device.bandwidth * reached.memory
    operators = sum(
        one.count * max(one.flops / flops, (one.read_bytes + one.written_bytes) / bandwidth)
        for one in trace.operators
        if not one.is_view
    )
    return operators + trace.launches * reached.launch_seconds
