"""Numbers for people."""

from __future__ import annotations

MIB = 2**20
"""Bytes of the megabyte in all results."""


def time_text(milliseconds: float) -> str:
    """Write a time: `3.7 s`, `12.4 ms`, `250 us`."""
    if milliseconds >= 1e3:
        return f"{_three(milliseconds / 1e3)} s"
    return f"{_three(milliseconds)} ms" if milliseconds >= 1 else f"{_three(1e3 * milliseconds)} us"


def memory_text(mib: float) -> str:
    """Write MiB in the unit people compare memory in: `640 MiB`, `12.4 GiB` (2**30 bytes)."""
    return f"{_three(mib / 1024)} GiB" if mib >= 1024 else f"{mib:.0f} MiB"


def rate_text(per_second: float) -> str:
    """Write a throughput: `1,240 samples/s`."""
    return f"{_three(per_second)} samples/s"


def count_text(number: int, what: str) -> str:
    """Write a number of things: `1 row`, `3 rows`."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _three(value: float) -> str:
    """Write three significant digits, without an exponent."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"
