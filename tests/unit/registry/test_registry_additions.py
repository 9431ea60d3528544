"""Adding an entry leaves everything else in the file as it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_hfaccel.core.errors import ConfigError, RegistryError
from pytest_hfaccel.core.spec import ModelSpec
from pytest_hfaccel.registry import load_registry
from pytest_hfaccel.registry.additions import add_entry, entry_of

ENTRY = {"architecture": "BertModel", "dims": {"hidden_size": 64}}
TEXT = "    architecture: BertModel\n    dims:\n      hidden_size: 64\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "r.yaml"


def test_a_new_file(file: Path) -> None:
    add_entry(file, "me/mine", ENTRY)
    assert file.read_text(encoding="utf-8") == f"version: 1\n\nmodels:\n\n  me/mine:\n{TEXT}"
    assert load_registry([file]).get("me/mine").dims == {"hidden_size": 64}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("version: 1\nmodels:\n  a: {architecture: BertModel}  # mine\n# end\n", "\n  b:\n{text}# end\n"),
        ("version: 1\nmodels:\n  a: {architecture: BertModel}  # mine", "\n  b:\n{text}"),
        (
            "version: 1\nmodels:\n  a:\n    architecture: BertModel\n\n# shared\nclasses:\n  BertModel: {}\n",
            "\n  b:\n{text}\n# shared\nclasses:\n  BertModel: {}\n",
        ),
        ("version: 1\nmodels:\n", "\n  b:\n{text}"),
        ("version: 1\nclasses: {}\n", "\nmodels:\n  b:\n{text}"),
    ],
)
def test_comments_and_other_entries_stay(file: Path, before: str, after: str) -> None:
    file.write_text(before, encoding="utf-8")
    add_entry(file, "b", ENTRY)
    text = file.read_text(encoding="utf-8")
    tail = after.replace("{text}", TEXT)
    assert text.endswith(tail)
    assert before.startswith(text.removesuffix(tail).removesuffix("\n"))
    assert load_registry([file]).get("b").architecture == "BertModel"


def test_the_indentation_of_the_file(file: Path) -> None:
    file.write_text("version: 1\nmodels:\n    a:\n        architecture: BertModel\n", encoding="utf-8")
    add_entry(file, "b", {"architecture": "BertModel"})
    assert file.read_text(encoding="utf-8").endswith("\n    b:\n      architecture: BertModel\n")


def test_a_name_that_is_there(file: Path) -> None:
    file.write_text("version: 1\nmodels:\n  a: {architecture: BertModel}\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"r\.yaml:3: 'a' already exists"):
        add_entry(file, "a", ENTRY)


@pytest.mark.parametrize("text", ["version: 1\nmodels: {a: {architecture: BertModel}}\n", "{version: 1}\n"])
def test_a_file_that_cannot_be_added_to_stays(file: Path, text: str) -> None:
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match="cannot be added without rewriting the file"):
        add_entry(file, "b", ENTRY)
    assert file.read_text(encoding="utf-8") == text
    assert list(file.parent.iterdir()) == [file]


def test_a_file_with_mistakes_stays(file: Path) -> None:
    file.write_text("version: 1\nmodels: {a: {x: 1}}\n", encoding="utf-8")
    with pytest.raises(RegistryError, match="'x' is not a key here"):
        add_entry(file, "b", ENTRY)


def test_a_link_and_its_permissions_stay(file: Path, tmp_path: Path) -> None:
    file.write_text("version: 1\nmodels:\n  a: {architecture: BertModel}\n", encoding="utf-8")
    file.chmod(0o600)
    link = tmp_path / "link.yaml"
    link.symlink_to(file)
    add_entry(link, "b", ENTRY)
    assert link.is_symlink()
    assert file.stat().st_mode & 0o777 == 0o600
    assert "b" in load_registry([file])


def test_only_what_differs_from_the_defaults_is_written() -> None:
    dims = {
        "hidden_size": 64,
        "layers": [1, 2],
        "id2label": {"0": "a"},
        "same": {"model_type": "x", "size": 1},
        "other": {"model_type": "y", "size": 1},
        "sub": {"model_type": "x", "size": 2, "depth": 3},
    }
    sub = {"model_type": "x", "size": 1, "depth": 3}
    defaults = {"hidden_size": 32, "layers": [1, 2], "id2label": {}, "same": sub, "other": sub, "sub": sub}
    spec = ModelSpec("m", "BertModel", "feature-extraction", path="/p", dims=dims, requires_remote_code=True)
    assert entry_of(spec, defaults) == {
        "path": "/p",
        "architecture": "BertModel",
        "task": "feature-extraction",
        "dims": {
            "hidden_size": 64,
            "id2label": {"0": "a"},
            "other": {"model_type": "y", "size": 1},
            "sub": {"model_type": "x", "size": 2},
        },
    }
