"""What tells one checkpoint from another, as a hash: how it is built, and what it became."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pytest_hfaccel.core.errors import CheckpointError
from pytest_hfaccel.core.files import files_below, hash_of, hashes_in
from pytest_hfaccel.core.spec import ModelSpec, Weights, WeightsChoice

_VERSIONED = ("torch", "transformers", "tokenizers")
_END = 2**16
SMOKE_FORWARD_FILE = "trial.safetensors"
"""What a forward pass gave when the checkpoint was built. Its last digits may differ: it does not count."""
NOT_HERE = "not here"
"""The fingerprint of a checkpoint that has yet to be downloaded."""


def fingerprint_of_recipe(spec: ModelSpec, kind: Weights, config: Any, seed: int) -> str:
    """Hash what decides how a checkpoint is built: the config, the seed, the libraries and our own recipe."""
    return _hash(
        {
            "recipe": _recipe(),
            "seed": seed,
            "architecture": spec.architecture,
            "task": spec.task,
            "kind": str(kind),
            "config": config.to_dict(),
            "versions": _versions(),
        }
    )


def fingerprint_of_making(spec: ModelSpec) -> str:
    """Hash what decides what a conversion or a training gives: the entry, the libraries and the module that does it.

    Not all of our recipe: training takes seconds, so a change elsewhere must not repeat it.
    """
    maker = Path(__file__).parent / "pretrained" / ("digits.py" if spec.trained else "converters.py")
    package = asdict(spec.package) if spec.package else None
    entry = {"architecture": spec.architecture, "dims": dict(spec.dims), "trained": spec.trained, "package": package}
    return _hash({**entry, "maker": hash_of(maker), "versions": _versions()})


def fingerprint_of_built(spec: ModelSpec, directory: Path) -> str:
    """Hash what `build_once` made rather than how: what is derived from it holds until a new recipe makes another."""
    hashes = sorted(hashes_in(directory).items())
    return _hash([spec.architecture, spec.task, [facts for facts in hashes if facts[0] != SMOKE_FORWARD_FILE]])


def fingerprint_of_source(spec: ModelSpec, weights: WeightsChoice, *, allow_pickle: bool = False) -> str:
    """Hash what a checkpoint will be made of, before it is there, without importing torch or transformers.

    Returns:
        The files' fingerprint where they are on this machine; our recipe's where the checkpoint is built, which the
        model's entry and the packages' versions decide besides, or converted or trained; `NOT_HERE` where it has yet to
        be downloaded.
    """
    if weights.kind != Weights.PRETRAINED:
        return _recipe()
    if spec.is_made and not weights.path:
        return fingerprint_of_making(spec)
    from pytest_hfaccel.checkpoints.pretrained.hub import cached_snapshot

    snapshot = cached_snapshot(spec, allow_pickle=allow_pickle) if spec.hub_id and not weights.path else None
    directory = Path(weights.path) if weights.path else snapshot
    try:
        return fingerprint_of_files(spec, directory) if directory else NOT_HERE
    except CheckpointError:
        return "unreadable"


def fingerprint_of_files(spec: ModelSpec, directory: Path) -> str:
    """Hash names, sizes and times of a checkpoint's files, and their ends: all of gigabytes would cost too much.

    A copy that keeps times, of a checkpoint trained further, has the same names, sizes and times. The class that reads
    them counts: two classes of one checkpoint are two models.

    Raises:
        CheckpointError: The directory is not there, or cannot be read.
    """
    if not directory.is_dir():
        raise CheckpointError(f"{directory} is not a directory.", hint="A checkpoint is what save_pretrained writes.")
    try:
        stats = [(name, path, path.stat()) for name, path in files_below(directory)]
        facts = [(name, stat.st_size, stat.st_mtime_ns, _ends(path)) for name, path, stat in stats]
    except OSError as error:
        raise CheckpointError(f"{error.filename or directory} cannot be read: {error.strerror}.") from error
    return _hash([spec.architecture, spec.task, *facts])


def _ends(path: Path) -> str:
    """Hash a file's beginning and end; that is all of most files but the weights."""
    with path.open("rb") as file:
        begin = file.read(_END)
        file.seek(max(file.tell(), file.seek(0, os.SEEK_END) - _END))
        return hashlib.sha256(begin + file.read()).hexdigest()


@cache
def _versions() -> dict[str, str]:
    return {name: version(name) for name in _VERSIONED}


@cache
def _recipe() -> str:
    """Hash the code that builds: a change of it must not find the checkpoints of yesterday."""
    sources = sorted(path for path in Path(__file__).parent.rglob("*.*") if path.suffix in (".py", ".yaml"))
    return hashlib.sha256(b"\0".join(path.read_bytes() for path in sources)).hexdigest()


def _hash(facts: Any) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()
