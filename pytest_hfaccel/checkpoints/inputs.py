"""The sample inputs of a model: raw material through the checkpoint's own processors, one recipe per kind of task.

Sentences, pictures, sounds and videos are the same in every process, and any two samples differ.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from transformers import AutoConfig

from pytest_hfaccel.backends.base import SampleInputs
from pytest_hfaccel.checkpoints.build import Tensors, load_smoke_forward
from pytest_hfaccel.checkpoints.generic_inputs import generic_inputs
from pytest_hfaccel.checkpoints.pretrained.digits import held_out_digits
from pytest_hfaccel.core.errors import LoadError
from pytest_hfaccel.core.spec import Weights
from pytest_hfaccel.core.tasks import GENERIC, generates, task_of

if TYPE_CHECKING:
    from PIL import Image

    from pytest_hfaccel.checkpoints.checkpoint import Checkpoint

_SENTENCES = ("Paris is the capital of France.", "The quick brown fox jumps over the lazy dog.")
_MASKED = ("Paris is the {mask} of France.", "The quick brown {mask} jumps over the lazy dog.")
_REACTIONS = ("CC(=O)O.OCC>>CC(=O)OCC", "Brc1ccccc1.OB(O)c1ccccc1>>c1ccc(-c2ccccc2)cc1")
_MASKED_REACTIONS = ("CC(=O)O.OCC>>CC(=O){mask}CC", "Br{mask}1ccccc1.OB(O)c1ccccc1>>c1ccc(-c2ccccc2)cc1")
"""Reactions in SMILES: an esterification and a Suzuki coupling."""
_CAPTIONS = ("a photo of a cat", "a photo of a red circle on a white background")
_SOUNDS = ("the sound of a dog barking", "the sound of rain falling")
_QUESTION = "What is in the image?"
_IMAGE_SIZE = (96, 80)

_EXTRA_PADDING = 4
_GREEDILY = {"max_new_tokens": 8, "do_sample": False}
_GERMAN_ANSWER = "Das Haus ist wonderful"
_PER_TOKEN = frozenset({"input_ids", "attention_mask", "token_type_ids", "mm_token_type_ids"})
_TRANSCRIPT = " a man is playing"
_DEFAULT_FRAMES = 8


def make_sample(checkpoint: Checkpoint) -> SampleInputs:
    """Make the inputs of a checkpoint: two different samples, the same in every process.

    Raises:
        LoadError: The checkpoint lacks the tokenizer or processor that its task needs.
    """
    record = load_smoke_forward(checkpoint.directory)
    if record and record.inputs:
        return SampleInputs(record.inputs)
    task = task_of(checkpoint.spec)
    sample = RECIPES[task.recipe](checkpoint)
    accepted = set(inspect.signature(checkpoint.model_class().forward).parameters)

    def accepted_of(inputs: Tensors) -> dict[str, torch.Tensor]:
        # What a processor gives and the model does not take is left out, e.g. the original sizes of images.
        return {name: value for name, value in inputs.items() if name in accepted}

    sample.forward = accepted_of(sample.forward)
    sample.generate = accepted_of(sample.generate) if sample.generate is not None else None
    padded = sample.padded if task.pads and "attention_mask" in accepted else None
    sample.padded = accepted_of(padded) if padded is not None else None
    return sample


def _text(checkpoint: Checkpoint) -> SampleInputs:
    """Sentences; with a mask for masked models."""
    tokenizer = _need(checkpoint, "tokenizer")
    sentences = _sentences(checkpoint, tokenizer)
    forward = _encode(tokenizer, sentences)
    return SampleInputs(
        forward=forward,
        generate=_prompts(tokenizer, sentences) if generates(checkpoint.spec) else None,
        padded=_pad_further(forward, tokenizer),
        pipeline=(sentences[0],),
        pipeline_kwargs=dict(_GREEDILY) if checkpoint.spec.task == "text-generation" else {},
    )


def _seq2seq(checkpoint: Checkpoint) -> SampleInputs:
    """Sentences for the encoder, the beginning of an answer for the decoder."""
    tokenizer = _need(checkpoint, "tokenizer")
    answer = tokenizer(_GERMAN_ANSWER, return_tensors="pt")["input_ids"]
    sample = _texts_beside(tokenizer, _SENTENCES, {"decoder_input_ids": torch.cat([answer, answer.flip(1)])})
    sample.generate = {name: value for name, value in sample.forward.items() if name != "decoder_input_ids"}
    return sample


def _texts_beside(
    tokenizer: Any,
    texts: Sequence[str],
    others: Tensors,
    pipeline: tuple[Any, ...] | None = None,
    **pipeline_kwargs: Any,
) -> SampleInputs:
    """Two texts, each with a picture, a sound, a video or a beginning of an answer."""
    encoded = _encode(tokenizer, texts)
    padded = _pad_further(encoded, tokenizer)
    return SampleInputs(
        forward={**encoded, **others},
        padded={**padded, **others} if padded else None,
        pipeline=pipeline,
        pipeline_kwargs=pipeline_kwargs,
    )


def _encode(tokenizer: Any, sentences: Sequence[str]) -> dict[str, torch.Tensor]:
    """Tokenize a batch, the shorter sentence padded on the right."""
    if tokenizer.pad_token_id is None:
        # Without a padding token, equal length is the way to a batch.
        ids = [tokenizer(sentence)["input_ids"] for sentence in sentences]
        shortest = min(map(len, ids))
        return dict(tokenizer.pad({"input_ids": [one[:shortest] for one in ids]}, padding=False, return_tensors="pt"))
    return dict(tokenizer(list(sentences), padding=True, padding_side="right", return_tensors="pt"))


def _prompts(tokenizer: Any, sentences: list[str]) -> dict[str, torch.Tensor]:
    """Tokenize prompts of equal length: what a decoder continues must not end in padding."""
    ids = [tokenizer(sentence)["input_ids"] for sentence in sentences]
    shortest = min(map(len, ids))
    rows = torch.tensor([one[:shortest] for one in ids])
    return {"input_ids": rows, "attention_mask": torch.ones_like(rows)}


def _pad_further(encoded: dict[str, torch.Tensor], tokenizer: Any) -> dict[str, torch.Tensor] | None:
    """Add masked padding on the right of a tokenized batch; `None` where the tokenizer gives no mask."""
    if "attention_mask" not in encoded:
        return None
    padded = dict(encoded)
    for name in _PER_TOKEN & set(encoded):
        rows = encoded[name].shape[0]
        value = _filler(tokenizer) if name == "input_ids" else 0
        extra = torch.full((rows, _EXTRA_PADDING), value, dtype=encoded[name].dtype)
        padded[name] = torch.cat([encoded[name], extra], dim=1)
    return padded


def _filler(tokenizer: Any) -> int:
    """The padding token; where a tokenizer has none, any token will do, because the mask hides it."""
    return next((int(token) for token in (tokenizer.pad_token_id, tokenizer.eos_token_id) if token is not None), 0)


def _sentences(checkpoint: Checkpoint, tokenizer: Any) -> list[str]:
    """English; where the tokenizer does not know a word of it, and knows reactions in SMILES, those."""
    masked = checkpoint.spec.task == "fill-mask"
    kinds = (_MASKED, _MASKED_REACTIONS) if masked else (_SENTENCES, _REACTIONS)
    texts = [[text.format(mask=tokenizer.mask_token) for text in kind] for kind in kinds]
    return min(texts, key=lambda kind: _unknown(tokenizer, kind))  # the first of equal ones


def _unknown(tokenizer: Any, texts: list[str]) -> int:
    ids = [id_ for text in texts for id_ in tokenizer(text)["input_ids"]]
    return ids.count(tokenizer.unk_token_id) if tokenizer.unk_token_id not in (None, tokenizer.eos_token_id) else 0


def _speech(checkpoint: Checkpoint) -> SampleInputs:
    """Two sounds of one second; for sequence-to-sequence models also the beginning of a transcript."""
    extractor = _need(checkpoint, "feature_extractor")
    rate = extractor.sampling_rate
    # Whisper's encoder takes spectrograms of one length only.
    padding = "max_length" if hasattr(extractor, "chunk_length") else True
    waves = [_sound(rate, 0), _sound(rate, 1)]
    features = dict(extractor(waves, sampling_rate=rate, return_tensors="pt", padding=padding))
    if not generates(checkpoint.spec):
        return SampleInputs(forward=features, pipeline=(waves[0],))
    features = {"input_features": features["input_features"]}
    ids = _need(checkpoint, "tokenizer")(_TRANSCRIPT, return_tensors="pt")["input_ids"]
    return SampleInputs(
        forward={**features, "decoder_input_ids": torch.cat([ids, ids.roll(1, dims=1)])},
        generate=features,
        pipeline=(waves[0],),
        pipeline_kwargs={"generate_kwargs": dict(_GREEDILY)},
    )


def _image(checkpoint: Checkpoint) -> SampleInputs:
    """Two pictures; digits for a model that was trained on them."""
    processor = _need(checkpoint, "image_processor")
    trained = checkpoint.spec.trained and checkpoint.weights.kind == Weights.PRETRAINED
    pictures = held_out_digits()[0][:2] if trained else [_picture(0), _picture(1)]
    forward = dict(processor(images=pictures, return_tensors="pt"))
    options = {"threshold": 0.0} if checkpoint.spec.task == "object-detection" else {}
    return SampleInputs(forward=forward, pipeline=(pictures[0],), pipeline_kwargs=options)


def _image_with_points(checkpoint: Checkpoint) -> SampleInputs:
    """Two pictures, each with a point to segment at."""
    processor = _need(checkpoint, "processor")
    points = [[[40, 35]], [[70, 50]]]
    forward = dict(processor(images=[_picture(0), _picture(1)], input_points=points, return_tensors="pt"))
    # The processor gives coordinates in fp64, which accelerators do not take.
    forward["input_points"] = forward["input_points"].float()
    return SampleInputs(forward=forward)


def _image_text(checkpoint: Checkpoint) -> SampleInputs:
    """Two pictures and two captions."""
    tokenizer, pictures = _need(checkpoint, "tokenizer"), [_picture(0), _picture(1)]
    pixels = dict(_need(checkpoint, "image_processor")(images=pictures, return_tensors="pt"))
    labels = ["cat", "dog", "circle"]
    return _texts_beside(tokenizer, _CAPTIONS, pixels, (pictures[0],), candidate_labels=labels)


def _audio_text(checkpoint: Checkpoint) -> SampleInputs:
    """Two sounds and two descriptions."""
    tokenizer, extractor = _need(checkpoint, "tokenizer"), _need(checkpoint, "feature_extractor")
    rate = extractor.sampling_rate
    waves = [_sound(rate, 0), _sound(rate, 1)]
    features = dict(extractor(waves, sampling_rate=rate, return_tensors="pt"))
    return _texts_beside(tokenizer, _SOUNDS, features, (waves[0],), candidate_labels=["dog", "rain", "bell"])


def _video_text(checkpoint: Checkpoint) -> SampleInputs:
    """Two videos and two captions."""
    config = AutoConfig.from_pretrained(checkpoint.directory, trust_remote_code=checkpoint.trust_remote_code)
    frames = getattr(config.vision_config, "num_frames", _DEFAULT_FRAMES)
    processor, tokenizer = _need(checkpoint, "processor"), _need(checkpoint, "tokenizer")
    pixels = dict(processor.image_processor([_video(frames, 0), _video(frames, 1)], return_tensors="pt"))
    return _texts_beside(tokenizer, _CAPTIONS, pixels)


def _chat_image(checkpoint: Checkpoint) -> SampleInputs:
    """Two pictures, each with a question about it."""
    processor, tokenizer = _need(checkpoint, "processor"), _need(checkpoint, "tokenizer")
    question = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": _QUESTION}]}]
    prompt = processor.apply_chat_template(question, add_generation_prompt=True)
    forward = dict(processor(images=[_picture(0), _picture(1)], text=[prompt, prompt], return_tensors="pt"))
    parts = [{"type": "image", "image": _picture(0)}, {"type": "text", "text": _QUESTION}]
    return SampleInputs(
        forward=forward,
        generate=forward,
        padded=_pad_further(forward, tokenizer),
        pipeline=(),
        pipeline_kwargs={"text": [{"role": "user", "content": parts}], "generate_kwargs": dict(_GREEDILY)},
    )


def _need(checkpoint: Checkpoint, name: str) -> Any:
    """Return a part of the checkpoint's processors.

    Raises:
        LoadError: The checkpoint does not have it.
    """
    processors = checkpoint.processors()
    if name not in processors:
        raise LoadError(
            f"{checkpoint.directory} has no {name}, which {checkpoint.spec.task} needs.",
            hint=f"It has: {', '.join(processors) or 'neither tokenizer nor processor'}. Save it beside the weights.",
        )
    return processors[name]


def _picture(shift: int = 0) -> Image.Image:
    """Draw a picture with shapes and a gradient; `shift` moves and recolours them."""
    from PIL import Image, ImageDraw  # of the extra `models`: texts do without

    width, height = _IMAGE_SIZE
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    pixels = np.stack([(2 * x + 40 * shift) % 256, (3 * y) % 256, (x + y + 90 * shift) % 256], axis=-1)
    image = Image.fromarray(pixels.astype("uint8"))
    draw = ImageDraw.Draw(image)
    draw.ellipse((20 + 9 * shift, 15, 60 + 9 * shift, 55), fill=(220, 30 + 60 * shift, 30))
    draw.rectangle((55, 40 - 7 * shift, 90, 70 - 7 * shift), fill=(30, 60, 200))
    return image


def _sound(rate: int, variant: int = 0, seconds: float = 1.0) -> np.ndarray[Any, Any]:
    """Make a waveform in fp32: a rising tone with a tremolo and a little noise, between -1 and 1."""
    time = np.arange(int(rate * seconds)) / rate
    tone = np.sin(2 * np.pi * (220 * (variant + 1) + 200 * time) * time)
    noise = np.random.default_rng(variant).standard_normal(time.shape)
    wave: np.ndarray[Any, Any] = (0.6 * tone * (1 + 0.3 * np.sin(2 * np.pi * 3 * time)) + 0.02 * noise) / 1.2
    return wave.astype(np.float32)


def _video(frames: int, variant: int = 0) -> list[Image.Image]:
    """Make a video: the picture's shapes move from frame to frame."""
    return [_picture(variant + 2 * frame) for frame in range(frames)]


RECIPES: dict[str, Callable[[Checkpoint], SampleInputs]] = {
    "text": _text,
    "seq2seq": _seq2seq,
    "image": _image,
    "image-points": _image_with_points,
    "speech": _speech,
    "image-text": _image_text,
    "audio-text": _audio_text,
    "video-text": _video_text,
    "chat-image": _chat_image,
    # Where no processor makes the inputs.
    GENERIC: lambda checkpoint: SampleInputs(generic_inputs(checkpoint.torch_model("fp32"))),
}
"""By `Task.recipe`."""
