"""Models in fp64, which the references are made with."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from contextlib import AbstractContextManager
from copy import deepcopy
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pytest_hfaccel.backends.base import LoadedModel
    from pytest_hfaccel.checkpoints.checkpoint import Checkpoint


class Doubled:
    """A checkpoint whose fp64 model is a copy of a loaded fp32 one: to load it would take several times as long.

    Another implementation of `pytest_hfaccel.backends.base.ModelSource`.

    Args:
        checkpoint: The checkpoint. It answers everything but `torch_model`.
        lend: Gives its model on the CPU in fp32, which is left as it is.
    """

    def __init__(self, checkpoint: Checkpoint, lend: Callable[[], AbstractContextManager[LoadedModel]]) -> None:
        self._checkpoint = checkpoint
        self._lend = lend

    def torch_model(self, dtype: str, device: str = "cpu") -> Any:
        """Give the model in fp64 as a copy, and load it at any other dtype."""
        if dtype != "fp64":
            return self._checkpoint.torch_model(dtype, device)
        with self._lend() as loaded:
            return doubled(loaded.pipeline_model()).to(device)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._checkpoint, name)


def doubled(model: Any) -> Any:
    """Return a copy of a transformers model in fp64, as `from_pretrained(dtype=torch.float64)` makes it."""
    import torch

    # A module has a dozen collections of hooks, nearly all empty, which `deepcopy` spends most of its time on.
    empty = {
        id(hooks): OrderedDict[Any, Any]()
        for module in model.modules()
        for hooks in vars(module).values()
        if type(hooks) is OrderedDict and not hooks
    }
    copy = deepcopy(model, empty).double()
    for module in copy.modules():  # models ask their configs for the dtype, parts of them their own
        config: Any = getattr(module, "config", None)
        if getattr(config, "dtype", None) is not None:
            config.dtype = torch.float64
    return with_plain_experts(copy)


def with_plain_experts(model: Any) -> Any:
    """Have a mixture of experts compute one expert after the other, and return it.

    The products of groups that transformers chooses for it (`torch._grouped_mm`) do not know fp64.
    """
    if hasattr(model, "set_experts_implementation"):
        model.set_experts_implementation("eager")
    return model
