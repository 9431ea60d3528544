"""Well-known checkpoint families whose names are not model types of transformers, and finding either in a name.

Names are matched as whole words, joined without separators (`sentence t5` = `sentence-t5` = `sentencet5`). The tables
know what a *name* stands for; what a class is for is never looked up here unless transformers does not list it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache

from pytest_hfaccel.classify.model_types import (
    AUDIO,
    CAUSAL,
    CHAT,
    CLASSIFIER,
    DEPTH,
    DETECTOR,
    DOCUMENT,
    DUAL,
    IMAGE,
    MASKED,
    SEGMENTATION,
    SENTENCE,
    SEQ2SEQ,
    SERIES,
    SOUND,
    SPEECH,
    TTS,
    VIDEO,
    VIDEO_TEXT,
    VISION,
    VLM,
    Kind,
    auto_tables,
    families_of,
)
from pytest_hfaccel.classify.term_evidence import words

_NAMES: tuple[tuple[Kind, str], ...] = (
    (
        SENTENCE,
        "acge alldistilroberta allminilm allmpnet ance arcticembed bge colbert contriever distiluse dragonplus e5 "
        "gritlm gtr instructor jinabert jinaembeddings labse m3e minilm msmarco multiqa mxbaiembed nomicembed "
        "nvembed piccolo sapbert sbert sentencet5 sfr sfrembedding simcse specter splade stella text2vec tsdae "
        "uae",
    ),
    (
        MASKED,
        "bertin bertweet caduceus chinesebert chinesemacbert codesage dnabert ernie2 ernie3 esm1b esm1v esm2 "
        "esmfold hyenadna lert macbert minilml12h384 minilml6h384 minilmv2 mlm mluke multilingualminilm muril "
        "nucleotide retribert structbert tinybert unixcoder wobert wwm xlmmlm xlmr xtremedistil",
    ),
    (
        CLASSIFIER,
        "finbert gliner promptguard tapex textclassification textclassifier",
    ),
    (
        CAUSAL,
        "aquila baichuan bielik biomedlm bloomz calm2 cerebrasgpt codegeex codegemma codellama codestral command "
        "croissantllm dclm decilm deepseek deepseekcoder dialoglm elyza eurollm exaone falcon3 galactica gemma31b "
        "gemma3270m gpt grok hunyuan incoder internlm jais japanesegpt kanana kimi kogpt llama2 llama3 longcat "
        "lucie magicoder mathstral meditron megatrongpt mgpt mimo minicpm minitron mobilellm "
        "nekomata openelm openhathi "
        "openllama phi1 phi2 phind plamo polycoder polyglot poro powermoe progen protgpt2 pythia qwen qwen1 "
        "redpajama refact replitcode retnet rinna rugpt salamandra santacoder sealion seallm skywork smollm "
        "smollm2 solar stablecode starcoder starcoderbase stripedhyena swallow telechat teuken tinyllama "
        "tinystories transformerxl transfoxl viking weblab wizardcoder xgen xlmclm xverse yi youri",
    ),
    (
        # From `qwen3` on: published as chat models, the pretrained ones say `-Base`.
        CHAT,
        "airoboros alpaca aya baize blenderbot c4aicommand chatglm chatglm2 chatglm3 commanda commandr "
        "commandrplus dialogpt dolly dolphin guanaco hermes koala manticore medalpaca neuralchat noushermes oasst "
        "openassistant openchat openhermes orca orca2 platypus saiga samantha stablebeluga starling tulu vicuna "
        "wizardlm xwin zephyr deepseekr1 deepseekv31 deepseekv32 ernie45 exaone40 glm45 glm46 glm47 "
        "gptoss kimik2 lfm2 minimaxm2 qwen3 qwen35 qwq ringmini smollm3",
    ),
    (
        SEQ2SEQ,
        "arat5 barthez bartpho bert2bert byt5 codet5 coedit distilbart flant5 flanul2 godel indicbart indictrans "
        "indictrans2 kot5 macaw madlad madlad400 marianmt mbart50 mengzit5 mrebel mt0 nllb opus opusmt prott5 "
        "ptt5 rag rebel roberta2roberta scifive switchbase t0 t0pp tkinstruct ul2 unifiedqa wmt19",
    ),
    (
        IMAGE,
        "beit3 coatnet convmixer davit densenet dino dinov3 dit edgenext efficientformer efficientnetv2 "
        "efficientvit eva eva02 fastvit gcvit ghostnet inception mae maxvit mit mobilenet mobilenetv3 mobilenetv4 "
        "mobileone nat nfnet phikon raddino regnety resnext rexnet seresnet simmim tfefficientnet tinyvit vgg "
        "virchow volo wideresnet xception xcit",
    ),
    (
        DETECTOR,
        "deta doclayout fasterrcnn llmdet owl yolo yolo11 yolov10 yolov5 yolov8 yolox",
    ),
    (
        SEGMENTATION,
        "birefnet deeplab deeplabv3 fastsam isnet maskrcnn medsam mobilesam rmbg slimsam u2net unet",
    ),
    (
        DEPTH,
        "depthanythingv2 marigold metric3d midas",
    ),
    (
        VISION,
        "esrgan flux sdxl stablediffusion",
    ),
    (
        SPEECH,
        "audioflamingo citrinet crisperwhisper distilhubert kotobawhisper mhubert mms moshika moshiko paraformer "
        "parakeet quartznet reazonspeech s2t s2tt seamless sensevoice speech2text stt ultravox w2v w2vbert "
        "wav2vec xlsr xlsr300m xlsr53",
    ),
    (
        SOUND,
        "ast audiomae ecapa ecapatdnn largerclap lid mert mmslid panns pyannote yamnet",
    ),
    (
        TTS,
        "audiogen audioldm audioldm2 chattts cosyvoice f5tts fastspeech fastspeech2 fishspeech hifigan jukebox "
        "kokoro llasa matchatts melotts mmstts orpheus outetts parler parlertts riffusion stableaudio styletts2 "
        "tacotron tacotron2 tts vocoder vocos xtts",
    ),
    (
        AUDIO,
        "snac speechtokenizer wavtokenizer",
    ),
    (
        VLM,
        "bakllava bunny cambrian cogagent cogvlm cogvlm2 docling emu2 florence gitbase gitlarge glm41v glm45v "
        "internvl2 internvl25 internvl3 kimik25 kimik26 kimivl kosmos llama32vision medgemma minicpmllama3v "
        "minicpmo minicpmv minigpt4 mistralsmall31 mistralsmall32 mobilevlm molmo molmoe moondream moondream2 "
        "mplug mplugowl multimodality nanovlm nemotronnanovl nvila nvlm obsidian ofa openflamingo openvla ovis "
        "phi35vision phi3v phi3vision phi4mm qvq qwenvl smoldocling tinyllava videollama vila vitgpt2 xgenmm yivl",
    ),
    (
        DUAL,
        "biomedclip blipitm colqwen colqwen2 colsmolvlm evaclip fashionclip imagebind jinaclip metaclip "
        "mobileclip openclip pecore plip pubmedclip remoteclip streetclip tinyclip",
    ),
    (
        DOCUMENT,
        "deplot docowl docquery docvqa donut layoutxlm matcha nougat texify",
    ),
    (
        VIDEO,
        "cogvideo cogvideox internvideo internvideo2 movinet slowfast uniformer vjepa x3d",
    ),
    (
        VIDEO_TEXT,
        "clip4clip languagebindvideo viclip",
    ),
    (
        SERIES,
        "chronos lagllama moirai moment sundial timegpt timeseries tinytimemixer tspulse ttm",
    ),
)

CHECKPOINT_NAMES: dict[str, Kind] = {name: kind for kind, names in _NAMES for name in names.split()}
"""Joined words -> what a checkpoint of that name is for."""

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

ORGANISATIONS: dict[str, Kind] = {
    "sentencetransformers": SENTENCE,
    "crossencoder": CLASSIFIER,
    "timm": IMAGE,
    "speechbrain": SPEECH,
    "pyannote": SOUND,
    "parlertts": TTS,
    "espnet": TTS,
    "coqui": TTS,
    "helsinkinlp": SEQ2SEQ,
    "llavahf": VLM,
    "opengvlab": VLM,
    "ultralytics": DETECTOR,
    "mcgnju": VIDEO,
    "amazonchronos": SERIES,
}
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
        is_type: Whether it is a model type of the installed transformers.
        exact: Whether the words are known as they are, not by a prefix or suffix.
    """

    text: str
    kind: Kind
    start: int
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
        start += _length(tokens, start, marker.text) if marker else 1
    return found


def _length(tokens: Sequence[str], start: int, text: str) -> int:
    length, joined = 1, tokens[start]
    while len(joined) < len(text) and start + length < len(tokens):
        joined += tokens[start + length]
        length += 1
    return length


def _exact(tokens: Sequence[str], start: int) -> Marker | None:
    types, names = _types(), CHECKPOINT_NAMES
    for length in range(min(_LONGEST, len(tokens) - start), 0, -1):
        joined = "".join(tokens[start : start + length])
        # Checkpoints first: Blenderbot's type is one of sequence to sequence, and its purpose is to chat.
        kind = names.get(joined) or types.get(joined)
        if kind:
            return Marker(joined, kind, start, joined in types, exact=True)
    return None


def _by_affix(tokens: Sequence[str], start: int) -> Marker | None:
    """Know `resnet50`, `paligemma2`, `distilroberta`, `scibert` by what they begin or end with."""
    kind, is_type = _affix_kind(tokens[start])
    return Marker(tokens[start], kind, start, is_type, exact=False) if kind else None


@lru_cache(maxsize=4096)
def _affix_kind(token: str) -> tuple[Kind | None, bool]:
    for stem in (re.sub(r"v?\d+[a-z]?$", "", token), token.removeprefix("distil"), token.removeprefix("tiny")):
        kind = CHECKPOINT_NAMES.get(stem) or _types().get(stem)
        if kind and stem != token and len(stem) > 3:
            return kind, stem in _types()
    return next((kind for pattern, kind in _affixes() if pattern.fullmatch(token)), None), False


@cache
def _types() -> Mapping[str, Kind]:
    """Joined words of every model type -> its kind."""
    return {"".join(words(model_type)): kind for model_type, kind in families_of(auto_tables()).items()}


@cache
def _affixes() -> list[tuple[re.Pattern[str], Kind]]:
    return [(re.compile(pattern), kind) for pattern, kind in AFFIXES]
