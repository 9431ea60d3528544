"""Corrects inputs by what a model says about them: how many tokens an image takes only its code knows."""

from __future__ import annotations

import re

from pytest_hfaccel.checkpoints.inputs.generic.draft import BATCH, Draft
from pytest_hfaccel.checkpoints.inputs.generic.facts import number, token
from pytest_hfaccel.checkpoints.inputs.generic.required import guess
from pytest_hfaccel.checkpoints.inputs.generic.words import insert

_COUNTS = re.compile(r"tokens?:? *(\d+)[^0-9]+features?:? *(\d+)", re.I)
_MISSING = re.compile(r"missing \d+ required positional arguments?: (.*)")
_KINDS = ("image", "audio", "video")
_MOST_TOKENS = 4096


def repair(draft: Draft, error: Exception) -> bool:
    """Change the inputs of a draft after a failed forward pass; return whether there was anything to change."""
    text = str(error)
    return _tokens(draft, text) or _tiles(draft, text) or _missing(draft, text)


def _tokens(draft: Draft, text: str) -> bool:
    counts = _COUNTS.search(text)
    kind = next((kind for kind in _KINDS if kind in text.lower()), "image")
    if counts is None or "input_ids" not in draft.inputs:
        return False
    found = token(draft.config, kind)
    if found is None:
        return False
    per_row = _tokens_per_row(draft, found, int(counts[1]), int(counts[2]))
    if not 0 < per_row <= _MOST_TOKENS:
        return False
    insert(draft, found, per_row)
    return True


def _tokens_per_row(draft: Draft, found: int, tokens: int, features: int) -> int:
    """Return how many tokens a row needs; a model may count numbers rather than the vectors they form."""
    now = int((draft.inputs["input_ids"] == found).sum())
    if now == 0 or tokens == 0:
        return 1 if now == 0 else 0
    if tokens == features:
        width = number([draft.config.get_text_config(decoder=True)], "hidden_size", "d_model")
        return features // width // BATCH if width else 0
    wanted = features // max(1, tokens // now) // BATCH
    if wanted > _MOST_TOKENS:
        wanted //= number([draft.config.get_text_config(decoder=True)], "hidden_size", "d_model") or 1
    return 0 if wanted == now // BATCH else wanted


def _tiles(draft: Draft, text: str) -> bool:
    """Give each image one tile, where a model takes images cut into tiles."""
    pixels = draft.inputs.get("pixel_values")
    if pixels is None or pixels.dim() != 4 or not ("expected 5, got 4" in text or "must be a 5D tensor" in text):
        return False
    tiles = 2 if "2, num_channels" in text else 1
    draft.inputs["pixel_values"] = pixels.unsqueeze(1).repeat(1, tiles, 1, 1, 1)
    draft.inputs.pop("pixel_attention_mask", None)
    return True


def _missing(draft: Draft, text: str) -> bool:
    named = _MISSING.search(text)
    found = {name: guess(draft, name) for name in re.findall(r"'(\w+)'", named[1])} if named else {}
    known = {name: value for name, value in found.items() if value is not None}
    draft.inputs.update(known)
    return bool(known)
