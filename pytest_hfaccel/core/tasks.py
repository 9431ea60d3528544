"""What a task implies: which inputs it takes, whether it generates, and which pipeline runs it.

Pure data. It decides which checks a cell has before anything is loaded, so that a check that cannot apply is never
collected and therefore never has to be skipped.
"""

from __future__ import annotations

from dataclasses import dataclass

from pytest_hfaccel.core.spec import ModelSpec


@dataclass(frozen=True)
class Task:
    """The traits of a task.

    Attributes:
        name: The hub's task name (`pipeline_tag`) where it has one.
        recipe: Which recipe of `pytest_hfaccel.checkpoints` makes its inputs.
        pipeline: The `transformers.pipeline` task, or `None` where transformers has none.
        generates: Whether its models produce tokens through `generate`.
        pads: Whether its inputs hold text with an attention mask, so that padding must not change the outputs.
        why_no_pipeline: The reason for `pipeline=None`.
    """

    name: str
    recipe: str
    pipeline: str | None
    generates: bool = False
    pads: bool = False
    why_no_pipeline: str = ""


GENERIC = "generic"
"""The recipe that needs no processor: inputs from the signature of `forward` and the config."""

_RAW = "its inputs are made from the signature of forward; there is no processor that a pipeline could use"

_GENERIC_TASKS = (
    "audio-codec",
    "audio-frame-classification",
    "audio-xvector",
    "backbone",
    "base-model",
    "depth-estimation",
    "document-question-answering",
    "image-segmentation",
    "image-to-image",
    "keypoint-detection",
    "keypoint-matching",
    "masked-image-modeling",
    "multimodal-generation",
    "multiple-choice",
    "next-sentence-prediction",
    "pretraining",
    "promptable-segmentation",
    "question-answering",
    "reinforcement-learning",
    "retrieval",
    "speech-to-text",
    "table-question-answering",
    "text-recognition",
    "text-to-audio",
    "time-series-classification",
    "time-series-forecasting",
    "video-classification",
    "visual-question-answering",
    "zero-shot-object-detection",
)
"""What classes of the auto mappings do that needs more than a tokenizer or an image processor of the usual form."""

TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        Task("fill-mask", "text", "fill-mask", pads=True),
        Task("feature-extraction", "text", "feature-extraction", pads=True),
        Task("text-classification", "text", "text-classification", pads=True),
        Task("token-classification", "text", "token-classification", pads=True),
        Task("text-generation", "text", "text-generation", generates=True, pads=True),
        Task(
            "text2text-generation",
            "seq2seq",
            None,
            generates=True,
            pads=True,
            why_no_pipeline="transformers 5 removed the text2text pipelines",
        ),
        Task("image-classification", "image", "image-classification"),
        Task("image-feature-extraction", "image", "image-feature-extraction"),
        Task("zero-shot-image-classification", "image-text", "zero-shot-image-classification", pads=True),
        Task("object-detection", "image", "object-detection"),
        Task(
            "mask-generation",
            "image-points",
            None,
            why_no_pipeline="the mask-generation pipeline needs torchvision, which this package does not ask for",
        ),
        Task("automatic-speech-recognition", "speech", "automatic-speech-recognition"),
        Task("audio-classification", "speech", "audio-classification"),
        Task("zero-shot-audio-classification", "audio-text", "zero-shot-audio-classification", pads=True),
        Task("image-text-to-text", "chat-image", "image-text-to-text", generates=True, pads=True),
        Task(
            "zero-shot-video-classification",
            "video-text",
            None,
            why_no_pipeline="transformers has no zero-shot video pipeline",
        ),
        *(Task(name, GENERIC, None, why_no_pipeline=_RAW) for name in _GENERIC_TASKS),
    )
}
"""Every task a registry entry can name."""

# Speech recognition is two things: sequence to sequence (Whisper), which generates, and CTC, which does not.
_CTC_SUFFIX = "ForCTC"


def task_of(spec: ModelSpec) -> Task:
    """Return the traits of a model's task."""
    return TASKS[spec.task]


def generates(spec: ModelSpec) -> bool:
    """Whether the model produces tokens through `generate`."""
    if spec.task == "automatic-speech-recognition":
        return not spec.architecture.endswith(_CTC_SUFFIX)
    return task_of(spec).generates
