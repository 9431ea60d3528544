"""Time to the first generated token, and per token after it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_hfaccel.benchmark.timing import Effort, time_runs

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

    from pytest_hfaccel.backends.base import LoadedModel

NEW_TOKENS = 16
"""Tokens after the first: enough that their time stands out against the noise of the first one's."""


@dataclass(frozen=True)
class TokenTimes:
    """How fast a model generates.

    Attributes:
        first_ms: Time to the first token: the pass over the prompt, and what `generate` does around it.
        per_token_ms: Time per token after it, averaged over `NEW_TOKENS`; `None` where noise hides it.
        use_cache: Whether keys and values were kept between tokens.
    """

    first_ms: float
    per_token_ms: float | None
    use_cache: bool


def time_tokens(loaded: LoadedModel, inputs: Mapping[str, torch.Tensor], effort: Effort) -> TokenTimes | None:
    """Time generation, with a key-value cache where the backend has one.

    Args:
        loaded: The model.
        inputs: Keyword arguments of `generate`.
        effort: How much work each of the two timings may be.

    Returns:
        The times; `None` where the backend cannot generate with this model.
    """
    for use_cache in (True, False):
        try:
            first = _median_ms(loaded, inputs, 1, use_cache, effort)
            all_of_them = _median_ms(loaded, inputs, 1 + NEW_TOKENS, use_cache, effort)
        except NotImplementedError:
            continue
        further = (all_of_them - first) / NEW_TOKENS
        return TokenTimes(first, further if further > 0 else None, use_cache)
    return None


def _median_ms(
    loaded: LoadedModel, inputs: Mapping[str, torch.Tensor], tokens: int, use_cache: bool, effort: Effort
) -> float:
    def generate() -> None:
        loaded.generate(inputs, max_new_tokens=tokens, use_cache=use_cache)

    return time_runs(generate, effort).median_ms
