"""Checkpoints: chosen, then built or downloaded once, and kept."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from pytest_hfaccel.checkpoints.checkpoint import Checkpoint
from pytest_hfaccel.checkpoints.choice import choose_weights
from pytest_hfaccel.checkpoints.fingerprint import (
    fingerprint_of_built,
    fingerprint_of_files,
    fingerprint_of_making,
    fingerprint_of_recipe,
)
from pytest_hfaccel.checkpoints.hub import download
from pytest_hfaccel.checkpoints.packaged import packaged_folder, verified_files
from pytest_hfaccel.checkpoints.packages import packages_named
from pytest_hfaccel.checkpoints.remote_code import refuse_foreign_code, require_consent
from pytest_hfaccel.core.errors import HubError
from pytest_hfaccel.core.files import build_once
from pytest_hfaccel.core.spec import ModelSpec, Weights, WeightsChoice

SEED = 0


class CheckpointStore:
    """Gives every model its checkpoint.

    Args:
        cache_dir: Where built checkpoints, and what backends derive from checkpoints, are kept.
        trust_remote_code: Models whose repository's code may run; see `ModelSpec.may_run_its_code`.
        allow_pickle: Whether weights that are not safetensors may be loaded.
    """

    def __init__(self, cache_dir: Path, *, trust_remote_code: Collection[str] = (), allow_pickle: bool = False) -> None:
        self.cache_dir = cache_dir
        self._trust_remote_code = trust_remote_code
        self._allow_pickle = allow_pickle

    def choose(self, spec: ModelSpec, wanted: str, *, named: bool) -> WeightsChoice:
        """Choose the weights of a model; see `pytest_hfaccel.checkpoints.choice.choose_weights`."""
        return choose_weights(spec, wanted, named=named, allow_pickle=self._allow_pickle)

    def prepare(self, spec: ModelSpec, weights: WeightsChoice) -> Checkpoint:
        """Return the checkpoint of a model, building or downloading it if it is not there.

        Raises:
            ConfigError: The model needs its repository's code, and that is not allowed; or the hub does not know it.
            CheckpointError: The checkpoint cannot be written or read.
            LoadError: transformers could not build the model.
            PackageMissing: Its class needs a package that is not installed.
                Or the package that carries its weights is not installed.
            HubError: It had to be downloaded, and the hub did not answer.
            GatedError: It had to be downloaded, and the hub wants a licence accepted.
        """
        require_consent(spec, self._trust_remote_code, Path(weights.path) if weights.path else None)
        with packages_named(spec):
            return self._prepared(spec, weights)

    def _prepared(self, spec: ModelSpec, weights: WeightsChoice) -> Checkpoint:
        if weights.kind == Weights.PRETRAINED:
            directory = self._pretrained(spec, weights)
            fingerprint = fingerprint_of_files(spec, directory)
            if spec.requires_remote_code:
                refuse_foreign_code(directory, self._trust_remote_code)
        else:
            directory = self._built(spec, weights.kind)
            from pytest_hfaccel.checkpoints.trial import FILE

            # A trial's outputs may differ in their last digits.
            fingerprint = fingerprint_of_built(spec, directory, ignored=FILE)
        return Checkpoint(
            spec=spec,
            weights=weights,
            directory=directory,
            fingerprint=fingerprint,
            cache_dir=self.cache_dir,
            trust_remote_code=spec.requires_remote_code,  # nobody gets here without consent
            allow_pickle=self._allow_pickle,
        )

    def _pretrained(self, spec: ModelSpec, weights: WeightsChoice) -> Path:
        """Return where trained weights lie: as they are, converted or trained once, or downloaded."""
        package = spec.package
        folder = packaged_folder(package) if package else None
        if weights.path and Path(weights.path) != folder:
            return Path(weights.path)
        if package and (folder or not spec.hub_id):
            files = verified_files(spec, package)
            if not package.converter:
                return Path(weights.path or str(folder))
            from pytest_hfaccel.checkpoints.converters import convert

            return self._made(spec, lambda target: convert(spec, files, target))
        if spec.trained:
            from pytest_hfaccel.checkpoints.trained import train_digits

            return self._made(spec, lambda target: train_digits(spec, target))
        try:
            return download(spec, allow_pickle=self._allow_pickle)
        except HubError as error:
            if package:
                error.hint = f"A package has these weights, too: {package.command}\n{error.hint or ''}".rstrip()
            raise

    def _made(self, spec: ModelSpec, make: Callable[[Path], None]) -> Path:
        """Make trained weights into a checkpoint in the cache, unless the same code has done so."""
        from pytest_hfaccel.checkpoints.building import building

        def build(target: Path) -> None:
            with building(spec, target):
                make(target)

        name = f"{spec.slug}-{Weights.PRETRAINED}-{fingerprint_of_making(spec)[:16]}"
        directory = self.cache_dir / "checkpoints" / name
        build_once(directory, build)
        return directory

    def _built(self, spec: ModelSpec, kind: Weights) -> Path:
        from pytest_hfaccel.checkpoints.building import build_checkpoint
        from pytest_hfaccel.checkpoints.configs import config_for
        from pytest_hfaccel.checkpoints.trial import build_tried, needs_trial

        config = config_for(spec, kind)
        recipe = fingerprint_of_recipe(spec, kind, config, SEED)

        def inputs(target: Path) -> Any:
            return Checkpoint(spec, WeightsChoice(kind, "being built"), target, recipe, self.cache_dir).sample().forward

        def build(target: Path) -> None:
            if kind == Weights.TINY and needs_trial(spec):
                build_tried(spec, target, inputs, seed=SEED)
            else:
                build_checkpoint(spec, config, target, seed=SEED)

        directory = self.cache_dir / "checkpoints" / f"{spec.architecture}-{kind}-{recipe[:16]}"
        build_once(directory, build)
        return directory
