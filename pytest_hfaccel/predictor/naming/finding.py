"""Finds out what a name of a model means."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from types import EllipsisType
from typing import TYPE_CHECKING

from pytest_hfaccel.advisor.model_source import KnownModel, find_model
from pytest_hfaccel.errors import ConfigError
from pytest_hfaccel.families import MODEL_FAMILIES, UNKNOWN
from pytest_hfaccel.predictor.naming.known_models import find_checkpoint
from pytest_hfaccel.predictor.naming.named_model import NamedModel
from pytest_hfaccel.predictor.naming.size_in_name import by_size

if TYPE_CHECKING:
    from pytest_hfaccel.families import ModelFamilyClassifier
    from pytest_hfaccel.registry import Registry


class ModelFinder:
    """Finds class and dimensions of models.

    They come from the registry, a directory, the table of well-known checkpoints or the hub; where none of these knows
    the name, from the size in it or from the class's default config, which `origin` then says.

    Args:
        registry: The models that are known.
    """

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._found: dict[tuple[str, str], NamedModel] = {}

    def find(self, name: str | EllipsisType, family: str | None = None) -> NamedModel:
        """Return the model of a name; one about which nothing is known has no architecture.

        Args:
            name: Registered name, local directory, hub id or any other name. `...`, as guides write it for "any model",
                is the first registered one.
            family: Its family, where the caller knows it.

        Raises:
            ConfigError: The name is empty, or there is no such family.
        """
        if isinstance(name, EllipsisType):
            name = self._registry.specs[0].name
        if not isinstance(name, str) or not name.strip():
            raise ConfigError(f"model: {name!r} is no name.", hint="`hfaccel registry list` shows registered models.")
        if family and family not in MODEL_FAMILIES:
            raise ConfigError(f"family: {family!r} is not a family. Allowed: {', '.join(MODEL_FAMILIES)}.")
        key = (name, family or "")
        if key not in self._found:
            self._found[key] = self._find(name, family)
        return self._found[key]

    def _find(self, name: str, family: str | None) -> NamedModel:
        is_ours = bool(self._registry.match(name)) or Path(name).expanduser().is_dir()
        checkpoint = None if is_ours else find_checkpoint(name)
        if checkpoint is not None:
            return NamedModel(
                name=name,
                family=family or self._family(name, checkpoint.architecture),
                origin=f"dimensions of {checkpoint.source}",
                architecture=checkpoint.architecture,
                dims=checkpoint.dims,
                measured_names=tuple(dict.fromkeys((name, checkpoint.name, checkpoint.source))),
                parameters=checkpoint.parameters,
            )
        known = find_model(name, None, self._registry)
        if isinstance(known, KnownModel) and not known.is_assumed:
            return self._known(name, family, known)
        return self._assumed(name, family, known)

    def _known(self, name: str, family: str | None, known: KnownModel) -> NamedModel:
        spec = known.spec
        return NamedModel(
            name=name,
            family=family or self._family(name, spec.architecture),
            origin=f"dimensions of {spec.name} ({known.origin})",
            architecture=spec.architecture,
            dims=spec.dims,
            measured_names=tuple(dict.fromkeys((spec.name, name, spec.hub_id or spec.name))),
            parameters=spec.parameters,
        )

    def _assumed(self, name: str, family: str | None, known: KnownModel | str) -> NamedModel:
        sized = by_size(name)
        if sized is not None:
            return NamedModel(
                name=name,
                family=family or self._family(name, sized.architecture),
                origin=sized.origin,
                architecture=sized.architecture,
                dims=sized.dims,
                is_assumed=True,
                measured_names=(name,),
                parameters=sized.parameters,
            )
        if isinstance(known, str):
            return NamedModel(name, family or self._family(name, None), f"dimensions not known: {known}")
        architecture = known.spec.architecture
        found = family or self._family(name, architecture)
        return NamedModel(name, found, known.origin, architecture, is_assumed=True, measured_names=(name,))

    def _family(self, name: str, architecture: str | None) -> str:
        answer = self._classifier.classify_model(name, architecture)
        return str(answer["family"]) if answer["family"] != UNKNOWN else ""

    @cached_property
    def _classifier(self) -> ModelFamilyClassifier:
        from pytest_hfaccel.families import ModelFamilyClassifier

        return ModelFamilyClassifier()
