"""More than one input: how they are drawn, what a count of failures among them says, and what logits say of tokens."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    Tensors = Mapping[str, torch.Tensor]

_TOKENS = ("input_ids", "decoder_input_ids")
_NOISE = 0.1
"""Pictures, sounds and the like get noise of this many standard deviations, so that their ranges stay what they are."""
CONFIDENCE = 0.95


def vary_inputs(inputs: Tensors, seed: int, reserved: frozenset[int]) -> dict[str, torch.Tensor]:
    """Return other inputs of the same shapes, drawn from a seed.

    Tokens become others, all below the largest that is there already, but for reserved ones, which stay where they are:
    the first and the last, padding, masks, places of pictures. Pictures, sounds and other floating-point inputs are
    shifted by a few entries along their last axis and get a little noise, unless they hold only zeros and ones.

    Args:
        inputs: Of `forward`.
        seed: At least 1.
        reserved: Tokens with a meaning of their own; see `reserved_tokens`.

    Raises:
        ValueError: None of the inputs can be varied.
    """
    import torch

    generator = torch.Generator().manual_seed(seed)
    others = {name: _varied(name, tensor, generator, reserved) for name, tensor in inputs.items()}
    if all(torch.equal(others[name], tensor) for name, tensor in inputs.items()):
        raise ValueError(f"none of {', '.join(inputs)} can be varied: no tokens, pictures or sounds")
    return others


def _varied(name: str, tensor: torch.Tensor, generator: torch.Generator, reserved: frozenset[int]) -> torch.Tensor:
    import torch

    if name in _TOKENS and tensor.ndim == 2:
        ordinary = [token for token in range(int(tensor.max()) + 1) if token not in reserved]
        if not ordinary:
            return tensor
        drawn = torch.tensor(ordinary)[torch.randint(len(ordinary), tensor.shape, generator=generator)].to(tensor.dtype)
        kept = torch.isin(tensor, torch.tensor(sorted(reserved), dtype=tensor.dtype))
        kept |= torch.zeros_like(kept).index_fill_(1, torch.tensor([0, tensor.shape[1] - 1]), True)
        # Places of pictures or sounds stand in runs of one token.
        same = torch.zeros_like(kept)
        same[:, 1:] = tensor[:, 1:] == tensor[:, :-1]
        kept |= same
        kept[:, :-1] |= same[:, 1:]
        return torch.where(kept, tensor, drawn)
    if not tensor.is_floating_point() or tensor.numel() < 2 or bool(((tensor == 0) | (tensor == 1)).all()):
        return tensor
    shift = int(torch.randint(1, 8, (1,), generator=generator))
    noise = torch.randn(tensor.shape, generator=generator) * _NOISE * float(tensor.float().std())
    return (tensor.roll(shift, -1) + noise).clamp(float(tensor.min()), float(tensor.max())).to(tensor.dtype)


def reserved_tokens(config: Any) -> frozenset[int]:
    """Return the tokens that a model's config names: `pad_token_id`, `image_token_index` and the like, at any depth."""
    return frozenset(_token_ids(config.to_dict()))


def _token_ids(values: Mapping[Any, Any]) -> Iterator[int]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _token_ids(value)
        elif str(name).endswith(("token_id", "token_index", "token_ids", "tokens")):
            many = value if isinstance(value, list | tuple) else [value]
            yield from (one for one in many if isinstance(one, int) and not isinstance(one, bool) and one >= 0)


def bound_of_failures(failed: int, count: int, confidence: float = CONFIDENCE) -> float:
    """Return the largest share of failing inputs that is compatible with a count (Clopper-Pearson, one-sided, exact).

    Of 8 inputs of which none failed, up to 31 % of all inputs may fail; of 60, up to 4.9 %. Written out, because scipy,
    which has it, is no dependency of a run.
    """
    if failed >= count:
        return 1.0
    low, high = failed / count, 1.0
    for _ in range(60):  # the probability of at most `failed` failures falls as the share grows
        share = (low + high) / 2
        at_most = sum(math.comb(count, k) * share**k * (1 - share) ** (count - k) for k in range(failed + 1))
        low, high = (share, high) if at_most > 1 - confidence else (low, share)
    return high


def compare_tokens(actual: torch.Tensor, reference: torch.Tensor) -> dict[str, float | int]:
    """Say what a difference between logits means for the tokens chosen by them.

    Args:
        actual: Logits, (..., vocabulary).
        reference: Those of the reference, of the same shape.

    Returns:
        `kl_mean` and `kl_99.9`, the mean and the 99.9th percentile over positions of the Kullback-Leibler divergence of
        the actual distribution from the reference's, in nats; `same_top1`, the share of positions with the same most
        likely token, with its standard error `same_top1_se`; and the number of `positions`.
    """
    import torch

    width = reference.shape[-1]
    here, right = (logits.reshape(-1, width).double().log_softmax(-1) for logits in (actual, reference))
    terms = right.exp() * (right - here)
    divergence = terms.masked_fill(right.isneginf(), 0.0).sum(-1)
    divergence = divergence.clamp(min=0.0).nan_to_num(nan=math.inf)
    same = float((actual.reshape(-1, width).argmax(-1) == reference.reshape(-1, width).argmax(-1)).double().mean())
    positions = len(divergence)
    return {
        "kl_mean": float(divergence.mean()),
        "kl_99.9": float(torch.quantile(divergence[:1_000_000], 0.999)),
        "same_top1": same,
        "same_top1_se": math.sqrt(same * (1 - same) / positions),
        "positions": positions,
    }
