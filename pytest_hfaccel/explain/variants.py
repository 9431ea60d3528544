"""A converted model run in other ways: as it was captured, without the runtime's kernels, without optimisations.

Each function returns what the model gives for the sample inputs, by leaf. `NotPossible` says why it cannot.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from pytest_hfaccel.backends.base import flatten_outputs
from pytest_hfaccel.backends.exported.capture import export_model
from pytest_hfaccel.backends.exported.inputs import FOLDED, computed_inputs, widened
from pytest_hfaccel.core.devices import ONNX_KINDS
from pytest_hfaccel.core.spec import Device
from pytest_hfaccel.upstream.transformers import captured_programs, dynamo_runner, onnx_runner, traced_names

if TYPE_CHECKING:
    from pytest_hfaccel.backends.exported.model import GraphModel

Tensors = Mapping[str, torch.Tensor]

_LARGEST_INTERPRETED = 64 * 2**20
"""Bytes of a graph's constants up to which its reference implementation, which is slow, is tried."""

_MOVERS = frozenset(
    {
        *("Reshape", "Unsqueeze", "Squeeze", "Concat", "Slice", "StridedSlice", "Split", "VariadicSplit", "Broadcast"),
        *("Tile", "Pad", "GatherElements", "GatherND", "ScatterUpdate", "ScatterNDUpdate", "Reverse", "Roll"),
        *("Range", "ReadValue", "DepthToSpace", "SpaceToDepth", "ShuffleChannels", "Identity"),
    }
)
"""Operators of OpenVINO that move numbers and compute none."""


class NotPossible(Exception):
    """There is no such way for this model, dtype or runtime; the text says why."""


def run_captured(loaded: GraphModel, source: Any, inputs: Tensors) -> Tensors:
    """Capture the model as the runtime's exporter does, and run the captured program in torch."""
    runtime = loaded.runtime
    static = runtime.takes_static_shapes_only(loaded.device)
    model = source.torch_model("fp32")
    examples = dict(inputs) if static or computed_inputs(model, inputs) else widened(inputs, fixed_batch=False)
    captured: list[tuple[Any, Any]] = []
    with captured_programs(captured):
        export_model(runtime, model, examples, static=static)
    if not captured:
        raise NotPossible(f"the exporter of {runtime.title} does not go by torch.export")
    program, metadata = captured[-1]
    _, feed = loaded.program_and_feed(inputs)
    with torch.no_grad():
        return _named_like(loaded, flatten_outputs(dynamo_runner(program, metadata)(**feed)), inputs)


def problem_of_graph(runtime: Any, device: Device, source: Any, inputs: Tensors) -> str:
    """Return what onnx's checker, shapes included, has against the model's ONNX graph in fp32; empty for nothing."""
    import onnx

    from pytest_hfaccel.backends.exported.graphs import Builder, Graphs
    from pytest_hfaccel.backends.exported.onnx_programs import serialized

    content = serialized(Graphs(Builder(runtime, source, device, "fp32")).conversion(inputs).program)
    try:
        onnx.checker.check_model(content, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        return " ".join(str(error).split())
    return ""


def run_interpreted(loaded: GraphModel, inputs: Tensors) -> tuple[Tensors, str]:
    """Run the graph without the runtime's kernels: by onnx's reference implementation, or node by node in torch.

    Returns:
        The outputs, and the operators that the runtime had to compute all the same; empty for none.
    """
    conversion = loaded.conversion(inputs)
    _, feed = loaded.program_and_feed(inputs)
    if loaded.nbytes > _LARGEST_INTERPRETED:
        raise NotPossible(f"it would take long: the graph's constants have {loaded.nbytes / 2**20:.0f} MiB")
    kind = loaded.device.kind
    if kind in ONNX_KINDS:
        return flatten_outputs(_interpret_onnx(conversion.program, conversion.metadata)(**feed)), ""
    if kind == "openvino":
        return _interpret_openvino(loaded, inputs)
    raise NotPossible(f"there is none of the graphs of {kind}")


def _interpret_onnx(program: Any, metadata: Any) -> Callable[..., Any]:
    from onnx.reference import ReferenceEvaluator

    from pytest_hfaccel.backends.exported.onnx_programs import input_names, serialized

    evaluator = ReferenceEvaluator(serialized(program))  # by bytes, as a file: it has no other way in

    def run(feed: Mapping[str, torch.Tensor]) -> list[torch.Tensor]:
        outputs = evaluator.run(None, {name: value.numpy() for name, value in feed.items()})
        return [torch.as_tensor(value) for value in outputs]

    return onnx_runner(metadata, input_names(program), run)


def _interpret_openvino(loaded: GraphModel, inputs: Tensors) -> tuple[Tensors, str]:
    """Run an OpenVINO graph node by node: arithmetic by torch in fp64; what only moves numbers, by the plugin alone.

    Integers, masks and sizes are those of the plugin. `openvino.Model.evaluate` would do it all, but of 2026.4 ends the
    process where a graph takes any shape (heap corruption), and has no `BitwiseAnd`.
    """
    from pytest_hfaccel.explain.graphs import GraphNode
    from pytest_hfaccel.explain.openvino_graphs import OpenVINOGraph

    program, tensors = loaded.program_and_feed(inputs)
    graph = OpenVINOGraph(program, loaded.device, "fp32")
    feed = {name: tensors[name.removeprefix("input.")].numpy() for name in graph.inputs}
    constants = graph.constants
    given = graph.run(feed, [name for node in graph.nodes for name in node.outputs if name not in constants])
    values: dict[str, Any] = {**constants, **feed}
    borrowed: dict[str, None] = {}

    def computed(node: GraphNode) -> Sequence[Any]:
        taken = {name: values[name] for name in node.inputs if name}
        if not any(np.issubdtype(given[name].dtype, np.floating) for name in node.outputs):
            return [given[name] for name in node.outputs]
        if graph.computes_exactly(node):
            with suppress(NotImplementedError):  # of an attribute that is not known
                exact = graph.run_exactly(node, taken)
                return [each.astype(given[name].dtype) for each, name in zip(exact, node.outputs, strict=True)]
        if node.operator not in _MOVERS:
            borrowed[node.operator] = None
        alone = graph.run_alone([node], {n: v for n, v in taken.items() if n not in constants}, node.outputs)
        return [alone[name] for name in node.outputs]

    for node in graph.nodes:
        if any(name not in values for name in node.outputs):
            values.update(zip(node.outputs, computed(node), strict=True))
    results = [torch.as_tensor(values[name]) for name in graph.outputs]
    runner = onnx_runner(loaded.conversion(inputs).metadata, [], lambda _: results)
    return flatten_outputs(runner()), ", ".join(borrowed)


def run_alone(loaded: GraphModel, dtype: str, inputs: Tensors) -> Tensors:
    """Run the graph by transformers' own runner, on a session or request with the runtime's own defaults."""
    conversion = loaded.conversion(inputs)
    names = traced_names(conversion.metadata)
    if missing := sorted(names - inputs.keys() - set(FOLDED)):
        raise NotPossible(f"the graph takes {', '.join(missing)}, which pytest-hfaccel computes of the inputs")
    feed = {name: inputs[name] for name in inputs if name in names and name not in FOLDED}
    if loaded.device.kind == "onnxruntime":
        import onnxruntime as ort

        from pytest_hfaccel.backends.onnxruntime.providers import options_of, provider_of
        from pytest_hfaccel.upstream.transformers import onnxruntime_runner

        provider = (provider_of(loaded.device).name, options_of(loaded.device))
        session = ort.InferenceSession(_onnx_content(conversion.program, dtype), providers=[provider])
        return flatten_outputs(onnxruntime_runner(session, conversion.metadata)(**feed))
    if loaded.device.kind == "openvino":
        import openvino as ov

        from pytest_hfaccel.backends.openvino.precision import hint_of
        from pytest_hfaccel.upstream.transformers import openvino_runner

        hint = {"INFERENCE_PRECISION_HINT": hint_of(dtype, loaded.device)}
        compiled = ov.Core().compile_model(conversion.program, loaded.device.target, hint)
        request = compiled.create_infer_request()
        return flatten_outputs(openvino_runner(compiled, conversion.metadata, request)(**feed))
    raise NotPossible(f"only pytest-hfaccel runs models on {loaded.device.kind}")


def run_unoptimised(loaded: GraphModel, dtype: str, inputs: Tensors) -> Tensors:
    """Run the graph with the runtime's optimisations switched off, as far as it lets."""
    conversion = loaded.conversion(inputs)
    _, feed = loaded.program_and_feed(inputs)
    if loaded.device.kind == "onnxruntime":
        from pytest_hfaccel.backends.onnxruntime.sessions import open_session
        from pytest_hfaccel.upstream.transformers import onnxruntime_runner

        session = open_session(_onnx_content(conversion.program, dtype), loaded.device, optimise=False)
        return flatten_outputs(onnxruntime_runner(session, conversion.metadata)(**feed))
    if loaded.device.kind == "openvino":
        from pytest_hfaccel.backends.openvino.backend import open_request
        from pytest_hfaccel.backends.openvino.device import compile_options, core
        from pytest_hfaccel.backends.openvino.precision import hint_of
        from pytest_hfaccel.upstream.transformers import openvino_runner

        options = {
            **compile_options(loaded.device, hint_of(dtype, loaded.device), torch.get_num_threads()),
            "EXECUTION_MODE_HINT": "ACCURACY",
            "SNIPPETS_MODE": "DISABLE",
        }
        compiled = core().compile_model(conversion.program, loaded.device.target, options)
        run = openvino_runner(compiled, conversion.metadata, open_request(compiled))
        return flatten_outputs(run(**feed))
    raise NotPossible(f"{loaded.device.kind} has no switch for them")


class TiesReversed(TorchDispatchMode):  # type: ignore[misc]
    """Have `topk` and `sort` take equal numbers in the other order, for a `with` block.

    Which of equal numbers comes first neither says: it is the choice of whoever computes them. `max`, `argmax` and a
    stable `sort` take the first, and are left as they are.

    Attributes:
        calls: How many calls there were.
    """

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        dim_at = _CHOOSING.get(func)
        if dim_at is None or kwargs.get("stable") or not args[0].ndim:
            return func(*args, **kwargs)
        self.calls += 1
        dim = args[dim_at] if len(args) > dim_at else kwargs.get("dim", -1)
        values, places = func(args[0].flip(dim), *args[1:], **kwargs)
        return values, args[0].shape[dim] - 1 - places


_CHOOSING = {torch.ops.aten.topk.default: 2, torch.ops.aten.sort.default: 1, torch.ops.aten.sort.stable: 1}
"""Operators that choose among equal numbers, and the position of `dim`."""


def run_with_ties_reversed(source: Any, inputs: Tensors) -> Tensors:
    """Run the class in torch on the CPU in fp32; of equal numbers it takes others than torch does by itself."""
    with torch.no_grad(), TiesReversed() as ties:
        outputs = flatten_outputs(source.torch_model("fp32")(**inputs))
    if not ties.calls:
        raise NotPossible("the class neither sorts nor takes the largest of several numbers")
    return outputs


OFF = {
    "onnxruntime": "graph_optimization_level: ORT_DISABLE_ALL",
    "openvino": "SNIPPETS_MODE: DISABLE, EXECUTION_MODE_HINT: ACCURACY; the plugin's other fusions stay on",
    "torch": "TF32, cuDNN and fused attention off, deterministic algorithms",
}
"""What "optimisations off" means."""


def cpu_device(device: Device) -> Device | None:
    """Return the CPU device of a device's runtime; `None` where it has none, or is it."""
    if device.kind in ("onnxruntime", "openvino"):
        return None if device.target == "CPU" else Device(device.kind, "CPU")
    return Device("wasm") if device.kind in ("webgpu", "webnn") else None


@contextmanager
def plain_torch() -> Iterator[None]:
    """Switch off what torch does for speed on accelerators, for a `with` block."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = cudnn.enabled, cudnn.allow_tf32, matmul.allow_tf32, matmul.allow_fp16_reduced_precision_reduction
    deterministic = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    cudnn.enabled = cudnn.allow_tf32 = matmul.allow_tf32 = False
    matmul.allow_fp16_reduced_precision_reduction = False
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        cudnn.enabled, cudnn.allow_tf32, matmul.allow_tf32 = before[:3]
        matmul.allow_fp16_reduced_precision_reduction = before[3]
        torch.use_deterministic_algorithms(deterministic[0], warn_only=deterministic[1])


def _onnx_content(program: Any, dtype: str) -> bytes:
    from pytest_hfaccel.backends.exported.onnx_programs import serialized
    from pytest_hfaccel.backends.onnxruntime.precision import in_half_precision

    return serialized(in_half_precision(program, "the model") if dtype == "fp16" else program)


def _named_like(loaded: GraphModel, outputs: Tensors, inputs: Tensors) -> Tensors:
    """Give the outputs of a captured program the names of the model's: they have the same order."""
    names = list(loaded.forward(inputs))
    if set(names) <= outputs.keys():
        return outputs
    if len(names) != len(outputs):
        raise NotPossible(f"the captured program has {len(outputs)} outputs, the model {len(names)}")
    return dict(zip(names, outputs.values(), strict=True))
