"""Special inputs of models of text, of time series and of decisions over time."""

from __future__ import annotations

import torch

from pytest_hfaccel.checkpoints.tables.draft import (
    BATCH,
    TOKENS,
    Change,
    Draft,
    ids,
    noise,
    ones,
    replace_inputs,
    where_taken,
)

_STEPS = 5


def _separated(draft: Draft) -> None:
    """Longformer reads the question off the places of the separators: exactly three of them per row."""
    draft.inputs["input_ids"][..., [3, 5, 6]] = draft.config.sep_token_id


def _questions(draft: Draft) -> None:
    """Jev takes one prompt: where each question's answer is marked, its number of options, and its kind."""
    draft.inputs = {
        "input_ids": draft.ids(1, TOKENS),
        "marks": torch.tensor([[3, 6]]),
        "num_options": torch.tensor([[2, 2]]),
        "question_type_ids": torch.tensor([[0, 0]]),
    }


def _forecast(draft: Draft) -> None:
    """A context as long as the longest lag reaches back, and the future, which training shows the decoder."""
    config = draft.config
    length = (config.context_length or config.prediction_length) + max(config.lags_sequence)
    channels = () if config.input_size == 1 else (config.input_size,)
    draft.inputs = {
        "past_values": draft.noise(BATCH, length, *channels),
        "past_time_features": draft.noise(BATCH, length, config.num_time_features),
        "past_observed_mask": torch.ones(BATCH, length, *channels),
        "future_values": draft.noise(BATCH, config.prediction_length, *channels),
        "future_time_features": draft.noise(BATCH, config.prediction_length, config.num_time_features),
    }


# A few steps of a game: what was seen, done and won.
_DECISIONS = replace_inputs(
    states=noise(_STEPS, "state_dim"),
    actions=noise(_STEPS, "act_dim"),
    rewards=noise(_STEPS, 1),
    returns_to_go=noise(_STEPS, 1),
    timesteps=lambda _: torch.arange(_STEPS).repeat(BATCH, 1),
    attention_mask=ones(_STEPS),
)

_SEGMENTS = "segment_means_seq_len"

SPECIAL_INPUTS: dict[str, Change] = {
    "JevForDecision": _questions,
    "LongformerForMultipleChoice": _separated,
    "LongformerForQuestionAnswering": _separated,
    # Landmarks are means of segments of a text of one length.
    "NystromformerForMultipleChoice": replace_inputs(input_ids=ids(2, _SEGMENTS), attention_mask=ones(2, _SEGMENTS)),
    "nystromformer": replace_inputs(input_ids=ids(_SEGMENTS), attention_mask=ones(_SEGMENTS)),
    "autoformer": _forecast,
    "informer": _forecast,
    "time_series_transformer": _forecast,
    "timesfm": replace_inputs(past_values=noise("context_length"), freq=lambda draft: draft.integers(0, 3, BATCH, 1)),
    "timesfm2_5": replace_inputs(past_values=noise("context_length")),
    "decision_transformer": where_taken("states", _DECISIONS),
}
