"""Claims about models that continue text."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from pytest_hfaccel.checks.base import CheckContext
from pytest_hfaccel.checks.claims import Claim

if TYPE_CHECKING:
    import torch

# (a sentence, the same words in another order)
_SENTENCES = (
    ("The children went to school by bus in the morning.", "Morning bus the school in by went the children to."),
    ("She opened the door and walked into the house.", "House door the into walked and opened the she."),
)

# (a text, its next word): counted on by every model of English, and first of tens of thousands of tokens.
_CONTINUATIONS = (
    ("Monday, Tuesday, Wednesday, Thursday,", " Friday"),
    ("One, two, three, four,", " five"),
)


def prefers_sentences(context: CheckContext) -> Iterator[Claim]:
    """A sentence has a lower perplexity than its words in another order, and a list its next word."""
    for sentence, shuffled in _SENTENCES:
        natural, scrambled = _perplexity(context, sentence), _perplexity(context, shuffled)
        yield Claim(
            f"finds {sentence!r} more probable than {shuffled!r}",
            natural < scrambled,
            {"perplexity": natural, "perplexity_shuffled": scrambled},
        )
    for text, word in _CONTINUATIONS:
        ids = _ids(context, word)
        if len(ids) != 1:
            continue
        best = int(_logits(context, text)[0][-1].argmax())
        found = context.pipe.tokenizer.decode([best])
        yield Claim(f"continues {text!r} with {word!r}", best == ids[0], {"token": found})


def _ids(context: CheckContext, word: str) -> list[int]:
    """Return a word's ids without what a tokenizer puts before every text."""
    return list(context.pipe.tokenizer(word, add_special_tokens=False)["input_ids"])


def _perplexity(context: CheckContext, text: str) -> float:
    """Return exp of the mean negative log-likelihood per predicted token."""
    from torch.nn.functional import cross_entropy

    logits, ids = _logits(context, text)
    return float(cross_entropy(logits[:-1], ids[1:]).exp())


def _logits(context: CheckContext, text: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the logits of a text (tokens x vocabulary), in fp32, and the text's ids."""
    inputs = dict(context.pipe.tokenizer(text, return_tensors="pt"))
    taken = {name: inputs[name] for name in ("input_ids", "attention_mask") if name in inputs}
    return context.loaded.forward(taken)["logits"][0].float(), inputs["input_ids"][0]
