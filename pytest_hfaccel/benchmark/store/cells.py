"""A `CellResult` as rows: what it says about compatibility, and each of its checks with its assertions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pytest_hfaccel.benchmark.store.rows import as_json
from pytest_hfaccel.reports.redact import redact
from pytest_hfaccel.results import CellResult, CheckOutcome, Stage, Status

_GOOD = frozenset({Status.PASSED, Status.XPASSED})
# What happened to the run or to the hub, not to the model on the device.
_SAYS_NOTHING = frozenset(
    {Status.SKIPPED, Status.INCOMPLETE, Status.UNAVAILABLE, Status.GATED, Status.HUB_ERROR, Status.TIMEOUT}
)
_BEFORE_RUN = frozenset({Stage.RESOLVE, Stage.LOAD, Stage.CONVERT, Stage.COMPILE})


def compatibility_row(result: CellResult) -> dict[str, Any]:
    """Return the row of `hardware_compatibility`, without the keys of other tables.

    `compatibility_score` is the share of the checks with a verdict that passed; NULL without such a check.
    """
    verdicts = [check.status for check in result.checks if check.status not in _SAYS_NOTHING]
    message, hint = _reason_and_hint(result)
    return {
        "is_compatible": None if result.status in _SAYS_NOTHING else result.status in _GOOD,
        "detection_success": result.status != Status.UNAVAILABLE,
        "initialization_success": _was_initialised(result),
        "error_message": _redacted(message),
        "error_type": None if result.status in _GOOD else str(result.status),
        "suggested_fix": _redacted(hint),
        "workaround_available": None if result.status in _GOOD else hint is not None,
        "compatibility_score": sum(status in _GOOD for status in verdicts) / len(verdicts) if verdicts else None,
        "metadata": as_json({"placement": result.placement, "timings": result.timings}),
        "cell": result.cell,
        "precision": result.dtype,
        "effective_dtype": result.placement.get("effective_dtype"),
        "weights": result.weights,
        "implementation": result.implementation,
    }


def check_rows(result: CellResult) -> list[dict[str, Any]]:
    """Return the rows of `integration_test_results`, one per check, without the keys of other tables."""
    return [
        {
            "test_module": result.module,
            "test_class": result.architecture,
            "test_name": check.name,
            "status": str(check.status),
            "execution_time_seconds": check.seconds,
            "error_message": _redacted((check.reason or "").partition("\n")[0] or None),
            "error_traceback": _redacted(check.reason if check.reason and "\n" in check.reason else None),
            "metadata": as_json(check.measures),
            "cell": result.cell,
            "stage": str(check.stage) if check.stage else None,
            "precision": result.dtype,
            "weights": result.weights,
        }
        for check in result.checks
    ]


def assertion_rows(check: CheckOutcome) -> Iterator[dict[str, Any]]:
    """Yield the rows of `integration_test_assertions`: the check's own verdict, then its claims about the model."""
    if check.status not in _SAYS_NOTHING:
        yield _assertion(check.name, check.status in _GOOD, Status.PASSED, check.status, check.reason)
    claims = check.measures.get("claims", {})
    for claim, numbers in claims.items() if isinstance(claims, dict) else ():
        shown = {key: value for key, value in numbers.items() if key != "holds"}
        yield _assertion(claim, bool(numbers["holds"]), "holds", as_json(shown), None)


def _assertion(name: str, passed: bool, expected: str, actual: str, message: str | None) -> dict[str, Any]:
    return {
        "assertion_name": name,
        "passed": passed,
        "expected_value": str(expected),
        "actual_value": str(actual),
        "message": _redacted(message),
    }


def _redacted(text: str | None) -> str | None:
    return None if text is None else redact(text)


def _was_initialised(result: CellResult) -> bool | None:
    """Whether the model got as far as running; `None` when the run does not say."""
    if any(check.status in _GOOD for check in result.checks) or "load" in result.timings:
        return True
    if result.status in (Status.SKIPPED, Status.INCOMPLETE) or result.stage is None:
        return None
    return result.stage not in _BEFORE_RUN


def _reason_and_hint(result: CellResult) -> tuple[str | None, str | None]:
    """Split the reason: errors of this package say the next step on a line of its own, the last one."""
    if result.status in _GOOD or not result.reason:
        return None, None
    first, _, rest = result.reason.partition("\n")
    is_error = result.status in (Status.ERROR, Status.UNAVAILABLE, Status.OUT_OF_MEMORY, Status.GATED, Status.HUB_ERROR)
    return (first, rest) if rest and is_error and "\n" not in rest else (result.reason, None)
