"""Check `task_sense`: a pretrained model does what it was trained for."""

from __future__ import annotations

from pytest_hfaccel.checks.base import CheckContext, failed, passed, skipped
from pytest_hfaccel.checks.sense import SENSE
from pytest_hfaccel.core.results import CheckOutcome

NAME = "task_sense"


def task_sense(context: CheckContext) -> CheckOutcome:
    """A pretrained model makes sense of its task: every claim of the task and of the model class module holds."""
    generic = SENSE.get(context.cell.model.task)
    claims = [*(generic(context) if generic else ()), *context.claims]
    measures = {claim.text: {"holds": claim.holds, **claim.measures} for claim in claims}
    if not claims:
        task = context.cell.model.task
        return skipped(NAME, f"nobody claims anything about this model: override `task_sense` for {task}")
    broken = [claim for claim in claims if not claim.holds]
    if broken:
        lines = [f"it does not hold that the model {claim.text}: {dict(claim.measures)}" for claim in broken]
        return failed(NAME, "\n".join(lines), claims=measures)
    return passed(NAME, claims=measures)
