"""Hooks of MkDocs (`mkdocs.yml`): pages that are not in docs/, because they have their place elsewhere.

README.md becomes the home page; ARCHITECTURE.md, CONTRIBUTING.md and SECURITY.md are taken as they are; the options of
the commands come from their parsers. The support site of the sweeps in docs/data is made beside the pages.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

ROOT = Path(__file__).parents[1]
_SUPPORT_SITE = "support_site"
_LINK = "<!-- link to the support site -->"
_FROM_THE_ROOT = {
    "index.md": "README.md",
    **{name: name for name in ("ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md")},
}


def on_files(files: Any, *, config: Any) -> Any:
    """Add the pages."""
    for page, source in _FROM_THE_ROOT.items():
        text = (ROOT / source).read_text(encoding="utf-8")
        files.append(File.generated(config, page, content=_moved(text)))
    files.append(File.generated(config, "command_options.md", content=_options_of_commands()))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Lead links to files outside of docs/ to their pages, and to the support site."""
    # In HTML: to MkDocs, a link in Markdown to what it has not made would be broken.
    markdown = markdown.replace(_LINK, f'<a href="{_SUPPORT_SITE}/index.html">Open the support site.</a>')
    return re.sub(r"\]\(\.\./(" + "|".join(map(re.escape, _FROM_THE_ROOT.values())) + r")", r"](\1", markdown)


def on_post_build(*, config: Any) -> None:
    """Write the support site.

    Raises:
        RuntimeError: It could not be written; the reason was printed.
    """
    from pytest_hfaccel.cli import main

    runs = sorted(map(str, (ROOT / "docs" / "data").glob("support_*.json.xz")))
    if main(["site", *runs, "--output", str(Path(config["site_dir"], _SUPPORT_SITE))]) != 0:
        raise RuntimeError("the support site could not be written")


def _moved(text: str) -> str:
    """Return a page of the root with links that hold in docs/."""
    text = re.sub(r"(\]\(|src=\")docs/", r"\1", text)
    return re.sub(r"\]\(README\.md", "](index.md", text)


def _options_of_commands() -> str:
    from pytest_hfaccel.cli import commands_of, make_parser

    os.environ["COLUMNS"] = "100"  # argparse wraps to it
    parts = ["# All options of all commands\n\n[Commands](commands.md) says what they are for.\n"]
    for name, parser in commands_of(make_parser()):
        parts.append(f"## {name}\n\n```text\n{parser.format_help().rstrip()}\n```\n")
    return "\n".join(parts)
