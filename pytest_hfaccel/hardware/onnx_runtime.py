"""The devices of ONNX Runtime: which providers are installed, and whether their hardware is there."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from pytest_hfaccel.backends.onnxruntime.providers import PROVIDERS, Provider, how_to_install
from pytest_hfaccel.core.presence import Presence, installed_version
from pytest_hfaccel.core.spec import Device
from pytest_hfaccel.hardware.amd import probe_rocm
from pytest_hfaccel.hardware.intel import has_intel_accelerator
from pytest_hfaccel.hardware.nvidia import probe_cuda
from pytest_hfaccel.hardware.torch_build import TorchBuild, package_folder

_CONVERTERS = ("onnx", "onnxscript", "onnx_ir")
_INSTALL = "pip install 'pytest-hfaccel[onnx]'"
_SOFTWARE_ADAPTER = "ORT_WEBGPU_EP_ALLOW_SOFTWARE_ADAPTER"
"""Variable of the WebGPU plugin; with it a software adapter will do, and the results are `emulated`."""

_OF_ANY_TORCH = TorchBuild("any", cuda="any", hip="any")
"""ONNX Runtime brings its own CUDA and ROCm libraries: what torch was built for does not matter."""


def probe_onnxruntime(
    cpu: Presence,
    root: Path = Path("/"),
    folder_of: Callable[[str], Path | None] = package_folder,
    environ: Mapping[str, str] | None = None,
    system: str | None = None,
    machine: str | None = None,
) -> list[Presence]:
    """Look for ONNX Runtime and its providers; an entry each, several for several GPUs.

    Args:
        cpu: The CPU.
        root: Where `/sys` is looked for.
        folder_of: Returns the folder of an installed module, `None` where there is none.
        environ: Environment to read instead of `os.environ`.
        system: As `sys.platform`.
        machine: As `platform.machine()`.
    """
    environ = os.environ if environ is None else environ
    system = sys.platform if system is None else system
    machine = platform.machine() if machine is None else machine
    build = folder_of("onnxruntime")
    missing = [name for name in ("onnxruntime", *_CONVERTERS) if folder_of(name) is None]
    if build is None or missing:
        reason = f"{', '.join(missing)} {'are' if len(missing) > 1 else 'is'} not installed; {_INSTALL}"
        return [Presence(_device(target), False, reason) for target in PROVIDERS]
    version = f"onnxruntime {_installed()}"
    found = []
    for provider in PROVIDERS.values():
        if provider.target == "CPU":
            details = {"flags": cpu.details["flags"]} if "flags" in cpu.details else {}
            found.append(Presence(_device("CPU"), True, version, cpu.name, cpu.memory_bytes, details))
        elif not _is_installed(provider, build, folder_of, system):
            reason = f"{version} has no {provider.name}"
            can = "" if provider.target == "CoreML" else f"; {how_to_install(provider)}"
            found.append(Presence(_device(provider.target), False, reason + can))
        else:
            found += _with_hardware(provider, cpu, root, environ, machine)
    return found


def _device(target: str) -> Device:
    return Device("onnxruntime", target)


def _installed() -> str:
    packages = dict.fromkeys(provider.package for provider in PROVIDERS.values() if not provider.plugin)
    versions = (installed_version(package) for package in packages)
    return next((version for version in versions if version), "(version not known)")


def _is_installed(provider: Provider, build: Path, folder_of: Callable[[str], Path | None], system: str) -> bool:
    if provider.target == "CoreML":
        return system == "darwin"
    plugin = folder_of(provider.plugin) if provider.plugin else None
    folders = [build / "capi", *([plugin] if plugin is not None else [])]
    return any(any(folder.glob(pattern)) for folder in folders for pattern in provider.libraries)


def _with_hardware(
    provider: Provider, cpu: Presence, root: Path, environ: Mapping[str, str], machine: str
) -> list[Presence]:
    """Return the devices of a provider that is installed: by its hardware where there is a cheap sign of it."""
    target = provider.target
    if target == "CUDA":
        return [_renamed(each, target) for each in probe_cuda(_OF_ANY_TORCH, environ=environ)]
    if target == "ROCm":
        return [_renamed(each, target) for each in probe_rocm(_OF_ANY_TORCH, root, environ)]
    reason = f"{provider.package} is installed"
    lacking = ""
    if target == "WebGPU" and environ.get(_SOFTWARE_ADAPTER) == "1":
        reason += f"; {_SOFTWARE_ADAPTER}=1, so a software adapter may run it: emulated then"
    elif target == "WebGPU" and root.joinpath("sys").is_dir() and not any(root.glob("sys/class/drm/renderD*")):
        lacking = f"no GPU (the kernel lists none in /sys/class/drm); {_SOFTWARE_ADAPTER}=1 allows a software adapter"
    elif target == "OpenVINO" and "intel" not in cpu.name.lower() and not has_intel_accelerator(root):
        lacking = "no CPU, GPU or NPU of Intel"
    elif target == "QNN" and machine.lower() not in ("arm64", "aarch64"):
        lacking = f"no Qualcomm NPU in a machine of the architecture {machine}"
    return [Presence(_device(target), not lacking, f"{reason}, but {lacking}" if lacking else reason)]


def _renamed(presence: Presence, target: str) -> Presence:
    number = presence.device.target
    return replace(presence, device=_device(target if number == "0" else f"{target}.{number}"))
