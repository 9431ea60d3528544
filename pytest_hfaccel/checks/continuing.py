"""How a torch model continues prompts greedily: the tokens, what they were chosen by, and what `forward` says of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from pytest_hfaccel.backends.base import LoadedModel


@dataclass(frozen=True)
class Continuation:
    """What a model continues its prompts with.

    Attributes:
        tokens: int64, (batch, new tokens).
        step_logits: The logits each of them was chosen by: fp64, (batch, new tokens, vocabulary).
        prompt_logits: What `forward` predicts after the prompts, which the first of `step_logits` should equal: fp64,
            (batch, vocabulary). `None` where they are no answers to the same question: an encoder-decoder begins with
            tokens of its own, padding moves positions, `forward` takes other inputs.
    """

    tokens: torch.Tensor
    step_logits: torch.Tensor
    prompt_logits: torch.Tensor | None


def continued(loaded: LoadedModel, inputs: dict[str, torch.Tensor], max_new_tokens: int) -> Continuation:
    """Generate with a model on torch.

    Args:
        loaded: The model.
        inputs: Keyword arguments of `generate`.
        max_new_tokens: Number of tokens to generate per prompt.
    """
    with _captured_logits(loaded.pipeline_model()) as captured:
        tokens = loaded.generate(inputs, max_new_tokens=max_new_tokens, use_cache=True)
    return Continuation(tokens, _stacked(captured, tokens), _predicted(loaded, inputs))


def _predicted(loaded: LoadedModel, inputs: dict[str, torch.Tensor]) -> torch.Tensor | None:
    if loaded.pipeline_model().config.is_encoder_decoder:
        return None
    if "attention_mask" in inputs and not bool(inputs["attention_mask"].all()):
        return None
    try:
        logits = loaded.forward(inputs).get("logits")
    except (RuntimeError, NotImplementedError, TypeError, ValueError):
        return None
    return logits[:, -1].double() if logits is not None and logits.ndim == 3 else None


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
