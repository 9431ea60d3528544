"""Records for the tests of the benchmark database. The numbers are made up and tell something apart, nothing else."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from pytest_hfaccel.benchmark.measurement import Latency, Measurement, Noise
from pytest_hfaccel.core.prediction import Estimate, Prediction, Question, Source
from pytest_hfaccel.core.results import CellResult, CheckOutcome, Stage, Status
from pytest_hfaccel.history import RunRecord

MACHINE: dict[str, Any] = {
    "os": "Linux 6.1.0",
    "cpu": {"name": "AMD EPYC", "cores": 2, "memory_bytes": 8 * 2**30, "available_bytes": 2**30},
    "devices": [{"device": "cuda:0", "name": "NVIDIA L4", "memory_bytes": 24 * 2**30, "details": {"uuid": "x"}}],
    "drivers": {"cuda:0": "570.1"},
}
CALIBRATION: dict[str, Any] = {
    "format": 1,
    "device": "cpu",
    "device_name": "AMD EPYC",
    "dtype": "fp32",
    "threads": 2,
    "taken": "2026-01-31T11:59:00+00:00",
    "operators": [{"kind": "linear", "size": [1, 2, 3], "seconds": 1e-06}],
}
LATENCY = Latency(30, 5, 4.0, 4.1, 3.9, 3.91, 5.0, 5.5, 0.1, 0.012)
NOISE = Noise(1.0, 1.05, 0.03)
MEASURED = Measurement(
    model="bert-base-uncased",
    architecture="BertForMaskedLM",
    task="fill-mask",
    weights="random",
    device="cpu",
    device_name="AMD EPYC",
    dtype="fp32",
    effective_dtype="fp32",
    batch=8,
    length=128,
    threads=2,
    latency=LATENCY,
    noise=NOISE,
    memory_bytes=512 * 2**20 + 1,
    parameters=110_000_000,
)
FULL = replace(
    MEASURED,
    model='o\'brien/Ünïcode "gpt"',
    architecture="GPT2LMHeadModel",
    task="text-generation",
    weights="pretrained",
    device="cuda:0",
    device_name="NVIDIA L4",
    dtype="fp16",
    effective_dtype="mixed",
    implementation="emulated",
    mode="training",
    family="text_generation",
    latency=replace(LATENCY, median_ms=0.1 + 0.2, p99_ms=1e300),
    noise=Noise(1.0, 1.05, 0.03, (2400.5, None), True),
    first_token_ms=12.5,
    per_token_ms=1.25,
    memory_source="the allocator's peak",
    weight_bytes=2**40,
    load_s=1.5,
    convert_s=2.5,
    compile_s=3.5,
    details={"shapes": {"input_ids": [8, 128]}, "properties": None, "share": 0.1, "on": True, "quote": 'it\'s "x"'},
)
"""Every field has a value of its own."""
TINY = replace(MEASURED, weights="tiny", batch=1, parameters=7000, memory_bytes=None)
MEASUREMENTS = [MEASURED, FULL, TINY]


def cell(**changed: Any) -> CellResult:
    """A cell with a check that passed, one that failed, and one that was skipped."""
    claims = {"fills the mask": {"holds": False, "rank": 7}, "is deterministic": {"holds": True}}
    checks = [
        CheckOutcome("parity", measures={"rel_l2": 1e-7}, seconds=0.5),
        CheckOutcome("task_sense", Status.FAILED, Stage.COMPARE, "two\nlines", {"claims": claims}, 0.25),
        CheckOutcome("generation", Status.SKIPPED, reason="it does not generate"),
    ]
    facts = {
        "cell": "bert-base-uncased-cpu-fp32",
        "model": "bert-base-uncased",
        "architecture": "BertForMaskedLM",
        "module": "bert",
        "task": "fill-mask",
        "device": "cpu",
        "dtype": "fp32",
        "weights": "tiny",
        "placement": {"effective_dtype": "fp32"},
        "checks": checks,
    }
    return CellResult(**{**facts, **changed})


def record(**changed: Any) -> RunRecord:
    """A run with all measurements, a cell and a calibration."""
    facts: dict[str, Any] = {
        "test_name": "hfaccel bench",
        "test_type": "performance",
        "started_at": "2026-01-31T13:00:00+01:00",
        "completed_at": "2026-01-31T13:00:30+01:00",
        "success": True,
        "git_commit": "abc123",
        "git_branch": "main",
        "command_line": "hfaccel bench --models-set small",
        "versions": {"torch": "2.13.0", "transformers": "5.23.0", "openvino": None, "pytest-hfaccel": "0.1.0"},
        "machine": MACHINE,
        "measurements": MEASUREMENTS,
        "cells": [cell()],
        "calibrations": [CALIBRATION],
    }
    return RunRecord(**{**facts, **changed})


def prediction(**changed: Any) -> Prediction:
    """What is predicted for `MEASURED`: 5 ms (it took 4), 512 MiB."""
    question = Question("BertForMaskedLM", "cpu", 8, 128, "fp32", model="bert-base-uncased", family="embedding")
    facts: dict[str, Any] = {
        "question": question,
        "source": Source.CALIBRATED,
        "basis": "a calibration of 2026-01-31",
        "latency_ms": Estimate(5.0, 3.0, 6.0),
        "memory_mb": Estimate(512.0, 500.0, 511.0),
    }
    return Prediction(**{**facts, **changed})
