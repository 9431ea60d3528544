"""Special inputs of models of time series and of decisions over time."""

from __future__ import annotations

from pytest_hfaccel.checkpoints.inputs.generic.draft import BATCH, Draft
from pytest_hfaccel.checkpoints.inputs.generic.special.recipes import Change, noise, only

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
    only(
        states=noise(_STEPS, "state_dim"),
        actions=noise(_STEPS, "act_dim"),
        rewards=noise(_STEPS, 1),
        returns_to_go=noise(_STEPS, 1),
        timesteps=lambda _: torch.arange(_STEPS).repeat(BATCH, 1),
        attention_mask=lambda draft: draft.ones(BATCH, _STEPS),
    )(draft)


SPECIAL: dict[str, Change] = {
    "autoformer": _forecast,
    "informer": _forecast,
    "time_series_transformer": _forecast,
    "timesfm": only(past_values=noise("context_length"), freq=lambda draft: draft.integers(0, 3, BATCH, 1)),
    "timesfm2_5": only(past_values=noise("context_length")),
    "decision_transformer": _decisions,
}
