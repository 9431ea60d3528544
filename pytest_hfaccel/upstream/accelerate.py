"""accelerate, seen in 1.15: the hooks that it puts on the modules of a model with a device map.

A weight that is offloaded is on `meta` in the model; `AlignDevicesHook.weights_map` has its values, by the name within
the module. Nothing public says which hook a module has (`_hf_hook`), or gives the values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


def offloaded_weights(model: Any) -> dict[str, Callable[[], torch.Tensor]]:
    """Return what reads each offloaded weight of a model, by the weight's name; empty where none is offloaded."""
    readers: dict[str, Callable[[], torch.Tensor]] = {}
    for name, module in model.named_modules():
        hook = _hook(module)
        if hook is not None:
            for own, tensor in (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)):
                if tensor.is_meta:
                    readers[f"{name}.{own}" if name else own] = partial(hook.weights_map.__getitem__, own)
    return readers


@contextmanager
def offloaded_weight_changed(model: Any, name: str, change: Callable[[torch.Tensor], None]) -> Iterator[None]:
    """Have an offloaded weight read as changed, for a `with` block; where it lies it stays as it is.

    Args:
        model: The model.
        name: The weight's name.
        change: Changes, in place, the copy that it is given.
    """
    place, _, own = name.rpartition(".")
    hook = _hook(model.get_submodule(place))
    assert hook is not None, f"{name} is not offloaded"  # noqa: S101 - asked of what `offloaded_weights` lists
    original = hook.weights_map
    wrong = original[own].clone()
    change(wrong)
    hook.weights_map = _Overlay(original, own, wrong)
    try:
        yield
    finally:
        hook.weights_map = original


class _Overlay(Mapping[str, Any]):
    def __init__(self, original: Mapping[str, Any], name: str, value: Any) -> None:
        self._original, self._name, self._value = original, name, value

    def __getitem__(self, name: str) -> Any:
        return self._value if name == self._name else self._original[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._original)

    def __len__(self) -> int:
        return len(self._original)


def _hook(module: Any) -> Any:
    """Return the hook that fetches a module's weights; `None` where it has its own."""
    hook = getattr(module, "_hf_hook", None)
    hooks = getattr(hook, "hooks", (hook,))
    return next((each for each in hooks if getattr(each, "weights_map", None) is not None), None)
