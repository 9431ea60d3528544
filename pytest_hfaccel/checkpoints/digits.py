"""The digits that come with scikit-learn: what small vision models are trained on here, and what they are judged by.

1,797 scans of 8 x 8 pixels in 17 shades of grey (UCI, Optical Recognition of Handwritten Digits).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_hfaccel.core.errors import PackageMissing

if TYPE_CHECKING:
    from PIL.Image import Image

NAMES = tuple("0123456789")

LEAST_ACCURACY = 0.95
"""What a trained model must reach on the held-out pictures."""

_HELD_OUT = 5  # every fifth picture
_WHITE = 16


def lacks_scikit_learn() -> bool:
    """Whether the digits are not to be had; imports nothing."""
    from importlib.util import find_spec

    return find_spec("sklearn") is None


def training_digits() -> tuple[list[Image], list[int]]:
    """Return the pictures to train on, in RGB, and which digits they show.

    Raises:
        PackageMissing: scikit-learn is not installed.
    """
    return _digits(held_out=False)


def held_out_digits() -> tuple[list[Image], list[int]]:
    """Return the pictures that no model is trained on, in RGB, and which digits they show.

    Raises:
        PackageMissing: scikit-learn is not installed.
    """
    return _digits(held_out=True)


def _digits(*, held_out: bool) -> tuple[list[Image], list[int]]:
    from PIL import Image

    if lacks_scikit_learn():
        raise PackageMissing("the digits are scikit-learn's, which is not installed.", hint="pip install scikit-learn")
    from sklearn.datasets import load_digits

    data = load_digits()
    chosen = [number for number in range(len(data.target)) if (number % _HELD_OUT == 0) == held_out]
    grey = (data.images * (255 / _WHITE)).round().astype("uint8")
    return [Image.fromarray(grey[number]).convert("RGB") for number in chosen], [int(data.target[i]) for i in chosen]
