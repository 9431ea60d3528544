"""transformers, seen in 5.23.0."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from pytest_hfaccel.upstream import TORCHAO, RefCountedContext, errors_only

if TYPE_CHECKING:
    import torch

_ASYNC_LOAD_SWITCH = "HF_DEACTIVATE_ASYNC_LOAD"
"""transformers' own; its documentation has it among the environment variables."""


def _silence(undo: ExitStack) -> None:
    from transformers.utils import logging

    if logging.get_verbosity() < logging.ERROR:  # setting it empties the caches of all the loggers of the process
        undo.callback(logging.set_verbosity, logging.get_verbosity())
        logging.set_verbosity_error()
    if logging.is_progress_bar_enabled():
        undo.callback(logging.enable_progress_bar)
        logging.disable_progress_bar()
    # `modeling_utils` imports torchao; after that there is nothing to keep quiet, and a level costs what is said above.
    undo.enter_context(errors_only(*(() if "transformers.modeling_utils" in sys.modules else TORCHAO)))


quiet = RefCountedContext(_silence)
"""`with quiet:` keeps transformers' progress bars and warnings out of a test run's output."""


def _deactivate_async_load(undo: ExitStack) -> None:
    if _ASYNC_LOAD_SWITCH not in os.environ:
        os.environ[_ASYNC_LOAD_SWITCH] = "1"
        undo.callback(os.environ.pop, _ASYNC_LOAD_SWITCH, None)


load_in_one_thread = RefCountedContext(_deactivate_async_load)
"""`with load_in_one_thread:` has transformers read weights without a pool of threads.

For a tiny checkpoint the pool takes a quarter of the time of loading it (4 of 16 ms for GPT-2, 9 of 28 ms for T5); for
a large one it hides the latency of the disk.
"""


def add_inputs_computed_for_export(model: Any, inputs: dict[str, Any]) -> None:
    """Add to some inputs, in place, what the exporters compute of them before they trace.

    They call `transformers.exporters.utils.precompute_export_inputs` inside; nothing public says what was added.
    """
    from transformers.exporters.utils import precompute_export_inputs

    precompute_export_inputs(model, inputs)


def decoding_step(model: Any, prompts: Mapping[str, torch.Tensor]) -> tuple[Any, dict[str, Any]]:
    """Return the module of a decoding step of several tokens, and its inputs, among them the cache.

    The public `export_for_generation` exports the prefill as well, a trace of its own that a decoder whose step takes
    several tokens does not need.
    """
    from transformers.exporters.utils import decompose_prefill_decode

    step, inputs = decompose_prefill_decode(model, dict(prompts), multi_token_decode=True)["decode"]
    return step, inputs


class TracedTensor(NamedTuple):
    """A tensor among the inputs that a graph was traced with."""

    shape: tuple[int, ...]
    dtype: torch.dtype


def traced_names(metadata: Any) -> frozenset[str]:
    """Return the names of all inputs that a graph was traced with, from an export's `ExportMetadata`."""
    return frozenset(metadata.kwargs)


def traced_tensors(metadata: Any) -> dict[str, TracedTensor]:
    """Return the tensors among those inputs. The layout of `ExportMetadata.kwargs` is documented nowhere."""
    import torch

    return {
        name: TracedTensor(tuple(facts["shape"]), getattr(torch, facts["dtype"]))
        for name, facts in metadata.kwargs.items()
        if "rank" in facts
    }


def cache_shapes(inputs: Mapping[str, Any]) -> dict[str, TracedTensor]:
    """Return the tensors of the caches among some inputs, by the names that the exporters give them in a graph."""
    from transformers.exporters.utils import get_leaf_tensors

    leaves = get_leaf_tensors({name: value for name, value in inputs.items() if not hasattr(value, "shape")})
    return {path: TracedTensor(tuple(tensor.shape), tensor.dtype) for path, tensor in leaves.items()}


class WithoutOptionalInputs:
    """Mixed into an architecture class: `generate` and pipelines offer none of the inputs that only some classes take.

    A compiled graph has the inputs it was traced with. transformers asks these two private methods.
    """

    def _supports_logits_to_keep(self) -> bool:
        return False

    def _supports_mm_encoder_outputs(self) -> bool:
        return False


def openvino_runner(compiled: Any, metadata: Any, request: Any) -> Callable[..., Any]:
    """Return transformers' runner of a compiled OpenVINO graph, which gives the class's `ModelOutput`, on a request.

    The runner opens a request of its own; its attribute is overwritten by one that reports every error.
    """
    from transformers.exporters.runners.runner_openvino import OpenVINOModelRunner

    runner = OpenVINOModelRunner(compiled, metadata)
    runner.request = request
    run: Callable[..., Any] = runner
    return run


def onnx_runner(
    metadata: Any, names: list[str], run: Callable[[dict[str, torch.Tensor]], list[torch.Tensor]]
) -> Callable[..., Any]:
    """Return a function from the inputs of a call to the class's `ModelOutput`, for an ONNX graph that others run.

    transformers' runner opens a session of onnxruntime; what it does before and after a run is not public.

    Args:
        metadata: `ExportMetadata` of the graph.
        names: The graph's inputs.
        run: Takes the graph's inputs by name, and returns its outputs in order.
    """
    from transformers.exporters.runners.base import ModelRunner
    from transformers.exporters.utils import onnx_inputs

    class Runner(ModelRunner):  # type: ignore[misc]
        device = None

        @classmethod
        def from_program(cls, program: Any, metadata: Any, device: Any = None) -> Any:
            raise NotImplementedError

        def __call__(self, **kwargs: Any) -> Any:
            return self.unflatten(run(onnx_inputs(names, kwargs)))

    runner: Callable[..., Any] = Runner(metadata)
    return runner


class _Captured(BaseException):
    """Ends an export once the program has been captured. No `Exception`: that is taken for a failure of one way."""


@contextmanager
def captured_programs(found: list[tuple[Any, Any]]) -> Iterator[None]:
    """End exports inside a `with` block as soon as torch.export has captured the model; the block ends with them.

    All exporters of transformers capture by `DynamoExporter.export_program`, which is replaced.

    Args:
        found: The captured `ExportedProgram` and its `ExportMetadata` are added to it.
    """
    from transformers.exporters.exporter_dynamo import DynamoExporter

    right = DynamoExporter.export_program

    def export_program(self: Any, *args: Any, **kwargs: Any) -> Any:
        found.append(right(self, *args, **kwargs))
        raise _Captured

    DynamoExporter.export_program = export_program
    try:
        yield
    except _Captured:
        pass
    finally:
        DynamoExporter.export_program = right


def dynamo_runner(program: Any, metadata: Any) -> Callable[..., Any]:
    """Return transformers' runner of a captured program, in torch on the CPU."""
    from transformers.exporters.runners.runner_dynamo import DynamoModelRunner

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # it reads a field that torch renames
        run: Callable[..., Any] = DynamoModelRunner.from_program(program, metadata)
    return run


def onnxruntime_runner(session: Any, metadata: Any) -> Callable[..., Any]:
    """Return transformers' runner of a graph on a session of ONNX Runtime, which gives the class's `ModelOutput`.

    The public way opens a session of its own, and takes no device but CPU and CUDA.
    """
    from transformers.exporters.runners.runner_onnx import OnnxModelRunner

    run: Callable[..., Any] = OnnxModelRunner(metadata, session)
    return run


_KEPT_IN_FP32 = ("_keep_in_fp32_modules", "_keep_in_fp32_modules_strict")


def modules_kept_in_fp32(model: Any, *, strictly: bool = False) -> list[str]:
    """Return the parts of names by which a model's class keeps modules in fp32 when it is loaded in half precision.

    Args:
        model: A transformers model.
        strictly: Only those that stay in fp32 at bf16, too.
    """
    fields = ("_keep_in_fp32_modules_strict",) if strictly else _KEPT_IN_FP32
    return sorted({module for field in fields for module in (getattr(model, field, None) or ())})


def attention_implementation(config: Any) -> str | None:
    """Return which attention a model runs (`eager`, `sdpa`, ...): the config has no public attribute for it."""
    chosen: str | None = getattr(config, "_attn_implementation", None)
    return chosen


_SUPPORTS_ATTENTION = {
    "sdpa": "_supports_sdpa",
    "flash_attention_2": "_supports_flash_attn",
    "flex_attention": "_supports_flex_attn",
}
"""Implementation of attention -> the attribute by which a class says that it has it."""


def can_exchange_attention(model: Any) -> bool:
    """Whether a model has more than the one attention that is written out in its class."""
    return bool(model._can_set_attn_implementation())


def supports_attention(model: Any, implementation: str) -> bool:
    """Whether a model has an implementation of attention other than `eager`."""
    return bool(getattr(model, _SUPPORTS_ATTENTION[implementation]))


def packages_of_dummy(model_class: Any) -> list[str]:
    """Return the packages that a class needs where transformers, lacking them, offers a dummy in its place."""
    packages: list[str] = getattr(model_class, "_backends", None) or []
    return packages if "dummy" in model_class.__module__ else []


def model_from_config(model_class: Any, config: Any, dtype: torch.dtype) -> Any:
    """Build a model of a class at a dtype, its parts too: what `AutoModel.from_config` calls for the class it finds."""
    return model_class._from_config(config, dtype=dtype)


_PROCESSOR_TABLES = {
    "tokenization": "TOKENIZER_MAPPING_NAMES",
    "image_processing": "IMAGE_PROCESSOR_MAPPING_NAMES",
    "feature_extraction": "FEATURE_EXTRACTOR_MAPPING_NAMES",
}


def processor_class_name(kind: str, model_type: str) -> str | None:
    """Return the name of the class that transformers' auto class takes for a model type; `None` where it takes none.

    The auto classes read it from a checkpoint's files only; the tables behind them are in no public module.

    Args:
        kind: `tokenization`, `image_processing` or `feature_extraction`.
        model_type: As in a config.
    """
    from importlib import import_module

    module = import_module(f"transformers.models.auto.{kind}_auto")
    named = getattr(module, _PROCESSOR_TABLES[kind]).get(model_type)
    # By kind (torchvision, pil) since transformers 5; the name of the first serves for both.
    return next(iter(sorted(named.values(), key=len)), None) if isinstance(named, dict) else named


def modeling_module(model_type: str) -> str:
    """Return the dotted name of the module with a model type's classes, those too that transformers does not export."""
    from transformers.models.auto.configuration_auto import model_type_to_module_name

    name = model_type_to_module_name(model_type)
    return f"transformers.models.{name}.modeling_{name}"


def tensor_parallel_plan(model: Any) -> dict[str, str]:
    """Return how a model's class says its layers are split, by their names; empty where it says nothing.

    Older releases keep the plan in a private attribute alone.
    """
    return dict(getattr(model, "tp_plan", None) or getattr(model, "_tp_plan", None) or {})


def tensor_parallel(ranks: int) -> dict[str, Any]:
    """Return the keyword arguments by which `from_pretrained` splits a model over processes by its class's plan.

    `DistributedConfig` replaced `tp_plan="auto"` in 5.18.
    """
    try:
        from transformers.distributed import DistributedConfig
    except ImportError:
        return {"tp_plan": "auto", "tp_size": ranks}
    import inspect

    if "tp_size" not in inspect.signature(DistributedConfig).parameters:
        return {"tp_plan": "auto", "tp_size": ranks}
    return {"distributed_config": DistributedConfig(tp_size=ranks)}


def documented_checkpoints() -> dict[str, list[str]]:
    """Return the hub ids that transformers' documentation names, by model type; nothing is imported.

    They stand in the sources of its configurations, `@auto_docstring(checkpoint="google-bert/bert-base-uncased")`
    above the class with `model_type = "bert"`; no public function lists them. Empty without transformers.
    """
    import re
    from importlib.util import find_spec
    from pathlib import Path

    spec = find_spec("transformers")
    found: dict[str, list[str]] = {}
    if spec is None or spec.origin is None:
        return found
    named = re.compile(r'checkpoint="([\w.-]+/[\w.-]+)"|^    model_type\s*(?::[^=]+)?=\s*"([\w.-]+)"', re.MULTILINE)
    for path in sorted(Path(spec.origin).parent.glob("models/*/configuration_*.py")):
        hub_id = ""
        for checkpoint, model_type in named.findall(path.read_text(encoding="utf-8")):
            if checkpoint:
                hub_id = checkpoint
            elif hub_id and hub_id not in found.setdefault(model_type, []):
                found[model_type].append(hub_id)
    return found
