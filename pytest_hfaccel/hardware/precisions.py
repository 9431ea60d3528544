"""Which precisions a device of this machine computes at, from its instruction sets and the installed packages.

An instruction that only converts (F16C) is no arithmetic: without more, torch computes half precision on a CPU several
times slower than fp32, and OpenVINO computes at fp32 without saying so.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from importlib.util import find_spec

from pytest_hfaccel.core.devices import BROWSER_KINDS, TORCH_KINDS, kind_named
from pytest_hfaccel.core.presence import Presence

_TORCH_CPU = {
    "bf16": ("AVX512_BF16", "AMX_BF16", "BF16"),
    "fp16": ("AVX512_FP16", "AMX_FP16", "NEON_FP16"),
}
_OPENVINO_CPU = {"bf16": ("AVX512_BF16", "AMX_BF16"), "fp16": ("AVX512_FP16", "AMX_FP16", "NEON_FP16")}
"""dtype -> the instruction sets of which one is needed to compute at it; what the CPU plugin of OpenVINO 2026.4 and
oneDNN in torch 2.13 ask for."""

_INT8_PACKAGES = {**dict.fromkeys(TORCH_KINDS, "torchao"), "openvino": "nncf"}


@dataclass(frozen=True)
class PrecisionSupport:
    """How a device computes at a dtype.

    Attributes:
        runs: False where it refuses.
        is_native: Whether it has instructions for it; without, its speed follows from no data sheet.
        reason: Why not, without a full stop; empty where it is native.
    """

    runs: bool = True
    is_native: bool = True
    reason: str = ""


NATIVE = PrecisionSupport()


def precision_support(presence: Presence, dtype: str) -> PrecisionSupport:
    """Return how a device of this machine computes at a dtype; of devices about which nothing is known, natively.

    Args:
        presence: The device; of CPUs, `details["flags"]` are the instruction sets.
        dtype: One of `pytest_hfaccel.core.spec.DTYPES`.
    """
    device = presence.device.eager
    torch = kind_named(device.kind).torch
    if torch is not None and dtype not in torch.dtypes:
        return PrecisionSupport(False, False, f"its description allows {', '.join(torch.dtypes)} only")
    package = _INT8_PACKAGES.get(device.kind) if dtype == "int8" else None
    if package is not None and find_spec(package) is None:
        return PrecisionSupport(False, False, f"int8 needs {package}, which rounds the weights and is not installed")
    if device.kind == "onnxruntime" and device.target == "CPU":
        return _onnxruntime_cpu(dtype, presence.details.get("flags") or ())
    if device.kind == "executorch" and dtype != "fp32":
        return PrecisionSupport(False, False, f"no programs in {dtype} are made for XNNPACK")
    if device.kind in BROWSER_KINDS and dtype != "fp32":
        return PrecisionSupport(False, False, "the graphs that are made for browsers are in fp32")
    on_openvino = device.kind == "openvino" and device.target == "CPU"
    if not on_openvino and device.kind != "cpu":
        return NATIVE
    wanted = (_OPENVINO_CPU if on_openvino else _TORCH_CPU).get(dtype)
    flags = presence.details.get("flags")
    if wanted is None or set(wanted) & set(flags or ()):
        return NATIVE
    if not flags:
        return PrecisionSupport(is_native=False, reason="the instruction sets of this CPU cannot be read")
    what = f"this CPU has no instructions for {dtype} (one of {', '.join(wanted)})"
    if on_openvino:
        return PrecisionSupport(False, False, f"{what}, so OpenVINO would compute at fp32 without saying so")
    return PrecisionSupport(is_native=False, reason=f"{what}, so torch emulates it, slower than fp32")


def _onnxruntime_cpu(dtype: str, flags: Collection[str]) -> PrecisionSupport:
    """ONNX Runtime's CPU provider has no kernels for bf16, and those for fp16 on ARM only."""
    if dtype not in ("bf16", "fp16") or (dtype == "fp16" and "NEON_FP16" in flags):
        return NATIVE
    why = f"ONNX Runtime's CPU provider has no products in {dtype}"
    return PrecisionSupport(False, False, why + (", and would compute at fp32 without saying so" * (dtype == "fp16")))
