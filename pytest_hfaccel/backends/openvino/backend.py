"""Brings a transformers model to an OpenVINO device."""

from __future__ import annotations

from typing import Any

from pytest_hfaccel.backends.base import ModelSource, Placement
from pytest_hfaccel.backends.openvino.compression import INT8, compression_facts, require_nncf
from pytest_hfaccel.backends.openvino.device import device_facts, read_property, require_device
from pytest_hfaccel.backends.openvino.graphs import Graph, Graphs
from pytest_hfaccel.backends.openvino.model import OpenVINOModel
from pytest_hfaccel.backends.openvino.precision import (
    confirm_precision,
    effective_dtype,
    hint_of,
    runtime_precisions,
)
from pytest_hfaccel.backends.openvino.products import product_weights
from pytest_hfaccel.core.spec import Cell, Device


class OpenVINOBackend:
    """Serves every OpenVINO device: CPU, GPU, NPU, and those that choose among them."""

    name = "openvino"

    def confirm(self, device: Device, dtype: str = "fp32") -> dict[str, Any]:
        """Compute a product on the device; as `DeviceProbe.confirm`."""
        require_device(device)
        confirm_precision(device, dtype)
        return device_facts(device)

    def load(self, cell: Cell, source: ModelSource) -> OpenVINOModel:
        """Convert the checkpoint, unless that has been done, and compile it for the cell's device.

        Raises:
            BackendUnavailable: The device is not there, or computes at another precision than the asked one.
            LoadError: Conversion (stage `convert`) or compilation (stage `compile`) failed.
            OutOfMemory: Memory ran out.
        """
        hint_of(cell.dtype, cell.device)
        require_device(cell.device)
        if cell.dtype == INT8:
            require_nncf(cell.device.id)
        confirm_precision(cell.device, cell.dtype)
        graphs = Graphs(source, cell.device, cell.dtype)
        graph = graphs.graph(source.sample().forward)
        return OpenVINOModel(source, graphs, _placement(cell, graph, reused=graphs.reused > 0))


def _compression(graph: Graph) -> dict[str, Any]:
    return {
        "compression": compression_facts(),
        "arithmetic": str(read_property(graph.compiled, "INFERENCE_PRECISION_HINT")),
        "dynamic_quantization_group_size": read_property(graph.compiled, "DYNAMIC_QUANTIZATION_GROUP_SIZE"),
    }


def _placement(cell: Cell, graph: Graph, *, reused: bool) -> Placement:
    executed = read_property(graph.compiled, "EXECUTION_DEVICES") or ()
    details = {
        **device_facts(cell.device),
        "shapes": graph.converted.shapes,
        "shapes_tried": graph.converted.problems,
        "convert_cached": reused,
        "runtime_precisions": runtime_precisions(graph.compiled),
        "converter": graph.converted.metadata.packages,
    }
    if cell.dtype == INT8:
        details |= {"product_weights": product_weights(graph.compiled), **_compression(graph)}
    effective = effective_dtype(graph.compiled, cell.dtype)
    devices = (executed,) if isinstance(executed, str) else tuple(str(device) for device in executed)
    return Placement(cell.device.id, devices, cell.dtype, effective, details=details)
