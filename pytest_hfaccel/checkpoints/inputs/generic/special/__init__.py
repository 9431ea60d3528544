"""Inputs that no rule can know, by architecture class or model type, each with the reason."""

from __future__ import annotations

from pytest_hfaccel.checkpoints.inputs.generic.draft import Draft
from pytest_hfaccel.checkpoints.inputs.generic.special import documents, images, mixed, series, sounds
from pytest_hfaccel.checkpoints.inputs.generic.special.recipes import Change

SPECIAL: dict[str, Change] = {
    **images.SPECIAL,
    **mixed.SPECIAL,
    **sounds.SPECIAL,
    **series.SPECIAL,
    **documents.SPECIAL,
}


def change(draft: Draft) -> None:
    """Change a draft's inputs where its class, or else its model type, has something special."""
    special = SPECIAL.get(draft.architecture) or SPECIAL.get(draft.model_type)
    if special is not None:
        special(draft)
