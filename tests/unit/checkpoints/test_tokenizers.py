"""Tokenizers made on the spot: the same in every process, and able to read English text."""

from __future__ import annotations

import pytest

from pytest_hfaccel.checkpoints.tokenizers import CORPUS, train_tokenizer

# transformers' tokenizers import torch.
pytestmark = pytest.mark.slow

KINDS = {
    "BertTokenizer": "WordPiece",
    "T5Tokenizer": "Unigram",
    "XLMRobertaTokenizer": "Unigram",
    "CLIPTokenizer": "BPE",
    "GPT2Tokenizer": "BPE",
    "LlamaTokenizer": "BPE",
}


@pytest.mark.parametrize("name", KINDS)
def test_training_twice_gives_the_same_tokenizer(name: str) -> None:
    first, second = (train_tokenizer(name).backend_tokenizer for _ in range(2))
    assert type(first.model).__name__ == KINDS[name]
    assert first.to_str() == second.to_str()


@pytest.mark.parametrize("name", KINDS)
def test_it_reads_what_it_has_not_seen(name: str) -> None:
    tokenizer = train_tokenizer(name)
    text = "Zebras (42) quickly jump!"
    decoded = tokenizer.decode(tokenizer(text)["input_ids"], skip_special_tokens=True)
    assert decoded.lower().replace(" ", "") == text.lower().replace(" ", "")


@pytest.mark.parametrize("name", KINDS)
def test_its_own_text_is_shorter_than_its_characters(name: str) -> None:
    assert len(train_tokenizer(name).tokenize(CORPUS[0])) < len(CORPUS[0]) / 2


def test_special_tokens_can_be_added() -> None:
    tokenizer = train_tokenizer("LlamaTokenizer", extra=("<image>",), pad_token="<pad>")  # noqa: S106
    ids = [tokenizer.convert_tokens_to_ids(token) for token in ("<image>", "<pad>")]
    assert tokenizer.pad_token_id == ids[1]
    assert len(set(ids) | {tokenizer.unk_token_id}) == 3
    assert ids[0] in tokenizer("what is in <image>?")["input_ids"]
