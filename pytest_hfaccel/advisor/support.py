"""One entry of the compatibility matrix."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

RUNNING = ("real", "untested", "emulated")
"""The words for what runs, the best one first."""


@dataclass(frozen=True)
class Support:
    """Whether a model or a family runs on a kind of device, and how that is known.

    Attributes:
        support: `real` (that hardware runs it), `untested` (nothing speaks against it, but no run is known), `emulated`
            (the real runtime on a software adapter), `failing` (it was tried there and failed) or `unavailable`.
        basis: `declared`, `measured`, `detected` (of the device's instruction sets or the installed packages), or
            `override` when the caller said so.
        reason: Half a sentence.
        cell: Id of the measured cell, empty when declared.
        when: Start of the run that measured it, ISO 8601, empty when declared.
        where: The device and machine that measured it, empty when declared.
    """

    support: str
    basis: str
    reason: str
    cell: str = ""
    when: str = ""
    where: str = ""

    @property
    def runs(self) -> bool:
        """Whether it runs, for real or on a software adapter, as far as is known."""
        return self.support in RUNNING

    def to_json(self) -> dict[str, Any]:
        """Return the plain-JSON form; what is empty is left out."""
        return {key: value for key, value in vars(self).items() if value}
