"""Where each model family is declared to run: the start of the compatibility matrix, before anything is measured."""

from __future__ import annotations

from pytest_hfaccel.advisor.support import Support
from pytest_hfaccel.core.devices import BROWSER_KINDS, HARDWARE_KINDS, TORCH_KINDS

KINDS = HARDWARE_KINDS
"""The kinds of device the matrix has, in the order in which they are preferred where no speed is known."""

_TESTED_KINDS = ("cpu",)
"""The kinds of torch's devices on which this package's own runs have been made (README, "What has run where")."""

FAMILIES = ("embedding", "text_generation", "vision", "audio", "multimodal", "video")

_ON_OPENVINO = ("embedding", "text_generation", "vision", "audio", "video")
"""The families that the old guide declares for OpenVINO; it calls multimodal models a simulation there."""


def declared_support(family: str, kind: str) -> Support:
    """Return what is declared of a family on a kind of device."""
    if kind in TORCH_KINDS:
        same = "transformers runs the same torch code on every torch device"
        if kind in _TESTED_KINDS:
            return Support("real", "declared", same)
        return Support("untested", "declared", f"{same}, but no run on {kind} is known")
    if kind == "openvino" and family in _ON_OPENVINO:
        return Support("real", "declared", f"declared for the {family} family")
    if kind in BROWSER_KINDS:
        return Support("unavailable", "declared", "no built-in backend runs models in a browser")
    of_family = f"{family} models" if family else "models of an unknown family"
    return Support("unavailable", "declared", f"nothing is declared for {of_family} on {kind}")
