"""A model on a kind of device: what is known for and against it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pytest_hfaccel.advisor.requirements import Requirements
from pytest_hfaccel.advisor.support import Support

UNKNOWN = "not known: neither the model's dimensions nor a class whose defaults could be assumed were found"


@dataclass(frozen=True)
class Candidate:
    """A model on a kind of device.

    Attributes:
        kind: Kind of device.
        is_present: Whether this machine has it.
        presence: What was found, or why it is absent.
        support: Whether the model runs there.
        needs: What it needs there; `None` where its dimensions are not known.
        peak_mb: Peak memory with one sample, computed or given; `None` where neither.
        fits: Whether that fits the device; `None` where that is not known.
    """

    kind: str
    is_present: bool
    presence: str
    support: Support
    needs: Requirements | None
    peak_mb: int | None
    fits: bool | None

    @property
    def is_usable(self) -> bool:
        """Whether nothing known speaks against it."""
        return self.support.runs and self.fits is not False

    def describe(self) -> str:
        """Say in half a sentence what speaks for or against it."""
        parts = ["present" if self.is_present else f"not present ({self.presence})"]
        parts.append(f"{self.support.basis} {self.support.support}")
        if self.peak_mb is not None:
            verdict = {True: "fits", False: "does not fit", None: "its memory is not known"}[self.fits]
            dtype = f" at {self.needs.dtype}" if self.needs else ""
            parts.append(f"needs at least {self.peak_mb} MB{dtype}, {verdict}")
        return f"{self.kind}: {', '.join(parts)}"

    def profile(self) -> dict[str, Any]:
        """Return the entry of `hardware_profile` as plain JSON, in the form overrides are given in."""
        return {
            "compatible": self.is_usable,
            "system_available": self.is_present,
            "fits": self.fits,
            "memory_usage": {"peak": self.peak_mb},
            **self.support.to_json(),
            "explanation": self.describe(),
        }

    def requirements(self) -> dict[str, Any]:
        """Return the resource requirements as plain JSON; what is not known is `None`."""
        if self.needs:
            return self.needs.to_json()
        given = {"min_memory_mb": self.peak_mb, "recommended_memory_mb": self.peak_mb} if self.peak_mb else {}
        source = "given by the caller's hardware profile" if given else UNKNOWN
        names = ("min_memory_mb", "recommended_memory_mb", "cpu_cores", "disk_space_mb", "batch_size")
        sources = {name: source if name in given else UNKNOWN for name in names}
        return {**dict.fromkeys(names), **given, "device": self.kind, "fits": None, "sources": sources}
