"""What a hardware profile says: little. Where a model fits hints at how large and of what kind it is.

The patterns are those of the guide's compatibility matrix (text models run everywhere, audio not in browsers,
multimodal models only on CUDA) and of usual sizes.
"""

from __future__ import annotations

from pytest_hfaccel.families.records import Analysis, HardwareProfile, analysis, nothing

SOURCE = "hardware_analysis"

_BROWSER = ("webnn", "webgpu")
_OTHER_ACCELERATORS = ("mps", "rocm", "openvino")
_LARGE_MB = 8000
"""Above this peak, in MB, a model is nearly always a language model: 4 billion parameters in fp16."""
_SMALL_MB = 2000
_CONFIDENCE = 0.4
_FAINT = 0.3


def analyze_hardware(profile: HardwareProfile) -> Analysis:
    """Guess a family from where a model runs and how much memory it takes, with low confidence.

    Args:
        profile: Device kind -> `compatible` and `memory_usage.peak` in MB.
    """
    works = {kind: bool(entry.get("compatible")) for kind, entry in profile.items()}
    peak = _peak(profile)
    if not works:
        return nothing(SOURCE, "the hardware profile is empty")
    if works.get("cuda") and _all_fail(works, _OTHER_ACCELERATORS):
        return analysis(SOURCE, "multimodal", None, _CONFIDENCE, 0.0, "runs on CUDA and on no other accelerator")
    if peak > _LARGE_MB:
        return analysis(SOURCE, "text_generation", None, _CONFIDENCE, 0.0, f"takes {peak:.0f} MB")
    if _all_fail(works, _BROWSER) and any(works.values()):
        return analysis(SOURCE, "audio", None, _FAINT, 0.0, "runs on accelerators, but not in a browser")
    if all(works.values()) and 0 < peak <= _SMALL_MB:
        return analysis(SOURCE, "embedding", None, _FAINT, 0.0, f"runs everywhere in {peak:.0f} MB")
    return nothing(SOURCE, "the hardware profile fits several families")


def _all_fail(works: dict[str, bool], kinds: tuple[str, ...]) -> bool:
    """Whether at least two of the kinds are stated, and none of those works."""
    stated = [works[kind] for kind in kinds if kind in works]
    return len(stated) >= 2 and not any(stated)


def _peak(profile: HardwareProfile) -> float:
    """The largest stated peak in MB, or 0."""
    usages = (entry.get("memory_usage") for entry in profile.values())
    return max((float(usage.get("peak") or 0) for usage in usages if isinstance(usage, dict)), default=0.0)
