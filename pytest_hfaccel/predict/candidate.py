"""A piece of hardware as a candidate for a model: the prediction, and what speaks for or against it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pytest_hfaccel.advisor.support import RUNNING
from pytest_hfaccel.core.devices import BROWSER_KINDS
from pytest_hfaccel.predict.platforms import Platform
from pytest_hfaccel.predict.prediction import INTERVAL, Estimate, Prediction
from pytest_hfaccel.predict.splitting import Split
from pytest_hfaccel.predict.words import MIB


@dataclass(frozen=True)
class Candidate:
    """A model on a piece of hardware.

    Attributes:
        platform: The hardware.
        prediction: What is predicted there, on one device.
        split: How the model is split over several devices of the kind; `None` on one device.
    """

    platform: Platform
    prediction: Prediction
    split: Split | None = None

    @property
    def name(self) -> str:
        """The name of the hardware, as the user wrote it."""
        return self.platform.name

    @property
    def latency_ms(self) -> Estimate | None:
        """Time of the whole batch."""
        return self.split.chosen.step_ms if self.split else self.prediction.latency_ms

    @property
    def throughput(self) -> Estimate | None:
        """Samples per second."""
        latency = self.latency_ms
        if latency is None:
            return None
        samples = 1e3 * self.prediction.question.batch
        return Estimate(samples / latency.value, samples / latency.high, samples / latency.low)

    @property
    def memory_mb(self) -> Estimate | None:
        """Peak on each device, in MiB."""
        if self.split is None:
            return self.prediction.memory_mb
        mib = self.split.chosen.memory.total / MIB
        return Estimate(mib, mib, 2 * mib)  # as `learning.memory` does where no overhead was measured

    @property
    def fits(self) -> bool | None:
        """Whether it fits; `None` where that is not known."""
        return self.split.chosen.fits if self.split else self.prediction.fits

    @property
    def support(self) -> dict[str, Any]:
        """What is declared or was measured of the model on this kind of hardware."""
        return dict(self.prediction.details.get("support") or {})

    @property
    def is_supported(self) -> bool:
        """Whether nothing known says that it does not run there."""
        return self.support.get("support", "real") in RUNNING

    @property
    def is_usable(self) -> bool:
        """Whether it can be recommended."""
        return self.is_supported and self.fits is not False

    @property
    def has_number(self) -> bool:
        """Whether time and memory are predicted."""
        return self.latency_ms is not None and self.memory_mb is not None

    @property
    def against(self) -> str:
        """What speaks against it, half a sentence; empty where nothing does."""
        if not self.is_supported:
            return (
                f"{self.support.get('basis', 'declared')} {self.support.get('support')}: {self.support.get('reason')}"
            )
        if self.fits is False:
            return self.split.to_json()["explanation"] if self.split else self.prediction.advice
        return ""

    def numbers(self) -> dict[str, Any]:
        """Return the prediction in the guide's form, with its intervals; numbers in samples/s, ms and MiB."""
        latency, throughput, memory = self.latency_ms, self.throughput, self.memory_mb
        if latency is None or throughput is None or memory is None:
            return {"memory_usage": memory.value if memory else None, **self._about()}
        return {
            "throughput": throughput.value,
            "latency": latency.value,
            "memory_usage": memory.value,
            "interval": {
                "level": INTERVAL,
                "throughput": _ends(throughput),
                "latency": _ends(latency),
                "memory_usage": _ends(memory),
            },
            **self._about(),
        }

    def _about(self) -> dict[str, Any]:
        found = self.prediction
        about = {
            "source": str(found.source),
            "basis": found.basis,
            "rows": found.rows,
            "fits": self.fits,
            "advice": found.advice if self.split is None else "",
            "device": self.platform.title,
            "device_memory": self.platform.memory_bytes / MIB if self.platform.memory_bytes else None,
            "is_present": self.platform.is_present,
            "passed_over": found.details.get("passed_over", {}),
            "support": self.support,
        }
        if self.split is not None:
            about["distributed"] = self.split.to_json()
        if self.platform.kind in BROWSER_KINDS and self.latency_ms is None:
            about["advice"] = "Runs in a browser: no number is predicted without a measured row of it."
        return about


def _ends(estimate: Estimate) -> list[float]:
    return [estimate.low, estimate.high]
