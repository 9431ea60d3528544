"""The models that `hfaccel bench` measures."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_hfaccel.core.errors import ConfigError

if TYPE_CHECKING:
    from pytest_hfaccel.core.spec import ModelSpec
    from pytest_hfaccel.registry import Registry


KEY = (
    "bert-base-uncased",
    "gpt2",
    "t5-small",
    "HuggingFaceTB/SmolLM2-135M",
    "Qwen/Qwen2-0.5B",
    "google/vit-base-patch16-224",
    "facebook/detr-resnet-50",
    "facebook/sam-vit-base",
    "openai/clip-vit-base-patch32",
    "microsoft/xclip-base-patch32",
    "laion/clap-htsat-unfused",
    "openai/whisper-tiny",
    "facebook/wav2vec2-base-960h",
    "llava-hf/llava-1.5-7b-hf",
)
"""One registered model per key model class: the smallest that people use."""

SMALL = (
    "sentence-transformers/all-MiniLM-L6-v2",
    "distilbert-base-uncased",
    "distilgpt2",
    "t5-small",
    "facebook/deit-tiny-distilled-patch16-224",
    "facebook/detr-resnet-50",
    "openai/whisper-tiny",
    "facebook/wav2vec2-base-960h",
)
"""Registered models below 100 million parameters, one per kind of work."""

CUSTOM = "custom"
SETS: Mapping[str, Sequence[str]] = {"key": KEY, "small": SMALL, CUSTOM: ()}


def models_of_set(
    name: str, registry: Registry, custom: Sequence[str] = (), only: Sequence[str] = ()
) -> list[ModelSpec]:
    """Return the models of a set.

    Args:
        name: `key`, `small` or `custom`.
        registry: The models that are known.
        custom: For the set `custom`: registered names, wildcards, directories, hub ids, or JSON files that list them.
        only: Names or wildcards; of the set only the models that match one of them are returned. Each
            must match one.

    Raises:
        ConfigError: The set is unknown or empty, or a model cannot be.
    """
    from pytest_hfaccel.registry import resolve_model

    if name == CUSTOM and not custom:
        raise ConfigError("--models-set custom: name the models with --custom-models.")
    if custom and name != CUSTOM:
        raise ConfigError(f"--custom-models: the set is {name!r}.", hint="Add `--models-set custom`.")
    names = [listed for text in custom for listed in _names(text)] if name == CUSTOM else SETS[name]
    specs = list(dict.fromkeys(spec for one in names for spec in resolve_model(one, registry)))
    missing = [pattern for pattern in only if not any(_matches(spec, [pattern]) for spec in specs)]
    if missing:
        known = ", ".join(spec.name for spec in specs)
        raise ConfigError(
            f"--specific-models: {', '.join(missing)}: not in the set {name!r}: {known}.",
            hint="Models outside the sets are measured with `--models-set custom --custom-models`.",
        )
    return [spec for spec in specs if not only or _matches(spec, only)]


def _matches(spec: ModelSpec, patterns: Iterable[str]) -> bool:
    names = (spec.name.lower(), spec.name.rpartition("/")[2].lower())
    return any(fnmatchcase(name, pattern.lower()) for pattern in patterns for name in names)


def _names(text: str) -> list[str]:
    """Return the models a word means: itself, or those a JSON file lists.

    The file holds a list of names, or an object whose values are names or objects with a `name`.
    """
    path = Path(text).expanduser()
    if path.suffix != ".json":
        return [text]
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"--custom-models {text}: it cannot be read as JSON: {error}") from error
    entries = list(data.values()) if isinstance(data, dict) else data if isinstance(data, list) else [None]
    names = [entry.get("name") if isinstance(entry, dict) else entry for entry in entries]
    if not all(isinstance(name, str) and name for name in names):
        raise ConfigError(
            f"--custom-models {text}: expected a list of names, or an object of names or of objects with a 'name'."
        )
    return [str(name) for name in names]
