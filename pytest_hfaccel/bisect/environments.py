"""A release of a package, and what it needs, in front of everything else that is installed.

A release is installed into a folder that `PYTHONPATH` puts first, together with those of its dependencies that it does
not accept as they are. All other packages are the installed ones themselves: also builds that no index has, and
projects that are installed in editable form.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib import metadata
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from pytest_hfaccel.bisect.releases import IndexSettings, hide_password
from pytest_hfaccel.core.errors import ConfigError, HfAccelError
from pytest_hfaccel.core.files import build_once

_CHANGES = "hfaccel_changes.json"
_OURS = "pytest-hfaccel"
_TAIL = 600
_NOT_SOURCES = frozenset({"node_modules", "build", "dist", "site-packages"})


class NoEnvironment(HfAccelError):
    """A release cannot be installed beside what is installed."""


@dataclass(frozen=True)
class Environment:
    """The packages that a process sees.

    Attributes:
        folder: What stands in front of the installed packages; `None` for those alone.
        changes: The versions in it by the package's name.
    """

    folder: Path | None = None
    changes: Mapping[str, str] = field(default_factory=dict)

    def variables(self, *first: Path) -> dict[str, str]:
        """Return the environment variables of a process that sees them; `first` are folders before all others."""
        given = os.environ.get("PYTHONPATH", "").split(os.pathsep)
        path = [*map(str, first), *([str(self.folder)] if self.folder else []), *filter(None, given)]
        return {**os.environ, **({"PYTHONPATH": os.pathsep.join(path)} if path else {})}


class Environments:
    """Makes the environments of the releases of a package, and keeps them in the cache.

    Args:
        package: The package.
        settings: Where packages come from.
        cache_dir: The project's cache directory.
        installer: `uv` or `pip`; `auto` for uv where it is found.
        together: Requirements that are installed with each release; `{version}` in them is its version.

    Raises:
        ConfigError: The installer is not there.
    """

    def __init__(
        self,
        package: str,
        settings: IndexSettings,
        cache_dir: Path,
        *,
        installer: str = "auto",
        together: Sequence[str] = (),
    ) -> None:
        self._package = canonicalize_name(package)
        self._settings = settings
        self._folder = cache_dir / "bisect" / "environments"
        self._together = tuple(together)
        self._uv = _find_uv() if installer in ("auto", "uv") else ""
        if installer == "uv" and not self._uv:
            raise ConfigError("--installer uv: uv is not installed.", hint="pip install uv, or leave --installer out.")
        if not self._uv and not _has_pip():
            raise ConfigError(
                "Releases are installed with uv or pip, and this environment has neither.",
                hint="Install uv, or run `python -m ensurepip`.",
            )

    @property
    def installer(self) -> str:
        """What installs: `uv` or `pip`."""
        return "uv" if self._uv else "pip"

    @cached_property
    def installed(self) -> dict[str, Version]:
        """The installed packages."""
        return installed_packages()

    def make(self, version: Version) -> Environment:
        """Return the environment of a release; it is made unless it is in the cache.

        Raises:
            NoEnvironment: The release cannot be installed.
        """
        present = self.installed.get(self._package)
        if present is not None and present.public == version.public and not self._together:
            return Environment()
        together = (each.replace("{version}", version.public) for each in self._together)
        wanted = [f"{self._package}=={version}", *together]
        key = json.dumps([wanted, {name: str(each) for name, each in self.installed.items()}, _platform()])
        name = f"{self._package}-{version}-{hashlib.sha256(key.encode()).hexdigest()[:10]}"
        folder = self._folder / name
        build_once(folder, lambda aside: self._install(wanted, version, aside))
        changes: dict[str, str] = json.loads((folder / _CHANGES).read_text(encoding="utf-8"))
        environment = Environment(folder, changes)
        _require_visible(environment, self._package)
        return environment

    def _install(self, wanted: list[str], version: Version, folder: Path) -> None:
        others = self._dependents(version)
        try:
            changes = self._resolve([*wanted, *others])
        except NoEnvironment:
            if not others:
                raise
            changes = self._resolve(wanted)  # a package that has no release for this one stays as it is
        pins = [f"{name}=={each}" for name, each in changes.items()]
        options = ["--no-deps", "--target", str(folder), "--only-binary", self._package]
        if self._uv:
            self._run(self._uv, "pip", "install", "--python", sys.executable, *options, *self._uv_options(), *pins)
        else:
            self._run(
                *(sys.executable, "-m", "pip", "install", "--quiet", "--no-compile"),
                *options,
                *self._pip_options(),
                *pins,
            )
        (folder / _CHANGES).write_text(json.dumps(changes, indent=1), encoding="utf-8")

    def _dependents(self, version: Version) -> list[str]:
        """Return installed packages that do not work with this release: torchvision is made for one torch alone."""
        found = []
        for one in metadata.distributions():
            name = canonicalize_name(one.metadata["Name"] or "")
            for text in one.requires or ():
                try:
                    needs = Requirement(text)
                except InvalidRequirement:
                    continue
                applies = needs.marker is None or needs.marker.evaluate({"extra": ""})
                if canonicalize_name(needs.name) != self._package or not applies or name in (_OURS, self._package):
                    continue
                if not needs.specifier.contains(version, prereleases=True):
                    found.append(name)
        return sorted(set(found))

    def _resolve(self, wanted: list[str]) -> dict[str, str]:
        """Return what has to be installed for some requirements, by name: what is installed stays where it fits."""
        versions = self._resolve_with_uv(wanted) if self._uv else self._resolve_with_pip(wanted)
        return {
            name: version
            for name, version in versions.items()
            if name == self._package or self._differs(name, Version(version))
        }

    def _differs(self, name: str, version: Version) -> bool:
        present = self.installed.get(name)
        return present is None or present.public != version.public

    def _resolve_with_uv(self, wanted: list[str]) -> dict[str, str]:
        from tempfile import TemporaryDirectory

        with TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
            needs, pins, wheels = Path(scratch, "needs.in"), Path(scratch, "pins.txt"), Path(scratch, "wheels")
            needs.write_text("\n".join(wanted), encoding="utf-8")
            # What stands in the file that is written is preferred, and no more than that.
            present = [f"{name}=={version}" for name, version in self.installed.items() if name != self._package]
            pins.write_text("\n".join(present), encoding="utf-8")
            _describe_installed(wheels, self._package)
            self._run(
                *(self._uv, "pip", "compile", str(needs), "--output-file", str(pins), "--python", sys.executable),
                *("--no-header", "--no-annotate", "--only-binary", self._package, "--find-links", str(wheels)),
                *self._uv_options(),
            )
            lines = [line for line in pins.read_text(encoding="utf-8").splitlines() if "==" in line]
        read = [Requirement(line) for line in lines if not line.startswith("-")]
        return {str(canonicalize_name(one.name)): next(iter(one.specifier)).version for one in read}

    def _resolve_with_pip(self, wanted: list[str]) -> dict[str, str]:
        output = self._run(
            *(sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--report", "-"),
            *("--only-binary", self._package),
            *self._pip_options(),
            *wanted,
        )
        about = [each["metadata"] for each in json.loads(output)["install"]]
        found = {str(canonicalize_name(each["name"])): str(each["version"]) for each in about}
        return {self._package: str(Requirement(wanted[0]).specifier).removeprefix("=="), **found}

    def _pip_options(self) -> Iterator[str]:
        main, *more = (*self._settings.indexes, "")
        yield from ("--index-url", main) if main else ("--no-index",)
        for index in filter(None, more):
            yield from ("--extra-index-url", index)
        yield from self._shared_options()
        yield from ("--disable-pip-version-check", "--no-input")

    def _uv_options(self) -> Iterator[str]:
        main, *more = (*self._settings.indexes, "")
        yield from ("--default-index", main) if main else ("--no-index",)
        for index in filter(None, more):
            yield from ("--index", index)
        # As pip does: the best version of all indexes, not that of the first one that has the package.
        yield from ("--index-strategy", "unsafe-best-match")
        yield from self._shared_options()

    def _shared_options(self) -> Iterator[str]:
        for place in self._settings.find_links:
            yield from ("--find-links", place)
        for file in self._settings.constraints:
            yield from ("--constraint", file)

    def _run(self, *command: str) -> str:
        certificate = self._settings.certificate
        environment = {**os.environ, **({"SSL_CERT_FILE": certificate} if certificate else {})}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            text = (done.stderr.strip() or done.stdout.strip())[-_TAIL:]
            for address in self._settings.indexes:
                text = text.replace(address, hide_password(address))
            raise NoEnvironment(f"{self.installer}: {text}")
        return done.stdout


def installed_packages() -> dict[str, Version]:
    """Return the versions of the installed packages by name, sorted; of two with a name the one that is imported."""
    found: dict[str, Version] = {}
    for one in metadata.distributions():
        if one.metadata["Name"]:
            found.setdefault(canonicalize_name(one.metadata["Name"]), Version(one.version))
    return dict(sorted(found.items()))


def _describe_installed(folder: Path, package: str) -> None:
    """Write wheels that hold the metadata of the installed packages and nothing else, but for one package.

    uv decides by what indexes have, and none may have what is installed: `torch 2.13.0+cpu`, a project of the user's.
    """
    folder.mkdir()
    for one in metadata.distributions():
        name, text = canonicalize_name(one.metadata["Name"] or ""), one.read_text("METADATA")
        if not text or name == package:
            continue
        stem = f"{name.replace('-', '_')}-{Version(one.version)}"
        file = folder / f"{stem}-py3-none-any.whl"
        if file.exists():
            continue
        with zipfile.ZipFile(file, "w") as wheel:
            wheel.writestr(f"{stem}.dist-info/METADATA", text)
            wheel.writestr(f"{stem}.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
            wheel.writestr(f"{stem}.dist-info/RECORD", "")


def fingerprint() -> str:
    """Return a hash of what is installed: versions, and the sources of what is installed in editable form."""
    facts = {
        "packages": {name: str(version) for name, version in installed_packages().items()},
        "platform": _platform(),
        "sources": sorted(_editable_sources()),
    }
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]


def _editable_sources() -> Iterator[tuple[str, int, int]]:
    for one in metadata.distributions():
        about = json.loads(one.read_text("direct_url.json") or "{}")
        if not about.get("dir_info", {}).get("editable"):
            continue
        for folder, inner, files in os.walk(url2pathname(urlsplit(about["url"]).path)):
            inner[:] = [name for name in inner if not name.startswith((".", "__")) and name not in _NOT_SOURCES]
            for name in files:
                if name.endswith((".py", ".yaml", ".json", ".js")):
                    stat = Path(folder, name).stat()
                    yield str(Path(folder, name)), stat.st_size, stat.st_mtime_ns


def _platform() -> list[str]:
    return [sys.version, sysconfig.get_platform(), platform.machine()]


def _find_uv() -> str:
    found = shutil.which("uv")
    if found:
        return found
    beside = Path(sys.executable).with_name("uv.exe" if os.name == "nt" else "uv")
    return str(beside) if beside.exists() else ""


def _has_pip() -> bool:
    # Not by `find_spec("pip")`: setuptools answers that with a warning once distutils is imported.
    try:
        metadata.distribution("pip")
    except metadata.PackageNotFoundError:
        return False
    return True


_WHERE = """
import sys
from importlib.metadata import distribution
from importlib.util import find_spec
found = distribution(sys.argv[1])
tops = sorted({file.parts[0] for file in found.files or () if file.parts[1:] == ("__init__.py",)})
print(found.locate_file(""), *[find_spec(top).origin for top in tops], sep="\\n")
"""


def _require_visible(environment: Environment, package: str) -> None:
    """Refuse an environment in which something else is imported under the package's name.

    Raises:
        NoEnvironment: It is; a folder with that name in the working directory, say.
    """
    done = subprocess.run(
        [sys.executable, "-c", _WHERE, package],
        env=environment.variables(),
        capture_output=True,
        text=True,
        check=False,
    )
    outside = [line for line in done.stdout.splitlines() if not Path(line).is_relative_to(environment.folder or "")]
    if done.returncode != 0 or outside:
        seen = outside[0] if outside else done.stderr.strip()[-_TAIL:]
        raise NoEnvironment(f"{package} is installed in {environment.folder}, but Python finds another: {seen}")
