"""What model types, well-known checkpoints and publishers stand for: the tables, and finding such a word in a name.

Names are matched as whole words, joined without separators (`sentence t5` = `sentence-t5` = `sentencet5`). The model
types are those of the installed transformers, by the heads that it gives them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache

from pytest_hfaccel.classify.term_evidence import words
from pytest_hfaccel.registry.auto_classes import AutoEntry, auto_entries

Kind = tuple[str, str | None]
"""A family and, where one fits, a subfamily."""

MASKED: Kind = ("embedding", "masked_lm")
SENTENCE: Kind = ("embedding", "sentence_transformer")
CLASSIFIER: Kind = ("embedding", "token_classifier")
CAUSAL: Kind = ("text_generation", "causal_lm")
CHAT: Kind = ("text_generation", "chat_model")
SEQ2SEQ: Kind = ("text_generation", "seq2seq")
IMAGE: Kind = ("vision", "image_classifier")
DETECTOR: Kind = ("vision", "object_detector")
SEGMENTATION: Kind = ("vision", "segmentation")
DEPTH: Kind = ("vision", "depth_estimation")
VISION: Kind = ("vision", None)
SPEECH: Kind = ("audio", "speech_recognition")
SOUND: Kind = ("audio", "audio_classifier")
TTS: Kind = ("audio", "text_to_speech")
AUDIO: Kind = ("audio", None)
VLM: Kind = ("multimodal", "vision_language")
DUAL: Kind = ("multimodal", "image_text_encoder")
DOCUMENT: Kind = ("multimodal", "document_qa")
VIDEO: Kind = ("video", "video_classifier")
VIDEO_TEXT: Kind = ("video", "video_text_encoder")
SERIES: Kind = ("time_series", "forecaster")

_Rows = tuple[tuple[Kind, str], ...]


def _by_word(rows: _Rows) -> dict[str, Kind]:
    return {word: kind for kind, joined in rows for word in joined.split()}


_HEADS: _Rows = (
    (DOCUMENT, "DOCUMENT_QUESTION_ANSWERING"),
    (SPEECH, "CTC RNNT TDT SPEECH_SEQ_2_SEQ"),
    (VLM, "IMAGE_TEXT_TO_TEXT MULTIMODAL_LM VISUAL_QUESTION_ANSWERING"),
    (DUAL, "RETRIEVAL"),
    (TTS, "TEXT_TO_SPECTROGRAM TEXT_TO_WAVEFORM"),
    (AUDIO, "AUDIO_TOKENIZATION"),
    (SOUND, "AUDIO_CLASSIFICATION AUDIO_FRAME_CLASSIFICATION AUDIO_XVECTOR"),
    (DUAL, "ZERO_SHOT_IMAGE_CLASSIFICATION"),
    (VIDEO, "VIDEO_CLASSIFICATION"),
    (SERIES, "TIME_SERIES_PREDICTION TIME_SERIES_CLASSIFICATION TIME_SERIES_REGRESSION"),
    (SEGMENTATION, "MASK_GENERATION"),
    (DETECTOR, "OBJECT_DETECTION ZERO_SHOT_OBJECT_DETECTION"),
    (SEGMENTATION, "UNIVERSAL_SEGMENTATION INSTANCE_SEGMENTATION IMAGE_SEGMENTATION"),
    (DEPTH, "DEPTH_ESTIMATION"),
    (IMAGE, "IMAGE_CLASSIFICATION"),
    (SEGMENTATION, "SEMANTIC_SEGMENTATION"),
    (
        VISION,
        "KEYPOINT_DETECTION KEYPOINT_MATCHING POSE_ESTIMATION NORMAL_ESTIMATION POINTMAP_ESTIMATION IMAGE_MATTING "
        "IMAGE_TO_IMAGE TEXT_RECOGNITION TABLE_RECOGNITION",
    ),
    (IMAGE, "IMAGE MASKED_IMAGE_MODELING CAUSAL_IMAGE_MODELING BACKBONE"),
    (SEQ2SEQ, "SEQ_TO_SEQ_CAUSAL_LM"),
    (CLASSIFIER, "TABLE_QUESTION_ANSWERING"),
    (MASKED, "MASKED_LM"),
    (CAUSAL, "CAUSAL_LM"),
    (MASKED, "TEXT_ENCODING SEQUENCE_CLASSIFICATION QUESTION_ANSWERING TOKEN_CLASSIFICATION"),
    (CAUSAL, "DECISION"),
)
KIND_OF_HEAD = _by_word(_HEADS)
"""What the models under a head are for. The first head that lists a type decides: the heads that only one modality has
come before those that several have."""

_TYPES: _Rows = (
    (DUAL, "aimv2 bridgetower flava groupvit modernvbert ultravbert vision-text-dual-encoder"),
    (SPEECH, "audioflamingo3 glmasr moshi qwen2_audio"),
    (SERIES, "autoformer decision_transformer informer time_series_transformer"),
    (DOCUMENT, "bros donut-swin layoutlm layoutlmv2 layoutlmv3 lilt markuplm pix2struct udop"),
    (SOUND, "clap musicflamingo"),
    (SEGMENTATION, "clipseg segformer seggpt"),
    (TTS, "clvp dia univnet vibevoice"),
    (SENTENCE, "dpr gte jina_embeddings_v3 nomic_bert"),
    (AUDIO, "encodec mimi pop2piano xcodec"),
    (VLM, "glm_image lxmert pixtral trocr visual_bert"),
    (VISION, "mgp-str uvdoc"),
    (CAUSAL, "mistral4 reformer"),
    (MASKED, "neomme perceiver"),
    (IMAGE, "radio"),
    (CLASSIFIER, "splinter"),
    (VIDEO_TEXT, "tvp videoprism xclip"),
)
_KIND_OF_TYPE = _by_word(_TYPES)
"""Types whose heads do not tell what they are for: no head at all, or heads of two modalities."""

# The last resort for types of which only a base model is listed: the words of their names.
_WORDS: tuple[tuple[str, Kind], ...] = (
    (r"embedding", SENTENCE),
    (r"(^|_)(audio|speech|voice|acoustic|asr|codec|music)", AUDIO),
    (r"tts", TTS),
    (r"video", VIDEO),
    (r"(^|[_-])(vision|image|vq\w*|visual)", IMAGE),
    (r"^sam\d*(_|$)", SEGMENTATION),
    (r"(^|_)text|assistant", CAUSAL),
    (r"time_?series", SERIES),
    (r"ocr|_vl(_|$)", VLM),
    (r"qformer", DUAL),
)


@dataclass(frozen=True)
class AutoTables:
    """What the auto mappings say.

    Attributes:
        heads_of_type: Model type -> the heads (`CAUSAL_LM`, `CTC`, ...; the base model is ``) that list it.
        heads_of_class: Class name -> head -> the model types it serves there.
    """

    heads_of_type: Mapping[str, set[str]]
    heads_of_class: Mapping[str, Mapping[str, list[str]]]


@cache
def auto_tables() -> AutoTables:
    """Return the tables of the installed transformers; empty ones where it is not installed."""
    return tables_of(auto_entries())


def tables_of(entries: Iterable[AutoEntry]) -> AutoTables:
    """Group entries of the auto mappings by model type and by class."""
    types: dict[str, set[str]] = {}
    classes: dict[str, dict[str, list[str]]] = {}
    for entry in entries:
        types.setdefault(entry.model_type, set()).add(entry.head)
        classes.setdefault(entry.architecture, {}).setdefault(entry.head, []).append(entry.model_type)
    return AutoTables(types, classes)


@cache
def kinds_of_types() -> Mapping[str, Kind]:
    """Return family and subfamily of every model type of the installed transformers that has one."""
    return families_of(auto_tables())


def families_of(tables: AutoTables) -> dict[str, Kind]:
    """Return family and subfamily of every model type of the tables that has one."""
    kinds = {
        model_type: _KIND_OF_TYPE.get(model_type)
        or next((kind for head, kind in KIND_OF_HEAD.items() if head in heads), None)
        for model_type, heads in tables.heads_of_type.items()
    }
    for model_type, kind in kinds.items():
        if kind is None:
            by_words = next((kind for pattern, kind in _WORDS if re.search(pattern, model_type)), None)
            kinds[model_type] = by_words or _by_parent(model_type, kinds)
    return {model_type: kind for model_type, kind in kinds.items() if kind}


def _by_parent(model_type: str, kinds: Mapping[str, Kind | None]) -> Kind | None:
    """`parakeet_encoder` is what its siblings `parakeet_ctc`, ... are."""
    stem = model_type.rpartition("_")[0] or model_type
    return next((kind for other, kind in kinds.items() if kind and other.startswith(stem)), None)


_NAMES: _Rows = (
    (
        SENTENCE,
        "acge alldistilroberta allminilm allmpnet ance arcticembed bge colbert contriever distiluse dragonplus e5 "
        "gritlm gtr instructor jinabert jinaembeddings labse m3e minilm msmarco multiqa mxbaiembed nomicembed nvembed "
        "piccolo sapbert sbert sentencet5 sfr sfrembedding simcse specter splade stella text2vec tsdae uae",
    ),
    (
        MASKED,
        "bertin bertweet caduceus chinesebert chinesemacbert codesage dnabert ernie2 ernie3 esm1b esm1v esm2 esmfold "
        "hyenadna lert macbert minilml12h384 minilml6h384 minilmv2 mlm mluke multilingualminilm muril nucleotide "
        "retribert structbert tinybert unixcoder wobert wwm xlmmlm xlmr xtremedistil",
    ),
    (CLASSIFIER, "finbert gliner promptguard tapex textclassification textclassifier"),
    (
        CAUSAL,
        "aquila baichuan bielik biomedlm bloomz calm2 cerebrasgpt codegeex codegemma codellama codestral command "
        "croissantllm dclm decilm deepseek deepseekcoder dialoglm elyza eurollm exaone falcon3 galactica gemma31b "
        "gemma3270m gpt grok hunyuan incoder internlm jais japanesegpt kanana kimi kogpt llama2 llama3 longcat lucie "
        "magicoder mathstral meditron megatrongpt mgpt mimo minicpm minitron mobilellm nekomata openelm openhathi "
        "openllama phi1 phi2 phind plamo polycoder polyglot poro powermoe progen protgpt2 pythia qwen qwen1 redpajama "
        "refact replitcode retnet rinna rugpt salamandra santacoder sealion seallm skywork smollm smollm2 solar "
        "stablecode starcoder starcoderbase stripedhyena swallow telechat teuken tinyllama tinystories transformerxl "
        "transfoxl viking weblab wizardcoder xgen xlmclm xverse yi youri",
    ),
    # From `qwen3` on: published as chat models, the pretrained ones say `-Base`.
    (
        CHAT,
        "airoboros alpaca aya baize blenderbot c4aicommand chatglm chatglm2 chatglm3 commanda commandr commandrplus "
        "dialogpt dolly dolphin guanaco hermes koala manticore medalpaca neuralchat noushermes oasst openassistant "
        "openchat openhermes orca orca2 platypus saiga samantha stablebeluga starling tulu vicuna wizardlm xwin "
        "zephyr deepseekr1 deepseekv31 deepseekv32 ernie45 exaone40 glm45 glm46 glm47 gptoss kimik2 lfm2 minimaxm2 "
        "qwen3 qwen35 qwq ringmini smollm3",
    ),
    (
        SEQ2SEQ,
        "arat5 barthez bartpho bert2bert byt5 codet5 coedit distilbart flant5 flanul2 godel indicbart indictrans "
        "indictrans2 kot5 macaw madlad madlad400 marianmt mbart50 mengzit5 mrebel mt0 nllb opus opusmt prott5 ptt5 "
        "rag rebel roberta2roberta scifive switchbase t0 t0pp tkinstruct ul2 unifiedqa wmt19",
    ),
    (
        IMAGE,
        "beit3 coatnet convmixer davit densenet dino dinov3 dit edgenext efficientformer efficientnetv2 efficientvit "
        "eva eva02 fastvit gcvit ghostnet inception mae maxvit mit mobilenet mobilenetv3 mobilenetv4 mobileone nat "
        "nfnet phikon raddino regnety resnext rexnet seresnet simmim tfefficientnet tinyvit vgg virchow volo "
        "wideresnet xception xcit",
    ),
    (DETECTOR, "deta doclayout fasterrcnn llmdet owl yolo yolo11 yolov10 yolov5 yolov8 yolox"),
    (SEGMENTATION, "birefnet deeplab deeplabv3 fastsam isnet maskrcnn medsam mobilesam rmbg slimsam u2net unet"),
    (DEPTH, "depthanythingv2 marigold metric3d midas"),
    (VISION, "esrgan flux sdxl stablediffusion"),
    (
        SPEECH,
        "audioflamingo citrinet crisperwhisper distilhubert kotobawhisper mhubert mms moshika moshiko paraformer "
        "parakeet quartznet reazonspeech s2t s2tt seamless sensevoice speech2text stt ultravox w2v w2vbert wav2vec "
        "xlsr xlsr300m xlsr53",
    ),
    (SOUND, "ast audiomae ecapa ecapatdnn largerclap lid mert mmslid panns pyannote yamnet"),
    (
        TTS,
        "audiogen audioldm audioldm2 chattts cosyvoice f5tts fastspeech fastspeech2 fishspeech hifigan jukebox kokoro "
        "llasa matchatts melotts mmstts orpheus outetts parler parlertts riffusion stableaudio styletts2 tacotron "
        "tacotron2 tts vocoder vocos xtts",
    ),
    (AUDIO, "snac speechtokenizer wavtokenizer"),
    (
        VLM,
        "bakllava bunny cambrian cogagent cogvlm cogvlm2 docling emu2 florence gitbase gitlarge glm41v glm45v "
        "internvl2 internvl25 internvl3 kimik25 kimik26 kimivl kosmos llama32vision medgemma minicpmllama3v minicpmo "
        "minicpmv minigpt4 mistralsmall31 mistralsmall32 mobilevlm molmo molmoe moondream moondream2 mplug mplugowl "
        "multimodality nanovlm nemotronnanovl nvila nvlm obsidian ofa openflamingo openvla ovis phi35vision phi3v "
        "phi3vision phi4mm qvq qwenvl smoldocling tinyllava videollama vila vitgpt2 xgenmm yivl",
    ),
    (
        DUAL,
        "biomedclip blipitm colqwen colqwen2 colsmolvlm evaclip fashionclip imagebind jinaclip metaclip mobileclip "
        "openclip pecore plip pubmedclip remoteclip streetclip tinyclip",
    ),
    (DOCUMENT, "deplot docowl docquery docvqa donut layoutxlm matcha nougat texify"),
    (VIDEO, "cogvideo cogvideox internvideo internvideo2 movinet slowfast uniformer vjepa x3d"),
    (VIDEO_TEXT, "clip4clip languagebindvideo viclip"),
    (SERIES, "chronos lagllama moirai moment sundial timegpt timeseries tinytimemixer tspulse ttm"),
)
CHECKPOINT_NAMES = _by_word(_NAMES)
"""Joined words -> what a checkpoint of that name is for; of families whose names are not model types."""

# Patterns over one word of a name, tried when the word itself is not known. The first that fits decides.
AFFIXES: tuple[tuple[str, Kind], ...] = (
    (r"\w*(hubert|wav2vec|whisper|wavlm)\w*", SPEECH),
    (r"(visual|vil|vl)bert|\w{2,}vlm?|\w+llava|llava\w+|\w*blip\w*", VLM),
    (r"\w*(simcse|sbert|embed|embedding|embeddings|embedder|embedding\w+)", SENTENCE),
    (r"\w*berta?|\w*roberta|\w*electra|bert\w*|roberta\w*|\w*deberta\w*", MASKED),
    (
        r"vit[a-z]{0,3}\d{1,3}\w*|\w*resnet\w*|\w*efficientnet\w*|\w*mobilenet\w*|\w*convnext\w*|dinov?\d+\w*",
        IMAGE,
    ),
    (r"\w*yolo\w*|\w*detr\w*", DETECTOR),
    (r"\w+sam\d?|sam\d\w*|segformer\w*|mask2former\w*", SEGMENTATION),
    (r"\w+clip|clip\w+|\w*siglip\w*", DUAL),
    (r"\w+tts|tts\w+", TTS),
    (r"\w+asr", SPEECH),
    (r"time(?!s?$)[a-z]\w*", SERIES),
    (r"\w+ocr", VLM),
    (r"\w*(layoutlm|layoutxlm|docvqa)\w*", DOCUMENT),
    (r"chat(?!gpt)\w*|\w+chat\w*|\w*instruct\w*|\w+hermes", CHAT),
    (r"\w*bart|\w+t5p?|t5\w*|wmt\d+|\w+pegasus", SEQ2SEQ),
    (
        r"\w*gpt\d*|\w*llama\d*|\w*mistral|\w*mixtral|\w*qwen\d*|\w*gemma\d*|\w+falcon|\w*(?<!en)(?<!de)coder\d?|\w+llm|\w+lm",
        CAUSAL,
    ),
)

_PUBLISHERS: _Rows = (
    (SENTENCE, "sentencetransformers"),
    (CLASSIFIER, "crossencoder"),
    (IMAGE, "timm"),
    (SPEECH, "speechbrain"),
    (SOUND, "pyannote"),
    (TTS, "parlertts espnet coqui"),
    (SEQ2SEQ, "helsinkinlp"),
    (VLM, "llavahf opengvlab"),
    (DETECTOR, "ultralytics"),
    (VIDEO, "mcgnju"),
    (SERIES, "amazonchronos"),
)
ORGANISATIONS = _by_word(_PUBLISHERS)
"""Joined words of a namespace on the hub that publishes one kind of model."""

_LONGEST = 6
"""Words of the longest model types (`higgs_audio_v2_tokenizer` has four)."""

# Model types that are also everyday words, so that a name may hold them by accident.
_EVERYDAY = frozenset({"beam", "bit", "doge", "flint", "mvp", "radio"})


@dataclass(frozen=True)
class Marker:
    """A known word or run of words in a name.

    Attributes:
        text: The words, joined.
        kind: What it stands for.
        start: Position of its first word.
        length: Number of words.
        is_type: Whether it is a model type of the installed transformers.
        exact: Whether the words are known as they are, not by a prefix or suffix.
    """

    text: str
    kind: Kind
    start: int
    length: int
    is_type: bool
    exact: bool


def find_marker(tokens: Sequence[str]) -> Marker | None:
    """Return the first known run of words, the longest of those that start at the same word.

    First, because names put what a model is before what it is built from: `detr-resnet-50`, `blip2-opt-2.7b`,
    `llava-v1.6-mistral-7b`.
    """
    weak: Marker | None = None
    for start in range(len(tokens)):
        found = _exact(tokens, start) or _by_affix(tokens, start)
        if found and found.text not in _EVERYDAY:
            return found
        weak = weak or found
    return weak


def find_markers(tokens: Sequence[str]) -> list[Marker]:
    """Return every known run of words that does not overlap an earlier one."""
    found = []
    start = 0
    while start < len(tokens):
        marker = _exact(tokens, start) or _by_affix(tokens, start)
        if marker:
            found.append(marker)
        start += marker.length if marker else 1
    return found


def _exact(tokens: Sequence[str], start: int) -> Marker | None:
    types, names = _types(), CHECKPOINT_NAMES
    for length in range(min(_LONGEST, len(tokens) - start), 0, -1):
        joined = "".join(tokens[start : start + length])
        # Checkpoints first: Blenderbot's type is one of sequence to sequence, and its purpose is to chat.
        kind = names.get(joined) or types.get(joined)
        if kind:
            return Marker(joined, kind, start, length, joined in types, exact=True)
    return None


def _by_affix(tokens: Sequence[str], start: int) -> Marker | None:
    """Know `resnet50`, `paligemma2`, `distilroberta`, `scibert` by what they begin or end with."""
    kind, is_type = _affix_kind(tokens[start])
    return Marker(tokens[start], kind, start, 1, is_type, exact=False) if kind else None


@lru_cache(maxsize=4096)
def _affix_kind(token: str) -> tuple[Kind | None, bool]:
    for stem in (re.sub(r"v?\d+[a-z]?$", "", token), token.removeprefix("distil"), token.removeprefix("tiny")):
        kind = CHECKPOINT_NAMES.get(stem) or _types().get(stem)
        if kind and stem != token and len(stem) > 3:
            return kind, stem in _types()
    return next((kind for pattern, kind in AFFIXES if re.fullmatch(pattern, token)), None), False


@cache
def _types() -> Mapping[str, Kind]:
    """Joined words of every model type -> its kind."""
    return {"".join(words(model_type)): kind for model_type, kind in kinds_of_types().items()}
