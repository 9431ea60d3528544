"""The sample inputs of a model: raw material through the checkpoint's own processors, one recipe per task."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pytest_hfaccel.backends.base import SampleInputs
from pytest_hfaccel.checkpoints.inputs import audio, image, mixed, text, tried
from pytest_hfaccel.core.tasks import GENERIC, task_of

if TYPE_CHECKING:
    import torch

    from pytest_hfaccel.checkpoints.checkpoint import Checkpoint

RECIPES = {
    "text": text.plain,
    "seq2seq": text.seq2seq,
    "image": image.plain,
    "image-points": image.with_points,
    "speech": audio.speech,
    "image-text": mixed.image_text,
    "audio-text": mixed.audio_text,
    "video-text": mixed.video_text,
    "chat-image": mixed.chat_image,
    GENERIC: tried.from_signature,
}


def make_sample(checkpoint: Checkpoint) -> SampleInputs:
    """Make the inputs of a checkpoint: two different samples, the same in every process.

    Raises:
        LoadError: The checkpoint lacks the tokenizer or processor that its task needs.
    """
    kept = tried.kept_inputs(checkpoint)
    if kept:
        return SampleInputs(kept)
    task = task_of(checkpoint.spec)
    sample = RECIPES[task.recipe](checkpoint)
    accepted = _parameters(checkpoint.model_class())
    sample.forward = _only(sample.forward, accepted)
    sample.generate = _only(sample.generate, accepted) if sample.generate is not None else None
    if not task.pads or "attention_mask" not in accepted:
        sample.padded = None
    if sample.padded is not None:
        sample.padded = _only(sample.padded, accepted)
    return sample


def _only(inputs: Mapping[str, torch.Tensor], accepted: set[str]) -> dict[str, torch.Tensor]:
    """Leave out what a processor gives and the model does not take, e.g. the original sizes of images."""
    return {name: value for name, value in inputs.items() if name in accepted}


def _parameters(model_class: Any) -> set[str]:
    return set(inspect.signature(model_class.forward).parameters)
