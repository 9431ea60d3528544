"""Numbers and answers as text for people, and what earlier predictions were worth."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import Any

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


@dataclass(frozen=True)
class AccuracyLine:
    """How far predictions of one kind were from what was measured later.

    Attributes:
        metric: `latency_ms` or `memory_mb`.
        device: Kind of device.
        family: The classifier's family; empty where it is not known.
        source: The layer the predictions came from.
        pairs: Predictions that were measured later.
        mean_error: Mean of |predicted / measured - 1|.
        median_error: Median of the same.
        bias: Mean of predicted / measured - 1: above 0 where predictions are too slow or too large.
        inside: Share of the measured values inside the interval; 80 % are meant to be.
    """

    metric: str
    device: str
    family: str
    source: str
    pairs: int
    mean_error: float
    median_error: float
    bias: float
    inside: float


def accuracy_lines(pairs: Iterable[Mapping[str, Any]]) -> list[AccuracyLine]:
    """Summarise pairs by metric, kind of device, family and source.

    Args:
        pairs: Rows of the database's view `prediction_accuracy`: `metric`, `device_kind`, `family`, `source`,
            `relative_error`, `inside_interval`.
    """
    groups: dict[tuple[str, str, str, str], list[Mapping[str, Any]]] = defaultdict(list)
    for pair in pairs:
        key = (pair["metric"], pair["device_kind"], pair["family"], pair["source"])
        groups[tuple(map(str, key))].append(pair)  # type: ignore[index]
    return [_line(key, together) for key, together in sorted(groups.items())]


def _line(key: tuple[str, str, str, str], pairs: list[Mapping[str, Any]]) -> AccuracyLine:
    errors = [float(pair["relative_error"]) for pair in pairs]
    sizes = [abs(error) for error in errors]
    inside = fmean(bool(pair["inside_interval"]) for pair in pairs)
    return AccuracyLine(*key, len(pairs), fmean(sizes), median(sizes), fmean(errors), inside)


def table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Return the lines of a table: columns as wide as their longest cell, no trailing spaces."""
    lines = [list(headings), *(list(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(headings))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]


def recommendation_text(answer: Mapping[str, Any], *, why: bool = False) -> str:
    """Return a recommendation (`predict_optimal_hardware`) as text.

    Args:
        answer: The recommendation.
        why: Whether to say of each number what it rests on and why better layers had none.
    """
    lines = [
        *dimensions_lines(answer),
        f"=== Hardware for {answer['model_name']} ===",
        f"Asked: {_asked(answer)}",
        f"Model: {answer['model_family']}; {answer['model']}",
        f"Primary recommendation: {answer['primary_recommendation'] or 'none: nothing considered can run it'}",
        f"Fallback options: {', '.join(answer['fallback_options']) or 'none'}",
        "",
        *_predictions(answer),
    ]
    if answer.get("distributed"):
        lines += ["", *_distributed(answer["distributed"])]
    lines += ["", f"Explanation: {answer['explanation']}"]
    if why:
        lines += ["", *_why(answer)]
    return "\n".join(lines)


def performance_text(answer: Mapping[str, Any]) -> str:
    """Return predictions (`predict_performance`) as text."""
    head = f"=== {answer['model_name']} ==="
    return "\n".join(
        [*dimensions_lines(answer), head, f"Asked: {_asked(answer)}", "", *_predictions(answer), "", *_why(answer)]
    )


def matrix_text(matrix: Mapping[str, Any]) -> str:
    """Return a matrix as text: a table of latencies for each precision."""
    about = [
        line for name, model in matrix["models"].items() for line in dimensions_lines({**model, "model_name": name})
    ]
    lines = [*about, f"=== Prediction matrix ({matrix['mode']}) ===", *_devices(matrix)]
    batches = [str(batch) for batch in matrix["batch_sizes"]]
    for precision in matrix["precision_options"]:
        rows = [
            (
                name,
                platform,
                *(_cell(by_batch.get(batch, {}).get(precision)) for batch in batches),
                _sources(by_batch, precision),
            )
            for name, model in matrix["models"].items()
            for platform, by_batch in model["predictions"].items()
        ]
        headings = ("model", "hardware", *(f"batch {batch}" for batch in batches), "source")
        lines += ["", f"Latency at {precision}:", *table(headings, rows)]
    without: dict[str, list[str]] = {}
    for name, model in matrix["models"].items():
        for platform, reason in model["not_predicted"].items():
            without.setdefault(f"No numbers on {platform} ({reason})", []).append(name)
    lines += ["", *(f"{what}: {', '.join(names)}" for what, names in without.items())]
    return "\n".join(lines).rstrip()


def dimensions_lines(answer: Mapping[str, Any]) -> list[str]:
    """Return the first line of an answer that is not about the model itself: what stands in for it, or why nothing."""
    if answer["dimensions"] == "known":
        return []
    if answer["dimensions"] == "assumed":
        return [f"NOT {answer['model_name']} itself: {answer['model']}."]
    return [f"NO NUMBERS for {answer['model_name']}: {answer['model']}."]


def accuracy_text(lines: Sequence[AccuracyLine]) -> str:
    """Return predicted against measured as text."""
    headings = ("metric", "device", "family", "source", "pairs", "mean error", "median", "bias", "inside 80 %")
    rows = [
        (
            line.metric,
            line.device,
            line.family or "-",
            line.source,
            str(line.pairs),
            f"{line.mean_error:.1%}",
            f"{line.median_error:.1%}",
            f"{line.bias:+.1%}",
            f"{line.inside:.0%}",
        )
        for line in lines
    ]
    return "\n".join(["=== Predicted against measured ===", *table(headings, rows)])


def _asked(answer: Mapping[str, Any]) -> str:
    text = f"{answer['mode']}, {answer['precision']}, batch {answer['batch_size']}, {answer['sequence_length']} tokens"
    return f"{text}, {answer['gpu_count']} devices" if answer.get("gpu_count", 1) > 1 else text


def _predictions(answer: Mapping[str, Any]) -> list[str]:
    scores = answer.get("all_scores", {})
    rows = [
        (
            name,
            time_text(each["latency"]),
            " to ".join(map(time_text, each["interval"]["latency"])),
            rate_text(each["throughput"]),
            _memory(each),
            f"{scores[name]['score']:.2f}" if name in scores else "",
            each["source"],
        )
        for name, each in answer["predictions"].items()
    ]
    lines = (
        table(("hardware", "latency", "80 % interval", "throughput", "memory", "score", "source"), rows) if rows else []
    )
    return [*lines, *(f"{name}: no number; {each['basis']}" for name, each in answer["not_predicted"].items())]


def _memory(prediction: Mapping[str, Any]) -> str:
    need = memory_text(prediction["memory_usage"])
    have = f" of {memory_text(prediction['device_memory'])}" if prediction["device_memory"] else ""
    return f"{need}{have}{' - does not fit' if prediction['fits'] is False else ''}"


def _why(answer: Mapping[str, Any]) -> list[str]:
    lines = []
    for name, each in {**answer["predictions"], **answer["not_predicted"]}.items():
        lines.append(f"{name} ({each['device']}): {each['basis']}")
        lines += [f"  not {source}: {reason}" for source, reason in each["passed_over"].items()]
        lines += [f"  {each['advice']}"] if each["advice"] else []
    return lines


def _distributed(plan: Mapping[str, Any]) -> list[str]:
    memory = plan["memory_per_device_gb"]
    parts = ", ".join(f"{name.removesuffix('_gb')} {memory[name]:.1f}" for name in memory if name not in _SUMS)
    others = [
        (each["strategy"], time_text(each["step_ms"]), f"{each['per_gpu_gb']:.1f} GiB", "yes" if each["fits"] else "no")
        for each in plan["considered"]
    ]
    checkpointing = "with" if plan["gradient_checkpointing"] else "without"
    lines = [
        f"Distributed strategy: {plan['strategy']} on {plan['gpu_count']} devices",
        f"  batch {plan['global_batch_size']} in all, {plan['per_gpu_batch_size']} per copy of the model, in "
        f"{plan['micro_batches']} part(s), {checkpointing} activation checkpointing",
        f"  memory per device: {memory['per_gpu_gb']:.1f} GiB ({parts}) of {memory['available_gb']:.1f} usable",
        f"  {time_text(plan['step_ms'])} per step ({' to '.join(map(time_text, plan['step_interval_ms']))}): computing "
        f"{time_text(plan['compute_ms'])}, sending {time_text(plan['communication_ms'])} over {plan['link']}",
        f"  {rate_text(plan['throughput'])}, scaling efficiency {plan['scaling_efficiency']:.0%}",
    ]
    if others:
        lines += ["Next best:", *(f"  {line}" for line in table(("strategy", "step", "memory", "fits"), others))]
    return lines


_SUMS = ("per_gpu_gb", "available_gb")


def _devices(matrix: Mapping[str, Any]) -> list[str]:
    return [f"{name}: {device['name']}" for name, device in matrix["devices"].items() if device["name"]]


def _cell(cell: Mapping[str, Any] | None) -> str:
    if cell is None:
        return "-"
    return time_text(cell["latency_mean"]) if cell["fits"] is not False else "does not fit"


def _sources(by_batch: Mapping[str, Mapping[str, Mapping[str, Any]]], precision: str) -> str:
    found = [by_precision[precision]["source"] for by_precision in by_batch.values() if precision in by_precision]
    return ", ".join(dict.fromkeys(found))
