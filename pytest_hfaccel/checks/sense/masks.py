"""Claims about models that fill masks."""

from __future__ import annotations

from collections.abc import Iterator

from pytest_hfaccel.checks.base import CheckContext
from pytest_hfaccel.checks.claims import Claim
from pytest_hfaccel.checks.sense.similarity import ARROW

# Facts that every English corpus states often. The answer must be among the first five of tens of thousands of words.
_FACTS = (("Paris is the capital of {}.", "france"), ("The opposite of hot is {}.", "cold"))
_TOP = 5

# (a reaction in SMILES with a gap, the token that the laws of nature demand there)
_REACTIONS = (
    ("CC(=O)O.OCC>>CC(=O){}CC", "O"),  # an ester keeps the oxygen of its alcohol
    ("CC(=O)Cl.{}Cc1ccccc1>>CC(=O)NCc1ccccc1", "N"),  # an amide's nitrogen comes from the amine
    ("Br{}1ccccc1.OB(O)c1ccccc1>>c1ccc(-c2ccccc2)cc1", "c"),  # the rings of a biaryl come from both sides
)


def fills_masks(context: CheckContext) -> Iterator[Claim]:
    """The model fills plain gaps with the expected word. Claimed only of vocabularies that have the word whole.

    A vocabulary of reaction SMILES gets reactions, and the expected token must come first.
    """
    tokenizer = context.pipe.tokenizer
    if ARROW in tokenizer.get_vocab():
        yield from _completes_reactions(context)
        return
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


def _completes_reactions(context: CheckContext) -> Iterator[Claim]:
    for reaction, answer in _REACTIONS:
        text = reaction.format(context.pipe.tokenizer.mask_token)
        best = context.pipe(text, top_k=1)[0]
        yield Claim(
            f"completes {text!r} with {answer!r}",
            best["token_str"].strip() == answer,
            {"token": best["token_str"], "score": best["score"]},
        )
