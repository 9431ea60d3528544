"""The checks `resolves`, `from_pretrained` and `placement` on models that do not fit, and names of devices."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from pytest_hfaccel.checks.loading import is_same_device
from pytest_hfaccel.checks.planted import Planted
from pytest_hfaccel.core.results import Status
from pytest_hfaccel.core.spec import Device
from tests.unit.checks.support import TinyContext, TinySource, run


@pytest.mark.slow
def test_an_unknown_architecture_does_not_resolve(bert: TinySource) -> None:
    context = TinyContext(bert)
    context.cell = replace(context.cell, model=replace(bert.spec, architecture="BertForMaskedLMs"))
    outcome = run("resolves", context)
    assert outcome.status == Status.FAILED
    assert "Did you mean 'BertForMaskedLM'?" in (outcome.reason or "")


@pytest.mark.slow
def test_missing_keys_fail_from_pretrained(bert: TinySource, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bert, "info", {"missing_keys": ["cls.bias"], "unexpected_keys": []})
    outcome = run("from_pretrained", TinyContext(bert))
    assert outcome.status == Status.FAILED
    assert outcome.reason == "missing keys: cls.bias"


@pytest.mark.slow
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


@pytest.mark.parametrize(
    ("wanted", "reported", "same"),
    [
        ("cpu", "cpu", True),
        ("cuda:1", "cuda:1", True),
        ("cuda:1", "cuda:0", False),
        ("cuda:0", "cpu", False),
        ("mps", "mps:0", True),
        ("openvino:CPU", "CPU", True),
        ("openvino:GPU", "GPU.0", True),
        ("openvino:GPU", "CPU", False),
        ("openvino:AUTO", "CPU", True),
        ("openvino:HETERO:GPU,CPU", "GPU.0", True),
    ],
)
def test_whether_a_runtime_means_the_wanted_device(wanted: str, reported: str, same: bool) -> None:
    assert is_same_device(Device.parse(wanted), reported) is same
