"""Conversion of a transformers model to OpenVINO's IR, with transformers' own exporter."""

from __future__ import annotations

import gc
import logging
import threading
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from pytest_hfaccel.backends.generation import neutral_settings
from pytest_hfaccel.backends.openvino.folded import folded_geometry, without_geometry
from pytest_hfaccel.backends.openvino.precomputed import precomputed
from pytest_hfaccel.backends.openvino.shapes import FOLDED, GEOMETRY, varying_axes
from pytest_hfaccel.backends.openvino.telemetry import send_no_telemetry
from pytest_hfaccel.core.errors import LoadError, OutOfMemory, is_out_of_memory

if TYPE_CHECKING:
    import torch

_FOLDED = "folded"

# The exporter patches torch and the model's class while it traces.
_ONE_AT_A_TIME = threading.Lock()

_CHATTY = ("transformers", "torch.export", "torch._export", "torch.fx.experimental", "torch._dynamo", "torch._inductor")


def export_model(model: Any, inputs: Mapping[str, torch.Tensor], *, static: bool) -> tuple[Any, str, list[str]]:
    """Trace and convert a model.

    Several ways are tried, the first that works counts: only the axes that vary between calls are kept open
    (`varying`), every axis is (`all`), none is (`static`), and the sizes of images are constants besides (`folded`).

    Args:
        model: The transformers model on the CPU in fp32.
        inputs: Example inputs of `forward`.
        static: The device takes static shapes only: neither of the first two ways. They are left out, too, for a model
            some of whose inputs are computed of others before tracing (see `precomputed`).

    Returns:
        transformers' `ExportedModel`, the way that worked, and one line per way that did not.

    Raises:
        LoadError: No way worked.
        OutOfMemory: Memory ran out.
    """
    from transformers.exporters import OpenVINOConfig, OpenVINOExporter

    send_no_telemetry()
    _switch_off_caches(model.config)
    problems: list[str] = []
    first: Exception | None = None
    with _ONE_AT_A_TIME, _quiet(), _no_collector():
        added = precomputed(model, inputs)
        for name, options in _ways(inputs, static or bool(added)).items():
            try:
                config = OpenVINOConfig(stateful=False, **options)
                if name == _FOLDED:
                    with folded_geometry(model, inputs):
                        given = without_geometry({**inputs, **added})
                        exported = OpenVINOExporter().export(model, given, config)
                else:
                    exported = OpenVINOExporter().export(model, dict(inputs), config)
            except Exception as error:
                if is_out_of_memory(error):
                    raise OutOfMemory(f"memory ran out while converting: {error}", stage="convert") from error
                first = first or error
                problems.append(f"{name}: {type(error).__name__}: {(str(error).strip() or '-').splitlines()[0]}")
                continue
            _require_feedable(exported, inputs, added)
            return exported, name, problems
    raise LoadError(
        f"{type(model).__name__} cannot be converted to OpenVINO. Tried: " + "; ".join(problems), stage="convert"
    ) from first


def export_decoder(model: Any, prompts: Mapping[str, torch.Tensor]) -> tuple[Any, str, list[str]]:
    """Trace and convert a decoding step that keeps the key-value cache as state inside the graph.

    Args:
        model: A decoder-only transformers model on the CPU in fp32.
        prompts: `input_ids` and `attention_mask` to generate a few tokens from, at least 2 x 2.

    Returns:
        As `export_model`.

    Raises:
        LoadError: The step cannot be converted.
    """
    from transformers.exporters import OpenVINOConfig, OpenVINOExporter
    from transformers.exporters.utils import decompose_prefill_decode

    send_no_telemetry()
    with _ONE_AT_A_TIME, _quiet(), _no_collector(), neutral_settings(model, use_cache=True):
        try:
            parts = decompose_prefill_decode(model, dict(prompts), multi_token_decode=True)
            step, inputs = parts["decode"]
            # A class that keeps no cache (GPT-1) takes the prompt again in every step.
            if inputs["input_ids"].shape[1] > prompts["input_ids"].shape[1]:
                raise LoadError(f"{type(model).__name__} hands no cache from one step to the next.", stage="convert")
            exported = OpenVINOExporter().export(step, inputs, OpenVINOConfig(stateful=True, dynamic=True))
        except LoadError:
            raise
        except Exception as error:
            raise LoadError(
                f"{type(model).__name__} cannot be converted with a cache: {type(error).__name__}: {error}",
                stage="convert",
            ) from error
    return exported, "all", []


def _ways(inputs: Mapping[str, torch.Tensor], static: bool) -> dict[str, dict[str, Any]]:
    import torch

    folded: dict[str, dict[str, Any]] = {_FOLDED: {}} if GEOMETRY & inputs.keys() else {}
    if static:
        return {"static": {}, **folded}
    auto = torch.export.Dim.AUTO
    axes = {
        # The exporter turns these into lists of tuples of numbers, none of which is an axis.
        name: [(None,) * tensor.shape[1]] * tensor.shape[0]
        if name in FOLDED
        else dict.fromkeys(varying_axes(name, tensor), auto)
        for name, tensor in inputs.items()
    }
    return {"varying": {"dynamic_shapes": axes}, "all": {"dynamic": True}, "static": {}, **folded}


def _switch_off_caches(config: Any) -> None:
    """Set `use_cache` to false on a config and every config in it, so that no cache becomes an output of the graph."""
    from transformers import PretrainedConfig

    if hasattr(config, "use_cache"):
        config.use_cache = False
    for value in list(vars(config).values()):
        if isinstance(value, PretrainedConfig):
            _switch_off_caches(value)


def _require_feedable(exported: Any, inputs: Mapping[str, torch.Tensor], added: Mapping[str, Any]) -> None:
    """Refuse a graph with inputs that the exporter made in a way that nobody can repeat for later calls."""
    (component,) = exported.components.values()
    traced = component.metadata.kwargs
    made = [name for name, facts in traced.items() if "rank" in facts and name not in inputs and name not in added]
    folded = [name for name in inputs if name in traced and "rank" not in traced[name] and name not in FOLDED]
    if made or folded:
        raise LoadError(
            f"{component.metadata.architecture}: transformers' exporter computes {', '.join(made + folded)} outside "
            "the graph, from values of the example inputs. This backend cannot do so for other inputs.",
            stage="convert",
        )


@contextmanager
def _no_collector() -> Iterator[None]:
    """Switch the garbage collector off: tracing makes millions of objects, and each pass goes over all of transformers.

    In a fresh process that is a few percent of a conversion.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the tracer's remarks about its own work out of the test run, where a warning may be an error."""
    loggers = [logging.getLogger(name) for name in _CHATTY]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
