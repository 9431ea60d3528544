"""Reading untrusted YAML: what is refused, and at which line."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_hfaccel.registry.document import read_document


def problems(tmp_path: Path, text: str | bytes) -> list[str]:
    file = tmp_path / "r.yaml"
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    return [str(problem) for problem in read_document(file, "r.yaml").problems]


def test_plain_data_with_the_line_of_every_key_and_item(tmp_path: Path) -> None:
    file = tmp_path / "r.yaml"
    file.write_text("a:\n  b: [1, 2.5, true, null, text]\nc:\n- x\n- {d: 'y'}\n", encoding="utf-8")
    document = read_document(file)
    assert document.data == {"a": {"b": [1, 2.5, True, None, "text"]}, "c": ["x", {"d": "y"}]}
    assert document.problems == []
    assert [document.line(loc) for loc in (("a",), ("a", "b", 2), ("c", 1), ("c", 1, "d", "gone"))] == [1, 2, 5, 5]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: 1\nb: 2\na: 3\n", "r.yaml:3: a: this key already exists, in line 1."),
        ("a: &x 1\nb: *x\n", "r.yaml:2: b: aliases ('*name') are not supported; write the value out."),
        ("a: !!python/name:os.system x\n", "r.yaml:1: a: tags ('tag:yaml.org,2002:python/name:os.system') are not"),
        ("a: 2024-01-01\n", "r.yaml:1: a: YAML reads '2024-01-01' as a timestamp; put it in quotes."),
        ("a:\n  eps: 1e-5\n", "r.yaml:2: a.eps: YAML reads '1e-5' as text; write 1.0e-5."),
        ("a:\n  no: 1\n", "r.yaml:2: a: a key must be text; put it in quotes."),
        ("[1]: 2\n", "r.yaml:1: a key must be text; put it in quotes."),
        ("a: [1\nb: 2\n", "r.yaml:2: not YAML: "),
        ("a: 1\n---\nb: 2\n", "r.yaml:1: contains more than one document ('---')."),
        ("", "r.yaml:1: is empty."),
        (b"a: \xff\n", "r.yaml: cannot be read: it is not UTF-8 text."),
        ("a: \x07\n", "r.yaml: not YAML: "),
    ],
)
def test_what_is_refused(tmp_path: Path, text: str | bytes, expected: str) -> None:
    found = problems(tmp_path, text)
    assert len(found) == 1
    assert found[0].startswith(expected)


def test_deep_nesting_is_refused_and_does_not_end_the_process(tmp_path: Path) -> None:
    (found,) = problems(tmp_path, "a: " + "[" * 200_000)
    # Newer libyaml refuses before we do, in words of its own.
    assert found in (
        "r.yaml:1: not YAML: it is nested too deeply.",
        "r.yaml:1: not YAML: exceeded maximum nesting depth.",
    )


def test_a_quoted_number_is_text(tmp_path: Path) -> None:
    assert problems(tmp_path, "a: '1e-5'\n") == []


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    document = read_document(tmp_path / "gone.yaml", "gone.yaml")
    assert [str(problem) for problem in document.problems] == ["gone.yaml: cannot be read: No such file or directory."]


def test_messages_name_a_file_below_the_working_directory_relative_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert read_document(tmp_path / "sub" / "r.yaml").file == "sub/r.yaml"
    monkeypatch.chdir("/")
    assert read_document(tmp_path / "r.yaml").file == str(tmp_path / "r.yaml").removeprefix("/")
