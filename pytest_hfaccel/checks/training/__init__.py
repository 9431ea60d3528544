"""Check `training`: the model learns on this device. Only with `--hf-training`."""

from __future__ import annotations

from pytest_hfaccel.checks.base import CheckContext, failed, passed
from pytest_hfaccel.core.results import CheckOutcome, Stage

NAME = "training"
OPTION = "training"


def training(context: CheckContext) -> CheckOutcome:
    """The loss is finite, its gradients reach what it depends on, checkpointing keeps them, and a step lowers it."""
    from pytest_hfaccel.checks.training.lesson import Lesson

    lesson = Lesson(context)
    for part in (lesson.learn, lesson.checkpoint, lesson.step):
        problem = part()
        if problem:
            return failed(NAME, problem, stage=Stage.RUN, **lesson.measures)
    return passed(NAME, **lesson.measures)
