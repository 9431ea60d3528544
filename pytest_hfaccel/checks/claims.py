"""What a claim is: something a pretrained model must make of its task."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Claim:
    """A statement about what a pretrained model makes of its task, and whether it holds.

    Attributes:
        text: The statement, e.g. `fills 'Paris is the capital of [MASK].' with france`.
        holds: Whether it does.
        measures: JSON values it rests on.
    """

    text: str
    holds: bool
    measures: Mapping[str, Any] = field(default_factory=dict)
