"""Inputs for any model: from the signature of its `forward`, its main input and its config.

A guess is tried by a forward pass. Where the model refuses it, the next layout is tried, or the inputs are corrected by
what the error says; what no rule can know is a line in `tables`.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from pytest_hfaccel.checkpoints.input_layouts import SOUND_LAYOUTS, fill, guess
from pytest_hfaccel.checkpoints.tables.draft import BATCH, Draft, first_integer

if TYPE_CHECKING:
    import torch

_REPAIRS = 6
_IN_SEVERAL_LAYOUTS = frozenset({"input_features", "input_values", "image_grid_thw"})
_MOST_TOKENS = 4096

# How transformers words that placeholders and features do not match, and Python that an argument is missing.
_COUNTS = re.compile(r"tokens?:? *(\d+)[^0-9]+features?:? *(\d+)", re.I)
_MISSING = re.compile(r"missing \d+ required positional arguments?: (.*)")


def generic_inputs(model: Any) -> dict[str, torch.Tensor]:
    """Return inputs with which a model's forward pass runs: a batch of two different samples.

    Raises:
        Exception: What the model said to the first layout, repaired as far as we could, where it refuses all of them.
    """
    first: Exception | None = None
    for layout in range(SOUND_LAYOUTS):
        draft = Draft(model, layout)
        error = _refusal(draft)
        if error is None:
            return draft.inputs
        first = first or error
        if not _IN_SEVERAL_LAYOUTS & set(draft.inputs):
            break
        if layout == 2 and not {"input_features", "input_values"} <= set(draft.inputs):
            break
    assert first is not None  # noqa: S101
    raise first


def _refusal(draft: Draft) -> Exception | None:
    """Fill a draft and repair it until the model takes it; return what the model said last where it does not."""
    import torch

    last: Exception | None = None
    try:
        fill(draft)
    except Exception as impossible:  # A special input that reads a field the config does not have.
        return impossible
    for _ in range(_REPAIRS):
        try:
            with torch.no_grad(), torch.random.fork_rng(devices=[]):
                draft.model(**draft.inputs)
        except Exception as error:  # Whatever a model raises.
            last = error
            if not _repair(draft, error):
                break
        else:
            return None
    return last


def _repair(draft: Draft, error: Exception) -> bool:
    """Change the inputs of a draft after a failed forward pass; return whether there was anything to change."""
    text = str(error)
    return _match_placeholders(draft, text) or _add_tiles(draft, text) or _add_missing(draft, text)


def _match_placeholders(draft: Draft, text: str) -> bool:
    counts = _COUNTS.search(text)
    kind = next((kind for kind in ("image", "audio", "video") if kind in text.lower()), "image")
    if counts is None or "input_ids" not in draft.inputs:
        return False
    placeholder = draft.placeholder(kind)
    if placeholder is None:
        return False
    per_row = _tokens_per_row(draft, placeholder, int(counts[1]), int(counts[2]))
    if not 0 < per_row <= _MOST_TOKENS:
        return False
    draft.insert_placeholders(placeholder, per_row)
    return True


def _tokens_per_row(draft: Draft, placeholder: int, tokens: int, features: int) -> int:
    """Return how many tokens a row needs; a model may count numbers rather than the vectors they form."""
    now = int((draft.inputs["input_ids"] == placeholder).sum())
    if now == 0 or tokens == 0:
        return 1 if now == 0 else 0
    if tokens == features:
        width = first_integer([draft.config.get_text_config(decoder=True)], "hidden_size", "d_model")
        return features // width // BATCH if width else 0
    wanted = features // max(1, tokens // now) // BATCH
    if wanted > _MOST_TOKENS:
        wanted //= first_integer([draft.config.get_text_config(decoder=True)], "hidden_size", "d_model") or 1
    return 0 if wanted == now // BATCH else wanted


def _add_tiles(draft: Draft, text: str) -> bool:
    """Give each image one tile, where a model takes images cut into tiles."""
    pixels = draft.inputs.get("pixel_values")
    if pixels is None or pixels.dim() != 4 or not ("expected 5, got 4" in text or "must be a 5D tensor" in text):
        return False
    tiles = 2 if "2, num_channels" in text else 1
    draft.inputs["pixel_values"] = pixels.unsqueeze(1).repeat(1, tiles, 1, 1, 1)
    draft.inputs.pop("pixel_attention_mask", None)
    return True


def _add_missing(draft: Draft, text: str) -> bool:
    named = _MISSING.search(text)
    guesses = {name: guess(draft, name) for name in re.findall(r"'(\w+)'", named[1])} if named else {}
    known = {name: value for name, value in guesses.items() if value is not None}
    draft.inputs.update(known)
    return bool(known)
