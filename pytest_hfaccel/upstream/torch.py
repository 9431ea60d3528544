"""torch, seen in 2.13."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from copy import copy
from functools import wraps
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from pytest_hfaccel.core.errors import first_line
from pytest_hfaccel.core.spec import CPU, Device
from pytest_hfaccel.upstream import RefCountedContext

if TYPE_CHECKING:
    import torch


def _patch_init(undo: ExitStack) -> None:
    from torch.nn import init

    for name, function in list(vars(init).items()):
        if name.endswith("_") and not name.startswith("_") and callable(function):
            setattr(init, name, _unless_meta(function))
            undo.callback(setattr, init, name, function)


def _unless_meta(fill: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(fill)
    def filled(tensor: Any, *args: Any, **kwargs: Any) -> Any:
        return tensor if tensor.is_meta else fill(tensor, *args, **kwargs)

    return filled


skip_init_on_meta = RefCountedContext(_patch_init)
"""`with skip_init_on_meta:` has the functions of `torch.nn.init` return tensors on the device `meta` as they are.

transformers makes a model there before it reads the weights, and its layers begin by filling theirs. For nothing, but
not for free: torch computes `normal_` on `meta` in Python, 0.2 to 0.4 ms for each weight. That was a third of the time
of loading a tiny GPT-2 (4 of 12 ms) and a fifth of a tiny BERT's and T5's.

Tensors with numbers are filled as ever, also those of a weight that the checkpoint lacks and of another thread.
"""


@contextmanager
def large_constants_in_traces(elements: int) -> Iterator[None]:
    """Have `torch.export` compute with constants of up to so many elements while it traces.

    Its own limit is 1, meant for loop counters (`fake_tensor.CONSTANT_NUMEL_LIMIT`): the sizes of images, over which
    vision-language models loop, are longer. A torch without the limit is left as it is.
    """
    from torch._subclasses import fake_tensor

    limit = getattr(fake_tensor, "CONSTANT_NUMEL_LIMIT", None)
    if limit is None:
        yield
        return
    fake_tensor.CONSTANT_NUMEL_LIMIT = elements
    try:
        yield
    finally:
        fake_tensor.CONSTANT_NUMEL_LIMIT = limit


@contextmanager
def no_stacks_in_traces() -> Iterator[None]:
    """Have `torch.export` note no stack of the model's code for each node: a twentieth of its conversions.

    The setting is torch's own, and public; an older torch has none and does not look.
    """
    from torch.fx import config

    with patch.object(config, "do_not_emit_stack_traces", True, create=True):
        yield


@contextmanager
def no_printed_traces() -> Iterator[None]:
    """Have `torch.export` print nothing where a trace fails.

    Where that depends on values, it prints what it has traced so far to stderr: hundreds of lines, for each way tried.
    """
    from torch.export import _trace

    with patch.object(_trace, "print", lambda *_, **__: None, create=True):
        yield


@contextmanager
def no_cache_of_fake_operators(when: bool) -> Iterator[None]:
    """Have `torch.export` run each operator on fake tensors, and keep no cache of what came out.

    The cache serves fixed sizes. Where sizes are symbols, making and reading an entry takes longer than the operator:
    without it a conversion with open axes takes 4 % (tiny BERT) to 13 % (tiny T5) less CPU time for ONNX, and 5 to 10 %
    less for OpenVINO. The graphs are equal but for the names of values that have none in the model. With fixed sizes,
    and for ExecuTorch, which traces a model many times over, the cache saves a third.

    Args:
        when: Whether to do so.
    """
    import torch._dynamo.config as config

    with ExitStack() as undo:
        if when and hasattr(config, "fake_tensor_cache_enabled"):
            undo.enter_context(config.patch(fake_tensor_cache_enabled=False))
        yield


def _keep_registry(undo: ExitStack) -> None:
    from torch.onnx._internal.exporter import _registration

    registry: Any = getattr(_registration, "ONNXRegistry", None)
    made = vars(registry).get("from_torchlib") if registry is not None else None
    if made is not None:
        registry.from_torchlib = classmethod(_kept(made.__func__))
        undo.callback(setattr, registry, "from_torchlib", made)


_REGISTRIES: dict[tuple[Any, ...], Any] = {}


def _kept(make: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(make)
    def kept(cls: Any, *args: Any, **kwargs: Any) -> Any:
        key = (*args, *kwargs.values())
        if key not in _REGISTRIES:
            _REGISTRIES[key] = make(cls, *args, **kwargs)
        found = copy(_REGISTRIES[key])
        # A conversion registers functions of its own in front of the others.
        found.functions = {target: list(functions) for target, functions in found.functions.items()}
        return found

    return kept


keep_onnx_registry = RefCountedContext(_keep_registry)
"""`with keep_onnx_registry:` has `torch.onnx.export` read its table of ATen operators once per process.

It reads it anew for each model: 0.4 s, of the 4 s that tiny BERT takes.
"""


def is_built_with_xpu() -> bool:
    """Whether this torch is built for Intel GPUs; `torch.xpu.is_available()` is false for a lacking device, too."""
    import torch

    return bool(torch.xpu._is_compiled())


def call_kernel(operator: Any, tensor: torch.Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Call the kernel that an operator has for a tensor's device, past the modes of `TorchDispatchMode`.

    Within `with mode:` the mode then sees what the kernel itself calls, which it does not when the operator is called.

    Args:
        operator: A `torch._ops.OpOverload`.
        tensor: One of its tensors, on the device.
        args: Its positional arguments, as a mode gets them: numbers stand also where the operator takes tensors.
        kwargs: Its other arguments.
    """
    import torch

    below_modes = torch._C._dispatch_keyset_full_after(torch._C.DispatchKey.Python)
    dtype = tensor.dtype if tensor.is_floating_point() else None
    schema = operator._schema.arguments
    converted = (
        torch.tensor(value, dtype=dtype)
        if isinstance(value, (int, float)) and isinstance(argument.type, torch.TensorType)
        else value
        for value, argument in zip(args, schema, strict=False)
    )
    return operator.redispatch(torch._C._dispatch_keys(tensor) & below_modes, *converted, **kwargs)


def grouped_product() -> Callable[..., Any] | None:
    """Return torch's product of groups of matrices; `torch.nn.functional.grouped_mm` is its newer, public name."""
    import torch

    product: Callable[..., Any] | None = getattr(torch, "_grouped_mm", None)
    return product


def is_dropout(module: Any) -> bool:
    """Whether a module is one of torch's dropouts, which share a private base class."""
    from torch.nn.modules.dropout import _DropoutNd

    return isinstance(module, _DropoutNd)


def storage_key(tensor: torch.Tensor) -> int:
    """Return what identifies the memory of a tensor, also of one without numbers: views share it."""
    return int(tensor.untyped_storage()._cdata)


def packet_and_arguments(func: Any) -> tuple[Any, list[Any]]:
    """Return the overload packet of an operator, as `__torch_dispatch__` gets it, and the arguments of its schema."""
    return func._overloadpacket, list(func._schema.arguments)


def compile_counters() -> Any:
    """Return what `torch.compile` counts in this process: `stats["unique_graphs"]`, `graph_break`."""
    from torch._dynamo.utils import counters

    return counters


@contextmanager
def compiling_in_process() -> Iterator[None]:
    """Have `torch.compile` start no pool of worker processes, which would outlive the block."""
    import torch._inductor.config

    with torch._inductor.config.patch(compile_threads=1):
        yield


def why_no_cpp_compiler() -> str:
    """Return why inductor finds no C++ compiler; empty where it does."""
    with quietly():
        from torch._inductor.cpp_builder import get_cpp_compiler
        from torch._inductor.exc import InvalidCxxCompiler

    try:
        get_cpp_compiler()
    except InvalidCxxCompiler as error:
        return first_line(error)
    return ""


def why_not_compiled(device: Device, dtype: str, compiler: str = "") -> str:
    """Return why `torch.compile` cannot compile for a device here; empty where it can.

    Args:
        device: The device, with or without its compiler.
        dtype: The cell's dtype.
        compiler: The compiler; that of the device when not given.
    """
    compiler, on_cpu = compiler or device.compiler, device.eager == CPU
    if dtype == "int8":
        return "models with 8-bit weights are not compiled; test them without a compiler"
    if compiler == "openvino":
        if not on_cpu:
            return f"OpenVINO's backend of torch.compile supports the CPU only here; the model is on {device.eager}"
        if find_spec("openvino") is None:
            return "openvino is not installed"
        return "" if dtype == "fp32" else f"its graphs take no tensors at {dtype}: OpenVINO's backend runs at fp32 only"
    if on_cpu:
        reason = why_no_cpp_compiler()
        return f"it needs a C++ compiler: {reason}" if reason else ""
    return "" if device.eager.kind == "mps" or has_triton() else "it needs triton"


def compile_options(compiler: str) -> dict[str, Any]:
    """Return the options of a backend of `torch.compile`: left alone, OpenVINO computes in bf16 where its CPU does."""
    if compiler != "openvino":
        return {}
    return {"device": "CPU", "config": {"INFERENCE_PRECISION_HINT": "f32"}}


def compiler_named(name: str) -> Callable[..., Any]:
    """Import a backend of `torch.compile`: it takes a graph, example inputs and `options`, and returns a function."""
    with quietly():
        from torch._dynamo.backends.registry import lookup_backend

        if name == "openvino":
            import openvino.torch  # noqa: F401 - registers it
        found: Callable[..., Any] = lookup_backend(name)
    return found


@contextmanager
def quietly() -> Iterator[None]:
    """Leave out warnings: torch deprecates what it imports itself, and `-W error` would make that an error of ours."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def compile_errors() -> tuple[type[Exception], ...]:
    """Return what `torch.compile` raises, now or later, where it does not compile."""
    from torch._dynamo.exc import FailOnRecompileLimitHit, TorchDynamoException

    return TorchDynamoException, FailOnRecompileLimitHit


def _compile_or_fail(undo: ExitStack) -> None:
    import torch._dynamo.config as config

    undo.enter_context(compiling_in_process())
    limits = {"recompile_limit": 64, "accumulated_recompile_limit": 10_000, "fail_on_recompile_limit_hit": True}
    undo.enter_context(config.patch(limits))


compile_or_fail = RefCountedContext(_compile_or_fail)
"""`with compile_or_fail:` has `torch.compile` compile for up to 64 kinds of inputs per model, and then fail.

Left alone it compiles for 8, and runs the model as it is for others, without saying so. The second limit is for the
code that the models of a process share.
"""


def has_triton() -> bool:
    """Whether inductor finds triton."""
    from torch.utils._triton import has_triton as found

    return bool(found())


def is_split(tensor: torch.Tensor) -> bool:
    """Whether a tensor is distributed over processes, of which this one has a part."""
    return hasattr(tensor, "full_tensor") and any(not placement.is_replicate() for placement in tensor.placements)


def whole_tensor(tensor: torch.Tensor) -> torch.Tensor:
    """Return a tensor without distribution: one that is split is gathered, which all processes must do together."""
    whole: torch.Tensor = tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
    return whole
