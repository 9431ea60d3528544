"""`hfaccel doctor`: what is wrong with an environment, and what to do about it.

Each examination looks at one subject and imports no runtime; the last one starts pytest, in a process of its own.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import Any

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from pytest_hfaccel.core.config import RunConfig
from pytest_hfaccel.core.devices import BROWSER_KINDS
from pytest_hfaccel.core.errors import HfAccelError, RegistryError, first_line, format_bytes, format_names
from pytest_hfaccel.core.files import LOCK_SECONDS, MANIFEST
from pytest_hfaccel.core.presence import HardwareReport
from pytest_hfaccel.project.settings import SettingsFile, find_settings

OURS = "pytest-hfaccel"

_EXTRAS = {"openvino": "openvino", "onnxruntime": "onnx", "executorch": "executorch"}
"""The extra that a kind of device comes with; browsers say themselves what they lack."""

_USES = {
    "models": "models that need it are skipped: those of images, those with SentencePiece vocabularies",
    "parallel": "no `-n 2`, no --timeout",
}
"""Extras that are no devices, and what is missing without them."""

_SAME_FILES = (
    ("onnxruntime", "onnxruntime-gpu", "onnxruntime-directml", "onnxruntime-openvino", "onnxruntime-qnn"),
    ("tensorflow", "tensorflow-cpu"),
)
"""Packages that install the same modules over each other: what runs is an accident of the order of installation."""

_CONFLICTING = {
    "pytest-randomly": "it shuffles the tests, so that models are loaded again and again; run with `-p no:randomly`",
    "pytest-random-order": "with --random-order it shuffles the tests, so that models are loaded again and again",
    "pytest-forked": "with --forked each test has a process of its own and loads its model again",
    "pytest-parallel": "it runs tests in threads, and a model is not safe to use by two; take pytest-xdist (`-n 2`)",
    "pytest-rerunfailures": "with --reruns a check that fails now and then counts as passed",
}
"""Plugins that work against ours, and how."""

_FEW_BYTES, _SCARCE_BYTES = 200 * 2**20, 4 * 2**30
"""Disk space below which a run fails, and below which larger models will."""
_FEW_MEMORY, _SCARCE_MEMORY = 512 * 2**20, 2 * 2**30
"""The same of memory: torch and transformers take some 400 MB before a model is loaded."""
_OLD_DAYS = 90

_OWN_VARIABLES = ("HFACCEL_FAKE", "HFACCEL_FAKE_LOG", "HFACCEL_SELECTION_FILE")
"""Variables of ours that are no options."""


@dataclass(frozen=True)
class Finding:
    """What an examination found.

    Attributes:
        subject: What was looked at, e.g. `packages`.
        status: `ok`, `note` (worth knowing), `warning` (something will not work) or `broken` (nothing will).
        message: What was found.
        remedy: What to do; empty where there is nothing to do.
    """

    subject: str
    status: str
    message: str
    remedy: str = ""


def examine(directory: Path, *, start_pytest: bool = True) -> Iterator[Finding]:
    """Examine the environment of this process and the project in a folder.

    Args:
        directory: The project.
        start_pytest: Whether pytest is started, too, which takes a second or two.
    """
    settings = find_settings(directory)
    examinations: list[tuple[str, Callable[[], Iterator[Finding]]]] = [
        ("packages", examine_packages),
        ("plugins", examine_plugins),
        ("devices", examine_devices),
        ("memory", examine_memory),
        ("cache", examine_cache),
        ("hub", examine_hub),
        ("settings", partial(examine_settings, settings)),
        ("registry", partial(examine_registry, directory, settings)),
    ]
    if start_pytest:
        examinations.append(("pytest", examine_pytest))
    for subject, examination in examinations:
        found = False
        try:
            for finding in examination():
                found = True
                yield finding
        except (HfAccelError, OSError) as error:
            found = True
            yield Finding(subject, "broken", first_line(error), getattr(error, "hint", "") or "")
        if not found:
            yield Finding(subject, "ok", "nothing is wrong")


def examine_packages(installed: Mapping[str, Distribution] | None = None) -> Iterator[Finding]:
    """Compare what is installed with what we, and what we need, ask for; the packages of extras, too.

    Args:
        installed: The distributions by canonical name (default: those of this environment).
    """
    installed = _installed() if installed is None else installed
    if OURS not in installed:
        yield Finding("packages", "broken", f"{OURS} is not installed, only importable", f"pip install {OURS}")
        return
    python = installed[OURS].metadata["Requires-Python"]
    here = platform.python_version()
    if python and not Requirement(f"python{python}").specifier.contains(here, prereleases=True):
        yield Finding("packages", "broken", f"Python {here} is not supported", f"use Python {python}")
    reported: set[str] = set()
    for owner, wanted, extra in _wanted(installed):
        name = canonicalize_name(wanted.name)
        there = installed.get(name)
        text = f"{wanted.name}{wanted.specifier}"
        by = f"{owner}[{extra}]" if extra else owner
        if there is None:
            if not extra and text not in reported:
                reported.add(text)
                yield Finding("packages", "broken", f"{text} is not installed; {by} needs it", f"pip install '{text}'")
        elif not wanted.specifier.contains(there.version, prereleases=True) and (text not in reported):
            reported.add(text)
            status = "warning" if extra else "broken"
            message = f"{wanted.name} {there.version} is installed; {by} needs {text}"
            yield Finding("packages", status, message, f"pip install '{text}'")
    for same in _SAME_FILES:
        both = [name for name in same if name in installed]
        if len(both) > 1:
            message = f"{' and '.join(both)} install the same files over each other"
            remedy = f"pip uninstall {' '.join(both)}, then install the one you want"
            yield Finding("packages", "broken", message, remedy)
    for extra, what in _USES.items():
        wanted_here = [wanted.name for _, wanted, of in _wanted(installed) if of == extra]
        missing = [name for name in wanted_here if canonicalize_name(name) not in installed]
        if missing:
            yield Finding("packages", "note", f"without {', '.join(missing)}: {what}", _install(extra))
    if not reported:
        versions = [
            f"{name} {installed[name].version}" for name in (OURS, "torch", "transformers") if name in installed
        ]
        yield Finding("packages", "ok", f"Python {here}, {', '.join(versions)}")


def _installed() -> dict[str, Distribution]:
    found: dict[str, Distribution] = {}
    for each in distributions():
        if name := each.metadata["Name"]:
            found.setdefault(canonicalize_name(name), each)  # the first one on the path is imported
    return found


def _wanted(installed: Mapping[str, Distribution]) -> Iterator[tuple[str, Requirement, str]]:
    """Yield who wants what: we and, recursively, what we need; then our extras, by name."""
    seen, waiting = {OURS}, [OURS]
    while waiting:
        owner = waiting.pop(0)
        for wanted in _requirements(installed[owner]):
            if wanted.marker is None or wanted.marker.evaluate({"extra": ""}):
                yield owner, wanted, ""
                name = canonicalize_name(wanted.name)
                if name in installed and name not in seen:
                    seen.add(name)
                    waiting.append(name)
    metadata = installed[OURS].metadata
    for extra in metadata.get_all("Provides-Extra") or ():
        for wanted in _requirements(installed[OURS]):
            marker = wanted.marker
            if marker and marker.evaluate({"extra": extra}) and not marker.evaluate({"extra": ""}) and extra != "dev":
                yield OURS, wanted, extra


def _requirements(owner: Distribution) -> Iterator[Requirement]:
    for text in owner.requires or ():
        try:
            yield Requirement(text)
        except InvalidRequirement:  # of an old package: pip would not have installed it
            continue


def examine_plugins(environ: Mapping[str, str] | None = None) -> Iterator[Finding]:
    """Look for what keeps pytest from loading our plugin, and for plugins that work against it."""
    environ = os.environ if environ is None else environ
    if environ.get("PYTEST_DISABLE_PLUGIN_AUTOLOAD") and "hfaccel" not in environ.get("PYTEST_PLUGINS", ""):
        message = "PYTEST_DISABLE_PLUGIN_AUTOLOAD keeps pytest from loading this plugin"
        yield Finding("plugins", "broken", message, "unset it, or run pytest with `-p hfaccel`")
    if "no:hfaccel" in environ.get("PYTEST_ADDOPTS", ""):
        message = "PYTEST_ADDOPTS keeps pytest from loading this plugin"
        yield Finding("plugins", "broken", message, "take `-p no:hfaccel` out of it")
    installed = _installed()
    for name, how in _CONFLICTING.items():
        if name in installed:
            yield Finding("plugins", "warning", f"{name} {installed[name].version} is installed: {how}")


def examine_devices(report: HardwareReport | None = None) -> Iterator[Finding]:
    """Say which devices a run can use, and what those that the machine has lack to be used."""
    from pytest_hfaccel.hardware import probe_devices
    from pytest_hfaccel.hardware.nvidia import why_driver_is_too_old
    from pytest_hfaccel.hardware.torch_build import INSTALL_HELP, installed_torch

    report = probe_devices() if report is None else report
    build = installed_torch()
    present = [presence.device.id for presence in report.presences if presence.present]
    yield Finding("devices", "ok", f"{', '.join(present)}; a plain run takes {report.best()}")
    if any(device.startswith("cuda") for device in present) and (problem := why_driver_is_too_old(build)):
        yield Finding("devices", "broken", problem, f"update the driver, or take an older build: {INSTALL_HELP}")
    browsers: dict[str, list[str]] = {}
    for presence in report.absent():
        kind = presence.device.kind
        if presence.name and kind in ("cuda", "rocm", "xpu"):
            # The hardware is there, and torch cannot use it.
            reason = presence.reason.removesuffix(f"; builds with it: {INSTALL_HELP}")
            remedy = f"install torch for it: {INSTALL_HELP}" if build.why_not(kind) else ""
            yield Finding("devices", "warning", f"{presence.name} is not used: {reason}", remedy)
        elif kind in BROWSER_KINDS:
            browsers.setdefault(presence.reason, []).append(kind)
        elif kind in _EXTRAS and "is not installed" in presence.reason and presence.device.target in ("CPU", "XNNPACK"):
            yield Finding("devices", "note", f"no {kind}: its packages are not installed", _install(_EXTRAS[kind]))
    for reason, kinds in browsers.items():
        problem, _, remedy = reason.partition("; ")
        yield Finding("devices", "note", f"no {', '.join(kinds)}: {problem}", remedy)


def _install(extra: str) -> str:
    return f"pip install '{OURS}[{extra}]'"


def examine_memory() -> Iterator[Finding]:
    """Look whether there is memory for a model."""
    from pytest_hfaccel.hardware.cpu import read_memory

    memory = read_memory()
    free = f"{format_bytes(memory.available_bytes)} of {format_bytes(memory.total_bytes)} are available"
    remedy = "end what takes memory, or raise the limit of the container"
    if memory.available_bytes < _FEW_MEMORY:
        yield Finding("memory", "broken", f"{free}: torch and transformers alone need more", remedy)
    elif memory.available_bytes < _SCARCE_MEMORY:
        yield Finding("memory", "warning", f"{free}: enough for tiny models only", remedy)
    else:
        yield Finding("memory", "ok", free)


def examine_cache(cache: Path | None = None) -> Iterator[Finding]:
    """Look whether the caches can be written, have space, and hold what is whole and of use.

    Args:
        cache: Our own cache directory (default: that of the environment).
    """
    from huggingface_hub import constants

    own = RunConfig.from_values({}).cache_dir if cache is None else cache
    for name, path, setting in (
        ("the cache", own, "HFACCEL_CACHE"),
        ("the hub's cache", Path(constants.HF_HUB_CACHE), "HF_HOME"),
        ("the folder for temporary files", Path(tempfile.gettempdir()), "TMPDIR"),
    ):
        if problem := _why_not_writable(path):
            yield Finding("cache", "broken", f"{name} {path}: {problem}", f"make it writable, or set {setting}")
            continue
        free = shutil.disk_usage(_existing(path)).free
        remedy = f"free space, or set {setting} to a folder on a larger disk"
        if free < _FEW_BYTES:
            yield Finding("cache", "broken", f"{name} {path}: {format_bytes(free)} of disk are left", remedy)
        elif free < _SCARCE_BYTES:
            message = f"{name} {path}: {format_bytes(free)} of disk are left; larger models will not fit"
            yield Finding("cache", "warning", message, remedy)
    if own.is_dir():
        yield from _examine_entries(own)


def _examine_entries(cache: Path) -> Iterator[Finding]:
    stale = stale_entries(cache)
    for why, noun, status in (
        ("abandoned", "were left by processes that were killed", "warning"),
        ("damaged", "are damaged; the next run builds them again", "warning"),
        ("unused", f"have not been used for {_OLD_DAYS} days", "note"),
    ):
        folders = [folder for folder, found in stale.items() if found == why]
        if folders:
            size = format_bytes(sum(map(_size, folders)))
            message = f"{cache}: {len(folders)} entries ({size}) {noun}: {format_names([f.name for f in folders], 3)}"
            yield Finding("cache", status, message, "`hfaccel clean --stale` removes them")
    yield Finding("cache", "ok", f"{cache}: {format_bytes(_size(cache))}")


def stale_entries(cache: Path) -> dict[Path, str]:
    """Return the folders in the cache that are of no use, and why: `abandoned`, `damaged` or `unused`."""
    found = {}
    now = time.time()
    for folder in sorted(cache.glob("*/*/")) if cache.is_dir() else ():
        # Not the manifest: to examine a folder reads it.
        stats = [path.stat() for path in _files(folder) if path.name != MANIFEST]
        used = [max(stat.st_atime, stat.st_mtime) for stat in stats]
        if folder.name.startswith("."):
            if now - folder.stat().st_mtime > LOCK_SECONDS:
                found[folder] = "abandoned"
        elif (folder / MANIFEST).is_file() and _is_damaged(folder):
            found[folder] = "damaged"
        elif used and now - max(used) > _OLD_DAYS * 86400:
            found[folder] = "unused"
    return found


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in _files(folder))


def _is_damaged(folder: Path) -> bool:
    """Whether a built folder is not as it was written, by the sizes alone: hashes take too long for all of a cache."""
    try:
        files: dict[str, Any] = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["files"]
        return any((folder / name).stat().st_size != written["bytes"] for name, written in files.items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return True


def _existing(path: Path) -> Path:
    return next(folder for folder in (path, *path.parents) if folder.exists())


def _why_not_writable(path: Path) -> str:
    """Return why a folder cannot be written, by writing into it; where it is not there, into the next one above."""
    folder = _existing(path)
    if not folder.is_dir():
        return f"{folder} is a file"
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"\0" * 4096)
    except OSError as error:
        return f"{folder} cannot be written ({error.strerror})"
    return ""


def examine_hub() -> Iterator[Finding]:
    """Look whether the hub answers, and whether there is a token."""
    from huggingface_hub import constants, get_token

    from pytest_hfaccel.registry.hub import reach_hub

    without = "models that are not on this machine are tested on tiny weights"
    if constants.HF_HUB_OFFLINE:
        yield Finding("hub", "note", f"HF_HUB_OFFLINE switches the hub off: {without}", "unset it to use the hub")
        return
    try:
        reach_hub()
    except HfAccelError as error:
        proxy = next((f" (by the proxy in {n})" for n in ("HTTPS_PROXY", "https_proxy") if os.environ.get(n)), "")
        remedy = "check the network, HTTPS_PROXY and HF_ENDPOINT; HF_HUB_OFFLINE=1 saves the waiting"
        yield Finding("hub", "warning", f"{error.message.rstrip('.')}{proxy}: {without}", remedy)
        return
    token = "with a token" if get_token() else "without a token: gated models cannot be had"
    yield Finding("hub", "ok", f"{constants.ENDPOINT} answers; {token}")


def examine_settings(settings: SettingsFile, environ: Mapping[str, str] | None = None) -> Iterator[Finding]:
    """Look for settings and environment variables that mean nothing, or have values that are not allowed."""
    environ = os.environ if environ is None else environ
    if settings.problem:
        yield Finding("settings", "broken", f"{settings.path.name} {settings.problem}", "correct it")
    options = RunConfig.options()
    names = [option.ini for option in options if option.flag]
    for name in settings.values:
        if name.startswith("hf_") and name not in names:
            yield Finding("settings", "warning", f"{settings.path.name}: {name} is not a setting", _meant(name, names))
    variables = [option.env for option in options] + [option.old_env for option in options if option.old_env]
    for name in environ:
        if name.startswith("HFACCEL_") and name not in (*variables, *_OWN_VARIABLES):
            yield Finding(
                "settings", "warning", f"the environment variable {name} means nothing", _meant(name, variables)
            )
    texts = {name: value for name, value in settings.values.items() if isinstance(value, str)}
    RunConfig.from_values({}, environ, ini=lambda option: texts.get(option.ini))


def _meant(name: str, known: list[str]) -> str:
    near = get_close_matches(name, known, n=1)
    return f"did you mean {near[0]}?" if near else ""


def examine_registry(directory: Path, settings: SettingsFile) -> Iterator[Finding]:
    """Read the registry files of the environment and of the settings."""
    from pytest_hfaccel.registry import load_registry

    config = RunConfig.from_values({}, ini=lambda option: _text(settings.values.get(option.ini)))
    files = [settings.path.parent / file for file in config.registry_files]
    for extra in sorted(directory.glob("registry.y*ml")):
        if extra not in files and not config.registries:
            remedy = f"set hf_registry = {extra.name} in the pytest settings"
            yield Finding("registry", "note", f"{extra.name} is here, and no setting names it", remedy)
            files.append(extra)
    try:
        registry = load_registry(files)
    except RegistryError as error:
        for problem in error.problems:
            yield Finding(
                "registry", "broken", problem.replace("\n", " "), "correct it; `hfaccel registry check` looks again"
            )
        return
    own = f" with {', '.join(file.name for file in files)}" if files else ""
    yield Finding("registry", "ok", f"{len(registry.specs)} models{own}")


def _text(value: Any) -> str | None:
    return value if value is None or isinstance(value, str) else ",".join(map(str, value))


_PROBE = """
from pytest_hfaccel import ModelClassTests

class TestProbe(ModelClassTests):
    architectures = ("BertForMaskedLM",)
    default_model = "bert-base-uncased"
"""


def examine_pytest() -> Iterator[Finding]:
    """Start pytest with all plugins of this environment, and let it collect a model class module."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "test_hf_probe.py").write_text(_PROBE, encoding="utf-8")
        Path(folder, "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
        environ = {key: value for key, value in os.environ.items() if not key.startswith("HFACCEL_")}
        command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider"]
        started = time.monotonic()
        try:
            done = subprocess.run(
                command, cwd=folder, env=environ, capture_output=True, text=True, timeout=120, check=False
            )
        except subprocess.TimeoutExpired:
            yield Finding("pytest", "broken", "pytest did not collect a model class module within 120 s")
            return
        took = time.monotonic() - started
    if done.returncode == 0 and "test_parity[bert-base-uncased" in done.stdout:
        yield Finding("pytest", "ok", f"starts and collects in {took:.1f} s")
    else:
        lines = [line for line in (done.stderr + done.stdout).splitlines() if line.strip()]
        last = lines[-1] if lines else f"it ended with {done.returncode}"
        remedy = "run `pytest --collect-only` to see all of it; `-p no:<plugin>` leaves a plugin out"
        yield Finding("pytest", "broken", f"pytest does not collect a model class module: {last[:300]}", remedy)
