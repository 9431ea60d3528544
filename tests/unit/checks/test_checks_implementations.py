"""The checks `attention` and `compile`: other ways to run a model agree, or the check says which does not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from pytest_hfaccel.checks import implementations
from pytest_hfaccel.checks.implementations import NotCompiled, compilers, run_compiled
from pytest_hfaccel.core.results import Stage, Status
from pytest_hfaccel.core.spec import CPU, Device
from tests.unit.checks.support import TinyContext, TinySource, run

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize("fixture", ["bert", "gpt2"])
def test_implementations_agree(request: pytest.FixtureRequest, fixture: str, dtype: str) -> None:
    context = TinyContext(request.getfixturevalue(fixture), dtype)
    before = context.loaded.pipeline_model().config._attn_implementation
    outcome = run("attention", context)
    assert outcome.status == Status.PASSED, outcome.reason
    assert set(outcome.measures["sdpa"]) == {"plain", "padded"}
    assert outcome.measures["fused_calls"] == {"eager": 0, "sdpa": 2}
    assert "flash_attention_2" in outcome.measures["left_out"]
    assert context.loaded.pipeline_model().config._attn_implementation == before


def test_fused_attention_that_is_wrong_fails(bert: TinySource, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    right = ALL_ATTENTION_FUNCTIONS["sdpa"]

    def without_mask(module: Any, query: Any, key: Any, value: Any, attention_mask: Any, **kwargs: Any) -> Any:
        del attention_mask
        return right(module, query, key, value, None, **kwargs)

    monkeypatch.setitem(ALL_ATTENTION_FUNCTIONS._global_mapping, "sdpa", without_mask)
    outcome = run("attention", TinyContext(bert))
    assert outcome.status == Status.FAILED
    assert outcome.stage == Stage.COMPARE
    assert (outcome.reason or "").startswith("sdpa against eager, plain inputs: logits: rel-L2")


def test_fused_attention_that_never_runs_fails(bert: TinySource, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
    from transformers.models.bert.modeling_bert import eager_attention_forward

    def eager(module: Any, query: Any, key: Any, value: Any, attention_mask: Any, **kwargs: Any) -> Any:
        added = torch.zeros(attention_mask.shape).masked_fill(~attention_mask, -1e9)
        return eager_attention_forward(module, query, key, value, added, **kwargs)

    monkeypatch.setitem(ALL_ATTENTION_FUNCTIONS._global_mapping, "sdpa", eager)
    outcome = run("attention", TinyContext(bert))
    assert outcome.status == Status.FAILED
    assert "called 0 times" in (outcome.reason or "")


def test_a_class_with_one_attention_is_skipped_with_the_reason(bert: TinySource) -> None:
    context = TinyContext(bert)
    model = context.loaded.pipeline_model()
    model._supports_sdpa = model._supports_flash_attn = model._supports_flex_attn = False
    outcome = run("attention", context)
    assert outcome.status == Status.SKIPPED
    assert "sdpa: BertForMaskedLM does not support it" in (outcome.reason or "")


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """A backend of torch.compile that runs graphs as they are, or does what a test puts in the list."""
    from torch._dynamo.backends.registry import _BACKENDS, _COMPILER_FNS, register_backend

    behaviour: list[Any] = []

    def tried(graph: Any, _inputs: Any) -> Any:
        return behaviour[0](graph) if behaviour else graph.forward

    register_backend(tried, name="tried")
    monkeypatch.setattr(implementations, "compilers", lambda *_: ({"tried": {}}, {}))
    yield behaviour
    for registry in (_BACKENDS, _COMPILER_FNS):
        registry.pop("tried", None)


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("fixture", ["bert", "gpt2"])
def test_a_compiled_model_agrees(request: pytest.FixtureRequest, fixture: str) -> None:
    context = TinyContext(request.getfixturevalue(fixture))
    before = {name: tensor.clone() for name, tensor in context.loaded.pipeline_model().state_dict().items()}
    outcome = run("compile", context)
    assert outcome.status == Status.PASSED, outcome.reason
    assert outcome.measures["tried"]["graphs"] >= 1
    after = context.loaded.pipeline_model().state_dict()
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())


def test_a_compiler_that_computes_something_else_fails(gpt2: TinySource, backend: list[Any]) -> None:
    backend.append(lambda graph: lambda *args: [out * 1.01 for out in graph.forward(*args)])
    outcome = run("compile", TinyContext(gpt2))
    assert outcome.status == Status.FAILED
    assert (outcome.reason or "").startswith("tried against eager: logits: rel-L2 0.01")


def test_a_compiler_that_fails_says_so_at_its_stage(gpt2: TinySource, backend: list[Any]) -> None:
    def refuse(_graph: Any) -> Any:
        raise RuntimeError("no kernel for this")

    backend.append(refuse)
    outcome = run("compile", TinyContext(gpt2))
    assert outcome.status == Status.FAILED
    assert outcome.stage == Stage.COMPILE
    assert "no kernel for this" in (outcome.reason or "")


@pytest.mark.usefixtures("backend")
def test_a_model_that_is_not_compiled_at_all_fails(gpt2: TinySource) -> None:
    context = TinyContext(gpt2)
    model = context.loaded.pipeline_model()
    model.forward = torch.compiler.disable(model.forward)
    with pytest.raises(NotCompiled, match="no graph"):
        run_compiled(model, context.sample.forward, "tried", {})


def test_what_openvino_gives_back_to_torch_is_a_failure() -> None:
    pytest.importorskip("openvino", reason="openvino is an extra of this package")

    class Empty(torch.nn.Module):  # type: ignore[misc]
        """Joins an empty vector to a matrix, as an empty cache does; OpenVINO 2026.4 refuses that."""

        dtype = torch.float32

        def __init__(self) -> None:
            super().__init__()
            self.scale = torch.nn.Parameter(torch.ones(3))

        def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"out": torch.cat([torch.tensor([]), x * self.scale], dim=-2)}

    with pytest.raises(NotCompiled, match=r"(?s)OpenVINO ran 0 graphs.*cat"):
        run_compiled(Empty(), {"x": torch.ones(2, 3)}, "openvino", compilers(CPU, "fp32")[0]["openvino"])


def test_who_compiles_where() -> None:
    found, left_out = compilers(CPU, "fp16")
    assert "openvino" not in found
    assert left_out["openvino"]
    assert "openvino" in compilers(Device.parse("cuda:0"), "fp32")[1]


def test_without_a_compiler_inductor_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    from torch._inductor import cpp_builder

    def none() -> str:
        raise cpp_builder.exc.InvalidCxxCompiler

    monkeypatch.setattr(cpp_builder, "get_cpp_compiler", none)
    assert "C++ compiler" in compilers(CPU, "fp32")[1].get("inductor", "")
