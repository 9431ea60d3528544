"""The check `attention` passes when the implementations agree, and fails when one does not, or never ran."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from pytest_hfaccel.core.results import Stage, Status
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
