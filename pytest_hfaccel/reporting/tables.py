"""Tables of text: aligned columns, blocks of columns that fit a terminal, Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence


def format_table(rows: Iterable[Sequence[str]]) -> list[str]:
    """Return rows as lines with aligned columns and no trailing spaces."""
    listed = list(rows)
    widths = [_width(column) for column in zip(*listed, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in listed]


def table_in_blocks(rows: Sequence[Sequence[str]], width: int) -> str:
    """Return rows, the first one the headings, as text; columns that do not fit side by side go one below the other."""
    first, *others = zip(*rows, strict=True)
    blocks, used = [[first]], _width(first)
    for column in others:
        if len(blocks[-1]) > 1 and used + 2 + _width(column) > width:
            blocks.append([first])
            used = _width(first)
        blocks[-1].append(column)
        used += 2 + _width(column)
    return "\n\n".join("\n".join(_ruled(columns)) for columns in blocks)


def _ruled(columns: Iterable[Sequence[str]]) -> list[str]:
    ruled = ([head, "-" * _width([head, *texts]), *texts] for head, *texts in columns)
    return format_table(zip(*ruled, strict=True))


def _width(column: Sequence[str]) -> int:
    return max(map(len, column))


def markdown_table(
    heads: Sequence[object], rows: Iterable[Sequence[object]], numbers: Iterable[int] = ()
) -> Iterator[str]:
    """Yield the lines of a table in Markdown.

    Args:
        heads: Its headings.
        rows: Its rows; their texts are taken as they are.
        numbers: Columns of numbers, which stand to the right.
    """
    right = frozenset(numbers)
    yield "| " + " | ".join(map(str, heads)) + " |"
    yield "|" + "".join("---:|" if column in right else "---|" for column in range(len(heads)))
    for row in rows:
        yield "| " + " | ".join(map(str, row)) + " |"
