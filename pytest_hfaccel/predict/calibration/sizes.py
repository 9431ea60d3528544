"""Which operators at which sizes a calibration measures: the tables of `sizes.yaml`, which explains them.

Reads the file: import this module late.
"""

from __future__ import annotations

from importlib.resources import files

import yaml

_TABLES = yaml.safe_load(files(__package__).joinpath("sizes.yaml").read_text(encoding="utf-8"))

LINEAR: list[tuple[int, int, int]] = _TABLES["LINEAR"]
BMM: list[tuple[int, int, int, int]] = _TABLES["BMM"]
ATTENTION: list[tuple[int, int, int]] = _TABLES["ATTENTION"]
CONV: list[tuple[int, int, int, int, int, int, int]] = _TABLES["CONV"]
DEPTHWISE: list[tuple[int, int, int, int, int, int, int]] = _TABLES["DEPTHWISE"]
SOUND: list[tuple[int, int, int, int, int, int]] = _TABLES["SOUND"]
NUMBERS: list[int] = _TABLES["NUMBERS"]
NORMS: list[tuple[int, int]] = _TABLES["NORMS"]

ROW, HEAD = 1000, 50
"""Numbers of a row that is moved, and of a head in it that changes places."""
