"""Numbers and answers as text for people, and what earlier predictions were worth."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pytest_hfaccel.reporting.tables import format_table

if TYPE_CHECKING:
    from pandas import DataFrame

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


def _three(value: float) -> str:
    """Write three significant digits, without an exponent."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def accuracy_table(pairs: DataFrame) -> DataFrame:
    """Summarise how far predictions were from what was measured later, by metric, device, family and source.

    Args:
        pairs: Rows of the database's view `prediction_accuracy`.

    Returns:
        Besides the keys `metric`, `device`, `family` and `source`: `pairs` (how many), `mean_error` and `median_error`
        (of |predicted / measured - 1|), `bias` (mean of predicted / measured - 1), and `inside`, the share of the
        measured values inside the interval; 80 % are meant to be.
    """
    rows = pairs.assign(
        device=pairs["device_kind"],
        error=pairs["relative_error"],
        size=pairs["relative_error"].abs(),
        inside=pairs["inside_interval"].astype(bool),
    )
    return (
        rows.groupby(["metric", "device", "family", "source"])
        .agg(
            pairs=("error", "size"),
            mean_error=("size", "mean"),
            median_error=("size", "median"),
            bias=("error", "mean"),
            inside=("inside", "mean"),
        )
        .reset_index()
    )


def accuracy_text(summary: DataFrame) -> str:
    """Return predicted against measured (`accuracy_table`) as text."""
    shown = summary.assign(family=summary["family"].replace("", "-"))
    for column, form in _ACCURACY_FORMATS.items():
        shown[column] = shown[column].map(form.format)
    headings = ("metric", "device", "family", "source", "pairs", "mean error", "median", "bias", "inside 80 %")
    return "\n".join(["=== Predicted against measured ===", *format_table([headings, *shown.to_numpy()])])


_ACCURACY_FORMATS = {
    "pairs": "{}",
    "mean_error": "{:.1%}",
    "median_error": "{:.1%}",
    "bias": "{:+.1%}",
    "inside": "{:.0%}",
}


def recommendation_text(answer: Mapping[str, Any], *, why: bool = False) -> str:
    """Return a recommendation (`predict_optimal_hardware`) as text; with `why`, what each number rests on."""
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


def matrix_text(matrix: Mapping[str, Any]) -> str:
    """Return a matrix as text: a table of latencies for each precision."""
    about = [
        line for name, model in matrix["models"].items() for line in dimensions_lines({**model, "model_name": name})
    ]
    chips = [f"{name}: {device['name']}" for name, device in matrix["devices"].items() if device["name"]]
    lines = [*about, f"=== Prediction matrix ({matrix['mode']}) ===", *chips]
    batches = [str(batch) for batch in matrix["batch_sizes"]]
    for precision in matrix["precision_options"]:
        rows = [
            (
                name,
                platform,
                *(_cell(by_batch.get(batch, {}).get(precision)) for batch in batches),
                ", ".join(dict.fromkeys(each[precision]["source"] for each in by_batch.values() if precision in each)),
            )
            for name, model in matrix["models"].items()
            for platform, by_batch in model["predictions"].items()
        ]
        headings = ("model", "hardware", *(f"batch {batch}" for batch in batches), "source")
        lines += ["", f"Latency at {precision}:", *format_table([headings, *rows])]
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
    heads = ("hardware", "latency", "80 % interval", "throughput", "memory", "score", "source")
    lines = format_table([heads, *rows]) if rows else []
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
    sums = ("per_gpu_gb", "available_gb")
    parts = ", ".join(f"{name.removesuffix('_gb')} {memory[name]:.1f}" for name in memory if name not in sums)
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
        lines += [
            "Next best:",
            *(f"  {line}" for line in format_table([("strategy", "step", "memory", "fits"), *others])),
        ]
    return lines


def _cell(cell: Mapping[str, Any] | None) -> str:
    if cell is None:
        return "-"
    return time_text(cell["latency_mean"]) if cell["fits"] is not False else "does not fit"
