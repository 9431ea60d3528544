"""Text inputs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pytest_hfaccel.backends.base import SampleInputs
from pytest_hfaccel.checkpoints.inputs.raw import MASKED, MASKED_REACTIONS, REACTIONS, SENTENCES, need
from pytest_hfaccel.core.tasks import generates

if TYPE_CHECKING:
    import torch

    from pytest_hfaccel.checkpoints.checkpoint import Checkpoint

EXTRA_PADDING = 4
NEW_TOKENS = 8
_DECODER_TEXT = "Das Haus ist wonderful"
_PER_TOKEN = frozenset({"input_ids", "attention_mask", "token_type_ids", "mm_token_type_ids"})


def plain(checkpoint: Checkpoint) -> SampleInputs:
    """Sentences; with a mask for masked models."""
    tokenizer = need(checkpoint, "tokenizer")
    sentences = _sentences(checkpoint, tokenizer)
    forward = encode(tokenizer, sentences)
    return SampleInputs(
        forward=forward,
        generate=prompts(tokenizer, sentences) if generates(checkpoint.spec) else None,
        padded=pad_further(forward, tokenizer),
        pipeline=(sentences[0],),
        pipeline_kwargs=_pipeline_options(checkpoint),
    )


def seq2seq(checkpoint: Checkpoint) -> SampleInputs:
    """Sentences for the encoder, the beginning of an answer for the decoder."""
    import torch

    tokenizer = need(checkpoint, "tokenizer")
    encoder = encode(tokenizer, list(SENTENCES))
    answer = tokenizer(_DECODER_TEXT, return_tensors="pt")["input_ids"]
    decoder = torch.cat([answer, answer.flip(1)])
    forward = {**encoder, "decoder_input_ids": decoder}
    padded = pad_further(encoder, tokenizer)
    return SampleInputs(
        forward=forward,
        generate=encoder,
        padded={**padded, "decoder_input_ids": decoder} if padded else None,
    )


def encode(tokenizer: Any, sentences: list[str]) -> dict[str, torch.Tensor]:
    """Tokenize a batch, the shorter sentence padded on the right."""
    if tokenizer.pad_token_id is None:
        # Without a padding token, equal length is the way to a batch.
        ids = [tokenizer(sentence)["input_ids"] for sentence in sentences]
        shortest = min(map(len, ids))
        return dict(tokenizer.pad({"input_ids": [one[:shortest] for one in ids]}, padding=False, return_tensors="pt"))
    return dict(tokenizer(sentences, padding=True, padding_side="right", return_tensors="pt"))


def prompts(tokenizer: Any, sentences: list[str]) -> dict[str, torch.Tensor]:
    """Tokenize prompts of equal length: what a decoder continues must not end in padding."""
    ids = [tokenizer(sentence)["input_ids"] for sentence in sentences]
    shortest = min(map(len, ids))
    return equal_length([one[:shortest] for one in ids])


def equal_length(ids: list[list[int]]) -> dict[str, torch.Tensor]:
    """Return rows of one length as ids and mask."""
    import torch

    rows = torch.tensor(ids)
    return {"input_ids": rows, "attention_mask": torch.ones_like(rows)}


def pad_further(encoded: dict[str, torch.Tensor], tokenizer: Any) -> dict[str, torch.Tensor] | None:
    """Add masked padding on the right of a tokenized batch; `None` where the tokenizer gives no mask."""
    import torch

    if "attention_mask" not in encoded:
        return None
    padded = dict(encoded)
    for name in _PER_TOKEN & set(encoded):
        rows = encoded[name].shape[0]
        value = _filler(tokenizer) if name == "input_ids" else 0
        extra = torch.full((rows, EXTRA_PADDING), value, dtype=encoded[name].dtype)
        padded[name] = torch.cat([encoded[name], extra], dim=1)
    return padded


def _filler(tokenizer: Any) -> int:
    """The padding token; where a tokenizer has none, any token will do, because the mask hides it."""
    found = next((id_ for id_ in (tokenizer.pad_token_id, tokenizer.eos_token_id) if id_ is not None), 0)
    return int(found)


def _sentences(checkpoint: Checkpoint, tokenizer: Any) -> list[str]:
    """English; where the tokenizer does not know a word of it, and knows reactions in SMILES, those."""
    masked = checkpoint.spec.task == "fill-mask"
    kinds = (MASKED, MASKED_REACTIONS) if masked else (SENTENCES, REACTIONS)
    texts = [[text.format(mask=tokenizer.mask_token) for text in kind] for kind in kinds]
    return min(texts, key=lambda kind: _unknown(tokenizer, kind))  # the first of equal ones


def _unknown(tokenizer: Any, texts: list[str]) -> int:
    ids = [id_ for text in texts for id_ in tokenizer(text)["input_ids"]]
    return ids.count(tokenizer.unk_token_id) if tokenizer.unk_token_id not in (None, tokenizer.eos_token_id) else 0


def _pipeline_options(checkpoint: Checkpoint) -> dict[str, Any]:
    if checkpoint.spec.task == "text-generation":
        return {"max_new_tokens": NEW_TOKENS, "do_sample": False}
    return {}
