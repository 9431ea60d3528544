"""Direct computation of the audio pipelines."""

from __future__ import annotations

from typing import Any

from pytest_hfaccel.checks.base import CheckContext
from pytest_hfaccel.checks.direct.base import forward, probabilities, ranked, zero_shot
from pytest_hfaccel.checks.direct.generating import generate
from pytest_hfaccel.core.tasks import generates

_PHRASE = "This is a sound of {}."  # documented default of the zero-shot pipeline


def speech_recognition(context: CheckContext, arguments: tuple[Any, ...], options: Any) -> str:
    """The text: the most probable letters (CTC), or what the decoder generates."""
    inputs = _features(context, arguments[0], return_attention_mask=True)
    tokenizer = context.pipe.tokenizer
    if generates(context.cell.model):
        tokens = generate(context, inputs, options.get("generate_kwargs", {}))
        return str(tokenizer.decode(tokens[0], skip_special_tokens=True)).strip()
    tokens = forward(context, inputs)["logits"][0].argmax(-1)
    return str(tokenizer.decode(tokens)).strip()


def stripped_text(result: Any) -> str:
    """Take the text out of the result of speech recognition."""
    return str(result["text"]).strip()


def audio_classification(context: CheckContext, arguments: tuple[Any, ...], options: Any) -> list[dict[str, Any]]:
    """The labels of a recording; all of them unless `top_k` says otherwise."""
    logits = forward(context, _features(context, arguments[0]))["logits"][0]
    config = context.pipe.model.config
    return ranked(config, probabilities(config, logits), options.get("top_k"))


def zero_shot_audio_classification(
    context: CheckContext, arguments: tuple[Any, ...], options: Any
) -> list[dict[str, Any]]:
    """The candidate labels by how well their sentence fits the recording."""
    labels = options["candidate_labels"]
    phrase = options.get("hypothesis_template", _PHRASE)
    audio = _features(context, [arguments[0]])
    texts = context.pipe.tokenizer([phrase.format(label) for label in labels], return_tensors="pt", padding=True)
    return zero_shot(labels, forward(context, {**texts, **audio})["logits_per_audio"][0])


def _features(context: CheckContext, audio: Any, **options: Any) -> Any:
    extractor = context.pipe.feature_extractor
    samples = audio["raw"] if isinstance(audio, dict) else audio
    return extractor(samples, sampling_rate=extractor.sampling_rate, return_tensors="pt", **options)
