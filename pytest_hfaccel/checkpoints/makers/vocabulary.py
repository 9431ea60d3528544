"""Vocabularies that are the same in every process.

The trainers of the tokenizers library break ties by the order of a hash map with a random seed: two processes learn
different WordPiece and Unigram vocabularies from the same text, and the same model would get different inputs. So a
trained tokenizer keeps its special tokens and its way of splitting text, and gets words and characters from here.
Byte-level BPE is settled as it is: its alphabet is sorted, and ties are broken by it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from itertools import chain
from typing import Any

from pytest_hfaccel.checkpoints.makers.corpus import CHARACTERS

_RARE = -12.0
"""Log probability of a single character in a Unigram vocabulary: any word that is known as a whole is likelier."""


def settle(tokenizer: Any, lines: Iterable[str]) -> None:
    """Replace what a tokenizer has learned in place; its special tokens keep their ids.

    Args:
        tokenizer: A trained transformers tokenizer.
        lines: The text whose words the vocabulary is to hold.
    """
    backend = tokenizer.backend_tokenizer
    special = [str(token) for _, token in sorted(tokenizer.added_tokens_decoder.items())]
    words = _words(backend, lines)
    kind = type(backend.model).__name__
    if kind == "WordPiece":
        backend.model = _word_piece(backend, special, words)
    elif kind == "Unigram":
        backend.model = _unigram(backend, special, words, special.index(tokenizer.unk_token))
    elif kind == "BPE" and backend.model.end_of_word_suffix:
        backend.model = _bpe(backend.model, special, words)


def _words(backend: Any, lines: Iterable[str]) -> Counter[str]:
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
