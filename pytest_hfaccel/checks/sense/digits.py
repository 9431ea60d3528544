"""Claims about models that read handwritten digits."""

from __future__ import annotations

from collections.abc import Iterator

from pytest_hfaccel.checkpoints.pretrained.digits import LEAST_ACCURACY, NAMES, held_out_digits
from pytest_hfaccel.checks.base import CheckContext
from pytest_hfaccel.checks.claims import Claim

_PICTURES = 120
"""Every third of the digits held out from training: enough to tell 95 % from 90 %, in a second."""


def reads_digits(context: CheckContext) -> Iterator[Claim]:
    """Digits that no model was trained on are read rightly. Claimed only of models whose labels are the ten digits."""
    if sorted(map(str, context.pipe.model.config.id2label.values())) != list(NAMES):
        return
    pictures, answers = held_out_digits()
    step = len(answers) // _PICTURES
    found = [context.pipe(picture, top_k=1)[0]["label"] for picture in pictures[::step]]
    right = sum(label == str(answer) for label, answer in zip(found, answers[::step], strict=True))
    accuracy = right / len(found)
    yield Claim(
        f"reads {LEAST_ACCURACY:.0%} of the digits that it was not trained on",
        accuracy >= LEAST_ACCURACY,
        {"accuracy": accuracy, "pictures": len(found)},
    )
