"""Numbers and names as text on a plot, and as parts of a file name."""

from __future__ import annotations

import re
from hashlib import sha256

LONGEST = 60
NOT_MEASURED = "predicted, or the source is not stated"
"""What faint bars and open marks mean."""


def compact(number: float) -> str:
    """Three significant digits, from ten thousand on with a suffix: `0.0123`, `12.3`, `1,230`, `45k`, `6M`."""
    if 999.5 <= abs(number) < 9_995:
        return f"{float(f'{number:.3g}'):,.0f}"
    for limit, suffix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        # 999,600 has three significant digits only as 1M.
        if abs(number) >= 0.9995 * limit:
            return f"{_digits(number / limit)}{suffix}"
    return _digits(number)


def _digits(number: float) -> str:
    if number and abs(number) < 1e-3:
        return f"{number:.2e}"
    return f"{number:#.3g}".rstrip("0").rstrip(".") if number else "0"


def with_unit(number: float, unit: str) -> str:
    """`150 GFLOP/s`: the suffix belongs to the unit."""
    text = compact(number)
    suffix = text[-1] if text[-1].isalpha() else ""
    return f"{text.removesuffix(suffix)} {suffix}{unit}"


def with_interval(value: float, low: float | None, high: float | None, unit: str = "") -> str:
    """`120 (100-140)`, or `120` where there is no interval."""
    interval = "" if low is None or high is None else f" ({compact(low)}\u2013{compact(high)})"
    return f"{compact(value)}{unit}{interval}"


def plain(text: object) -> str:
    """A name as one line that a plot can show: no control characters, and nothing that hides it from a legend."""
    line = " ".join("".join(letter if letter.isprintable() else " " for letter in str(text)).split())
    # matplotlib leaves labels that begin with an underscore out of legends.
    return f" {line}" if line.startswith("_") else line or "(no name)"


def file_part(text: str) -> str:
    """A name as a part of a file name: the same name always gives the same part.

    Letters, digits, `.`, `-` and `_` stay, spaces become `_`. A name that loses something else gets the start of its
    SHA-256, so that `a/b` and `a:b` do not overwrite each other.
    """
    spaceless = re.sub(r"\s+", "_", text)
    safe = re.sub(r"[^A-Za-z0-9._-]+", "_", spaceless).strip("._")[:LONGEST]
    return safe if safe and safe == spaceless else f"{safe or 'unnamed'}-{sha256(text.encode()).hexdigest()[:6]}"


def counted(counts: dict[str, int]) -> str:
    """`12 measured, 40 learned`, the most frequent first."""
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{count:,} {name}" for name, count in ordered)
