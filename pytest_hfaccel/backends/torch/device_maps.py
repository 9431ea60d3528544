"""Models with a device map of accelerate.

`auto` splits them over all devices of a kind. With `offload` part of the weights is kept elsewhere, on the CPU for an
accelerator and on the disk for the CPU, and fetched when its layer runs.
"""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any

import torch

from pytest_hfaccel.backends.base import INT8, Placement, SplittableSource, WeightChange
from pytest_hfaccel.backends.memory import out_of_memory_raised
from pytest_hfaccel.backends.torch.devices import (
    DTYPES,
    effective_dtype,
    fp32_precision,
    our_name,
    parameter_dtypes,
)
from pytest_hfaccel.backends.torch.model import DeviceMemory, TorchModel, model_on_meta, weight_bytes
from pytest_hfaccel.core.devices import AUTO
from pytest_hfaccel.core.errors import BackendUnavailable
from pytest_hfaccel.core.spec import Cell
from pytest_hfaccel.upstream.accelerate import offloaded_weight_changed, offloaded_weights
from pytest_hfaccel.upstream.transformers import attention_implementation

DISK = "disk"

# accelerate keeps room for the largest layer free, so that half of a small model's bytes may have room for no layer.
_SHARES = (0.5, 0.75, 1.0, 1.25, 1.5, 2.0)
"""Shares of a model's bytes that its device is said to have room for, until some of the model fits there, not all."""


class MappedModel(TorchModel):
    """A loaded model with a device map.

    Args:
        model: The transformers model.
        dtype: The dtype floating-point inputs are cast to.
        device: torch's device on which it computes.
        placement: Where it is.
        seconds: How long loading took.
        folder: What weights on the disk may be in, besides the checkpoint.
    """

    def __init__(
        self,
        model: Any,
        dtype: torch.dtype,
        device: torch.device,
        placement: Placement,
        seconds: float,
        folder: tempfile.TemporaryDirectory[str],
    ) -> None:
        super().__init__(model, dtype, placement, _bytes_here(model), {"load": seconds})
        self._device = device
        self._memory = DeviceMemory(device)
        self._folder = folder

    @contextmanager
    def perturbed(self, change: WeightChange) -> Iterator[TorchModel]:
        """Give the same model with one weight made wrong, also one that is kept elsewhere."""
        if change.parameter not in offloaded_weights(self._model):
            with super().perturbed(change) as wrong:
                yield wrong
            return

        def make_wrong(weight: torch.Tensor) -> None:
            weight.view(-1)[change.index] += change.delta

        with offloaded_weight_changed(self._model, change.parameter, make_wrong):
            yield self

    def close(self) -> None:
        """Free the device's memory and the disk."""
        super().close()
        self._folder.cleanup()


def load_mapped(cell: Cell, source: SplittableSource, dtype: torch.dtype, facts: dict[str, Any]) -> MappedModel:
    """Load a model with a device map.

    Raises:
        BackendUnavailable: accelerate is not installed, the model cannot be split, or not at this precision.
        LoadError: transformers could not build the model.
        OutOfMemory: The device's memory did not suffice.
    """
    if find_spec("accelerate") is None:
        raise BackendUnavailable(
            f"{cell.device}: device maps need accelerate, which is not installed.",
            stage="load",
            hint="pip install 'pytest-hfaccel[models]' installs it.",
        )
    if cell.dtype == INT8:
        raise BackendUnavailable(
            f"{cell.device}: models at int8 are not split: torchao rounds whole weights.", stage="load"
        )
    device = torch.device(cell.device.torch_name)
    folder = tempfile.TemporaryDirectory(prefix="hfaccel-offloaded-")
    try:
        wanted = AUTO if cell.device.parallel == AUTO else _partial_map(cell, source, device)
        started = time.perf_counter()
        with out_of_memory_raised(cell.device.id, "load"):
            model = source.split_model(cell.dtype, {"device_map": wanted, "offload_folder": folder.name})
        seconds = time.perf_counter() - started
        placement = _placement(cell, model, facts, device)
        return MappedModel(model, dtype, device, placement, seconds, folder)
    except BaseException:
        folder.cleanup()
        raise


def _partial_map(cell: Cell, source: SplittableSource, device: torch.device) -> dict[str, Any]:
    """Return a device map that leaves about half of a model on its device."""
    from accelerate import infer_auto_device_map

    blank = model_on_meta(source).to(DTYPES[cell.dtype])
    blank.tie_weights()
    nbytes = sum(parameter.nbytes for parameter in blank.parameters())
    here: Any = "cpu" if device.type == "cpu" else (device.index or 0)
    elsewhere = DISK if device.type == "cpu" else "cpu"
    for share in _SHARES:
        room = {here: int(share * nbytes)} | ({} if elsewhere == DISK else {elsewhere: 2 * nbytes})
        found = infer_auto_device_map(
            blank, max_memory=room, no_split_module_classes=blank._no_split_modules, dtype=DTYPES[cell.dtype]
        )
        if {here, elsewhere} <= set(found.values()):
            return dict(found)
    raise BackendUnavailable(
        f"{cell.device}: {type(blank).__name__} cannot be split: accelerate leaves all of its layers on one device.",
        stage="load",
    )


def _placement(cell: Cell, model: Any, facts: dict[str, Any], device: torch.device) -> Placement:
    effective, kept_in_fp32 = effective_dtype(model, cell.dtype)
    device_map = getattr(model, "hf_device_map", None) or {"": device.index if device.index is not None else "cpu"}
    named = {
        place: where if where == DISK else our_name(torch.device(where), cell.device.eager.kind)
        for place, where in device_map.items()
    }
    elsewhere = offloaded_weights(model)
    details = {
        **facts,
        "torch": torch.__version__,
        "accelerate": version("accelerate"),
        "parameter_dtypes": parameter_dtypes(model),
        "kept_in_fp32": kept_in_fp32,
        "fp32_precision": fp32_precision(),
        "attention": attention_implementation(model.config),
        "device_map": named,
        "modules_by_device": dict(Counter(named.values())),
        "offloaded_parameters": len(elsewhere),
    }
    if len(set(named.values())) == 1:
        details["trivial"] = f"the device map is trivial: the whole model is on {next(iter(named.values()))}"
    return Placement(cell.device.id, tuple(sorted(set(named.values()))), cell.dtype, effective, details=details)


def _bytes_here(model: Any) -> int:
    """Sum the bytes of the weights that are kept on devices of torch; those that are kept elsewhere are on `meta`."""
    on_meta = {
        tensor.untyped_storage().nbytes() for tensor in (*model.parameters(), *model.buffers()) if tensor.is_meta
    }
    return weight_bytes(model) - (max(on_meta) if on_meta else 0)
