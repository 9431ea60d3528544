"""Special sizes and inputs of models of time series and decisions over time."""

from __future__ import annotations

from typing import Any

from pytest_hfaccel.checkpoints.tables.draft import BATCH, Change, Draft, noise, replace_inputs

_SERIES = {"prediction_length": 4, "context_length": 8, "lags_sequence": [1, 2, 3], "num_time_features": 1}


OVERRIDES: dict[str, dict[str, Any]] = {
    # Series have no default length. Lags reach back so far.
    "autoformer": {**_SERIES, "label_length": 4},
    "informer": _SERIES,
    "time_series_transformer": _SERIES,
}

_STEPS = 5


def _forecast(draft: Draft) -> None:
    """A context as long as the longest lag reaches back, and the future, which training shows the decoder."""
    import torch

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


def _decisions(draft: Draft) -> None:
    """A few steps of a game: what was seen, done and won."""
    import torch

    if not draft.takes("states"):
        return
    replace_inputs(
        states=noise(_STEPS, "state_dim"),
        actions=noise(_STEPS, "act_dim"),
        rewards=noise(_STEPS, 1),
        returns_to_go=noise(_STEPS, 1),
        timesteps=lambda _: torch.arange(_STEPS).repeat(BATCH, 1),
        attention_mask=lambda draft: draft.ones(BATCH, _STEPS),
    )(draft)


SPECIAL_INPUTS: dict[str, Change] = {
    "autoformer": _forecast,
    "informer": _forecast,
    "time_series_transformer": _forecast,
    "timesfm": replace_inputs(past_values=noise("context_length"), freq=lambda draft: draft.integers(0, 3, BATCH, 1)),
    "timesfm2_5": replace_inputs(past_values=noise("context_length")),
    "decision_transformer": _decisions,
}
