"""Each check passes on a right model and fails on a wrong one: a comparator that cannot fail proves nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from pytest_hfaccel.backends.base import WeightChange
from pytest_hfaccel.checks import canary, planted
from pytest_hfaccel.checks.outputs import compare_with_reference
from pytest_hfaccel.checks.planted import Planted
from pytest_hfaccel.core.results import Status
from pytest_hfaccel.core.spec import CPU, Cell, Device, ModelSpec, Weights, WeightsChoice
from pytest_hfaccel.numerics import tolerances
from pytest_hfaccel.numerics.budgets import BudgetRequest
from pytest_hfaccel.numerics.compare import LeafDifference, compare
from pytest_hfaccel.numerics.tolerances import NeedsMore, tolerance_of
from tests.unit.checks.support import TinyContext, TinySource, run, with_forward

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
        "sensitivity",
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


def test_an_error_that_the_dtype_must_cost_is_put_down_to_rounding(
    bert: TinySource, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tolerances, "tolerance_of", lambda _: tolerances.Tolerance(rel_l2=1e-5, second_chance=False))
    monkeypatch.setattr("pytest_hfaccel.checks.outputs.tolerance_of", tolerances.tolerance_of)
    honest = run("parity", TinyContext(bert, "fp16"))
    assert (honest.status, honest.cause) == (Status.FAILED, "numerics"), honest.reason
    assert 0.2 < honest.measures["budget"]["ratio"] < 4

    def scaled(factor: float) -> Any:
        return lambda right, inputs: {name: factor * leaf for name, leaf in right(inputs).items()}

    wrong = run("parity", with_forward(TinyContext(bert, "fp16"), scaled(1.05)))
    assert (wrong.status, wrong.cause) == (Status.FAILED, "")
    broken = run("parity", with_forward(TinyContext(bert, "fp16"), scaled(float("inf"))))
    assert (broken.status, broken.cause) == (Status.FAILED, "")


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
    context.loaded = Planted(context.loaded, placement=replace(context.loaded.placement, **wrong))
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
        (_with_nan, "logits: 1 of 1400 values are NaN or infinite\nno module of the model on cpu makes one"),
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
    context.loaded = Planted(context.loaded, placement=placement)
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


def test_a_third_partys_model_may_name_its_editable_weights_as_before(bert: TinySource) -> None:
    from pytest_hfaccel.numerics.perturbation import find_perturbation

    context = TinyContext(bert)
    asked: list[str] = []

    class Former:
        """What the canary's search asks of a loaded model, by the name before."""

        def held(self, parameters: Any) -> frozenset[str]:
            asked.extend(parameters)
            return frozenset()

    outputs = context.reference.outputs
    limits = dict.fromkeys(outputs, 1e-4)
    with pytest.warns(DeprecationWarning, match="now `directly_editable`"):
        found = find_perturbation(context.reference, Former(), context.sample.forward, limits)  # type: ignore[arg-type]
    assert found is not None
    assert found.change.parameter in asked


def test_canary_fails_when_the_weight_stays_wrong(bert: TinySource) -> None:
    context = TinyContext(bert)
    calls = []

    def wrong_ever_after(right: Any, inputs: Any) -> Any:
        calls.append(inputs)
        return {name: leaf + (len(calls) > 1) for name, leaf in right(inputs).items()}

    outcome = run("canary", with_forward(context, wrong_ever_after))
    assert outcome.status == Status.FAILED
    assert "with the weight restored" in (outcome.reason or "")
    assert len(calls) == 3


def test_canary_does_not_search_where_the_outputs_fail_anyway(bert: TinySource) -> None:
    context = TinyContext(bert)
    calls = []

    def wrong(right: Any, inputs: Any) -> Any:
        calls.append(inputs)
        return {name: leaf + 1.0 for name, leaf in right(inputs).items()}

    outcome = run("canary", with_forward(context, wrong))
    assert outcome.status == Status.FAILED
    assert "without a wrong weight the outputs do not pass parity either" in (outcome.reason or "")
    assert len(calls) == 1


@pytest.mark.parametrize("when", ["failures", "enforce"])
def test_power_is_where_parity_begins_to_notice_a_wrong_weight(bert: TinySource, when: str) -> None:
    context = TinyContext(bert)
    assert "power" not in run("canary", context).measures
    context.budget_request = BudgetRequest(when, power=True)
    outcome = run("canary", context)
    assert outcome.status == Status.PASSED, outcome.reason
    power = outcome.measures["power"]
    parameter, index = outcome.measures["parameter"], outcome.measures["index"]
    for delta, is_noticed in ((power["delta"], True), (power["delta"] / 1.6, False)):
        with context.loaded.perturbed(WeightChange(parameter, index, delta)) as faulty:
            assert compare_with_reference(context, faulty.forward(context.sample.forward)).ok is not is_noticed
    assert power["missed_rel_l2"] < power["rel_l2"] < 1.6 * power["missed_rel_l2"]
    assert power["passes"] <= 8
    if when == "enforce":  # 4 times the budget, and the honest error beside the fault
        assert 2 < power["of_budget"] < 6
    else:  # the table's limit for fp32 is 1e-5
        assert 0.5e-5 < power["rel_l2"] < 2e-5


def _loading(source: TinySource, monkeypatch: pytest.MonkeyPatch, change: Callable[[str, torch.Tensor], None]) -> None:
    """Change the weights of every model that the source gives, the reference's included."""
    load = source.torch_model

    def changed(dtype: str, device: str = "cpu") -> Any:
        model = load(dtype, device)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                change(name, parameter)
        return model

    monkeypatch.setattr(source, "torch_model", changed)


def _break_one_weight(name: str, parameter: torch.Tensor) -> None:
    if name == "bert.encoder.layer.1.intermediate.dense.weight":
        parameter[3, 5] = float("nan")


def test_one_nan_in_the_weights_fails_although_the_reference_has_it_too(
    bert: TinySource, monkeypatch: pytest.MonkeyPatch
) -> None:
    _loading(bert, monkeypatch, _break_one_weight)
    context = TinyContext(bert)
    outcome = run("forward", context)
    assert outcome.status == Status.FAILED
    assert outcome.reason == (
        "logits: 1400 of 1400 values are NaN or infinite, in the reference as well\n"
        "the first module of the model on cpu that makes one is bert.encoder.layer.1.intermediate.dense "
        "(Linear, 1 values of its weight are not finite)"
    )
    assert "NaN at 1200 positions, in the reference at 1200" in (run("parity", context).reason or "")
    assert "result contains NaN or infinity" in (run("pipeline", context).reason or "")


def test_where_modules_cannot_be_watched_the_reference_tells(bert: TinySource, monkeypatch: pytest.MonkeyPatch) -> None:
    _loading(bert, monkeypatch, _break_one_weight)
    context = TinyContext(bert)
    context.cell = replace(context.cell, device=Device.parse("openvino:CPU"))
    assert (run("forward", context).reason or "").endswith(
        "the first module of the reference model on the CPU that makes one is bert.encoder.layer.1.intermediate.dense "
        "(Linear, 1 values of its weight are not finite) (the modules of openvino cannot be observed)"
    )


def test_generated_tokens_that_rest_on_nan_are_not_equal(gpt2: TinySource, monkeypatch: pytest.MonkeyPatch) -> None:
    _loading(gpt2, monkeypatch, lambda _name, parameter: parameter.fill_(float("nan")))
    outcome = run("generation", TinyContext(gpt2))
    assert outcome.status == Status.FAILED
    assert "hold NaN: equal tokens mean nothing" in (outcome.reason or "")


@pytest.mark.parametrize("check", ["sensitivity", "canary"])
def test_a_model_of_zeros_fails(bert: TinySource, monkeypatch: pytest.MonkeyPatch, check: str) -> None:
    _loading(bert, monkeypatch, lambda _name, parameter: parameter.zero_())
    context = TinyContext(bert)
    assert run("parity", context).status == Status.PASSED
    outcome = run(check, context)
    assert outcome.status == Status.FAILED
    assert {
        "sensitivity": "the outputs do not depend on input_ids: with another one the reference gives the same",
        "canary": "no single weight moves the reference's outputs visibly: parity could not notice an error",
    }[check] == outcome.reason


def test_sensitivity_fails_where_the_device_does_not_see_an_input(bert: TinySource) -> None:
    context = TinyContext(bert)
    blind = planted.ignoring(context.loaded, "input_ids", context.sample.forward["input_ids"])
    assert run("parity", planted.around(context, blind)).status == Status.PASSED
    outcome = run("sensitivity", planted.around(context, blind))
    assert outcome.status == Status.FAILED
    assert (outcome.reason or "").endswith("on cpu by 0: the device does not see this input")


@pytest.mark.parametrize("looks", [True, False])
def test_sensitivity_changes_each_input_alone(bert: TinySource, monkeypatch: pytest.MonkeyPatch, looks: bool) -> None:
    sample = bert.sample()
    images = {**sample.forward, "pixel_values": torch.rand(2, 3, 4, 4)}
    monkeypatch.setattr(bert, "_sample", replace(sample, forward=images))
    load = bert.torch_model

    def with_images(dtype: str, device: str = "cpu") -> Any:
        model = load(dtype, device)
        forward = model.forward

        def with_image(pixel_values: torch.Tensor, **inputs: Any) -> Any:
            brightness = pixel_values.mean(dim=(1, 2, 3))[:, None, None]
            return {"logits": forward(**inputs).logits * (1.0 + (brightness if looks else 0.0))}

        model.forward = with_image
        return model

    monkeypatch.setattr(bert, "torch_model", with_images)
    outcome = run("sensitivity", TinyContext(bert))
    assert set(outcome.measures) == {"input_ids", "pixel_values"}
    assert outcome.status == (Status.PASSED if looks else Status.FAILED)
    assert looks or outcome.reason == (
        "the outputs do not depend on pixel_values: with another one the reference gives the same"
    )


def test_fp16_in_the_place_of_fp32_fails_parity_and_the_canary_tries_it(bert: TinySource) -> None:
    context = TinyContext(bert)
    assert run("parity", planted.around(context, planted.rounding(context.loaded, "fp16"))).status == Status.FAILED
    outcome = run("canary", context)
    assert (outcome.status, outcome.measures["twin"]) == (Status.PASSED, "run in fp16 on the CPU")
    assert outcome.measures["twin_rel_l2"] > 1e-4
    assert "blind_to" not in outcome.measures


def test_a_tolerance_that_lets_fp16_pass_is_called_blind(bert: TinySource, monkeypatch: pytest.MonkeyPatch) -> None:
    loose = NeedsMore("BertForMaskedLM", "cpu", 1e-2, 1e-2, "for a test")
    monkeypatch.setattr(tolerances, "NEEDS_MORE", (loose,))
    outcome = run("canary", TinyContext(bert))
    assert (outcome.status, outcome.measures["blind_to"]) == (Status.PASSED, "fp16")
    monkeypatch.setattr(canary, "is_small", lambda _source: False)
    outcome = run("canary", TinyContext(bert))
    assert (outcome.measures["twin"], outcome.measures["blind_to"]) == ("outputs rounded to fp16", "fp16")


@pytest.mark.parametrize(("dtype", "twin"), [("fp16", "run in bf16 on the CPU"), ("bf16", "outputs rounded to fp8")])
def test_each_precision_has_a_twin(bert: TinySource, dtype: str, twin: str) -> None:
    assert run("canary", TinyContext(bert, dtype)).measures["twin"] == twin


def test_no_rounding_of_fp32_excuses_what_fp16_costs() -> None:
    actual, reference = {"x": torch.tensor([1.0 + 3e-4])}, {"x": torch.tensor([1.0], dtype=torch.float64)}
    cell = Cell(ModelSpec("x", "BertModel", "fill-mask"), CPU, "fp32", WeightsChoice(Weights.PRETRAINED, ""))
    own = LeafDifference("x", rel_l2=3e-4, max_abs=3e-4)  # a CPU that computes in fp16 itself
    assert not compare(actual, reference, tolerance_of(cell), lambda: {"x": own}).ok
