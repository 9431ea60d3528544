"""Claims about models that continue text."""

from __future__ import annotations

from collections.abc import Iterator

from pytest_hfaccel.checks.base import CheckContext
from pytest_hfaccel.checks.claims import Claim

# (a sentence, the same words in another order)
_SENTENCES = (
    ("The children went to school by bus in the morning.", "Morning bus the school in by went the children to."),
    ("She opened the door and walked into the house.", "House door the into walked and opened the she."),
)


def prefers_sentences(context: CheckContext) -> Iterator[Claim]:
    """A sentence has a lower perplexity than its words in another order."""
    for sentence, shuffled in _SENTENCES:
        natural, scrambled = _perplexity(context, sentence), _perplexity(context, shuffled)
        yield Claim(
            f"finds {sentence!r} more probable than {shuffled!r}",
            natural < scrambled,
            {"perplexity": natural, "perplexity_shuffled": scrambled},
        )


def _perplexity(context: CheckContext, text: str) -> float:
    """Return exp of the mean negative log-likelihood per predicted token."""
    from torch.nn.functional import cross_entropy

    inputs = dict(context.pipe.tokenizer(text, return_tensors="pt"))
    ids = inputs["input_ids"][0]
    taken = {name: inputs[name] for name in ("input_ids", "attention_mask") if name in inputs}
    logits = context.loaded.forward(taken)["logits"][0].float()
    return float(cross_entropy(logits[:-1], ids[1:]).exp())
