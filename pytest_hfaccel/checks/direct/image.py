"""Direct computation of the image pipelines that do not generate."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from pytest_hfaccel.checks.base import CheckContext
from pytest_hfaccel.checks.direct.base import forward, probabilities, ranked, zero_shot

# Documented defaults of the pipelines.
_LABELS = 5
_THRESHOLD = 0.5
_PHRASE = "This is a photo of {}."
_PADDED_TO_64 = {"padding": "max_length", "max_length": 64, "truncation": True}


def image_classification(context: CheckContext, arguments: tuple[Any, ...], options: Any) -> list[dict[str, Any]]:
    """The best labels of an image."""
    logits = forward(context, context.pipe.image_processor(arguments[0], return_tensors="pt"))["logits"][0]
    config = context.pipe.model.config
    return ranked(config, probabilities(config, logits), options.get("top_k", _LABELS))


def image_feature_extraction(context: CheckContext, arguments: tuple[Any, ...], _options: Any) -> Any:
    """The first output: nested lists of shape (1, patches, features)."""
    outputs = forward(context, context.pipe.image_processor(arguments[0], return_tensors="pt"))
    return next(iter(outputs.values())).tolist()


def zero_shot_image_classification(
    context: CheckContext, arguments: tuple[Any, ...], options: Any
) -> list[dict[str, Any]]:
    """The candidate labels by how well their sentence fits the image."""
    labels = options["candidate_labels"]
    phrase = options.get("hypothesis_template", _PHRASE)
    # SigLIP was trained with texts of one length, and on each pair by itself: its scores do not add up to one.
    sigmoid = "siglip" in context.pipe.model.config.model_type
    padding = _PADDED_TO_64 if sigmoid else {"padding": True}
    image = context.pipe.image_processor([arguments[0]], return_tensors="pt")
    texts = context.pipe.tokenizer([phrase.format(label) for label in labels], return_tensors="pt", **padding)
    return zero_shot(labels, forward(context, {**texts, **image})["logits_per_image"][0], sigmoid=sigmoid)


def object_detection(context: CheckContext, arguments: tuple[Any, ...], options: Any) -> list[dict[str, Any]]:
    """The objects above the threshold, with boxes in pixels of the image."""
    import torch

    image = arguments[0]
    processor = context.pipe.image_processor
    outputs = SimpleNamespace(**forward(context, processor([image], return_tensors="pt")))
    size = torch.tensor([[image.height, image.width]])
    threshold = options.get("threshold", _THRESHOLD)
    found = processor.post_process_object_detection(outputs, threshold, size)[0]
    labels = context.pipe.model.config.id2label
    return [
        {
            "score": score,
            "label": labels[label],
            "box": dict(zip(("xmin", "ymin", "xmax", "ymax"), map(int, box), strict=True)),
        }
        for score, label, box in zip(*(found[key].tolist() for key in ("scores", "labels", "boxes")), strict=True)
    ]
