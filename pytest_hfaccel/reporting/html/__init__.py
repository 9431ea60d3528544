"""The page of a run, and the support site: HTML files that need no network, with all their data inside.

`page_data` and `site_data` make plain data of the records, `assets/` is what shows it in a browser, `vendor/` the
libraries it uses, as their authors published them (`vendor/LICENSES.txt`). There is no build step: the files are put
one after the other.
"""

from __future__ import annotations

import base64
import gzip
import html
import json
import re
from collections.abc import Mapping, Sequence
from functools import cache
from hashlib import sha256
from importlib import resources
from typing import Any

from pytest_hfaccel.core.results import CellResult, Ended
from pytest_hfaccel.reporting.evidence import Evidence
from pytest_hfaccel.reporting.html.page_data import PastRun, page_data, read_past_runs
from pytest_hfaccel.reporting.html.site_data import site_data

__all__ = ["SITE_TITLE", "PastRun", "make_first_page", "make_page", "make_site_page", "read_past_runs"]


_LIBRARIES = ("preact.min.umd.js", "hooks.umd.js", "signals-core.min.js", "signals.min.js", "htm.umd.js")
_PLOTS = ("uPlot.iife.min.js",)
_SHARED = ("data.js", "query.js", "state.js", "matrix.js", "charts.js", "details.js", "views.js")
"""Ours, each after those it imports. They are ES modules; on the page they share one scope, so no name is in two."""
_RUN, _SITE = "app.js", "site.js"
"""What begins the page of a run, and the support site."""

SITE_TITLE = "Which classes of transformers work where - pytest-hfaccel"

_IMPORT = re.compile(r"^import\s[^;]*;\n", re.MULTILINE)
_EXPORT = re.compile(r"^export (?=const|let|function|async|class)", re.MULTILINE)
_SOURCE_MAP = re.compile(r"^//# sourceMappingURL=.*$", re.MULTILINE)
_SLOT = re.compile(r"\{\{(\w+)\}\}")


def make_page(
    results: Sequence[CellResult],
    header: Mapping[str, Any],
    *,
    ended: str = Ended.FINISHED,
    earlier: Sequence[PastRun] = (),
    comparison: Mapping[str, Any] | None = None,
    root: str | None = None,
) -> str:
    """Return the page of a run.

    Args:
        results: The records of all cells of the run.
        header: Plain JSON about the run; see `write_reports`.
        ended: How the run ended.
        earlier: Earlier runs, oldest first, to say what changed; see `read_past_runs`.
        comparison: What changed since a baseline; its schema is `comparison`.
        root: A directory: paths below it are written relative to it.

    The data is gzipped and in base64, so nothing in it can end the element that holds it; and the page's policy allows
    only the scripts that this function put there, by their hashes.
    """
    index, details = page_data(results, header, ended=ended, earlier=earlier, comparison=comparison, root=root)
    data = {"index": index, **{f"details-{number}": chunk for number, chunk in enumerate(details)}}
    return _put_together(
        f"{index['run']['id'] or 'Run'} - pytest-hfaccel",
        _RUN,
        data,
        "This page needs JavaScript. summary.json, beside it, has the results as text.",
    )


def make_site_page(evidence: Evidence, hub_ids: Mapping[str, Sequence[str]]) -> str:
    """Return the page of the support site, which has all its results.

    Args:
        evidence: What is known.
        hub_ids: By class of transformers, or by model type: the hub ids that a search finds it by.
    """
    return _put_together(
        SITE_TITLE,
        _SITE,
        {"index": site_data(evidence, hub_ids)},
        "This page needs JavaScript. support.json, beside it, has the results as text.",
    )


def _put_together(title: str, program: str, data: Mapping[str, Any], without_scripts: str) -> str:
    scripts = _scripts(program)
    slots = {
        "title": html.escape(title),
        "policy": "; ".join(
            (
                "default-src 'none'",
                f"script-src {' '.join(_hash_of(script) for script in scripts)}",
                "style-src 'unsafe-inline'",
                "img-src data:",
                "base-uri 'none'",
                "form-action 'none'",
            )
        ),
        "style": _read("vendor", "uPlot.min.css") + _read("assets", "style.css"),
        "without_scripts": html.escape(without_scripts),
        "data": "\n".join(
            f'<script type="application/octet-stream" id="{name}">{_packed(content)}</script>'
            for name, content in data.items()
        ),
        "scripts": "\n".join(f"<script>{script}</script>" for script in scripts),
    }
    return _SLOT.sub(lambda slot: slots[slot[1]], _read("assets", "page.html"))


def make_first_page(run: str) -> str:
    """Return the page that stands there until the run ends, and for good if it is killed."""
    return _read("assets", "first.html").replace("{{run}}", html.escape(run))


def _packed(content: Any) -> str:
    text = json.dumps(content, allow_nan=False, separators=(",", ":"), ensure_ascii=False)
    # A name may have half of a surrogate pair in it, which has no UTF-8.
    return base64.b64encode(gzip.compress(text.encode(errors="replace"), 6, mtime=0)).decode()


def _hash_of(script: str) -> str:
    return f"'sha256-{base64.b64encode(sha256(script.encode()).digest()).decode()}'"


@cache
def _scripts(program: str) -> tuple[str, ...]:
    """The libraries, then ours as one module's text."""
    libraries = [_SOURCE_MAP.sub("", _read("vendor", name)) for name in (*_LIBRARIES, *_PLOTS)]
    ours = [_EXPORT.sub("", _IMPORT.sub("", _read("assets", name))) for name in (*_SHARED, program)]
    return (*libraries, '(() => {\n"use strict";\n' + "\n".join(ours) + "})();\n")


@cache
def _read(folder: str, name: str) -> str:
    return resources.files(__package__).joinpath(folder, name).read_text(encoding="utf-8")
