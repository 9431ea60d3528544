"""What any pretrained model of a task must make of plain English, plain colours, digits, recorded speech or a reaction.

One function per task; it yields claims, and yields none where the model's vocabulary or labels show that it was
trained for something else. A task without an entry has no input that is both self-made and telling.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from pytest_hfaccel.checks.base import CheckContext
from pytest_hfaccel.checks.claims import Claim
from pytest_hfaccel.checks.sense.classification import judges_sentiment
from pytest_hfaccel.checks.sense.colours import names_colours
from pytest_hfaccel.checks.sense.digits import reads_digits
from pytest_hfaccel.checks.sense.entities import finds_places
from pytest_hfaccel.checks.sense.language import prefers_sentences
from pytest_hfaccel.checks.sense.masks import fills_masks
from pytest_hfaccel.checks.sense.similarity import groups_paraphrases
from pytest_hfaccel.checks.sense.speech import transcribes_speech

SENSE: dict[str, Callable[[CheckContext], Iterable[Claim]]] = {
    "automatic-speech-recognition": transcribes_speech,
    "feature-extraction": groups_paraphrases,
    "fill-mask": fills_masks,
    "image-classification": reads_digits,
    "text-classification": judges_sentiment,
    "text-generation": prefers_sentences,
    "token-classification": finds_places,
    "zero-shot-image-classification": names_colours,
}
"""By task name."""
