"""What each pipeline must give, computed without it: one small function per task.

Each function takes the context, the positional arguments of the pipeline call and its keyword arguments, and returns
the expected result. Post-processing is written out from the documentation of the pipeline, not taken from its code.
"""

from __future__ import annotations

from pytest_hfaccel.checks.direct import audio, generating, image, text
from pytest_hfaccel.checks.direct.base import Direct

DIRECT: dict[str, Direct] = {
    "fill-mask": Direct(text.fill_mask),
    "feature-extraction": Direct(text.feature_extraction),
    "text-classification": Direct(text.text_classification),
    "token-classification": Direct(text.token_classification),
    "text-generation": Direct(generating.text_generation, generating.FORCED),
    "image-text-to-text": Direct(generating.image_text_to_text, generating.FORCED_NESTED, generating.last_answer),
    "image-classification": Direct(image.image_classification),
    "image-feature-extraction": Direct(image.image_feature_extraction),
    "zero-shot-image-classification": Direct(image.zero_shot_image_classification),
    "object-detection": Direct(image.object_detection),
    "automatic-speech-recognition": Direct(audio.speech_recognition, generating.FORCED_NESTED, audio.stripped_text),
    "audio-classification": Direct(audio.audio_classification),
    "zero-shot-audio-classification": Direct(audio.zero_shot_audio_classification),
}
"""By pipeline task; every task of `pytest_hfaccel.core.tasks` that has a pipeline is here."""

__all__ = ["DIRECT", "Direct"]
