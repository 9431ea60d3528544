"""The precision ONNX Runtime really computes at, read back from the graph it runs and from a product it computes."""

from __future__ import annotations

import contextlib
import io
import tempfile
from collections import Counter
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from pytest_hfaccel.backends.base import INT8
from pytest_hfaccel.backends.exported.onnx_programs import constant_sizes
from pytest_hfaccel.backends.onnxruntime.providers import provider_of
from pytest_hfaccel.backends.onnxruntime.sessions import (
    SERIALIZABLE_BYTES,
    errors_as_runtime_errors,
    open_session,
    openable,
)
from pytest_hfaccel.core.errors import BackendUnavailable, LoadError, first_line
from pytest_hfaccel.core.spec import Device
from pytest_hfaccel.upstream import errors_only

DTYPES = ("fp32", "fp16", INT8)
"""What this backend runs at. ONNX Runtime's tools make no bf16 of a graph in fp32."""

PRODUCTS = frozenset(
    {
        "Attention",
        "Conv",
        "ConvInteger",
        "ConvTranspose",
        "DynamicQuantizeLSTM",
        "DynamicQuantizeMatMul",
        "Einsum",
        "FusedConv",
        "FusedGemm",
        "FusedMatMul",
        "GRU",
        "Gemm",
        "GroupQueryAttention",
        "LSTM",
        "MatMul",
        "MatMulInteger",
        "MatMulIntegerToFloat",
        "MatMulNBits",
        "MoE",
        "MultiHeadAttention",
        "NhwcFusedConv",
        "QAttention",
        "QGemm",
        "QLinearConv",
        "QLinearMatMul",
        "QMoE",
    }
)
"""Operators that multiply matrices: nearly all the work of a model."""

_DTYPES_BY_NAME = {"FLOAT": "fp32", "FLOAT16": "fp16", "BFLOAT16": "bf16", "DOUBLE": "fp64"}
_CARRIERS = frozenset({"Cast", "DequantizeLinear", "Identity", "Reshape", "Transpose"})
"""Operators that hand a weight on in another form."""

_EIGHT_BITS = frozenset({"INT8", "UINT8"})
_CONVOLUTIONS = frozenset({"Conv", "ConvTranspose", "FusedConv", "NhwcFusedConv"})

_PROBE_SIZE = 64
_FP32_ERROR = 1e-6
"""Largest relative error of a product of 64 x 64 numbers in fp32. TF32 and fp16 are off by 2e-4, bf16 by 2e-3."""

_QUANTIZED = ("MatMul", "Gather", "Transpose")
"""Operators whose weights are rounded to 8 bits. Convolutions are left alone, as by NNCF for OpenVINO."""


class FinalGraph:
    """A graph as ONNX Runtime runs it, after all its optimizations.

    Args:
        model: What it wrote; the weights need not be there.

    Attributes:
        operators: Number of nodes by operator; those that only ONNX Runtime has are named with their domain.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self._nodes = list(model.graph.node)
        self._constants = {each.name: each for each in model.graph.initializer}
        self._producers = {name: node for node in self._nodes for name in node.output}
        self.operators = dict(
            Counter(
                f"{node.domain}.{node.op_type}" if node.domain not in ("", "ai.onnx") else node.op_type
                for node in self._nodes
            ).most_common()
        )

    def product_weights(self, *, convolutions: bool) -> dict[str, int]:
        """Count the elements of the weights of products by ONNX's name of their type; vectors are no weights.

        Args:
            convolutions: Count those of convolutions, too.
        """
        counts: Counter[str] = Counter()
        for node in self._nodes:
            if node.op_type in PRODUCTS and (convolutions or node.op_type not in _CONVOLUTIONS):
                for name in node.input:
                    constant = self._constant_behind(name)
                    sizes = [] if constant is None else [size for size in constant.dims if size > 1]
                    if constant is not None and len(sizes) > 1:
                        counts[TensorProto.DataType.Name(constant.data_type)] += int(np.prod(sizes))
        return dict(counts)

    def _constant_behind(self, name: str) -> Any:
        producer = self._producers.get(name)
        while producer is not None and producer.op_type in _CARRIERS:
            name = producer.input[0]
            producer = self._producers.get(name)
        return self._constants.get(name)

    def inserted_casts(self) -> int:
        """Return the number of conversions put in where ONNX Runtime has no kernel at the graph's precision."""
        return sum("InsertedPrecisionFreeCast" in name for node in self._nodes for name in node.output)

    def dtype(self, asked: str) -> str:
        """Return the dtype of its products: `int8` where all their weights have 8 bits, `mixed` where some have."""
        found = self.product_weights(convolutions=asked != INT8)
        small = sum(count for name, count in found.items() if name in _EIGHT_BITS)
        if asked == INT8 or small:
            if small and small == sum(found.values()):
                return INT8
            return "mixed" if small else "/".join(sorted(found)) or "no product of matrices"
        names = set(found) or {TensorProto.DataType.Name(each.data_type) for each in self._constants.values()}
        dtypes = {_DTYPES_BY_NAME[name] for name in names if name in _DTYPES_BY_NAME}
        return dtypes.pop() if len(dtypes) == 1 else "mixed" if dtypes else asked


def open_and_read_back(program: Any, device: Device, architecture: str) -> tuple[Any, FinalGraph | None]:
    """Open a session, and have ONNX Runtime write the graph that it runs.

    Returns:
        The session and the graph; `None` in its place where there is none to read: the provider compiles parts of it,
        or the weights do not fit into a file.
    """
    readable = not provider_of(device).compiles and sum(constant_sizes(program).values()) < SERIALIZABLE_BYTES
    with tempfile.TemporaryDirectory(prefix="hfaccel-") as folder, openable(program, architecture) as model:
        file = Path(folder) / "final.onnx"
        session = open_session(model, device, optimized=file if readable else None)
        return session, FinalGraph(onnx.load(str(file), load_external_data=False)) if readable else None


def require_known(dtype: str, device: Device) -> None:
    """Refuse a dtype at which this backend never runs.

    Raises:
        BackendUnavailable: It is one.
    """
    if dtype not in DTYPES:
        raise BackendUnavailable(
            f"{device}: the ONNX Runtime backend cannot run at {dtype}. Allowed: {', '.join(DTYPES)}.", stage="compile"
        )


@lru_cache(maxsize=64)
def confirm_precision(device: Device, dtype: str) -> None:
    """Have a device compute a product that lower precisions get wrong; the CPU may not do it in its place.

    For int8 it is one in fp32: whether weights stay small is read from the model itself.

    Raises:
        BackendUnavailable: It computes at another precision, or leaves the product to the CPU.
        LoadError: It cannot compile or run it.
    """
    half = dtype == "fp16"
    with tempfile.TemporaryDirectory(prefix="hfaccel-") as folder:
        file = Path(folder) / "final.onnx"
        written = None if provider_of(device).compiles else file
        values = _probe_values()
        try:
            model = _probe(TensorProto.FLOAT16 if half else TensorProto.FLOAT, values)
            session = open_session(model, device, may_use_cpu=False, optimized=written)
            with errors_as_runtime_errors():
                given = values.astype(np.float16 if half else np.float32)
                product = session.run(None, {"x": given})[0].astype(np.float64)
        except RuntimeError as error:
            if "fallback to CPU EP has been explicitly disabled" in str(error):
                raise BackendUnavailable(
                    f"{device}: it leaves a product of two matrices in {dtype} to the CPU.", stage="compile"
                ) from error
            if half:
                raise BackendUnavailable(
                    f"{device}: it cannot compute a product of two matrices in fp16: {first_line(error)}",
                    stage="compile",
                ) from error
            raise LoadError(
                f"{device}: a product of two matrices cannot be compiled or run: {first_line(error)}",
                stage="compile",
            ) from error
        graph = FinalGraph(onnx.load(str(file), load_external_data=False)) if written is not None else None
    error_size = float(np.linalg.norm(product - values @ values) / np.linalg.norm(values @ values))
    if half and graph is not None and graph.dtype(dtype) != dtype:
        raise BackendUnavailable(
            f"{device}: asked for fp16, but the runtime would compute at {graph.dtype(dtype)} without saying so: "
            "it has no kernel for a product in fp16 and converts the numbers before and after it.",
            stage="compile",
            hint="Test it at fp32 (--hf-dtype fp32).",
        )
    if not half and not error_size <= _FP32_ERROR:
        raise BackendUnavailable(
            f"{device}: asked for fp32, but a product of two matrices is off by {error_size:.1e} (relative), where "
            f"fp32 is off by less than {_FP32_ERROR:.0e}: the device computes at a lower precision without saying so.",
            stage="compile",
        )


def _probe_values() -> Any:
    """Return a matrix whose numbers fp32 holds and no shorter type does."""
    numbers = np.arange(_PROBE_SIZE**2, dtype=np.float64).reshape(_PROBE_SIZE, _PROBE_SIZE)
    return (1 + (numbers * 2654435761 % 4096) / 2**14).astype(np.float32).astype(np.float64)


def _probe(kind: int, values: Any) -> bytes:
    shape = list(values.shape)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "probe",
        [helper.make_tensor_value_info("x", kind, shape)],
        [helper.make_tensor_value_info("y", kind, shape)],
        [helper.make_tensor("w", kind, shape, values.ravel().tolist())],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    content: bytes = model.SerializeToString()
    return content


def compress(program: Any, architecture: str) -> Any:
    """Round the weights of a graph's products to 8 bits, with ONNX Runtime's own quantizer.

    Activations are rounded to 8 bits as well, each time they meet such a weight. The weights are unsigned: on a CPU
    without VNNI, sums of products with signed ones may overflow.

    Raises:
        LoadError: It could not.
    """
    from onnxruntime.quantization import QuantType
    from transformers.exporters import OnnxRuntimeDynamicConfig, OnnxRuntimeQuantizer
    from transformers.exporters.configs import ExportFormat

    config = OnnxRuntimeDynamicConfig(
        op_types_to_quantize=list(_QUANTIZED), per_channel=True, weight_type=QuantType.QUInt8
    )
    try:
        with _quiet():
            return OnnxRuntimeQuantizer(config).quantize(program, {}, ExportFormat.ONNX)
    except Exception as error:
        raise LoadError(
            f"{architecture}: ONNX Runtime cannot round the weights to 8 bits: {type(error).__name__}: {error}",
            stage="convert",
        ) from error


def compression_facts() -> dict[str, Any]:
    """Return what made the weights: the package, its version and its mode."""
    import onnxruntime

    return {
        "package": f"onnxruntime {onnxruntime.__version__}",
        "mode": f"dynamic, unsigned, per channel: {', '.join(_QUANTIZED)}",
    }


def in_half_precision(program: Any, architecture: str) -> Any:
    """Return a graph that computes in fp16, with inputs and outputs in fp32.

    Raises:
        LoadError: ONNX Runtime's converter could not make one.
    """
    import onnx_ir
    from onnxruntime.transformers.float16 import convert_float_to_float16

    whole = program.clone()
    onnx_ir.external_data.load_to_model(whole)
    try:
        with _quiet():
            converted = convert_float_to_float16(onnx_ir.to_proto(whole), keep_io_types=True)
        return onnx_ir.from_proto(converted)
    except Exception as error:
        raise LoadError(
            f"{architecture}: ONNX Runtime's converter cannot make a graph in fp16: {type(error).__name__}: {error}",
            stage="convert",
        ) from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the remarks of ONNX Runtime's tools, which use the root logger, out of the test run."""
    with contextlib.redirect_stdout(io.StringIO()), errors_only("root"):
        yield
