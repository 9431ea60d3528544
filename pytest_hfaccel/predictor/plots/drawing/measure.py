"""How wide text will be, in inches, before a figure exists. Imported late."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Any

from matplotlib.backends.backend_agg import RendererAgg
from matplotlib.font_manager import FontProperties

from pytest_hfaccel.predictor.plots.drawing.style import DPI

ELLIPSIS = "\u2026"


@cache
def _renderer() -> Any:
    make: Any = RendererAgg  # matplotlib's annotations leave it untyped
    return make(1, 1, DPI)


@cache
def text_width(text: str, size: float, weight: str = "normal") -> float:
    """The width of one line of text, in inches."""
    font = FontProperties(family="sans-serif", size=size, weight=weight)
    width, _, _ = _renderer().get_text_width_height_descent(text, font, ismath=False)
    return float(width) / DPI


def widest(texts: Iterable[str], size: float, weight: str = "normal") -> float:
    """The width of the widest line among texts, in inches; 0 without any."""
    return max((text_width(line, size, weight) for text in texts for line in text.split("\n")), default=0.0)


def shorten(text: str, inches: float, size: float, weight: str = "normal") -> str:
    """Take letters out of the middle until the text fits: names differ at their ends (owner/model-size-version)."""
    if text_width(text, size, weight) <= inches:
        return text
    for kept in range(len(text) - 1, 1, -1):
        front = kept // 3
        shorter = text[:front] + ELLIPSIS + text[len(text) - (kept - front) :]
        if text_width(shorter, size, weight) <= inches:
            return shorter
    return ELLIPSIS


def wrap(text: str, inches: float, size: float, weight: str = "normal") -> list[str]:
    """Break text into lines that fit; a word that is too long for a line is shortened."""
    lines: list[str] = []
    current = ""
    for word in text.split():
        longer = f"{current} {word}".strip()
        if current and text_width(longer, size, weight) > inches:
            lines.append(current)
            longer = word
        current = shorten(longer, inches, size, weight)
    return [*lines, current] if current else lines
