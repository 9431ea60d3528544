"""Where a model is measured: batch sizes and sequence lengths."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from pytest_hfaccel.core.results import Stage, Status
from pytest_hfaccel.core.spec import ModelSpec
from pytest_hfaccel.core.tasks import generates, task_of


@dataclass(frozen=True, order=True)
class Point:
    """A batch size and a sequence length.

    Attributes:
        batch: Samples.
        length: Tokens per sample of text inputs; 0 for "as many as the model's sample inputs have", and for models
            without text.
    """

    batch: int
    length: int = 0

    def __str__(self) -> str:
        return f"b{self.batch}-s{self.length}" if self.length else f"b{self.batch}"

    @property
    def work(self) -> int:
        """Grows with the work of a forward pass."""
        return self.batch * max(1, self.length)


def points_of(batches: Iterable[int], lengths: Iterable[int]) -> list[Point]:
    """Return every batch size at every length, the least work first."""
    found = {Point(batch, length) for batch in batches for length in list(lengths) or [0]}
    return sorted(found, key=lambda point: (point.work, point))


_ONE_LENGTH = frozenset({"image", "image-points", "chat-image"})
"""Recipes of `tasks` whose inputs have no text, or text with image tokens in it that the checkpoint itself decides."""


def varies_in_length(spec: ModelSpec) -> bool:
    """Whether a model can be measured at any sequence length; speech models have the text of their decoder."""
    recipe = task_of(spec).recipe
    return generates(spec) if recipe == "speech" else recipe not in _ONE_LENGTH


def points_for(spec: ModelSpec, batches: Iterable[int], lengths: Iterable[int]) -> list[Point]:
    """Return the points of a model; one that has no lengths is not measured twice for two of them."""
    return points_of(batches, lengths if varies_in_length(spec) else ())


@dataclass(frozen=True)
class NotMeasured:
    """A point that could not be measured, and why.

    Attributes:
        batch: Samples.
        length: Tokens per sample, as asked for.
        status: How it ended: `error`, `crashed`, `timeout`, `out_of_memory`, `unavailable`, ...
        stage: Where it ended.
        reason: Why.
    """

    batch: int
    length: int
    status: Status
    stage: Stage
    reason: str

    def to_json(self) -> dict[str, Any]:
        """Return the plain-JSON form."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> NotMeasured:
        """Rebuild it from what `to_json` returned."""
        return cls(**{**data, "status": Status(data["status"]), "stage": Stage(data["stage"])})
