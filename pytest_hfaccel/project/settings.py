"""The pytest settings of a project: which file holds them, and how a setting is added without touching the others."""

from __future__ import annotations

import configparser
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pytest_hfaccel.core.files import replace_file

# In the order in which pytest looks for them. The first four count without the section, too.
_FILES: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("pytest.toml", ("pytest",)),
    (".pytest.toml", ("pytest",)),
    ("pytest.ini", ("pytest",)),
    (".pytest.ini", ("pytest",)),
    ("pyproject.toml", ("tool.pytest", "tool.pytest.ini_options")),
    ("tox.ini", ("pytest",)),
    ("setup.cfg", ("tool:pytest",)),
)
_OWN = _FILES[:4]


@dataclass(frozen=True)
class SettingsFile:
    """Where the pytest settings of a project are, or belong.

    Attributes:
        path: The file, which may not be there yet.
        section: Its section for pytest.
        values: The settings that are there.
        problem: Why it cannot be read; empty when it can.
    """

    path: Path
    section: str
    values: Mapping[str, Any]
    problem: str = ""

    def lines(self, settings: Mapping[str, str]) -> str:
        """Write settings as they stand in this file."""
        quote: Callable[[str], str] = _quoted if self.path.suffix == ".toml" else str
        return "".join(f"{key} = {quote(value)}\n" for key, value in settings.items())

    def add(self, settings: Mapping[str, str]) -> bool:
        """Add settings that are not there; everything else in the file stays as it is.

        Returns:
            Whether that was possible. If not, the file is as it was.

        Raises:
            OSError: The file cannot be written.
        """
        if self.problem or settings.keys() & self.values.keys():
            return False
        before = self.path.read_bytes().decode("utf-8") if self.path.exists() else ""
        after = self._with(before, self.lines(settings))
        try:
            if _parse(self.path, after) != _merged(_parse(self.path, before), self.section, settings):
                return False
        except ValueError:
            return False
        replace_file(self.path, after)
        return True

    def _with(self, text: str, lines: str) -> str:
        """Put lines after the header of the section, which is added at the end if it is not there."""
        end = "\r\n" if "\r\n" in text else "\n"
        lines = lines.replace("\n", end)
        name = r"\s*\.\s*".join(map(re.escape, self.section.split(".")))
        header = re.search(rf"^[ \t]*\[[ \t]*{name}[ \t]*\][ \t]*(?:[#;].*?)?(?:\r?\n|\Z)", text, re.MULTILINE)
        if header is None:
            gap = "" if not text else end if text.endswith("\n") else end * 2
            return f"{text}{gap}[{self.section}]{end}{lines}"
        gap = "" if header[0].endswith("\n") else end
        return text[: header.end()] + gap + lines + text[header.end() :]


def find_settings(directory: Path) -> SettingsFile:
    """Return the file with the pytest settings of a folder; where there is none, the file that they belong in."""
    for name, sections in _FILES:
        path = directory / name
        if not path.is_file():
            continue
        try:
            data = _parse(path, path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            if name == "pyproject.toml" or (name, sections) in _OWN:
                return SettingsFile(path, sections[-1], {}, f"cannot be read: {error}")
            continue
        # pytest itself refuses a pyproject.toml with both of its sections.
        for section in reversed(sections):
            values = _at(data, section)
            if values is not None and not (section == "tool.pytest" and set(values) == {"ini_options"}):
                return SettingsFile(path, section, values)
        if (name, sections) in _OWN:
            return SettingsFile(path, sections[0], {})
    pyproject = directory / "pyproject.toml"
    if pyproject.is_file():
        return SettingsFile(pyproject, "tool.pytest.ini_options", {})
    return SettingsFile(directory / "pytest.ini", "pytest", {})


def modules_folder(directory: Path) -> Path:
    """Return the folder for model class modules: where a plain `pytest` of the project looks."""
    paths = find_settings(directory).values.get("testpaths", ())
    listed = paths.split() if isinstance(paths, str) else [str(path) for path in paths]
    for path in (*listed, "model_classes", "tests"):
        if path in listed or (directory / path).is_dir():
            folder = directory / path
            if not folder.is_file() and folder.resolve().is_relative_to(directory.resolve()):
                return folder
    return directory / "model_classes"


def _quoted(text: str) -> str:
    import json

    return json.dumps(text)


def _parse(path: Path, text: str) -> dict[str, Any]:
    """Read a file as nested dictionaries.

    Raises:
        ValueError: It has mistakes.
    """
    if path.suffix == ".toml":
        return tomllib.loads(text)
    parser = configparser.RawConfigParser(strict=True)
    try:
        parser.read_string(text)
    except configparser.Error as error:
        raise ValueError(str(error).replace("\n", " ")) from error
    return {name: dict(parser.items(name)) for name in parser.sections()}


def _keys(section: str) -> list[str]:
    return section.split(".")


def _at(data: Mapping[str, Any], section: str) -> Mapping[str, Any] | None:
    found: Any = data
    for key in _keys(section):
        found = found.get(key) if isinstance(found, Mapping) else None
    return found if isinstance(found, Mapping) else None


def _merged(data: Mapping[str, Any], section: str, settings: Mapping[str, str]) -> dict[str, Any]:
    key, _, rest = section.partition(".")
    inner = data.get(key)
    inner = inner if isinstance(inner, Mapping) else {}
    return {**data, key: _merged(inner, rest, settings) if rest else {**inner, **settings}}
