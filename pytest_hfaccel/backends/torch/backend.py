"""Brings a transformers model to a torch device."""

from __future__ import annotations

import time
from typing import Any, cast

import torch

from pytest_hfaccel.backends.base import INT8, LoadedModel, ModelSource, Placement, SplittableSource, WeightChange
from pytest_hfaccel.backends.memory import out_of_memory_raised
from pytest_hfaccel.backends.torch.compiled import CompiledModel
from pytest_hfaccel.backends.torch.device_maps import load_mapped
from pytest_hfaccel.backends.torch.devices import (
    confirm_device,
    dtype_of,
    effective_dtype,
    fp32_precision,
    full_fp32,
    our_name,
    parameter_dtypes,
)
from pytest_hfaccel.backends.torch.int8 import (
    Int8Model,
    dtype_of_products,
    product_weights,
    quantize,
    require_torchao,
)
from pytest_hfaccel.backends.torch.model import DeviceMemory, TorchModel, moved, weight_bytes
from pytest_hfaccel.backends.torch.operators import log_operators
from pytest_hfaccel.backends.torch.ranks import load_parallel
from pytest_hfaccel.core.errors import BackendUnavailable, error_line
from pytest_hfaccel.core.spec import CPU, Cell, Device
from pytest_hfaccel.upstream.torch import why_not_compiled
from pytest_hfaccel.upstream.transformers import attention_implementation


class TorchBackend:
    """Serves cpu, cuda, rocm, mps, xpu, and whatever a description brings to torch."""

    name = "torch"

    def confirm(self, device: Device, dtype: str = "fp32") -> dict[str, Any]:
        """Compute a product on the device, and look for what a compiler needs; as `DeviceProbe.confirm`."""
        _require_compiler(device, dtype)
        return confirm_device(device.eager, dtype)

    def load(self, cell: Cell, source: ModelSource) -> LoadedModel:
        """Load the checkpoint onto the cell's device at its dtype.

        Raises:
            BackendUnavailable: The device does not answer, cannot compute at this dtype, or the model cannot be split.
            LoadError: transformers could not build the model, or torch.compile could not compile it.
            OutOfMemory: The device's memory did not suffice.
        """
        _require_compiler(cell.device, cell.dtype)
        if cell.dtype == INT8:
            require_torchao(cell.device)
        dtype = dtype_of(cell.dtype, cell.device.eager)
        if cell.device.ranks > 1:
            return load_parallel(cell, cast("SplittableSource", source))
        facts = confirm_device(cell.device.eager, cell.dtype)
        with full_fp32:
            if cell.device.parallel:
                return load_mapped(cell, cast("SplittableSource", source), dtype, facts)
            if cell.device.compiler:
                eager = _load(cell, source, dtype, facts)
                return CompiledModel(eager, cell.device.compiler, source.sample().forward)
            return _load_int8(cell, source, facts) if cell.dtype == INT8 else _load(cell, source, dtype, facts)


def _require_compiler(device: Device, dtype: str) -> None:
    if not device.compiler:
        return
    reason = why_not_compiled(device, dtype)
    if reason:
        raise BackendUnavailable(f"{device} at {dtype}: {reason}", stage="compile")


def _load(cell: Cell, source: ModelSource, dtype: torch.dtype, facts: dict[str, Any]) -> TorchModel:
    device = torch.device(cell.device.torch_name)
    memory = DeviceMemory(device)
    before = memory.allocated()
    started = time.perf_counter()
    with out_of_memory_raised(cell.device.id, "load"):
        model = source.torch_model(cell.dtype, cell.device.torch_name)
    seconds = time.perf_counter() - started
    # Other threads may load or free meanwhile, so the allocator's difference can be too small.
    nbytes = max(memory.allocated() - before, weight_bytes(model))
    return TorchModel(model, dtype, _placement(cell, model, source, facts, dtype), nbytes, {"load": seconds})


def _load_int8(cell: Cell, source: ModelSource, facts: dict[str, Any], change: WeightChange | None = None) -> Int8Model:
    """Load a model in fp32, make the change to its weights, if any, and round them."""
    device = torch.device(cell.device.torch_name)
    started = time.perf_counter()
    with out_of_memory_raised(cell.device.id, "load"):
        model = source.torch_model("fp32", str(device))
        if change is not None:
            dict(model.named_parameters(remove_duplicate=False))[change.parameter].view(-1)[change.index] += (
                change.delta
            )
        quantize(model)
    seconds = time.perf_counter() - started
    counts = product_weights(model, moved(source.sample().forward, device, torch.float32))
    facts = {**facts, "product_weights": counts}
    placement = _placement(cell, model, source, facts, torch.float32, dtype_of_products(counts))
    if placement.effective_dtype != INT8:
        raise BackendUnavailable(
            f"{cell.device}: asked for int8, but the weights of {type(model).__name__}'s matrix products are "
            f"{placement.effective_dtype}: {counts or 'none'} (elements by type). torchao rounds linear layers only.",
            stage="load",
            hint="OpenVINO devices may run it: there NNCF rounds every constant factor.",
        )
    return Int8Model(
        model,
        placement,
        weight_bytes(model),
        {"load": seconds},
        lambda wrong: _load_int8(cell, source, facts, wrong),
    )


def _placement(
    cell: Cell, model: Any, source: ModelSource, facts: dict[str, Any], computes_in: torch.dtype, dtype: str = ""
) -> Placement:
    found = {our_name(t.device, cell.device.eager.kind) for t in (*model.parameters(), *model.buffers())}
    effective, kept_in_fp32 = effective_dtype(model, cell.dtype)
    details = {
        **facts,
        "torch": torch.__version__,
        "parameter_dtypes": parameter_dtypes(model),
        "kept_in_fp32": kept_in_fp32,
        "fp32_precision": fp32_precision(),
        "attention": attention_implementation(model.config),
    }
    if cell.device.eager != CPU:
        products, about_operators = _placement_of_operators(cell, model, source, computes_in)
        details |= about_operators
        if products:
            found.add("cpu")
            names = ", ".join(f"{name} ({count}x)" for name, count in products.items())
            details["why_elsewhere"] = f"operators that do much of the work ran on the CPU: {names}"
    return Placement(cell.device.id, tuple(sorted(found)), cell.dtype, dtype or effective, details=details)


def _placement_of_operators(
    cell: Cell, model: Any, source: ModelSource, computes_in: torch.dtype
) -> tuple[dict[str, int], dict[str, Any]]:
    """Run the model once; return the products of matrices that ran on the CPU, and all that the details say."""
    device = torch.device(cell.device.torch_name)
    try:
        operators = log_operators(model, moved(source.sample().forward, device, computes_in), device)
    except Exception as error:  # the check `forward` fails for the same reason, in its stage
        return {}, {"nodes": f"not known: the forward pass failed ({error_line(error)})"}
    return operators.products_on_cpu(), operators.details(cell.device.eager.id)
