"""The files of the support site: a page with all its data, and the newest results as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from pytest_hfaccel.core.errors import ConfigError
from pytest_hfaccel.core.files import replace_file
from pytest_hfaccel.reporting.evidence import Evidence
from pytest_hfaccel.reporting.html import SITE_TITLE, make_site_page
from pytest_hfaccel.reporting.runs import PAGE, RUNS
from pytest_hfaccel.reporting.support_matrix import coverage_json, write_coverage_json

DATA = "support.json"


def write_site(directory: Path, evidence: Evidence, hub_ids: Mapping[str, Sequence[str]]) -> Path:
    """Write the support site, over an earlier one.

    Args:
        directory: Made where it is missing.
        evidence: What the site shows.
        hub_ids: By class of transformers, or by model type: the hub ids that a search finds it by.

    Returns:
        The page.

    Raises:
        ConfigError: The directory holds reports or another page, or cannot be written.
    """
    page = directory / PAGE
    another = "Choose another directory with --output."
    try:
        if (directory / RUNS).exists():
            raise ConfigError(
                f"{directory} is a directory of reports, whose page the site would replace.", hint=another
            )
        if page.exists() and SITE_TITLE not in page.read_text(encoding="utf-8", errors="replace")[:4000]:
            raise ConfigError(f"{page} is another page, which the site would replace.", hint=another)
        write_coverage_json(directory / DATA, coverage_json(evidence.newest()))
        replace_file(page, make_site_page(evidence, hub_ids))
    except OSError as error:
        raise ConfigError(f"{error.filename or directory} cannot be written: {error.strerror}", hint=another) from error
    return page
