"""A registry file as plain data that remembers its lines, with every mistake in it.

The files are untrusted, so this reads less than YAML: no tags, no anchors, no duplicate keys, no values JSON does not
have, and no deep nesting. It works on libyaml's events, because libyaml's own tree builder is recursive: a file of a
few thousand opening brackets ends the process. What is valid YAML is then checked against `schema.py`, which imports
pydantic; contents that passed are remembered, so that the next start need not import it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from reprlib import repr as short_repr
from typing import Any

import yaml

Loc = tuple[str | int, ...]
"""Where in a document: keys and indices from the top, e.g. `("models", "gpt2", "dtypes", 1)`."""


@dataclass(frozen=True)
class Problem:
    """One mistake.

    Attributes:
        file: The file as messages name it.
        line: Line number from 1; 0 where the mistake has no line (a file that is not there).
        loc: Where in the document.
        text: What is wrong, and on further lines what is allowed.
    """

    file: str
    line: int
    loc: Loc
    text: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        return f"{place}: {show_loc(self.loc)}: {self.text}" if self.loc else f"{place}: {self.text}"


def show_loc(loc: Loc) -> str:
    """Write a location the way people write one: `models.gpt2.dtypes[1]`."""
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in loc).removeprefix(".")


def suggest(word: str, known: Iterable[str]) -> str:
    """Return ` Did you mean 'x'?` for the known name nearest to `word`, or nothing when none is near."""
    from difflib import get_close_matches

    by_lower = {name.lower(): name for name in known}
    near = get_close_matches(word.lower(), by_lower, n=1)
    return f" Did you mean {by_lower[near[0]]!r}?" if near else ""


def not_allowed(word: object, noun: str, allowed: Iterable[str]) -> str:
    """Say that `word` is not one of the `allowed`, which one was probably meant, and what all of them are."""
    allowed = list(allowed)
    return f"{word!r} is not {noun}.{suggest(str(word), allowed)}\nAllowed: {', '.join(allowed)}."


_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_MAX_DEPTH = 24
_PLAIN_TAGS = frozenset(f"tag:yaml.org,2002:{name}" for name in ("null", "bool", "int", "float", "str"))
_STRING_TAG = "tag:yaml.org,2002:str"
# YAML 1.1 wants a dot in a float; without one the text "1e-5" would silently become a config value.
_FLOAT_READ_AS_TEXT = re.compile(r"[-+]?\d+[eE][-+]?\d+")


@dataclass
class Document:
    """A file that was read.

    Attributes:
        file: The file as messages name it.
        directory: Where it lies; relative paths in it start there.
        text: Its content.
        data: Its plain data, `None` if it is not YAML at all.
        lines: Line number (from 1) of each key and item.
        problems: What is wrong with it as YAML.
        is_model_map: Whether the file is a bare mapping of models, which adds facts to models known elsewhere.
    """

    file: str
    directory: Path
    text: str = ""
    data: Any = None
    lines: dict[Loc, int] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    is_model_map: bool = False

    def line(self, loc: Loc) -> int:
        """Return the line of a location, or of what encloses it when it is not there itself."""
        while loc and loc not in self.lines:
            loc = loc[:-1]
        return self.lines.get(loc, 1)

    def place(self, loc: Loc) -> str:
        """Return `file:line` of a location."""
        return f"{self.file}:{self.line(loc)}"

    def add_problem(self, loc: Loc, text: str, line: int | None = None) -> None:
        """Note a mistake."""
        self.problems.append(Problem(self.file, self.line(loc) if line is None else line, loc, text))


def read_document(path: Path, file: str = "") -> Document:
    """Read a YAML file. Never raises for what is in it: mistakes are in the document's `problems`.

    Args:
        path: The file.
        file: How messages are to name it; by default its path, relative to the working directory if it is below.
    """
    document = Document(file or _shown(path), path.resolve().parent)
    try:
        document.text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        document.add_problem((), f"cannot be read: {reason}.", line=0)
        return document
    parse_document(document)
    return document


def parse_document(document: Document) -> None:
    """Fill `data`, `lines` and `problems` from `text`."""
    try:
        document.data = _EventReader(document).read()
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        what = getattr(error, "problem", None) or getattr(error, "reason", None) or "it cannot be parsed"
        document.add_problem((), f"not YAML: {what}.", line=mark.line + 1 if mark else 0)


_KEYS_OF_THE_FORMAT = frozenset({"version", "classes", "models", "devices", "expect"})


def wrap_model_map(document: Document) -> None:
    """Read `{"<hub id>": {"additional_deps": [...]}}`, the plain JSON form, as the `models` of a file of ours."""
    data = document.data
    if not isinstance(data, dict) or not data or _KEYS_OF_THE_FORMAT & data.keys():
        return
    if not all(isinstance(value, dict) for value in data.values()):
        return
    document.is_model_map = True
    document.data = {"version": 1, "models": data}
    document.lines = {(): 1, ("models",): 1, **{("models", *loc): line for loc, line in document.lines.items() if loc}}
    document.problems = [
        replace(problem, loc=("models", *problem.loc)) if problem.loc else problem for problem in document.problems
    ]


def _shown(path: Path) -> str:
    absolute = path.absolute()
    return str(absolute.relative_to(Path.cwd()) if absolute.is_relative_to(Path.cwd()) else absolute)


class _EventReader:
    """Builds plain data from the loader's events, noting lines and problems in the document."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self._loader = _Loader(document.text)

    def read(self) -> Any:
        self._loader.get_event()  # start of the stream
        if isinstance(self._loader.get_event(), yaml.StreamEndEvent):
            self._document.add_problem((), "is empty.")
            return None
        data = self._value((), self._loader.get_event())
        self._loader.get_event()  # end of the document
        if not isinstance(self._loader.get_event(), yaml.StreamEndEvent):
            self._document.add_problem((), "contains more than one document ('---').")
        return data

    def _value(self, loc: Loc, event: Any) -> Any:
        line = event.start_mark.line + 1
        self._document.lines.setdefault(loc, line)
        if isinstance(event, yaml.AliasEvent):
            self._document.add_problem(loc, "aliases ('*name') are not supported; write the value out.", line)
            return None
        if event.tag is not None:
            self._document.add_problem(loc, f"tags ({event.tag!r}) are not supported.", line)
        if isinstance(event, yaml.ScalarEvent):
            return self._scalar(loc, event)
        if len(loc) > _MAX_DEPTH:
            raise yaml.MarkedYAMLError(problem="it is nested too deeply", problem_mark=event.start_mark)
        return self._mapping(loc) if isinstance(event, yaml.MappingStartEvent) else self._sequence(loc)

    def _sequence(self, loc: Loc) -> list[Any]:
        items: list[Any] = []
        while not isinstance(event := self._loader.get_event(), yaml.SequenceEndEvent):
            items.append(self._value((*loc, len(items)), event))
        return items

    def _mapping(self, loc: Loc) -> dict[str, Any]:
        items: dict[str, Any] = {}
        while not isinstance(event := self._loader.get_event(), yaml.MappingEndEvent):
            line = event.start_mark.line + 1
            if not isinstance(event, yaml.ScalarEvent) or self._tag(event) != _STRING_TAG:
                self._value((*loc, "?"), event)
                self._value((*loc, "?"), self._loader.get_event())
                self._document.add_problem(loc, "a key must be text; put it in quotes.", line)
                continue
            key = (*loc, event.value)
            first = self._document.lines.setdefault(key, line)
            value = self._value(key, self._loader.get_event())
            if event.value in items:
                self._document.add_problem(key, f"this key already exists, in line {first}.", line)
            items.setdefault(event.value, value)
        return items

    def _tag(self, event: Any) -> str:
        return str(self._loader.resolve(yaml.ScalarNode, event.value, event.implicit))

    def _scalar(self, loc: Loc, event: Any) -> Any:
        tag = self._tag(event)
        line = event.start_mark.line + 1
        if tag not in _PLAIN_TAGS:
            kind = tag.rpartition(":")[2]
            self._document.add_problem(loc, f"YAML reads {event.value!r} as a {kind}; put it in quotes.", line)
            return None
        if tag == _STRING_TAG:
            if event.implicit[0] and _FLOAT_READ_AS_TEXT.fullmatch(event.value):
                text = re.sub("[eE]", ".0e", event.value, count=1)
                self._document.add_problem(loc, f"YAML reads {event.value!r} as text; write {text}.", line)
            return event.value
        return self._loader.construct_object(yaml.ScalarNode(tag, event.value))


_WANTED = {
    "bool_type": "true or false",
    "dict_type": "a mapping",
    "int_type": "a whole number",
    "list_type": "a list",
    "model_type": "a mapping",
    "string_type": "text; put it in quotes",
}


def validate(document: Document, extra_kinds: Sequence[str] = (), cache_dir: Path | None = None) -> None:
    """Add to `document.problems` whatever the schema says against it.

    Args:
        document: A document that was read.
        extra_kinds: Device kinds of third-party backends, also allowed in `expect`.
        cache_dir: Where contents that passed are remembered. Such a content is not checked again, which saves
            importing pydantic: most of the time that loading a registry takes.
    """
    if document.data is None:
        return
    stamp = (
        cache_dir / "registry" / _fingerprint(document, extra_kinds) if cache_dir and not document.problems else None
    )
    if stamp and stamp.exists():
        return
    _check(document, extra_kinds)
    if stamp and not document.problems:
        with suppress(OSError):  # a cache that cannot be written costs the next start a tenth of a second
            stamp.parent.mkdir(parents=True, exist_ok=True)
            stamp.touch()


def _fingerprint(document: Document, extra_kinds: Sequence[str]) -> str:
    """Hash what the verdict depends on: the content, and everything the schema takes its allowed values from."""
    from pytest_hfaccel.core import results, spec, tasks

    sources = [
        Path(__file__).with_name("schema.py"),
        *(Path(str(module.__file__)) for module in (results, spec, tasks)),
    ]
    digest = sha256("\0".join((document.text, *extra_kinds)).encode())
    for source in sources:
        digest.update(source.read_bytes())
    return digest.hexdigest()


def _check(document: Document, extra_kinds: Sequence[str]) -> None:
    from pydantic import ValidationError

    from pytest_hfaccel.registry.schema import RegistryFile

    try:
        RegistryFile.model_validate(document.data, context={"extra_kinds": tuple(extra_kinds)})
    except ValidationError as error:
        for detail in error.errors(include_url=False):
            loc = tuple(step for step in detail["loc"] if step != "[key]")
            document.add_problem(loc, _text(loc, detail))


def _text(loc: Loc, detail: Any) -> str:
    from pytest_hfaccel.registry.schema import entry_at

    kind, given, context = detail["type"], detail["input"], detail.get("ctx", {})
    if kind == "extra_forbidden":
        return not_allowed(loc[-1], "a key here", entry_at(loc[:-1]).model_fields)
    if kind == "not_allowed":
        return not_allowed(given, context["noun"], context["allowed"])
    if kind == "malformed":
        return f"{short_repr(given)} is not {context['noun']}."
    if kind == "both":
        return str(detail["msg"])
    if kind == "missing":
        return "is missing."
    if kind in _WANTED:
        return f"{short_repr(given)} is not {_WANTED[kind]}."
    return f"{detail['msg']}: {short_repr(given)}."
