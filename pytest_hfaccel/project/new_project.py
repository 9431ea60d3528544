"""`hfaccel init`: makes a folder ready to test its models, from what is found in it, and overwrites nothing."""

from __future__ import annotations

import ast
import json
import os
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pytest_hfaccel import __version__
from pytest_hfaccel.core.config import RunConfig
from pytest_hfaccel.core.errors import ConfigError, HfAccelError
from pytest_hfaccel.core.files import open_new, replace_file
from pytest_hfaccel.core.spec import ModelSpec
from pytest_hfaccel.generator import make_module, registry_entry, write_module
from pytest_hfaccel.project.settings import find_settings, modules_folder
from pytest_hfaccel.registry import Registry, load_registry, resolve_model
from pytest_hfaccel.registry.additions import add_entry

REGISTRY = "registry.yaml"
FIRST_MODEL = "bert-base-uncased"
"""The model of a project in which none is found: registered, small, and no extra is needed to test it."""


_MOST_MODELS = 8
_MOST_FILES = 2000
_LARGEST_SOURCE = 2**20
_NOT_SOURCES = frozenset({"node_modules", "site-packages", "build", "dist", "__pycache__", "reports"})
_IGNORED = ("reports/", "hfaccel.duckdb")

_NEW_REGISTRY = """\
# The models of this project, besides those that pytest-hfaccel knows (`hfaccel registry list`).
# `hfaccel registry add MODEL --to registry.yaml` adds one, `hfaccel registry check registry.yaml` finds mistakes.
version: 1

models:
"""


@dataclass(frozen=True)
class Step:
    """What was done about a file, or about a model that was found.

    Attributes:
        what: `written`, `extended`, `left alone` or `skipped`.
        subject: The file, relative to the project, or the model.
        note: Why, or what to do.
    """

    what: str
    subject: str
    note: str = ""

    def __str__(self) -> str:
        return f"{self.what:<10}  {self.subject}" + (f": {self.note}" if self.note else "")


def create_project(directory: Path, models: Sequence[str] = (), ci: str = "") -> Iterator[Step]:
    """Write what a folder lacks to test its models with `pytest`, and say what was done.

    Args:
        directory: The project; made if it is not there.
        models: Models to test, as `--hf-model` takes them (default: those that the project's sources load and the
            checkpoints that lie in it; where there are none, `FIRST_MODEL`).
        ci: `github`, `gitlab` or `none`; found out when empty.

    Raises:
        ConfigError: A named model is not known, or a file cannot be written.
        RegistryError: The project's registry file has mistakes.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        yield from _create(directory, models, ci)
    except OSError as error:
        raise ConfigError(f"{error.filename or directory}: cannot be written: {error.strerror}.") from error


def _create(directory: Path, models: Sequence[str], ci: str) -> Iterator[Step]:
    registry_file = directory / REGISTRY
    if registry_file.exists():
        yield Step("left alone", REGISTRY, "it is there")
    else:
        _write_new(registry_file, _NEW_REGISTRY)
        yield Step("written", REGISTRY)
    registry = load_registry([registry_file], cache_dir=RunConfig.from_values({}).cache_dir)
    found: dict[str, str] = dict.fromkeys(models, "named") or find_models(directory)
    specs: list[ModelSpec] = []
    for name, place in found.items():
        try:
            named = resolve_model(name if not _is_inside(directory, name) else str(directory / name), registry)
        except HfAccelError as error:
            if models:
                raise
            yield Step("skipped", name, f"{place}; {error.message}")
            continue
        if len(named) > 1:
            raise ConfigError(f"{name!r} names several models: {', '.join(spec.name for spec in named)}. Name one.")
        specs += named
    specs = specs or [registry.get(FIRST_MODEL)]
    yield from _write_modules(directory, registry_file, registry, specs)
    yield from _write_settings(directory)
    yield from _write_workflow(directory, ci or _ci_of(directory))
    yield from _ignore_reports(directory)


def _write_modules(
    directory: Path, registry_file: Path, registry: Registry, specs: Sequence[ModelSpec]
) -> Iterator[Step]:
    folder = modules_folder(directory)
    for spec in specs:
        if spec.name not in registry and (spec.path or spec.hub_id):
            name = Path(spec.path).name if spec.path else spec.hub_id
            entry = registry_entry(replace(spec, name=name), directory)
            try:
                add_entry(registry_file, name, entry)
            except ConfigError as error:
                yield Step("left alone", REGISTRY, error.message)
            else:
                yield Step("extended", REGISTRY, f"{name} ({spec.architecture}, {spec.task})")
                # By its name in the registry: the folder of a checkpoint lies elsewhere on other machines.
                spec = replace(spec, name=name, path="")
        module = make_module(spec, folder)
        shown = _relative(module.path, directory)
        if module.served_by:
            others = ", ".join(module.served_by)
            yield Step("left alone", _relative(folder, directory), f"{others} tests {spec.architecture} already")
        elif module.path.is_symlink() or module.path.exists():
            yield Step("left alone", shown, f"it is there, and does not test {spec.architecture}")
        else:
            write_module(module)
            yield Step("written", shown, f"tests {spec.architecture}, with {spec.name}")


def find_models(directory: Path) -> dict[str, str]:
    """Return the models that a project uses, each with the place where it was found; at most `_MOST_MODELS`.

    These are the literal first arguments of `from_pretrained` and the literal `model` of `pipeline` in its Python
    sources, which are read and not run, and folders with a config.json and safetensors files.
    """
    found: dict[str, str] = {}
    for path in _files(directory):
        shown = _relative(path, directory)
        if path.name == "config.json":
            if any(path.parent.glob("*.safetensors")) and _names_a_class(path):
                found.setdefault(path.parent.relative_to(directory).as_posix(), shown)
        else:
            for line, name in _loaded_in(path):
                found.setdefault(name, f"{shown}:{line}")
    return dict(list(found.items())[:_MOST_MODELS])


def _files(directory: Path) -> Iterator[Path]:
    number = 0
    for folder, folders, files in os.walk(directory):
        is_environment = "pyvenv.cfg" in files
        folders[:] = sorted(
            name for name in folders if not is_environment and not name.startswith(".") and name not in _NOT_SOURCES
        )
        for name in sorted(files if not is_environment else ()):
            if name.endswith(".py") or name == "config.json":
                number += 1
                if number > _MOST_FILES:
                    return
                yield Path(folder, name)


def _loaded_in(path: Path) -> Iterator[tuple[int, str]]:
    try:
        if path.stat().st_size > _LARGEST_SOURCE:
            return
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, SyntaxError, RecursionError, MemoryError):
        return
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        called = getattr(node.func, "attr", getattr(node.func, "id", ""))
        named = [word.value for word in node.keywords if word.arg == "model"]
        argument = node.args[0] if called == "from_pretrained" and node.args else None
        argument = named[0] if called == "pipeline" and named else argument
        if isinstance(argument, ast.Constant) and isinstance(argument.value, str) and argument.value.strip():
            yield node.lineno, argument.value


def _names_a_class(path: Path) -> bool:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(config, dict) and isinstance(config.get("architectures"), list)


def _is_inside(directory: Path, name: str) -> bool:
    try:
        return (directory / name / "config.json").is_file()
    except (OSError, ValueError):
        return False


def _write_settings(directory: Path) -> Iterator[Step]:
    settings = find_settings(directory)
    shown, wanted = _relative(settings.path, directory), {"hf_registry": REGISTRY}
    if wanted.keys() <= settings.values.keys():
        yield Step("left alone", shown, "hf_registry is set there")
        return
    is_new = not settings.path.exists()
    if settings.add(wanted):
        yield Step("written" if is_new else "extended", shown, f"hf_registry in [{settings.section}]")
    else:
        lines = settings.lines(wanted).strip()
        why = settings.problem or "it cannot be extended without rewriting it"
        yield Step("left alone", shown, f"{why}; add this to [{settings.section}]: {lines}")


def _ci_of(directory: Path) -> str:
    """Find out which system runs a project's CI: by its files, else by the address that git pushes to."""
    if (directory / ".github").is_dir():
        return "github"
    if (directory / ".gitlab-ci.yml").is_file():
        return "gitlab"
    try:
        git = (directory / ".git" / "config").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return "github"
    host = re.search(r"^\s*url\s*=\s*(?:\w+://)?(?:[^@/\s]+@)?([\w.-]+)", git, re.MULTILINE)
    if host is None or "github" in host[1]:
        return "github"
    return "gitlab" if "gitlab" in host[1] else "none"


def _write_workflow(directory: Path, ci: str) -> Iterator[Step]:
    if ci == "none":
        yield Step("skipped", "CI workflow", "not known which system runs it; --ci says, docs/ci.md has recipes")
        return
    path = directory / (".github/workflows/models.yml" if ci == "github" else ".gitlab-ci.yml")
    shown = _relative(path, directory)
    if path.exists() or path.is_symlink():
        note = "it is there" if ci == "github" else "it is there; a job of its own installs and runs as docs/ci.md says"
        yield Step("left alone", shown, note)
        return
    install = "\n".join(
        [
            "pip install torch --index-url https://download.pytorch.org/whl/cpu",
            f"pip install 'pytest-hfaccel[models,parallel]=={__version__}'",
            *(["pip install -r requirements.txt"] if (directory / "requirements.txt").is_file() else []),
            *(["pip install -e ."] if _is_package(directory) else []),
        ]
    )
    values = {
        "branch": _branch(directory),
        "python": f"{sys.version_info.major}.{sys.version_info.minor}",
        "folder": f"{json.dumps(_relative(modules_folder(directory), directory))}",
    }
    form, indent = (_GITHUB, " " * 10) if ci == "github" else (_GITLAB, "    - ")
    values["install"] = "\n".join(indent + line for line in install.splitlines())
    text = form
    for key, value in values.items():
        text = text.replace(f"<{key}>", value)
    _write_new(path, text)
    yield Step("written", shown)


def _is_package(directory: Path) -> bool:
    if (directory / "setup.py").is_file():
        return True
    try:
        return "[project]" in (directory / "pyproject.toml").read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError):
        return False


def _branch(directory: Path) -> str:
    """Return the branch that is checked out, if its name can stand in a workflow as it is; else `main`."""
    try:
        head = (directory / ".git" / "HEAD").read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return "main"
    name = head.removeprefix("ref: refs/heads/")
    return name if name != head and re.fullmatch(r"[A-Za-z][\w./-]*", name) else "main"


def _ignore_reports(directory: Path) -> Iterator[Step]:
    """Keep git from listing what runs leave behind."""
    if not (directory / ".git").exists():
        return
    path = directory / ".gitignore"
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    have = {line.strip().strip("/") for line in text.splitlines()}
    missing = [line for line in _IGNORED if line.strip("/") not in have and "reports/*" not in have]
    if missing:
        is_new, gap = not path.exists(), "" if not text or text.endswith("\n") else "\n"
        replace_file(path, f"{text}{gap}" + "".join(f"{line}\n" for line in missing))
        yield Step("written" if is_new else "extended", ".gitignore", ", ".join(missing))


def _write_new(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open_new(path) as file:
        file.write(text.encode("utf-8"))


def _relative(path: Path, directory: Path) -> str:
    return path.relative_to(directory).as_posix()


_GITHUB = """\
name: models

on:
  push:
    branches: ["<branch>"]
  pull_request:
  workflow_dispatch:

permissions:
  contents: read

jobs:
  models:
    runs-on: ubuntu-latest
    timeout-minutes: 60
    steps:
      - uses: actions/checkout@v4
      - uses: actions/setup-python@v5
        with:
          python-version: "<python>"
      - name: Install
        run: |
<install>
      - name: Look at the environment
        run: hfaccel doctor
      - name: Test the models
        run: pytest <folder>
      - if: always()
        uses: actions/upload-artifact@v4
        with:
          name: reports
          path: reports
"""

_GITLAB = """\
models:
  image: python:<python>
  timeout: 60 minutes
  script:
<install>
    - hfaccel doctor
    - pytest <folder>
  artifacts:
    when: always
    paths: [reports]
"""
