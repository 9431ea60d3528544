"""What a name of a model means: its class and its real dimensions."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from importlib.resources import files
from pathlib import Path
from types import EllipsisType
from typing import TYPE_CHECKING, Any

from pytest_hfaccel.classify import MODEL_FAMILIES, UNKNOWN
from pytest_hfaccel.core.errors import ConfigError, HfAccelError
from pytest_hfaccel.core.spec import ModelSpec
from pytest_hfaccel.registry import resolve_model

if TYPE_CHECKING:
    from pytest_hfaccel.classify import ModelFamilyClassifier
    from pytest_hfaccel.registry import Registry


@dataclass(frozen=True)
class NamedModel:
    """A model as far as predictions need to know it.

    Attributes:
        name: What the user called it.
        origin: Where class and dimensions come from, or why they are not known; without a full stop.
        family: The classifier's family, or the one the user stated; empty where neither knows.
        architecture: transformers class; empty where the dimensions are not known.
        dims: Config fields that differ from the class's default config.
        is_assumed: Whether the dimensions are not those of the model itself.
        measured_names: Names under which rows of it can be in a database, the most likely one first.
        parameters: Number of parameters, where it is stated.
        requires_remote_code: Whether the class is the checkpoint's own code.
    """

    name: str
    origin: str
    family: str = ""
    architecture: str = ""
    dims: Mapping[str, Any] = field(default_factory=dict, hash=False)
    is_assumed: bool = False
    measured_names: tuple[str, ...] = ()
    parameters: int | None = None
    requires_remote_code: bool = False

    @property
    def dimensions(self) -> str:
        """How the dimensions are known: `known`, `assumed` (those of something else stand in) or `unknown`."""
        if not self.architecture:
            return "unknown"
        return "assumed" if self.is_assumed else "known"

    @property
    def canonical(self) -> str:
        """The name its rows most likely have: the registered one where it is registered."""
        return self.measured_names[0] if self.measured_names else self.name

    @cached_property
    def key(self) -> str:
        """What makes two models the same to a trace: class and dimensions."""
        return json.dumps([self.architecture, self.dims], sort_keys=True, default=str)


class ModelFinder:
    """Finds class and dimensions of models, for everything that computes with them.

    They come from the registry, a directory's config.json, the table of well-known checkpoints or the hub; where none
    of these knows the name, from the size in it. A class's default config is another model: it stands in only where
    that was asked for (`assume_default`), and `NamedModel.is_assumed` says so.
    """

    def __init__(self, registry: Registry, *, assume_default: bool = False) -> None:
        self._registry, self._assume_default = registry, assume_default
        self._found: dict[tuple[str, str, str], NamedModel] = {}

    def find(self, name: str | EllipsisType, family: str | None = None, model_class: str | None = None) -> NamedModel:
        """Return the model of a name; one whose dimensions are not known has no architecture.

        Args:
            name: Registered name, local directory, hub id or any other name. `...`, as guides write it for "any model",
                is the first registered one.
            family: Its family, where the caller knows it.
            model_class: Architecture class to use instead of the checkpoint's own.

        Raises:
            ConfigError: The name is empty or a directory that is not there, or there is no such family.
            CheckpointError: It is a directory without a readable config.json.
        """
        if isinstance(name, EllipsisType):
            name = self._registry.specs[0].name
        if not isinstance(name, str) or not name.strip():
            raise ConfigError(f"model: {name!r} is no name.", hint="`hfaccel registry list` shows registered models.")
        if family and family not in MODEL_FAMILIES:
            raise ConfigError(f"family: {family!r} is not a family. Allowed: {', '.join(MODEL_FAMILIES)}.")
        key = (name, family or "", model_class or "")
        if key not in self._found:
            found = self._find(name, model_class)
            self._found[key] = replace(found, family=family or self._family(name, found.architecture or None))
        return self._found[key]

    def _find(self, name: str, model_class: str | None) -> NamedModel:
        is_path = _is_path(name)
        checkpoint = None if is_path or self._registry.match(name) else find_checkpoint(name)
        if checkpoint is not None:
            return NamedModel(
                name=name,
                origin=f"dimensions of {checkpoint.source}",
                architecture=model_class or checkpoint.architecture,
                dims=checkpoint.dims,
                measured_names=tuple(dict.fromkeys((name, checkpoint.name, checkpoint.source))),
                parameters=checkpoint.parameters,
            )
        try:
            found = resolve_model(name, self._registry, needs_task=False)
        except (OSError, RuntimeError) as error:  # too long for a file's name, or the home of a user who is not there
            raise ConfigError(f"{name[:80]}: this is not the name of a model: {error}") from error
        except HfAccelError as error:
            if is_path:
                raise
            return self._unknown(name, model_class, error.message)
        if len({_size_key(spec) for spec in found}) > 1:
            names = ", ".join(spec.name for spec in found)
            return self._unknown(name, model_class, f"{name!r} is several models: {names}")
        spec = found[0]
        # A registry entry's source is `file:line`, with the folder of the installation: the file's name says enough.
        place = re.split(r"[\\/]", spec.source)[-1] or spec.name
        return NamedModel(
            name=name,
            origin=f"dimensions of {spec.name} ({place})",
            architecture=model_class or spec.architecture,
            dims=spec.dims,
            measured_names=tuple(dict.fromkeys((spec.name, name, spec.hub_id or spec.name))),
            parameters=spec.parameters,
            requires_remote_code=spec.requires_remote_code,
        )

    def _unknown(self, name: str, model_class: str | None, why: str) -> NamedModel:
        """Return what can be said of a model whose dimensions nothing states."""
        why = why.rstrip(".")
        sized = by_size(name)
        if sized is not None and model_class is None:
            return sized
        architecture = model_class or _class_of_type_in(name, self._registry)
        if architecture is None:
            return NamedModel(name, origin=f"dimensions not known: {why}. Its name contains no model type, either")
        if not self._assume_default:
            return NamedModel(
                name,
                origin=f"dimensions not known: {why}. {architecture}'s default config would be used with "
                "--assume-default (`assume_default=True`)",
            )
        origin = f"{architecture}'s default config, assumed because: {why}"
        return NamedModel(name, origin=origin, architecture=architecture, is_assumed=True, measured_names=(name,))

    def _family(self, name: str, architecture: str | None) -> str:
        family = str(self._classifier.classify_model(name, architecture)["family"])
        return family if family != UNKNOWN else ""

    @cached_property
    def _classifier(self) -> ModelFamilyClassifier:
        from pytest_hfaccel.classify import ModelFamilyClassifier

        return ModelFamilyClassifier()


def _is_path(name: str) -> bool:
    """Whether a name means a directory, there or not; a name too long for a file is none."""
    try:
        return name.startswith((".", "/", "~")) or Path(name).is_dir()
    except OSError:
        return False


def _size_key(spec: ModelSpec) -> str:
    """Class and dimensions; which tokens a generation suppresses does not change what a model costs."""
    dims = {key: value for key, value in spec.dims.items() if not key.endswith("suppress_tokens")}
    return json.dumps([spec.architecture, dims], sort_keys=True, default=str)


def _class_of_type_in(name: str, registry: Registry) -> str | None:
    """Return a class for the model type a name holds: a registered one where there is one, else the base model."""
    from pytest_hfaccel.classify.known_models import auto_tables, find_marker
    from pytest_hfaccel.classify.name_evidence import split_name

    marker = find_marker(split_name(name)[1])
    if marker is None or not marker.is_type:
        return None

    def joined(text: str) -> str:
        return re.sub(r"[^a-z0-9]", "", text.lower())

    serving = {
        class_name: heads
        for class_name, heads in auto_tables().heads_of_class.items()
        if any(joined(each) == joined(marker.text) for types in heads.values() for each in types)
    }
    registered = next((spec.architecture for spec in registry.specs if spec.architecture in serving), None)
    return registered or next((class_name for class_name, heads in serving.items() if "" in heads), None)


# Well-known checkpoints, and dimensions for a size that a name states (`llama-34b`)


@dataclass(frozen=True)
class KnownCheckpoint:
    """A checkpoint whose dimensions are known: an entry of `known_dims.yaml`, which explains the attributes."""

    name: str
    architecture: str
    parameters: int
    source: str
    dims: Mapping[str, Any] = field(default_factory=dict, hash=False)
    family: str = ""


@cache
def known_checkpoints() -> dict[str, KnownCheckpoint]:
    """Return all of them by each of their names, without organisation, case and punctuation."""
    import yaml

    data = yaml.safe_load(files(__package__).joinpath("known_dims.yaml").read_text(encoding="utf-8"))
    found = {}
    for name, entry in data["models"].items():
        names = entry.pop("names", ())
        checkpoint = KnownCheckpoint(name, **entry)
        found.update({_plain(each): checkpoint for each in (name, checkpoint.source, *names)})
    return found


def find_checkpoint(name: str) -> KnownCheckpoint | None:
    """Return the checkpoint of a name or hub id; case, organisation and punctuation do not count."""
    return known_checkpoints().get(_plain(name))


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9.]", "", name.rpartition("/")[2].lower())


_SIZE = re.compile(r"(?<![a-z0-9.])(\d+(?:\.\d+)?)(m|b)(?![a-z0-9])")

_SAME = 0.15
"""Sizes in names are rounded: within this share two of them mean the same model (LLaMA's 6.7 billion are `7b`)."""

_LAYERS = ("num_hidden_layers", "num_layers", "n_layer", "encoder_layers", "decoder_layers")
_HEADS = ("num_attention_heads", "num_heads", "n_head", "encoder_attention_heads", "decoder_attention_heads")
_WIDTHS = ("hidden_size", "d_model", "n_embd", "word_embed_proj_dim")
_INNER = ("intermediate_size", "d_ff", "ffn_dim", "encoder_ffn_dim", "decoder_ffn_dim")


def size_in(name: str) -> float | None:
    """Return the number of parameters a name states (`llama-34b`, `opt_350m`), or `None`."""
    found = _SIZE.search(name.rpartition("/")[2].lower())
    return float(found[1]) * {"m": 1e6, "b": 1e9}[found[2]] if found else None


def by_size(name: str) -> NamedModel | None:
    """Return dimensions for a name that holds a known family and a size; `None` where it holds no such thing."""
    size = size_in(name)
    # The longest name first, `llama-3` before `llama`; and a whole word: `llama-34b` is no `llama-3`.
    families = sorted({each.family for each in known_checkpoints().values() if each.family}, key=len, reverse=True)
    words = (rf"(?<![a-z0-9]){re.escape(each)}(?![0-9]*[a-z0-9])" for each in families)
    family = next((each for each, word in zip(families, words, strict=True) if re.search(word, name.lower())), None)
    if size is None or family is None:
        return None
    members = {each.name: each for each in known_checkpoints().values() if each.family == family}
    by_parameters = sorted(members.values(), key=lambda each: each.parameters)
    nearest = min(by_parameters, key=lambda each: abs(each.parameters / size - 1))
    if abs(nearest.parameters / size - 1) > _SAME:
        return _scaled(name, nearest, size)
    origin = f"the dimensions of {nearest.source}, the {family} model of that size"
    return _assumed(name, origin, nearest, nearest.dims, nearest.parameters)


def _assumed(name: str, origin: str, known: KnownCheckpoint, dims: Mapping[str, Any], parameters: int) -> NamedModel:
    return NamedModel(
        name=name,
        origin=origin,
        architecture=known.architecture,
        dims=dims,
        is_assumed=True,
        measured_names=(name,),
        parameters=parameters,
    )


def _scaled(name: str, known: KnownCheckpoint, size: float) -> NamedModel | None:
    """Scale depth and width by the cube root of the ratio of the sizes.

    Parameters grow with depth x width^2 (Kaplan et al. 2020, "Scaling laws for neural language models", section 2.1).
    """
    dims = dict(known.dims)
    width = next((each for each in _WIDTHS if each in dims), None)
    heads = next((each for each in _HEADS if each in dims), None)
    if width is None or heads is None:
        return None
    factor = (size / known.parameters) ** (1 / 3)
    groups = max(1, dims[heads] // dims.get("num_key_value_heads", dims[heads]))
    new_heads = max(groups, round(factor * dims[heads] / groups) * groups)
    head_width = dims[width] // dims[heads]
    # Heads come in groups, so the width cannot be chosen freely: the depth makes up for it.
    deeper = size / known.parameters / (new_heads * head_width / dims[width]) ** 2
    for each in dims:
        if each in _LAYERS:
            dims[each] = max(1, round(deeper * dims[each]))
        elif each in _HEADS:
            dims[each] = new_heads
        elif each in _WIDTHS:
            dims[each] = new_heads * head_width
        elif each in _INNER:
            dims[each] = round(dims[each] * new_heads * head_width / known.dims[width] / 64) * 64
        elif each == "num_key_value_heads":
            dims[each] = new_heads // groups
    origin = (
        f"assumed: depth and width of {known.source} scaled by {factor:.2f}, to {size / 1e9:.3g} billion parameters"
    )
    return _assumed(name, origin, known, dims, round(size))
