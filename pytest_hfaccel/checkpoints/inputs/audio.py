"""Audio inputs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_hfaccel.backends.base import SampleInputs
from pytest_hfaccel.checkpoints.inputs.raw import need, sound
from pytest_hfaccel.checkpoints.inputs.text import NEW_TOKENS
from pytest_hfaccel.core.tasks import generates

if TYPE_CHECKING:
    from pytest_hfaccel.checkpoints.checkpoint import Checkpoint

_DECODER_TEXT = " a man is playing"


def speech(checkpoint: Checkpoint) -> SampleInputs:
    """Two sounds of one second; for sequence-to-sequence models also the beginning of a transcript."""
    extractor = need(checkpoint, "feature_extractor")
    rate = extractor.sampling_rate
    waves = [sound(rate, 0), sound(rate, 1)]
    features = dict(extractor(waves, sampling_rate=rate, return_tensors="pt", padding=_padding(extractor)))
    if not generates(checkpoint.spec):
        return SampleInputs(forward=features, pipeline=(sound(rate, 0),))
    features = {name: value for name, value in features.items() if name == "input_features"}
    return SampleInputs(
        forward={**features, "decoder_input_ids": _decoder_ids(checkpoint)},
        generate=features,
        pipeline=(sound(rate, 0),),
        pipeline_kwargs={"generate_kwargs": {"max_new_tokens": NEW_TOKENS, "do_sample": False}},
    )


def _padding(extractor: object) -> str | bool:
    """Whisper's encoder takes spectrograms of one length only."""
    return "max_length" if hasattr(extractor, "chunk_length") else True


def _decoder_ids(checkpoint: Checkpoint):  # type: ignore[no-untyped-def]  # torch.Tensor, imported late
    import torch

    tokenizer = need(checkpoint, "tokenizer")
    ids = tokenizer(_DECODER_TEXT, return_tensors="pt")["input_ids"]
    return torch.cat([ids, ids.roll(1, dims=1)])
