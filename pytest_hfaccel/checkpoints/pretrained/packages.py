"""Installed Python packages: those that carry a checkpoint, and those that a class lacks.

Of a package that carries a checkpoint only files are read: it is not imported, and no code of it runs.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pytest_hfaccel.core.errors import CheckpointError, HfAccelError, PackageMissing
from pytest_hfaccel.core.files import hash_of
from pytest_hfaccel.core.spec import ModelSpec, PackageSource

# How transformers says that a class needs a package; the name to install may be another one.
_NEEDED = re.compile(r"requires the (\S+) library")
_INSTALLED_AS = re.compile(r"^`?pip install ([\w-]+)`?\.?(?=\s|$)", re.MULTILINE)


def packaged_folder(source: PackageSource) -> Path | None:
    """Return the folder in which the files of a packaged checkpoint lie, or `None` where one of them is not installed.

    Neither reads nor hashes the files: collection asks this of every model.
    """
    folder = _installed_folder(source.folder)
    if folder is None or any(_locate(folder, name) is None for name in source.sha256):
        return None
    return folder


def _installed_folder(path: str) -> Path | None:
    """Return a folder of an installed package, given as `package/folder`, without importing the package."""
    from importlib.util import find_spec

    package, _, inside = path.partition("/")
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        return None
    folder = Path(spec.submodule_search_locations[0]) / inside
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
    files = {name: path for name in source.sha256 if (path := _locate(folder, name)) is not None}
    wrong = [
        f"{path}: its SHA-256 is {digest}, and {spec.source or spec.name} demands {source.sha256[name]}."
        for name, path in files.items()
        if (digest := hash_of(path)) != source.sha256[name]
    ]
    if wrong:
        raise CheckpointError(
            "\n".join(wrong),
            hint=f"The package is damaged, or of another version: pip install --force-reinstall"
            f"{source.command.removeprefix('pip install')}",
        )
    if not source.converter and not (folder / "config.json").is_file():
        raise CheckpointError(
            f"{folder} has no config.json.", hint=f"{spec.source or spec.name}: name its checkpoint's folder."
        )
    return files


def _locate(folder: Path, name: str) -> Path | None:
    """Find a file: in the folder, or, where a checkpoint is split among packages, in a neighbouring one."""
    path = folder / name
    if path.is_file():
        return path
    beside = _installed_folder(str(Path(name).parent)) if "/" in name else None
    path = beside / Path(name).name if beside else path
    return path if path.is_file() else None


@contextmanager
def name_missing_package(spec: ModelSpec) -> Iterator[None]:
    """Raise a failure of a class that lacks a package as one that names the package.

    Raises:
        PackageMissing: With the package's name.
    """
    try:
        yield
    except PackageMissing:
        raise
    except (ImportError, HfAccelError) as error:
        package = missing_package(error)
        if package is None:
            raise
        raise PackageMissing(
            f"{spec.architecture} needs the package {package}, which is not installed.",
            hint=f"Install it with: pip install {package}.",
        ) from error


def missing_package(error: BaseException) -> str | None:
    """Return the package that an error, or one it came from, says is missing, by the name it is installed by."""
    cause: BaseException | None = error
    while cause is not None:
        needed = _NEEDED.search(str(cause)) if isinstance(cause, ImportError) else None
        if needed:
            installed_as = _INSTALLED_AS.search(str(cause))
            return installed_as[1] if installed_as else needed[1]
        cause = cause.__cause__
    return None
