"""Which browser, Node packages and Python packages are here; no process is started and nothing heavy is imported."""

from __future__ import annotations

import json
import os
import platform
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from pytest_hfaccel.core.config import RunConfig
from pytest_hfaccel.core.devices import BROWSER_KINDS
from pytest_hfaccel.core.errors import BackendUnavailable
from pytest_hfaccel.core.presence import Presence
from pytest_hfaccel.core.spec import Device

RUNTIME = "onnxruntime-web"
CHROMIUM = "@sparticuz/chromium"
TRANSFORMERS = "@huggingface/transformers"

_INSTALL_PYTHON = "pip install 'pytest-hfaccel[web]'"
_INSTALL_RUNTIME = f"npm install {RUNTIME}@1.30.0"
_INSTALL_CHROMIUM = f"npm install --ignore-scripts {CHROMIUM}@153.0.0"

_INSTALL_TRANSFORMERS = f"npm install --ignore-scripts {TRANSFORMERS}@4.3.2"

_COMMANDS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "msedge")
_PLACES = {
    "darwin": (
        "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
        "/Applications/Chromium.app/Contents/MacOS/Chromium",
        "/Applications/Microsoft Edge.app/Contents/MacOS/Microsoft Edge",
    ),
    "win32": (
        r"C:\Program Files\Google\Chrome\Application\chrome.exe",
        r"C:\Program Files (x86)\Google\Chrome\Application\chrome.exe",
        r"C:\Program Files (x86)\Microsoft\Edge\Application\msedge.exe",
    ),
}
_LIBRARIES = ("libnss3.so", "libnspr4.so", "libexpat.so.1")
"""What the Chromium of the npm package takes from the system."""


@dataclass(frozen=True)
class Installation:
    """What runs the models of a browser device.

    Attributes:
        browser: The browser's program, or the folder of the npm package it is packed in.
        modules: The folder `node_modules`.
        version: Version of onnxruntime-web.
    """

    browser: Path
    modules: Path
    version: str


def find_installation(device: Device) -> Installation:
    """Return what a browser device needs.

    Raises:
        BackendUnavailable: Something is missing; the hint is the command that installs it.
    """
    if find_spec("playwright") is None:
        raise _missing(device, "the Python package playwright is not installed", _INSTALL_PYTHON)
    modules = find_modules()
    version = package_version(modules, RUNTIME) if modules is not None else ""
    if modules is None or not version:
        where = f"in {modules}" if modules is not None else "in no folder node_modules here or above"
        raise _missing(device, f"{RUNTIME} is not installed ({where})", _INSTALL_RUNTIME)
    browser = find_browser(str(device), modules, with_webnn=device.kind == "webnn")
    return Installation(browser, modules, version)


def find_modules() -> Path | None:
    """Return the folder `node_modules` that the user names, else the next one from the working directory upwards."""
    named = os.environ.get(RunConfig.node_modules.env)
    if named:
        return Path(named).expanduser()
    here = Path.cwd()
    return next(
        (folder / "node_modules" for folder in (here, *here.parents) if (folder / "node_modules").is_dir()), None
    )


def package_version(modules: Path, name: str) -> str:
    """Return the version of an installed Node package; empty where it is not there."""
    try:
        version: str = json.loads((modules / name / "package.json").read_text(encoding="utf-8"))["version"]
    except (OSError, ValueError, KeyError):
        return ""
    return version


def transformers_js_version(device: Device) -> str:
    """Return the version of transformers.js.

    Raises:
        BackendUnavailable: It is not installed.
    """
    modules = find_modules()
    version = package_version(modules, TRANSFORMERS) if modules is not None else ""
    if not version:
        raise _missing(device, f"{TRANSFORMERS} (transformers.js) is not installed", _INSTALL_TRANSFORMERS)
    return version


def probe_browsers() -> list[Presence]:
    """Return each browser device, present or absent with the reason."""
    return [_probe(Device(kind)) for kind in BROWSER_KINDS]


def _probe(device: Device) -> Presence:
    try:
        found = find_installation(device)
    except BackendUnavailable as error:
        hint = f"; {error.hint}" if error.hint else ""
        return Presence(device, False, f"{error.message.removeprefix(f'{device}: ')}{hint}")
    details = {"onnxruntime-web": found.version, "browser": str(found.browser)}
    if device.kind == "webgpu":
        details["implementation"] = "unknown"  # only the page can ask for the adapter, which may be software
    return Presence(device, True, f"{RUNTIME} {found.version} in {_name_of(found.browser)}", details=details)


def _name_of(browser: Path) -> str:
    return f"the Chromium of {CHROMIUM}" if browser.is_dir() else browser.name


def find_browser(user: str = "pages", modules: Path | None = None, *, with_webnn: bool = False) -> Path:
    """Return a browser's program, or the folder of the npm package it is packed in.

    It is the one that the user names, else an installed Chromium, Chrome or Edge, else the Chromium of the npm package.

    Args:
        user: What it is for, in messages.
        modules: The folder `node_modules`; by default that of `find_modules`.
        with_webnn: It must be built with WebNN: on Linux that of the npm package is, elsewhere Chrome and Edge are.

    Raises:
        BackendUnavailable: There is none; the hint is the command that installs one.
    """
    named = os.environ.get(RunConfig.browser.env)
    if named:
        program = shutil.which(Path(named).expanduser())
        if program is None:
            raise BackendUnavailable(f"{user}: {RunConfig.browser.env} names {named}, which is no program")
        return Path(program)
    if not with_webnn or sys.platform in _PLACES:
        programs = (Path(program) for program in map(shutil.which, _COMMANDS) if program)
        found = next(programs, None) or next(_standard_places(), None)
        if found is not None:
            return found
    modules = modules or find_modules()
    problem = _why_not_packed(modules)
    if modules is not None and not problem:
        return modules / CHROMIUM
    if not with_webnn or sys.platform in _PLACES:
        raise _missing(
            user,
            "no Chromium, Chrome or Edge is installed",
            f"apt install chromium, or name one in {RunConfig.browser.env}",
        )
    raise _missing(
        user,
        f"Debian's Chromium and Chrome for Linux are built without WebNN, and {problem}",
        f"{_INSTALL_CHROMIUM}; apt install libnss3 libnspr4 libexpat1",
    )


def _why_not_packed(modules: Path | None) -> str:
    from ctypes import CDLL

    if modules is None or not package_version(modules, CHROMIUM):
        return f"{CHROMIUM}, which has it, is not installed in {modules or 'a folder node_modules'}"
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return f"{CHROMIUM} is for Linux on x86-64"
    for library in _LIBRARIES:
        try:
            CDLL(library)
        except OSError:
            return f"{CHROMIUM} needs {library}, which is not installed"
    return ""


def _standard_places() -> Iterator[Path]:
    yield from (path for place in _PLACES.get(sys.platform, ()) if (path := Path(place)).is_file())
    # Where `playwright install chromium` puts its own.
    for cache in (Path.home() / ".cache/ms-playwright", Path.home() / "Library/Caches/ms-playwright"):
        for pattern in ("chromium-*/chrome-linux*/chrome", "chromium-*/chrome-mac*/*.app/Contents/MacOS/*"):
            yield from sorted(cache.glob(pattern), reverse=True)


def _missing(user: object, problem: str, command: str) -> BackendUnavailable:
    return BackendUnavailable(f"{user}: {problem}", hint=f"{command} installs it.")
