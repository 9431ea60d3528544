"""Chooses the weights of a model and provides its checkpoint: built, converted, trained or downloaded once, and kept.

Choosing imports neither torch nor transformers: collection asks for it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from pytest_hfaccel.checkpoints.checkpoint import Checkpoint
from pytest_hfaccel.checkpoints.fingerprint import (
    fingerprint_of_built,
    fingerprint_of_files,
    fingerprint_of_making,
    fingerprint_of_recipe,
)
from pytest_hfaccel.checkpoints.pretrained.digits import lacks_scikit_learn
from pytest_hfaccel.checkpoints.pretrained.hub import cached_snapshot, download, hub_refusal
from pytest_hfaccel.checkpoints.pretrained.packages import name_missing_package, packaged_folder, verified_files
from pytest_hfaccel.checkpoints.pretrained.remote_code import (
    require_trust_of_other_repositories,
    require_trust_remote_code,
)
from pytest_hfaccel.core.errors import ConfigError, HubError
from pytest_hfaccel.core.files import build_once
from pytest_hfaccel.core.spec import ModelSpec, Weights, WeightsChoice


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
        """Choose the weights of a model; see `choose_weights`."""
        return choose_weights(spec, wanted, named=named, allow_pickle=self._allow_pickle)

    def prepare(self, spec: ModelSpec, weights: WeightsChoice) -> Checkpoint:
        """Return the checkpoint of a model, building or downloading it if it is not there.

        Raises:
            ConfigError: The model needs its repository's code, and that is not allowed; or the hub does not know it.
            CheckpointError: The checkpoint cannot be written or read.
            LoadError: transformers could not build the model.
            PackageMissing: A package that its class needs, or that carries its weights, is not installed.
            HubError: It had to be downloaded, and the hub did not answer.
            GatedError: It had to be downloaded, and the hub wants a licence accepted.
        """
        require_trust_remote_code(spec, self._trust_remote_code, Path(weights.path) if weights.path else None)
        with name_missing_package(spec):
            if weights.kind == Weights.PRETRAINED:
                directory = self._pretrained_directory(spec, weights)
                fingerprint = fingerprint_of_files(spec, directory)
                if spec.requires_remote_code:
                    require_trust_of_other_repositories(directory, self._trust_remote_code)
            else:
                directory = self._build_once(spec, weights.kind)
                fingerprint = fingerprint_of_built(spec, directory)
        # Remote code: refused above without consent.
        return Checkpoint(
            spec, weights, directory, fingerprint, self.cache_dir, spec.requires_remote_code, self._allow_pickle
        )

    def bytes_to_build(self, spec: ModelSpec, weights: WeightsChoice) -> int:
        """Return about how much memory `prepare` takes to build real dimensions; 0 where it builds none.

        Raises:
            LoadError: There is no such class.
        """
        if weights.kind != Weights.RANDOM:
            return 0
        from pytest_hfaccel.checkpoints.build import bytes_of_building
        from pytest_hfaccel.checkpoints.configs import model_class, real_config

        return bytes_of_building(model_class(spec), real_config(spec))

    def _pretrained_directory(self, spec: ModelSpec, weights: WeightsChoice) -> Path:
        """Return where trained weights lie: as they are, converted or trained once, or downloaded."""
        package = spec.package
        folder = packaged_folder(package) if package else None
        if weights.path and Path(weights.path) != folder:
            return Path(weights.path)
        if package and (folder or not spec.hub_id):
            files = verified_files(spec, package)
            if not package.converter:
                return Path(weights.path or str(folder))
            from pytest_hfaccel.checkpoints.pretrained.converters import convert

            return self._make_once(spec, lambda target: convert(spec, files, target))
        if spec.trained:
            from pytest_hfaccel.checkpoints.pretrained.digits import train_digits

            return self._make_once(spec, lambda target: train_digits(spec, target))
        try:
            return download(spec, allow_pickle=self._allow_pickle)
        except HubError as error:
            if package:
                error.hint = f"A package has these weights, too: {package.command}\n{error.hint or ''}".rstrip()
            raise

    def _make_once(self, spec: ModelSpec, make: Callable[[Path], None]) -> Path:
        """Make trained weights into a checkpoint in the cache, unless the same code has done so."""
        from pytest_hfaccel.checkpoints.build import build_errors

        def build(target: Path) -> None:
            with build_errors(spec, target):
                make(target)

        name = f"{spec.slug}-{Weights.PRETRAINED}-{fingerprint_of_making(spec)[:16]}"
        directory = self.cache_dir / "checkpoints" / name
        build_once(directory, build)
        return directory

    def _build_once(self, spec: ModelSpec, kind: Weights) -> Path:
        from pytest_hfaccel.checkpoints.build import (
            SEED,
            build_checkpoint,
            build_until_it_runs,
            needs_smoke_forward,
        )
        from pytest_hfaccel.checkpoints.configs import real_config, tiny_config

        config = tiny_config(spec) if kind == Weights.TINY else real_config(spec)
        recipe = fingerprint_of_recipe(spec, kind, config, SEED)

        def inputs(target: Path) -> Any:
            return Checkpoint(spec, WeightsChoice(kind, "being built"), target, recipe, self.cache_dir).sample().forward

        def build(target: Path) -> None:
            if kind == Weights.TINY and needs_smoke_forward(spec):
                build_until_it_runs(spec, target, inputs)
            else:
                build_checkpoint(spec, config, target)

        directory = self.cache_dir / "checkpoints" / f"{spec.architecture}-{kind}-{recipe[:16]}"
        build_once(directory, build)
        return directory


def choose_weights(spec: ModelSpec, wanted: str, *, named: bool, allow_pickle: bool = False) -> WeightsChoice:
    """Choose the weights of a model.

    Args:
        spec: The model.
        wanted: `auto`, `pretrained`, `random` or `tiny`.
        named: Whether the user named the model; only then may `auto` download it.
        allow_pickle: Whether weights that are not safetensors count as present.

    Raises:
        ConfigError: `tiny` or `random` weights were asked for a model whose class is in its repository.
    """
    if wanted in (Weights.RANDOM, Weights.TINY):
        if spec.requires_remote_code:
            raise ConfigError(f"{spec.name}: {wanted} weights need a class of transformers, and its class is its own.")
        reason = "asked for by --hf-weights"
        knows_size = (
            spec.dims.keys() - {"model_type"} or spec.parameters is not None
        )  # the number is verified with dims
        if wanted == Weights.RANDOM and not knows_size:
            reason += "; no dims are registered: the dimensions are the defaults of its config class"
        return WeightsChoice(Weights(wanted), reason)
    local = _weights_on_disk(spec, allow_pickle)
    if local is not None:
        return local
    if wanted == Weights.PRETRAINED:
        return WeightsChoice(Weights.PRETRAINED, "asked for by --hf-weights")
    return _weights_to_fetch(spec, named=named)


def _weights_on_disk(spec: ModelSpec, allow_pickle: bool) -> WeightsChoice | None:
    if spec.path:
        return WeightsChoice(Weights.PRETRAINED, "a local directory", spec.path)
    if spec.package:
        folder = packaged_folder(spec.package)
        if folder is not None:
            package = spec.package.folder.partition("/")[0]
            reason = f"in the installed package {package}"
            if spec.package.converter:
                return WeightsChoice(Weights.PRETRAINED, f"{reason}, converted")
            return WeightsChoice(Weights.PRETRAINED, reason, str(folder))
    if spec.trained and not lacks_scikit_learn():
        return WeightsChoice(Weights.PRETRAINED, f"trained here on scikit-learn's {spec.trained}")
    snapshot = cached_snapshot(spec, allow_pickle=allow_pickle) if spec.hub_id else None
    return WeightsChoice(Weights.PRETRAINED, "in the local cache", str(snapshot)) if snapshot else None


def _weights_to_fetch(spec: ModelSpec, *, named: bool) -> WeightsChoice:
    if spec.package:
        reason = f"their package is not installed: {spec.package.command}"
    elif spec.trained:
        reason = "training them needs scikit-learn: pip install scikit-learn"
    else:
        reason = "not in the local cache"
    if named and spec.hub_id:
        refusal = hub_refusal(spec)
        if refusal is None:
            return WeightsChoice(Weights.PRETRAINED, "named, and on the hub")
        reason = f"{reason}; {refusal}"
    # Of a class in its repository no tiny model can be built: the absence is the cell's error, with this reason.
    return WeightsChoice(Weights.PRETRAINED if spec.requires_remote_code else Weights.TINY, reason)
