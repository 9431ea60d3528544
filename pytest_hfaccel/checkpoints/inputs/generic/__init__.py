"""Inputs for any model: from the signature of its `forward`, its main input and its config.

A guess is tried by a forward pass. Where the model refuses it, the next layout is tried, or what the model said about
the inputs is heeded; what no rule can know is a line in `special`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pytest_hfaccel.checkpoints.inputs.generic import pictures, required, sound, special, words
from pytest_hfaccel.checkpoints.inputs.generic.draft import Draft
from pytest_hfaccel.checkpoints.inputs.generic.repair import repair

if TYPE_CHECKING:
    import torch

_REPAIRS = 6
_LAID_OUT = frozenset({"input_features", "input_values", "image_grid_thw"})
"""Inputs that come in several layouts."""


def generic_inputs(model: Any) -> dict[str, torch.Tensor]:
    """Return inputs with which a model's forward pass runs: a batch of two different samples.

    Raises:
        Exception: What the model said to the first layout, repaired as far as we could, where it refuses all of them.
    """
    first: Exception | None = None
    for layout in range(sound.LAYOUTS):
        draft = Draft(model, layout)
        error = _accepted(draft)
        if error is None:
            return draft.inputs
        first = first or error
        if not _LAID_OUT & set(draft.inputs):
            break
        if layout == 2 and not {"input_features", "input_values"} <= set(draft.inputs):
            break
    assert first is not None  # noqa: S101
    raise first


def _accepted(draft: Draft) -> Exception | None:
    """Fill a draft and repair it until the model takes it; return what the model said last where it does not."""
    import torch

    last: Exception | None = None
    try:
        _fill(draft)
    except Exception as impossible:  # A special input that reads a field the config does not have.
        return impossible
    for _ in range(_REPAIRS):
        try:
            with torch.no_grad(), torch.random.fork_rng(devices=[]):
                draft.model(**draft.inputs)
        except Exception as refusal:  # Whatever a model raises.
            last = refusal
            if not repair(draft, refusal):
                break
        else:
            return None
    return last


def _fill(draft: Draft) -> None:
    words.fill(draft)
    pictures.fill(draft)
    sound.fill(draft)
    pictures.fill_vision_part(draft)
    pictures.fill_sizes(draft)
    required.fill(draft)
    words.fill_decoder(draft)
    words.fit_the_head(draft)
    special.change(draft)
