"""The sample inputs of a model: raw material through the checkpoint's own processors, one recipe per kind of task.

Sentences, pictures, sounds and videos are the same in every process, and any two samples differ.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from pytest_hfaccel.backends.base import SampleInputs
from pytest_hfaccel.checkpoints.build import load_smoke_forward
from pytest_hfaccel.checkpoints.pretrained.digits import held_out_digits
from pytest_hfaccel.core.errors import LoadError
from pytest_hfaccel.core.spec import Weights
from pytest_hfaccel.core.tasks import GENERIC, generates, task_of

if TYPE_CHECKING:
    import numpy as np
    import torch
    from PIL.Image import Image

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
_NEW_TOKENS = 8
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
    sample.forward = _accepted_inputs(sample.forward, accepted)
    sample.generate = _accepted_inputs(sample.generate, accepted) if sample.generate is not None else None
    if not task.pads or "attention_mask" not in accepted:
        sample.padded = None
    if sample.padded is not None:
        sample.padded = _accepted_inputs(sample.padded, accepted)
    return sample


def _accepted_inputs(inputs: Mapping[str, torch.Tensor], accepted: set[str]) -> dict[str, torch.Tensor]:
    """Leave out what a processor gives and the model does not take, e.g. the original sizes of images."""
    return {name: value for name, value in inputs.items() if name in accepted}


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
        pipeline_kwargs=_pipeline_options(checkpoint),
    )


def _seq2seq(checkpoint: Checkpoint) -> SampleInputs:
    """Sentences for the encoder, the beginning of an answer for the decoder."""
    import torch

    tokenizer = _need(checkpoint, "tokenizer")
    encoder = _encode(tokenizer, list(_SENTENCES))
    answer = tokenizer(_GERMAN_ANSWER, return_tensors="pt")["input_ids"]
    decoder = torch.cat([answer, answer.flip(1)])
    forward = {**encoder, "decoder_input_ids": decoder}
    padded = _pad_further(encoder, tokenizer)
    return SampleInputs(
        forward=forward,
        generate=encoder,
        padded={**padded, "decoder_input_ids": decoder} if padded else None,
    )


def _encode(tokenizer: Any, sentences: list[str]) -> dict[str, torch.Tensor]:
    """Tokenize a batch, the shorter sentence padded on the right."""
    if tokenizer.pad_token_id is None:
        # Without a padding token, equal length is the way to a batch.
        ids = [tokenizer(sentence)["input_ids"] for sentence in sentences]
        shortest = min(map(len, ids))
        return dict(tokenizer.pad({"input_ids": [one[:shortest] for one in ids]}, padding=False, return_tensors="pt"))
    return dict(tokenizer(sentences, padding=True, padding_side="right", return_tensors="pt"))


def _prompts(tokenizer: Any, sentences: list[str]) -> dict[str, torch.Tensor]:
    """Tokenize prompts of equal length: what a decoder continues must not end in padding."""
    import torch

    ids = [tokenizer(sentence)["input_ids"] for sentence in sentences]
    shortest = min(map(len, ids))
    rows = torch.tensor([one[:shortest] for one in ids])
    return {"input_ids": rows, "attention_mask": torch.ones_like(rows)}


def _pad_further(encoded: dict[str, torch.Tensor], tokenizer: Any) -> dict[str, torch.Tensor] | None:
    """Add masked padding on the right of a tokenized batch; `None` where the tokenizer gives no mask."""
    import torch

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


def _pipeline_options(checkpoint: Checkpoint) -> dict[str, Any]:
    if checkpoint.spec.task == "text-generation":
        return {"max_new_tokens": _NEW_TOKENS, "do_sample": False}
    return {}


def _speech(checkpoint: Checkpoint) -> SampleInputs:
    """Two sounds of one second; for sequence-to-sequence models also the beginning of a transcript."""
    extractor = _need(checkpoint, "feature_extractor")
    rate = extractor.sampling_rate
    waves = [_sound(rate, 0), _sound(rate, 1)]
    features = dict(extractor(waves, sampling_rate=rate, return_tensors="pt", padding=_padding(extractor)))
    if not generates(checkpoint.spec):
        return SampleInputs(forward=features, pipeline=(_sound(rate, 0),))
    features = {name: value for name, value in features.items() if name == "input_features"}
    return SampleInputs(
        forward={**features, "decoder_input_ids": _decoder_ids(checkpoint)},
        generate=features,
        pipeline=(_sound(rate, 0),),
        pipeline_kwargs={"generate_kwargs": {"max_new_tokens": _NEW_TOKENS, "do_sample": False}},
    )


def _padding(extractor: object) -> str | bool:
    """Whisper's encoder takes spectrograms of one length only."""
    return "max_length" if hasattr(extractor, "chunk_length") else True


def _decoder_ids(checkpoint: Checkpoint) -> torch.Tensor:
    import torch

    tokenizer = _need(checkpoint, "tokenizer")
    ids = tokenizer(_TRANSCRIPT, return_tensors="pt")["input_ids"]
    return torch.cat([ids, ids.roll(1, dims=1)])


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
    tokenizer = _need(checkpoint, "tokenizer")
    pixels = dict(_need(checkpoint, "image_processor")(images=[_picture(0), _picture(1)], return_tensors="pt"))
    texts = _encode(tokenizer, list(_CAPTIONS))
    padded = _pad_further(texts, tokenizer)
    return SampleInputs(
        forward={**texts, **pixels},
        padded={**padded, **pixels} if padded else None,
        pipeline=(_picture(0),),
        pipeline_kwargs={"candidate_labels": ["cat", "dog", "circle"]},
    )


def _audio_text(checkpoint: Checkpoint) -> SampleInputs:
    """Two sounds and two descriptions."""
    tokenizer, extractor = _need(checkpoint, "tokenizer"), _need(checkpoint, "feature_extractor")
    rate = extractor.sampling_rate
    features = dict(extractor([_sound(rate, 0), _sound(rate, 1)], sampling_rate=rate, return_tensors="pt"))
    texts = _encode(tokenizer, list(_SOUNDS))
    padded = _pad_further(texts, tokenizer)
    return SampleInputs(
        forward={**texts, **features},
        padded={**padded, **features} if padded else None,
        pipeline=(_sound(rate, 0),),
        pipeline_kwargs={"candidate_labels": ["dog", "rain", "bell"]},
    )


def _video_text(checkpoint: Checkpoint) -> SampleInputs:
    """Two videos and two captions."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(checkpoint.directory, trust_remote_code=checkpoint.trust_remote_code)
    frames = getattr(config.vision_config, "num_frames", _DEFAULT_FRAMES)
    processor, tokenizer = _need(checkpoint, "processor"), _need(checkpoint, "tokenizer")
    pixels = dict(processor.image_processor([_video(frames, 0), _video(frames, 1)], return_tensors="pt"))
    texts = _encode(tokenizer, list(_CAPTIONS))
    padded = _pad_further(texts, tokenizer)
    return SampleInputs(forward={**texts, **pixels}, padded={**padded, **pixels} if padded else None)


def _chat_image(checkpoint: Checkpoint) -> SampleInputs:
    """Two pictures, each with a question about it."""
    processor, tokenizer = _need(checkpoint, "processor"), _need(checkpoint, "tokenizer")
    question = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": _QUESTION}]}]
    prompt = processor.apply_chat_template(question, add_generation_prompt=True)
    forward = dict(processor(images=[_picture(0), _picture(1)], text=[prompt, prompt], return_tensors="pt"))
    chat = [
        {
            "role": "user",
            "content": [{"type": "image", "image": _picture(0)}, {"type": "text", "text": _QUESTION}],
        }
    ]
    return SampleInputs(
        forward=forward,
        generate=forward,
        padded=_pad_further(forward, tokenizer),
        pipeline=(),
        pipeline_kwargs={
            "text": chat,
            "generate_kwargs": {"max_new_tokens": _NEW_TOKENS, "do_sample": False},
        },
    )


def _from_signature(checkpoint: Checkpoint) -> SampleInputs:
    """Inputs for the parameters of `forward`, where no processor makes them."""
    from pytest_hfaccel.checkpoints.generic_inputs import generic_inputs

    return SampleInputs(generic_inputs(checkpoint.torch_model("fp32")))


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


def _picture(shift: int = 0) -> Image:
    """Draw a picture with shapes and a gradient; `shift` moves and recolours them."""
    import numpy as np
    from PIL import Image, ImageDraw

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
    import numpy as np

    time = np.arange(int(rate * seconds)) / rate
    tone = np.sin(2 * np.pi * (220 * (variant + 1) + 200 * time) * time)
    noise = np.random.default_rng(variant).standard_normal(time.shape)
    wave: np.ndarray[Any, Any] = (0.6 * tone * (1 + 0.3 * np.sin(2 * np.pi * 3 * time)) + 0.02 * noise) / 1.2
    return wave.astype(np.float32)


def _video(frames: int, variant: int = 0) -> list[Image]:
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
    GENERIC: _from_signature,
}
"""By `Task.recipe`."""
