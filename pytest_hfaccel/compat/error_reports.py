"""Reports of failed loads and moves of models: the error, what to do, and alternative devices."""

from __future__ import annotations

import json
import re
import threading
import traceback
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pytest_hfaccel.core.errors import BackendUnavailable, GatedError, HfAccelError, HubError, OutOfMemory
from pytest_hfaccel.core.files import replace_file

DIRECTORY = Path("hardware_reports")
"""Where reports are written unless the pool was told otherwise; below the current directory."""

_NOTE = "Hardware error report"
_LONGEST_NAME = 80
_OUT_OF_MEMORY = (
    "Ask for half the bytes: hardware_preferences={'precision': 'fp16'} (or 'bf16').",
    "Free what is unused first: pool.cleanup_unused_resources(0), or pool.clear().",
    "Let the pool save memory by itself: pool.enable_low_memory_mode().",
)
_LAST = "Call the constructor by itself, outside the pool: the last lines of the stack trace say where it fails."


class ErrorReports:
    """Writes one report per error to a directory; none at all where it is `None`."""

    def __init__(self, directory: Path | None) -> None:
        self._directory = directory
        self._lock = threading.Lock()

    def record(self, error: Exception, model_name: str, hardware_type: str, **facts: Any) -> None:
        """Write a report of an error, unless it has one already, and note on the error where it is.

        An error that reaches several threads gets one report. The error comes first: a report that cannot be written is
        noted on it, too, and raises nothing. The arguments are those of `error_report`.
        """
        if self._directory is None:
            return
        with self._lock:
            if any(note.startswith(_NOTE) for note in getattr(error, "__notes__", ())):
                return
            try:
                path = save_error_report(error_report(error, model_name, hardware_type, **facts), self._directory)
            except OSError as problem:
                error.add_note(f"{_NOTE}: could not be written: {problem}")
            else:
                error.add_note(f"{_NOTE}: {path}")


def error_report(
    error: BaseException,
    model_name: str,
    hardware_type: str,
    *,
    model_family: str = "",
    subfamily: str = "",
    alternatives: Sequence[str] = (),
) -> dict[str, Any]:
    """Return the report of an error as plain JSON; secrets are cut out of its texts.

    Args:
        error: What happened.
        model_name: The model.
        hardware_type: Id of the device, or what was asked for when there is none.
        model_family: Family of the model; classified by its name when not given.
        subfamily: Its subfamily.
        alternatives: Ids of the devices it could run on instead, best first.
    """
    from pytest_hfaccel.reporting.plain import redact

    family, sub = _family(model_name, model_family, subfamily)
    return {
        "timestamp": datetime.now(UTC).isoformat(timespec="microseconds"),
        "model_name": model_name,
        "hardware_type": hardware_type,
        "error_message": redact(f"{type(error).__name__}: {error}"),
        "stack_trace": redact("".join(traceback.format_exception(error))),
        "recommendations": recommendations(error, alternatives),
        "model_family": family,
        "subfamily": sub,
        "alternatives": list(alternatives),
    }


def save_error_report(report: dict[str, Any], directory: Path = DIRECTORY) -> Path:
    """Write a report as `hardware_error_{model}_{hw}_{ts}.json`; return its path.

    Raises:
        OSError: It cannot be written.
    """
    stamp = re.sub(r"[^0-9T]", "", report["timestamp"].partition("+")[0]).replace("T", "_")
    path = directory / f"hardware_error_{_slug(report['model_name'])}_{_slug(report['hardware_type'])}_{stamp}.json"
    replace_file(path, json.dumps(report, indent=2) + "\n")
    return path


def recommendations(error: BaseException, alternatives: Sequence[str]) -> list[str]:
    """Return what to do about an error, most specific advice first."""
    advice = []
    if isinstance(error, HfAccelError) and error.hint:
        advice.append(error.hint)
    if isinstance(error, (OutOfMemory, MemoryError)) or "out of memory" in str(error).lower():
        advice += _OUT_OF_MEMORY
    if isinstance(error, ImportError):
        advice.append(f"Install what is missing: {error.name or error}.")
    if isinstance(error, (GatedError, HubError, OSError)):
        advice.append("Check the model's name, the connection to the hub and the access token, or name a directory.")
    if alternatives:
        device = alternatives[0]
        advice.append(f"Run it elsewhere: hardware_preferences={{'device': '{device}'}}.")
    if not isinstance(error, (BackendUnavailable, OutOfMemory)):
        advice.append(_LAST)
    return advice


def _family(model_name: str, family: str, subfamily: str) -> tuple[str, str | None]:
    if family:
        return family, subfamily or None
    from pytest_hfaccel.classify import classify_model

    classified = classify_model(model_name)
    return str(classified["family"]), subfamily or classified["subfamily"]


def _slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9.-]+", "_", text).strip("._")[:_LONGEST_NAME] or "unnamed"
