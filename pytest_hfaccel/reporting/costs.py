"""What a million tokens or samples cost: the price of a device per hour, and its measured throughput."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from pytest_hfaccel.core.errors import ConfigError
from pytest_hfaccel.core.results import CellResult
from pytest_hfaccel.core.spec import Device

_PER_HOUR = 3600
_MILLION = 1_000_000


def parse_prices(texts: Iterable[str], place: str = "--hf-price") -> dict[str, float]:
    """Read prices per hour.

    Args:
        texts: `cuda:0=1.89`: a device, a kind (`cuda`) or a wildcard (`openvino:*`), and the price, in any currency.
        place: The option they come from.

    Returns:
        The prices by device, in the order in which they were given.

    Raises:
        ConfigError: A text is no price; the message begins with `place`.
    """
    prices = {}
    for text in texts:
        device, equals, number = text.rpartition("=")
        try:
            price = float(number)
        except ValueError:
            price = -1.0
        if not (equals and device.strip() and 0 <= price < math.inf):
            raise ConfigError(
                f"{place} {text}: this is no price of a device.",
                hint=f"Give a device and its price per hour: {place} cuda:0=1.89, or {place} 'openvino:*=0.20'.",
            )
        prices[device.strip()] = price
    return prices


def cost_rows(results: Iterable[CellResult], prices: Mapping[str, float]) -> list[dict[str, Any]]:
    """Return what the measured cells cost, a row for each point at which one was measured.

    Args:
        results: The records; those without a measured throughput have no row.
        prices: Per hour, by device, kind or wildcard. The first that names a device counts.

    Returns:
        Rows of `cell`, `device`, `dtype`, `weights`, `batch`, `length`, `price_per_hour` and `per_million_samples`; for
        texts also `per_million_input_tokens`, and for models that generate `per_million_tokens`: of generated tokens
        after the first one.
    """
    rows = []
    for result in results:
        kind, _, target = result.device.partition(":")
        device = Device(kind, target)
        price = next((price for pattern, price in prices.items() if device.matches(pattern)), None)
        if price is None:
            continue
        for check in result.checks:
            measured = check.measures
            samples = measured.get("samples_per_second")
            if not samples:
                continue
            per_second = {
                "per_million_samples": samples,
                "per_million_input_tokens": samples * measured.get("length", 0),
                "per_million_tokens": measured.get("tokens_per_second") or 0,
            }
            row: dict[str, Any] = {"cell": result.cell, "device": result.device, "dtype": result.dtype}
            row |= {"weights": result.weights, "batch": measured["batch"], "length": measured.get("length", 0)}
            row |= {"price_per_hour": price}
            row |= {name: price / _PER_HOUR / rate * _MILLION for name, rate in per_second.items() if rate}
            rows.append(row)
    return rows


def prices_of_run(header: Mapping[str, Any]) -> dict[str, float]:
    """Return the prices that a run was given, from its header."""
    return parse_prices((header.get("options") or {}).get("prices") or ())


def cost_table(rows: Iterable[Mapping[str, Any]]) -> list[list[str]]:
    """Return cost rows as rows of texts, headings first; a number that a cell does not have is `-`."""
    names = ("per_million_tokens", "per_million_input_tokens", "per_million_samples")
    heads = ["cell", "batch", "length", "price/h", "1M tokens", "1M input tokens", "1M samples"]
    body = [
        [
            f"{row['cell']} [{row['weights']}]",
            str(row["batch"]),
            str(row["length"] or "-"),
            f"{row['price_per_hour']:g}",
            *(f"{row[name]:.3g}" if name in row else "-" for name in names),
        ]
        for row in rows
    ]
    return [heads, *body]


def cost_text(results: Iterable[CellResult], header: Mapping[str, Any], width: int = 100) -> str:
    """Return the table of costs as text; empty where a run has no prices, or measured nothing."""
    from pytest_hfaccel.reporting.tables import table_in_blocks

    rows = cost_rows(results, prices_of_run(header))
    return table_in_blocks(cost_table(rows), width) if rows else ""
