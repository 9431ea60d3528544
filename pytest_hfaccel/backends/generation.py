"""Greedy generation that depends on the model alone, not on what its `generation_config` says."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


def generate_greedily(
    model: Any, inputs: Mapping[str, torch.Tensor], *, max_new_tokens: int, use_cache: bool
) -> torch.Tensor:
    """Generate exactly `max_new_tokens` tokens per sample with transformers' own loop.

    The checkpoint's generation settings (suppressed or forced tokens, early end, sampling) are set aside for the call,
    because a test of the hardware must not depend on them.

    Args:
        model: A transformers model, or an object that behaves like one.
        inputs: Keyword arguments of `generate`, on the model's device.
        max_new_tokens: Number of tokens to generate.
        use_cache: Whether the model keeps keys and values between steps.

    Returns:
        The new token ids, int64 of shape (batch, max_new_tokens), on the CPU. The prompt of a decoder-only model and
        the start token of an encoder-decoder model are not among them.
    """
    from transformers import GenerationConfig, GenerationMixin

    # Speech models override `generate` with a loop over 30-second windows that picks language, task and temperature.
    is_speech = model.main_input_name == "input_features"
    generate = GenerationMixin.generate.__get__(model) if is_speech else model.generate
    with neutral_settings(model, use_cache=use_cache) as neutral:
        asked = GenerationConfig(**{**neutral.to_diff_dict(), "max_new_tokens": max_new_tokens, "use_cache": use_cache})
        sequences = generate(**inputs, generation_config=asked)
    return sequences[:, -max_new_tokens:].long().cpu()


@contextmanager
def neutral_settings(model: Any, *, use_cache: bool) -> Iterator[Any]:
    """Replace a model's generation settings, which `generate` fills every gap from, by ones that decode greedily.

    Yields:
        The settings (`GenerationConfig`): the special tokens a model needs to start, and no end token.
    """
    from transformers import GenerationConfig

    own = model.generation_config
    config = model.config
    neutral = GenerationConfig(
        do_sample=False,
        num_beams=1,
        use_cache=use_cache,
        bos_token_id=_first(own.bos_token_id, getattr(config, "bos_token_id", None)),
        decoder_start_token_id=_first(own.decoder_start_token_id, getattr(config, "decoder_start_token_id", None)),
        # Without an end token nothing ends early and nothing is padded.
        eos_token_id=None,
        pad_token_id=_first(own.pad_token_id, getattr(config, "pad_token_id", None), 0),
    )
    model.generation_config = neutral
    try:
        yield neutral
    finally:
        model.generation_config = own


def _first(*candidates: Any) -> Any:
    return next((value for value in candidates if value is not None), None)
