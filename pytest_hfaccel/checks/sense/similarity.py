"""Claims about models that turn text into features."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from pytest_hfaccel.checks.base import CheckContext
from pytest_hfaccel.checks.claims import Claim

if TYPE_CHECKING:
    import torch

# (sentence, a paraphrase, something else): far enough apart for models that were not trained on similarity.
_TRIPLES = (
    ("A man is playing a guitar on stage.", "A man plays the guitar on a stage.", "The stock market fell sharply."),
    ("The cat sleeps on the sofa.", "A cat is sleeping on the sofa.", "Quantum physics is difficult to learn."),
)


def groups_paraphrases(context: CheckContext) -> Iterator[Claim]:
    """Mean-pooled features of paraphrases are closer than those of unrelated sentences."""
    for sentence, paraphrase, other in _TRIPLES:
        base, near, far = (_pooled(context, text) for text in (sentence, paraphrase, other))
        similar, unrelated = _cosine(base, near), _cosine(base, far)
        yield Claim(
            f"puts {sentence!r} closer to {paraphrase!r} than to {other!r}",
            similar > unrelated,
            {"paraphrase_cosine": similar, "unrelated_cosine": unrelated},
        )


def _pooled(context: CheckContext, text: str) -> torch.Tensor:
    import torch

    # One text at a time: every token is real, so that the plain mean is the masked mean.
    return torch.tensor(context.pipe(text), dtype=torch.float64)[0].mean(0)


def _cosine(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(a.dot(b) / (a.norm() * b.norm()))
