"""The versions a result depends on."""

from __future__ import annotations

import platform
from importlib import metadata

_PACKAGES = (
    "pytest-hfaccel",
    "pytest",
    "torch",
    "transformers",
    "tokenizers",
    "safetensors",
    "huggingface-hub",
    "numpy",
    "accelerate",
    "openvino",
    "nncf",
    "torchao",
    "onnx",
    "onnxruntime",
)


def installed_versions() -> dict[str, str | None]:
    """Return Python's version and those of the packages that decide a result; `None` for one that is not installed.

    Nothing is imported.
    """
    return {"python": platform.python_version(), **{name: _version(name) for name in _PACKAGES}}


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
