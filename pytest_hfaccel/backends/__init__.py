"""Backends by device kind: import strings, resolved when the first cell of a device is loaded."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import entry_points

from pytest_hfaccel.backends.base import Backend, LoadedModel, ModelSource, Placement, SampleInputs, WeightChange
from pytest_hfaccel.core.errors import BackendUnavailable

__all__ = ["Backend", "Backends", "LoadedModel", "ModelSource", "Placement", "SampleInputs", "WeightChange"]

_TORCH = "pytest_hfaccel.backends.torch.backend:TorchBackend"

_BUILT_IN = {
    "cpu": _TORCH,
    "cuda": _TORCH,
    "rocm": _TORCH,
    "mps": _TORCH,
    "xpu": _TORCH,
    "openvino": "pytest_hfaccel.backends.openvino.backend:OpenVINOBackend",
    "fake": "pytest_hfaccel.backends.fake.backend:FakeBackend",
}

ENTRY_POINT_GROUP = "pytest_hfaccel.backends"


class Backends:
    """The backends of a run: built in, from entry points, and registered by hooks.

    A third-party backend is an entry point in the group `pytest_hfaccel.backends`, named after the device kind it
    serves, or is registered by the hook `pytest_hfaccel_backends`.
    """

    def __init__(self) -> None:
        self._imports = dict(_BUILT_IN)
        self._made: dict[str, Backend] = {}
        for point in entry_points(group=ENTRY_POINT_GROUP):
            self.register(point.name, point.value)

    def register(self, kind: str, backend: str | Backend) -> None:
        """Serve a device kind with a backend, given as an object or as `module:Class`.

        Raises:
            ValueError: The kind is served already.
        """
        if kind in self._imports or kind in self._made:
            taken = self._imports.get(kind) or type(self._made[kind]).__qualname__
            raise ValueError(f"device kind {kind!r} is served already, by {taken}")
        if isinstance(backend, str):
            self._imports[kind] = backend
        else:
            self._made[kind] = backend

    def kinds(self) -> list[str]:
        """The device kinds that some backend serves."""
        return sorted({*self._imports, *self._made})

    def for_kind(self, kind: str) -> Backend:
        """Return the backend of a device kind, importing it on first use.

        Raises:
            BackendUnavailable: No backend serves the kind, or its runtime is not installed.
        """
        if kind not in self._made:
            if kind not in self._imports:
                raise BackendUnavailable(
                    f"no backend serves {kind!r} devices. Served: {', '.join(self.kinds())}.",
                    hint=f"A backend can be registered by an entry point in the group {ENTRY_POINT_GROUP!r}.",
                )
            module, _, name = self._imports[kind].partition(":")
            # One backend may serve several kinds: share the instance.
            made = next(
                (self._made[k] for k, v in self._imports.items() if k in self._made and v == self._imports[kind]), None
            )
            try:
                self._made[kind] = made or getattr(import_module(module), name)()
            except ImportError as error:
                raise BackendUnavailable(f"the backend of {kind!r} devices cannot be imported: {error}") from error
        return self._made[kind]
