"""Brings a transformers model to an OpenVINO device."""

from __future__ import annotations

from typing import Any

from pytest_hfaccel.backends.base import ModelSource, Placement
from pytest_hfaccel.backends.exported.graphs import Builder, Graph, Graphs
from pytest_hfaccel.backends.exported.model import GraphModel
from pytest_hfaccel.backends.openvino.compression import INT8, compression_facts, require_nncf
from pytest_hfaccel.backends.openvino.device import device_facts, read_property, require_device
from pytest_hfaccel.backends.openvino.precision import confirm_precision, hint_of, product_weights, runtime_precisions
from pytest_hfaccel.backends.openvino.runtime import OpenVINORuntime
from pytest_hfaccel.core.spec import Cell, Device


class OpenVINOBackend:
    """Serves every OpenVINO device: CPU, GPU, NPU, and those that choose among them."""

    name = "openvino"

    def confirm(self, device: Device, dtype: str = "fp32") -> dict[str, Any]:
        """Compute a product on the device; as `DeviceProbe.confirm`."""
        require_device(device)
        confirm_precision(device, dtype)
        return device_facts(device)

    def load(self, cell: Cell, source: ModelSource) -> GraphModel:
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
        builder = Builder(OpenVINORuntime(), source, cell.device, cell.dtype)
        graphs = Graphs(builder)
        graph = graphs.graph(source.sample().forward)
        return GraphModel(builder, graphs, _placement(cell, graph, reused=builder.reused > 0))


def _placement(cell: Cell, graph: Graph, *, reused: bool) -> Placement:
    compiled = graph.compiled.compiled  # type: ignore[attr-defined]  # an OpenVINOGraph
    executed = read_property(compiled, "EXECUTION_DEVICES") or ()
    details = {
        **device_facts(cell.device),
        "shapes": graph.conversion.shapes,
        "shapes_tried": graph.conversion.problems,
        "convert_cached": reused,
        "runtime_precisions": runtime_precisions(compiled),
        "converter": graph.conversion.metadata.packages,
    }
    if cell.dtype == INT8:
        details |= {
            "product_weights": product_weights(compiled),
            "compression": compression_facts(),
            "arithmetic": str(read_property(compiled, "INFERENCE_PRECISION_HINT")),
            "dynamic_quantization_group_size": read_property(compiled, "DYNAMIC_QUANTIZATION_GROUP_SIZE"),
        }
    devices = (executed,) if isinstance(executed, str) else tuple(str(device) for device in executed)
    effective = graph.compiled.effective_dtype(cell.dtype)
    return Placement(cell.device.id, devices, cell.dtype, effective, details=details)
