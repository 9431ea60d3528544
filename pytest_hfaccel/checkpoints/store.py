"""Checkpoints on disk: built or downloaded once, safe under parallel workers."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pytest_hfaccel.checkpoints.checkpoint import Checkpoint
from pytest_hfaccel.checkpoints.choice import choose_weights
from pytest_hfaccel.checkpoints.hub import download
from pytest_hfaccel.errors import CheckpointError, ConfigError
from pytest_hfaccel.spec import ModelSpec, Weights, WeightsChoice

SEED = 0
RECIPE = 1
"""Version of how checkpoints are built. Raise it when the same spec must give another checkpoint."""

_VERSIONED = ("torch", "transformers", "tokenizers")
_LOCK_SECONDS = 1800


class CheckpointStore:
    """Gives every model its checkpoint.

    Args:
        cache_dir: Where built checkpoints, and what backends derive from checkpoints, are kept.
        trust_remote_code: Whether the code of a model's repository may run.
        allow_pickle: Whether weights that are not safetensors may be loaded.
    """

    def __init__(self, cache_dir: Path, *, trust_remote_code: bool = False, allow_pickle: bool = False) -> None:
        self.cache_dir = cache_dir
        self._trust_remote_code = trust_remote_code
        self._allow_pickle = allow_pickle

    def choose(self, spec: ModelSpec, wanted: str, *, named: bool) -> WeightsChoice:
        """Choose the weights of a model; see `pytest_hfaccel.checkpoints.choice.choose_weights`."""
        return choose_weights(spec, wanted, named=named, allow_pickle=self._allow_pickle)

    def prepare(self, spec: ModelSpec, weights: WeightsChoice) -> Checkpoint:
        """Return the checkpoint of a model, building or downloading it if it is not there.

        Raises:
            ConfigError: The model needs its repository's code, and that is not allowed.
            CheckpointError: The checkpoint cannot be built, written or read.
            HubError: It had to be downloaded, and the hub did not answer; or `GatedError`.
        """
        if spec.requires_remote_code and not self._trust_remote_code:
            raise ConfigError(
                f"{spec.name} needs the code of its repository.",
                hint="Read that code; --hf-trust-remote-code then runs it.",
            )
        if weights.kind == Weights.PRETRAINED:
            directory = Path(weights.path) if weights.path else download(spec, allow_pickle=self._allow_pickle)
            return self._checkpoint(spec, weights, directory, _fingerprint_of_files(directory))
        fingerprint = self._fingerprint(spec, weights.kind)
        directory = self.cache_dir / "checkpoints" / f"{spec.architecture}-{weights.kind}-{fingerprint[:16]}"
        build_once(directory, lambda target: _build(spec, weights.kind, target))
        return self._checkpoint(spec, weights, directory, fingerprint)

    def _checkpoint(self, spec: ModelSpec, weights: WeightsChoice, directory: Path, fingerprint: str) -> Checkpoint:
        return Checkpoint(
            spec=spec,
            weights=weights,
            directory=directory,
            fingerprint=fingerprint,
            cache_dir=self.cache_dir,
            trust_remote_code=self._trust_remote_code and spec.requires_remote_code,
            allow_pickle=self._allow_pickle,
        )

    def _fingerprint(self, spec: ModelSpec, kind: Weights) -> str:
        from pytest_hfaccel.checkpoints.configs import config_for

        config = config_for(spec, kind)
        parts = {
            "recipe": RECIPE,
            "seed": SEED,
            "architecture": spec.architecture,
            "task": spec.task,
            "kind": str(kind),
            "config": config.to_dict(),
            "versions": {name: version(name) for name in _VERSIONED},
        }
        return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def _build(spec: ModelSpec, kind: Weights, directory: Path) -> None:
    from pytest_hfaccel.checkpoints.building import build_checkpoint

    build_checkpoint(spec, kind, directory, seed=SEED)


def _fingerprint_of_files(directory: Path) -> str:
    """Hash names, sizes and times of a checkpoint's files: hashing gigabytes would cost more than it saves."""
    try:
        files = sorted(path for path in directory.rglob("*") if path.is_file())
        facts: list[Any] = [(str(p.relative_to(directory)), p.stat().st_size, p.stat().st_mtime_ns) for p in files]
    except OSError as error:
        raise CheckpointError(f"{directory} cannot be read: {error.strerror}.") from error
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def build_once(directory: Path, build: Callable[[Path], None]) -> None:
    """Make a directory that is either complete or not there, also under parallel processes and kills.

    Args:
        directory: The directory to make; left alone when it exists.
        build: Fills an empty directory beside it, which then takes its place.

    Raises:
        CheckpointError: It cannot be written; nothing is left behind.
    """
    if directory.is_dir():
        return
    from filelock import FileLock, Timeout

    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{directory}.lock", timeout=_LOCK_SECONDS):
            if not directory.is_dir():
                _build_aside(directory, build)
    except Timeout as error:
        raise CheckpointError(f"{directory}: another process has been building it for {_LOCK_SECONDS} s.") from error
    except OSError as error:
        raise CheckpointError(
            f"{directory} cannot be written: {error.strerror or error}.",
            hint="Free space, change the permissions, or choose another directory with --hf-cache.",
        ) from error


def _build_aside(directory: Path, build: Callable[[Path], None]) -> None:
    aside = Path(tempfile.mkdtemp(prefix=f".{directory.name}-", dir=directory.parent))
    try:
        build(aside)
        aside.replace(directory)
        os.utime(directory)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
