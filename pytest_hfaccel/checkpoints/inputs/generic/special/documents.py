"""Special inputs of models of long texts and documents."""

from __future__ import annotations

from pytest_hfaccel.checkpoints.inputs.generic.draft import TOKENS, Draft
from pytest_hfaccel.checkpoints.inputs.generic.special.recipes import Change, ids, ones, only


def _separated(draft: Draft) -> None:
    """Longformer reads the question off the places of the separators: exactly three of them per row."""
    draft.inputs["input_ids"][..., [3, 5, 6]] = draft.config.sep_token_id


def _questions(draft: Draft) -> None:
    """Jev takes one prompt: where each question's answer is marked, its number of options, and its kind."""
    import torch

    draft.inputs = {
        "input_ids": draft.ids(1, TOKENS),
        "marks": torch.tensor([[3, 6]]),
        "num_options": torch.tensor([[2, 2]]),
        "question_type_ids": torch.tensor([[0, 0]]),
    }


SPECIAL: dict[str, Change] = {
    "JevForDecision": _questions,
    "LongformerForMultipleChoice": _separated,
    "LongformerForQuestionAnswering": _separated,
    # Landmarks are means of segments of a text of one length.
    "NystromformerForMultipleChoice": only(
        input_ids=ids(2, "segment_means_seq_len"), attention_mask=ones(2, "segment_means_seq_len")
    ),
    "nystromformer": only(input_ids=ids("segment_means_seq_len"), attention_mask=ones("segment_means_seq_len")),
}
