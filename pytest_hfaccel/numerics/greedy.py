"""Greedy generation with a torch model: the tokens, the logits they were chosen by, and what `forward` predicts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pytest_hfaccel.backends.base import is_padded

if TYPE_CHECKING:
    import torch

    from pytest_hfaccel.backends.base import LoadedModel


@dataclass(frozen=True)
class Continuation:
    """The greedy continuation of prompts.

    Attributes:
        tokens: int64, (batch, new tokens).
        step_logits: The logits each of them was chosen by: fp64, (batch, new tokens, vocabulary).
        prompt_logits: What `forward` predicts after the prompts, which the first of `step_logits` should equal: fp64,
            (batch, vocabulary). `None` where the two cannot be compared.
        prompt_reason: Why not; empty where `prompt_logits` are there.
    """

    tokens: torch.Tensor
    step_logits: torch.Tensor
    prompt_logits: torch.Tensor | None
    prompt_reason: str


def generate_greedily(loaded: LoadedModel, inputs: dict[str, torch.Tensor], max_new_tokens: int) -> Continuation:
    """Generate with a torch model, with its cache.

    Args:
        loaded: The model.
        inputs: Keyword arguments of `generate`.
        max_new_tokens: Number of tokens to generate per prompt.
    """
    with _captured_logits(loaded.pipeline_model()) as captured:
        tokens = loaded.generate(inputs, max_new_tokens=max_new_tokens, use_cache=True)
    step_logits = _stacked(captured, tokens)
    prompt_logits, reason = _prompt_logits(loaded, inputs, step_logits[:, 0].shape)
    return Continuation(tokens, step_logits, prompt_logits, reason)


def _prompt_logits(
    loaded: LoadedModel, inputs: dict[str, torch.Tensor], shape: torch.Size
) -> tuple[torch.Tensor | None, str]:
    """Return the logits of that shape that `forward` gives after the prompts, or why there are none to compare."""
    if loaded.pipeline_model().config.is_encoder_decoder:
        return None, "an encoder-decoder begins with its own tokens"
    if is_padded(inputs):
        return None, "the prompts are padded, which moves positions"
    try:
        logits = loaded.forward(inputs).get("logits")
    except (RuntimeError, TypeError, ValueError) as error:
        return None, f"forward does not take what generate does: {type(error).__name__}: {error}"
    if logits is None or logits.ndim != 3 or logits[:, -1].shape != shape:
        return None, "forward gives no logits of the shape that generate chooses tokens by"
    return logits[:, -1].double(), ""


@contextmanager
def _captured_logits(model: Any) -> Iterator[list[torch.Tensor]]:
    """Collect the last position's logits of every forward pass of a torch model."""
    captured: list[torch.Tensor] = []

    def keep(_module: Any, _inputs: Any, output: Any) -> None:
        if hasattr(output, "logits"):
            captured.append(output.logits[:, -1].detach().double().cpu())

    handle = model.register_forward_hook(keep)
    try:
        yield captured
    finally:
        handle.remove()


def _stacked(captured: list[torch.Tensor], tokens: torch.Tensor) -> torch.Tensor:
    """One row of logits per generated token; passes before the first token (language detection) are left out."""
    import torch

    return torch.stack(captured[-tokens.shape[1] :], dim=1)
