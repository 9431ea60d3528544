"""What is wrong with a registry file, said so that the reader can put it right."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

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
