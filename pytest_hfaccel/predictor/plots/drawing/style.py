"""How all plots look: one style, colour-blind safe colours, marks that differ without colour. Imported late."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import matplotlib.style

DPI = 100

# Sizes of text, in points.
TITLE, PANEL_TITLE, TEXT, SMALL = 13.0, 9.0, 8.0, 7.0

# The "colorblind" palette of seaborn (after Okabe and Ito, "Color Universal Design", 2008), without its yellow and
# pink, which are too light for lines on white, and without its grey, which means "not known" here.
_BLUE, _ORANGE, _GREEN, _VERMILION = "#0173b2", "#de8f05", "#029e73", "#d55e00"
_PURPLE, _BROWN, _SKY, _BLACK = "#cc78bc", "#ca9161", "#56b4e9", "#333333"
COLOURS = (_BLUE, _ORANGE, _GREEN, _VERMILION, _PURPLE, _BROWN, _SKY, _BLACK)
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "h", "*", "p")
UNKNOWN_COLOUR = "#8a8a8a"
WARNING_COLOUR = "#b00020"
FAINT = 0.45
"""Opacity of what was predicted beside what was measured."""

# A kind of hardware has the same colour in every plot.
KIND_COLOURS = {
    "cpu": _BLUE,
    "openvino": _ORANGE,
    "cuda": _GREEN,
    "rocm": _VERMILION,
    "mps": _PURPLE,
    "webgpu": _BROWN,
    "webnn": _SKY,
    "xpu": _BLACK,
}

_RULES: dict[str, Any] = {
    "figure.dpi": DPI,
    "savefig.dpi": DPI,
    "font.size": TEXT,
    "axes.titlesize": PANEL_TITLE,
    "axes.labelsize": TEXT,
    "xtick.labelsize": SMALL,
    "ytick.labelsize": SMALL,
    "legend.fontsize": TEXT,
    "axes.edgecolor": "#9a9a9a",
    "grid.color": "#e2e2e2",
    "grid.linewidth": 0.7,
    "lines.linewidth": 1.5,
    "lines.markersize": 5,
    "hatch.linewidth": 0.6,
    # A model's name may hold a dollar sign; it is no formula.
    "text.parse_math": False,
    # Random ids would make every SVG differ.
    "svg.hashsalt": "pytest-hfaccel",
}


@contextmanager
def house_style() -> Iterator[None]:
    """Draw in our style, whatever the user's matplotlibrc says, and leave their settings as they were."""
    seaborn: Any = import_module("seaborn")
    with warnings.catch_warnings(), matplotlib.style.context(["default", seaborn.axes_style("whitegrid"), _RULES]):
        # A name in a script that the font lacks is shown as boxes: no reason to fail where warnings are errors.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield


def hardware_colours(platforms: Sequence[str]) -> dict[str, str]:
    """A colour for each platform or device: that of its kind for the first of a kind, else the next free one."""
    colours: dict[str, str] = {}
    for name in platforms:
        own = KIND_COLOURS.get(name.partition(":")[0])
        if own and own not in colours.values():
            colours[name] = own
    for name in platforms:
        free = [colour for colour in COLOURS if colour not in colours.values()] or list(COLOURS)
        colours.setdefault(name, free[len(colours) % len(free)])
    return {name: colours[name] for name in platforms}


def markers(names: Sequence[str]) -> dict[str, str]:
    """A mark for each name, so that lines and points can be told apart without colours."""
    return {name: MARKERS[index % len(MARKERS)] for index, name in enumerate(names)}


def category_colours(names: Sequence[str]) -> dict[str, str]:
    """A colour for each name, in their order; they repeat after eight, when only the marks differ."""
    return {name: COLOURS[index % len(COLOURS)] for index, name in enumerate(names)}


def ordered_colours(count: int) -> list[str]:
    """Colours of ordered things (batches, lengths), light to dark: readable in grey, too."""
    seaborn: Any = import_module("seaborn")
    return list(seaborn.color_palette("viridis_r", count + 1).as_hex()[1:])
