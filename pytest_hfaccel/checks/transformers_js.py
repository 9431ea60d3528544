"""Check `transformers_js`, only with `--hf-transformers-js`: what a web application gets is what Python gets.

transformers.js has a tokenizer, image processors and pipelines of its own. It reads the same checkpoint, and the ONNX
graph of the cell.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pytest_hfaccel.checks.base import CheckContext, built_in, passed_unless, skipped
from pytest_hfaccel.checks.pipeline import problems_between
from pytest_hfaccel.core.tasks import task_of
from pytest_hfaccel.numerics.tolerances import tolerance_of

if TYPE_CHECKING:
    from pytest_hfaccel.core.results import CheckOutcome
    from pytest_hfaccel.core.spec import Cell

TASKS = {
    "feature-extraction": {},
    "fill-mask": {},
    "image-classification": {},
    "image-feature-extraction": {"pool": False},
    "text-classification": {},
    "token-classification": {},
}
"""Pipelines that transformers.js runs on the one graph of a forward pass, with options that give what Python gives.

Generation wants graphs for encoder, decoder and cache that are named as Optimum names them; ours are not."""

_DEVICES = ("wasm", "webgpu")
"""For webnn transformers.js would need the lengths of the axes, which it does not know before it tokenizes."""


def _applies(cell: Cell) -> bool:
    return cell.device.kind in _DEVICES and task_of(cell.model).pipeline in TASKS


@built_in("transformers_js", applies=_applies, option="transformers_js")
def transformers_js(context: CheckContext) -> CheckOutcome:
    """The pipeline of transformers.js in the page gives what `transformers.pipeline` gives on the CPU."""
    from transformers import pipeline

    sample = context.sample
    if sample.pipeline is None:
        return skipped("the sample has no input for the pipeline")
    task = task_of(context.cell.model).pipeline or ""
    arguments = [_at_size_of_model(context, argument) for argument in sample.pipeline]
    run: Any = getattr(context.loaded, "transformers_js")  # noqa: B009 - not every loaded model has it
    actual = run(task, arguments, TASKS[task])
    with context.on_cpu("fp32") as on_cpu:
        python = pipeline(task, model=on_cpu.pipeline_model(), **context.source.processors())
        expected = python(*arguments, **sample.pipeline_kwargs)
    problems = problems_between(*_shared(actual, expected), tolerance_of(context.cell))
    return passed_unless("\n".join(problems), task=task, result=repr(actual)[:200])


def _at_size_of_model(context: CheckContext, argument: Any) -> Any:
    """Return an image at the size that the model takes: a browser resamples otherwise than PIL does."""
    size = getattr(context.source.processors().get("image_processor"), "size", None)
    if not hasattr(argument, "resize") or not size or "height" not in size:
        return argument
    return argument.resize((size["width"], size["height"]))


def _shared(actual: Any, expected: Any) -> tuple[Any, Any]:
    """Return two results without the fields that only one of them has (places in the text, in transformers.js)."""
    if not isinstance(actual, list) or not isinstance(expected, list):
        return actual, expected
    pairs = [
        ({key: one[key] for key in one.keys() & other.keys()}, {key: other[key] for key in one.keys() & other.keys()})
        for one, other in zip(actual, expected, strict=False)
        if isinstance(one, Mapping) and isinstance(other, Mapping)
    ]
    if len(pairs) != len(actual) or len(pairs) != len(expected):
        return actual, expected
    return [one for one, _ in pairs], [other for _, other in pairs]
