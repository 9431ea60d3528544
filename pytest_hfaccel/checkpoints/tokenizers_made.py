"""Tokenizers trained on the spot, and the config made to agree with them."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

CORPUS = (
    "Paris is the capital of France, and Berlin is the capital of Germany.",
    "A photo of a cat. A photo of a dog. A photo of a red circle on a white background.",
    "The quick brown fox jumps over the lazy dog.",
    "A man is playing the guitar on the stage while a woman sings a song.",
    "What is in the image? Describe the picture in one short sentence.",
    "translate English to German: The house is wonderful and the garden is green.",
    "The weather is nice today, and we will go to the park and eat ice cream.",
    "I love this movie, it is great. I hate this movie, it is terrible.",
    "The sound of a dog barking, of rain falling, and of a bell ringing.",
    "Once upon a time there was a king who had three daughters.",
)
"""The words of the sample inputs are among these sentences'."""

_LINES = 400
_WORDS_PER_LINE = 8
_VOCABULARY = 600
_SPECIAL = ("pad", "bos", "eos", "sep", "cls", "mask")
CTC_CHARACTERS = ("<pad>", "<s>", "</s>", "<unk>", "|", *"ETAONIHSRDLUMWCFGYPBVK'XJQZ")
"""The vocabulary of English CTC models: blank first, `|` between words."""


def training_lines() -> list[str]:
    """Return the corpus's words in seeded random order: a tokenizer must learn words, not these ten sentences."""
    words = " ".join(CORPUS).split()
    shuffled = random.Random(0)  # noqa: S311
    return [" ".join(shuffled.choices(words, k=_WORDS_PER_LINE)) for _ in range(_LINES)]


def train_tokenizer(class_name: str, extra: Sequence[str] = (), **special: str) -> Any:
    """Train a tokenizer of a transformers class on the corpus.

    Args:
        class_name: A fast tokenizer class, e.g. `BertTokenizer`.
        extra: Further special tokens.
        special: Named special tokens, e.g. `pad_token="<pad>"`.
    """
    import transformers

    blank = getattr(transformers, class_name)()
    tokenizer = blank.train_new_from_iterator(training_lines(), vocab_size=_VOCABULARY, show_progress=False)
    if special:
        tokenizer.add_special_tokens(special)
    if extra:
        tokenizer.add_tokens(list(extra), special_tokens=True)
    return tokenizer


def agree(config: Any, tokenizer: Any) -> None:
    """Make a config, and its text config, agree with a tokenizer: special ids, and a vocabulary large enough."""
    texts = {id(one): one for one in (config, config.get_text_config(), config.get_text_config(decoder=True))}
    for one in texts.values():
        if isinstance(getattr(one, "vocab_size", None), int):
            one.vocab_size = max(one.vocab_size, len(tokenizer))
        for name in _SPECIAL:
            if hasattr(one, f"{name}_token_id"):
                setattr(one, f"{name}_token_id", getattr(tokenizer, f"{name}_token_id", None))
        if getattr(one, "is_encoder_decoder", False):
            start = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.bos_token_id
            one.decoder_start_token_id = start
