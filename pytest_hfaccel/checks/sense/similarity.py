"""Claims about models that turn text into features."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from pytest_hfaccel.checks.base import CheckContext
from pytest_hfaccel.checks.claims import Claim

if TYPE_CHECKING:
    import torch

# (sentence, a paraphrase, something else): far enough apart for models that were not trained on similarity.
_TRIPLES = (
    ("A man is playing a guitar on stage.", "A man plays the guitar on a stage.", "The stock market fell sharply."),
    ("The cat sleeps on the sofa.", "A cat is sleeping on the sofa.", "Quantum physics is difficult to learn."),
)

ARROW = ">>"
"""A token of vocabularies of reaction SMILES, and of no other."""

# (reaction, one of the same kind, one of another kind)
_REACTIONS = (
    ("CC(=O)O.OCC>>CC(=O)OCC", "CC(=O)O.CO>>CC(=O)OC", "Brc1ccccc1.OB(O)c1ccccc1>>c1ccc(-c2ccccc2)cc1"),
    (
        "Brc1ccccc1.OB(O)c1ccccc1>>c1ccc(-c2ccccc2)cc1",
        "Brc1ccc(C)cc1.OB(O)c1ccccc1>>Cc1ccc(-c2ccccc2)cc1",
        "CC(=O)Cl.NCc1ccccc1>>CC(=O)NCc1ccccc1",
    ),
    ("CC(=O)Cl.NCc1ccccc1>>CC(=O)NCc1ccccc1", "CC(=O)Cl.NCC>>CC(=O)NCC", "CC(=O)O.CO>>CC(=O)OC"),
)


def groups_paraphrases(context: CheckContext) -> Iterator[Claim]:
    """Mean-pooled features of paraphrases are closer than those of unrelated sentences; likewise those of reactions."""
    reactions = ARROW in context.pipe.tokenizer.get_vocab()
    for sentence, paraphrase, other in _REACTIONS if reactions else _TRIPLES:
        base, near, far = (_pooled(context, text) for text in (sentence, paraphrase, other))
        similar, unrelated = _cosine(base, near), _cosine(base, far)
        yield Claim(
            f"puts {sentence!r} closer to {paraphrase!r} than to {other!r}",
            similar > unrelated,
            {"paraphrase_cosine": similar, "unrelated_cosine": unrelated},
        )


def _pooled(context: CheckContext, text: str) -> torch.Tensor:
    import torch

    # One text at a time: every token is real, so that the plain mean is the masked mean.
    return torch.tensor(context.pipe(text), dtype=torch.float64)[0].mean(0)


def _cosine(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(a.dot(b) / (a.norm() * b.norm()))
