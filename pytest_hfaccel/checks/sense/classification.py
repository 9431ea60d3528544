"""Claims about models that classify text."""

from __future__ import annotations

from collections.abc import Iterator

from pytest_hfaccel.checks.base import CheckContext
from pytest_hfaccel.checks.claims import Claim

_REVIEWS = (("I love this film, it is wonderful.", "positive"), ("I hate this film, it is terrible.", "negative"))


def judges_sentiment(context: CheckContext) -> Iterator[Claim]:
    """Praise is positive and a rant is negative. Claimed only of models that have such labels."""
    names = {str(name).lower() for name in context.pipe.model.config.id2label.values()}
    if not {"positive", "negative"} <= names:
        return
    for review, sentiment in _REVIEWS:
        best = context.pipe(review)[0]
        yield Claim(
            f"finds {review!r} {sentiment}",
            str(best["label"]).lower() == sentiment,
            {"label": best["label"], "score": best["score"]},
        )
