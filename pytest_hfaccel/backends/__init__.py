"""Backends by device kind: import strings, resolved when the first cell of a device is loaded."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoints, entry_points, version

from packaging.version import Version

from pytest_hfaccel.backends.base import (
    Backend,
    DeviceProbe,
    LoadedModel,
    ModelSource,
    Placement,
    SampleInputs,
    WeightChange,
)
from pytest_hfaccel.core.devices import BUILT_IN, DeviceKind, Traits, described_kinds, register_kind, torch_kind
from pytest_hfaccel.core.errors import BackendUnavailable, ConfigError
from pytest_hfaccel.core.presence import Presence
from pytest_hfaccel.core.spec import Device

__all__ = [
    "Backend",
    "Backends",
    "DeviceProbe",
    "LoadedModel",
    "ModelSource",
    "Placement",
    "SampleInputs",
    "WeightChange",
]

_EXPORTERS_SINCE = "5.23"
"""The first release whose exporters describe what they trace; earlier ones run models with torch only."""

_CLASSES = {
    "torch": "pytest_hfaccel.backends.torch.backend:TorchBackend",
    "openvino": "pytest_hfaccel.backends.openvino.backend:OpenVINOBackend",
    "onnxruntime": "pytest_hfaccel.backends.onnxruntime.backend:OnnxRuntimeBackend",
    "executorch": "pytest_hfaccel.backends.executorch.backend:ExecuTorchBackend",
    "browser": "pytest_hfaccel.backends.browser.backend:BrowserBackend",
    "fake": "pytest_hfaccel.backends.fake.backend:FakeBackend",
}

ENTRY_POINT_GROUP = "pytest_hfaccel.backends"
DEVICES_GROUP = "pytest_hfaccel.devices"
"""Entry points that describe devices of torch: each is named after its kind, and its value is a mapping with the keys
of `pytest_hfaccel.core.devices.TorchDevice`."""


@cache
def _entry_points(group: str, _path: tuple[str, ...]) -> EntryPoints:
    """Read a group of entry points of all packages on a path, once: a run asks several times, each takes 50 ms."""
    return entry_points(group=group)


def register_described_devices() -> None:
    """Add the kinds of device that installed packages describe; what a registry file says of a kind stands.

    Raises:
        ConfigError: A description cannot be imported, is none, or has the name of a built-in kind.
    """
    for point in _entry_points(DEVICES_GROUP, tuple(sys.path)):
        if any(kind.name == point.name for kind in described_kinds()):
            continue
        place = f"entry point {point.name!r} = {point.value!r} in the group {DEVICES_GROUP!r}"
        try:
            description = point.load()
            if not isinstance(description, Mapping):
                raise ConfigError(f"{description!r} is not a mapping")
            if point.name in BUILT_IN:
                raise ConfigError(f"{point.name!r} is a built-in kind of device")
            register_kind(torch_kind(point.name, **description))
        except ConfigError as error:
            raise ConfigError(f"{place}: {error.message}") from error
        except Exception as error:
            raise ConfigError(f"{place}: {type(error).__name__}: {error}") from error


class Backends:
    """The backends of a run: built in, from entry points, and registered by hooks.

    A third-party backend is an entry point in the group `pytest_hfaccel.backends`, named after the device kind it
    serves, or is registered by the hook `pytest_hfaccel_backends`.
    """

    def __init__(self) -> None:
        register_described_devices()
        kinds = (*BUILT_IN.values(), *described_kinds())
        self._imports = {kind.name: _CLASSES[kind.backend] for kind in kinds if kind.backend}
        self._instances: dict[str, Backend] = {}
        for point in _entry_points(ENTRY_POINT_GROUP, tuple(sys.path)):
            self.register(point.name, point.value)

    def register(self, kind: str, backend: str | Backend) -> None:
        """Serve a device kind with a backend, given as an object or as `module:Class`.

        The module is imported now, for the backend's traits. If that fails, `for_kind` says so.

        Raises:
            ValueError: The kind is served already.
        """
        if kind in self._imports or kind in self._instances:
            taken = self._imports.get(kind) or type(self._instances[kind]).__qualname__
            raise ValueError(f"device kind {kind!r} is served already, by {taken}")
        if isinstance(backend, str):
            self._imports[kind] = backend
            with suppress(BackendUnavailable):
                backend = self.for_kind(kind)
        else:
            self._instances[kind] = backend
        if kind not in BUILT_IN:
            register_kind(DeviceKind(kind, traits=getattr(backend, "traits", Traits())))

    def kinds(self) -> list[str]:
        """The device kinds that some backend serves."""
        return sorted({*self._imports, *self._instances})

    def for_kind(self, kind: str) -> Backend:
        """Return the backend of a device kind, importing it on first use.

        Raises:
            BackendUnavailable: No backend serves the kind, or its runtime is not installed.
        """
        kind = kind.partition("+")[0]  # the backend of a device compiles and splits models for it, too
        if kind not in self._instances:
            if kind not in self._imports:
                raise BackendUnavailable(
                    f"no backend serves {kind!r} devices. Served: {', '.join(self.kinds())}.",
                    hint=f"A backend can be registered by an entry point in the group {ENTRY_POINT_GROUP!r}.",
                )
            path = self._imports[kind]
            module, _, name = path.partition(":")
            # One backend may serve several kinds: share the instance.
            same = (self._instances.get(other) for other, value in self._imports.items() if value == path)
            shared = next((instance for instance in same if instance is not None), None)
            try:
                self._instances[kind] = shared or getattr(import_module(module), name)()
            except ImportError as error:
                raise BackendUnavailable(_why_not_imported(kind, error)) from error
        return self._instances[kind]

    def probe(self) -> list[Presence]:
        """Ask the third-party backends for their devices; one whose probe fails is absent, with the reason."""
        ours = {*BUILT_IN, *(kind.name for kind in described_kinds())}
        return [presence for kind in self.kinds() if kind not in ours for presence in self._probe(kind)]

    def _probe(self, kind: str) -> list[Presence]:
        try:
            backend = self.for_kind(kind)
            return backend.probe() if isinstance(backend, DeviceProbe) else []
        except Exception as error:
            return [Presence(Device(kind), False, f"its backend failed to answer: {type(error).__name__}: {error}")]


def _why_not_imported(kind: str, error: ImportError) -> str:
    if (error.name or "").startswith("transformers.exporters"):
        installed = version("transformers")
        if Version(installed) < Version(_EXPORTERS_SINCE):
            return (
                f"{kind!r} devices need the exporters of transformers {_EXPORTERS_SINCE} or newer, and {installed} is "
                f"installed; pip install 'transformers>={_EXPORTERS_SINCE}'"
            )
    return f"the backend of {kind!r} devices cannot be imported: {error}"
