"""Tokenizers trained on the spot, and the config made to agree with them."""

from __future__ import annotations

import json
import random
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pytest_hfaccel.checkpoints.makers.corpus import CHARACTERS, CORPUS, CTC_CHARACTERS
from pytest_hfaccel.checkpoints.makers.vocabulary import settle
from pytest_hfaccel.checkpoints.rules import NOT_TOKEN_IDS, TOKEN_ID, VOCABULARY

_LINES = 400
_WORDS_PER_LINE = 8
_TRAINED = 600
_SPECIAL = ("pad", "bos", "eos", "sep", "cls", "mask")


def text(config: Any, tokenizer_class: str, **special: str) -> list[Any]:
    """Make a tokenizer of a class, with further named special tokens such as `pad_token`."""
    tokenizer = train_tokenizer(tokenizer_class, **special)
    agree(config, tokenizer)
    return [tokenizer]


def train_tokenizer(class_name: str, extra: Sequence[str] = (), **special: str) -> Any:
    """Train a tokenizer of a transformers class on the corpus.

    Args:
        class_name: A class backed by the tokenizers library, e.g. `BertTokenizer`.
        extra: Further special tokens.
        special: Named special tokens, e.g. `pad_token="<pad>"`.
    """
    import transformers

    blank = getattr(transformers, class_name)()
    tokenizer = blank.train_new_from_iterator(_lines(), vocab_size=_TRAINED, show_progress=False)
    settle(tokenizer, CORPUS)
    if special:
        tokenizer.add_special_tokens(special)
    if extra:
        tokenizer.add_tokens(list(extra), special_tokens=True)
    return tokenizer


def ctc_tokenizer() -> Any:
    """Make the character tokenizer of speech models that label every frame."""
    import transformers

    with tempfile.TemporaryDirectory() as directory:
        vocabulary = Path(directory) / "vocab.json"
        vocabulary.write_text(json.dumps({token: id_ for id_, token in enumerate(CTC_CHARACTERS)}), encoding="utf-8")
        return transformers.Wav2Vec2CTCTokenizer(str(vocabulary))


def agree(config: Any, tokenizer: Any) -> None:
    """Make a config, and its text configs, agree with a tokenizer: special ids and the size of the vocabulary.

    A tiny vocabulary becomes the tokenizer's own, so that every id a model generates is visible text. A real one
    stays, as its size is part of the model's real dimensions.
    """
    for part in _texts(config):
        for name in _SPECIAL:
            if hasattr(part, f"{name}_token_id"):
                setattr(part, f"{name}_token_id", getattr(tokenizer, f"{name}_token_id", None))
        if getattr(part, "is_encoder_decoder", False):
            start = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.bos_token_id
            part.decoder_start_token_id = start
    least = max(len(tokenizer), 1 + max(map(_highest_id, _texts(config))))
    for part in _texts(config):
        if hasattr(part, "vocab_size"):
            # Speech encoders have none before they get a head for one.
            real = part.vocab_size or 0
            part.vocab_size = least if real <= VOCABULARY else max(real, least)


def _texts(config: Any) -> list[Any]:
    found = (config, config.get_text_config(), config.get_text_config(decoder=True))
    return list({id(part): part for part in found}.values())


def _highest_id(config: Any) -> int:
    """The highest id that a config's fields name, as far as it is one of a tiny vocabulary's."""
    named = [value for name, value in vars(config).items() if TOKEN_ID.fullmatch(name) and name not in NOT_TOKEN_IDS]
    flat = [item for value in named for item in (value if isinstance(value, list | tuple) else [value])]
    return max((item for item in flat if isinstance(item, int) and item < VOCABULARY), default=-1)


def _lines() -> list[str]:
    """The corpus's words in seeded random order: a tokenizer must learn words, not these ten sentences.

    A line of single characters makes sure that it can spell any other English word.
    """
    words = " ".join(CORPUS).split()
    shuffled = random.Random(0)  # noqa: S311
    lines = [" ".join(shuffled.choices(words, k=_WORDS_PER_LINE)) for _ in range(_LINES)]
    return [*lines, " ".join(CHARACTERS)]
