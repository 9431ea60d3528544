"""Tokenizers trained on the spot, the same in every process, and the config made to agree with them."""

from __future__ import annotations

import json
import math
import random
import string
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import transformers

from pytest_hfaccel.checkpoints.tables.sizes import NOT_TOKEN_IDS, TOKEN_ID, VOCABULARY

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


CHARACTERS = string.ascii_letters + string.digits + string.punctuation
"""What English text is spelled with."""


CTC_CHARACTERS = ("<pad>", "<s>", "</s>", "<unk>", "|", *"ETAONIHSRDLUMWCFGYPBVK'XJQZ")
"""The vocabulary of English CTC models, as in facebook/wav2vec2-base-960h: blank first, `|` between words."""

_LINES = 400
_WORDS_PER_LINE = 8
_TRAINED = 600
_SPECIAL = ("pad", "bos", "eos", "sep", "cls", "mask")


def train_tokenizer(class_name: str, extra: Sequence[str] = (), **special: str) -> Any:
    """Train a tokenizer of a transformers class on the corpus.

    Args:
        class_name: A class backed by the tokenizers library, e.g. `BertTokenizer`.
        extra: Further special tokens.
        special: Named special tokens, e.g. `pad_token="<pad>"`.
    """
    blank = getattr(transformers, class_name)()
    tokenizer = blank.train_new_from_iterator(_training_lines(), vocab_size=_TRAINED, show_progress=False)
    _fix_vocabulary(tokenizer, CORPUS)
    if special:
        tokenizer.add_special_tokens(special)
    if extra:
        tokenizer.add_tokens(list(extra), special_tokens=True)
    return tokenizer


def ctc_tokenizer() -> Any:
    """Make the character tokenizer of speech models that label every frame."""
    with tempfile.TemporaryDirectory() as directory:
        vocabulary = Path(directory) / "vocab.json"
        vocabulary.write_text(json.dumps({token: id_ for id_, token in enumerate(CTC_CHARACTERS)}), encoding="utf-8")
        return transformers.Wav2Vec2CTCTokenizer(str(vocabulary))


def match_config_to_tokenizer(config: Any, tokenizer: Any) -> None:
    """Make a config and its text configs agree with a tokenizer: special ids and the size of the vocabulary.

    A tiny vocabulary becomes the tokenizer's own, so that every id a model generates is visible text. A real one
    stays, as its size is part of the model's real dimensions.
    """
    for part in _text_configs(config):
        for name in _SPECIAL:
            if hasattr(part, f"{name}_token_id"):
                setattr(part, f"{name}_token_id", getattr(tokenizer, f"{name}_token_id", None))
        if getattr(part, "is_encoder_decoder", False):
            start = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.bos_token_id
            part.decoder_start_token_id = start
    least = max(len(tokenizer), 1 + max(map(_highest_id, _text_configs(config))))
    for part in _text_configs(config):
        if hasattr(part, "vocab_size"):
            # Speech encoders have none before they get a head for one.
            real = part.vocab_size or 0
            part.vocab_size = least if real <= VOCABULARY else max(real, least)


def _text_configs(config: Any) -> list[Any]:
    configs = (config, config.get_text_config(), config.get_text_config(decoder=True))
    return list({id(part): part for part in configs}.values())


def _highest_id(config: Any) -> int:
    """The highest id that a config's fields name, as far as it is one of a tiny vocabulary's."""
    named = [value for name, value in vars(config).items() if TOKEN_ID.fullmatch(name) and name not in NOT_TOKEN_IDS]
    flat = [item for value in named for item in (value if isinstance(value, list | tuple) else [value])]
    return max((item for item in flat if isinstance(item, int) and item < VOCABULARY), default=-1)


def _training_lines() -> list[str]:
    """The corpus's words in seeded random order: a tokenizer must learn words, not these ten sentences.

    A line of single characters makes sure that it can spell any other English word.
    """
    words = " ".join(CORPUS).split()
    shuffled = random.Random(0)  # noqa: S311
    lines = [" ".join(shuffled.choices(words, k=_WORDS_PER_LINE)) for _ in range(_LINES)]
    return [*lines, " ".join(CHARACTERS)]


_RARE = -12.0
"""Log probability of a single character in a Unigram vocabulary: any word that is known as a whole is likelier."""


def _fix_vocabulary(tokenizer: Any, lines: Iterable[str]) -> None:
    """Replace what a tokenizer has learned in place; its special tokens keep their ids.

    Args:
        tokenizer: A trained transformers tokenizer.
        lines: The text whose words the vocabulary is to hold.
    """
    backend = tokenizer.backend_tokenizer
    special = [str(token) for _, token in sorted(tokenizer.added_tokens_decoder.items())]
    words = _count_words(backend, lines)
    kind = type(backend.model).__name__
    if kind == "WordPiece":
        backend.model = _word_piece(backend, special, words)
    elif kind == "Unigram":
        backend.model = _unigram(backend, special, words, special.index(tokenizer.unk_token))
    elif kind == "BPE" and backend.model.end_of_word_suffix:
        backend.model = _bpe(backend.model, special, words)


def _count_words(backend: Any, lines: Iterable[str]) -> Counter[str]:
    words: Counter[str] = Counter()
    for line in lines:
        words.update(word for word, _ in backend.pre_tokenizer.pre_tokenize_str(_normal(backend, line)))
    return words


def _characters(backend: Any, words: Counter[str]) -> list[str]:
    """The characters of the words and of any English text: what is not a word is spelled."""
    return sorted(set(chain(_normal(backend, CHARACTERS), *words)))


def _normal(backend: Any, text: str) -> str:
    return str(backend.normalizer.normalize_str(text)) if backend.normalizer else text


def _word_piece(backend: Any, special: list[str], words: Counter[str]) -> Any:
    from tokenizers.models import WordPiece

    characters, prefix = _characters(backend, words), backend.model.continuing_subword_prefix
    tokens = [*special, *characters, *(prefix + character for character in characters), *sorted(words)]
    return WordPiece(
        _numbered(tokens),
        unk_token=backend.model.unk_token,
        continuing_subword_prefix=prefix,
        max_input_chars_per_word=backend.model.max_input_chars_per_word,
    )


def _unigram(backend: Any, special: list[str], words: Counter[str], unknown: int) -> Any:
    from tokenizers.models import Unigram

    scores = dict.fromkeys(special, 0.0)
    for word in sorted(words):
        scores.setdefault(word, math.log(words[word] / words.total()))
    for character in _characters(backend, words):
        scores.setdefault(character, _RARE)
    return Unigram(list(scores.items()), unknown)


def _bpe(model: Any, special: list[str], words: Counter[str]) -> Any:
    """Merge every word from left to right, the frequent ones first."""
    from tokenizers.models import BPE
    from tokenizers.pre_tokenizers import ByteLevel

    end, alphabet = model.end_of_word_suffix, sorted(ByteLevel.alphabet())
    merges: dict[tuple[str, str], None] = {}
    for word in sorted(words, key=lambda one: (-words[one], one)):
        left, *rest = [*word[:-1], word[-1] + end]
        for right in rest:
            merges[left, right] = None
            left += right
    tokens = [*special, *alphabet, *(letter + end for letter in alphabet), *(left + right for left, right in merges)]
    return BPE(_numbered(tokens), list(merges), unk_token=model.unk_token, end_of_word_suffix=end)


def _numbered(tokens: list[str]) -> dict[str, int]:
    return {token: number for number, token in enumerate(dict.fromkeys(tokens))}
