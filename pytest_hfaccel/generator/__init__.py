"""Writes a model class module for a model: its class and family decide which template.

Only the registry and config.json are read. No weights are loaded, and neither torch nor transformers is imported. What
a config or a user says is data: it gets into the module as a literal, and never into the name of a folder.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from pytest_hfaccel.classify import TEMPLATE_FOLDER, Classification, ModelFamilyClassifier
from pytest_hfaccel.core.errors import ConfigError
from pytest_hfaccel.core.files import open_new
from pytest_hfaccel.core.spec import ModelSpec
from pytest_hfaccel.registry.installed import read_modules

_LONGEST_SLUG = 80
"""Characters of a module's name: a file system takes 255 bytes."""

_SURROGATES = re.compile(r"\\u(d[89ab][0-9a-f]{2})\\u(d[c-f][0-9a-f]{2})")


@dataclass(frozen=True)
class GeneratedModule:
    """A model class module that was made, and is not written yet.

    Attributes:
        path: Where it belongs.
        text: Its content.
        spec: The model it was made for.
        classification: What the classifier says of the model.
        template: File name of its template.
        served_by: The modules in that folder which test the model's class already.
    """

    path: Path
    text: str
    spec: ModelSpec
    classification: Classification
    template: str
    served_by: tuple[str, ...]


def make_module(
    spec: ModelSpec,
    directory: Path,
    *,
    template: str = "",
    device: str = "",
    timeout: int | None = None,
    requirements: Mapping[str, Any] | None = None,
) -> GeneratedModule:
    """Make the module of a model.

    Args:
        spec: The model.
        directory: The folder the module is for.
        template: A family, a subfamily, the file name of a template, or a file of the user's own that may extend ours;
            by the model's family when empty.
        device: Id of the device that the module runs on as a script, unless its command line says otherwise.
        timeout: Seconds that a test may take.
        requirements: What the model needs, as `HardwareAwareModelClassifier` has it; mentioned in the module.

    Raises:
        ConfigError: There is no such template, it cannot be rendered, or what it renders is not Python.
        RegistryError: A module in the folder is not Python.
    """
    classifier = ModelFamilyClassifier()
    found = classifier.classify_model(spec.name, spec.architecture, [spec.task])
    family, subfamily = found["family"], found["subfamily"]
    folders = [TEMPLATE_FOLDER]
    if not template:
        template = classifier.get_template_for_family(family, subfamily)
    elif Path(template).is_file():
        folders.insert(0, Path(template).resolve().parent)
        template = Path(template).name
    else:
        template = _shipped_template(template)
    values = {
        "model_name": spec.path or spec.name,
        "architecture": spec.architecture,
        "model_family": family,
        "model_subfamily": subfamily,
        "device": device,
        "timeout": timeout,
        "resource_requirements": requirements,
    }
    path = directory / f"test_hf_{slug_of(spec)}.py"
    served_by = () if not directory.is_dir() else _serving(directory, spec.architecture)
    return GeneratedModule(path, _render(template, folders, values), spec, found, template, served_by)


def write_module(module: GeneratedModule) -> bool:
    """Write a module, unless it is there as it would be written; return whether it was written.

    Raises:
        ConfigError: Something else is there, or the folder cannot be written.
    """
    path = module.path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # A link would lead out of the folder: whatever has the name counts as being there.
        if path.is_symlink() or path.exists():
            if path.is_file() and not path.is_symlink() and path.read_text(encoding="utf-8") == module.text:
                return False
            raise ConfigError(
                f"{path}: exists, and is not what would be written.", hint="Delete it, or name another --output-dir."
            )
        with open_new(path) as file:
            file.write(module.text.encode("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be written: {getattr(error, 'strerror', None) or error}.") from error
    return True


def slug_of(spec: ModelSpec) -> str:
    """Return a model's name as part of a module's name: lower case letters, digits and underscores."""
    name = Path(spec.path).name if spec.path else spec.name
    return re.sub(r"[^a-z0-9]+", "_", name.lower())[:_LONGEST_SLUG].strip("_") or "model"


def registry_entry(spec: ModelSpec, base: Path) -> dict[str, Any]:
    """Return the registry entry of an unregistered model, for a file in the folder `base`. Imports transformers."""
    from pytest_hfaccel.registry.additions import entry_of
    from pytest_hfaccel.registry.installed import default_config

    entry = entry_of(spec, default_config(spec.architecture))
    if spec.path and Path(spec.path).is_relative_to(base.resolve()):
        entry["path"] = f"./{Path(spec.path).relative_to(base.resolve()).as_posix()}"
    return entry


def _serving(directory: Path, architecture: str) -> tuple[str, ...]:
    return tuple(
        dict.fromkeys(
            module.module
            for module in read_modules(directory)
            if any(fnmatchcase(architecture, pattern) for pattern in module.patterns)
        )
    )


def _shipped_template(name: str) -> str:
    allowed = sorted(path.name for path in TEMPLATE_FOLDER.glob("hf_*template.py"))
    for candidate in (name, f"hf_{name}_template.py"):
        if candidate in allowed:
            return candidate
    # Families and their usual subfamilies share a template.
    by_subfamily = {
        subfamily: ModelFamilyClassifier().get_template_for_family(family, subfamily)
        for family, subfamilies in ModelFamilyClassifier().model_subfamilies.items()
        for subfamily in subfamilies
    }
    if name in by_subfamily:
        return by_subfamily[name]
    raise ConfigError(
        f"--template: {name!r} is neither a template nor a file.", hint=f"Allowed: {', '.join(allowed)}, or a file."
    )


def _render(template: str, folders: list[Path], values: dict[str, Any]) -> str:
    import jinja2

    # Python source, not HTML: values are quoted by the templates themselves.
    environment = jinja2.Environment(loader=jinja2.FileSystemLoader(folders), keep_trailing_newline=True)  # noqa: S701
    environment.policies["json.dumps_function"] = _literal
    try:
        text = environment.get_template(template).render(**values)
        ast.parse(text)
    except jinja2.TemplateError as error:
        place = f"{template}:{error.lineno}" if isinstance(error, jinja2.TemplateSyntaxError) else template
        raise ConfigError(f"--template: {place}: {error}") from error
    except (SyntaxError, ValueError) as error:
        raise ConfigError(f"--template: {template}: what it makes is not Python: {error}") from error
    return text


def _literal(value: object, **_: object) -> str:
    """Write a value as JSON that Python reads as the same: JSON has two escapes for a character beyond U+FFFF."""
    return _SURROGATES.sub(_joined, json.dumps(value))


def _joined(match: re.Match[str]) -> str:
    high, low = int(match[1], 16), int(match[2], 16)
    return f"\\U{0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00):08x}"
