"""Installed packages, and what torch was built for, read from files: importing torch would take seconds."""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

_ASSIGNED = re.compile(r"^(\w+)\s*(?::[^=]*)?=\s*'([^']*)'\s*$", re.MULTILINE)

INSTALL_HELP = "https://pytorch.org/get-started/locally/"
"""Where torch's own builds for each kind of device are listed."""


@dataclass(frozen=True)
class TorchBuild:
    """A torch installation.

    Attributes:
        version: E.g. `2.13.0+cpu`; empty when torch is not installed.
        cuda: CUDA version it is built for; empty without.
        hip: ROCm's HIP version it is built for; empty without.
        xpu: SYCL version it is built for; empty without.
    """

    version: str = ""
    cuda: str = ""
    hip: str = ""
    xpu: str = ""

    def why_not(self, kind: str) -> str:
        """Return why this torch cannot use a kind of device (`cuda`, `rocm`, `xpu`); empty when it can."""
        if not self.version:
            return "torch is not installed"
        if {"cuda": self.cuda, "rocm": self.hip, "xpu": self.xpu}[kind]:
            return ""
        name = {"cuda": "CUDA", "rocm": "ROCm", "xpu": "XPU"}[kind]
        return f"this torch ({self.version}) is built without {name}; builds with it: {INSTALL_HELP}"


def installed_torch(folder: Path | None = None) -> TorchBuild:
    """Read torch's `version.py`.

    Args:
        folder: Folder of the torch package; found among the installed packages when not given.
    """
    folder = folder or package_folder("torch")
    if folder is None:
        return TorchBuild()
    try:
        text = (folder / "version.py").read_text(encoding="utf-8")
    except OSError:
        return TorchBuild()
    assigned = dict(_ASSIGNED.findall(text))
    return TorchBuild(
        assigned.get("__version__", ""), assigned.get("cuda", ""), assigned.get("hip", ""), assigned.get("xpu", "")
    )


def package_folder(package: str) -> Path | None:
    """Return where a package is installed; `None` where it is not."""
    spec = find_spec(package)
    locations = spec.submodule_search_locations if spec else None
    return Path(next(iter(locations))) if locations else None
