"""What users can name is documented: options, fixtures, hooks, registry keys, checks, commands, pages.

Every list comes from the thing itself: parsers, pytest's fixture manager, hook specifications, the registry's schema.
"""

from __future__ import annotations

import os
import pkgutil
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from pydantic import BaseModel

from pytest_hfaccel import plugin
from pytest_hfaccel.checks import built_in_checks
from pytest_hfaccel.cli import commands_of, make_parser
from pytest_hfaccel.core.config import RunConfig
from pytest_hfaccel.plugin import hookspecs
from pytest_hfaccel.registry.schema import DeviceEntry, RegistryFile

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = {path.relative_to(DOCS).as_posix(): path.read_text(encoding="utf-8") for path in sorted(DOCS.rglob("*.md"))}
GUIDE = PAGES["guide.md"]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def names(text: str, name: str) -> bool:
    """Whether a text names something as a whole: `--hf-reports` is not named by `--hf-reports-keep`."""
    return bool(re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", text))


def rows(text: str) -> list[str]:
    """The first cells of the rows of all tables."""
    return [line.split("|")[1] for line in text.splitlines() if line.startswith("| `")]


@pytest.mark.parametrize("option", RunConfig.options(), ids=lambda option: option.name)
def test_options_of_pytest(option: Any) -> None:
    if not option.flag:
        assert names(GUIDE, option.env), f"docs/guide.md does not name {option.env}"
        return
    row = [line for line in GUIDE.splitlines() if re.match(rf"\| `{option.flag}(?![\w-])", line)]
    assert len(row) == 1, f"docs/guide.md has no row for {option.flag}"
    assert f"`{option.env}`" in row[0]
    if option.old_flag:
        assert names(PAGES["migration.md"], option.old_flag)


PARSERS = dict(commands_of(make_parser()))


def text_about(command: str) -> str:
    """The sections of the documentation that name a command, and the pages that name it before their first section.

    The page of all commands counts by section.
    """
    found = []
    for text in PAGES.values():
        lead, *sections = re.split(r"(?m)^(?=##+ )", text)
        found += [text] if names(lead, command) and text is not PAGES["commands.md"] else []
        found += [section for section in sections if names(section, command)]
    return "\n".join(found)


@pytest.mark.parametrize("command", PARSERS)
def test_commands_and_their_options(command: str) -> None:
    parser = PARSERS[command]
    listed = PAGES["commands.md"]
    assert names(listed, command), f"docs/commands.md does not name {command}"
    text = text_about(command)
    for action in parser._actions:
        flags = [flag for flag in action.option_strings if action.dest != "help"]
        assert action.help, f"{command}: {action.dest} has no help text"
        assert not flags or any(names(text, flag) for flag in flags), f"no section about `{command}` names {flags[0]}"


def is_fixture(value: object) -> bool:
    """Whether `@pytest.fixture` made it: an object of its own, before pytest 8.4 a function with a mark."""
    return type(value).__name__ == "FixtureFunctionDefinition" or hasattr(value, "_pytestfixturefunction")


def test_fixtures() -> None:
    modules = [import_module(f"{plugin.__name__}.{module.name}") for module in pkgutil.iter_modules(plugin.__path__)]
    fixtures = {name for module in (plugin, *modules) for name, value in vars(module).items() if is_fixture(value)}
    assert {"hf_model", "hf_pool", "resource_pool"} <= fixtures
    section = GUIDE.partition("## Fixtures")[2].partition("\n## ")[0]
    assert [name for name in sorted(fixtures) if f"`{name}`" not in section] == []


def test_hooks() -> None:
    hooks = [name for name in vars(hookspecs) if name.startswith("pytest_hfaccel_")]
    assert len(hooks) >= 5
    section = GUIDE.partition("## Your own checks, backends and reporters")[2]
    assert [hook for hook in hooks if not names(section, hook)] == []


def test_checks() -> None:
    missing = [check.name for check in built_in_checks() if not any(names(cell, check.name) for cell in rows(GUIDE))]
    assert missing == [], "docs/guide.md has no row for these checks"


def entries(form: type[BaseModel]) -> Iterator[type[BaseModel]]:
    """A form of the registry's schema, and those inside of it."""
    yield form

    def inside(kind: Any) -> Iterator[type[BaseModel]]:
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from entries(kind)
        for argument in get_args(kind):
            yield from inside(argument)

    for field in form.model_fields.values():
        yield from inside(field.annotation)


@pytest.mark.parametrize("form", dict.fromkeys(entries(RegistryFile)), ids=lambda form: form.__name__)
def test_keys_of_a_registry_file(form: type[BaseModel]) -> None:
    page = PAGES["devices.md" if form is DeviceEntry else "registry.md"]
    cells = "".join(rows(page))
    if form.__name__ == "Bound":
        cells = page  # two words in a sentence
    assert [key for key in form.model_fields if f"`{key}`" not in cells] == []


def test_the_example_of_a_registry_file() -> None:
    (example,) = re.findall(r"```yaml\n(.*?)```", PAGES["registry.md"], re.DOTALL)
    assert RegistryFile.model_validate(yaml.safe_load(example)).expect


def test_every_page_is_in_the_navigation_once() -> None:
    navigation = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]

    def pages(node: Any) -> Iterator[str]:
        if isinstance(node, str):
            yield node
        for child in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
            yield from pages(child)

    listed = list(pages(navigation))
    made = {"index.md", "command_options.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md"}
    assert sorted(listed) == sorted([*PAGES, *made])


@pytest.mark.parametrize("picture", re.findall(r"\(docs/(pictures/[^)]+)\)", README))
def test_pictures_are_light(picture: str) -> None:
    assert (DOCS / picture).stat().st_size < 200_000


@pytest.mark.nightly
def test_the_site_is_built_without_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("material", reason="needs pytest-hfaccel[docs]")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    home = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert 'href="getting_started.html"' in home
    assert "--relative-error" in (tmp_path / "command_options.html").read_text(encoding="utf-8")


def test_the_files_that_the_architecture_names_exist() -> None:
    """Those that it names with their folder, below the package or the root."""
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    files = set(re.findall(r"`((?:[\w.]+/)+\w+\.\w+)`", text))
    assert len(files) > 60
    assert not {file for file in files if not any((root / file).exists() for root in (ROOT / "pytest_hfaccel", ROOT))}
