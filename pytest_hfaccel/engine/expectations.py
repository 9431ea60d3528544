"""What an error, or an entry that expects a failure, makes of the outcome of a check."""

from __future__ import annotations

import traceback
from typing import TYPE_CHECKING

from pytest_hfaccel.core.errors import HfAccelError, is_out_of_memory
from pytest_hfaccel.core.results import NOT_REACHED, CheckOutcome, Stage, Status
from pytest_hfaccel.core.spec import Expectation

if TYPE_CHECKING:
    from pytest_hfaccel.checks.base import Check

_TRACEBACK_FRAMES = 4


def outcome_of(check: Check, error: Exception) -> CheckOutcome:
    """The outcome of a check that raised: ours have a status and a stage, others are told with where they come from."""
    if isinstance(error, HfAccelError):
        return CheckOutcome(check.name, Status(error.status), Stage(error.stage), str(error))
    status = Status.OUT_OF_MEMORY if is_out_of_memory(error) else Status.ERROR
    frames = traceback.extract_tb(error.__traceback__)[-_TRACEBACK_FRAMES:]
    where = "".join(traceback.format_list(frames))
    return CheckOutcome(check.name, status, Stage.RUN, f"{type(error).__name__}: {error}\n{where}".rstrip())


def repeated(name: str, error: Exception, first: str) -> CheckOutcome:
    """The outcome of a check that met an error which the check `first` has told."""
    status = getattr(error, "status", Status.ERROR)
    stage = Stage(getattr(error, "stage", Stage.RUN))
    if status == Status.UNAVAILABLE:
        return CheckOutcome(name, Status.UNAVAILABLE, stage, str(error))
    return CheckOutcome(name, Status.SKIPPED, stage, f"{NOT_REACHED} ({status}, see {first!r})")


def not_run(check: str, expectation: Expectation) -> CheckOutcome:
    """The outcome of a check that an entry keeps from running."""
    reason = f"[NOTRUN] {expectation.reason} [{expectation.source}]"  # pytest's own word for it
    return CheckOutcome(check, Status.XFAILED, expectation.stage, reason, _measured_cause(expectation))


def against(expectation: Expectation, outcome: CheckOutcome) -> CheckOutcome:
    """Turn an outcome that was expected to be a failure into `xfailed` or `xpassed`."""
    if outcome.status in (Status.PASSED, Status.XPASSED):
        outcome.status = Status.XPASSED
        outcome.stage = expectation.stage
        outcome.reason = (
            f"expected to fail at stage {expectation.stage!s} ({expectation.reason}), but it passed: "
            f"delete the entry at {expectation.source}"
        )
    elif outcome.stage == expectation.stage and (outcome.status.is_bad or outcome.status == Status.SKIPPED):
        outcome.status = Status.XFAILED
        outcome.reason = f"{expectation.reason} [{expectation.source}]\n{outcome.reason}"
        outcome.measures = {**outcome.measures, **_measured_cause(expectation)}
    elif outcome.status.is_bad:
        outcome.reason = (
            f"{outcome.reason}\nThe entry at {expectation.source} expects a failure at stage "
            f"{expectation.stage!s}, not {outcome.stage!s}."
        )
    return outcome


def _measured_cause(expectation: Expectation) -> dict[str, str]:
    return {"cause": expectation.cause} if expectation.cause else {}
