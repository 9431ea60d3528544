"""Which tokenizer and processors a built checkpoint gets, by model type.

Each maker takes the config, changes it where it must agree with the tokenizer, and returns what is to be saved.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from pytest_hfaccel.checkpoints.tokenizers_made import CTC_CHARACTERS, agree, train_tokenizer
from pytest_hfaccel.spec import ModelSpec

_SAMPLING_RATE = 16_000
_CLAP_RATE = 48_000
_WHISPER_TOKENS = (
    "<|startoftranscript|>",
    "<|en|>",
    "<|translate|>",
    "<|transcribe|>",
    "<|startoflm|>",
    "<|startofprev|>",
    "<|nospeech|>",
    "<|notimestamps|>",
)
_CHAT = (
    "{% for message in messages %}{{ message['role'] }}: "
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}<image>{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %} {% endfor %}{% if add_generation_prompt %}assistant:{% endif %}"
)

Maker = Callable[[Any], list[Any]]


def make_processors(config: Any, spec: ModelSpec) -> list[Any]:
    """Make what a built checkpoint needs besides weights.

    Args:
        config: The model's config; special ids and vocabulary are made to agree with the tokenizer.
        spec: The model; its task decides for model types without a maker of their own.
    """
    maker = _MAKERS.get(config.model_type)
    if maker is not None:
        return maker(config)
    return _default(config, spec)


def _default(config: Any, spec: ModelSpec) -> list[Any]:
    """For model types without an entry: what transformers' own tables name, a BERT tokenizer for text else."""
    if hasattr(config.get_text_config(), "vocab_size"):
        special = {"pad_token": "<pad>"} if spec.task == "text-generation" else {}
        return _text(config, "GPT2Tokenizer" if special else "BertTokenizer", **special)
    if isinstance(getattr(config, "image_size", None), int):
        return [_image_processor("ViTImageProcessor", config.image_size)]
    return []


def _text(config: Any, tokenizer_class: str, **special: str) -> list[Any]:
    tokenizer = train_tokenizer(tokenizer_class, **special)
    agree(config, tokenizer)
    return [tokenizer]


def _image_processor(class_name: str, side: int, **options: Any) -> Any:
    import transformers

    square = {"height": side, "width": side}
    return getattr(transformers, class_name)(**{"size": square, "do_resize": True, **options})


def _cropping(class_name: str, side: int, **options: Any) -> Any:
    square = {"height": side, "width": side}
    return _image_processor(class_name, side, size={"shortest_edge": side}, crop_size=square, **options)


def _image(config: Any, class_name: str) -> list[Any]:
    return [_image_processor(class_name, config.image_size)]


def _deit(config: Any) -> list[Any]:
    square = {"height": config.image_size, "width": config.image_size}
    return [_image_processor("DeiTImageProcessor", config.image_size, crop_size=square)]


def _detr(config: Any) -> list[Any]:
    del config  # DETR takes images of any size
    return [_image_processor("DetrImageProcessor", 64, size={"shortest_edge": 64, "longest_edge": 96})]


def _clip(config: Any) -> list[Any]:
    import transformers

    tokenizer = train_tokenizer("CLIPTokenizer")
    agree(config, tokenizer)
    images = _cropping("CLIPImageProcessor", config.vision_config.image_size)
    return [transformers.CLIPProcessor(image_processor=images, tokenizer=tokenizer)]


def _xclip(config: Any) -> list[Any]:
    import transformers

    tokenizer = train_tokenizer("CLIPTokenizer")
    agree(config, tokenizer)
    frames = _cropping("VideoMAEImageProcessor", config.vision_config.image_size)
    return [transformers.XCLIPProcessor(image_processor=frames, tokenizer=tokenizer)]


def _sam(config: Any) -> list[Any]:
    import transformers

    size = config.vision_config.image_size
    mask = {"height": size // 4, "width": size // 4}
    images = transformers.SamImageProcessor(
        size={"longest_edge": size},
        pad_size={"height": size, "width": size},
        mask_size={"longest_edge": size // 4},
        mask_pad_size=mask,
    )
    return [transformers.SamProcessor(image_processor=images)]


def _whisper(config: Any) -> list[Any]:
    import transformers

    tokenizer = train_tokenizer("WhisperTokenizer", extra=_WHISPER_TOKENS)
    agree(config, tokenizer)
    config.decoder_start_token_id = tokenizer.convert_tokens_to_ids(_WHISPER_TOKENS[0])
    config.pad_token_id = tokenizer.eos_token_id
    # These name tokens of the real vocabulary.
    config.begin_suppress_tokens = config.suppress_tokens = None
    # Two frames per position, a hundred frames per second.
    seconds = config.max_source_positions // 50
    features = transformers.WhisperFeatureExtractor(feature_size=config.num_mel_bins, chunk_length=seconds)
    return [transformers.WhisperProcessor(feature_extractor=features, tokenizer=tokenizer)]


def _wav2vec2(config: Any) -> list[Any]:
    import transformers

    with tempfile.TemporaryDirectory() as directory:
        vocabulary = Path(directory) / "vocab.json"
        vocabulary.write_text(json.dumps({token: id_ for id_, token in enumerate(CTC_CHARACTERS)}), encoding="utf-8")
        tokenizer = transformers.Wav2Vec2CTCTokenizer(str(vocabulary))
    agree(config, tokenizer)
    features = transformers.Wav2Vec2FeatureExtractor(
        sampling_rate=_SAMPLING_RATE, return_attention_mask=config.feat_extract_norm == "layer"
    )
    return [transformers.Wav2Vec2Processor(feature_extractor=features, tokenizer=tokenizer)]


def _clap(config: Any) -> list[Any]:
    import transformers

    tokenizer = train_tokenizer("RobertaTokenizer")
    agree(config, tokenizer)
    features = transformers.ClapFeatureExtractor(
        feature_size=config.audio_config.num_mel_bins,
        sampling_rate=_CLAP_RATE,
        max_length_s=1,
        truncation="rand_trunc",
        padding="repeatpad",
    )
    return [transformers.ClapProcessor(feature_extractor=features, tokenizer=tokenizer)]


def _llava(config: Any, *, tiled: bool) -> list[Any]:
    import transformers

    tokenizer = train_tokenizer("LlamaTokenizer", extra=("<image>",), pad_token="<pad>")
    agree(config, tokenizer)
    config.image_token_index = config.image_token_id = tokenizer.convert_tokens_to_ids("<image>")
    size, patch = config.vision_config.image_size, config.vision_config.patch_size
    config.image_seq_length = (size // patch) ** 2
    options = {"image_grid_pinpoints": config.image_grid_pinpoints} if tiled else {}
    images = _cropping("LlavaNextImageProcessor" if tiled else "CLIPImageProcessor", size, **options)
    processor = transformers.LlavaNextProcessor if tiled else transformers.LlavaProcessor
    return [
        processor(
            image_processor=images,
            tokenizer=tokenizer,
            patch_size=patch,
            vision_feature_select_strategy=config.vision_feature_select_strategy,
            image_token="<image>",
            num_additional_image_tokens=1,
            chat_template=_CHAT,
        )
    ]


_MAKERS: dict[str, Maker] = {
    "bert": partial(_text, tokenizer_class="BertTokenizer"),
    "distilbert": partial(_text, tokenizer_class="DistilBertTokenizer"),
    "roberta": partial(_text, tokenizer_class="RobertaTokenizer"),
    "gpt2": partial(_text, tokenizer_class="GPT2Tokenizer", pad_token="<|pad|>"),
    "t5": partial(_text, tokenizer_class="T5Tokenizer"),
    "llama": partial(_text, tokenizer_class="LlamaTokenizer", pad_token="<pad>"),
    "qwen2": partial(_text, tokenizer_class="Qwen2Tokenizer"),
    "vit": partial(_image, class_name="ViTImageProcessor"),
    "deit": _deit,
    "detr": _detr,
    "clip": _clip,
    "xclip": _xclip,
    "sam": _sam,
    "whisper": _whisper,
    "wav2vec2": _wav2vec2,
    "clap": _clap,
    "llava": partial(_llava, tiled=False),
    "llava_next": partial(_llava, tiled=True),
}
