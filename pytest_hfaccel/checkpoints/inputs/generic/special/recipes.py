"""The words in which special inputs are written: what a named input is made of."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from pytest_hfaccel.checkpoints.inputs.generic.draft import BATCH, Dim, Draft

if TYPE_CHECKING:
    import torch

Change = Callable[[Draft], None]
Maker = Callable[[Draft], "torch.Tensor"]


def given(**makers: Maker) -> Change:
    """Set the inputs named, as far as the model takes them."""

    def change(draft: Draft) -> None:
        made = {name: make(draft) for name, make in makers.items() if draft.takes(name)}
        draft.inputs.update(made)

    return change


def only(**makers: Maker) -> Change:
    """Set the inputs named, as far as the model takes them, and drop all others."""

    def change(draft: Draft) -> None:
        draft.inputs.clear()
        given(**makers)(draft)

    return change


def without(*names: str) -> Change:
    """Drop the inputs named."""

    def change(draft: Draft) -> None:
        for name in names:
            draft.inputs.pop(name, None)

    return change


def both(*changes: Change) -> Change:
    """Make several changes, one after the other."""

    def change(draft: Draft) -> None:
        for one in changes:
            one(draft)

    return change


def single() -> Change:
    """Keep the first sample only, for models that cannot take two at once."""

    def change(draft: Draft) -> None:
        draft.inputs = {name: value[:1] for name, value in draft.inputs.items()}

    return change


def where_taken(name: str, change: Change) -> Change:
    """Make a change only where the model takes the input named: a part of the model may not."""
    return lambda draft: change(draft) if draft.takes(name) else None


def noise(*dims: Dim) -> Maker:
    """Normally distributed numbers; the batch comes first."""
    return lambda draft: draft.noise(BATCH, *dims)


def uniform(*dims: Dim) -> Maker:
    """Numbers between 0 and 1; the batch comes first."""
    return lambda draft: draft.uniform(BATCH, *dims)


def ids(*dims: Dim, vocabulary: Dim | None = None) -> Maker:
    """Ordinary token ids; the batch comes first."""
    return lambda draft: draft.ids(BATCH, *dims, vocabulary=None if vocabulary is None else draft.size(vocabulary))


def ones(*dims: Dim) -> Maker:
    """A mask that hides nothing; the batch comes first."""
    return lambda draft: draft.ones(BATCH, *dims)


def pixels(*before: Dim) -> Maker:
    """Images, with further dimensions between the batch and the colours."""
    return lambda draft: draft.noise(BATCH, *before, draft.channels(), *draft.sides())


def rows(*values: object) -> Maker:
    """The same values for each sample."""

    def make(draft: Draft) -> torch.Tensor:
        import torch

        del draft
        return torch.tensor([list(values)] * BATCH)

    return make
