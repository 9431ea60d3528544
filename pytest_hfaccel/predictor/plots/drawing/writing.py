"""Draws and writes figures one after the other, in our style. Imported late."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from pytest_hfaccel.predictor.plots.drawing.page import Page
from pytest_hfaccel.predictor.plots.drawing.style import house_style


def write_pages(pages: Iterable[tuple[str, Page]], directory: Path, suffix: str) -> list[Path]:
    """Write figures, given by their files' names without suffix; only one is held in memory at a time.

    Raises:
        ConfigError: A file cannot be written.
    """
    with house_style():
        return [page.save(directory / f"{name}{suffix}") for name, page in pages]
