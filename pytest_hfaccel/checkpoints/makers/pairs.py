"""Processors of models that compare text with images, video or sound."""

from __future__ import annotations

from typing import Any

from pytest_hfaccel.checkpoints.makers.images import cropping
from pytest_hfaccel.checkpoints.makers.texts import agree, train_tokenizer


def clip(config: Any) -> list[Any]:
    """Make CLIP's processor: text and images."""
    import transformers

    tokenizer = train_tokenizer("CLIPTokenizer")
    agree(config, tokenizer)
    pictures = cropping("CLIPImageProcessor", config.vision_config.image_size)
    return [transformers.CLIPProcessor(image_processor=pictures, tokenizer=tokenizer)]


def xclip(config: Any) -> list[Any]:
    """Make X-CLIP's processor: text and video."""
    import transformers

    tokenizer = train_tokenizer("CLIPTokenizer")
    agree(config, tokenizer)
    frames = cropping("VideoMAEImageProcessor", config.vision_config.image_size)
    return [transformers.XCLIPProcessor(image_processor=frames, tokenizer=tokenizer)]


def clap(config: Any) -> list[Any]:
    """Make CLAP's processor: text and one second of sound.

    The real one takes ten seconds; the spectrogram is stretched to the model's size in either case.
    """
    import transformers

    tokenizer = train_tokenizer("RobertaTokenizer")
    agree(config, tokenizer)
    features = transformers.ClapFeatureExtractor(
        feature_size=config.audio_config.num_mel_bins,
        max_length_s=1,
        truncation="rand_trunc",
        padding="repeatpad",
    )
    return [transformers.ClapProcessor(feature_extractor=features, tokenizer=tokenizer)]
