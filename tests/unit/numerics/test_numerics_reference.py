"""The reference is in fp64 where that gives numbers."""

from __future__ import annotations

from typing import Any

import pytest

from pytest_hfaccel.checks.planted import Planted
from pytest_hfaccel.core.results import Status
from pytest_hfaccel.numerics.reference import Reference, compute_reference
from tests.unit.checks.support import TinyContext, TinySource, run

pytestmark = pytest.mark.slow


def with_nan_in(source: TinySource, *dtypes: str) -> Any:
    import torch

    def load(dtype: str) -> Any:
        right = TinyContext(source)._load(dtype)

        def forward(inputs: Any) -> Any:
            outputs = right.forward(inputs)
            return (
                {name: torch.full_like(leaf, torch.nan) for name, leaf in outputs.items()}
                if dtype in dtypes
                else outputs
            )

        return Planted(right, forward=forward)

    return load


def compute(source: TinySource, *nan_in: str) -> Reference:
    return compute_reference(source, with_nan_in(source, *nan_in), TinyContext(source).on_cpu)


def test_fp32_serves_where_fp64_gives_nan(bert: TinySource) -> None:
    reference = compute(bert, "fp64")
    assert (reference.dtype, reference.reason) == ("fp32", "fp64 gives NaN where fp32 gives numbers")


def test_nan_in_both_is_what_the_model_gives(bert: TinySource) -> None:
    assert compute(bert, "fp64", "fp32").dtype == "fp64"
    assert compute(bert).dtype == "fp64"


def test_where_fp64_does_not_generate_the_tokens_are_those_of_fp32_and_it_says_so(gpt2: TinySource) -> None:
    context = TinyContext(gpt2)

    def load(dtype: str) -> Any:
        def generate(_inputs: Any, **_options: Any) -> Any:
            raise RuntimeError("expected scalar type Double but found Float")

        right = context._load(dtype)
        return Planted(right, generate=generate) if dtype == "fp64" else right

    context._reference = compute_reference(gpt2, load, context.on_cpu)
    outcome = run("generation", context)
    assert outcome.status == Status.PASSED, outcome.reason
    assert context.reference.dtype == "fp64"
    assert outcome.measures["reference_reason"] == (
        "fp64 does not run: RuntimeError: expected scalar type Double but found Float"
    )
    expected = context.loaded.generate(gpt2.sample().generate, max_new_tokens=8, use_cache=True)
    assert context.reference.continuation(8).tokens.equal(expected)
