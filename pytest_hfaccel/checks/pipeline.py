"""Check `pipeline`: `transformers.pipeline` gives what the processor and the model give when used directly."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

from pytest_hfaccel.checks.base import CheckContext, failed, passed, skipped
from pytest_hfaccel.checks.direct import DIRECT
from pytest_hfaccel.checks.records import problems_between
from pytest_hfaccel.checks.tolerances import tolerance_of
from pytest_hfaccel.core.results import CheckOutcome
from pytest_hfaccel.core.tasks import task_of

NAME = "pipeline"


def pipeline(context: CheckContext) -> CheckOutcome:
    """The task's pipeline on this device equals pre-processing, forward or generate, and post-processing by hand."""
    arguments = context.sample.pipeline
    if arguments is None:
        return skipped(NAME, "the sample has no input for the pipeline")
    task = task_of(context.cell.model).pipeline or ""
    direct = DIRECT[task]
    options = {**context.sample.pipeline_kwargs, **direct.forced}
    # Some pipelines take their arguments apart: give them copies.
    found = direct.view(context.pipe(*deepcopy(arguments), **deepcopy(options)))
    expected = direct.compute(context, arguments, options)
    problems = problems_between(found, expected, tolerance_of(context.cell))
    measures: dict[str, Any] = {"task": task, "result": _excerpt(found)}
    return failed(NAME, "\n".join(problems), **measures) if problems else passed(NAME, **measures)


def _excerpt(result: object, length: int = 200) -> str:
    text = repr(result)
    return text if len(text) <= length else f"{text[:length]}..."
