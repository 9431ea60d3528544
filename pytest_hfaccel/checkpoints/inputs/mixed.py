"""Inputs of more than one kind: text with images, audio or video."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_hfaccel.backends.base import SampleInputs
from pytest_hfaccel.checkpoints.inputs.raw import CAPTIONS, QUESTION, SOUNDS, need, picture, sound, video
from pytest_hfaccel.checkpoints.inputs.text import NEW_TOKENS, encode, pad_further

if TYPE_CHECKING:
    from pytest_hfaccel.checkpoints.checkpoint import Checkpoint

_DEFAULT_FRAMES = 8


def image_text(checkpoint: Checkpoint) -> SampleInputs:
    """Two pictures and two captions."""
    tokenizer = need(checkpoint, "tokenizer")
    pixels = dict(need(checkpoint, "image_processor")(images=[picture(0), picture(1)], return_tensors="pt"))
    texts = encode(tokenizer, list(CAPTIONS))
    padded = pad_further(texts, tokenizer)
    return SampleInputs(
        forward={**texts, **pixels},
        padded={**padded, **pixels} if padded else None,
        pipeline=(picture(0),),
        pipeline_kwargs={"candidate_labels": ["cat", "dog", "circle"]},
    )


def audio_text(checkpoint: Checkpoint) -> SampleInputs:
    """Two sounds and two descriptions."""
    tokenizer, extractor = need(checkpoint, "tokenizer"), need(checkpoint, "feature_extractor")
    rate = extractor.sampling_rate
    features = dict(extractor([sound(rate, 0), sound(rate, 1)], sampling_rate=rate, return_tensors="pt"))
    texts = encode(tokenizer, list(SOUNDS))
    padded = pad_further(texts, tokenizer)
    return SampleInputs(
        forward={**texts, **features},
        padded={**padded, **features} if padded else None,
        pipeline=(sound(rate, 0),),
        pipeline_kwargs={"candidate_labels": ["dog", "rain", "bell"]},
    )


def video_text(checkpoint: Checkpoint) -> SampleInputs:
    """Two videos and two captions."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(checkpoint.directory, trust_remote_code=checkpoint.trust_remote_code)
    frames = getattr(config.vision_config, "num_frames", _DEFAULT_FRAMES)
    processor, tokenizer = need(checkpoint, "processor"), need(checkpoint, "tokenizer")
    pixels = dict(processor.image_processor([video(frames, 0), video(frames, 1)], return_tensors="pt"))
    texts = encode(tokenizer, list(CAPTIONS))
    padded = pad_further(texts, tokenizer)
    return SampleInputs(forward={**texts, **pixels}, padded={**padded, **pixels} if padded else None)


def chat_image(checkpoint: Checkpoint) -> SampleInputs:
    """Two pictures, each with a question about it."""
    processor, tokenizer = need(checkpoint, "processor"), need(checkpoint, "tokenizer")
    question = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": QUESTION}]}]
    prompt = processor.apply_chat_template(question, add_generation_prompt=True)
    forward = dict(processor(images=[picture(0), picture(1)], text=[prompt, prompt], return_tensors="pt"))
    asked = [
        {
            "role": "user",
            "content": [{"type": "image", "image": picture(0)}, {"type": "text", "text": QUESTION}],
        }
    ]
    return SampleInputs(
        forward=forward,
        generate=forward,
        padded=pad_further(forward, tokenizer),
        pipeline=(),
        pipeline_kwargs={
            "text": asked,
            "generate_kwargs": {"max_new_tokens": NEW_TOKENS, "do_sample": False},
        },
    )
