"""Claims about models that match images with text."""

from __future__ import annotations

from collections.abc import Iterator

from pytest_hfaccel.checks.base import CheckContext
from pytest_hfaccel.checks.claims import Claim

_COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}
_SIZE = 224


def names_colours(context: CheckContext) -> Iterator[Claim]:
    """A plain image in one colour fits the name of that colour best."""
    from PIL import Image

    for name, colour in _COLOURS.items():
        image = Image.new("RGB", (_SIZE, _SIZE), colour)
        best = context.pipe(image, candidate_labels=list(_COLOURS), hypothesis_template="the colour {}")[0]
        yield Claim(
            f"calls a {name} image {name}", best["label"] == name, {"label": best["label"], "score": best["score"]}
        )
