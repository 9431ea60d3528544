"""Where each model family is declared to run: the start of the compatibility matrix, before anything is measured."""

from __future__ import annotations

from pytest_hfaccel.advisor.support import Support

KINDS = ("cuda", "rocm", "xpu", "mps", "cpu", "openvino", "webnn", "webgpu", "qualcomm")
"""The kinds of device the matrix has, in the order in which they are preferred where nothing was measured.

OpenVINO follows the CPU, because it must convert a model first and holds its weights twice meanwhile; where it has a
GPU to run on it comes first (`detection`), and so it does for a model that was measured to be faster on it.
"""

TORCH_KINDS = ("cuda", "rocm", "mps", "xpu", "cpu")

_REAL = "real"
# The guide's matrix, for the kinds that are not torch's; "" where it says "simulation", because none is run here.
_GUIDE = {
    "embedding": {"openvino": _REAL, "webnn": _REAL, "webgpu": _REAL},
    "text_generation": {"openvino": _REAL, "webnn": _REAL, "webgpu": _REAL},
    "vision": {"openvino": _REAL, "webnn": _REAL, "webgpu": _REAL},
    "audio": {"openvino": _REAL, "webnn": "", "webgpu": ""},
    "multimodal": {"openvino": "", "webnn": "", "webgpu": ""},
    "video": {"openvino": _REAL, "webnn": "", "webgpu": ""},
}

FAMILIES = tuple(_GUIDE)


def declared_support(family: str, kind: str) -> Support:
    """Return what is declared of a family on a kind of device."""
    if kind in TORCH_KINDS:
        return Support("real", "declared", "transformers runs the same torch code on every torch device")
    word = _GUIDE.get(family, {}).get(kind)
    if word:
        return Support(word, "declared", f"declared for the {family} family")
    if word is None:
        return Support("unavailable", "declared", f"nothing is declared for {family} models on {kind}")
    return Support("unavailable", "declared", f"declared as a simulation for the {family} family, and none is run here")
