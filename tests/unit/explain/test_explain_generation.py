"""A defect that shows only while tokens are generated: the first step, row and token, and the logits on both sides."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    FSMTConfig,
    FSMTForConditionalGeneration,
    GPT2Config,
    GPT2LMHeadModel,
    RobertaConfig,
    RobertaForCausalLM,
)

from pytest_hfaccel.core.config import RunConfig
from pytest_hfaccel.engine.session import Session
from pytest_hfaccel.explain.generation import (
    NEW_TOKENS,
    explain_generation,
    with_module,
)
from pytest_hfaccel.explain.generation.calls import WITH_CACHE, WITHOUT_CACHE, OwnCalls, compare_own_calls
from pytest_hfaccel.registry.resolution import resolve_model

BUDGET = 1e-5


@pytest.fixture
def opened(shared_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Any]]:
    """Open tiny GPT-2 on a device."""
    monkeypatch.setenv("HFACCEL_CACHE", str(shared_cache / "hfaccel"))
    with ExitStack() as closing:

        def open_cell(device: str) -> Any:
            session = Session(
                RunConfig.from_values(
                    {"models": ("gpt2",), "devices": (device,), "dtypes": ("fp32",), "weights": "tiny"}
                )
            )
            closing.callback(session.close)
            cell = session.plan.cells(resolve_model("gpt2", session.registry), session.store)[0]
            run = session.runner.open(cell)
            closing.callback(run.close)
            return run

        yield open_cell


def explained(run: Any) -> Any:
    expected = run.reference.continuation(NEW_TOKENS)
    return explain_generation(run.loaded, run.sample.generate, expected, BUDGET), expected


def wrong_in_torch(run: Any) -> None:
    """Number the tokens of all steps after the first one too high."""
    table = run.loaded.pipeline_model().get_submodule("transformer.wpe")
    table.register_forward_pre_hook(lambda _, args: (args[0] + 1,) if args[0].shape[-1] == 1 else args)


def wrong_in_graph(run: Any) -> None:
    decoder = run.loaded._decoder(False)
    right = decoder._compiled.decoder

    def wrong() -> Callable[[Any], Any]:
        step = right()

        def shifted(inputs: Any) -> Any:
            late = inputs["input_ids"].shape[1] == 1
            return step({**inputs, "position_ids": inputs["position_ids"] + int(late)})

        return shifted

    decoder._compiled.decoder = wrong


@pytest.mark.parametrize(
    ("device", "plant"),
    [
        ("cpu", wrong_in_torch),
        pytest.param("openvino:CPU", wrong_in_graph, marks=pytest.mark.nightly),
        pytest.param("onnxruntime:CPU", wrong_in_graph, marks=pytest.mark.nightly),
    ],
)
def test_a_defect_of_later_steps_is_found_at_the_first_of_them(
    device: str, plant: Callable[[Any], None], opened: Callable[[str], Any]
) -> None:
    run = opened(device)
    plant(run)
    found, expected = explained(run)
    (step,) = found.found
    assert found.is_wrong
    assert (step.way, step.row, step.step) == (WITH_CACHE, 0, 1)
    assert found.right == (WITHOUT_CACHE,)
    assert step.errors[0] <= BUDGET < step.error
    assert "Without a cache generation is right: what is kept between steps is wrong." in found.lines()
    logits = expected.step_logits[0, 1]
    assert step.top[0].token == step.expected == int(logits.argmax())
    assert step.top[0].reference == pytest.approx(float(logits.max()))
    assert step.top[0].device != pytest.approx(step.top[0].reference, abs=1e-4)
    assert found.to_json()["steps"][0]["errors"] == step.errors


def test_the_module_behind_a_wrong_step_is_named(opened: Callable[[str], Any]) -> None:
    run = opened("cpu")
    norm = run.loaded.pipeline_model().get_submodule("transformer.h.1.ln_2")
    norm.register_forward_hook(lambda _, args, output: output * 1.1 if args[0].shape[1] == 1 else output)
    found, _ = explained(run)
    found = with_module(found, run.loaded, run.source.torch_model("fp64"), run.sample.generate)
    (step,) = found.found
    assert (step.step, step.module, step.kind) == (1, "transformer.h.1.ln_2", "LayerNorm")


def test_a_right_model_generates_rightly(opened: Callable[[str], Any]) -> None:
    found, _ = explained(opened("cpu"))
    assert not found.is_wrong
    assert found.right == (WITH_CACHE, WITHOUT_CACHE)
    assert list(found.lines()) == ["Generation with cache and without cache is right."]


def test_positions_that_only_generate_hands_over_are_found() -> None:
    torch.manual_seed(0)
    sizes = {"vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = RobertaConfig(**sizes, intermediate_size=32, max_position_embeddings=64, is_decoder=True)
    model = RobertaForCausalLM(config).double().eval()
    ids = torch.randint(5, 50, (2, 6))
    found = compare_own_calls(model, {"input_ids": ids}, 3)
    (other,) = found.others
    assert (other.step, [each.name for each in other.extra]) == (0, ["position_ids"])
    assert other.extra[0].generate == "[0, 1, 2, 3, 4, ...] (2x6)"
    assert other.extra[0].error_left == pytest.approx(0.0, abs=BUDGET)
    assert (other.caller, other.module) == ("roberta.embeddings", "roberta.embeddings.position_embeddings")
    assert (other.kind, other.is_proven) == ("Embedding", True)
    # The same positions as forward counts: nothing is left to find.
    model.prepare_inputs_for_generation = without_positions(model.prepare_inputs_for_generation)
    assert compare_own_calls(model, {"input_ids": ids}, 3) == OwnCalls(right=(WITH_CACHE, WITHOUT_CACHE))


def without_positions(prepare: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    """Prepare inputs without positions at the first step; later ones are counted on from forward's."""

    def prepared(*args: Any, **kwargs: Any) -> dict[str, Any]:
        inputs = prepare(*args, **kwargs)
        positions = inputs.pop("position_ids", None)
        if positions is not None and inputs["input_ids"].shape[1] == 1:
            inputs["position_ids"] = positions + 2  # after the padding's own position, 1
        return inputs

    return prepared


@pytest.mark.current_transformers
def test_a_mask_that_generate_leaves_out_is_found_with_the_code_that_does() -> None:
    torch.manual_seed(0)
    sizes = {"src_vocab_size": 64, "tgt_vocab_size": 64, "d_model": 32, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64}
    layers = {"encoder_layers": 1, "decoder_layers": 2, "encoder_attention_heads": 4, "decoder_attention_heads": 4}
    config = FSMTConfig(**sizes, **layers, max_position_embeddings=64, init_std=0.5)
    model = FSMTForConditionalGeneration(config).eval()
    found = compare_own_calls(model, {"input_ids": torch.randint(5, 60, (1, 8))}, 4)
    (other,) = found.others
    assert found.right == (WITH_CACHE,)
    assert (other.way, other.caller, other.module) == (WITHOUT_CACHE, "model", "model.decoder")
    assert [(each.name, each.generate) for each in other.arguments] == [("decoder_causal_mask", "None")]
    assert other.is_proven


def test_a_cached_step_that_leaves_forward_is_found_at_its_module() -> None:
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=50, n_embd=16, n_layer=2, n_head=2, n_positions=32)
    model = GPT2LMHeadModel(config).double().eval()
    ids = torch.randint(5, 50, (2, 6))
    assert compare_own_calls(model, {"input_ids": ids}, 3).others == ()
    norm = model.transformer.h[1].ln_2
    norm.register_forward_hook(lambda _, args, output: output * 1.1 if args[0].shape[1] == 1 else output)
    found = compare_own_calls(model, {"input_ids": ids}, 3)
    (other,) = found.others
    assert found.right == (WITHOUT_CACHE,)
    assert (other.way, other.step) == (WITH_CACHE, 1)
    assert (other.module, other.kind, other.caller) == ("transformer.h.1.ln_2", "LayerNorm", None)
