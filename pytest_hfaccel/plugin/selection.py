"""Whether what the user named is what gets tested."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pytest_hfaccel.plugin.session import HfSession


def refuse_unclaimed(session: HfSession) -> None:
    """Fail the run when a model the user named belongs to no collected model class.

    Raises:
        pytest.UsageError: With the model's class, and what the collected classes serve.
    """
    if text := describe_unclaimed(session):
        raise pytest.UsageError(text)


def describe_unclaimed(session: HfSession) -> str:
    """Say which models the user named belong to no collected model class; nothing when each has one."""
    missing = session.unclaimed() if session.config.models else []
    if not missing:
        return ""
    lines = [f"--hf-model {spec.name}: no collected model class tests {spec.architecture}." for spec in missing]
    lines.append(f"The collected classes test: {', '.join(sorted(session.patterns)) or 'nothing'}.")
    lines.append("Collect the module of that class (model_classes/), or write one: a class with `architectures`.")
    return "\n".join(lines)
