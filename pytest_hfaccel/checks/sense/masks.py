"""Claims about models that fill masks."""

from __future__ import annotations

from collections.abc import Iterator

from pytest_hfaccel.checks.base import CheckContext
from pytest_hfaccel.checks.claims import Claim

# Facts that every English corpus states often. The answer must be among the first five of tens of thousands of words.
_FACTS = (("Paris is the capital of {}.", "france"), ("The opposite of hot is {}.", "cold"))
_TOP = 5


def fills_masks(context: CheckContext) -> Iterator[Claim]:
    """The model fills plain gaps with the expected word. Claimed only of vocabularies that have the word whole."""
    tokenizer = context.pipe.tokenizer
    words = {str(token).lstrip("Ġ▁").lower() for token in tokenizer.get_vocab()}
    for sentence, answer in _FACTS:
        if answer not in words:
            continue
        text = sentence.format(tokenizer.mask_token)
        fills = context.pipe(text, top_k=_TOP)
        found = [str(fill["token_str"]).strip().lower() for fill in fills]
        yield Claim(
            f"fills {text!r} with {answer!r} among its first {_TOP}",
            answer in found,
            {"fills": found, "scores": [fill["score"] for fill in fills]},
        )
