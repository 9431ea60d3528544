"""Text: token ids, masks, boxes, and the tokens that stand for pieces of something else."""

from __future__ import annotations

from pytest_hfaccel.checkpoints.inputs.generic.draft import BATCH, DECODER_TOKENS, TOKENS, Draft

_BEFORE = 2
"""How many tokens of text come before those that stand for an image."""

_BOX_SIDE = 50
_CHOICES = 2

_IMAGE_TYPES = frozenset({"gemma3", "gemma3n", "paligemma"})
"""Model types whose `token_type_ids` say which tokens are an image's."""


def fill(draft: Draft) -> None:
    """Add text."""
    if not draft.takes("input_ids"):
        return
    draft.inputs["input_ids"] = draft.ids(BATCH, TOKENS)
    if draft.takes("attention_mask"):
        draft.inputs["attention_mask"] = draft.ones(BATCH, TOKENS)
    if draft.takes("bbox"):
        boxes = draft.integers(0, _BOX_SIDE, BATCH, TOKENS, 4)
        # The second corner lies right of and below the first.
        boxes[..., 2:] += boxes[..., :2]
        draft.inputs["bbox"] = boxes


def fill_decoder(draft: Draft) -> None:
    """Add the beginning of an answer."""
    asked = getattr(draft.config, "is_encoder_decoder", False) or draft.demands("decoder_input_ids")
    if asked and draft.takes("decoder_input_ids"):
        ids = draft.ids(BATCH, DECODER_TOKENS, vocabulary=draft.vocabulary(decoder=True))
        draft.inputs["decoder_input_ids"] = ids


def fit_the_head(draft: Draft) -> None:
    """Bring text to the form that a head asks for."""
    if draft.architecture.endswith("ForMultipleChoice"):
        for name, value in draft.inputs.items():
            draft.inputs[name] = value.unsqueeze(1).repeat(1, _CHOICES, *[1] * (value.dim() - 1))
    if draft.architecture.endswith("ForSequenceClassification"):
        _end_sentences(draft)


def _end_sentences(draft: Draft) -> None:
    """Encoder-decoders classify at the last end-of-sentence token, and make the decoder's inputs themselves."""
    end = getattr(draft.config, "eos_token_id", None)
    end = end[0] if isinstance(end, list) else end
    if getattr(draft.config, "is_encoder_decoder", False) and isinstance(end, int) and "input_ids" in draft.inputs:
        draft.inputs["input_ids"][:, -1] = end
        draft.inputs.pop("decoder_input_ids", None)


def insert(draft: Draft, token: int | None, count: int) -> None:
    """Make a new text in which every row has `count` tokens that stand for pieces of an image, a sound or a video."""
    if token is None or "input_ids" not in draft.inputs:
        return
    ids = draft.ids(BATCH, TOKENS + count)
    ids[:, _BEFORE : _BEFORE + count] = token
    draft.inputs["input_ids"] = ids
    if draft.takes("attention_mask"):
        draft.inputs["attention_mask"] = draft.ones(*ids.shape)
    if draft.takes("mm_token_type_ids"):
        draft.inputs["mm_token_type_ids"] = (ids == token).long()
    if draft.takes("token_type_ids") and draft.model_type in _IMAGE_TYPES:
        draft.inputs["token_type_ids"] = (ids == token).long()
