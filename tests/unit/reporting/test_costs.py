"""Prices per hour and measured throughput -> what a million tokens or samples cost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pytest_hfaccel.core.errors import ConfigError
from pytest_hfaccel.core.results import CellResult, CheckOutcome
from pytest_hfaccel.reporting import write_reports
from pytest_hfaccel.reporting.costs import cost_rows, cost_text, parse_prices
from tests.unit.reporting.report_samples import HEADER
from tests.unit.reporting.test_reports_schema import validator


def measured(cell: str, device: str, **measures: Any) -> CellResult:
    result = CellResult(cell, "gpt2", "GPT2LMHeadModel", "gpt2", "text-generation", device, "fp16", "pretrained")
    result.checks = [CheckOutcome("parity"), CheckOutcome("performance", measures={"batch": 2, **measures})]
    return result


GENERATING = measured("gpt2-cuda0-fp16", "cuda:0", length=128, samples_per_second=100.0, tokens_per_second=500.0)
VISION = measured("vit-cuda1-fp16", "cuda:1", length=0, samples_per_second=1000.0)
FAILED = measured("bert-cuda0-fp16", "cuda:0")


def test_a_million_costs_the_price_of_the_seconds_it_takes() -> None:
    generating, vision = cost_rows([GENERATING, VISION, FAILED], {"cuda:0": 1.8, "cuda": 3.6})
    assert generating["per_million_tokens"] == pytest.approx(1.0)  # 2,000 seconds at 0.0005 per second
    assert generating["per_million_samples"] == pytest.approx(5.0)
    assert generating["per_million_input_tokens"] == pytest.approx(5.0 / 128)
    assert vision["per_million_samples"] == pytest.approx(1.0)
    assert "per_million_tokens" not in vision
    assert "per_million_input_tokens" not in vision


def test_a_device_without_a_price_has_no_costs() -> None:
    assert not cost_rows([GENERATING], {"openvino:*": 1.0})
    assert cost_text([GENERATING], {}) == ""


def test_the_summary_and_the_terminal_have_them(tmp_path: Path) -> None:
    header = {**HEADER, "options": {"prices": ["cuda:0=1.8"]}}
    write_reports(tmp_path, [GENERATING, VISION], header)
    summary = json.loads((tmp_path / "summary.json").read_text(encoding="utf-8"))
    validator("summary").validate(summary)
    assert [row["cell"] for row in summary["costs"]] == ["gpt2-cuda0-fp16"]
    heads, _, row = cost_text([GENERATING, VISION], header).splitlines()
    assert heads.split("  ")[0] == "cell"
    assert row.split()[:5] == ["gpt2-cuda0-fp16", "[pretrained]", "2", "128", "1.8"]
    assert row.split()[5:] == ["1", "0.0391", "5"]


@pytest.mark.parametrize("text", ["cuda:0", "1.89", "cuda:0=", "=1.89", "cuda:0=cheap", "cuda:0=-1", "cuda:0=inf"])
def test_what_is_no_price_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"--hf-price .*: this is no price of a device"):
        parse_prices([text])
