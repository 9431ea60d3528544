"""The sample inputs of a model: raw material through the checkpoint's own processors, one recipe per task."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from pytest_hfaccel.backends.base import SampleInputs
from pytest_hfaccel.checkpoints.inputs import audio, image, mixed, text
from pytest_hfaccel.tasks import task_of

if TYPE_CHECKING:
    from pytest_hfaccel.checkpoints.checkpoint import Checkpoint

_RECIPES = {
    "text": text.plain,
    "seq2seq": text.seq2seq,
    "image": image.plain,
    "image-points": image.with_points,
    "speech": audio.speech,
    "image-text": mixed.image_text,
    "audio-text": mixed.audio_text,
    "video-text": mixed.video_text,
    "chat-image": mixed.chat_image,
}


def make_sample(checkpoint: Checkpoint) -> SampleInputs:
    """Make the inputs of a checkpoint: two different samples, the same in every process.

    Raises:
        LoadError: The checkpoint lacks the tokenizer or processor that its task needs.
    """
    sample = _RECIPES[task_of(checkpoint.spec).recipe](checkpoint)
    accepted = _parameters(checkpoint.model_class())
    sample.forward = {name: value for name, value in sample.forward.items() if name in accepted}
    if sample.padded is not None:
        sample.padded = {name: value for name, value in sample.padded.items() if name in accepted}
        if "attention_mask" not in sample.padded:
            sample.padded = None
    return sample


def _parameters(model_class: Any) -> set[str]:
    return set(inspect.signature(model_class.forward).parameters)
