"""What the direct computations share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pytest_hfaccel.checks.base import CheckContext

if TYPE_CHECKING:
    import torch

    Options = Mapping[str, Any]
    Arguments = tuple[Any, ...]
    Compute = Callable[[CheckContext, Arguments, Options], Any]


def _as_it_is(result: Any) -> Any:
    return result


@dataclass(frozen=True)
class Direct:
    """How to get a pipeline's result without the pipeline.

    Attributes:
        compute: Takes context, positional and keyword arguments of the call; returns the expected result.
        forced: Keyword arguments that every call gets, so that its result is defined (greedy generation).
        view: Takes the part of the pipeline's result that is compared.
    """

    compute: Compute
    forced: Options = field(default_factory=dict)
    view: Callable[[Any], Any] = _as_it_is


def forward(context: CheckContext, inputs: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """Run the cell's model on what a processor returned; entries that are no tensors are left out."""
    import torch

    return context.loaded.forward({name: value for name, value in inputs.items() if isinstance(value, torch.Tensor)})


def probabilities(config: Any, logits: torch.Tensor) -> torch.Tensor:
    """Turn the logits of one sample into scores, as the config's problem type asks.

    Args:
        config: The model's config: `problem_type` and `num_labels`.
        logits: Shape (labels,).
    """
    logits = logits.float()
    if config.problem_type == "regression":
        return logits
    if config.problem_type == "multi_label_classification" or config.num_labels == 1:
        return logits.sigmoid()
    return logits.softmax(-1)


def ranked(config: Any, scores: torch.Tensor, top_k: int | None) -> list[dict[str, Any]]:
    """Return `label` and `score` of the best labels, the best first.

    Args:
        config: The model's config: `id2label`.
        scores: Shape (labels,).
        top_k: How many; `None` for all.
    """
    best = scores.sort(descending=True, stable=True)
    pairs = zip(best.values.tolist(), best.indices.tolist(), strict=True)
    return [{"label": config.id2label[index], "score": score} for score, index in pairs][:top_k]


def zero_shot(labels: list[str], logits: torch.Tensor, *, sigmoid: bool = False) -> list[dict[str, Any]]:
    """Return candidate labels with their scores, the best first.

    Args:
        labels: The candidates.
        logits: One per candidate.
        sigmoid: Whether each score is the sigmoid of its logit, rather than all of them the softmax.
    """
    scores = (logits.sigmoid() if sigmoid else logits.softmax(-1)).tolist()
    return [{"score": score, "label": label} for score, label in sorted(zip(scores, labels, strict=True), reverse=True)]
