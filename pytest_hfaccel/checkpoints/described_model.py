"""The model that a checkpoint's files describe, read without `from_pretrained`, and how a loaded model differs from it.

The headers of the weights' files name tensors, dtypes and shapes; `config.json` alone, with no weights read, gives the
settings of every layer (an epsilon, a scale, a stride). A loaded model is compared with both.
"""

from __future__ import annotations

import inspect
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pytest_hfaccel.checkpoints.integrity import read_header, weight_files
from pytest_hfaccel.core.errors import CheckpointError
from pytest_hfaccel.upstream.accelerate import offloaded_weights
from pytest_hfaccel.upstream.torch import skip_init_on_meta, whole_tensor
from pytest_hfaccel.upstream.transformers import quiet

if TYPE_CHECKING:
    import torch

    Tensors = Mapping[str, torch.Tensor]
    Settings = dict[str, dict[str, Any]]

_INTEGERS = frozenset({"BOOL", "U8", "I8", "I16", "U16", "I32", "U32", "I64", "U64"})
_DIMENSION = re.compile(r"(^|_)(size|dim|layers?|heads|embd|model|ff|depth|width)$")
_LAYERS = re.compile(r"(^|_)(layers?|depth)$")
_UNDOUBTED_SIZE = 10**7
"""A dimension up to this one is not doubted, however small the weights are."""
_UNDOUBTED_DEPTH = 1000
_MOST_TIMES_LARGER = 4
"""How many times as many numbers as the files hold a model may have: heads that the files lack, tied weights."""
_MOST_NAMED = 5
"""How many tensors a message names."""


class StoredTensor(NamedTuple):
    """A tensor in a file: its safetensors dtype (`F32`) and its shape."""

    file: Path
    dtype: str
    shape: tuple[int, ...]


class DescribedModel:
    """The model that a checkpoint's files describe.

    Args:
        directory: The checkpoint.
        model_class: Gives the class that its weights are for.

    Attributes:
        tensors: What the files hold, by name; empty where the weights are pickled.
        vocabulary: Rows of the table of word vectors; `None` where the class has none. Known after `require_fit`.
    """

    def __init__(self, directory: Path, model_class: Callable[[], Any]) -> None:
        self._directory = directory
        self._model_class = model_class
        self.tensors = _stored_tensors(directory)
        self._settings: Settings | None = None
        self.vocabulary: int | None = None

    def require_fit(self) -> None:
        """Refuse a config that is not one of the class, or that asks for other dimensions than the weights have.

        Runs before anything is loaded: a model with absurd dimensions would fill the memory.

        Raises:
            CheckpointError: It does not fit; the message says what does not.
        """
        config = json.loads((self._directory / "config.json").read_text(encoding="utf-8"))
        place = self._directory / "config.json"
        problem = _wrong_type(config, self._model_class()) or self._impossible(config)
        if problem:
            raise CheckpointError(
                f"{place} does not fit: {problem}.", hint="Take the config.json saved with the weights."
            )
        self._settings = {}
        blank = _model_without_weights(self._model_class(), self._directory)
        if blank is None:
            return
        wanted, there = sum(part.numel() for part in blank.parameters()), self._elements
        if there and wanted > max(_MOST_TIMES_LARGER * there, _UNDOUBTED_SIZE):
            raise CheckpointError(
                f"{place} does not fit: it describes {wanted:,} parameters, and the weights are {there:,} numbers.",
                hint="Take the config.json saved with the weights.",
            )
        self._settings = settings_of(blank)
        with suppress(AttributeError, NotImplementedError):  # what it takes are no tokens
            rows = getattr(blank.get_input_embeddings(), "num_embeddings", None)
            self.vocabulary = rows if isinstance(rows, int) else None

    def differences(self, model: Any, *, ignored: Iterable[str] = (), has_run: bool = False) -> list[str]:
        """Return what a loaded model has differently from the files, a line for each kind; none when it is the same.

        Args:
            model: The transformers model, on any device and at any floating-point dtype.
            ignored: Tensors of the files that the model has no place for.
            has_run: Whether the model has run already. Some layers keep what a forward pass finds among their settings
                (RWKV's rescaled layers, NLLB's capacity of experts), so that settings are compared before it only.
        """
        import torch

        lines = []
        with torch.no_grad():
            mistyped, different = self._compared(model, set(ignored))
        if mistyped:
            lines.append(
                f"tensors that hold integers in the files, floating-point numbers by the class: {_first_few(mistyped)}"
            )
        if different:
            lines.append(f"tensors with other values than in the files: {_first_few(different)}")
        loaded = {} if has_run else settings_of(model)
        changed = [
            f"{name or 'the model'}.{key} is {loaded[name][key]!r} instead of {value!r}"
            for name, settings in (self._settings or {}).items()
            for key, value in settings.items()
            if key in loaded.get(name, {}) and repr(loaded[name][key]) != repr(value)
        ]
        if changed:
            lines.append(f"settings of layers that do not follow from config.json: {_first_few(changed)}")
        return lines

    @property
    def _elements(self) -> int:
        return sum(math.prod(stored.shape) for stored in self.tensors.values())

    def _impossible(self, config: dict[str, Any]) -> str:
        if not self.tensors:
            return ""
        for name, value in _integers(config):
            if _LAYERS.search(name) and value > max(_MOST_TIMES_LARGER * len(self.tensors), _UNDOUBTED_DEPTH):
                return f"{name} is {value}, and the weights are {len(self.tensors)} tensors"
            if _DIMENSION.search(name) and value > max(self._elements, _UNDOUBTED_SIZE):
                return f"{name} is {value}, and all the weights together are {self._elements:,} numbers"
        return ""

    def _compared(self, model: Any, ignored: set[str]) -> tuple[list[str], list[str]]:
        """Return the names of the tensors of another kind, and of those with other values, than in the files."""
        loaded = WholeTensors(model)
        mistyped, suspects = [], {}
        with _reading(self.tensors) as read:
            for name, stored in self.tensors.items():
                if name in ignored:
                    continue
                mine = loaded.get(_name_in_model(model, loaded, name))
                if mine is not None and mine.is_floating_point() and stored.dtype in _INTEGERS:
                    mistyped.append(f"{name} ({stored.dtype})")
                elif mine is None or not _is_same(mine, read(name)):
                    suspects[name] = mine is not None
            return mistyped, _still_different(model, loaded, suspects, read)


class WholeTensors(Mapping[str, "torch.Tensor"]):
    """The tensors of a model by name; one that is split over processes or offloaded is fetched when it is asked for."""

    def __init__(self, model: Any) -> None:
        self._tensors = model.state_dict()
        self._offloaded = offloaded_weights(model)

    def __getitem__(self, name: str) -> torch.Tensor:
        if name in self._offloaded:
            return self._offloaded[name]()
        tensor = whole_tensor(self._tensors[name])
        return tensor if tensor is self._tensors[name] else tensor.cpu()

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)


def settings_of(model: Any) -> Settings:
    """Return the numbers and switches that each module of a model holds, by the module's name."""
    kinds = (bool, int, float)
    return {
        name: {
            key: value
            for key, value in vars(module).items()
            if type(value) in kinds and not key.startswith("_") and key != "training"
        }
        for name, module in model.named_modules()
    }


def tensors_of_other_heads(model_class: Any, config: Any, names: Iterable[str]) -> set[str]:
    """Return those of the named tensors that belong to another class of the same architecture.

    A checkpoint of `BertForPreTraining` holds more than `BertForMaskedLM` takes. That is no fault: a class without
    a pooler ignores the pooler's weights, and what it takes is complete.

    Args:
        model_class: The class that has no place for them.
        config: Its config.
        names: Names of tensors in a checkpoint.
    """
    from transformers import PreTrainedModel

    left = set(names)
    for other in list(vars(inspect.getmodule(model_class)).values()):
        is_sibling = (
            isinstance(other, type)
            and issubclass(other, PreTrainedModel)
            and other.__module__ == model_class.__module__
            and getattr(other, "config_class", None) is model_class.config_class
            and other is not model_class
        )
        if not (left and is_sibling):
            continue
        blank = _model_without_weights(other, config)
        keys = set(blank.state_dict()) if blank is not None else set()
        left = {name for name in left if not keys.intersection(_spellings(model_class, name))}
    return set(names) - left


def tensors_of_other_shape(loading_info: dict[str, Any]) -> list[str]:
    """Return a line that says which tensors have another shape in the files than in the model; none where none has.

    Args:
        loading_info: What `from_pretrained(..., output_loading_info=True)` says.
    """
    lines = [
        f"{name} is {tuple(stored)} in the files, {tuple(wanted)} by config.json"
        for name, stored, wanted in sorted(loading_info["mismatched_keys"])
    ]
    return [f"tensors of another shape: {_first_few(lines, '; ')}"] if lines else []


def _stored_tensors(directory: Path) -> dict[str, StoredTensor]:
    tensors: dict[str, StoredTensor] = {}
    for file in weight_files(directory):
        for name, facts in read_header(file).items():
            if name in tensors:
                raise CheckpointError(
                    f"{directory}: the tensor {name} is in {tensors[name].file.name} and in {file.name}.",
                    hint="Which one counts is not said: save the checkpoint again.",
                )
            tensors[name] = StoredTensor(file, facts["dtype"], tuple(facts["shape"]))
    return tensors


def _wrong_type(config: dict[str, Any], model_class: Any) -> str:
    """Say why a config is of another architecture than a class; empty when it is not, or does not tell its type."""
    own, named = model_class.config_class, config.get("model_type")
    if own is None or not named or named == own.model_type or "auto_map" in config:
        return ""
    from transformers import CONFIG_MAPPING

    if named not in CONFIG_MAPPING:
        return f"its model_type {named!r} is unknown to transformers, {model_class.__name__} takes {own.model_type!r}"
    config_class = CONFIG_MAPPING[named]
    # A class may take a part of another's config (CLIPTextModel that of CLIP), or the configs of several types.
    parts = getattr(config_class, "sub_configs", {}).values()
    if issubclass(config_class, own) or issubclass(own, config_class) or own in parts:
        return ""
    return f"its model_type is {named!r}, and {model_class.__name__} takes {own.model_type!r}"


def _integers(config: Any) -> Iterator[tuple[str, int]]:
    for name, value in config.items():
        if isinstance(value, dict):
            yield from _integers(value)
        elif type(value) is int:
            yield name, value


def _model_without_weights(model_class: Any, config: Any) -> Any:
    """Make a model on the meta device from a config or the directory with its file; `None` where its class cannot."""
    import torch

    try:
        with quiet, skip_init_on_meta, torch.device("meta"):
            if isinstance(config, Path):
                return model_class(model_class.config_class.from_pretrained(config, local_files_only=True))
            return model_class(deepcopy(config))
    except Exception:  # Whatever the code of a class raises: `from_pretrained` will say it better.
        return None


def _spellings(model: Any, name: str) -> tuple[str, str, str]:
    """A tensor's name as it is, with and without the prefix of the base model."""
    prefix = f"{getattr(model, 'base_model_prefix', '')}."
    return name, prefix + name, name.removeprefix(prefix)


def _name_in_model(model: Any, loaded: Tensors, name: str) -> str:
    """Return the name in a model of a tensor in the files, by transformers' own table of renamings."""

    def spelled_as_loaded(name: str) -> str | None:
        return next((spelling for spelling in _spellings(model, name) if spelling in loaded), None)

    known = spelled_as_loaded(name)
    if known is not None:
        return known
    try:
        from transformers.core_model_loading import WeightRenaming
    except ImportError:
        return name
    for step in getattr(model, "_weight_conversions", None) or ():
        if type(step) is WeightRenaming:
            name = step.rename_source_key(name)[0]
    return spelled_as_loaded(name) or name


def _still_different(
    model: Any, loaded: Tensors, suspects: dict[str, bool], read: Callable[[str], torch.Tensor]
) -> list[str]:
    """Return which tensors are different once what transformers transposes or merges is as it was saved.

    `suspects` are tensors of the files that are not the model's of the same name, and whether there is one.
    """
    if not suspects:
        return []
    try:
        from transformers.core_model_loading import revert_weight_conversion

        as_saved = revert_weight_conversion(model, dict(loaded))
    except Exception:  # It cannot be turned back: a conversion without a way back, or an older transformers.
        as_saved = dict(loaded)
    different = []
    for name, has_namesake in suspects.items():
        tensor = read(name)
        mine = next((as_saved[spelling] for spelling in _spellings(model, name) if spelling in as_saved), None)
        if mine is not None and _is_same(mine, tensor):
            continue
        # Under a name that only the class knows: the values tell.
        if mine is None and any(_is_same(other, tensor) for other in loaded.values()):
            continue
        if mine is not None or has_namesake:
            different.append(name)
    return different


@contextmanager
def _reading(tensors: Mapping[str, StoredTensor]) -> Iterator[Callable[[str], torch.Tensor]]:
    """Give a function that reads a tensor by its name, and opens each file once."""
    from safetensors import safe_open

    with ExitStack() as files:

        @cache
        def opened(file: Path) -> Any:
            return files.enter_context(safe_open(file, framework="pt"))

        yield lambda name: opened(tensors[name].file).get_tensor(name)


def _is_same(loaded: torch.Tensor, stored: torch.Tensor) -> bool:
    """Whether a tensor of a model is one of a file, cast to its dtype; NaN equals NaN."""
    import torch

    if loaded.shape != stored.shape:
        return False
    mine, theirs = loaded.detach().cpu(), stored.to(loaded.dtype)
    if torch.equal(mine, theirs):
        return True
    return bool(((mine == theirs) | (mine.isnan() & theirs.isnan())).all())


def _first_few(names: list[str], separator: str = ", ") -> str:
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    return separator.join(names[:_MOST_NAMED]) + more
