"""A small run with one cell of each sort, for the tests of the reports."""

from __future__ import annotations

from typing import Any

from pytest_hfaccel.core.results import CellResult, CheckOutcome, Stage, Status

_POOL = {"requests": 3, "hits": 1, "misses": 2, "loads": 2, "failures": 0, "evictions": 0, "oom_retries": 0}

HEADER: dict[str, Any] = {
    "started": "2026-01-31T12:00:00+00:00",
    "finished": "2026-01-31T12:05:00+00:00",
    "machine": {"cpu": "Some CPU", "cores": 2},
    "options": {"devices": ("cpu", "openvino:CPU"), "performance": False},
    "command": "pytest --hf-device cpu,openvino:CPU",
    "commit": "0123456789abcdef0123456789abcdef01234567",
    "devices": ["cpu", "openvino:CPU"],
    "absent_devices": {"cuda:0": "no NVIDIA driver"},
    "pool": [
        {
            **_POOL,
            "load_seconds": 0.5,
            "loads_by_key": {"bert-base-uncased tiny cpu fp32": 1, "gpt2 tiny cpu bf16": 1},
            "close_errors": [],
        },
        {
            **_POOL,
            "requests": 2,
            "misses": 1,
            "loads": 1,
            "load_seconds": 0.25,
            "loads_by_key": {"gpt2 tiny cpu bf16": 1},
            "close_errors": ["gpt2 tiny cpu bf16: RuntimeError: driver is gone"],
        },
    ],
}


def make_result(
    model: str, module: str, device: str, dtype: str, checks: list[CheckOutcome], **changes: Any
) -> CellResult:
    slug = device.lower().replace(":", "")
    return CellResult(
        cell=model if device == "class" else f"{model}-{slug}-{dtype}",
        model=model,
        architecture={"bert": "BertForMaskedLM"}.get(module, "GPT2LMHeadModel"),
        module=module,
        task="fill-mask",
        device=device,
        dtype=dtype,
        weights="tiny",
        weights_reason="not in the local cache",
        checks=checks,
        **changes,
    )


def sample_results() -> list[CellResult]:
    """New records on every call: tests change them."""
    placement = {
        "requested_device": "cpu",
        "actual_devices": ["cpu"],
        "requested_dtype": "fp32",
        "effective_dtype": "fp32",
        "implementation": "real",
        "details": {"threads": 2},
        "bytes": 4096,
    }
    parity = CheckOutcome("parity", measures={"rel_l2": 1.5e-7}, seconds=0.02)
    no_pipeline = CheckOutcome("pipeline", Status.SKIPPED, reason="no pipeline for this task")
    wrong = CheckOutcome(
        "parity", Status.FAILED, Stage.COMPARE, "rel_l2 0.2 is above 1e-05", measures={"rel_l2": 0.2}, seconds=0.03
    )
    expected = CheckOutcome("parity", Status.XFAILED, Stage.COMPARE, "known defect [registry.yaml:7]")
    absent = CheckOutcome("placement", Status.UNAVAILABLE, Stage.LOAD, "no NVIDIA driver")
    bert, gpt = ("bert-base-uncased", "bert"), ("gpt2", "gpt")
    return [
        make_result(*bert, "class", "fp32", [CheckOutcome("resolves", seconds=0.001)]),
        make_result(*bert, "cpu", "fp32", [parity, no_pipeline], placement=placement, timings={"load": 0.2}),
        make_result(*bert, "openvino:CPU", "fp32", [CheckOutcome("forward"), wrong], timings={"convert": 2.5}),
        make_result(*gpt, "cpu", "bf16", [expected]),
        make_result(*gpt, "cuda:0", "fp16", [absent], implementation="unavailable"),
    ]
