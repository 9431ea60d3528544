"""The releases of a package on the index that the user has configured, and why some of them cannot be installed.

What pip is configured with counts (`pip config list`: its files and environment variables), and over it the
environment variables of uv. Pages are read here: `pypi-simple` would replace some 40 lines, but not those for folders
and `file://`, and bring requests, beautifulsoup4, mailbits, pydantic and attrs to every bisection.
"""

from __future__ import annotations

import ast
import json
import os
import ssl
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.parse import unquote, urljoin, urlsplit, urlunsplit
from urllib.request import HTTPBasicAuthHandler as BasicAuth
from urllib.request import HTTPPasswordMgrWithPriorAuth, HTTPSHandler, Request, build_opener, url2pathname

from packaging.requirements import Requirement
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.tags import Tag, sys_tags
from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename
from packaging.version import Version

from pytest_hfaccel.core import presence
from pytest_hfaccel.core.errors import ConfigError, HfAccelError

PYPI = "https://pypi.org/simple"

_ACCEPTED = "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.01"
_TIMEOUT = 60.0
_NOT_THERE = (404, 403)
"""How an index says that it does not have a package."""


@dataclass(frozen=True)
class IndexSettings:
    """Where packages come from.

    Attributes:
        indexes: Addresses of simple indexes, the main one first.
        find_links: Folders and pages of wheels.
        constraints: Files of constraints, which pip applies to everything that it installs.
        certificate: File of certificates; empty for those of Python.
    """

    indexes: tuple[str, ...] = (PYPI,)
    find_links: tuple[str, ...] = ()
    constraints: tuple[str, ...] = ()
    certificate: str = ""

    @classmethod
    def of_user(cls, environ: Mapping[str, str] | None = None) -> IndexSettings:
        """Read the configuration of pip and the environment variables of uv."""
        environ = os.environ if environ is None else environ
        pip = _pip_settings(environ)
        main = environ.get("UV_DEFAULT_INDEX") or environ.get("UV_INDEX_URL") or pip.get("index-url", PYPI)
        more = environ.get("UV_INDEX") or environ.get("UV_EXTRA_INDEX_URL") or pip.get("extra-index-url", "")
        links = environ.get("UV_FIND_LINKS", "").replace(",", " ") or pip.get("find-links", "")
        without_index = (environ.get("UV_NO_INDEX") or pip.get("no-index", "")).lower() in ("1", "true", "yes", "on")
        # uv lets an index have a name: `pytorch=https://...`.
        named = [each.partition("=")[2] if _is_named(each) else each for each in (main, *more.split())]
        return cls(
            () if without_index else tuple(dict.fromkeys(each.rstrip("/") for each in named)),
            tuple(links.split()),
            tuple(pip.get("constraint", "").split()),
            pip.get("cert", "") or environ.get("SSL_CERT_FILE", ""),
        )


def _is_named(index: str) -> bool:
    name, equals, _ = index.partition("=")
    return bool(equals) and not set(name) & set(":/?")


def _pip_settings(environ: Mapping[str, str]) -> dict[str, str]:
    """Return what `pip config list` says, without sections; empty where there is no pip."""
    command = [sys.executable, "-m", "pip", "config", "list"]
    done = subprocess.run(command, env=dict(environ), capture_output=True, text=True, check=False)
    sections: dict[str, dict[str, str]] = {"global": {}, "install": {}, ":env:": {}}
    for line in done.stdout.splitlines() if done.returncode == 0 else ():
        name, equals, value = line.partition("=")
        section, _, key = name.rpartition(".")
        if equals and section in sections:
            sections[section][key] = ast.literal_eval(value)
    if not sections[":env:"] and done.returncode != 0:  # pip is missing; its variables need no pip to be read
        names = ("index_url", "extra_index_url", "find_links", "no_index", "cert", "constraint")
        sections[":env:"] = {
            name.replace("_", "-"): environ[f"PIP_{name.upper()}"]
            for name in names
            if environ.get(f"PIP_{name.upper()}")
        }
    return {**sections["global"], **sections["install"], **sections[":env:"]}


@dataclass(frozen=True)
class Release:
    """A release of a package.

    Attributes:
        version: Its version.
        left_out: Why it is not used; empty where it is.
    """

    version: Version
    left_out: str = ""


@dataclass(frozen=True)
class _File:
    name: str
    requires_python: str = ""
    yanked: bool = False


def list_releases(
    package: str, settings: IndexSettings, *, pre_releases: bool = False, yanked: bool = False
) -> list[Release]:
    """Return the releases of a package that the index has, oldest first.

    Of builds of one version that differ in their local label (`2.13.0`, `2.13.0+cpu`), the one with the label of the
    installed release is listed. The installed release is always among them.

    Args:
        package: Its name.
        settings: Where packages come from.
        pre_releases: Whether pre-releases are used, too.
        yanked: Whether releases are used that their authors have withdrawn.

    Raises:
        HfAccelError: An index cannot be read.
        ConfigError: None of them has the package.
    """
    files: dict[Version, list[_File]] = {}
    for file in _files(package, settings):
        version = _version_of(file.name, package)
        if version is not None:
            files.setdefault(version, []).append(file)
    if not files:
        places = ", ".join(map(hide_password, (*settings.indexes, *settings.find_links))) or "no index is configured"
        raise ConfigError(
            f"--package {package}: the package index has no release of it ({places}).",
            hint="Name the package as pip does. Indexes are those that pip or uv is configured with.",
        )
    allowed = {
        version: Release(version, _why_left_out(version, each, pre_releases, yanked)) for version, each in files.items()
    }
    installed = installed_version(package)
    if installed is not None:  # it need not be found anywhere
        known = [version for version in allowed if version.public == installed.public]
        allowed |= {version: Release(version) for version in known or [installed]}
    return [allowed[version] for version in sorted(_without_other_builds(allowed, installed))]


def installed_version(package: str) -> Version | None:
    """Return the version of the installed package; `None` where it is not installed."""
    text = presence.installed_version(package)
    return Version(text) if text is not None else None


def oldest_supported(package: str, versions: Iterable[Version]) -> Version | None:
    """Return the oldest of some releases that pytest-hfaccel supports; `None` where it does not say."""
    from importlib.metadata import requires

    needs = [Requirement(text) for text in requires("pytest-hfaccel") or ()]
    limits = [each.specifier for each in needs if canonicalize_name(each.name) == canonicalize_name(package)]
    fitting = [version for version in versions if limits and all(version in limit for limit in limits)]
    return min(fitting, default=None)


def hide_password(address: str) -> str:
    """Return an address without the user and the password in it."""
    parts = urlsplit(address)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def _without_other_builds(releases: Mapping[Version, Release], installed: Version | None) -> Iterator[Version]:
    label = installed.local if installed else None
    builds: dict[str, list[Version]] = {}
    for version in releases:
        builds.setdefault(version.public, []).append(version)
    for versions in builds.values():
        fitting = [version for version in versions if version.local == label]
        plain = [version for version in versions if version.local is None]
        yield (fitting or plain or sorted(versions))[0]


def _why_left_out(version: Version, files: list[_File], pre_releases: bool, yanked: bool) -> str:
    if version.is_prerelease and not pre_releases:
        return "a pre-release; --pre-releases takes it"
    if not yanked and all(file.yanked for file in files):
        return "yanked by its authors; --yanked takes it"
    wheels = [file for file in files if file.name.endswith(".whl") and (yanked or not file.yanked)]
    here = Version(".".join(map(str, sys.version_info[:3])))
    if not any(_fits(file) for file in wheels):
        return f"no wheel for this Python and machine ({here}, {next(iter(sys_tags()))})"
    if not any(_fits(file) and _allows(file.requires_python, here) for file in wheels):
        return f"needs Python {wheels[0].requires_python}, this is {here}"
    return ""


@cache
def _tags() -> frozenset[Tag]:
    return frozenset(sys_tags())


def _fits(file: _File) -> bool:
    return not _tags().isdisjoint(parse_wheel_filename(file.name)[3])


def _allows(requires_python: str, version: Version) -> bool:
    try:
        return not requires_python or version in SpecifierSet(requires_python)
    except InvalidSpecifier:  # pip ignores it, too
        return True


def _version_of(file: str, package: str) -> Version | None:
    """Return the version that a file is of; `None` if it is another package's, or neither wheel nor source."""
    from packaging.utils import InvalidSdistFilename, parse_sdist_filename

    try:
        name, version = parse_wheel_filename(file)[:2] if file.endswith(".whl") else parse_sdist_filename(file)
    except (InvalidWheelFilename, InvalidSdistFilename, ValueError):
        return None
    return version if name == canonicalize_name(package) else None


def _files(package: str, settings: IndexSettings) -> Iterator[_File]:
    for index in settings.indexes:
        yield from _read_page(f"{index.rstrip('/')}/{canonicalize_name(package)}/", settings)
    for place in settings.find_links:
        path = _local_path(place)
        if path is not None and path.is_dir():
            yield from (_File(each.name) for each in sorted(path.iterdir()))
        else:
            yield from _read_page(place, settings)


def _local_path(address: str) -> Path | None:
    if address.startswith("file:"):
        return Path(url2pathname(urlsplit(address).path))
    return None if "://" in address else Path(address).expanduser()


def _read_page(address: str, settings: IndexSettings) -> Iterable[_File]:
    path = _local_path(address)
    if path is not None:
        page = path / "index.html" if path.is_dir() else path
        return _from_html(page.read_text(encoding="utf-8"), page.as_uri()) if page.is_file() else ()
    try:
        kind, content = _download(address, settings)
    except HTTPError as error:
        if error.code in _NOT_THERE:
            return ()
        raise HfAccelError(
            f"{hide_password(address)}: the package index answered {error.code} {error.reason}."
        ) from error
    except (URLError, OSError) as error:
        raise HfAccelError(
            f"{hide_password(address)}: the package index cannot be read: {getattr(error, 'reason', error)}.",
            hint="`pip config list` shows which indexes are configured; PIP_INDEX_URL names another one.",
        ) from error
    if "json" in kind:
        return _from_json(json.loads(content))
    return _from_html(content.decode("utf-8", "replace"), address)


def _download(address: str, settings: IndexSettings) -> tuple[str, bytes]:
    """Return the type and the content of a page; user and password may stand in its address."""
    parts = urlsplit(address)
    if parts.scheme not in ("http", "https"):
        raise ConfigError(f"{hide_password(address)}: an index has to be http://, https://, file:// or a folder.")
    plain = hide_password(address)
    passwords = HTTPPasswordMgrWithPriorAuth()
    if parts.username:
        passwords.add_password(
            None, plain, unquote(parts.username), unquote(parts.password or ""), is_authenticated=True
        )
    context = ssl.create_default_context(cafile=settings.certificate or None)
    opener = build_opener(HTTPSHandler(context=context), BasicAuth(passwords))
    request = Request(plain, headers={"Accept": _ACCEPTED, "User-Agent": "pytest-hfaccel"})  # noqa: S310 - see above
    with opener.open(request, timeout=_TIMEOUT) as answer:
        return answer.headers.get_content_type(), answer.read()


def _from_json(page: Mapping[str, object]) -> Iterator[_File]:
    listed = page.get("files")
    for file in listed if isinstance(listed, list) else ():
        yield _File(file["filename"], file.get("requires-python") or "", file.get("yanked", False) is not False)


def _from_html(text: str, address: str) -> list[_File]:
    page = _Links(address)
    page.feed(text)
    return page.files


@dataclass
class _Links(HTMLParser):
    """Collects the files that a page of a simple index links to."""

    address: str
    files: list[_File] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Take the file of a link."""
        values = dict(attrs)
        if tag == "a" and values.get("href"):
            path = urlsplit(urljoin(self.address, values["href"] or "")).path
            name = unquote(path.rpartition("/")[2])
            self.files.append(_File(name, values.get("data-requires-python") or "", "data-yanked" in values))
