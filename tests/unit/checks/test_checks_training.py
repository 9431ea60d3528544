"""The check `training` passes on models that learn, leaves the leased model alone, and fails on those that do not."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from pytest_hfaccel.checks.training import STATED, choose_loss, largest_distance, trainable_names, without_dropout
from pytest_hfaccel.core.results import Status
from tests.unit.checks.support import TinyContext, TinySource, run

pytestmark = pytest.mark.slow


class Broken:
    """A checkpoint whose models are changed after they are loaded; the leased model and the reference are right."""

    def __init__(self, source: TinySource, change: Any) -> None:
        self._source = source
        self._change = change

    def torch_model(self, dtype: str, device: str = "cpu") -> Any:
        model = self._source.torch_model(dtype, device)
        self._change(model)
        return model

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)


def broken(source: TinySource, change: Any) -> TinyContext:
    context = TinyContext(source)
    context.source = Broken(source, change)  # type: ignore[assignment]
    return context


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize("fixture", ["bert", "gpt2"])
def test_a_right_model_learns(request: pytest.FixtureRequest, fixture: str, dtype: str) -> None:
    outcome = run("training", TinyContext(request.getfixturevalue(fixture), dtype))
    assert outcome.status == Status.PASSED, outcome.reason
    found = outcome.measures
    assert found["loss"] == "the model's own, from labels"
    assert found["loss_after"] < found["loss_before"]
    assert found["gradients"] == found["trainable"]
    # Checkpointing does what it is for: less is kept for the backward pass.
    assert found["gradient_checkpointing"]["activation_bytes"] < found["activation_bytes"]


def test_the_leased_model_is_untouched(gpt2: TinySource) -> None:
    context = TinyContext(gpt2)
    model = context.loaded.pipeline_model()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    outputs = context.loaded.forward(context.sample.forward)["logits"]
    assert run("training", context).status == Status.PASSED
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert not model.training
    assert all(parameter.grad is None for parameter in model.parameters())
    assert model.config.resid_pdrop == 0.1
    assert torch.equal(context.loaded.forward(context.sample.forward)["logits"], outputs)


def test_a_copy_that_is_the_leased_model_is_refused(gpt2: TinySource) -> None:
    from pytest_hfaccel.checks.base import private_copy
    from pytest_hfaccel.core.errors import LoadError

    context = TinyContext(gpt2)
    context.source = type("Same", (), {"torch_model": lambda *_: context.loaded.pipeline_model()})()
    with pytest.raises(LoadError, match="share memory with the leased model"):
        private_copy(context)


def _cut_off(model: Any) -> None:
    model.transformer.h[0].register_forward_hook(lambda _module, _inputs, output: output.detach())


def test_a_layer_that_lets_no_gradient_through_fails(gpt2: TinySource) -> None:
    outcome = run("training", broken(gpt2, _cut_off))
    assert outcome.status == Status.FAILED
    assert (outcome.reason or "").startswith("no gradient, although the loss depends on them: transformer.h.0.attn")


def _idle(model: Any) -> None:
    model.transformer.idle = torch.nn.Linear(3, 3)


def test_a_parameter_that_the_loss_does_not_reach_is_declared(gpt2: TinySource) -> None:
    context = TinyContext(gpt2)
    _idle(context.loaded.pipeline_model())
    context.source = Broken(gpt2, _idle)  # type: ignore[assignment]
    outcome = run("training", context)
    assert outcome.status == Status.PASSED, outcome.reason
    assert list(outcome.measures["unreached"]) == ["transformer.idle.bias", "transformer.idle.weight"]


def _with_nan(model: Any) -> None:
    model.transformer.ln_f.weight.data[0] = math.nan


def test_a_loss_that_is_nan_fails(gpt2: TinySource) -> None:
    outcome = run("training", broken(gpt2, _with_nan))
    assert outcome.status == Status.FAILED
    assert "the loss is nan" in (outcome.reason or "")


def _infinite_gradients(model: Any) -> None:
    model.transformer.ln_f.register_full_backward_hook(lambda _module, grads, _out: tuple(g * math.inf for g in grads))


def test_gradients_that_are_not_finite_fail(gpt2: TinySource) -> None:
    outcome = run("training", broken(gpt2, _infinite_gradients))
    assert outcome.status == Status.FAILED
    assert "gradients with NaN or infinity" in (outcome.reason or "")


def _uphill(model: Any) -> None:
    model.lm_head.register_full_backward_hook(lambda _module, grads, _out: tuple(-g for g in grads))
    model.lm_head.weight.register_hook(lambda gradient: -gradient)


def test_gradients_that_point_uphill_fail(gpt2: TinySource) -> None:
    outcome = run("training", broken(gpt2, _uphill))
    assert outcome.status == Status.FAILED
    assert "one step of AdamW does not lower the loss" in (outcome.reason or "")


def _other_gradients_when_computed_twice(model: Any) -> None:
    calls = {"count": 0}

    def grow(_module: Any, _inputs: Any, output: Any) -> Any:
        calls["count"] += 1
        return output * (1.0 + 0.01 * calls["count"])

    model.transformer.h[1].mlp.register_forward_hook(grow)


def test_checkpointing_that_changes_gradients_fails(gpt2: TinySource) -> None:
    outcome = run("training", broken(gpt2, _other_gradients_when_computed_twice))
    assert outcome.status == Status.FAILED
    assert "with gradient checkpointing the gradient of" in (outcome.reason or "")


def test_a_class_without_labels_learns_a_stated_loss(bert: TinySource) -> None:
    model = without_dropout(bert.torch_model("fp32").bert).train()
    loss = choose_loss(model, dict(bert.sample().forward), bert.spec)
    assert loss.what.startswith(STATED)
    assert list(loss.targets or ()) == ["last_hidden_state"]
    first, second = (float(loss(model).detach()) for _ in range(2))
    assert first == second > 0


def test_what_a_class_freezes_itself_is_not_trainable(bert: TinySource) -> None:
    model = bert.torch_model("fp32")

    class Frozen(type(model)):  # type: ignore[misc]
        def __init__(self, config: Any) -> None:
            super().__init__(config)
            self.bert.embeddings.position_embeddings.weight.requires_grad_(False)

    model.__class__ = Frozen
    assert "bert.embeddings.position_embeddings.weight" not in trainable_names(model)
    assert "bert.embeddings.word_embeddings.weight" in trainable_names(model)


def test_gradients_are_far_apart_when_one_is_missing() -> None:
    one = {"a": torch.ones(3), "b": torch.ones(3)}
    assert largest_distance(one, one)[0] == 0.0
    assert largest_distance({"a": torch.ones(3)}, one) == (math.inf, "b")
    distance, name = largest_distance({**one, "b": torch.full((3,), 1.1)}, one)
    assert distance == pytest.approx(0.1)
    assert name == "b"
