"""Each check passes on a right model and fails on a wrong one: a comparator that cannot fail proves nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from pytest_hfaccel.backends.base import WeightChange
from pytest_hfaccel.results import Status
from pytest_hfaccel.spec import Device
from tests.unit.checks.support import Misbehaving, TinyContext, TinySource, run, with_forward

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize(
    "name",
    [
        "resolves",
        "from_pretrained",
        "placement",
        "forward",
        "parity",
        "determinism",
        "batch_invariance",
        "padding_invariance",
        "memory",
        "canary",
    ],
)
def test_a_right_model_passes(bert: TinySource, name: str, dtype: str) -> None:
    outcome = run(name, TinyContext(bert, dtype))
    assert outcome.status == Status.PASSED, outcome.reason
    assert outcome.measures


@pytest.mark.parametrize(
    ("wrong", "problem"),
    [
        ({"actual_devices": ("cuda:0",)}, "asked for cpu, but the runtime reports cuda:0"),
        ({"actual_devices": ()}, "reports no device at all"),
        ({"effective_dtype": "bf16"}, "asked for fp32, but the runtime reports bf16"),
        ({"implementation": "mocked"}, "implementation 'mocked'"),
    ],
)
def test_placement_fails_on_another_place_or_precision(bert: TinySource, wrong: dict[str, Any], problem: str) -> None:
    context = TinyContext(bert)
    context.loaded = Misbehaving(context.loaded, placement=replace(context.loaded.placement, **wrong))
    outcome = run("placement", context)
    assert outcome.status == Status.FAILED
    assert problem in (outcome.reason or "")


def _transposed(right: Any, inputs: Any) -> Any:
    return {"logits": right(inputs)["logits"].transpose(0, 1)}


def _renamed(right: Any, inputs: Any) -> Any:
    return {"scores": right(inputs)["logits"]}


def _rounded_to_integers(right: Any, inputs: Any) -> Any:
    return {"logits": right(inputs)["logits"].long()}


def _with_nan(right: Any, inputs: Any) -> Any:
    logits = right(inputs)["logits"].clone()
    logits[0, 0, 0] = float("nan")
    return {"logits": logits}


@pytest.mark.parametrize(
    ("wrong", "problem"),
    [
        (_transposed, "logits: shape (7, 2, 100), the reference has (2, 7, 100)"),
        (_renamed, "missing output 'logits'\nunexpected output 'scores'"),
        (_rounded_to_integers, "logits: dtype int64, the reference has float64"),
        (_with_nan, "logits: 1 of 1400 values are NaN or infinite"),
    ],
)
def test_forward_fails_on_other_outputs(bert: TinySource, wrong: Callable[..., Any], problem: str) -> None:
    outcome = run("forward", with_forward(TinyContext(bert), wrong))
    assert outcome.status == Status.FAILED
    assert outcome.reason == problem


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_parity_fails_with_one_wrong_weight(bert: TinySource, dtype: str) -> None:
    context = TinyContext(bert, dtype)
    change = WeightChange("bert.encoder.layer.1.output.LayerNorm.weight", 3, 8.0)
    with context.loaded.perturbed(change):
        outcome = run("parity", context)
    assert outcome.status == Status.FAILED
    assert (outcome.reason or "").startswith("logits: rel-L2 ")
    assert run("parity", context).status == Status.PASSED


def test_parity_fails_at_a_lower_precision_than_asked(bert: TinySource) -> None:
    context = TinyContext(bert, "bf16")
    context.cell = replace(context.cell, dtype="fp32")
    assert run("parity", context).status == Status.FAILED


def _noisy(right: Any, inputs: Any) -> Any:
    return {name: leaf + 1e-7 * torch.randn_like(leaf) for name, leaf in right(inputs).items()}


def test_determinism_fails_on_the_least_noise(bert: TinySource) -> None:
    outcome = run("determinism", with_forward(TinyContext(bert), _noisy))
    assert outcome.status == Status.FAILED
    assert "two runs differ by" in (outcome.reason or "")


def test_determinism_grants_accelerators_rounding_but_no_race(bert: TinySource) -> None:
    context = with_forward(TinyContext(bert), _noisy)
    context.cell = replace(context.cell, device=Device.parse("cuda:0"))
    assert run("determinism", context).status == Status.PASSED

    def racing(right: Any, inputs: Any) -> Any:
        return {name: leaf + 1e-3 * torch.randn_like(leaf) for name, leaf in right(inputs).items()}

    assert run("determinism", with_forward(context, racing)).status == Status.FAILED


def test_batch_invariance_fails_when_samples_mix(bert: TinySource) -> None:
    def mixing(right: Any, inputs: Any) -> Any:
        return {name: leaf + 0.01 * leaf.mean(0, keepdim=True) for name, leaf in right(inputs).items()}

    outcome = run("batch_invariance", with_forward(TinyContext(bert), mixing))
    assert outcome.status == Status.FAILED
    assert (outcome.reason or "").startswith("row 0 alone differs from row 0 in the batch\nlogits: rel-L2")


def test_batch_invariance_is_not_asked_of_a_graph_of_one_batch_size(bert: TinySource) -> None:
    context = TinyContext(bert)
    placement = replace(context.loaded.placement, details={"dynamic_batch": False})
    context.loaded = Misbehaving(context.loaded, placement=placement)
    outcome = run("batch_invariance", context)
    assert outcome.status == Status.SKIPPED
    assert outcome.reason == "the converted model takes this batch size only"


def test_padding_invariance_fails_when_the_mask_is_ignored(bert: TinySource) -> None:
    def unmasked(right: Any, inputs: Any) -> Any:
        return right({**inputs, "attention_mask": torch.ones_like(inputs["attention_mask"])})

    outcome = run("padding_invariance", with_forward(TinyContext(bert), unmasked))
    assert outcome.status == Status.FAILED
    assert "logits: rel-L2" in (outcome.reason or "")


def test_canary_finds_a_weight_where_most_of_the_model_does_not_run(
    bert: TinySource, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torch.nn import LayerNorm, Linear, Sequential

    load = bert.torch_model

    def with_another_part(dtype: str, device: str = "cpu") -> Any:
        model = load(dtype, device)
        model.vision = Sequential(*(layer for _ in range(200) for layer in (LayerNorm(2), Linear(2, 2))))
        return model.to(model.dtype)

    monkeypatch.setattr(bert, "torch_model", with_another_part)
    outcome = run("canary", TinyContext(bert))
    assert outcome.status == Status.PASSED, outcome.reason
    assert not outcome.measures["parameter"].startswith("vision")


def test_canary_is_not_needed_where_outputs_are_integers(bert: TinySource, monkeypatch: pytest.MonkeyPatch) -> None:
    load = bert.torch_model

    def with_codes(dtype: str, device: str = "cpu") -> Any:
        model = load(dtype, device)
        forward = model.forward
        model.forward = lambda **inputs: {"codes": forward(**inputs).logits.argmax(-1)}
        return model

    monkeypatch.setattr(bert, "torch_model", with_codes)
    context = TinyContext(bert)
    assert run("parity", context).status == Status.PASSED
    outcome = run("canary", context)
    assert outcome.status == Status.SKIPPED
    assert "the outputs are integers" in (outcome.reason or "")


def test_canary_fails_when_the_device_does_not_see_the_wrong_weight(bert: TinySource) -> None:
    context = TinyContext(bert)
    frozen = context.loaded.forward(context.sample.forward)
    outcome = run("canary", with_forward(context, lambda _right, _inputs: frozen))
    assert outcome.status == Status.FAILED
    assert "yet the device's outputs passed parity" in (outcome.reason or "")


def test_canary_fails_when_the_weight_stays_wrong(bert: TinySource) -> None:
    context = TinyContext(bert)
    calls = []

    def wrong_ever_after(right: Any, inputs: Any) -> Any:
        calls.append(inputs)
        return {name: leaf + 1.0 for name, leaf in right(inputs).items()}

    outcome = run("canary", with_forward(context, wrong_ever_after))
    assert outcome.status == Status.FAILED
    assert "with the weight restored" in (outcome.reason or "")
    assert len(calls) == 2
