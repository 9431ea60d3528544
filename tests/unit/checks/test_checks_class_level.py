"""The checks that run once per model, on models that do not fit."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from pytest_hfaccel.checks.planted import Planted
from pytest_hfaccel.core.results import Status
from tests.unit.checks.support import TinyContext, TinySource, run

pytestmark = pytest.mark.slow


def test_an_unknown_architecture_does_not_resolve(bert: TinySource) -> None:
    context = TinyContext(bert)
    context.cell = replace(context.cell, model=replace(bert.spec, architecture="BertForMaskedLMs"))
    outcome = run("resolves", context)
    assert outcome.status == Status.FAILED
    assert "Did you mean 'BertForMaskedLM'?" in (outcome.reason or "")


def test_missing_keys_fail_from_pretrained(bert: TinySource, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bert, "info", {"missing_keys": ["cls.bias"], "unexpected_keys": []})
    outcome = run("from_pretrained", TinyContext(bert))
    assert outcome.status == Status.FAILED
    assert outcome.reason == "missing keys: cls.bias"


def test_a_model_that_forgets_a_weight_when_saved_fails_from_pretrained(bert: TinySource) -> None:
    context = TinyContext(bert)
    right = bert.torch_model("fp32")

    def save(directory: str) -> None:
        other = bert.torch_model("fp32")
        with torch.no_grad():
            other.bert.encoder.layer[0].output.dense.bias[0] += 1e-3
        type(other).save_pretrained(other, directory)

    right.save_pretrained = save
    context.source = Planted(bert, torch_model=lambda _dtype, _device: right)  # type: ignore[assignment]
    outcome = run("from_pretrained", context)
    assert outcome.status == Status.FAILED
    assert "other weights: bert.encoder.layer.0.output.dense.bias" in (outcome.reason or "")
