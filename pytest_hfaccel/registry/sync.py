"""`hfaccel registry sync`: the popular models of some classes on the hub, as entries for a registry file.

Of each model its config.json is read, and no more. What the hub has listed is remembered for a day, and every
config.json in the hub's own cache, so that a sync that was interrupted, or told to wait, goes on where it was.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import Any

from pytest_hfaccel.core.errors import ConfigError, GatedError, HfAccelError, HubError
from pytest_hfaccel.core.files import replace_file
from pytest_hfaccel.core.spec import ModelSpec
from pytest_hfaccel.registry.additions import add_entries, entry_of, open_document, write_document
from pytest_hfaccel.registry.auto_classes import auto_entries, every_pair
from pytest_hfaccel.registry.catalog import Registry
from pytest_hfaccel.registry.document import Document
from pytest_hfaccel.registry.hub import HubModel, fetch_config, list_models, reach_hub
from pytest_hfaccel.registry.installed import default_config, model_type_of
from pytest_hfaccel.registry.resolution import read_config, spec_of_config
from pytest_hfaccel.upstream.huggingface_hub import hub_errors

FOLDER = "hub"
"""The folder in the cache directory in which listings are remembered."""

_FRESH_SECONDS = 86400

_OWN_CODE = (
    "Its repository has code of its own. Read it; then `requires_remote_code: true` here and --hf-trust-remote-code\n"
    "run it."
)


@dataclass
class Sync:
    """What a sync has found.

    Attributes:
        file: The registry file.
        before: Its content.
        entries: The entries to add, by name.
        comments: What to know about them, by name.
        differing: A line for each entry of the file that says something else than the hub does.
        skipped: Why a model got no entry, by hub id.
        known: How many of the popular models are registered.
        problem: Why the hub was not asked to the end; empty when it was.
    """

    file: Path
    before: Document
    entries: dict[str, dict[str, Any]] = field(default_factory=dict)
    comments: dict[str, str] = field(default_factory=dict)
    differing: list[str] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    known: int = 0
    problem: str = ""

    @property
    def after(self) -> Document:
        """The file with the entries added.

        Raises:
            ConfigError: It cannot be added to without being rewritten.
        """
        return add_entries(self.before, self.entries, self.comments) if self.entries else self.before

    def diff(self) -> str:
        """Return what would change in the file, as a unified diff; empty when nothing would."""
        from difflib import unified_diff

        name = self.file.as_posix()
        is_new = not self.file.exists()
        lines = unified_diff(
            [] if is_new else self.before.text.splitlines(keepends=True),
            self.after.text.splitlines(keepends=True) if self.entries else [],
            "/dev/null" if is_new else name,
            name,
        )
        return "".join(lines) if self.entries else ""

    def apply(self) -> None:
        """Write the file.

        Raises:
            CheckpointError: It cannot be written.
        """
        if self.entries:
            write_document(self.file, self.after)


def sync(
    architectures: Iterable[str],
    file: Path,
    registry: Registry,
    *,
    top: int,
    cache: Path,
    refresh: bool = False,
    note: Callable[[str], object] = lambda _: None,
) -> Sync:
    """Find the most downloaded models of some classes, and what a registry file lacks of them. Imports transformers.

    Args:
        architectures: Classes of the installed transformers.
        file: The registry file.
        registry: What is registered, the file included.
        top: How many models per class.
        cache: Our cache directory.
        refresh: Whether to ask for listings anew that are remembered.
        note: Called with each class before the hub is asked for it.

    Raises:
        HubError: The hub did not answer, or is switched off.
        RegistryError: The file has mistakes.
    """
    found = Sync(file, open_document(file))
    names = {spec.hub_id: spec.name for spec in registry.specs} | {spec.name: spec.name for spec in registry.specs}
    listings: dict[str, Listing] = {}
    for architecture in architectures:
        note(architecture)
        of_class = []
        for model_type in _model_types(architecture):
            if model_type not in listings:
                listings[model_type] = Listing(("transformers", model_type), cache / FOLDER, refresh)
            of_class.append(listings[model_type])
        listed = chain.from_iterable(of_class)
        try:
            with hub_errors(architecture):
                for model in islice((model for model in listed if architecture in model.architectures), top):
                    _add(found, architecture, model, registry, names)
        except HubError as error:
            found.problem = error.message
            if not (found.entries or found.known):
                raise
            break
        finally:
            for listing in of_class:
                listing.remember()
    return found


def _model_types(architecture: str) -> list[str]:
    """Return the model types of a class, which the hub has as tags: one, but for classes that serve several."""
    mapped = dict.fromkeys(entry.model_type for entry in auto_entries() if entry.architecture == architecture)
    other = () if mapped else (model_type_of(architecture),)
    return [*mapped, *filter(None, other)]


def _add(found: Sync, architecture: str, model: HubModel, registry: Registry, names: Mapping[str, str]) -> None:
    """Note a model as an entry to add, as known, or as skipped."""
    own = (found.before.data.get("models") or {}).get(names.get(model.hub_id, ""))
    if model.hub_id in found.entries or (model.hub_id in names and own is None):
        found.known += model.hub_id not in found.entries
        return
    entry: dict[str, Any] = {"architecture": architecture}
    own_code = model.own_code
    try:
        path, _ = fetch_config(model.hub_id)
        config = read_config(path)
        own_code |= bool(config.get("auto_map"))
        config["architectures"] = [architecture]
        spec = _spec(model.hub_id, config, registry)
        entry = entry_of(spec, default_config(architecture))
    except GatedError:
        if task := registry.classes.get(architecture, {}).get("task"):
            entry["task"] = task
        found.comments[model.hub_id] = "Its config.json wants an accepted licence: its dims are not known."
    except HubError:
        raise
    except HfAccelError as error:
        found.skipped[model.hub_id] = error.message
        return
    entry |= {"gated": True} if model.gated else {}
    entry |= {"parameters": model.parameters} if model.parameters else {}
    if own is not None:
        found.known += 1
        wrong = [key for key in ("architecture", "gated", "parameters", "dims") if own.get(key) != entry.get(key)]
        if wrong:
            name = names[model.hub_id]
            told = ", ".join(f"{key}: {json.dumps(entry.get(key))}" for key in wrong)
            found.differing.append(f"{found.before.place(('models', name))}: {name}: the hub says {told}")
        return
    found.entries[model.hub_id] = entry
    if own_code:
        found.comments[model.hub_id] = "\n".join(filter(None, (found.comments.get(model.hub_id), _OWN_CODE)))


def _spec(hub_id: str, config: dict[str, Any], registry: Registry) -> ModelSpec:
    """Return the spec of a model; where nothing else tells its task, that of its class in transformers' mappings."""
    try:
        return spec_of_config(hub_id, config, registry, hub_id=hub_id)
    except ConfigError:
        task = next((pair.task for pair in every_pair() if pair.architecture == config["architectures"][0]), None)
        if task is None:
            raise
        return spec_of_config(hub_id, config, registry, hub_id=hub_id, task=task)


class Listing:
    """The models with some tags, as the hub lists them; what was listed within a day is remembered.

    Args:
        tags: The tags.
        folder: Where listings are remembered.
        refresh: Whether to forget what is remembered.
    """

    def __init__(self, tags: tuple[str, ...], folder: Path, refresh: bool = False) -> None:
        self._tags = tags
        self._file = folder / f"{hashlib.sha256(json.dumps([_endpoint(), *tags]).encode()).hexdigest()[:16]}.json"
        self._models: list[HubModel] = []
        self._is_whole = self._is_changed = False
        self._more: Iterator[HubModel] | None = None
        if not refresh:
            self._recall()

    def __iter__(self) -> Iterator[HubModel]:
        yield from list(self._models)
        if self._is_whole:
            return
        if self._more is None:
            reach_hub()
            self._more = islice(list_models(list(self._tags)), len(self._models), None)
        for model in self._more:
            self._models.append(model)
            self._is_changed = True
            yield model
        self._is_whole = self._is_changed = True

    def remember(self) -> None:
        """Write down what has been listed."""
        if self._is_changed:
            facts = {"listed": time.time(), "tags": self._tags, "whole": self._is_whole, "models": self._models}
            with suppress(OSError):  # the next sync asks again
                replace_file(self._file, json.dumps(facts))
            self._is_changed = False

    def _recall(self) -> None:
        with suppress(OSError, ValueError, KeyError, TypeError):
            facts = json.loads(self._file.read_text(encoding="utf-8"))
            if 0 <= time.time() - facts["listed"] < _FRESH_SECONDS:
                self._models = [HubModel(hub_id, tuple(names), *rest) for hub_id, names, *rest in facts["models"]]
                self._is_whole = bool(facts["whole"])


def _endpoint() -> str:
    from huggingface_hub import constants

    return str(constants.ENDPOINT)
