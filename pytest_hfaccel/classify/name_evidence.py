"""What a model's name says: `org/bert-base-uncased-finetuned-ner`.

In order: the model types and well-known checkpoints in the repository's name, the registry, the purpose words
(`ner`, `captioning`), the publisher, and last the keywords of the family definitions. Purpose words also refine what
the first two found: `qwen` with `vl` sees, with `embedding` embeds.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath

from pytest_hfaccel.classify.class_evidence import analyze_registered
from pytest_hfaccel.classify.known_models import (
    CAUSAL,
    CHAT,
    CLASSIFIER,
    DEPTH,
    DETECTOR,
    DOCUMENT,
    DUAL,
    IMAGE,
    ORGANISATIONS,
    SEGMENTATION,
    SENTENCE,
    SEQ2SEQ,
    SERIES,
    SOUND,
    SPEECH,
    TTS,
    VIDEO,
    VLM,
    Kind,
    find_marker,
    find_markers,
)
from pytest_hfaccel.classify.records import Analysis, analysis, nothing
from pytest_hfaccel.classify.term_evidence import words


@dataclass(frozen=True)
class Purpose:
    """What a name is for by its purpose words: `stated` so plainly that it outweighs the class, or not."""

    kind: Kind
    why: str
    stated: bool = False


@dataclass(frozen=True)
class _Rule:
    """When a word of `pattern` is in the name of a model of one of `families`, it is of `kind`."""

    pattern: str
    families: frozenset[str]
    kind: Kind
    stated: bool = False


_TEXT = frozenset({"embedding", "text_generation"})
_IMAGE_TEXT = frozenset({"multimodal"})
_SOUND_WORDS = (
    r"ks|er|sv|sd|sid|ic|lid|emotion\w*|genres?|gender|speaker\w*|diarization|classification|classifier|"
    r"audioset|gtzan|speechcommands|keyword|lang|accent|vad|verification|deepfake"
)
_CLASSIFIER_WORDS = (
    r"ner|pos|sentiment\w*|emotions?|sst\d?|mnli|xnli|nli|anli|qnli|squad\w*|toxic\w*|hate\w*|spam|detector|detection|"
    r"classification|classifier|conll\w*|\w*pii|punctuation|deid\w*|irony|offensive|wikineural|intent\w*|stance|"
    r"sarcasm|fake|phishing|moderation|topic|cola|mrpc|qqp|zeroshot|guard|safety|ontonotes\d?|chunking|keyphrase|"
    r"injections?|jailbreak\w*|judge|grammaticality|readability|formality|factcheck\w*"
)

_RULES: tuple[_Rule, ...] = (
    _Rule(r"rerank\w*|crossencoder|reward\w*|rm|prm|orm", _TEXT, CLASSIFIER, stated=True),
    _Rule(
        r"mnli|xnli|anli|nli|detectors?|detection|classifier|classification", frozenset({"text_generation"}), CLASSIFIER
    ),
    _Rule(r"\w*embed|embedder|\w*embeddings?|embedding\w*|sentence|sbert|retriever", _TEXT, SENTENCE, stated=True),
    _Rule(r"hate\w*|toxic\w*", frozenset({"embedding"}), CLASSIFIER),
    _Rule(r"docvqa|docqa|doc|document|invoices?|receipts?|cord|funsd|rvlcdip", _IMAGE_TEXT, DOCUMENT),
    _Rule(r"textcaps|caption\w*|vqa|vqav2|image2text|img2txt", _TEXT | _IMAGE_TEXT | {"vision"}, VLM),
    _Rule(r"vl|vlm|vlms|vision|visual|multimodal|omni|vla|img", frozenset({"text_generation"}), VLM),
    _Rule(r"timeseries|forecast\w*|patchtst|ttm|tspulse", _TEXT, SERIES),
    _Rule(r"vision|image", frozenset({"embedding"}), IMAGE),
    _Rule(r"tts|vocoder|speechsynthesis", _TEXT, TTS, stated=True),
    _Rule(r"tts|vocoder|hifigan|vc|speechsynthesis", frozenset({*_TEXT, "audio"}), TTS),
    _Rule(r"asr|stt|transcribe|transcription|s2t", frozenset({*_TEXT, "audio"}), SPEECH),
    _Rule(_SOUND_WORDS, frozenset({"audio"}), SOUND),
    _Rule(r"audio|speech|voice", _TEXT, SPEECH),
    _Rule(r"video|kinetics|kinetics400|k400|k600|ssv2|ucf101", frozenset({"vision"}), VIDEO),
    _Rule(r"panoptic|ade|ade20k|cityscapes|segmentation|semantic|matting|clothes", frozenset({"vision"}), SEGMENTATION),
    _Rule(r"depth|nyu|kitti|midas", frozenset({"vision"}), DEPTH),
    _Rule(r"itm|itr", frozenset({"multimodal"}), DUAL),
    _Rule(_CLASSIFIER_WORDS, frozenset({"embedding"}), CLASSIFIER),
    _Rule(
        r"it|instruct|instruction|instructions|\w*chat\w*|assistant|dpo|rlhf|sft|ppo|orpo|simpo|\w*hermes|conversational|"
        r"dialogue?|alpaca|zephyr|vicuna|oasst\d?|dolly|guanaco|roleplay|r1|rl|grpo|think\w*|\w*reason\w*",
        frozenset({"text_generation"}),
        CHAT,
    ),
)

# Words that suffice alone, strongest first.
_ALONE: tuple[tuple[str, Kind], ...] = (
    (r"rerank\w*|reward\w*|hate\w*|toxic\w*", CLASSIFIER),
    (r"embed\w*|sentence\w*|retriev\w*|encoding|similarity", SENTENCE),
    (r"tts|vocoder", TTS),
    (r"asr|stt|speech\w*|transcri\w+|phoneme|librispeech", SPEECH),
    (r"audio\w*|sounds?|speaker\w*|\w*voice\w*|vad|genres?|music\w*|diarization", SOUND),
    (r"docvqa|docqa|invoices?|receipts?|documents?|ocr", DOCUMENT),
    (r"caption\w*|vqa|vlm|multimodal|vl|vision2seq", VLM),
    (r"video\w*|kinetics\w*", VIDEO),
    (r"segment\w*|parsing|panoptic|matting|ade20k|cityscapes", SEGMENTATION),
    (r"depth|nyu|kitti", DEPTH),
    # `ai-image-detector`, `nsfw_image_detection`: whole images are told apart, nothing is located in them.
    (r"images?|nsfw|deepfakes?", IMAGE),
    (r"coco|pascal|detr|detector|detection", DETECTOR),
    (r"vision|imagenet\w*|in1k|in21k|face\w*|photo\w*|pixel\w*|224|facial", IMAGE),
    (r"forecast\w*|timeseries", SERIES),
    (r"summar\w+|translat\w+|paraphras\w+|mt|seq2seq|grammar|headline", SEQ2SEQ),
    (r"instruct\w*|\w*chat\w*|dialog\w*|assistant|conversational", CHAT),
    (_CLASSIFIER_WORDS, CLASSIFIER),
)


def refine(kind: Kind, tokens: Sequence[str], later: Sequence[Kind], published: Kind | None) -> Purpose | None:
    """Say how the purpose in a name changes what its first marker says, or `None`.

    Args:
        kind: What the marker says.
        tokens: The words of the name.
        later: What the markers after the first say.
        published: What the namespace publishes, if it publishes one kind.
    """
    if kind == CHAT and _first(r"base|pretrain\w*", tokens):
        return Purpose(CAUSAL, "before it was taught to chat")
    if published and (published[0] == kind[0] or {published[0], kind[0]} <= _TEXT):
        stated = published in (SENTENCE, CLASSIFIER)
        if stated or kind[1] is None:
            return Purpose(published, "published where such models are", stated)
    for rule in _RULES:
        applies = kind[0] in rule.families and not _protected(kind, rule)
        if applies and (word := _first(rule.pattern, tokens)):
            return Purpose(rule.kind, f"and {word!r} says what it is for", rule.stated)
    if kind == CAUSAL and CHAT in later:
        return Purpose(CHAT, "with the name of a chat model after it")
    if kind == IMAGE and any(other[0] in _TEXT for other in later):
        return Purpose(VLM, "with a language model after it")
    return None


def _protected(kind: Kind, rule: _Rule) -> bool:
    """Subfamilies that a weaker word does not change: a T5 is no chat model, a detector trained on depth is one."""
    if rule.kind == CHAT:
        return kind == SEQ2SEQ
    if rule.kind == CLASSIFIER and not rule.stated:
        return kind == SENTENCE
    if rule.kind in (SEGMENTATION, DEPTH):
        return kind == SEGMENTATION or (rule.kind == DEPTH and kind == DETECTOR)
    return rule.kind == DUAL and kind != VLM


def _first(pattern: str, tokens: Sequence[str]) -> str | None:
    return next((token for token in tokens if re.fullmatch(pattern, token)), None)


NAME_SOURCE = "name_analysis"

TYPE = 0.92
"""Confidence in a model type or well-known checkpoint that stands in the name as a whole word."""
AFFIX = 0.88
"""Confidence in a word that begins or ends like a known one."""
STATED = 0.99
"""Confidence in a name that states its purpose: it outweighs the class, which cannot know the purpose."""
SPECIFIC = 0.96
"""Confidence in a well-known checkpoint of a modality whose models are often built on a language model."""
REFINED = 0.94
"""Confidence in a known name that a purpose word moved to another modality."""
PURPOSE = 0.75
"""Confidence in a purpose word alone."""
PUBLISHER = 0.7
"""Confidence in a publisher alone."""


def analyze_name(model_name: str) -> Analysis:
    """Say what a hub id, a directory or a bare name stands for, by built-in knowledge."""
    organisation, tokens = split_name(model_name)
    if not tokens:
        return nothing(NAME_SOURCE, "no name was passed")
    return (
        _by_marker(organisation, tokens)
        or analyze_registered(model_name, NAME_SOURCE)
        or _by_publisher(organisation)
        or _by_purpose(tokens)
        or nothing(NAME_SOURCE, f"no word of {model_name!r} is a model type, a known checkpoint or a purpose")
    )


def split_name(model_name: str) -> tuple[list[str], list[str]]:
    """Split a name into the words of its namespace and those of the repository, directory or file."""
    path = PurePath(model_name.strip().replace("\\", "/").rstrip("/"))
    return words(path.parent.name), words(path.name)


def _by_marker(organisation: Sequence[str], tokens: Sequence[str]) -> Analysis | None:
    marker = find_marker(tokens)
    if marker is None:
        return None
    said = "model type" if marker.is_type else "checkpoint family"
    reason = f"{marker.text!r} is a {said}"
    later = [other.kind for other in find_markers(tokens) if other.start > marker.start]
    purpose = refine(marker.kind, tokens, later, ORGANISATIONS.get("".join(organisation)))
    if purpose is None:
        # A sentence encoder is named for its purpose, whatever it was made from (`gte-Qwen2-1.5B-instruct`).
        stated = marker.kind == SENTENCE
        specific = not marker.is_type and marker.kind[0] in ("audio", "time_series")
        confidence = STATED if stated else SPECIFIC if specific else TYPE if marker.exact else AFFIX
        return analysis(NAME_SOURCE, *marker.kind, confidence, _certainty(marker.kind), reason)
    same = purpose.kind[0] == marker.kind[0]
    confidence = STATED if purpose.stated else TYPE if same else REFINED
    return analysis(NAME_SOURCE, *purpose.kind, confidence, STATED if same else REFINED, f"{reason}, {purpose.why}")


def _certainty(kind: Kind) -> float:
    """How sure the subfamily is of a name that says no purpose: sentence encoders are named for it, others are not."""
    return STATED if kind[1] in ("sentence_transformer", "chat_model", "document_qa") else 0.7


def _by_publisher(organisation: Sequence[str]) -> Analysis | None:
    joined = "".join(organisation)
    marker = find_marker(organisation)
    kind = ORGANISATIONS.get(joined) or (marker.kind if marker and marker.is_type else None)
    return kind and analysis(NAME_SOURCE, *kind, PUBLISHER, PUBLISHER, f"{joined!r} publishes such models")


def _by_purpose(tokens: Sequence[str]) -> Analysis | None:
    for pattern, kind in _ALONE:
        if word := _first(pattern, tokens):
            # A masked language model that encodes for retrieval is published under the class of its pretraining.
            certainty = STATED if kind == SENTENCE else PURPOSE
            return analysis(NAME_SOURCE, *kind, PURPOSE, certainty, f"{word!r} says what it is for")
    return None
